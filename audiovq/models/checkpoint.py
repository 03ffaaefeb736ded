"""A model: one folder that can be copied.

    model.json                 format, version, every setting, labels, checksums, results of training
    autoencoder.safetensors    weights
    context.safetensors        integer tables by which archives are coded
    vivid.safetensors          weights of the second decoder, where the model has one
    prior.safetensors          weights
    masked.safetensors         weights of the masked prior
    training-codes.safetensors codes of the training clips, to find copies by; may be left out
    README.md                  a model card
    training/                  to resume training: state, metrics.jsonl, samples; may be deleted

No code runs on reading: JSON and safetensors only. `docs/formats.md` has it to the byte.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import MOST_SWEEPS
from audiovq.config.serialize import from_json, to_json
from audiovq.config.settings import MaskedConfig, PriorConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.numbers import (
    LabelValues,
    label_numbers,
    labels_from_json,
    labels_to_json,
)
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.entropy.context_tables import ContextTables
from audiovq.models.folder import (
    FORMAT,
    NUMBERS_VERSION,
    STEREO_VERSION,
    VERSION,
    read_model_header,
    require_model,
)
from audiovq.models.known import KnownClips, from_tensors
from audiovq.models.model import Model
from audiovq.runtime.checksums import AGAIN, verified_path, write_header
from audiovq.runtime.files import atomic, read_json, sha256
from audiovq.runtime.tensors import read_tensors, save_tensors
from audiovq.spectral.spectrogram import Spectrogram

Stage = Literal["autoencoder", "vivid", "context", "prior", "masked"]
PARTS: tuple[Stage, ...] = ("vivid", "context", "prior", "masked")
"""Stages trained on the codes of an autoencoder."""
KNOWN = "training_codes"
"""Key of model.json for the codes of the training clips."""
LARGEST_FRAMES = 1 << 24
"""Most frames of a training clip."""
READINGS = 5
"""Most attempts to read a model whose files change meanwhile, because it is in training."""
ROOM = 8
"""Most bytes of a network in memory per byte of its file, float16 or float32; some tables are computed."""
_Module = TypeVar("_Module", bound=nn.Module)


def save(folder: Path, model: Model, stage: Stage, summary: dict[str, Any]) -> None:
    """Write the weights of one stage and update model.json.

    Killed at any moment, it leaves the earlier model or the new one: files listed in model.json are never
    overwritten. `summary`: results of the stage. A new autoencoder removes the other stages from
    model.json, since they were trained on codes of the earlier one. Raises ValueError where the model
    lacks the stage.
    """
    tensors = {
        "autoencoder": model.autoencoder.state_dict(),
        "vivid": model.vivid.state_dict() if model.vivid else {},
        "context": model.context.integers if model.context else {},
        "prior": model.prior.state_dict() if model.prior else {},
        "masked": model.masked.state_dict() if model.masked else {},
    }[stage]
    if not tensors:
        raise ValueError(f"the model has no {stage} to save")
    path, spare = folder / f"{stage}.safetensors", folder / f"{stage}.next.safetensors"
    first = spare if _file_listed(folder, stage) == path.name else path
    save_tensors(first, tensors)
    entry = {"file": first.name, "sha256": sha256(first), "summary": summary}
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": _version(model.labels, model.spectrogram.config),
        "spectrogram": to_json(model.spectrogram.config),
        "clip_frames": model.clip_frames,
        "labels": labels_to_json(model.labels),
        "label_counts": [[list(indices), count] for indices, count in model.label_counts],
        "autoencoder": {"config": to_json(model.autoencoder.config)},
    }
    if stage == "autoencoder":
        header["autoencoder"] |= entry
    else:
        header["autoencoder"] = model.header["autoencoder"]
        header[stage] = {"autoencoder_sha256": header["autoencoder"]["sha256"]} | entry
        network = {"prior": model.prior, "masked": model.masked}.get(stage)
        if network is not None:
            header[stage]["config"] = to_json(network.config)
    for key, value in model.header.items():
        if key not in header and (stage != "autoencoder" or key not in (*PARTS, KNOWN)):
            header[key] = value
    model.header = header
    write_header(folder / "model.json", header)
    if first == spare:  # then under the usual name
        save_tensors(path, tensors)
        header[stage]["file"] = path.name
        write_header(folder / "model.json", header)
    spare.unlink(missing_ok=True)


def replace_model(folder: Path, source: Path) -> None:
    """Put the model in `source` in the place of that in `folder`, which has all its parts.

    Killed at any moment, it leaves the earlier model or the new one, as `save` does.
    """
    header = read_model_header(source)
    entries = [header[part] for part in ("autoencoder", *PARTS, KNOWN) if part in header]
    names = [str(entry["file"]) for entry in entries]
    spares = [PurePath(name).with_suffix(".next.safetensors").name for name in names]
    for files in (spares, names):
        for entry, name, file in zip(entries, names, files, strict=True):
            with atomic(folder / file) as temporary:
                temporary.write_bytes((source / name).read_bytes())
            entry["file"] = file
        write_header(folder / "model.json", header)
    for spare in spares:
        (folder / spare).unlink()


def amend(folder: Path, stage: str, more: Mapping[str, Any]) -> None:
    """Add results to the summary of a stage in model.json; does nothing where the model lacks the stage."""
    path = folder / "model.json"
    header = read_model_header(folder)
    if stage in header and header[stage]["summary"] | more != header[stage]["summary"]:
        header[stage]["summary"] |= more
        write_header(path, header)


def save_contrast(folder: Path, contrast: float, silence: float, sharpness: float) -> None:
    """Write contrast, silence, unless it is 0, and sharpness, unless it is 1, of the autoencoder's decoder into its
    settings in model.json."""
    path = folder / "model.json"
    header = read_model_header(folder)
    settings = {"contrast": contrast} | ({"silence": silence} if silence else {})
    settings |= {"sharpness": sharpness} if sharpness != 1 else {}
    header["autoencoder"]["config"] |= settings
    write_header(path, header)


def save_known(folder: Path, model: Model) -> None:
    """Write the codes of the training clips (`model.known`) and list them in model.json."""
    if model.known is None:
        raise ValueError("the model has no training codes to save")
    path = folder / "training-codes.safetensors"
    save_tensors(path, model.known.tensors())
    model.header[KNOWN] = {
        "file": path.name,
        "sha256": sha256(path),
        "autoencoder_sha256": model.header["autoencoder"]["sha256"],
    }
    write_header(folder / "model.json", model.header)


def _known(folder: Path, model: Model, entry: dict[str, Any]) -> KnownClips | None:
    """The codes of the training clips; None where their file was left out."""
    name = str(entry["file"])
    if PurePath(name).name == name and not os.path.lexists(folder / name):
        return None
    return from_tensors(read_tensors(_weights(folder, entry))[0], model.vocabulary)


def _file_listed(folder: Path, stage: Stage) -> Any:
    """Name of the file of a stage in model.json; None before there is one."""
    try:
        return read_json(folder / "model.json", "a model")[stage]["file"]
    except (AudiovqError, LookupError, TypeError):
        return None


def load(folder: Path | str, device: torch.device | str = "cpu") -> Model:
    """Read a model from a folder, or by name from SHIPPED, in eval mode.

    The model may be in training: where model.json changes meanwhile, all files are read again. Raises
    AudiovqError where `folder` is not a model, has another version, or holds weights that are damaged or
    belong to another model.
    """
    folder = require_model(folder)
    path = folder / "model.json"
    for _ in range(READINGS):
        before = _stamp(path)
        try:
            return _read(folder, read_model_header(folder)).to(device)
        except AudiovqError as error:
            failed = error
        # A file that model.json lists is replaced after a model.json that no longer lists it.
        if _stamp(path) == before:
            break
    raise failed


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Inode, time and size, which change when a file is replaced; None where it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(folder: Path, header: dict[str, Any]) -> Model:
    """Model of `header`, the content of model.json, on the CPU. Raises as `load`."""
    where = f"{folder}/model.json"
    try:
        spectrogram = from_json(SpectrogramConfig, header["spectrogram"], where)
        config = from_json(AutoencoderConfig, header["autoencoder"]["config"], where)
        labels = labels_from_json(header["labels"])
        if header["version"] != _version(labels, spectrogram):
            raise ValueError(f"version {header['version']} of {spectrogram.channels} channels")
        clip_frames = _number(header["clip_frames"])
        sizes = tuple(map(len, labels.values()))
        model = Model(
            Spectrogram(spectrogram),
            _network(
                folder,
                header["autoencoder"],
                lambda: Autoencoder(
                    config, spectrogram.bins, sizes, clip_frames, spectrogram.planes
                ),
            ),
            labels=labels,
            label_counts=_label_counts(header["label_counts"], [len(v) for v in labels.values()]),
            clip_frames=clip_frames,
            header=header,
        )
        for part in (*PARTS, KNOWN):
            belongs = header.get(part, {}).get("autoencoder_sha256")
            if belongs not in (None, header["autoencoder"]["sha256"]):
                raise AudiovqError(f"{folder}: its {part} was trained for another autoencoder")
        if vivid := header.get("vivid"):
            model.vivid = _network(folder, vivid, model.new_vivid)
        if context := header.get("context"):
            model.context = ContextTables(read_tensors(_weights(folder, context))[0])
            if not model.context.fits(model.vocabulary):
                raise ValueError("context tables of other codes")
        if prior := header.get("prior"):
            prior_config = from_json(PriorConfig, prior["config"], where)
            model.prior = _network(folder, prior, lambda: model.new_prior(prior_config))
        if masked := header.get("masked"):
            masked_config = from_json(MaskedConfig, masked["config"], where)
            model.masked = _network(folder, masked, lambda: model.new_masked(masked_config))
            begin, end = masked["summary"].get("longest_complete", (True, True))
            model.masked.longest_complete = begin is True, end is True
            model.masked.sizes = _sizes(model, masked["summary"].get("sizes", []))
            model.masked.sweeps = _number(masked["summary"].get("sweeps", 0))
            if model.masked.sweeps > MOST_SWEEPS:
                raise ValueError(f"sweeps {model.masked.sweeps}")
        if known := header.get(KNOWN):
            model.known = _known(folder, model, known)
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,  # from torch, for impossible sizes
    ) as error:
        raise AudiovqError(f"{where}: damaged ({error!r:.200}); {AGAIN}") from error
    return model


def export(folder: Path, target: Path, leave_out: Collection[str] = ()) -> None:
    """Write a trained model to `target` as small as possible: float16 weights, no training state.

    Weights keep three digits; integers, such as the context tables, are unchanged. `leave_out`: of PARTS and KNOWN.
    """
    header = read_model_header(folder)
    header = {key: value for key, value in header.items() if key not in leave_out}
    for part in ("autoencoder", *PARTS):
        if entry := header.get(part):
            tensors, _ = read_tensors(_weights(folder, entry))
            halves = {name: _halved(value) for name, value in tensors.items()}
            save_tensors(target / entry["file"], halves)
            entry["sha256"] = sha256(target / entry["file"])
            if part != "autoencoder":
                entry["autoencoder_sha256"] = header["autoencoder"]["sha256"]
    if entry := header.get(KNOWN):
        if (folder / entry["file"]).exists():
            source = _weights(folder, entry)
            with atomic(target / entry["file"]) as temporary:
                temporary.write_bytes(source.read_bytes())
        entry["autoencoder_sha256"] = header["autoencoder"]["sha256"]
    write_header(target / "model.json", header)


def _halved(value: Tensor) -> Tensor:
    """A float32 tensor in float16, unless a value is too large for that; others as they are."""
    half = value.half() if value.dtype == torch.float32 else value
    return half if half.isfinite().all() else value


def _network(folder: Path, entry: dict[str, Any], make: Callable[[], _Module]) -> _Module:
    """The module that `make` returns, with the weights of a part, in eval mode.

    First made on the meta device, without memory: sizes in model.json are checked against the file.
    """
    path = _weights(folder, entry)
    with torch.device("meta"), _Unwritten():
        on_meta = make()
    tensors = _fitting(path, on_meta)
    room = sum(t.nbytes for t in itertools.chain(on_meta.parameters(), on_meta.buffers()))
    if room > ROOM * path.stat().st_size + (1 << 24):
        raise AudiovqError(f"{folder}: its settings ask for {room >> 20} MiB; {AGAIN}")
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
        module = make()
    module.load_state_dict(tensors)
    return module.eval()


class _Unwritten(TorchFunctionMode):
    """Skips writes into tensors of the meta device: torch would need a second to import their emulation."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Functions that write into a tensor (names ending in `_`) return it unchanged; `arange` returns an
        empty tensor of its length."""
        if func.__name__.endswith("_") and not func.__name__.endswith("__"):
            return (*args, *(kwargs or {}).values())[0]
        if func is torch.arange and not kwargs and all(isinstance(x, int) for x in args):
            return torch.empty(len(range(*args)), dtype=torch.long)
        return func(*args, **(kwargs or {}))


def _fitting(path: Path, module: nn.Module) -> dict[str, Tensor]:
    """Tensors of `path` in the module's types. Raises AudiovqError that names the first that does not fit."""
    tensors, _ = read_tensors(path)
    expected = module.state_dict()
    for name in sorted(tensors.keys() | expected.keys()):
        if name not in tensors:
            raise AudiovqError(f"{path}: tensor {name} is missing")
        if name not in expected:
            raise AudiovqError(f"{path}: tensor {name!r:.80} is unknown")
        found, wanted = tensors[name], expected[name]
        if found.shape != wanted.shape:
            shapes = f"{tuple(found.shape)}, expected {tuple(wanted.shape)}"
            raise AudiovqError(f"{path}: tensor {name} is {shapes}")
        if found.is_floating_point() != wanted.is_floating_point() or found.is_complex():
            raise AudiovqError(f"{path}: tensor {name} is {found.dtype}, expected {wanted.dtype}")
        tensors[name] = found.to(wanted.dtype)
        if not tensors[name].isfinite().all():
            raise AudiovqError(f"{path}: tensor {name} holds NaN or infinity; {AGAIN}")
    return tensors


