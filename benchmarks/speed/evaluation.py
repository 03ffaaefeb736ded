"""Evaluation at 44.1 kHz: `audiovq evaluate -n 200`, whole process, against two minutes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed import comparison
from benchmarks.speed.comparison import ALONE, Row, row
from benchmarks.speed.sounds import write_hits
from benchmarks.speed.startup import process

HITS, NEW, LIMIT = 750, 200, 120.0
"""Synthetic recordings, new sounds, and the target in seconds."""
TRAINING = "--preset", "small", "--max-minutes", "3"


def rows(sounds: Path | None = None) -> Iterator[Row]:
    """A model trained for minutes, on `sounds` or on synthetic stereo hits: with less, new sounds are all of full length."""
    count, new = (HITS, NEW) if comparison.LEAST_SECONDS else (40, 4)  # quick
    with tempfile.TemporaryDirectory() as folder:
        hits, dataset, model = (Path(folder) / name for name in ("hits", "dataset", "model"))
        if sounds is None:
            write_hits(hits, count, 2)
        process("-m", "audiovq", "preprocess", str(sounds or hits), str(dataset))
        process("-m", "audiovq", "train", str(dataset), str(model), *TRAINING)
        begin = time.perf_counter()
        process("-m", "audiovq", "evaluate", str(model), str(dataset), "-n", str(new))
        taken = time.perf_counter() - begin
    what = f"{count} stereo hits" if sounds is None else sounds.name
    name = f"audiovq evaluate -n {new}, {what} at 44,100 Hz"
    yield row(name, f"{LIMIT:.0f} s", [(taken, LIMIT)], "s", 1, ALONE)
