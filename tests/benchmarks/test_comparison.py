"""Speed comparisons: the ratio is the median over pairs, above 1 is faster, files keep old rows."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from audiovq.runtime.executors import cores

pytestmark = pytest.mark.usefixtures("benchmarks")


def test_the_ratio_is_the_median_over_pairs_and_above_1_if_ours_is_faster() -> None:
    from benchmarks.speed.comparison import row

    made = row("quick", "slow", [(1.0, 2.0), (2.0, 2.0), (1.0, 5.0)], "s", 2)
    assert (made.ratio, made.low, made.high) == (2, 1, 5)
    assert (made.ours, made.theirs) == (1, 2)


def test_both_sides_take_turns_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.speed import comparison

    monkeypatch.setattr(comparison, "LEAST_SECONDS", 0)
    monkeypatch.setattr(comparison, "SETTLE_SECONDS", 0)
    calls: list[str] = []
    peer = comparison.Peer("b", lambda: calls.append("theirs"), threads=(1,))
    twice = [comparison.ALONE]
    (made,) = comparison.compare("a", lambda: calls.append("ours"), peer, under=twice, rounds=2)
    assert calls == ["ours", "theirs", *["ours", "theirs"] * 2, "ours", *["ours", "theirs"] * 2]
    assert made.low <= made.ratio <= made.high
    assert made.pairs == 4


def test_a_row_for_each_condition_says_where_it_ran_and_one_compares_busy_with_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks.speed import comparison

    monkeypatch.setattr(comparison, "LEAST_SECONDS", 0)
    monkeypatch.setattr(comparison, "SETTLE_SECONDS", 0)
    seen: list[int] = []
    peer = comparison.Peer("2 s", 2.0, wanted=1, wanted_at=comparison.ONE_CORE)
    rows = list(comparison.compare("a", lambda: seen.append(cores()), peer, rounds=1))
    if cores() == 1:
        assert [row.condition for row in rows] == ["one core"]
        return
    assert [row.condition for row in rows] == [
        "one core",
        "all cores",
        "one core, beside a busy core",
        "all cores, beside a busy core",
        "all cores, beside a busy core",
    ]
    assert [row.wanted for row in rows] == [1, None, None, None, comparison.BUSY_SHARE]
    assert set(seen[:2]) == {1}
    assert max(seen) == cores()
    assert {"python", "torch"} <= set(rows[0].versions)


def test_a_row_measured_again_replaces_the_row_of_the_same_name_peer_and_condition(
    tmp_path: Path,
) -> None:
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
        assert "def rows(sounds: Path | None = None) -> Iterator[Row]:" in text
    with pytest.raises(AudiovqError, match="unknown benchmark; choose from startup"):
        main(Settings(("nothing",)))


def test_a_benchmark_runs_as_a_script_from_any_folder(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, benchmarks / "speed" / "run.py", "--list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "quantizer" in done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="no cores to choose on this system")
def test_a_busy_core_is_kept_busy_by_one_process_until_the_block_ends() -> None:
    from benchmarks.speed.comparison import busy_core

    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    before = set(children.read_text().split())
    with busy_core():
        (child,) = set(children.read_text().split()) - before
        assert os.sched_getaffinity(int(child)) == {max(os.sched_getaffinity(0))}
    assert child not in children.read_text().split()
