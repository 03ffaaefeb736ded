"""The whole pipeline on a GPU: preprocess, train and generate by the command line."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed.comparison import Row, row
from benchmarks.speed.inversion import FOLDERS
from benchmarks.speed.limits import device
from benchmarks.speed.startup import process

LIMIT = 120.0
"""Target in seconds."""
NEW = 100
"""Sounds to generate."""


def rows() -> Iterator[Row]:
    """Preset small on the spoken digits; no row on a CPU, where the preset trains for 20 minutes."""
    if device().type != "cuda":
        return
    recordings = next(folder for folder in FOLDERS if folder.is_dir())
    with tempfile.TemporaryDirectory() as folder:
        dataset, model, new = (Path(folder) / name for name in ("dataset", "model", "new"))
        begin = time.perf_counter()
        for verb in (
            ("preprocess", recordings, dataset),
            ("train", dataset, model, "--preset", "small"),
            ("generate", model, new, "-n", NEW),
        ):
            process("-m", "audiovq", *map(str, verb))
        taken = time.perf_counter() - begin
        if (made := len(list(new.glob("*.wav")))) != NEW:
            raise RuntimeError(f"{made} recordings, not {NEW}")
    name = f"preset small, from {recordings.parent.name}'s WAVs to {NEW} new ones"
    yield row(name, f"{LIMIT:.0f} s", [(taken, LIMIT)], "s", 1.0)
