"""The text files of a dataset (dataset.json, manifests of clips and of skipped files) and the headers of its shards.

`docs/formats.md` specifies them to the byte. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import OMIT_DEFAULT, to_json
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig, is_table
from audiovq.dataset.numbers import Numbers, is_note, labels_to_json, number_of
from audiovq.dataset.source import relative_or_noted
from audiovq.runtime.checksums import escapes_folder, read_header, verified_path, write_header
from audiovq.runtime.files import atomic, sha256, write_text

SPLITS = ("train", "validation", "test")
LARGEST = 1 << 48
"""Upper bound of numbers in a manifest: larger ones are treated as damage."""
FORMAT = "audiovq-dataset"
VERSION, STEREO_VERSION, NUMBERS_VERSION = VERSIONS = 2, 3, 4
"""Of a dataset in mono, in stereo, and of either with labels that are numbers; all are read."""
AGAIN = "run preprocess again with --overwrite"
"""Advice to the user for a damaged dataset."""
MANIFESTS = (*(f"{split}.jsonl" for split in SPLITS), "skipped.jsonl")


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip: one line of a split's manifest."""

    path: str
    """Path of its recording, relative to the source folder, with forward slashes."""
    offset: int
    """Start of the clip in the trimmed recording, in samples at the dataset's rate."""
    num_samples: int
    """Length without padding, in samples at the dataset's rate."""
    sample_rate: int
    """Sample rate of the recording, in Hz."""
    level: int
    """Loudness: see `Spectrogram`."""
    labels: dict[str, str]
    """Value of each label that it has, by the label's name."""
    sha256: str
    """Checksum of the recording's bytes."""
    complete: tuple[bool, bool]
    """Whether it begins at the start, and ends at the end, of its (trimmed) recording; else it is cut there."""
    transposed: float = field(default=0.0, metadata=OMIT_DEFAULT)
    """Semitones by which it was played faster, and so higher, than its recording."""


class Totals(NamedTuple):
    """Totals of a dataset."""

    used: int
    """Files that clips were cut from."""
    seconds: float
    """Total length of all clips, without padding."""
    untrained: dict[str, list[str]]
    """Values of each label that no training clip has."""

    @property
    def notes(self) -> list[str]:
        """Notes for the user on the labels."""
        return [
            f"label {name}: no training clip has {', '.join(values[:5])}"
            + (f" and {len(values) - 5} other values" if len(values) > 5 else "")
            + "; a model cannot learn them"
            for name, values in self.untrained.items()
            if values
        ]


def without_paths(preprocess: PreprocessConfig) -> PreprocessConfig:
    """The settings with the path of a table of labels reduced to its file name, as a dataset may be published."""
    if preprocess.labels and is_table(preprocess.labels):
        return replace(preprocess, labels=Path(preprocess.labels).name)
    return preprocess


@dataclass(frozen=True)
class Recipe:
    """What a dataset is made from, and with which settings."""

    source: Path | None
    """Folder of the recordings; None if there is none."""
    spectrogram: SpectrogramConfig
    clip_frames: int
    """Frames of every clip in the shards, padding included."""
    preprocess: PreprocessConfig
    fingerprint: str
    """SHA-256 of the settings and the recordings."""
    numbers: frozenset[str] = frozenset()
    """Names of the labels that are numbers."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Requests beside `preprocess`, by the names of the command's flags; for information."""


def write_manifests(
    folder: Path,
    clips: Mapping[str, Iterable[Clip]],
    shards: Mapping[str, Sequence[Mapping[str, Any]]],
    skipped: Sequence[Skipped],
    found: int,
    recipe: Recipe,
) -> Totals:
    """Write all files of a dataset except its shards, which are in `folder` already; dataset.json last.

    Args:
        folder: of the dataset.
        clips: of each split, those of one file one after another. They are read once and not kept.
        shards: of each split: file, clips, sha256.
        skipped: files that no clip was cut from.
        found: files below the source folder.
        recipe: what the dataset is made from.
    """
    tally = _Tally(recipe.numbers)
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        with atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for clip in clips[split]:
                file.write(json_line(clip))
                tally.add(clip, split)
    write_text(folder / "skipped.jsonl", "".join(map(json_line, skipped)))
    totals = tally.totals(recipe.spectrogram.sample_rate)
    header = {
        "format": FORMAT,
        "version": NUMBERS_VERSION
        if tally.has_numbers
        else VERSION
        if recipe.spectrogram.channels == 1
        else STEREO_VERSION,
        "fingerprint": recipe.fingerprint,
        "source": None
        if recipe.source is None
        else relative_or_noted(recipe.source, folder, recipe.fingerprint),
        "spectrogram": to_json(recipe.spectrogram),
        "clip_frames": recipe.clip_frames,
        "labels": labels_to_json(tally.values()),
        "files": {"found": found, "used": totals.used, "skipped": len(skipped)},
        "seconds": round(totals.seconds, 3),
        "splits": {
            split: {"clips": sum(s["clips"] for s in shards[split]), "shards": list(shards[split])}
            for split in SPLITS
        },
        "manifests": {name: sha256(folder / name) for name in MANIFESTS},
        "preprocess": to_json(without_paths(recipe.preprocess)),
        **({"options": dict(recipe.options)} if recipe.options else {}),
    }
    write_header(folder / "dataset.json", header)
    return totals


