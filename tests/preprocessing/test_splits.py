"""No split is needlessly empty, and no sound is in two splits."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.manifest import SPLITS
from audiovq.preprocessing.splits import (
    FEW,
    clips_of,
    held_shares,
    of_largest,
    of_several,
    splits_of,
    stretches,
)

CONFIG = PreprocessConfig()


def names(count: int, salt: int = 0) -> list[str]:
    return [f"{salt}/{number}.wav" for number in range(count)]


counts = st.lists(st.integers(1, 12), min_size=1, max_size=40)


def test_recordings_of_several_clips_are_counted_and_no_others() -> None:
    assert of_several({"a": 1, "b": 1}, 2.0) == []
    assert of_several({"a": 3, "b": 1}, 2.04) == [
        "1 of 2 recordings is longer than a clip of 2.04 s and is cut into several"
    ]
    assert of_several({"a": 3, "b": 2, "c": 1}, 1.0)[0].startswith("2 of 3 recordings are ")


@given(counts, st.integers(0, 50), st.booleans(), st.booleans())
def test_from_three_clips_on_every_split_asked_for_has_a_clip(
    clips: list[int], salt: int, validation: bool, test: bool
) -> None:
    config = PreprocessConfig(
        validation_share=0.1 * validation, test_share=0.1 * test, labels="none"
    )
    paths = names(len(clips), salt)
    assigned = splits_of(paths, config, clips=dict(zip(paths, clips, strict=True)))
    found = Counter(split for splits in assigned.values() for split in splits)
    asked = {"train": True, "validation": validation, "test": test}
    wanted = {split for split in SPLITS if asked[split]}
    if sum(clips) >= 3:
        assert set(found) == wanted
    assert found["train"] >= 1
    assert set(found) <= wanted
    for path, splits in assigned.items():
        count = dict(zip(paths, clips, strict=True))[path]
        assert len(splits) == 1 or (count >= len(splits) and splits[0] == "train")


@given(st.integers(FEW, 200), st.integers(0, 20))
def test_one_recording_more_moves_at_most_one_of_many(count: int, salt: int) -> None:
    paths = names(count + 1, salt)
    before, after = splits_of(paths[:-1], CONFIG), splits_of(paths, CONFIG)
    assert sum(before[path] != after[path] for path in before) <= 1


@given(st.integers(1, FEW), st.integers(0, 20))
def test_one_recording_more_moves_at_most_four_of_few(count: int, salt: int) -> None:
    paths = names(count + 1, salt)
    before, after = splits_of(paths[:-1], CONFIG), splits_of(paths, CONFIG)
    assert sum(before[path] != after[path] for path in before) <= 4


@given(st.integers(1, 60), st.integers(1, 10), st.integers(0, 9))
def test_equal_sounds_are_in_one_split_and_order_does_not_matter(
    count: int, different: int, salt: int
) -> None:
    paths = names(count, salt)
    sounds = {path: str(number % different) for number, path in enumerate(paths)}
    assigned = splits_of(paths, CONFIG, sounds=sounds)
    assert assigned == splits_of(paths[::-1], CONFIG, sounds=sounds)
    for sound in set(sounds.values()):
        assert len({assigned[path] for path in paths if sounds[path] == sound}) == 1
    if min(count, different) >= 3:
        assert {split for splits in assigned.values() for split in splits} == set(SPLITS)


def test_a_note_names_one_of_several_recordings_that_gives_more_than_half_of_the_clips() -> None:
    few = dict.fromkeys("abcd", 1)
    assert not of_largest({})
    assert not of_largest({**few, "long": 4})
    assert not of_largest({"a": 1, "b": 1, "c": 1, "long": 40})
    (note,) = of_largest({**few, "long": 5})
    assert note.startswith("long gives 5 of 9 clips")


def test_a_test_pattern_selects_copies_too_and_must_leave_training_recordings() -> None:
    paths = names(6)
    sounds = {path: path[-5] if path[-5] in "012" else "same" for path in paths}
    config = PreprocessConfig(test="5")
    assigned = splits_of(paths, config, sounds=sounds)
    assert {path for path in paths if assigned[path] == ("test",)} == {*paths[3:]}
    with pytest.raises(AudiovqError, match="or a copy"):
        splits_of(paths, config, sounds=dict.fromkeys(paths, "same"))


@given(st.integers(4, 60), st.integers(2, 8), st.integers(0, 30))
def test_every_label_value_keeps_a_training_clip(count: int, values: int, salt: int) -> None:
    paths = names(count, salt)
    labels = {path: {"kind": str(number % values)} for number, path in enumerate(paths)}
    assigned = splits_of(paths, CONFIG, labels=labels)
    assert {split for splits in assigned.values() for split in splits} == set(SPLITS)
    if count >= 2 * values + 2:
        trained = {labels[path]["kind"] for path in paths if "train" in assigned[path]}
        assert trained == set(map(str, range(values)))


def test_labels_whose_values_are_all_different_do_not_change_the_splits() -> None:
    paths = names(100)
    labels = {path: {"caption": path} for path in paths}
    assert splits_of(paths, CONFIG, labels=labels) == splits_of(paths, CONFIG)


@given(
    st.integers(1, 400_000), st.integers(200, 20_000), st.integers(16, 200), st.integers(0, 9000)
)
def test_stretches_of_different_splits_have_gaps_and_none_is_empty(
    length: int, clip: int, window: int, gap: int
) -> None:
    clip = max(clip, 4 * window)
    shares = held_shares(CONFIG)
    found = stretches(length, clip, window, gap, shares)
    rows = sorted((span, split) for split, spans in found.items() for span in spans)
    for ((_, end), one), ((begin, _), other) in itertools.pairwise(rows):
        assert begin >= end + window
        assert one != other
    assert 0 == rows[0][0][0] < rows[-1][0][1] <= length
    if len(clips_of(0, length, clip)) >= 3:
        assert all(found[split] for split in SPLITS)
        assert all(end - begin >= window for (begin, end), _ in rows)
        size = {split: sum(end - begin for begin, end in found[split]) for split in SPLITS}
        if length > 30 * clip:
            for split, share in shares.items():
                assert abs(size[split] / length - share) < 0.06
            assert sum(size.values()) > 0.85 * length
    else:
        assert found == {"train": [(0, length)], "validation": [], "test": []}
