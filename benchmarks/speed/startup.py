"""From a typed command to an answer."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.speed.comparison import Row, against

LIMIT = 0.3
"""Seconds after which a user would notice."""


def process(*words: str) -> None:
    """A Python of its own, from its start to its end. Raises CalledProcessError where it fails."""
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def rows() -> Iterator[Row]:
    """The help, and the package alone."""
    for name, words in (
        ("audiovq --help", ("-m", "audiovq", "--help")),
        ("audiovq train --help", ("-m", "audiovq", "train", "--help")),
        ("import audiovq", ("-c", "import audiovq")),
    ):
        yield against(name, "what is noticed", LIMIT, functools.partial(process, *words), 1)
