"""Progress of long tasks: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Say = Callable[[str], None]
_BREAKS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029)
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_BAR = "{desc}: {percentage:3.0f} %|{bar}{r_bar}"
LINE_SECONDS = 15.0
"""Interval of lines in a log, a pipe or a notebook."""


def in_one_line(text: str) -> str:
    """A text with escapes in place of line breaks and other control characters, which names of files may hold."""
    return text.translate(_BREAKS)


def unseen(_: int) -> None:
    """Takes the number of units just done, as what `progress` yields, and shows nothing."""


@contextlib.contextmanager
def progress(task: str, total: int, unit: str, before: int = 0) -> Iterator[Callable[[int], None]]:
    """Progress report on standard error; yields a function to call with the number of units just done.

    Shows units done of `total`, `before` included, with rate and time left. Off a terminal, a task that
    takes less than LINE_SECONDS prints nothing; nor does one whose name is empty, anywhere.
    """
    if not task:
        yield unseen
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, initial=before, desc=task, unit=f" {unit}", bar_format=_BAR) as bar:
            yield lambda more: bar.update(more) and None  # tqdm returns whether it redrew
        return
    started = printed = time.monotonic()
    done = 0

    def update(more: int) -> None:
        nonlocal done, printed
        done, now = done + more, time.monotonic()
        if now - printed >= LINE_SECONDS and done:
            printed, rate = now, done / (now - started)
            print(
                f"{task}: {before + done:,} of {total:,} {unit}, {rate:.3g}/s,"
                f" {clock((total - before - done) / rate)} left",
                file=sys.stderr,
            )

    yield update


def progress_range(task: str, steps: int) -> Iterator[int]:
    """`range(steps)` with `progress`."""
    with progress(task, steps, "steps") as update:
        for step in range(steps):
            yield step
            update(1)


def percent(share: float, digits: int = 0) -> str:
    """A share as all pages and messages write it, such as `92 %`."""
    return f"{100 * share:.{digits}f} %"


def clock(seconds: float) -> str:
    """Duration as minutes and seconds, such as 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
