"""Tests of `audiovq.progress`: a bar on a terminal, plain lines elsewhere, nothing for short tasks."""

import io
import re
import sys

import pytest

from audiovq.runtime import progress as module
from audiovq.runtime.progress import clock, progress, progress_range


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_lines_show_units_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([100.0, 104.0, 120.0, 121.0, 140.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with progress("encode", 1100, "files", before=100) as step:
        for more in (100, 300, 100, 300):
            step(more)
    assert capsys.readouterr().err.splitlines() == [
        "encode: 500 of 1,100 files, 20/s, 0:30 left",
        "encode: 900 of 1,100 files, 20/s, 0:10 left",
    ]


def test_a_short_task_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_range("judge", 50)) == list(range(50))
    assert capsys.readouterr() == ("", "")


def test_a_task_without_a_name_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LINE_SECONDS", -1.0)
    with progress("", 8, "sounds") as step:
        step(8)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_bar_with_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("generate", 8, "sounds", before=2) as step:
        step(6)
    assert re.search(r"generate: 100 %.* 8/8 \[.*sounds/s\]", terminal.getvalue())


def test_clock_shows_minutes_and_seconds() -> None:
    assert [clock(s) for s in (0, 9.9, 60, 3725)] == ["0:00", "0:09", "1:00", "62:05"]
