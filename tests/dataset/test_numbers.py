"""Labels that are numbers: their steps and texts, and how a recording's labels move where it is transposed."""

import math

import pytest

from audiovq.dataset.numbers import (
    STEPS,
    Numbers,
    label_numbers,
    labels_from_json,
    labels_to_json,
    number_of,
    transposed,
)


@pytest.mark.parametrize(
    ("low", "high", "notes"),
    [
        (28, 99, True),
        (60, 60, True),
        (0, 1, False),
        (59.5, 174, False),
        (-30, -3.25, False),
        (20, 20_000, False),
        (5, 5, False),
        (0, 0, False),
        (-1e-7, 1e-7, False),
    ],
)
def test_texts_and_indices_are_inverse_and_steps_fine(low: float, high: float, notes: bool) -> None:
    numbers = Numbers(low, high, notes)
    for index in {0, 1, len(numbers) // 3, len(numbers) - 1, *numbers.ends}:
        if index < len(numbers):
            assert numbers.index(numbers[index]) == index
    first, last = numbers.number(0), numbers.number(len(numbers) - 1)
    assert first <= low <= high <= last
    if high > low:
        assert (last - first) / (len(numbers) - 1) <= (high - low) / STEPS * 1.001
        assert abs(numbers.number(numbers.index(str(low))) - low) <= (high - low) / STEPS
        assert numbers.ends[0] < numbers.ends[1] < len(numbers)
    assert numbers[-1] == numbers[len(numbers) - 1]
    assert "x" not in numbers
    assert str(high + 2 * (last - first)) not in numbers
    with pytest.raises(IndexError):
        numbers[len(numbers)]


def test_notes_are_found_by_name_and_number_and_beyond_the_range_a_little() -> None:
    numbers = Numbers.of("Pitch", 40, 64)
    assert numbers.notes
    assert numbers.index("A3") == numbers.index("57") == numbers.index("57.0")
    assert numbers[numbers.index("57")] == "A3"
    assert numbers[numbers.index("57.25")] == "57.25"
    assert "66" in numbers
    assert "38" in numbers
    assert "72" not in numbers
    assert numbers.in_words == "E2 to E4"
    assert numbers.listed(57, 59.5) == ["A3", "A#3", "B3"]
    assert Numbers(0, 1).listed() == ["0", *(f"0.{i}" for i in range(1, 10)), "1"]


def test_json_is_inverse_and_damage_is_refused() -> None:
    labels = {"kind": ["a", "b"], "note": Numbers(28, 99, True)}
    assert labels_from_json(labels_to_json(labels)) == labels
    assert label_numbers(labels) == {1: Numbers(28, 99, True).ends}
    for damaged in (
        {"low": 1, "high": 0, "notes": False},
        {"low": 0, "high": math.inf, "notes": False},
        {"low": "0", "high": 1, "notes": False},
        {"low": 0, "high": 1, "notes": 1},
        {"low": 0, "high": 1},
    ):
        with pytest.raises((ValueError, LookupError)):
            labels_from_json({"note": damaged})


def test_numbers_in_texts() -> None:
    assert number_of("Bb2", True) == 46
    assert number_of("Bb2", False) is None
    assert number_of("nan", False) is None
    assert number_of("-3.5", False) == -3.5


def test_labels_of_a_transposed_recording_are_moved_or_left_out() -> None:
    labels = {"pitch": "A3", "bpm": "100", "key": "Cmin", "kind": "kick", "loudness": "0.5"}
    moved = transposed(labels, frozenset({"pitch", "bpm", "loudness"}), 12)
    assert moved == {"pitch": "69.000", "bpm": "200.00", "kind": "kick", "loudness": "0.5"}
    assert transposed(labels, frozenset(), 1) == {"kind": "kick", "loudness": "0.5"}
