"""Export of a model's networks as programs that run without audiovq: ONNX, or torch.export's .pt2.

    encoder   spectrogram (batch, planes, bins, frames) in [0, 1] → codes (batch, quantizers, rows, columns)
    decoder   codes → spectrogram, and its linear magnitude (batch, n_fft / 2 + 1, frames); of stereo also the gains of
              both channels (batch, 2, n_fft / 2 + 1, frames), and the angle by which the left one is turned
    vivid     as decoder, by the vivid decoder, where the model has one: for new sounds
    prior     tokens so far (batch, length), labels (batch, labels) → logits (batch, size) of the next
    programs.json   facts for the caller: rates, sizes, meaning of tokens, labels

Any number of clips, frames and tokens is allowed; frames are a multiple of the frames of a code, and all
clips of a batch have the same length. Models without codes use latents in place of codes, and models with a
dense layer take clips of one length. Of priors, only a transformer is exported: torch.export cannot trace the
grid of a PixelCNN for variable lengths, and a masked prior samples in many steps, each of other cells.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import to_json
from audiovq.dataset.numbers import Numbers
from audiovq.models.autoencoder.gaussian import Gaussian
from audiovq.models.autoencoder.vivid import VividDecoder
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.transformer import Transformer
from audiovq.runtime.files import atomic, write_json
from audiovq.runtime.outputs import writing_into
from audiovq.spectral.spectrogram import LOUDEST_DB, Spectrogram

Format = Literal["onnx", "pt2"]
TRACED = 3
"""Batch size and columns for tracing: any number except 0 and 1, which torch takes for constants."""


class Encoder(nn.Module):
    """(batch, planes, bins, frames) in [0, 1] → codes (batch, quantizers, rows, columns), or latents."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.autoencoder = model.autoencoder

    def forward(self, spectrogram: Tensor) -> Tensor:
        """As `Autoencoder.encode`, or `latents`, for clips of equal length."""
        autoencoder = self.autoencoder
        missing = autoencoder.rows * autoencoder.stride[0] - autoencoder.bins
        if autoencoder.planes > 1:
            spectrogram = spectrogram - autoencoder.neutral
        padded = nn.functional.pad(spectrogram, (0, 0, 0, missing))
        latents: Tensor = autoencoder.latent_projection(
            autoencoder.encoder(padded, _all(spectrogram))
        )
        if autoencoder.config.quantizes:
            batch, _, rows, columns = latents.shape
            codes: Tensor = autoencoder.quantizer.encode(latents.permute(0, 2, 3, 1).flatten(0, 2))
            return codes.view(batch, rows, columns, -1).permute(0, 3, 1, 2)
        if autoencoder.dense is not None:
            latents = autoencoder.dense(latents)
        return (
            latents.chunk(2, dim=1)[0] if isinstance(autoencoder.bottleneck, Gaussian) else latents
        )


class Decoder(nn.Module):
    """Output of `Encoder` → spectrogram (batch, planes, bins, frames), magnitude (batch, bins, frames).

    Of stereo also gains and the turn, as `Stereo.sides` gives them.
    """

    def __init__(self, model: Model, vivid: VividDecoder | None = None) -> None:
        """`vivid`: in place of the autoencoder's own decoder."""
        super().__init__()
        self.autoencoder = model.autoencoder
        self.vivid = vivid
        self.spectrogram: Spectrogram = model.spectrogram

    def forward(self, codes: Tensor) -> tuple[Tensor, ...]:
        """As `Autoencoder.decode`, and `Spectrogram.magnitude` of the result: linear, its peak near 1."""
        autoencoder, grid = self.autoencoder, codes
        if autoencoder.config.quantizes:
            batch, _, rows, columns = codes.shape
            vectors = autoencoder.quantizer.decode(codes.permute(0, 2, 3, 1).flatten(0, 2))
            grid = vectors.view(batch, rows, columns, -1).permute(0, 3, 1, 2)
        elif autoencoder.dense is not None:
            grid = autoencoder.dense.back(codes)
        mask = _all(grid)
        raw = (self.vivid or autoencoder.decoder)(grid, mask)[:, :, : autoencoder.bins]
        contrast = None if self.vivid is None else self.vivid.contrast
        spectrogram = autoencoder.apply_contrast(autoencoder.values(raw, mask), contrast)
        found = spectrogram, self.spectrogram.magnitude(spectrogram)
        stereo = self.spectrogram.stereo
        return found if stereo is None else (*found, *stereo.sides(spectrogram))


