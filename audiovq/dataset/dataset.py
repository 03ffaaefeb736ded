"""A dataset: one folder of spectrograms, with where each came from.

    dataset.json              format, version, every setting, labels, checksums of all files
    train-00000.npy …         (clips, bins, frames) float16, memory-mapped when read
    train.jsonl …             one line a clip, in the shards' order: path, offset, labels, level …
    skipped.jsonl             one line a file that was left out, with the reason

The splits are train, validation and test; a file is in one of them, or in several with stretches that lie
apart. `docs/formats.md` has it to the byte.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import from_json
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.dataset.manifest import (
    AGAIN,
    MANIFESTS,
    SPLITS,
    VERSION,
    read_manifest,
    whole_number,
)
from audiovq.runtime.checksums import read_header, verified_path
from audiovq.runtime.device import to_device_async


def known_ends(split: Split, clip_frames: int) -> Tensor:
    """(clips, 2) bool: `split.complete`. Where no clip is complete or as long as a clip can be, nothing would
    tell how long sounds are; then all are taken as complete."""
    known = split.complete.all(dim=1) | (split.num_frames >= clip_frames)
    return split.complete if bool(known.any()) else torch.ones_like(split.complete)


def split_images(split: Split, places: Tensor | None = None) -> list[Tensor]:
    """A split's spectrograms (1, bins, frames), each cut to its own length."""
    places = torch.arange(len(split)) if places is None else places
    return [split.spectrograms(place[None])[0] for place in places]


HELD_SHARE = 0.25
"""Of a GPU's free memory that a split may take; a larger one stays on disk, memory-mapped."""


class Split:
    """The clips of one split: spectrograms and what belongs to them."""

    def __init__(
        self,
        folder: Path,
        name: str,
        shards: list[Path],
        labels: dict[str, list[str]],
        spectrogram: SpectrogramConfig,
        clip_frames: int,
    ) -> None:
        self.name = name
        self.labels = labels
        self.images = spectrogram.images
        """Whether these are no spectrograms but images."""
        self.clips = read_manifest(folder / f"{name}.jsonl")
        shape = self._bins, _ = spectrogram.bins, clip_frames
        self._shards = [_open_shard(path, shape) for path in shards]
        self._held: Tensor | None = None
        if sum(map(len, self._shards)) != len(self.clips):
            raise AudiovqError(
                f"{folder}: {name}.jsonl lists {len(self.clips)} clips, its shards hold"
                f" {sum(map(len, self._shards))}; {AGAIN}"
            )
        self.num_samples = torch.tensor([clip.num_samples for clip in self.clips], dtype=torch.long)
        self.num_frames = 1 + self.num_samples // spectrogram.hop_length
        self.levels = torch.tensor([clip.level for clip in self.clips], dtype=torch.long)
        ends = [clip.complete for clip in self.clips]
        self.complete = torch.tensor(ends, dtype=torch.bool).view(len(self.clips), 2)
        """(clips, 2) whether each begins and ends as its recording does; else it is cut there."""
        fits = (self.num_samples > 0) & (self.num_frames <= clip_frames)
        if not (fits & (self.levels < spectrogram.num_levels)).all():
            raise AudiovqError(
                f"{folder}: {name}.jsonl lists clips that its shards cannot hold; {AGAIN}"
            )

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

    @contextlib.contextmanager
    def held(self, device: torch.device) -> Iterator[None]:
        """All spectrograms lie in the memory of `device` until the block ends, where it is a GPU's
        and there is room. On a CPU the system keeps of the files what fits."""
        size = sum(shard.nbytes for shard in self._shards)
        if device.type == "cuda" and size <= HELD_SHARE * torch.cuda.mem_get_info(device)[0]:
            shards = (torch.tensor(shard, device=device) for shard in self._shards)
            self._held = torch.cat(list(shards)) if self._shards else None
        try:
            yield
        finally:
            self._held = None

    def spectrograms(self, indices: Tensor) -> Tensor:
        """(batch,) places → (batch, 1, bins, frames) float32, cut to the longest clip's frames.

        They lie where the split is `held`, else in the CPU's memory.
        """
        frames = int(self.num_frames[indices].max()) if len(indices) else 0
        if self._held is not None:
            return self._held[to_device_async(indices, self._held.device), None, :, :frames].float()
        rows = [shard[row, :, :frames] for shard, row in self._rows(indices)]
        stacked = np.stack(rows) if rows else np.zeros((0, self._bins, 0), np.float16)
        return torch.from_numpy(stacked[:, None]).float()

    def read_ahead(self, indices: Tensor) -> None:
        """The system is to read clips (batch,) from the disk while something else is computed."""
        if self._held is not None or not hasattr(mmap, "MADV_WILLNEED"):
            return
        for shard, row in self._rows(indices):
            file: Any = shard.base  # the mmap; that of an offset within its first page
            begin = shard.offset + row * shard[0].nbytes
            beyond = begin % mmap.PAGESIZE
            file.madvise(mmap.MADV_WILLNEED, begin - beyond, shard[0].nbytes + beyond)

    def _rows(self, indices: Tensor) -> Iterator[tuple[np.memmap[Any, np.dtype[np.float16]], int]]:
        """Each clip's shard, and its place there."""
        shards = np.searchsorted(self._starts, indices.numpy(), side="right") - 1
        for shard, index in zip(shards.tolist(), indices.tolist(), strict=True):
            yield self._shards[shard], index - int(self._starts[shard])


