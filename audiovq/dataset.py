"""A dataset: one folder of spectrograms, with where each came from.

    dataset.json              format, version, every setting, labels, shards with checksums
    train-00000.npy …         (clips, bins, frames) float16, memory-mapped when read
    train.jsonl …             one line a clip, in the shards' order: path, offset, labels, level …
    skipped.jsonl             one line a file that was left out, with the reason

The splits are train, validation and test; a file is never in two of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiovq.config import AudiovqError, PreprocessConfig, SpectrogramConfig, from_json
from audiovq.files import read_json

FORMAT = "audiovq-dataset"
VERSION = 1
SPLITS = ("train", "validation", "test")
RESIDENT_BYTES = 4 << 30
"""A split up to this size is read into memory; a larger one stays on disk, memory-mapped."""


@dataclass(frozen=True)
class Clip:
    """One line of a manifest."""

    path: str
    """Of the recording, relative to the folder it came from, with forward slashes."""
    offset: int
    """Where the clip begins in the trimmed recording, in samples at the dataset's rate."""
    num_samples: int
    """The clip's own length without padding, in samples at the dataset's rate."""
    sample_rate: int
    """The recording's own, in Hz."""
    level: int
    """How loud: see `Spectrogram`."""
    labels: dict[str, str]
    sha256: str
    """Of the recording's bytes."""


class Split:
    """The clips of one split: spectrograms and what belongs to them."""

    def __init__(
        self,
        folder: Path,
        name: str,
        shards: list[str],
        labels: dict[str, list[str]],
        spectrogram: SpectrogramConfig,
    ) -> None:
        self.name = name
        self.labels = labels
        self.clips = _read_manifest(folder / f"{name}.jsonl")
        self._shards = [_open_shard(folder / shard, spectrogram.bins) for shard in shards]
        if sum(map(len, self._shards)) != len(self.clips):
            raise AudiovqError(
                f"{folder}: {name}.jsonl lists {len(self.clips)} clips, its shards hold"
                f" {sum(map(len, self._shards))}; run preprocess again with --overwrite"
            )
        self.num_samples = torch.tensor([clip.num_samples for clip in self.clips], dtype=torch.long)
        self.num_frames = 1 + self.num_samples // spectrogram.hop_length
        self.levels = torch.tensor([clip.level for clip in self.clips], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def label_indices(self) -> Tensor:
        """(clips, labels) places in `labels`; one past the last where a clip has none."""
        places = [{value: i for i, value in enumerate(values)} for values in self.labels.values()]
        rows = [
            [
                place.get(clip.labels.get(name, ""), len(place))
                for name, place in zip(self.labels, places, strict=True)
            ]
            for clip in self.clips
        ]
        return torch.tensor(rows, dtype=torch.long).view(len(self.clips), len(self.labels))

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *map(len, self._shards)])

    @cached_property
    def _resident(self) -> Tensor | None:
        if not self._shards or sum(shard.nbytes for shard in self._shards) > RESIDENT_BYTES:
            return None
        return torch.from_numpy(np.concatenate(self._shards))

    def spectrograms(self, indices: Tensor) -> Tensor:
        """(batch,) places → (batch, 1, bins, frames) float32, cut to the longest clip's frames."""
        frames = int(self.num_frames[indices].max())
        if self._resident is not None:
            return self._resident[indices, None, :, :frames].float()
        shards = np.searchsorted(self._starts, indices.numpy(), side="right") - 1
        rows = [
            self._shards[shard][index - self._starts[shard], :, :frames]
            for shard, index in zip(shards, indices.tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(rows)[:, None]).float()


class Dataset:
    """A dataset's folder, opened. Raises AudiovqError where it is not one, naming what is wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        header = read_json(self.folder / "dataset.json", "a dataset")
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise AudiovqError(f"{self.folder}: not a dataset (dataset.json says no {FORMAT!r})")
        if header.get("version") != VERSION:
            raise AudiovqError(
                f"{self.folder}: dataset version {header.get('version')}; this program reads {VERSION}"
            )
        self.header: dict[str, Any] = header
        where = f"{self.folder}/dataset.json"
        try:
            self.spectrogram = from_json(SpectrogramConfig, header["spectrogram"], where)
            self.preprocess = from_json(PreprocessConfig, header["preprocess"], where)
            self.labels: dict[str, list[str]] = header["labels"]
            self.clip_frames = int(header["clip_frames"])
            self.fingerprint = str(header["fingerprint"])
            shards = {
                name: [str(s["file"]) for s in header["splits"][name]["shards"]] for name in SPLITS
            }
        except (KeyError, TypeError, ValueError) as error:
            raise AudiovqError(f"{where}: damaged ({error!r}); run preprocess again") from error
        self.train, self.validation, self.test = (
            Split(self.folder, name, shards[name], self.labels, self.spectrogram) for name in SPLITS
        )


def _read_manifest(path: Path) -> list[Clip]:
    try:
        with open(path, encoding="utf-8") as file:
            return [Clip(**json.loads(line)) for line in file]
    except (OSError, ValueError, TypeError) as error:
        raise AudiovqError(f"{path}: cannot be read ({error}); run preprocess again") from error


def _open_shard(path: Path, bins: int) -> npt.NDArray[np.float16]:
    if path.parent.resolve() != path.resolve().parent or path.suffix != ".npy":
        raise AudiovqError(f"{path}: a shard must lie in the dataset's own folder")
    try:
        shard: npt.NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise AudiovqError(f"{path}: cannot be read ({error}); run preprocess again") from error
    if shard.ndim != 3 or shard.dtype != np.float16 or shard.shape[1] != bins:
        raise AudiovqError(
            f"{path}: {shard.dtype} {shard.shape} is not (clips, {bins}, frames) float16"
        )
    return shard
