"""Start-up time: from a typed command to its answer."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed.comparison import ALONE, Peer, Row, compare

DELAY = 0.3
"""Seconds after which a user notices a delay."""
WAIT = 3.0
"""Seconds that the first sounds may take."""


def process(*words: str) -> None:
    """Run Python with these arguments in a new process. Raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def generate() -> None:
    """Run `audiovq generate` with the bundled model: from process start to the last of 16 WAVs."""
    with tempfile.TemporaryDirectory() as folder:
        process("-m", "audiovq", "generate", "digits", str(Path(folder) / "out"), "-n", "16")


def rows(sounds: Path | None = None) -> Iterator[Row]:
    """Help texts, importing the package alone, and the first sounds."""
    for name, words in (
        ("audiovq --help", ("-m", "audiovq", "--help")),
        ("audiovq train --help", ("-m", "audiovq", "train", "--help")),
        ("import audiovq", ("-c", "import audiovq")),
    ):
        run = functools.partial(process, *words)
        yield from compare(name, run, Peer("noticeable delay", DELAY, 1), under=[ALONE])
    yield from compare(
        "audiovq generate digits -n 16", generate, Peer(f"{WAIT:.0f} s", WAIT, 1), under=[ALONE]
    )
