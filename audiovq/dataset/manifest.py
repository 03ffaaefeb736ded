"""What lies beside a dataset's shards: clips, skipped files, dataset.json; and the shards' heads.

`docs/formats.md` has it to the byte. Loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import to_json
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.runtime.checksums import escapes_folder, read_header, verified_path, write_header
from audiovq.runtime.files import atomic, relative, sha256, write_text

SPLITS = ("train", "validation", "test")
LARGEST = 1 << 48
"""No number in a manifest is larger: samples of more than a thousand years."""
FORMAT = "audiovq-dataset"
VERSION = 2
AGAIN = "run preprocess again with --overwrite"
"""What to do where a dataset is damaged."""
MANIFESTS = (*(f"{split}.jsonl" for split in SPLITS), "skipped.jsonl")


@dataclass(frozen=True, slots=True)
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
    complete: tuple[bool, bool]
    """Whether it begins where the (trimmed) recording begins, and ends where that ends; else it is cut
    there."""


class Totals(NamedTuple):
    """What a dataset holds in all."""

    used: int
    """Files of which there are clips."""
    seconds: float
    """Of sound in all clips, padding not counted."""
    unlearnt: dict[str, list[str]]
    """The values of each label that no training clip has."""

    @property
    def notes(self) -> list[str]:
        """What the user should know of the labels."""
        return [
            f"label {name}: no training clip has {', '.join(values[:5])}"
            + (f" and {len(values) - 5} other values" if len(values) > 5 else "")
            + "; a model cannot learn what it does not hear"
            for name, values in self.unlearnt.items()
            if values
        ]


def without_paths(preprocess: PreprocessConfig) -> PreprocessConfig:
    """The settings with the name of a table of labels, in the place of its path: others may read them."""
    if preprocess.labels is None or not preprocess.labels.endswith(".csv"):
        return preprocess
    return replace(preprocess, labels=Path(preprocess.labels).name)


def write_manifests(
    folder: Path,
    clips: Mapping[str, Iterable[Clip]],
    shards: Mapping[str, Sequence[Mapping[str, Any]]],
    skipped: Sequence[Skipped],
    found: int,
    spectrogram: SpectrogramConfig,
    clip_frames: int,
    preprocess: PreprocessConfig,
    fingerprint: str,
    source: Path | None,
) -> Totals:
    """All of a dataset but its shards, which lie in `folder` already; dataset.json comes last.

    `clips` and `shards` (file, clips, sha256) are by split. Clips are taken one by one and not kept; a
    file's come one after another. `source` is the recordings' folder.
    """
    labels: dict[str, set[str]] = {}
    learnt: dict[str, set[str]] = {}
    used: set[str] = set()
    samples = 0
    for split in SPLITS:
        with (
            atomic(folder / f"{split}.jsonl") as temporary,
            open(temporary, "w", encoding="utf-8") as file,
        ):
            for clip in clips[split]:
                file.write(json_line(clip))
                used.add(clip.path)
                samples += clip.num_samples
                for name, value in clip.labels.items():
                    labels.setdefault(name, set()).add(value)
                    if split == "train":
                        learnt.setdefault(name, set()).add(value)
    write_text(folder / "skipped.jsonl", "".join(map(json_line, skipped)))
    unlearnt = {
        name: sorted(values - learnt.get(name, set()), key=_in_order)
        for name, values in labels.items()
    }
    totals = Totals(len(used), samples / spectrogram.sample_rate, unlearnt)
    write_header(
        folder / "dataset.json",
        {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": fingerprint,
            "source": None if source is None else relative(source, folder),
            "spectrogram": to_json(spectrogram),
            "clip_frames": clip_frames,
            "labels": {name: sorted(labels[name], key=_in_order) for name in sorted(labels)},
            "files": {"found": found, "used": totals.used, "skipped": len(skipped)},
            "seconds": round(totals.seconds, 3),
            "splits": {
                split: {"clips": sum(shard["clips"] for shard in own), "shards": list(own)}
                for split, own in ((split, shards[split]) for split in SPLITS)
            },
            "manifests": {name: sha256(folder / name) for name in MANIFESTS},
            "preprocess": to_json(without_paths(preprocess)),
        },
    )
    return totals


def _in_order(value: str) -> tuple[bool, int, str]:
    """By which a label's values are sorted: numbers first, as numbers."""
    return not value.isdecimal(), int(value) if value.isdecimal() else 0, value


def as_dict(row: Any) -> dict[str, Any]:
    """A dataclass's fields by name; unlike `dataclasses.asdict`, it copies nothing."""
    return {field.name: getattr(row, field.name) for field in fields(row)}


_LINE = json.JSONEncoder(ensure_ascii=False, default=as_dict)


def json_line(row: Clip | Skipped | dict[str, Any]) -> str:
    """A line of a manifest."""
    return _LINE.encode(row) + "\n"


def write_shard_header(file: BinaryIO, shape: tuple[int, int, int]) -> None:
    """The header of a shard's .npy; NumPy leaves room in it for any number of clips."""
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file left out."""

    path: str
    reason: str


def read_dataset_header(folder: Path) -> dict[str, Any]:
    """dataset.json of a finished dataset, after every file's checksum is checked; loads no torch.

    Raises AudiovqError where `folder` is no dataset, or a file is missing or damaged.
    """
    path = folder / "dataset.json"
    header = read_header(path, "dataset", VERSION, AGAIN)
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
    try:
        with open(path, encoding="utf-8") as file:
            return [_clip(json.loads(line)) for line in file]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise AudiovqError(f"{path}: cannot be read ({error!r:.200}); {AGAIN}") from error


def _clip(row: Any) -> Clip:
    """One line of a manifest, checked: no path in it leads out of the recordings' folder."""
    ends = row["complete"]
    if type(ends) is not list or [type(end) for end in ends] != [bool, bool]:
        raise ValueError(f"two of true and false are meant, not {ends!r:.40}")
    clip = Clip(**(row | {"complete": tuple(ends)}))
    for number in (clip.offset, clip.num_samples, clip.sample_rate, clip.level):
        whole_number(number)
    strings = clip.path, clip.sha256, *clip.labels.values()
    if not all(type(s) is str for s in strings) or escapes_folder(clip.path):
        raise ValueError(f"no clip of this dataset: {row!r:.200}")
    return clip


def whole_number(value: Any) -> int:
    """A whole number from 0 upward."""
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(f"a whole number is meant, not {value!r:.40}")
    return value
