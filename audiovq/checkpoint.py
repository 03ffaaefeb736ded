"""A model: one folder that can be copied.

    model.json                 format, version, every setting, labels, checksums, what was reached
    autoencoder.safetensors    weights
    context.safetensors        integer tables by which archives are coded
    prior.safetensors          weights
    README.md                  a model card
    training/                  to go on training: state, metrics.jsonl, samples; may be deleted

No code runs on reading: JSON and safetensors only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from audiovq.autoencoder import Autoencoder
from audiovq.config import (
    AudiovqError,
    AutoencoderConfig,
    PriorConfig,
    SpectrogramConfig,
    from_json,
    to_json,
)
from audiovq.context import ContextTables
from audiovq.files import atomic, read_json, sha256, write_json
from audiovq.prior import Prior, Vocabulary
from audiovq.spectrogram import Spectrogram

FORMAT = "audiovq-model"
VERSION = 1
Stage = Literal["autoencoder", "context", "prior"]
SHIPPED = Path(__file__).parent / "models"
"""Models that come with the package, to be named instead of a folder: `digits`."""


@dataclass
class Model:
    """Everything that turns sounds into codes and codes into sounds."""

    spectrogram: Spectrogram
    autoencoder: Autoencoder
    context: ContextTables | None = None
    prior: Prior | None = None
    labels: dict[str, list[str]] = field(default_factory=dict)
    """Each label's values, in the order of their numbers."""
    label_counts: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    """Which values the training clips have together, and how often."""
    clip_frames: int = 0
    """Frames of the longest clip trained on."""
    header: dict[str, Any] = field(default_factory=dict)
    """model.json as read."""

    @property
    def device(self) -> torch.device:
        return next(self.autoencoder.parameters()).device

    @property
    def sample_rate(self) -> int:
        """Hz of every waveform in and out."""
        return self.spectrogram.config.sample_rate

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the prior's tokens."""
        config = self.autoencoder.config
        return Vocabulary(
            codebook_size=config.codebook_size,
            num_quantizers=config.num_quantizers,
            rows=self.autoencoder.rows,
            num_levels=self.spectrogram.config.num_levels,
            max_columns=-(-self.clip_frames // self.autoencoder.stride[1]),
        )

    @property
    def codes_per_second(self) -> float:
        """Of the whole grid, all quantizers."""
        config = self.spectrogram.config
        frames = config.sample_rate / config.hop_length
        return frames / self.autoencoder.stride[1] * self.vocabulary.slots

    def new_prior(self, config: PriorConfig) -> Prior:
        """A prior over this model's codes, untrained."""
        return Prior(config, self.vocabulary, tuple(map(len, self.labels.values())))

    def to(self, device: torch.device | str) -> Model:
        """Move all parts, in place."""
        for module in (self.spectrogram, self.autoencoder, self.prior):
            if module is not None:
                module.to(device)
        return self


def new_model(
    spectrogram: SpectrogramConfig,
    autoencoder: AutoencoderConfig,
    labels: dict[str, list[str]],
    label_counts: list[tuple[tuple[int, ...], int]],
    clip_frames: int,
) -> Model:
    """An untrained model without a prior."""
    return Model(
        Spectrogram(spectrogram),
        Autoencoder(autoencoder, spectrogram.bins),
        labels=labels,
        label_counts=label_counts,
        clip_frames=clip_frames,
    )


def save(folder: Path, model: Model, stage: Stage, summary: dict[str, Any]) -> None:
    """Write one stage's weights and bring model.json up to date, each atomically.

    `summary` is what the stage reached. A new autoencoder makes what was learnt about the codes of
    an earlier one worthless: it is dropped from model.json.
    """
    tensors = {
        "autoencoder": model.autoencoder.state_dict(),
        "context": model.context.integers if model.context else {},
        "prior": model.prior.state_dict() if model.prior else {},
    }[stage]
    if not tensors:
        raise ValueError(f"the model has no {stage} to save")
    path = folder / f"{stage}.safetensors"
    save_tensors(path, tensors)
    entry = {"file": path.name, "sha256": sha256(path), "summary": summary}
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "spectrogram": to_json(model.spectrogram.config),
        "clip_frames": model.clip_frames,
        "labels": model.labels,
        "label_counts": [[list(places), count] for places, count in model.label_counts],
        "autoencoder": {"config": to_json(model.autoencoder.config)},
    }
    if stage == "autoencoder":
        header["autoencoder"] |= entry
    else:
        header["autoencoder"] = model.header["autoencoder"]
        header[stage] = {"autoencoder_sha256": header["autoencoder"]["sha256"]} | entry
        if model.prior is not None and stage == "prior":
            header["prior"]["config"] = to_json(model.prior.config)
    for key, value in model.header.items():
        if key not in header and (stage != "autoencoder" or key not in ("context", "prior")):
            header[key] = value
    model.header = header
    write_json(folder / "model.json", header)


def shipped_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/model.json"))


def located(folder: Path | str) -> Path:
    """Where a model lies: the folder itself, or that of SHIPPED where there is no such folder."""
    shipped = SHIPPED / Path(folder).name
    return (
        shipped
        if Path(folder) == Path(shipped.name) and not Path(folder).exists()
        else Path(folder)
    )


