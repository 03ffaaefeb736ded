"""The split that a metric is measured on, and the words for it in all reports and messages.

A split may be empty: a single recording has no test split, and `--validation-share 0` asks for no
validation split. Another split is then measured instead, and every sentence says which.
"""

from __future__ import annotations

from audiovq.dataset.dataset import Dataset, Split

NAMES = {"test": "test", "validation": "validation", "train": "training"}
"""Adjectives for the splits."""
HELD_OUT = ("test", "validation")
"""Splits that metrics are measured on after training: the first of them that has clips."""


def measured_split(dataset: Dataset, *wanted: str) -> Split:
    """The first of the splits `wanted` that has clips, else the training split."""
    splits = [getattr(dataset, name) for name in wanted]
    return next((split for split in splits if len(split)), dataset.train)


def clips_of(split: str | None, noun: str = "clips") -> str:
    """`validation clips`; just `clips` if the split is unknown, as in files of earlier versions."""
    return f"{NAMES[split]} {noun}" if split in NAMES else noun


def clips_and_why(split: str | None, *wanted: str, noun: str = "clips") -> str:
    """`training clips (this dataset has no validation split)`: the clips that were measured, and which of the
    splits `wanted` were empty."""
    missing = (
        wanted[: wanted.index(split)] if split in wanted else wanted if split == "train" else ()
    )
    names = " and no ".join(NAMES[name] for name in missing)
    return clips_of(split, noun) + (f" (this dataset has no {names} split)" if names else "")


def counted(n: int, split: str) -> str:
    """`1 training clip`, `1,200 test clips`."""
    return f"{n:,} {clips_of(split, 'clip' if n == 1 else 'clips')}"


def recordings_in_words(dataset: Dataset) -> str:
    """`122 recordings used of 123 files found; 131 clips: 104 training, 13 validation, 14 test`.

    Counts files, as preprocess found and used them, and the clips of each split.
    """
    files = dataset.header.get("files", {})
    splits = dataset.train, dataset.validation, dataset.test
    clips = ", ".join(f"{len(split):,} {NAMES[split.name]}" for split in splits)
    noun = "images" if dataset.spectrogram.images else "recordings"
    return (
        f"{files.get('used', 0):,} {noun} used of {files.get('found', 0):,} files found;"
        f" {sum(map(len, splits)):,} clips: {clips}"
    )
