"""A clock that ticks when it is looked at: tests of time limits do not depend on how busy a machine is."""

import itertools
from types import SimpleNamespace

import pytest

from audiovq.training import loop


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Training's clock goes on by so many seconds each time that it is read."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: seconds * next(ticks))
    monkeypatch.setattr(loop, "time", clock)
