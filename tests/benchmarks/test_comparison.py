"""Speed comparisons: the ratio is the median over pairs, above 1 is faster, files keep old rows."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("benchmarks")


def test_the_ratio_is_the_median_over_pairs_and_above_1_if_ours_is_faster() -> None:
    from benchmarks.speed.comparison import row

    made = row("quick", "slow", [(1.0, 2.0), (2.0, 2.0), (1.0, 5.0)], "s", 2)
    assert (made.ratio, made.low, made.high) == (2, 1, 5)
    assert (made.ours, made.theirs) == (1, 2)


def test_both_sides_alternate_after_a_warm_up() -> None:
    from benchmarks.speed import comparison

    calls: list[str] = []
    sides = (lambda: calls.append("ours")), (lambda: calls.append("theirs"))
    made = comparison.compare("a", "b", *sides, rounds=3, least=0)
    assert calls[:2] == ["ours", "theirs"]
    assert calls[-6:] == ["ours", "theirs"] * 3
    assert made.low <= made.ratio <= made.high


def test_a_row_measured_again_replaces_the_row_of_the_same_name_and_peer(tmp_path: Path) -> None:
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
    with pytest.raises(AudiovqError, match="unknown benchmark; choose from startup"):
        main(Settings(("nothing",)))


def test_a_benchmark_runs_as_a_script_from_any_folder(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, benchmarks / "speed" / "run.py", "--list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "quantizer" in done.stdout.split()


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="no cores to choose on this system"
)
def test_a_busy_core_is_kept_busy_by_one_process_until_the_block_ends() -> None:
    from benchmarks.speed.comparison import busy_core

    before = set(multiprocessing.active_children())
    with busy_core():
        (child,) = set(multiprocessing.active_children()) - before
        assert child.is_alive()
    assert not child.is_alive()