class Step(nn.Module):
    """tokens so far (batch, length), labels (batch, labels) → logits (batch, size) of the next one.

    Tokens that cannot come next have -inf. There is no cache between calls.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """As `Prior.forward`, whose logits at a position depend on earlier tokens only."""
        # With two more columns no branch of the prior depends on the length, which torch would fix to that of tracing.
        padding = 2 * self.prior.vocabulary.slots + 2
        padded = nn.functional.pad(tokens, (0, padding))
        logits: Tensor = self.prior(padded, labels)[:, tokens.shape[1]]
        return logits


def _all(x: Tensor) -> Tensor:
    """Mask of clips of equal length."""
    return x.new_ones(1, 1, 1, 1)


def write_programs(
    model: Model, folder: Path | str, form: Format = "onnx", *, overwrite: bool = False
) -> list[Path]:
    """Write a model's programs and `programs.json` into `folder`; returns the programs' paths.

    Neither form contains a pickle as written here. But torch.load of a .pt2 would run a pickle in it, so,
    unlike ONNX files, only open .pt2 files from people you trust. Raises AudiovqError where the packages
    that write ONNX are missing.
    """
    if form == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise AudiovqError(
            "ONNX needs more packages: pip install -e '.[onnx]' in audiovq's folder, or give --format pt2"
        )
    folder, paths = Path(folder), []
    parts = {p: model.header.get(p, {}).get("sha256") for p in ("autoencoder", "vivid", "prior")}
    command = {"verb": "export", "format": form, **parts}
    with writing_into(folder, overwrite, command) as filled, _quiet():
        for name, (program, outputs) in _traced(model).items():
            paths.append(folder / f"{name}.{form}")
            filled.expect(paths[-1].name)
            with atomic(paths[-1]) as temporary:
                if form == "onnx":
                    made: Any = torch.onnx.export(
                        program, dynamo=True, verbose=False, output_names=outputs
                    )
                    temporary.write_bytes(made.model_proto.SerializeToString())
                else:
                    file = io.BytesIO()  # torch raises no OSError on a full disk
                    torch.export.save(program, file)
                    temporary.write_bytes(file.getvalue())
        filled.expect("programs.json")
        write_json(folder / "programs.json", facts(model))
    return paths


def facts(model: Model) -> dict[str, Any]:
    """Facts for a caller of the programs, as plain values."""
    described = {
        "format": "audiovq-programs",
        "version": 1,
        "spectrogram": to_json(model.spectrogram.config) | {"loudest_db": LOUDEST_DB},
        "stride": list(model.autoencoder.stride),
        "clip_frames": model.clip_frames,
        "labels": {
            name: values.to_json()
            | {"size": len(values), "first": values.first, "digits": values.digits}
            if isinstance(values, Numbers)
            else list(values)
            for name, values in model.labels.items()
        },
    }
    if model.autoencoder.config.quantizes:
        vocabulary = model.vocabulary
        described["vocabulary"] = dataclasses.asdict(vocabulary) | {
            name: getattr(vocabulary, name) for name in ("slots", "end", "size")
        }
    return described


def _traced(model: Model) -> dict[str, tuple[torch.export.ExportedProgram, list[str]]]:
    """Programs by name, each with the names of its outputs."""
    autoencoder, device = model.autoencoder, model.device
    any_number: Any = torch.export.Dim.DYNAMIC
    columns = TRACED if autoencoder.dense is None else autoencoder.columns
    clips = torch.zeros(
        TRACED, autoencoder.planes, autoencoder.bins, columns * autoencoder.stride[1], device=device
    )
    frames: dict[int, Any] = {0: any_number}
    grid: dict[int, Any] = {0: any_number}
    if autoencoder.dense is None:
        frames[3] = autoencoder.stride[1] * torch.export.Dim("columns")
        grid[3] = any_number
    with torch.no_grad():
        codes = Encoder(model)(clips)
    parts: dict[str, tuple[nn.Module, dict[str, Tensor], dict[str, dict[int, Any]], list[str]]] = {
        "encoder": (Encoder(model), {"spectrogram": clips}, {"spectrogram": frames}, ["codes"]),
    }
    decoders = {"decoder": Decoder(model)}
    if model.vivid is not None:
        decoders["vivid"] = Decoder(model, model.vivid)
    for name, decoder in decoders.items():
        outputs = ["spectrogram", "magnitude", *(["gains", "turn"] if model.channels > 1 else [])]
        parts[name] = decoder, {"codes": codes}, {"codes": grid}, outputs
    if isinstance(model.prior, Transformer):
        parts["prior"] = *_step(model.prior), ["logits"]
    traced = {}
    for name, (module, given, shapes, outputs) in parts.items():
        with torch.no_grad():
            program = torch.export.export(module.eval(), (), given, dynamic_shapes=shapes)
        program.example_inputs = None  # torch would pickle them into a .pt2
        traced[name] = program, outputs
    return traced


def _step(prior: Transformer) -> tuple[Step, dict[str, Tensor], dict[str, dict[int, Any]]]:
    """The program of a prior, the inputs that it is traced with, and their sizes that may be any number."""
    any_number: Any = torch.export.Dim.DYNAMIC
    labels = prior.open_labels(TRACED)
    tokens = torch.full((TRACED, 2 * TRACED), prior.vocabulary.end, device=labels.device)
    shapes = {"tokens": {0: any_number, 1: any_number}, "labels": {0: any_number}}
    return Step(prior), {"tokens": tokens, "labels": labels}, shapes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings about optional packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
