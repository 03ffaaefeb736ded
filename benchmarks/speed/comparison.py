"""Compare the speed of two functions: alternate them, and take the ratio of each pair of times.

Both sides run in one process, or each in its own, so that other load on the machine affects both
equally. The ratio is the other side's time over ours: above 1, ours is faster.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from audiovq.runtime.files import write_text
from benchmarks.provenance import commit, machine, today

ROUNDS = 5
"""Pairs measured after the warm-up."""
LEAST_SECONDS = 0.5
"""A function that takes less is called repeatedly for this long."""

Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One comparison."""

    name: str
    peer: str
    ratio: float
    """The other side's time or memory over ours: median over pairs."""
    low: float
    """Minimum over pairs."""
    high: float
    """Maximum over pairs."""
    ours: float
    """Median, in `unit`."""
    theirs: float
    unit: str
    wanted: float | None
    """Target ratio; None: no target."""
    machine: str
    date: str = ""
    """ISO 8601."""
    commit: str = ""
    """Of the measured code."""


def compare(
    name: str,
    peer: str,
    ours: Run,
    theirs: Run,
    wanted: float | None = None,
    rounds: int = ROUNDS,
    least: float = LEAST_SECONDS,
) -> Row:
    """Measure the seconds of both sides alternately, after one uncounted call of each.

    Ours chooses its number of threads while it runs; the other side gets the number that serves it best.
    """
    ours(), theirs()
    with _threads(None) as limit:
        threads = min({1, limit}, key=lambda n: _seconds_with(n, theirs, least)) if limit > 1 else 1
    times = [(seconds(ours, least), _seconds_with(threads, theirs, least)) for _ in range(rounds)]
    return row(name, peer, times, "s", wanted)


def against(
    name: str, peer: str, limit: float, ours: Run, wanted: float | None = None, rounds: int = ROUNDS
) -> Row:
    """Compare the seconds of ours with a fixed number: a limit, or the duration of the audio."""
    ours()
    return row(name, peer, [(seconds(ours), limit) for _ in range(rounds)], "s", wanted)


def compare_peaks(
    name: str, peer: str, ours: Callable[[], Run], theirs: Callable[[], Run], wanted: float | None
) -> Row:
    """Compare the peak memory (MiB) of one call beyond the memory allocated before it.

    Each side runs in a new process, where `ours` or `theirs` (module-level functions) makes the
    function to be measured.
    """
    return row(name, peer, [(_peak_apart(ours), _peak_apart(theirs))], "MiB", wanted)


def seconds(run: Run, least: float = LEAST_SECONDS) -> float:
    """Wall-clock seconds of one call, the mean over at least `least` seconds.

    A GPU is synchronized before the first and after the last call.
    """
    calls = 0
    _wait()
    begin = time.perf_counter()
    while True:
        run()
        calls += 1
        if time.perf_counter() - begin >= least:
            break
    _wait()
    return (time.perf_counter() - begin) / calls


@contextlib.contextmanager
def _threads(n: int | None) -> Iterator[int]:
    """Run the block with `n` of torch's threads (None: as many as there are cores); yields the number."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield 1
        return
    before, n = torch.get_num_threads(), n or len(os.sched_getaffinity(0))
    torch.set_num_threads(n)
    try:
        yield n
    finally:
        torch.set_num_threads(before)


def _seconds_with(threads: int, run: Run, least: float) -> float:
    with _threads(threads):
        return seconds(run, least)


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Run the block beside a process that spins on the last of this process's cores."""
    core = max(os.sched_getaffinity(0))
    process = multiprocessing.get_context("spawn").Process(target=_spin, args=(core,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _spin(core: int) -> None:
    os.sched_setaffinity(0, {core})
    while True:
        pass


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [
        "| | against | ours | theirs | ratio (range) | target |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, theirs = (_said(value, row.unit) for value in (row.ours, row.theirs))
        spread = f"**{_digits(row.ratio)}** ({_digits(row.low)} to {_digits(row.high)})"
        wanted = "" if row.wanted is None else _digits(row.wanted)
        lines.append(f"| {row.name} | {row.peer} | {ours} | {theirs} | {spread} | {wanted} |")
    return "\n".join(lines)


def lines(rows: Iterable[Row]) -> str:
    """One line of JSON for each row."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def merge(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Add rows to a file of `lines`, replacing rows of the same name and peer; returns all rows."""
    known = path.read_text("utf-8").splitlines() if path.exists() else []
    merged = {(r.name, r.peer): r for r in (*(Row(**json.loads(line)) for line in known), *rows)}
    write_text(path, lines(merged.values()))
    return list(merged.values())


def row(
    name: str, peer: str, pairs: list[tuple[float, float]], unit: str, wanted: float | None
) -> Row:
    """The row of measured `pairs` (ours, theirs) in `unit`."""
    ratios = [theirs / ours for ours, theirs in pairs]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    spread = statistics.median(ratios), min(ratios), max(ratios)
    return Row(name, peer, *spread, ours, theirs, unit, wanted, machine(), today(), commit())


def _wait() -> None:
    torch = sys.modules.get("torch")  # if torch is not loaded, no GPU work is queued
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_apart(make: Callable[[], Run]) -> float:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, make).result()


def _peak(make: Callable[[], Run]) -> float:
    import torch

    run = make()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 2**10


def _resident(kind: str) -> int:
    """Resident memory of this process in KiB: current (VmRSS) or peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0])


def _said(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{_digits(1000 * value)} ms"
    return f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
