"""A model: one folder that can be copied.

    model.json                 format, version, every setting, labels, checksums, what was reached
    autoencoder.safetensors    weights
    context.safetensors        integer tables by which archives are coded
    prior.safetensors          weights
    masked.safetensors         weights of the masked prior
    training-codes.safetensors codes of the training clips, to find copies by; may be left out
    README.md                  a model card
    training/                  to go on training: state, metrics.jsonl, samples; may be deleted

No code runs on reading: JSON and safetensors only. `docs/formats.md` has it to the byte.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import from_json, to_json
from audiovq.config.settings import MaskedConfig, PriorConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.entropy.context_tables import ContextTables
from audiovq.models.known import KnownClips, from_tensors
from audiovq.models.model import Model
from audiovq.runtime.checksums import (
    read_header,
    verified_path,
    write_header,
)
from audiovq.runtime.files import atomic, read_json, sha256
from audiovq.runtime.tensors import AGAIN, read_tensors, save_tensors
from audiovq.spectral.spectrogram import Spectrogram

FORMAT = "audiovq-model"
VERSION = 5
Stage = Literal["autoencoder", "context", "prior", "masked"]
PARTS: tuple[Stage, ...] = ("context", "prior", "masked")
"""What is learnt about an autoencoder's codes."""
KNOWN = "training_codes"
"""The part of model.json that lists the codes of the training clips."""
SHIPPED = Path(__file__).parents[1] / "pretrained"
"""Models that come with the package, to be named instead of a folder: `digits`."""
LARGEST_FRAMES = 1 << 24
"""No clip trained on is longer."""
READINGS = 5
"""Of a model that is being trained, at most."""
ROOM = 8
"""A network may take so many times the bytes of its file, float16 or float32: some tables are made."""
_Module = TypeVar("_Module", bound=nn.Module)


