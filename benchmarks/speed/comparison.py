"""Compare the speed of ours with that of peers, on one core and on all, alone and beside a busy core.

Ours and its peers take turns in the same minute, so that other load on the machine affects all equally. The
ratio is the peer's time over ours: above 1, ours is faster.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from audiovq.runtime.executors import cores
from audiovq.runtime.files import write_text
from benchmarks.provenance import commit, machine, today

VISITS = 2
"""Times that each condition is entered;"""
ROUNDS = 3
"""turns of all sides in a visit, after a warm-up."""
LEAST_SECONDS = 0.3
"""A function that takes less is called repeatedly for this long."""
SETTLE_SECONDS = 1.0
"""Time for which ours runs at the begin of a visit, to choose its number of threads."""
BUSY_SHARE = 0.45
"""Target: share of the speed alone that ours keeps beside one busy core of two."""
PACKAGES = "torch", "numpy", "librosa", "torchaudio", "soxr", "transformers"
"""Packages whose versions a row names, where they are installed."""

Run = Callable[[], object]


@dataclass(frozen=True)
class Condition:
    """Where a comparison runs."""

    one_core: bool = False
    """All sides are bound to one core and have one thread; else each has what serves it best."""
    busy: bool = False
    """Another process spins on the last core."""

    @property
    def said(self) -> str:
        """In words."""
        return ("one core" if self.one_core else "all cores") + (
            ", beside a busy core" if self.busy else ""
        )


ALONE = Condition()
ONE_CORE = Condition(one_core=True)


@dataclass(frozen=True)
class Peer:
    """What ours is compared with: another implementation, a limit of the machine, or a fixed number."""

    name: str
    run: Run | float
    """A function to be timed, or seconds."""
    wanted: float | None = None
    """Target ratio, under `wanted_at`; None: no target."""
    wanted_at: Condition = ALONE
    times: float = 1.0
    """Factor on the seconds of `run`, which may be a unit of the work."""
    threads: Sequence[int] = ()
    """Numbers of threads of which the best is used; empty: one, and one per core."""
    once: bool = False
    """Too slow for every visit and condition: one turn on all cores, alone."""


@dataclass(frozen=True)
class Row:
    """One comparison under one condition."""

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
    condition: str = ""
    """`Condition.said`."""
    pairs: int = 0
    our_threads: int = 0
    """Threads or processes that ours used last; 0: unknown."""
    their_threads: int = 0
    """0: unknown, or a fixed number."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of Python and packages."""


def conditions() -> Sequence[Condition]:
    """All that this machine allows. With a GPU, only all cores alone: the work runs elsewhere."""
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_available()) or sys.platform != "linux":
        return (ALONE,)
    if cores() == 1:
        return (ONE_CORE,)
    return ONE_CORE, ALONE, Condition(True, True), Condition(False, True)


def compare(
    name: str,
    ours: Run,
    *peers: Peer,
    under: Sequence[Condition] | None = None,
    rounds: int | None = None,
    workers: Callable[[], int] | None = None,
) -> Iterator[Row]:
    """Time ours and its peers in turns under all conditions (`under`); a row for each peer and condition.

    Where ours was timed on all cores both alone and beside a busy core, one more row compares the two.

    Args:
        name: the work, for the rows.
        ours: the work; it chooses its number of threads itself where it may use several.
        peers: each does the same work, or is a limit.
        rounds: turns in a visit, at most ROUNDS; None: ROUNDS.
        workers: number of threads or processes of ours, asked after its last call; None: torch's threads.
    """
    under = conditions() if under is None else under
    first = ALONE if ALONE in under else under[0]
    rounds = ROUNDS if rounds is None else min(rounds, ROUNDS)
    pairs: dict[tuple[Condition, Peer], list[tuple[float, float]]] = {}
    best: dict[tuple[Condition, Peer], int] = {}
    used: dict[Condition, int] = {}
    mine: dict[Condition, list[float]] = {}
    for visit in range(VISITS):
        for condition in under:
            present = [p for p in peers if not p.once or (condition == first and not visit)]
            with surroundings(condition):
                seconds(ours, SETTLE_SECONDS)
                for peer in present:
                    if (condition, peer) not in best:
                        best[condition, peer] = _best_threads(peer)
                for turn in range(rounds):
                    taken = seconds(ours)
                    mine.setdefault(condition, []).append(taken)
                    used[condition] = (workers or threads)()
                    for peer in present:
                        if peer.once and turn:
                            continue
                        theirs = _seconds_of(peer, best[condition, peer])
                        pairs.setdefault((condition, peer), []).append((taken, theirs))
    for (condition, peer), found in pairs.items():
        wanted = peer.wanted if condition == peer.wanted_at else None
        numbers = used[condition], best[condition, peer]
        yield row(name, peer.name, found, "s", wanted, condition, numbers)
    busy = Condition(busy=True)
    if ALONE in mine and busy in mine:
        both = list(zip(mine[busy], mine[ALONE], strict=True))
        numbers = used[busy], used[ALONE]
        yield row(name, "the same alone", both, "s", BUSY_SHARE, busy, numbers)


