"""A clock that advances when it is read: tests of time limits do not depend on how busy a machine is."""

import itertools
from types import SimpleNamespace

import pytest

from audiovq.training import loop


def use_ticking_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Advance the clock of the training loop by `seconds` each time that it is read."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: seconds * next(ticks))
    monkeypatch.setattr(loop, "time", clock)
