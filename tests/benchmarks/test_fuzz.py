"""A few thousand files as they should never be; `benchmarks/fuzz.py` tries as many as one likes."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_no_change_to_a_file_gives_anything_but_a_refusal_or_a_valid_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("benchmarks/ is not there: it comes with the repository, not the package")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import fuzz

    summary = fuzz.run(1_500, seed=1)
    assert summary.faults == []
    assert summary.refused + summary.same + summary.valid == summary.cases == 1_500
    assert summary.refused > 0.7 * summary.cases
    assert summary.valid > 0, (
        "checksums made right let nothing through: the readers were not reached"
    )
