"""The laws of `benchmarks/speed/comparison.py`: ratios are of pairs, better is above 1, nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_ratio_is_the_median_of_pairs_and_above_1_where_ours_takes_less() -> None:
    from benchmarks.speed.comparison import row

    made = row("quick", "slow", [(1.0, 2.0), (2.0, 2.0), (1.0, 5.0)], "s", 2)
    assert (made.ratio, made.low, made.high) == (2, 1, 5)
    assert (made.ours, made.theirs) == (1, 2)


def test_both_sides_are_called_in_turn_after_one_call_that_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks.speed import comparison

    monkeypatch.setattr(comparison, "LEAST_SECONDS", 0)
    calls: list[str] = []
    sides = (lambda: calls.append("ours")), (lambda: calls.append("theirs"))
    made = comparison.compare("a", "b", *sides, rounds=3)
    assert calls == ["ours", "theirs"] * 4
    assert made.low <= made.ratio <= made.high


def test_rows_measured_again_replace_those_of_their_name_and_peer(tmp_path: Path) -> None:
    from benchmarks.speed.comparison import merge, row, table

    path = tmp_path / "rows.jsonl"
    first = row("a", "b", [(1.0, 2.0)], "s", None), row("a", "c", [(1.0, 3.0)], "s", None)
    again = row("a", "b", [(1.0, 4.0)], "s", None)
    merge(path, first)
    assert merge(path, [again]) == [again, first[1]]
    read = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["ratio"] for line in read] == [4, 3]
    assert {"name", "peer", "ratio", "low", "high", "machine"} <= set(read[0])
    assert table([again]).splitlines()[2].startswith("| a | b |")


def test_every_listed_benchmark_exists_and_an_unknown_name_is_refused(
    benchmarks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from audiovq.config.errors import AudiovqError
    from benchmarks.speed.run import Settings, main

    main(Settings(list=True))
    names = capsys.readouterr().out.split()
    assert names
    for name in names:
        text = (benchmarks / "speed" / f"{name}.py").read_text()
        assert "def rows() -> Iterator[Row]:" in text
    with pytest.raises(AudiovqError, match="no such benchmark; take startup"):
        main(Settings(("nothing",)))


def test_a_benchmark_runs_as_a_script_from_any_folder(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, benchmarks / "speed" / "run.py", "--list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "quantizer" in done.stdout.split()
