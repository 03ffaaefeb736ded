"""A few thousand damaged files; `benchmarks/robustness/fuzz.py` tries as many as asked for."""


def test_no_change_to_a_file_gives_anything_but_a_refusal_or_a_valid_file() -> None:
    from benchmarks.robustness import fuzz

    summary = fuzz.run(1_500, seed=1)
    assert summary.faults == []
    assert summary.refused + summary.same + summary.valid == summary.cases == 1_500
    assert summary.refused > 0.7 * summary.cases
    assert summary.valid > 0, (
        "no file with repaired checksums was read: the readers were not reached"
    )