def load(folder: Path | str, device: torch.device | str = "cpu") -> Model:
    """Read a model, ready for use (eval mode): a folder, or a name among SHIPPED.

    Raises AudiovqError where `folder` is not a model, is of an unknown version, or holds weights
    that are damaged or do not belong to it.
    """
    folder = located(folder)
    if folder.parent == SHIPPED and not folder.is_dir():
        raise AudiovqError(
            f"{folder.name}: not a model (no such folder, nor a model that ships:"
            f" {', '.join(shipped_names())})"
        )
    header = read_json(folder / "model.json", "a model")
    where = f"{folder}/model.json"
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise AudiovqError(f"{folder}: not a model (model.json says no {FORMAT!r})")
    if header.get("version") != VERSION:
        raise AudiovqError(
            f"{folder}: model version {header.get('version')}; this program reads {VERSION}"
        )
    try:
        model = new_model(
            from_json(SpectrogramConfig, header["spectrogram"], where),
            from_json(AutoencoderConfig, header["autoencoder"]["config"], where),
            {str(name): [str(v) for v in values] for name, values in header["labels"].items()},
            [(tuple(map(int, places)), int(count)) for places, count in header["label_counts"]],
            int(header["clip_frames"]),
        )
        sizes = [len(values) for values in model.labels.values()]
        for places, count in model.label_counts:
            # One past the last value stands for "no label".
            if count < 0 or any(not 0 <= p <= n for p, n in zip(places, sizes, strict=True)):
                raise ValueError(f"label_counts {places}")
        model.header = header
        _load_weights(folder, header["autoencoder"], model.autoencoder)
        for part in ("context", "prior"):
            belongs = header.get(part, {}).get("autoencoder_sha256")
            if belongs not in (None, header["autoencoder"]["sha256"]):
                raise AudiovqError(f"{folder}: its {part} was trained for another autoencoder")
        if context := header.get("context"):
            model.context = ContextTables(read_tensors(_weights(folder, context))[0])
            if not model.context.fits(model.vocabulary):
                raise ValueError("context tables of other codes")
        if prior := header.get("prior"):
            model.prior = model.new_prior(from_json(PriorConfig, prior["config"], where))
            _load_weights(folder, prior, model.prior)
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,  # torch's, of sizes that cannot be
    ) as error:
        raise AudiovqError(f"{where}: damaged ({error!r})") from error
    for module in (model.autoencoder, model.prior):
        if module is not None:
            module.eval()
    return model.to(device)


def export(folder: Path, target: Path) -> None:
    """A trained model → `target`, the smallest that is of use: weights as float16, no training state.

    Floats lose what lies beyond three digits; integers, and so the context tables, nothing.
    """
    header = read_json(folder / "model.json", "a model")
    for part in ("autoencoder", "context", "prior"):
        if entry := header.get(part):
            tensors, _ = read_tensors(_weights(folder, entry))
            halves = {
                name: value.half() if value.dtype == torch.float32 else value
                for name, value in tensors.items()
            }
            save_tensors(target / entry["file"], halves)
            entry["sha256"] = sha256(target / entry["file"])
            if part != "autoencoder":
                entry["autoencoder_sha256"] = header["autoencoder"]["sha256"]
    write_json(target / "model.json", header)


def _load_weights(folder: Path, entry: dict[str, Any], module: nn.Module) -> None:
    load_tensors(_weights(folder, entry), module)


def _weights(folder: Path, entry: dict[str, Any]) -> Path:
    """Where a part of the model lies; raises AudiovqError where the file is not the one meant."""
    name = str(entry["file"])
    path = folder / name
    if Path(name).name != name:
        raise AudiovqError(f"{path}: weights must lie in the model's own folder")
    if not path.is_file():
        raise AudiovqError(f"{path}: missing; the model is incomplete")
    if sha256(path) != entry["sha256"]:
        raise AudiovqError(f"{path}: damaged (its checksum is not the one in model.json)")
    return path


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors and a few strings as safetensors, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:  # by way of bytes: save_file makes files none else may read
        temporary.write_bytes(to_bytes(contiguous, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The inverse of `save_tensors`. Raises AudiovqError where the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
        return load_file(path), metadata
    except (SafetensorError, OSError, ValueError) as error:
        raise AudiovqError(f"{path}: cannot be read as safetensors ({error})") from error


def load_tensors(path: Path, module: nn.Module) -> None:
    """Weights of `path` → `module`. Raises AudiovqError that names the first tensor at odds."""
    tensors, _ = read_tensors(path)
    expected = module.state_dict()
    for name in sorted(tensors.keys() | expected.keys()):
        if name not in tensors or name not in expected:
            at_odds = "is missing" if name not in tensors else "is unknown"
            raise AudiovqError(f"{path}: tensor {name} {at_odds}")
        if tensors[name].shape != expected[name].shape:
            saved, wanted = tuple(tensors[name].shape), tuple(expected[name].shape)
            raise AudiovqError(f"{path}: tensor {name} is {saved}, expected {wanted}")
    module.load_state_dict(tensors)
