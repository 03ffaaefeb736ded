"""How speed is compared: two sides in turn, many times, and the ratio of each pair.

Both sides run in one process, or each starts its own, so that what else the machine does meets both
alike. A ratio says how many times as much the other side takes: above 1, ours is the better one.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from audiovq.runtime.files import write_text
from benchmarks.provenance import commit, machine, today

ROUNDS = 5
"""Pairs that are measured after the warm-up."""
LEAST_SECONDS = 0.5
"""What takes less is called several times over."""

Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One comparison."""

    name: str
    peer: str
    ratio: float
    """The other side's time, or memory, over ours: the median of all pairs."""
    low: float
    """The least of the pairs."""
    high: float
    ours: float
    """Median, in `unit`."""
    theirs: float
    unit: str
    wanted: float | None
    """The ratio to be reached; None: nothing was promised."""
    machine: str
    date: str = ""
    """ISO 8601."""
    commit: str = ""
    """Of the code that was measured."""


def compare(
    name: str,
    peer: str,
    ours: Run,
    theirs: Run,
    wanted: float | None = None,
    rounds: int = ROUNDS,
) -> Row:
    """Seconds of both, in turn, after one call of each that is not counted."""
    ours(), theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    return row(name, peer, times, "s", wanted)


def against(
    name: str, peer: str, limit: float, ours: Run, wanted: float | None = None, rounds: int = ROUNDS
) -> Row:
    """Seconds of ours beside a number of seconds: a limit, or those that a sound lasts."""
    ours()
    return row(name, peer, [(seconds(ours), limit) for _ in range(rounds)], "s", wanted)


def compare_peaks(
    name: str, peer: str, ours: Callable[[], Run], theirs: Callable[[], Run], wanted: float | None
) -> Row:
    """Memory (MiB) that a call takes beyond what was there before it, each in a process of its own.

    What is to be called is made there by the functions given, which are of a module's own level.
    """
    return row(name, peer, [(_peak_apart(ours), _peak_apart(theirs))], "MiB", wanted)


def seconds(run: Run) -> float:
    """Of one call, by the wall clock; a GPU's queue is empty before the first and after the last."""
    calls = 0
    _wait()
    begin = time.perf_counter()
    while True:
        run()
        calls += 1
        if time.perf_counter() - begin >= LEAST_SECONDS:
            break
    _wait()
    return (time.perf_counter() - begin) / calls


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [
        "| | beside | ours | theirs | ratio (of all pairs) | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, theirs = (_said(value, row.unit) for value in (row.ours, row.theirs))
        spread = f"**{_digits(row.ratio)}** ({_digits(row.low)} to {_digits(row.high)})"
        wanted = "" if row.wanted is None else _digits(row.wanted)
        lines.append(f"| {row.name} | {row.peer} | {ours} | {theirs} | {spread} | {wanted} |")
    return "\n".join(lines)


def lines(rows: Iterable[Row]) -> str:
    """One JSON object a row."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def merge(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Write rows as `lines` does, after those of other names that the file holds; returns all."""
    known = path.read_text("utf-8").splitlines() if path.exists() else []
    merged = {(r.name, r.peer): r for r in (*(Row(**json.loads(line)) for line in known), *rows)}
    write_text(path, lines(merged.values()))
    return list(merged.values())


def row(
    name: str, peer: str, pairs: list[tuple[float, float]], unit: str, wanted: float | None
) -> Row:
    ratios = [theirs / ours for ours, theirs in pairs]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    spread = statistics.median(ratios), min(ratios), max(ratios)
    return Row(name, peer, *spread, ours, theirs, unit, wanted, machine(), today(), commit())


def _wait() -> None:
    torch = sys.modules.get("torch")  # what has not been loaded has no queue
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
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 2**10


def _resident(kind: str) -> int:
    """KiB that Linux counts for this process: those now (VmRSS), or the most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0])


def _said(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{_digits(1000 * value)} ms"
    return f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