def _weights(folder: Path, entry: dict[str, Any]) -> Path:
    """Verified path of the weights of a part. Raises AudiovqError as `verified_path`."""
    return verified_path(folder, entry["file"], entry["sha256"], AGAIN)


def _version(labels: LabelValues, spectrogram: SpectrogramConfig) -> int:
    """The version of the folder of a model with these labels and spectrograms."""
    if label_numbers(labels):
        return NUMBERS_VERSION
    return VERSION if spectrogram.channels == 1 else STEREO_VERSION


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST_FRAMES:
        raise ValueError(f"expected a whole number, found {value!r:.40}")
    return value


def _sizes(model: Model, rows: Any) -> Tensor:
    """`MaskedPrior.sizes` as read from model.json."""
    assert model.masked is not None
    vocabulary = model.vocabulary
    sizes = *model.masked.label_sizes, vocabulary.max_columns, vocabulary.num_levels - 1
    read = torch.tensor([list(map(_number, row)) for row in rows], dtype=torch.long)
    read = read.view(len(rows), len(sizes))
    if (read > torch.tensor(sizes)).any() or (read[:, -2] < 1).any():
        raise ValueError("sizes out of range")
    return read


def _label_counts(counts: Any, sizes: list[int]) -> list[tuple[tuple[int, ...], int]]:
    """(indices of label values, number of training clips) pairs; one past the last index means no label."""
    read = [(tuple(map(_number, indices)), _number(count)) for indices, count in counts]
    for indices, _ in read:
        if any(index > size for index, size in zip(indices, sizes, strict=True)):
            raise ValueError(f"label_counts {indices}")
    return read