@contextlib.contextmanager
def surroundings(condition: Condition) -> Iterator[None]:
    """Run the block under a condition."""
    with busy_core() if condition.busy else contextlib.nullcontext(), _bound(condition.one_core):
        yield


@contextlib.contextmanager
def _bound(one_core: bool) -> Iterator[None]:
    """With `one_core`, bind all threads of this process to its first core, with one thread of torch."""
    if not one_core:
        yield
        return
    before = os.sched_getaffinity(0)
    bind({min(before)})
    _fix(1)
    try:
        yield
    finally:
        bind(before)
        _fix(None)


def bind(to: set[int]) -> None:
    """Bind all threads of this process to these cores."""
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(task), to)


def _fix(n: int | None) -> None:
    if "torch" in sys.modules:
        from audiovq.runtime.threads import fix_threads

        fix_threads(n)


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Run the block beside a process that spins on the last of this process's cores."""
    core = max(os.sched_getaffinity(0))
    program = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it runs
        try:
            yield
        finally:
            process.kill()


def threads() -> int:
    """Threads of torch at this moment; 1 where it is not loaded."""
    torch = sys.modules.get("torch")
    return 1 if torch is None else int(torch.get_num_threads())


def seconds(run: Run, least: float | None = None) -> float:
    """Wall-clock seconds of one call, the mean over at least `least` seconds (None: LEAST_SECONDS).

    A GPU is synchronized before the first and after the last call.
    """
    least = LEAST_SECONDS if least is None else least
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


def _best_threads(peer: Peer) -> int:
    """The number of threads with which a peer is fastest; this is also its warm-up. 0: it has none."""
    if not callable(peer.run):
        return 0
    numbers = list(peer.threads) or sorted({1, len(os.sched_getaffinity(0))})
    if peer.once:
        return numbers[-1]
    _seconds_of(peer, numbers[-1])
    if len(numbers) == 1:
        return numbers[0]
    return min(numbers, key=lambda n: _seconds_of(peer, n))


def _seconds_of(peer: Peer, n: int) -> float:
    if not callable(peer.run):
        return peer.times * peer.run
    torch = sys.modules.get("torch")
    if torch is None:
        return peer.times * seconds(peer.run)
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        return peer.times * seconds(peer.run)
    finally:
        torch.set_num_threads(before)


def row(
    name: str,
    peer: str,
    pairs: list[tuple[float, float]],
    unit: str,
    wanted: float | None,
    condition: Condition = ALONE,
    numbers: tuple[int, int] = (0, 0),
) -> Row:
    """The row of measured `pairs` (ours, theirs) in `unit`; `numbers` are threads of ours and theirs."""
    ratios = [theirs / ours for ours, theirs in pairs]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    spread = statistics.median(ratios), min(ratios), max(ratios)
    return Row(
        name,
        peer,
        *spread,
        ours,
        theirs,
        unit,
        wanted,
        machine(),
        today(),
        commit(),
        condition.said,
        len(pairs),
        *numbers,
        versions(),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of those PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def table(rows: Sequence[Row]) -> str:
    """A Markdown table. Columns of conditions and threads are left out where no row has them."""
    detailed = any(row.condition for row in rows)
    sides = "ours (threads) | theirs (threads)" if detailed else "ours | theirs"
    lines = [
        "| | against |" + " on |" * detailed + f" {sides} | ratio (range) | target |",
        "|---|---|" + "---|" * detailed + "---|---|---|---|",
    ]
    for row in rows:
        ours, theirs = (
            _said(value, row.unit) + (f" ({number})" if number else "")
            for value, number in ((row.ours, row.our_threads), (row.theirs, row.their_threads))
        )
        spread = f"**{_digits(row.ratio)}** ({_digits(row.low)} to {_digits(row.high)})"
        wanted = "" if row.wanted is None else _digits(row.wanted)
        middle = f" {row.condition} |" * detailed
        lines.append(
            f"| {row.name} | {row.peer} |{middle} {ours} | {theirs} | {spread} | {wanted} |"
        )
    return "\n".join(lines)


def lines(rows: Iterable[Row]) -> str:
    """One line of JSON for each row."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of `lines`."""
    return [Row(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def merge(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Add rows to a file of `lines`, replacing rows of the same name, peer and condition; returns all rows."""
    known = read_rows(path) if path.exists() else []
    merged = {(r.name, r.peer, r.condition): r for r in (*known, *rows)}
    write_text(path, lines(merged.values()))
    return list(merged.values())


def _wait() -> None:
    torch = sys.modules.get("torch")  # if torch is not loaded, no GPU work is queued
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def _said(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{_digits(1000 * value)} ms"
    return f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
