"""A dataset: a folder of spectrograms, with the origin of each.

    dataset.json              format, version, all settings, labels, checksums of all files
    train-00000.npy …         (clips, rows, frames) float16, memory-mapped when read
    train.jsonl …             one line per clip, in the order of the shards: path, offset, labels, level …
    skipped.jsonl             one line per skipped file, with the reason

The splits are train, validation and test; a file is in one of them, or in several with stretches that do not
touch. `docs/formats.md` specifies it to the byte.
"""

from __future__ import annotations

import contextlib
import copy
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
    NUMBERS_VERSION,
    SPLITS,
    STEREO_VERSION,
    VERSIONS,
    read_manifest,
    whole_number,
)
from audiovq.dataset.numbers import LabelValues, Numbers, labels_from_json
from audiovq.dataset.source import noted
from audiovq.runtime.checksums import read_header, verified_path
from audiovq.runtime.device import to_device_async
from audiovq.spectral.scale import expanded_rows


def known_ends(split: Split, clip_frames: int) -> Tensor:
    """`split.complete` (clips, 2) bool, or all True if no clip shows how long sounds are.

    That is the case if no clip is complete and none has `clip_frames` frames.
    """
    known = split.complete.all(dim=1) | (split.num_frames >= clip_frames)
    return split.complete if bool(known.any()) else torch.ones_like(split.complete)


BEGINNINGS = 0.25
"""Share of clips that begin with their recordings, from which on new sounds begin so, too."""


def sounds_begin(complete: Tensor) -> bool:
    """Whether new sounds are to begin as recordings do, by the clips' `complete` (clips, 2), bool.

    The later clips of a hit that rings for long have no onset, and are quiet. Where most recordings are longer than a
    few clips, they are textures or music, which may begin anywhere.
    """
    return len(complete) > 0 and float(complete[:, 0].float().mean()) >= BEGINNINGS


def split_images(split: Split, indices: Tensor | None = None) -> list[Tensor]:
    """Spectrograms (planes, bins, frames) of a split, or of the clips `indices`, each cut to its own length."""
    indices = torch.arange(len(split)) if indices is None else indices
    return [split.spectrograms(index[None])[0] for index in indices]


def random_clips(split: Split, most: int, seed: int) -> Tensor:
    """Indices of up to `most` clips of a split, chosen at random by `seed`."""
    return torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:most]


HELD_SHARE = 0.25
"""Share of a GPU's free memory that a split may take; a larger one stays on disk, memory-mapped."""


class Split:
    """The clips of one split: spectrograms, lengths, levels and labels."""

    def __init__(
        self,
        folder: Path,
        name: str,
        shards: list[Path],
        labels: LabelValues,
        spectrogram: SpectrogramConfig,
        clip_frames: int,
    ) -> None:
        self.name = name
        self.labels = labels
        self.images = spectrogram.images
        """Whether the clips are images instead of spectrograms."""
        self.clips = read_manifest(folder / f"{name}.jsonl")
        self.spectrogram = spectrogram
        """Settings of the spectrograms."""
        self.planes = spectrogram.planes
        """Planes of the spectrograms: 1, of stereo 3."""
        self._rows_of_planes = expanded_rows(spectrogram) if spectrogram.planes > 1 else None
        shape = self._stored, _ = spectrogram.stored_rows, clip_frames
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
        """(clips, 2) whether each clip begins at the start, and ends at the end, of its recording."""
        fits = (self.num_samples > 0) & (self.num_frames <= clip_frames)
        if not (fits & (self.levels < spectrogram.num_levels)).all():
            raise AudiovqError(
                f"{folder}: {name}.jsonl lists clips that its shards cannot hold; {AGAIN}"
            )

    def __len__(self) -> int:
        return len(self.clips)

    def relabelled(self, labels: LabelValues) -> Split:
        """The split with some of its labels."""
        split = copy.copy(self)
        split.__dict__.pop("label_indices", None)
        split.labels = labels
        return split

    @cached_property
    def label_indices(self) -> Tensor:
        """(clips, labels) indices of the values in `labels`; one past the last for a missing label."""
        indices = [
            {
                value: values.index(value)
                for value in {clip.labels.get(name, "") for clip in self.clips}
                if value in values
            }
            if isinstance(values, Numbers)
            else {value: i for i, value in enumerate(values)}
            for name, values in self.labels.items()
        ]
        rows = [
            [
                index_of.get(clip.labels.get(name, ""), len(values))
                for (name, values), index_of in zip(self.labels.items(), indices, strict=True)
            ]
            for clip in self.clips
        ]
        return torch.tensor(rows, dtype=torch.long).view(len(self.clips), len(self.labels))

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """Index of the first clip of each shard, and the number of clips."""
        return np.cumsum([0, *map(len, self._shards)])

    @contextlib.contextmanager
    def held(self, device: torch.device) -> Iterator[None]:
        """Keep all spectrograms in the memory of `device` during the block, if it is a GPU with enough room.

        On a CPU, the system's file cache does the same.
        """
        size = sum(shard.nbytes for shard in self._shards)
        if device.type == "cuda" and size <= HELD_SHARE * torch.cuda.mem_get_info(device)[0]:
            shards = (torch.tensor(shard, device=device) for shard in self._shards)
            self._held = torch.cat(list(shards)) if self._shards else None
        try:
            yield
        finally:
            self._held = None

    def spectrograms(self, indices: Tensor) -> Tensor:
        """Clips `indices` (batch,) → (batch, planes, bins, frames) float32, cut to the frames of the longest.

        They are on the device where the split is `held`, else on the CPU.
        """
        frames = int(self.num_frames[indices].max()) if len(indices) else 0
        if self._held is not None:
            indices = to_device_async(indices, self._held.device)
            return self._expanded(self._held[indices, :, :frames]).float()
        rows = [shard[row, :, :frames] for shard, row in self._rows(indices)]
        stacked = np.stack(rows) if rows else np.zeros((0, self._stored, 0), np.float16)
        return self._expanded(torch.from_numpy(stacked)).float()

    def _expanded(self, stored: Tensor) -> Tensor:
        """Planes (batch, planes, bins, frames) of stored clips (batch, stored_rows, frames)."""
        if self._rows_of_planes is None:
            return stored[:, None]
        rows = to_device_async(torch.from_numpy(self._rows_of_planes), stored.device)
        return stored[:, rows]

    def read_ahead(self, indices: Tensor) -> None:
        """Ask the system to read clips `indices` (batch,) from disk in the background."""
        if self._held is not None or not hasattr(mmap, "MADV_WILLNEED"):
            return
        for shard, row in self._rows(indices):
            file: Any = shard.base  # the mmap, which begins at the file's first page
            begin = shard.offset + row * shard[0].nbytes
            in_page = begin % mmap.PAGESIZE
            file.madvise(mmap.MADV_WILLNEED, begin - in_page, shard[0].nbytes + in_page)

    def _rows(self, indices: Tensor) -> Iterator[tuple[np.memmap[Any, np.dtype[np.float16]], int]]:
        """Shard and row of each clip."""
        shards = np.searchsorted(self._starts, indices.numpy(), side="right") - 1
        for shard, index in zip(shards.tolist(), indices.tolist(), strict=True):
            yield self._shards[shard], index - int(self._starts[shard])


