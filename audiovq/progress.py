"""How far a long task is: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_SECONDS = 15.0
"""Between two lines in a log, a pipe or a notebook."""


@contextlib.contextmanager
def progress(task: str, total: int, unit: str, before: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields what is to be called with the number of units just done.

    Shows on standard error, with rate and time left, how many of `total` are, those that were done
    `before` included. Off a terminal a task that is done within LINE_SECONDS says nothing.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, initial=before, desc=task, unit=f" {unit}") as bar:
            yield lambda more: bar.update(more) and None  # tqdm says whether it drew
        return
    started = spoken = time.monotonic()
    done = 0

    def update(more: int) -> None:
        nonlocal done, spoken
        done, now = done + more, time.monotonic()
        if now - spoken >= LINE_SECONDS and done:
            spoken, rate = now, done / (now - started)
            print(
                f"{task}: {before + done:,} of {total:,} {unit}, {rate:.3g} a second,"
                f" {clock((total - before - done) / rate)} left",
                file=sys.stderr,
            )

    yield update


def stepping(task: str, steps: int) -> Iterator[int]:
    """0 to `steps` - 1, with `progress`."""
    with progress(task, steps, "steps") as update:
        for step in range(steps):
            yield step
            update(1)


def clock(seconds: float) -> str:
    """Minutes and seconds, as 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
