"""The index of a folder: features of every recording, stored beside them and computed again only where files change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiovq.audio import finding
from audiovq.audio.reading import beginning
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import to_json
from audiovq.library.features import LISTENED_SECONDS, VERSION, aligned, features
from audiovq.models.model import Model
from audiovq.runtime.progress import Say, progress
from audiovq.runtime.tensors import read_tensors, save_tensors

NAME = ".audiovq-index.safetensors"
"""File name of the index in the folder; hidden, so that no verb takes it for a recording."""
READ_SECONDS = 4 * LISTENED_SECONDS
"""An onset later than this is not found."""
BATCH = 64
"""Recordings between two entries of the progress bar."""
Row = npt.NDArray[np.float32]
State = tuple[int, int]
"""Bytes and time of modification, in ns."""


@dataclass(frozen=True)
class Index:
    """Features of the recordings of a folder."""

    names: list[str]
    """Paths below the folder, with forward slashes."""
    vectors: Row
    """(recordings, features), as `features` gives them."""

    def __len__(self) -> int:
        return len(self.names)


def open_index(
    model: Model, folder: Path, path: Path | None = None, say: Say = lambda line: None
) -> Index:
    """The index of all recordings below `folder`, brought up to date and stored in `path` (None: in the folder).

    Recordings whose size and time of modification are unchanged are not read again, unless the settings of the
    model's spectrogram are others. Those that cannot be read are named and left out; if the index cannot be stored, a
    note says so. Raises AudiovqError if the folder holds no recording, or if `path` is a file that is not an index:
    it is never replaced.
    """
    names, _ = finding.find(folder)
    if not names:
        raise AudiovqError(f"{folder}: holds no recordings ({finding.KINDS})")
    if path is not None and path.exists() and not _is_index(path):
        raise AudiovqError(f"--index {path}: exists and is not an index; choose another file")
    path = path or folder / NAME
    identity = f"{VERSION} {to_json(model.spectrogram.config)}"
    known = _stored(path, identity)
    states = {name: state for name in names if (state := _state(folder / name)) is not None}
    rows: dict[str, Row] = {}
    fresh = 0
    with progress("index", len(names), "recordings") as step:
        for name in names:
            before, state = known.get(name), states.get(name)
            if before is not None and before[0] == state:
                rows[name] = before[1]
            elif (row := _row(model, folder / name, say)) is not None:
                rows[name], fresh = row, fresh + 1
            step(1)
    if not rows:
        raise AudiovqError(f"{folder}: no recording can be read")
    found = list(rows)
    vectors = np.stack([rows[name] for name in found])
    if fresh or rows.keys() != known.keys():
        files = [[name, *states.get(name, (0, 0))] for name in found]
        about = torch.frombuffer(bytearray(json.dumps(files).encode()), dtype=torch.uint8)
        tensors: dict[str, Tensor] = {"vectors": torch.from_numpy(vectors), "files": about}
        try:
            save_tensors(path, tensors, {"identity": identity})
        except AudiovqError as error:
            say(f"note: the index is not stored: {error}")
    return Index(found, vectors)


def listen(model: Model, path: Path) -> Waveform:
    """A recording from its onset, `aligned`, at the model's rate; nothing after READ_SECONDS is read.

    Raises AudioError with the reason.
    """
    return aligned(beginning(path, READ_SECONDS, model.sample_rate)[0], model.sample_rate)


def _row(model: Model, path: Path, say: Say) -> Row | None:
    """Features of a recording; None, with a line for the user, if it cannot be used."""
    try:
        waveform = listen(model, path)
    except AudioError as error:
        say(f"left out: {path}: {error}")
        return None
    return features(model.spectrogram, waveform)


def _state(path: Path) -> State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _is_index(path: Path) -> bool:
    """Whether a file is an index, of any model."""
    try:
        tensors, metadata = read_tensors(path, sealed=True)
    except AudiovqError:
        return False
    return "identity" in metadata and tensors.keys() == {"vectors", "files"}


def _stored(path: Path, identity: str) -> Mapping[str, tuple[State, Row]]:
    """State and features by name; empty if there is no index, or it is damaged or of another model."""
    if not path.is_file():
        return {}
    try:
        tensors, metadata = read_tensors(path, sealed=True)
        if metadata.get("identity") != identity:
            return {}
        vectors = tensors["vectors"].numpy()
        files = json.loads(tensors["files"].numpy().tobytes())
        return {
            str(name): ((int(size), int(time)), row)
            for (name, size, time), row in zip(files, vectors, strict=True)
        }
    except (AudiovqError, LookupError, TypeError, ValueError):
        return {}