class Dataset:
    """A dataset in a folder. Opening verifies the checksums of all files, at about a gigabyte a second.

    Shards stay on disk, memory-mapped. Raises AudiovqError, with the file and the fault, if the folder
    is not a dataset or damaged.
    """

    def __init__(self, folder: Path, recordings: Path | None = None) -> None:
        """`recordings`: folder of the recordings, if it is no longer where it was."""
        self.folder = Path(folder)
        path = self.folder / "dataset.json"
        self.header: dict[str, Any] = read_header(path, "dataset", VERSIONS, AGAIN)
        try:
            self.spectrogram = from_json(SpectrogramConfig, self.header["spectrogram"], str(path))
            version, channels = self.header["version"], self.spectrogram.channels
            if version != NUMBERS_VERSION and (version == STEREO_VERSION) != (channels > 1):
                raise ValueError(f"version of {3 - channels} channels")
            self.preprocess = from_json(PreprocessConfig, self.header["preprocess"], str(path))
            self.options = dict(self.header.get("options", {}))
            self.labels = labels_from_json(self.header["labels"])
            numbers = [name for name, v in self.labels.items() if isinstance(v, Numbers)]
            if numbers and version != NUMBERS_VERSION:
                raise ValueError(f"version {version} with the number {numbers[0]!r:.40}")
            self.clip_frames = whole_number(self.header["clip_frames"])
            self.fingerprint = str(self.header["fingerprint"])
            self.recordings = self._recordings(recordings)
            """Folder of the recordings; None if unknown."""
            for name in MANIFESTS:
                verified_path(self.folder, name, self.header["manifests"][name], AGAIN)
            shards = {split: self._shards(split) for split in SPLITS}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise AudiovqError(f"{path}: damaged ({error!r:.200}); {AGAIN}") from error
        self.train, self.validation, self.test = (
            Split(self.folder, name, shards[name], self.labels, self.spectrogram, self.clip_frames)
            for name in SPLITS
        )

    def of_words(self) -> Dataset:
        """The dataset without its labels that are numbers, for what tells classes apart."""
        dataset = copy.copy(self)
        dataset.labels = {
            name: values for name, values in self.labels.items() if not isinstance(values, Numbers)
        }
        dataset.train, dataset.validation, dataset.test = (
            split.relabelled(dataset.labels) for split in self.splits
        )
        return dataset

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """All three."""
        return self.train, self.validation, self.test

    def _recordings(self, given: Path | None) -> Path | None:
        if given is not None:
            if not given.is_dir():
                raise AudiovqError(f"--recordings {given}: no such folder")
            return given
        source = self.header["source"]
        if source is None:
            return noted(self.fingerprint)
        if type(source) is not str or "\0" in source or PurePath(source).anchor:
            raise ValueError(f"expected a relative path, not {source!r:.80}")
        return self.folder / source

    def _shards(self, split: str) -> list[Path]:
        """Paths of a split's shards, with verified checksums."""
        shards = self.header["splits"][split]["shards"]
        return [
            verified_path(self.folder, shard["file"], shard["sha256"], AGAIN) for shard in shards
        ]


def _open_shard(path: Path, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.float16]]:
    """Memory-map a shard after checking that its .npy header matches `shape` and the size of the file."""
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            found, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
            begin = file.tell()
        expected = int(found[0]), *shape
        size = begin + 2 * math.prod(expected)
    except Exception as error:  # NumPy's reader raises all kinds of errors on a damaged header
        raise AudiovqError(f"{path}: cannot be read ({error!r:.200}); {AGAIN}") from error
    if (found, is_fortran, dtype, version) != (expected, False, np.dtype("<f2"), (1, 0)):
        raise AudiovqError(
            f"{path}: {dtype!s:.40} {found!s:.80} is not (clips, {shape[0]}, {shape[1]}) float16,"
            f" row by row; {AGAIN}"
        )
    if path.stat().st_size != size:
        raise AudiovqError(f"{path}: has {path.stat().st_size} bytes instead of {size}; {AGAIN}")
    return np.memmap(path, np.float16, "r", begin, expected)
