"""A few thousand damaged files; `benchmarks/robustness/fuzz.py` tries as many as asked for."""

import pytest

pytestmark = pytest.mark.usefixtures("benchmarks")


def test_every_damaged_file_is_refused_or_valid() -> None:
    from benchmarks.robustness import fuzz

    summary = fuzz.run(1_500, seed=1)
    assert summary.faults == []
    assert summary.refused + summary.same + summary.valid == summary.cases == 1_500
    assert summary.refused > 0.7 * summary.cases
    assert summary.valid > 0, (
        "no file with repaired checksums was read: the readers were not reached"
    )