def save(folder: Path, model: Model, stage: Stage, summary: dict[str, Any]) -> None:
    """Write one stage's weights and bring model.json up to date.

    Killed at any moment, it leaves the model of before or the new one: what model.json lists is
    never written over. `summary` is what the stage reached. A new autoencoder makes what was learnt
    about the codes of an earlier one worthless: it is dropped from model.json.
    """
    tensors = {
        "autoencoder": model.autoencoder.state_dict(),
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
        network = {"prior": model.prior, "masked": model.masked}.get(stage)
        if network is not None:
            header[stage]["config"] = to_json(network.config)
    for key, value in model.header.items():
        if key not in header and (stage != "autoencoder" or key not in (*PARTS, KNOWN)):
            header[key] = value
    model.header = header
    write_header(folder / "model.json", header)
    if first == spare:  # and now to its own name
        save_tensors(path, tensors)
        header[stage]["file"] = path.name
        write_header(folder / "model.json", header)
    spare.unlink(missing_ok=True)


def amend(folder: Path, stage: str, more: Mapping[str, Any]) -> None:
    """Add to the summary of a stage in model.json. Leaves a model without that stage alone."""
    path = folder / "model.json"
    header = read_header(path, "model", VERSION, AGAIN)
    if stage in header and header[stage]["summary"] | more != header[stage]["summary"]:
        header[stage]["summary"] |= more
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
    """The file that holds a stage by model.json, which may not be there yet."""
    try:
        return read_json(folder / "model.json", "a model")[stage]["file"]
    except (AudiovqError, LookupError, TypeError):
        return None


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

    It may be in training: where model.json changed while its files were read, they are read again. Raises AudiovqError where `folder` is not a model, is of an unknown version, or holds weights
    that are damaged or do not belong to it.
    """
    folder = located(folder)
    if folder.parent == SHIPPED and not folder.is_dir():
        raise AudiovqError(
            f"{folder.name}: not a model (no such folder, nor a model that ships:"
            f" {', '.join(shipped_names())})"
        )
    path = folder / "model.json"
    for _ in range(READINGS):
        before = _stamp(path)
        try:
            return _read(folder, read_header(path, "model", VERSION, AGAIN)).to(device)
        except AudiovqError as error:
            failed = error
        # A file that model.json lists is replaced after a model.json that no longer lists it.
        if _stamp(path) == before:
            break
    raise failed


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes where a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(folder: Path, header: dict[str, Any]) -> Model:
    """The model that `header`, the content of model.json, lists, on the CPU. Raises as `load`."""
    where = f"{folder}/model.json"
    try:
        spectrogram = from_json(SpectrogramConfig, header["spectrogram"], where)
        config = from_json(AutoencoderConfig, header["autoencoder"]["config"], where)
        labels = {name: [_word(v) for v in values] for name, values in header["labels"].items()}
        clip_frames = _number(header["clip_frames"])
        sizes = tuple(map(len, labels.values()))
        model = Model(
            Spectrogram(spectrogram),
            _network(
                folder,
                header["autoencoder"],
                lambda: Autoencoder(config, spectrogram.bins, sizes, clip_frames),
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
        if known := header.get(KNOWN):
            model.known = _known(folder, model, known)
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,  # torch's, of sizes that cannot be
    ) as error:
        raise AudiovqError(f"{where}: damaged ({error!r:.200}); {AGAIN}") from error
    return model


def export(folder: Path, target: Path) -> None:
    """A trained model → `target`, the smallest that is of use: weights as float16, no training state.

    Floats lose what lies beyond three digits; integers, and so the context tables, nothing.
    """
    header = read_header(folder / "model.json", "model", VERSION, AGAIN)
    for part in ("autoencoder", *PARTS):
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
    if entry := header.get(KNOWN):
        if (folder / entry["file"]).exists():
            source = _weights(folder, entry)
            with atomic(target / entry["file"]) as temporary:
                temporary.write_bytes(source.read_bytes())
        entry["autoencoder_sha256"] = header["autoencoder"]["sha256"]
    write_header(target / "model.json", header)


def _network(folder: Path, entry: dict[str, Any], make: Callable[[], _Module]) -> _Module:
    """What `make` makes, with the weights of a part, in eval mode.

    First sketched without memory: no size in model.json is believed that is not that of the file.
    """
    path = _weights(folder, entry)
    with torch.device("meta"), _Unwritten():
        sketch = make()
    tensors = _fitting(path, sketch)
    room = sum(t.nbytes for t in itertools.chain(sketch.parameters(), sketch.buffers()))
    if room > ROOM * path.stat().st_size + (1 << 24):
        raise AudiovqError(f"{folder}: its settings ask for {room >> 20} MiB; {AGAIN}")
    with torch.random.fork_rng(devices=[]):  # its random start is no one's business
        module = make()
    module.load_state_dict(tensors)
    return module.eval()


class _Unwritten(TorchFunctionMode):
    """Leaves tensors as they are made, and counts nothing up. Without memory there is nothing to write
    into, and torch takes a second to import what would pretend to."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What writes into a tensor, which has a name that ends in `_`, gives it back; `arange` gives a
        tensor as long as its own."""
        if func.__name__.endswith("_") and not func.__name__.endswith("__"):
            return (*args, *(kwargs or {}).values())[0]
        if func is torch.arange and not kwargs and all(isinstance(x, int) for x in args):
            return torch.empty(len(range(*args)), dtype=torch.long)
        return func(*args, **(kwargs or {}))


def _fitting(path: Path, module: nn.Module) -> dict[str, Tensor]:
    """The tensors of `path`, of the module's types. Raises AudiovqError that names the first at odds."""
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
            raise AudiovqError(f"{path}: tensor {name} holds what is no number; {AGAIN}")
    return tensors


def _weights(folder: Path, entry: dict[str, Any]) -> Path:
    """Where a part of the model lies; raises AudiovqError where the file is not the one meant."""
    return verified_path(folder, entry["file"], entry["sha256"], AGAIN)


def _word(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"a label is meant, not {value!r:.40}")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST_FRAMES:
        raise ValueError(f"a whole number is meant, not {value!r:.40}")
    return value


def _label_counts(counts: Any, sizes: list[int]) -> list[tuple[tuple[int, ...], int]]:
    """Which values go together how often; one past a label's last value stands for "no label"."""
    read = [(tuple(map(_number, places)), _number(count)) for places, count in counts]
    for places, _ in read:
        if any(place > size for place, size in zip(places, sizes, strict=True)):
            raise ValueError(f"label_counts {places}")
    return read
