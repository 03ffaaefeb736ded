"""Start-up time: from a typed command to its answer."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.speed.comparison import Row, against

LIMIT = 0.3
"""Seconds after which a user notices a delay."""


def process(*words: str) -> None:
    """Run Python with these arguments in a new process. Raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def rows() -> Iterator[Row]:
    """Help texts, and importing the package alone."""
    for name, words in (
        ("audiovq --help", ("-m", "audiovq", "--help")),
        ("audiovq train --help", ("-m", "audiovq", "train", "--help")),
        ("import audiovq", ("-c", "import audiovq")),
    ):
        yield against(name, "noticeable delay", LIMIT, functools.partial(process, *words), 1)