class Dataset:
    """A dataset's folder, opened. Raises AudiovqError where it is not one, naming what is wrong.

    Every byte of it is read for the checksums, at a gigabyte a second or so; what is large stays on
    disk all the same.
    """

    def __init__(self, folder: Path, recordings: Path | None = None) -> None:
        """`recordings` is the folder of the recordings, where they are no longer where they were."""
        self.folder = Path(folder)
        path = self.folder / "dataset.json"
        self.header: dict[str, Any] = read_header(path, "dataset", VERSION, AGAIN)
        try:
            self.spectrogram = from_json(SpectrogramConfig, self.header["spectrogram"], str(path))
            self.preprocess = from_json(PreprocessConfig, self.header["preprocess"], str(path))
            self.labels: dict[str, list[str]] = _labels(self.header["labels"])
            self.clip_frames = whole_number(self.header["clip_frames"])
            self.fingerprint = str(self.header["fingerprint"])
            self.recordings = self._recordings(recordings)
            """The folder of the recordings; None where it is not known."""
            for name in MANIFESTS:
                verified_path(self.folder, name, self.header["manifests"][name], AGAIN)
            shards = {split: self._shards(split) for split in SPLITS}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise AudiovqError(f"{path}: damaged ({error!r:.200}); {AGAIN}") from error
        self.train, self.validation, self.test = (
            Split(self.folder, name, shards[name], self.labels, self.spectrogram, self.clip_frames)
            for name in SPLITS
        )

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """All three."""
        return self.train, self.validation, self.test

    def _recordings(self, asked: Path | None) -> Path | None:
        if asked is not None:
            if not asked.is_dir():
                raise AudiovqError(f"--recordings {asked}: no such folder")
            return asked
        source = self.header["source"]
        if source is None:
            return None
        if type(source) is not str or "\0" in source or PurePath(source).anchor:
            raise ValueError(f"a relative path is meant, not {source!r:.80}")
        return self.folder / source

    def _shards(self, split: str) -> list[Path]:
        """A split's shards, their bytes checked."""
        shards = self.header["splits"][split]["shards"]
        return [
            verified_path(self.folder, shard["file"], shard["sha256"], AGAIN) for shard in shards
        ]


def _labels(labels: Any) -> dict[str, list[str]]:
    if not all(type(value) is str for values in labels.values() for value in values):
        raise ValueError("labels are lists of words")
    return {name: list(values) for name, values in labels.items()}


def _open_shard(path: Path, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.float16]]:
    """A shard, memory-mapped; nothing is, before its head is known to be that of its bytes."""
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            found, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
            begin = file.tell()
        whole = int(found[0]), *shape
        size = begin + 2 * math.prod(whole)
    except Exception as error:  # NumPy's reader raises whatever the damage leads to
        raise AudiovqError(f"{path}: cannot be read ({error!r:.200}); {AGAIN}") from error
    if (found, by_columns, dtype, version) != (whole, False, np.dtype("<f2"), (1, 0)):
        raise AudiovqError(
            f"{path}: {dtype!s:.40} {found!s:.80} is not (clips, {shape[0]}, {shape[1]}) float16,"
            f" row by row; {AGAIN}"
        )
    if path.stat().st_size != size:
        raise AudiovqError(f"{path}: {path.stat().st_size} bytes are not {size}; {AGAIN}")
    return np.memmap(path, np.float16, "r", begin, whole)