class _Tally:
    """Counts clips as they are written: there may be too many to keep."""

    def __init__(self, numbers: frozenset[str]) -> None:
        self.labels: dict[str, set[str]] = {}
        """All values of each label that is not a number."""
        self._trained: dict[str, set[str]] = {}
        self._numbers = numbers
        self._ranges: dict[str, dict[bool, list[float]]] = {}
        """The lowest and the highest value of each number, of clips that are in training as recorded, or not."""
        self._used: set[str] = set()
        self._samples = 0

    def add(self, clip: Clip, split: str) -> None:
        self._used.add(clip.path)
        self._samples += clip.num_samples
        for name, value in clip.labels.items():
            if name in self._numbers:
                self._add_number(name, value, split == "train" and not clip.transposed)
                continue
            self.labels.setdefault(name, set()).add(value)
            if split == "train":
                self._trained.setdefault(name, set()).add(value)

    def _add_number(self, name: str, value: str, is_trained: bool) -> None:
        number = number_of(value, is_note(name))
        assert number is not None  # `preprocess` checks it
        found = self._ranges.setdefault(name, {}).setdefault(is_trained, [number, number])
        found[:] = min(found[0], number), max(found[1], number)

    @property
    def has_numbers(self) -> bool:
        """Whether any label is a number."""
        return bool(self._ranges)

    def values(self) -> dict[str, Sequence[str]]:
        """The values of each label: words in order, or the range of numbers in training clips."""
        found: dict[str, Sequence[str]] = {
            name: sorted(values, key=_label_order) for name, values in self.labels.items()
        }
        for name, ranges in self._ranges.items():
            found[name] = Numbers.of(name, *(ranges.get(True) or ranges[False]))
        return dict(sorted(found.items()))

    def totals(self, sample_rate: int) -> Totals:
        untrained = {
            name: sorted(values - self._trained.get(name, set()), key=_label_order)
            for name, values in self.labels.items()
        }
        return Totals(len(self._used), self._samples / sample_rate, untrained)


def _label_order(value: str) -> tuple[bool, int, str]:
    """Sort key of a label's values: numbers first, in numerical order."""
    return not value.isdecimal(), int(value) if value.isdecimal() else 0, value


def as_dict(row: Any) -> dict[str, Any]:
    """Fields of a dataclass by name, but those left out at their default; unlike `dataclasses.asdict`, without copies."""
    return {
        one.name: value
        for one in fields(row)
        if (value := getattr(row, one.name)) != one.default or "omit_default" not in one.metadata
    }


_LINE = json.JSONEncoder(ensure_ascii=False, default=as_dict)


def json_line(row: Clip | Skipped | dict[str, Any]) -> str:
    """A row as a line of a manifest."""
    return _LINE.encode(row) + "\n"


def write_shard_header(file: BinaryIO, shape: tuple[int, int, int]) -> None:
    """Write the .npy header of a shard; NumPy reserves space in it for any number of clips."""
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that no clip was cut from."""

    path: str
    """Relative to the source folder, with forward slashes."""
    reason: str
    """Completes the sentence that begins with the path."""


def read_dataset_header(folder: Path) -> dict[str, Any]:
    """Read dataset.json of a finished dataset, and verify the checksum of every file.

    Raises AudiovqError if `folder` is not a dataset, or a file is missing or damaged.
    """
    path = folder / "dataset.json"
    header = read_header(path, "dataset", VERSIONS, AGAIN)
    try:
        for name in MANIFESTS:
            verified_path(folder, name, header["manifests"][name], AGAIN)
        for split in SPLITS:
            for shard in header["splits"][split]["shards"]:
                verified_path(folder, shard["file"], shard["sha256"], AGAIN)
    except (LookupError, TypeError, AttributeError) as error:
        raise AudiovqError(f"{path}: damaged ({error!r:.200}); {AGAIN}") from error
    return header


def read_manifest(path: Path) -> list[Clip]:
    """Read a split's clips. Raises AudiovqError if the file is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            return [_clip(json.loads(line)) for line in file]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise AudiovqError(f"{path}: cannot be read ({error!r:.200}); {AGAIN}") from error


def _clip(row: Any) -> Clip:
    """Check one line of a manifest. Raises ValueError if its path leads out of the recordings' folder."""
    ends = row["complete"]
    if type(ends) is not list or [type(end) for end in ends] != [bool, bool]:
        raise ValueError(f"expected two booleans, not {ends!r:.40}")
    clip = Clip(**(row | {"complete": tuple(ends)}))
    for number in (clip.offset, clip.num_samples, clip.sample_rate, clip.level):
        whole_number(number)
    if type(clip.transposed) not in (int, float) or not -24 <= clip.transposed <= 24:
        raise ValueError(f"expected semitones, not {clip.transposed!r:.40}")
    strings = clip.path, clip.sha256, *clip.labels.values()
    if not all(type(s) is str for s in strings) or escapes_folder(clip.path):
        raise ValueError(f"not a clip of this dataset: {row!r:.200}")
    return clip


def whole_number(value: Any) -> int:
    """Check that a value from a file is an integer from 0 to LARGEST. Raises ValueError."""
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(f"expected an integer of at least 0, not {value!r:.40}")
    return value
