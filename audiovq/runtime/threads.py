"""The number of CPU threads per tensor operation, chosen while work runs.

All threads of an operation wait for the slowest. On a machine with other programs, one of them is often not
running, and a training step can take four times as long with two threads as with one. So work that consists
of many similar steps is timed with different numbers of threads, and repeatedly, as the load changes.

The last bits of floating-point results depend on the number of threads. `fix_threads` fixes it, for runs that
must be reproduced exactly; so does OMP_NUM_THREADS=1, with which there is nothing to choose.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from audiovq.config.checks import require_threads

_T = TypeVar("_T")
PROBE_SECONDS = 0.02
"""Time for which each number of threads is measured in a round of a probe,"""
PROBE_STEPS = 1
"""and the number of steps, whichever takes longer."""
PROBE_ROUNDS = 3
"""Rounds of a probe: the numbers take turns, so that a short disturbance hits all of them."""
CLEARLY_SLOWER = 1.25
"""Factor on the best time per unit above which a number leaves a probe after one round."""
GAIN = 0.95
"""Share of the current time per unit below which another number of threads replaces the current one."""
MIN_HOLD = 1.0
"""Seconds from one probe to the next, doubled each time that the choice is confirmed, up to"""
MAX_HOLD = 30.0
SLOWDOWN = 1.3
"""Factor on the time per unit that leads to a probe before its time: the machine's load has changed."""
SMOOTHING = 0.2
"""Weight of a step in the running mean of the time per unit."""


@dataclass
class _Machine:
    """The process's threads: the upper limit, and the number set last."""

    limit: int = 0
    """0: not yet asked for."""
    current: int = 0
    fixed: bool = False
    unfixed: int = 0
    """The limit before `fix_threads` fixed a number."""


_machine = _Machine()
_tuners: dict[str, ThreadTuner] = {}


def max_threads() -> int:
    """The number of threads that work may use: torch's own (OMP_NUM_THREADS, or the number of cores), or
    what `fix_threads` or `torch.set_num_threads` set. The latter goes unnoticed where it sets the number that a tuner
    has just chosen; use `fix_threads`."""
    actual = torch.get_num_threads()
    if actual != _machine.current:  # first call, or somebody called torch.set_num_threads
        _machine.limit = _machine.current = actual
        _machine.fixed = False
        _tuners.clear()
    return _machine.limit


def fix_threads(n: int | None) -> None:
    """Use `n` threads from now on; None: adapt the number to the load. Raises AudiovqError where `n` is
    not from 1 to MAX_THREADS."""
    require_threads(n)
    limit = max_threads()
    if not _machine.fixed:
        _machine.unfixed = limit
    if n is not None or _machine.fixed:
        _machine.limit = n or _machine.unfixed
        _set(_machine.limit)
    _machine.fixed = n is not None


def fixed_threads() -> int | None:
    """The number that `fix_threads` fixed; None where the number adapts."""
    return _machine.limit if _machine.fixed else None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run the block with one thread: its results are the same bits on machines of any number of cores."""
    max_threads()
    before = _machine.current
    _set(1)
    try:
        yield
    finally:
        _set(before)


def _set(n: int) -> None:
    if n != _machine.current:
        torch.set_num_threads(n)
        _machine.current = n


@contextlib.contextmanager
def tuned_step(kind: str, units: float = 1.0, enabled: bool = True) -> Iterator[None]:
    """Run the block, one step of the work `kind`, with the number of threads that serves this work best.

    `units` is the amount of work in this step, so that steps of different sizes can be compared. Steps must
    not be nested. The number of threads stays set after the block, for the code between two steps.
    """
    if not enabled or _machine.fixed or max_threads() == 1:
        yield
        return
    tuner = _tuners.get(kind)
    if tuner is None:
        tuner = _tuners[kind] = ThreadTuner(max_threads())
    _set(tuner.threads)
    started = time.perf_counter()
    yield
    tuner.record(units, time.perf_counter() - started)


def tuned(kind: str, steps: Iterable[_T], units: float = 1.0, enabled: bool = True) -> Iterator[_T]:
    """`steps`, with the body of the loop over them run as `tuned_step`."""
    for step in steps:
        with tuned_step(kind, units, enabled):
            yield step


@dataclass
class ThreadTuner:
    """Choice of a number of threads from the times that steps take.

    Either *holds* a number, or *probes*: it measures the held number, its half and its double in turns.
    """

    limit: int
    """Largest number of threads."""
    threads: int = 0
    """Number of threads for the next step; `limit` at first."""
    now: float = 0.0
    """Seconds of all steps so far."""
    _held: int = 0
    _hold: float = MIN_HOLD
    _probed: float = -MIN_HOLD
    """End of the last probe."""
    _expected: float = 0.0
    """Time per unit of the held number at the last probe."""
    _recent: float = 0.0
    """Running mean of the time per unit since then."""
    _turns: list[int] = field(default_factory=list)
    """Numbers still to be measured in this probe; empty while holding."""
    _times: dict[int, list[float]] = field(default_factory=dict)
    """Seconds and units by number, of all finished turns of this probe."""
    _turn: list[float] = field(default_factory=lambda: [0.0, 0.0, 0])
    """Seconds, units and steps of the current turn; its first step is not counted."""

    def __post_init__(self) -> None:
        self.threads = self._held = self.limit

    def record(self, units: float, seconds: float) -> None:
        """Take note of a step of `units` that took `seconds` with `threads` threads."""
        self.now += seconds
        if not self._turns:
            self._watch(seconds / units)
            return
        turn = self._turn
        turn[2] += 1
        if turn[2] > 1:  # in the first step threads are started, and caches are cold
            turn[0] += seconds
            turn[1] += units
        if turn[2] > PROBE_STEPS and turn[0] >= PROBE_SECONDS:
            self._end_turn()

    def _watch(self, per_unit: float) -> None:
        """A step while holding: begin a probe if it is due, or if the work has become slow."""
        self._recent = (
            (1 - SMOOTHING) * self._recent + SMOOTHING * per_unit if self._recent else per_unit
        )
        if self._expected and self._recent > SLOWDOWN * self._expected:
            self._hold = MIN_HOLD
        if self.now >= self._probed + self._hold:
            near = {self._held, max(1, self._held // 2), min(self.limit, 2 * self._held)}
            self._turns = sorted(near, reverse=True) * PROBE_ROUNDS
            self._times = {n: [0.0, 0.0] for n in near}
            self._begin_turn()

    def _begin_turn(self) -> None:
        self.threads, self._turn = self._turns[0], [0.0, 0.0, 0]

    def _end_turn(self) -> None:
        """Add up a finished turn; after the last one, choose."""
        times = self._times[self._turns.pop(0)]
        times[0] += self._turn[0]
        times[1] += self._turn[1]
        per_unit = {n: seconds / units for n, (seconds, units) in self._times.items() if units}
        if len(per_unit) == len(self._times):  # all have been measured
            worst = CLEARLY_SLOWER * min(per_unit.values())
            self._turns = [n for n in self._turns if per_unit[n] <= worst]
            if len(set(self._turns)) == 1:
                self._turns = []
        if self._turns:
            self._begin_turn()
            return
        best = min(per_unit, key=lambda n: per_unit[n])
        if best != self._held and per_unit[best] < GAIN * per_unit[self._held]:
            self._held, self._hold = best, MIN_HOLD
        else:
            self._hold = min(MAX_HOLD, 2 * self._hold)
        self.threads, self._expected, self._recent = self._held, per_unit[self._held], 0.0
        self._probed = self.now
