"""What lies beside a dataset's shards: clips, skipped files, dataset.json; and the shards' heads.

`docs/formats.md` has it to the byte. Loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audiovq.catalog import Skipped
from audiovq.config import PreprocessConfig, SpectrogramConfig, to_json
from audiovq.files import sha256, write_text
from audiovq.header import write_header

FORMAT = "audiovq-dataset"
VERSION = 1
SPLITS = ("train", "validation", "test")
AGAIN = "run preprocess again with --overwrite"
"""What to do where a dataset is damaged."""
_LINE = json.JSONEncoder(ensure_ascii=False)
MANIFESTS = (*(f"{split}.jsonl" for split in SPLITS), "skipped.jsonl")


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


def write_manifests(
    folder: Path,
    clips: Mapping[str, Sequence[Clip]],
    shards: Mapping[str, Sequence[Mapping[str, Any]]],
    skipped: Sequence[Skipped],
    found: int,
    spectrogram: SpectrogramConfig,
    clip_frames: int,
    preprocess: PreprocessConfig,
    fingerprint: str,
    source: Path,
) -> float:
    """All of a dataset but its shards, which lie in `folder` already; dataset.json comes last.

    `clips` and `shards` (file, clips, sha256) are by split. Returns the seconds of sound in all.
    """
    every = [clip for split in SPLITS for clip in clips[split]]
    labels: dict[str, list[str]] = {}
    for name in sorted({name for clip in every for name in clip.labels}):
        values = {clip.labels[name] for clip in every if name in clip.labels}
        labels[name] = sorted(
            values, key=lambda v: (not v.isdecimal(), int(v) if v.isdecimal() else 0, v)
        )
    for split in SPLITS:
        write_text(folder / f"{split}.jsonl", "".join(map(json_line, clips[split])))
    write_text(folder / "skipped.jsonl", "".join(map(json_line, skipped)))
    seconds = sum(clip.num_samples for clip in every) / spectrogram.sample_rate
    used = len({clip.path for clip in every})
    write_header(
        folder / "dataset.json",
        {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": fingerprint,
            "source": str(source.resolve()),
            "spectrogram": to_json(spectrogram),
            "clip_frames": clip_frames,
            "labels": labels,
            "files": {"found": found, "used": used, "skipped": len(skipped)},
            "seconds": round(seconds, 3),
            "splits": {s: {"clips": len(clips[s]), "shards": list(shards[s])} for s in SPLITS},
            "manifests": {name: sha256(folder / name) for name in MANIFESTS},
            "preprocess": to_json(preprocess),
        },
    )
    return seconds


def json_line(row: Clip | Skipped | dict[str, Any]) -> str:
    """A line of a manifest."""
    return _LINE.encode(row if isinstance(row, dict) else vars(row)) + "\n"


def write_shard_header(file: BinaryIO, shape: tuple[int, int, int]) -> None:
    """The header of a shard's .npy; NumPy leaves room in it for any number of clips."""
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
