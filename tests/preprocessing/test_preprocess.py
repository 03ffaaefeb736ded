"""`audiovq.preprocess` uses or lists every file, keeps splits stable, and resumes stopped runs."""

import hashlib
import io
import itertools
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from audiovq.audio import reading
from audiovq.audio.reading import AudioInfo
from audiovq.audio.silence import trim
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.dataset import manifest as manifest_module
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.manifest import SPLITS, Clip, Skipped
from audiovq.preprocessing import catalog as catalog_module
from audiovq.preprocessing.labels import labels_of
from audiovq.preprocessing.preprocess import Limits, Summary, preprocess
from audiovq.preprocessing.settings import choose_settings
from audiovq.runtime import files as files_module
from audiovq.runtime.files import lock_folder
from audiovq.spectral.spectrogram import Spectrogram

Waveform = npt.NDArray[np.float32]
SMALL_SHARDS = Limits(files_per_shard=5)


def noise(num_samples: int, seed: int = 0) -> Waveform:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def write(path: Path, seconds: float = 0.1, sample_rate: int = 8000, seed: int = 0) -> Path:
    """Noise, without silence at its ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(round(seconds * sample_rate), seed), sample_rate)
    return path


def many(folder: Path, count: int, start: int = 0) -> Path:
    for i in range(start, start + count):
        write(folder / f"{i}.wav", 0.05, seed=i)
    return folder


def run(source: Path, target: Path, *, limits: Limits = Limits(), **settings: Any) -> Summary:
    config = PreprocessConfig(**settings)
    return preprocess(source, target, config, limits=limits, say=lambda line: None)


def said(source: Path, target: Path, **settings: Any) -> list[str]:
    lines: list[str] = []
    preprocess(source, target, PreprocessConfig(**settings), say=lines.append)
    return lines


def refusal(
    source: Path,
    target: Path,
    overwrite: bool = False,
    limits: Limits = Limits(),
    **settings: Any,
) -> str:
    def refused() -> None:
        config = PreprocessConfig(**settings)
        preprocess(source, target, config, overwrite=overwrite, limits=limits, say=print)

    with pytest.raises(AudiovqError) as caught:
        refused()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def splits(folder: Path) -> dict[str, Split]:
    dataset = Dataset(folder)
    return {name: getattr(dataset, name) for name in SPLITS}


def clips(folder: Path) -> list[Clip]:
    return [clip for split in splits(folder).values() for clip in split.clips]


def split_of_path(folder: Path) -> dict[str, str]:
    return {clip.path: name for name, split in splits(folder).items() for clip in split.clips}


class Dying(Executor):
    """Runs tasks at once in this thread; fails after `shards` shards."""

    def __init__(self, shards: int) -> None:
        self.left = shards

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.left -= fn.__name__ == "make_shard"
        try:
            if self.left < 0:
                raise RuntimeError("the power is gone")
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


# --- Every file is used or named ---------------------------------------------------------------


def test_every_file_is_counted_as_used_or_skipped(recordings: Path, tmp_path: Path) -> None:
    summary = run(recordings, tmp_path / "out")
    assert (summary.found, summary.used, summary.skipped) == (24, 24, [])
    assert sum(summary.clips.values()) == len(clips(tmp_path / "out")) == 24
    in_all = sum(clip.num_samples for clip in clips(tmp_path / "out"))
    assert summary.seconds == pytest.approx(in_all / 8000)
    assert Dataset(tmp_path / "out").header["files"] == {"found": 24, "used": 24, "skipped": 0}


def test_unusable_files_are_listed_with_a_reason_and_the_others_are_used(
    own_recordings: Path, tmp_path: Path
) -> None:
    (own_recordings / "jan" / "text.wav").write_text("Dear diary")
    (own_recordings / "notes.txt").write_text("Dear diary")
    (own_recordings / "empty.flac").touch()
    soundfile.write(own_recordings / "silent.wav", np.zeros(4000), 8000)
    soundfile.write(own_recordings / "none.wav", np.zeros(0), 8000)
    soundfile.write(own_recordings / "nan.wav", np.full(4000, np.nan), 8000, subtype="FLOAT")
    soundfile.write(own_recordings / "sam" / "one.wav", np.ones(1), 8000)
    flac = own_recordings / "cut.flac"
    soundfile.write(flac, noise(8000), 8000)
    flac.write_bytes(flac.read_bytes()[:100])

    summary = run(own_recordings, tmp_path / "out")
    reasons = {
        "jan/text.wav": "not a sound file",
        "sam/one.wav": "silent",
        "cut.flac": "",
        "empty.flac": "empty",
        "nan.wav": "NaN",
        "none.wav": "no samples",
        "notes.txt": "has an unsupported file type (.txt)",
        "silent.wav": "silent",
    }
    assert [skipped.path for skipped in summary.skipped] == sorted(reasons)
    for skipped in summary.skipped:
        assert reasons[skipped.path] in skipped.reason
        assert skipped.reason
        assert "\n" not in skipped.reason
        assert str(tmp_path) not in skipped.reason
    assert summary.used == 24
    assert summary.found == summary.used + len(summary.skipped)
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [Skipped(**json.loads(line)) for line in lines] == summary.skipped
    assert set(split_of_path(tmp_path / "out")).isdisjoint(reasons)


def test_files_of_equal_name_and_content_in_different_folders_are_all_used(tmp_path: Path) -> None:
    for folder in ("a", "b", "b/c"):
        write(tmp_path / "in" / folder / "same.wav")
    summary = run(tmp_path / "in", tmp_path / "out")
    assert summary.used == 3
    assert {c.path for c in clips(tmp_path / "out")} == {"a/same.wav", "b/same.wav", "b/c/same.wav"}
    assert len({c.sha256 for c in clips(tmp_path / "out")}) == 1


def test_equal_sounds_in_different_files_are_in_one_split_and_noted(tmp_path: Path) -> None:
    source = many(tmp_path / "in", 12)
    for number in range(12):
        for copy in range(3):
            shutil.copy(source / f"{number}.wav", source / f"copy{copy} of {number}.wav")
        samples, rate = soundfile.read(source / f"{number}.wav", dtype="int16")
        soundfile.write(source / f"{number}.flac", samples, rate)
    lines = said(source, tmp_path / "out")
    assert any("60 of 60 recordings are identical to another" in x for x in lines)
    found = split_of_path(tmp_path / "out")
    assert len(found) == 60
    for number in range(12):
        of_copies = [s for path, s in found.items() if Path(path).stem.split()[-1] == f"{number}"]
        assert len(of_copies) == 5
        assert len(set(of_copies)) == 1
    assert set(found.values()) == set(SPLITS)
    assert not any(
        "equal to another" in line for line in said(many(tmp_path / "other", 12), tmp_path / "o")
    )


@pytest.mark.parametrize(
    "name", ["a\u2028b", "a\x85b", "a\nb", 'a"b', "日本", "a b", "%s{}", "a\\b"]
)
def test_any_file_name_is_stored_unchanged(tmp_path: Path, name: str) -> None:
    write(tmp_path / "in" / name / f"{name}.wav")
    (tmp_path / "in" / f"{name}.txt").touch()
    summary = run(tmp_path / "in", tmp_path / "out", labels="folder")
    assert [c.path for c in clips(tmp_path / "out")] == [f"{name}/{name}.wav"]
    assert [s.path for s in summary.skipped] == [f"{name}.txt"]
    assert Dataset(tmp_path / "out").labels == {"folder": [name]}


def test_a_name_that_is_not_utf_8_is_skipped_with_the_reason(tmp_path: Path) -> None:
    good = write(tmp_path / "in" / "good.wav")
    try:
        shutil.copy(good, good.with_name("caf\udce9.wav"))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such names")
    summary = run(tmp_path / "in", tmp_path / "out")
    assert (summary.found, summary.used) == (2, 1)
    assert [s.path for s in summary.skipped] == ["caf?.wav"]
    assert "UTF-8" in summary.skipped[0].reason


def test_a_file_of_which_a_read_gives_only_a_part_has_the_checksum_of_all(
    own_recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raw read may return fewer bytes than it is asked for."""
    run(own_recordings, tmp_path / "straight")
    real = open

    class Halting(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size if size is None or size < 100 else size // 2)

    def halting(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        whole = str(path).endswith(".wav") and named.get("buffering") == 0
        return Halting(path, mode) if whole else real(path, mode, *arguments, **named)

    for module in (catalog_module, files_module):
        monkeypatch.setattr(module, "open", halting, raising=False)
    run(own_recordings, tmp_path / "halting")
    assert [c.sha256 for c in clips(tmp_path / "halting")] == [
        c.sha256 for c in clips(tmp_path / "straight")
    ]


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_anything_else_is_found(
    tmp_path: Path,
) -> None:
    good, source = write(tmp_path / "good.wav"), tmp_path / "caf\udce9"
    try:
        source.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such names")
    shutil.copy(good, source)
    refused = refusal(source, tmp_path / "out")
    assert "none of 1 recordings can be used" in refused
    assert "UTF-8" in refused


def test_a_dataset_below_the_source_folder_is_not_a_recording(tmp_path: Path) -> None:
    many(tmp_path / "in", 3)
    first = run(tmp_path / "in", tmp_path / "in" / "made" / "dataset")
    again = run(tmp_path / "in", tmp_path / "in" / "made" / "dataset")
    assert (first.found, again.found, again.skipped) == (3, 3, [])


# --- Splits -----------------------------------------------------------------------------------


def test_few_files_change_their_split_when_others_are_added_or_removed(tmp_path: Path) -> None:
    source = many(tmp_path / "in", 30)
    run(source, tmp_path / "before")
    before = split_of_path(tmp_path / "before")
    many(source, 30, start=30)
    run(source, tmp_path / "after")
    after = split_of_path(tmp_path / "after")
    assert len(after) == 60
    assert before.items() <= after.items()
    assert set(after.values()) == set(SPLITS)

    for path in list(source.iterdir())[::2]:
        path.unlink()
    run(source, tmp_path / "fewer")
    moved = split_of_path(tmp_path / "fewer").items() - after.items()
    assert len(moved) <= 1, "one at most, so that no split is empty"


def test_all_clips_of_a_file_are_in_one_split(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / "in" / f"{i}.wav", 1.0, seed=i)
    summary = run(tmp_path / "in", tmp_path / "out", clip_seconds=0.25)
    assert sum(summary.clips.values()) >= 80
    paths = [{clip.path for clip in split.clips} for split in splits(tmp_path / "out").values()]
    assert sum(map(len, paths)) == 20
    assert set.union(*paths) == {f"{i}.wav" for i in range(20)}


def test_the_test_pattern_selects_exactly_the_test_files(recordings: Path, tmp_path: Path) -> None:
    run(recordings, tmp_path / "out", test=r"_[03]\.wav$")
    found = split_of_path(tmp_path / "out")
    assert {path for path, split in found.items() if split == "test"} == {
        path for path in found if path.endswith(("_0.wav", "_3.wav"))
    }
    assert set(found.values()) == set(SPLITS)


def test_a_validation_share_of_zero_makes_no_validation_split(
    recordings: Path, tmp_path: Path
) -> None:
    summary = run(recordings, tmp_path / "out", validation_share=0.0, test="_0")
    assert summary.clips == {"train": 18, "validation": 0, "test": 6}


def test_splits_have_the_shares_asked_for(tmp_path: Path) -> None:
    source = many(tmp_path / "in", 300)
    for share in (0.1, 0.8):
        clips = run(source, tmp_path / f"out{share}", validation_share=share).clips
        assert clips["test"] / 300 == pytest.approx(0.1, abs=0.05)
        rest = clips["train"] + clips["validation"]
        assert clips["validation"] / rest == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_files_give_training_clips(tmp_path: Path, count: int) -> None:
    for start in (0, 10, 20):
        source = many(tmp_path / f"in{start}", count, start)
        assert run(source, tmp_path / f"out{start}").clips["train"] >= 1


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "not a valid regular expression"), ("xyz", "matches none"), ("wav", "matches every")],
)
def test_an_invalid_test_pattern_or_one_that_matches_none_or_all_is_refused(
    recordings: Path, tmp_path: Path, pattern: str, message: str
) -> None:
    assert message in refusal(recordings, tmp_path / "out", test=pattern)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("files", [1, 2, 3, 4, 7])
def test_from_three_clips_on_every_split_has_one_and_no_sound_is_in_two_splits(
    tmp_path: Path, files: int
) -> None:
    for number in range(files):
        write(tmp_path / "in" / f"{number}.wav", 8.0 / files + 0.3, seed=number)
    summary = run(tmp_path / "in", tmp_path / "out", clip_seconds=0.5, trim=False)
    assert min(summary.clips.values()) >= 1
    assert (summary.used, summary.skipped) == (files, [])
    spans = [
        (clip.path, clip.offset, clip.offset + clip.num_samples, name)
        for name, split in splits(tmp_path / "out").items()
        for clip in split.clips
    ]
    window = Dataset(tmp_path / "out").spectrogram.n_fft
    for (path, _, end, one), (next_path, begin, _, other) in itertools.pairwise(sorted(spans)):
        if path == next_path and one != other:
            assert begin >= end + window, "what surrounds a clip is in no other split's clips"


def test_a_long_recording_is_split_in_time_equally_with_any_block_size(tmp_path: Path) -> None:
    write(tmp_path / "in" / "long.wav", 40.0)
    lines = said(tmp_path / "in", tmp_path / "out", clip_seconds=0.128)
    assert any("long.wav: split in time into train, validation, test" in x for x in lines)
    shares = {name: len(split) for name, split in splits(tmp_path / "out").items()}
    assert 0.06 < shares["validation"] / sum(shares.values()) < 0.14
    assert 0.06 < shares["test"] / sum(shares.values()) < 0.14
    run(tmp_path / "in", tmp_path / "blocks", limits=Limits(block_samples=5000), clip_seconds=0.128)
    assert content(tmp_path / "blocks") == content(tmp_path / "out")


def test_two_recordings_of_two_clips_give_all_splits(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / "in" / f"{number}.wav", 0.24, seed=number)
    summary = run(tmp_path / "in", tmp_path / "out", clip_seconds=0.128, trim=False)
    assert min(summary.clips.values()) >= 1


def test_too_few_clips_for_all_splits_are_noted(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.wav")
    lines = said(tmp_path / "in", tmp_path / "out")
    assert any("too few distinct clips for a validation and a test split" in line for line in lines)
    lines = said(tmp_path / "in", tmp_path / "all", validation_share=0.0, test_share=0.0)
    assert not any("too few" in line for line in lines)


@pytest.mark.parametrize("good", [0, 1, 2, 5])
def test_unusable_recordings_leave_no_split_empty(tmp_path: Path, good: int) -> None:
    """That a file is silent is known only after it was read; it may have been the only one of its split."""
    for number in range(8):
        write(tmp_path / "in" / f"{number}.wav", seed=number)
    kept = {f"{good}.wav", f"{(good + 1) % 8}.wav", f"{(good + 2) % 8}.wav"}
    for number in range(8):
        if f"{number}.wav" not in kept:
            soundfile.write(tmp_path / "in" / f"{number}.wav", np.zeros(800 + number), 8000)
    summary = run(tmp_path / "in", tmp_path / "out")
    assert summary.clips == {"train": 1, "validation": 1, "test": 1}
    assert len(summary.skipped) == 5
    for name in sorted(kept)[1:]:
        soundfile.write(tmp_path / "in" / name, np.zeros(900), 8000)
    summary = run(tmp_path / "in", tmp_path / "one")
    assert summary.clips == {"train": 1, "validation": 0, "test": 0}


# --- Labels -----------------------------------------------------------------------------------


def test_a_label_value_without_a_training_clip_is_noted(recordings: Path, tmp_path: Path) -> None:
    pattern = r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d"
    lines = said(recordings, tmp_path / "out", labels=pattern, test="(^|/)2_|sam/1_")
    notes = [line for line in lines if "no training clip" in line]
    assert len(notes) == 1
    assert notes[0].startswith("note: label digit: no training clip has 2;")
    assert not any(
        "no training clip" in x for x in said(recordings, tmp_path / "b", labels=pattern)
    )


def test_folders_are_labels_if_there_are_several(recordings: Path, tmp_path: Path) -> None:
    run(recordings, tmp_path / "out")
    assert Dataset(tmp_path / "out").labels == {"folder": ["jan", "sam"]}
    assert all(c.labels == {"folder": c.path[:3]} for c in clips(tmp_path / "out"))
    run(recordings / "jan", tmp_path / "one")
    assert Dataset(tmp_path / "one").labels == {}
    run(recordings, tmp_path / "none", labels="none")
    assert Dataset(tmp_path / "none").labels == {}


def test_a_pattern_that_ignores_case_gives_values_in_small_letters() -> None:
    paths = ["a/Kick 1.wav", "b/kick_2.wav", "c/SNARE.wav", "d/other.wav"]
    labels, notes = labels_of(Path(), paths, "(?i)(?P<kind>kick|snare)")
    assert [labels[path].get("kind") for path in paths] == ["kick", "kick", "snare", None]
    assert notes == [
        "1 of 4 files has no label (d/other.wav): it is used, but no label brings it up;"
        " add a word of their names to the pattern, if one should"
    ]
    assert labels_of(Path(), paths[:3], "(?P<kind>Kick|SNARE|kick)")[0][paths[2]] == {
        "kind": "SNARE"
    }


def test_an_empty_group_of_a_pattern_is_no_label() -> None:
    labels, notes = labels_of(Path(), ["kick1.wav", "1.wav"], "(?P<kind>[a-z]*)[0-9]")
    assert labels == {"kick1.wav": {"kind": "kick"}, "1.wav": {}}
    assert "1 of 2 files has no label (1.wav)" in notes[0]


def test_a_pattern_gives_several_labels(recordings: Path, tmp_path: Path) -> None:
    run(recordings, tmp_path / "out", labels=r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d")
    dataset = Dataset(tmp_path / "out")
    assert dataset.labels == {"digit": ["0", "1", "2"], "speaker": ["jan", "sam"]}
    for clip in clips(tmp_path / "out"):
        digit, speaker, _ = Path(clip.path).stem.split("_")
        assert clip.labels == {"digit": digit, "speaker": speaker}
    train = dataset.train
    for clip, (digit, speaker) in zip(train.clips, train.label_indices.tolist(), strict=True):
        assert clip.labels["digit"] == dataset.labels["digit"][digit]
        assert clip.labels["speaker"] == dataset.labels["speaker"][speaker]


def test_numeric_label_values_are_in_numerical_order(tmp_path: Path) -> None:
    for number in (10, 9, 2, 100):
        write(tmp_path / "in" / f"take{number}.wav")
    write(tmp_path / "in" / "takeB.wav")
    run(tmp_path / "in", tmp_path / "out", labels=r"take(?P<take>\w+)\.wav")
    assert Dataset(tmp_path / "out").labels == {"take": ["2", "9", "10", "100", "B"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_table_gives_several_labels_by_path_or_name(
    recordings: Path, tmp_path: Path, encoding: str
) -> None:
    table = tmp_path / "labels.csv"
    rows = [
        "file,mood,note",
        "jan/0_jan_0.wav,glad,high",
        "1_sam_1.wav,sad,",
        '"2_sam_2.wav","a,b"',
    ]
    table.write_text("\n".join(rows), encoding=encoding)
    lines = said(recordings, tmp_path / "out", labels=str(table))
    labels = {clip.path: clip.labels for clip in clips(tmp_path / "out")}
    assert {path: found for path, found in labels.items() if found} == {
        "jan/0_jan_0.wav": {"mood": "glad", "note": "high"},
        "sam/1_sam_1.wav": {"mood": "sad"},
        "sam/2_sam_2.wav": {"mood": "a,b"},
    }
    assert any("21 of 24 files have no label" in line for line in lines)


def test_files_without_a_label_are_used_and_noted(recordings: Path, tmp_path: Path) -> None:
    lines = said(recordings, tmp_path / "out", labels=r"(?P<speaker>jan)")
    assert any("12 of 24 files have no label (sam/" in line for line in lines)
    assert len(clips(tmp_path / "out")) == 24
    train = Dataset(tmp_path / "out").train
    for clip, (index,) in zip(train.clips, train.label_indices.tolist(), strict=True):
        assert index == (0 if clip.path.startswith("jan") else 1)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("(", "not a valid regular expression"),
        (r"\d", "named groups"),
        ("(?P<a>xyz)", "matches none"),
        ("missing.csv", "cannot be read"),
    ],
)
def test_invalid_labels_settings_are_refused(
    recordings: Path, tmp_path: Path, how: str, message: str
) -> None:
    assert message in refusal(recordings, tmp_path / "out", labels=how)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("table", ["", "file\n", "file\na.wav\n", "file,mood\nother.wav,glad\n"])
def test_a_csv_without_labels_for_any_recording_is_refused(
    recordings: Path, tmp_path: Path, table: str
) -> None:
    (tmp_path / "labels.csv").write_text(table)
    assert "labels.csv" in refusal(
        recordings, tmp_path / "out", labels=str(tmp_path / "labels.csv")
    )


# --- Settings ---------------------------------------------------------------------------------


def infos(*lengths: float, sample_rate: int = 8000) -> list[AudioInfo]:
    return [AudioInfo(sample_rate, 1, round(length * sample_rate)) for length in lengths]


def test_the_sample_rate_is_the_most_frequent_one_and_others_are_resampled(
    tmp_path: Path,
) -> None:
    for i, rate in enumerate([16_000, 8000, 16_000, 44_100, 16_000]):
        write(tmp_path / "in" / f"{i}.wav", 0.5, rate)
    lines = said(tmp_path / "in", tmp_path / "out")
    assert Dataset(tmp_path / "out").spectrogram == SpectrogramConfig.for_rate(16_000)
    found = {clip.path: (clip.sample_rate, clip.num_samples) for clip in clips(tmp_path / "out")}
    assert {path: rate for path, (rate, _) in found.items()} == {
        "0.wav": 16_000,
        "1.wav": 8000,
        "2.wav": 16_000,
        "3.wav": 44_100,
        "4.wav": 16_000,
    }
    assert all(abs(samples - 8000) <= 1 for _, samples in found.values())
    assert any("1 of 5 files has a lower sample rate than 16,000 Hz" in line for line in lines)


def test_settings_given_are_used() -> None:
    config = PreprocessConfig(
        sample_rate=22_050, n_fft=512, hop_length=100, n_mels=0, range_db=70, clip_seconds=1
    )
    settings, frames, _ = choose_settings(config, infos(0.5, 3))
    assert settings == SpectrogramConfig(22_050, 512, 100, 0, 70)
    assert frames == math.ceil(22_050 / 100 / 16) * 16


@pytest.mark.parametrize("longest", [0.1, 0.999, 1.0, 1.024, 2.048, 2.5])
@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100])
def test_a_clip_holds_the_longest_file_up_to_two_and_a_half_seconds(
    longest: float, rate: int
) -> None:
    settings, frames, notes = choose_settings(
        PreprocessConfig(), infos(0.05, longest, sample_rate=rate)
    )
    needed = 1 + round(longest * rate) // settings.hop_length
    assert needed <= frames < needed + 17
    assert frames % 16 == 0
    assert notes == []


def test_clips_of_longer_files_hold_99_percent_of_them_and_at_most_two_seconds() -> None:
    _, frames, _ = choose_settings(PreprocessConfig(), infos(*[0.5] * 199, 60))
    assert 0.5 <= frames * 64 / 8000 < 0.5 + 17 * 64 / 8000
    _, frames, _ = choose_settings(PreprocessConfig(), infos(*[60] * 10))
    assert 2 <= frames * 64 / 8000 < 2 + 17 * 64 / 8000


@pytest.mark.parametrize("seconds", [0.1, 0.128, 0.3, 0.77, 1.0, 1.024, 3.2])
@pytest.mark.parametrize("sample_rate", [8000, 16_000])
def test_clips_of_long_files_cover_every_sample(
    tmp_path: Path, seconds: float, sample_rate: int
) -> None:
    path = write(tmp_path / "in" / "long.wav", seconds, sample_rate)
    write(tmp_path / "in" / "other.wav", 0.1)
    write(tmp_path / "in" / "third.wav", 0.1)
    none = {"test_share": 0.0, "validation_share": 0.0}
    run(tmp_path / "in", tmp_path / "out", clip_seconds=0.128, trim=False, **none)
    dataset = Dataset(tmp_path / "out")
    assert dataset.clip_frames == 16
    num_samples = len(reading.read(path, 8000)[0])
    covered = np.zeros(num_samples, int)
    for clip in clips(tmp_path / "out"):
        if clip.path == "long.wav":
            assert 0 < clip.num_samples < 16 * 64
            assert clip.offset + clip.num_samples <= num_samples
            covered[clip.offset : clip.offset + clip.num_samples] += 1
    assert covered.min() == 1
    assert covered.max() <= 2
    assert np.count_nonzero(covered == 2) < 16 * 64


@pytest.mark.parametrize("block", [100, 777, 5000])
@pytest.mark.parametrize("sample_rate", [8000, 11_025])
def test_any_block_size_gives_the_same_dataset(
    tmp_path: Path, block: int, sample_rate: int
) -> None:
    (tmp_path / "in").mkdir()
    silence = np.zeros(3000, np.float32)
    for i, loud in enumerate((0.5, 8.0)):
        sound = np.concatenate([silence, loud * noise(9000, i), silence])
        soundfile.write(tmp_path / "in" / f"{i}.wav", sound, sample_rate, subtype="FLOAT")
    settings = {"sample_rate": 8000, "clip_seconds": 0.128}
    run(tmp_path / "in", tmp_path / "whole", **settings)
    run(tmp_path / "in", tmp_path / "blocks", limits=Limits(block_samples=block), **settings)
    for name, split in splits(tmp_path / "blocks").items():
        whole = splits(tmp_path / "whole")[name]
        assert split.clips == whole.clips
        everything = torch.arange(len(split))
        a, b = (some.spectrograms(everything) for some in (split, whole))
        # Recordings of one block are resampled together; a last bit may change a float16's rounding.
        rounding = 0 if sample_rate == 8000 else 2**-11
        torch.testing.assert_close(a, b, atol=rounding, rtol=0)
    assert len(clips(tmp_path / "whole")) >= 12


def test_a_recording_beyond_full_scale_is_scaled_down(tmp_path: Path) -> None:
    sound = np.append(noise(3000), np.float32(1))
    for i, loud in enumerate((1, 16)):
        (tmp_path / f"in{i}").mkdir()
        soundfile.write(tmp_path / f"in{i}" / "a.wav", loud * sound, 8000, subtype="FLOAT")
        run(tmp_path / f"in{i}", tmp_path / f"out{i}")
    shards = [(tmp_path / f"out{i}" / "train-00000.npy").read_bytes() for i in (0, 1)]
    assert shards[0] == shards[1]
    levels = [clip.level for i in (0, 1) for clip in clips(tmp_path / f"out{i}")]
    assert levels[0] == levels[1]


def test_a_file_that_changes_while_it_is_read_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a.wav", 1.0)
    real, times = reading.blocks, iter([99, 99, 2])  # truncated only in the second pass

    def blocks(path: Path, *rest: Any, **options: Any) -> Iterator[Waveform]:
        return itertools.islice(real(path, *rest, **options), next(times))

    monkeypatch.setattr(reading, "blocks", blocks)
    limits = Limits(block_samples=1000)
    message = refusal(tmp_path / "in", tmp_path / "out", limits=limits)
    assert "a.wav: changed while it was read" in message


def test_trimming_removes_silence_only_and_can_be_turned_off(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    padded = np.concatenate([np.zeros(4000), noise(2000), np.zeros(3000)])
    soundfile.write(tmp_path / "in" / "a.wav", padded, 8000)
    run(tmp_path / "in", tmp_path / "trimmed")
    run(tmp_path / "in", tmp_path / "whole", trim=False)
    assert [clip.num_samples for clip in clips(tmp_path / "whole")] == [9000]
    (trimmed,) = clips(tmp_path / "trimmed")
    assert 2000 <= trimmed.num_samples <= 2000 + 0.06 * 8000


def test_impossible_settings_are_refused_before_anything_is_written(
    recordings: Path, tmp_path: Path
) -> None:
    assert "n_mels 126" in refusal(
        recordings, tmp_path / "out", n_mels=126, sample_rate=44_100, n_fft=256
    )
    assert "n_fft 255" in refusal(recordings, tmp_path / "out", n_fft=255)
    assert "range_db 3" in refusal(recordings, tmp_path / "out", range_db=3)
    assert not (tmp_path / "out").exists()


# --- What is stored ---------------------------------------------------------------------------


@pytest.mark.parametrize("n_mels", [None, 0])
def test_stored_clips_equal_their_spectrograms_within_float16_rounding(
    recordings: Path, tmp_path: Path, n_mels: int | None
) -> None:
    run(recordings, tmp_path / "out", n_mels=n_mels, clip_seconds=0.25)
    dataset = Dataset(tmp_path / "out")
    spectrogram = Spectrogram(dataset.spectrogram)
    for split in splits(tmp_path / "out").values():
        for index, clip in enumerate(split.clips):
            waveform, rate = reading.read(recordings / clip.path)
            assert rate == clip.sample_rate
            start, end = trim(waveform, rate, dataset.preprocess.trim_db)
            # The clip with whole hops of what surrounds it, silence beyond the recording's ends.
            hop = dataset.spectrogram.hop_length
            around = math.ceil(dataset.spectrogram.n_fft / 2 / hop)
            sound = np.pad(waveform[start:end], around * hop)
            wide = torch.from_numpy(
                sound[clip.offset : clip.offset + clip.num_samples + 2 * around * hop]
            )[None]
            decibels = spectrogram.decibels(wide, torch.tensor([wide.shape[1]]))
            decibels = decibels[:, :, around : around + 1 + clip.num_samples // hop]
            level = spectrogram.level(decibels.amax(dim=(1, 2)))
            image = spectrogram.normalized(decibels, level)
            assert int(level) == clip.level == int(split.levels[index])
            stored = split.spectrograms(torch.tensor([index]))
            assert stored.shape == image.shape
            torch.testing.assert_close(stored, image, atol=2**-11 + 1e-6, rtol=0)


@pytest.mark.parametrize("rate", [8000, 44_100])
def test_clips_cut_from_a_recording_have_no_click_and_know_which_ends_are_complete(
    tmp_path: Path, rate: int
) -> None:
    """With a low tone, a click at a clip's end would be loud in the highest bands."""
    time = np.arange(round(4.3 * rate)) / rate
    tone = (0.5 * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", tone, rate, subtype="FLOAT")
    none = {"validation_share": 0.0, "test_share": 0.0}
    run(tmp_path / "in", tmp_path / "out", clip_seconds=0.5, **none)
    train = Dataset(tmp_path / "out").train
    assert len(train) >= 8
    assert train.complete.tolist() == [
        [number == 0, number == len(train) - 1] for number in range(len(train))
    ]
    bins = Dataset(tmp_path / "out").spectrogram.bins
    high = train.spectrograms(torch.arange(len(train)))[:, 0, bins // 2 :] * 80
    for number, clip in enumerate(high):
        frames = clip[:, : int(train.num_frames[number])].amax(dim=0)
        middle = float(frames[8:-8].max())
        if number:
            assert float(frames[:8].max()) < middle + 1
        if number < len(train) - 1:
            assert float(frames[-8:].max()) < middle + 1


def test_manifests_hold_the_checksum_of_every_file(recordings: Path, tmp_path: Path) -> None:
    run(recordings, tmp_path / "out")
    for clip in clips(tmp_path / "out"):
        data = (recordings / clip.path).read_bytes()
        assert clip.sha256 == hashlib.sha256(data).hexdigest()
    for split in Dataset(tmp_path / "out").header["splits"].values():
        for shard in split["shards"]:
            data = (tmp_path / "out" / shard["file"]).read_bytes()
            assert shard["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_dataset_holds_its_files_and_nothing_else(recordings: Path, tmp_path: Path) -> None:
    run(recordings, tmp_path / "out")
    names = {f"{split}.jsonl" for split in SPLITS} | {f"{split}-00000.npy" for split in SPLITS}
    assert set(content(tmp_path / "out")) == names | {"dataset.json", "skipped.jsonl"}
    assert str(tmp_path) not in (tmp_path / "out" / "dataset.json").read_text()


# --- Two at once ------------------------------------------------------------------------------


def test_a_second_run_into_the_same_folder_is_refused(recordings: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "out"):
        assert "out: another run is writing here" in refusal(recordings, tmp_path / "out")
    run(recordings, tmp_path / "out")


@pytest.mark.parametrize("left", ["work/.plan.json.7.tmp", ".dataset.json.7.tmp", "work/plan.json"])
def test_files_left_by_a_killed_run_are_removed_by_the_next(
    recordings: Path, dataset_folder: Path, tmp_path: Path, left: str
) -> None:
    target = tmp_path / "out"
    if left == "work/plan.json":  # killed after the dataset was whole
        shutil.copytree(dataset_folder, target)
    (target / left).parent.mkdir(parents=True, exist_ok=True)
    (target / left).touch()
    run(recordings, target)
    assert content(target) == content(dataset_folder)


# --- Resuming ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 4])
def test_any_executor_gives_the_same_bytes(
    recordings: Path, dataset_folder: Path, tmp_path: Path, threads: int
) -> None:
    run(recordings, tmp_path / "straight", limits=SMALL_SHARDS)
    with ThreadPoolExecutor(threads) as executor:
        preprocess(recordings, tmp_path / "out", executor=executor, say=print, limits=SMALL_SHARDS)
    assert content(tmp_path / "out") == content(tmp_path / "straight")
    assert len(list((tmp_path / "out").glob("train-*.npy"))) > 2
    # Shards of another size hold the same clips.
    for name, split in splits(tmp_path / "out").items():
        other = splits(dataset_folder)[name]
        assert split.clips == other.clips
        everything = torch.arange(len(split))
        if len(split):
            assert torch.equal(split.spectrograms(everything), other.spectrograms(everything))


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_a_stopped_run_resumes_and_gives_the_same_bytes(
    recordings: Path, tmp_path: Path, shards: int
) -> None:
    straight = run(recordings, tmp_path / "straight", limits=SMALL_SHARDS)
    target = tmp_path / "out"
    with pytest.raises(RuntimeError, match="power"):
        preprocess(recordings, target, executor=Dying(shards), say=print, limits=SMALL_SHARDS)
    assert not (target / "dataset.json").exists()
    with pytest.raises(AudiovqError, match="not a dataset"):
        Dataset(target)
    made = {p: p.stat().st_mtime_ns for p in (target / "work").glob("*.jsonl")}
    assert len(made) == shards

    lines: list[str] = []
    summary = preprocess(recordings, target, say=lines.append, limits=SMALL_SHARDS)
    assert summary == straight
    assert content(target) == content(tmp_path / "straight")
    assert any(f"resuming, {shards} of" in line for line in lines) == (shards > 0)


def test_a_run_stopped_while_the_manifests_are_written_resumes(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recordings, tmp_path / "straight", limits=SMALL_SHARDS)
    target = tmp_path / "out"
    real = manifest_module.write_header

    def fall(path: Path, data: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest_module, "write_header", fall)
    with pytest.raises(KeyboardInterrupt):
        run(recordings, target, limits=SMALL_SHARDS)
    monkeypatch.setattr(manifest_module, "write_header", real)
    # One shard is half there, as if the disk had lost its mark.
    (target / "work" / "train-00001.jsonl").unlink()
    (target / "work" / "train-00001.npy").write_bytes(b"half")
    run(recordings, target, limits=SMALL_SHARDS)
    assert content(target) == content(tmp_path / "straight")


def test_a_finished_dataset_is_reported_and_left_unchanged(
    own_recordings: Path, tmp_path: Path
) -> None:
    (own_recordings / "broken.wav").write_text("Dear diary")
    target = tmp_path / "out"
    first = run(own_recordings, target)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in target.iterdir()}
    lines: list[str] = []
    again = preprocess(own_recordings, target, say=lines.append)
    assert [line for line in lines if "already complete" in line]
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in target.iterdir()} == before
    assert again.seconds == pytest.approx(first.seconds, abs=1e-3)
    assert (again.found, again.used, again.skipped, again.clips) == (
        first.found,
        first.used,
        first.skipped,
        first.clips,
    )


def replaced(path: Path, seed: int) -> None:
    """Other sound of the same length, at the same time: only its bytes differ."""
    stat = path.stat()
    samples, rate = soundfile.read(path)
    soundfile.write(path, noise(len(samples), seed), rate)
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_recordings_replaced_by_others_of_equal_length_make_another_dataset(
    own_recordings: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    run(own_recordings, target)
    before = content(target)
    paths = sorted(own_recordings.rglob("*.wav"))
    replaced(paths[0], 1)
    name = paths[0].relative_to(own_recordings).as_posix()
    assert f"{name} has changed since" in refusal(own_recordings, target)
    replaced(paths[1], 2)
    assert "2 recordings (" in refusal(own_recordings, target)
    assert content(target) == before
    preprocess(own_recordings, target, overwrite=True, say=print)
    fingerprints = {json.loads(x["dataset.json"])["fingerprint"] for x in (before, content(target))}
    assert len(fingerprints) == 2, "train looks at these"


def test_copied_and_touched_recordings_make_the_same_dataset(
    own_recordings: Path, tmp_path: Path
) -> None:
    run(own_recordings, tmp_path / "out")
    for path in own_recordings.rglob("*.wav"):
        path.touch()
    moved = shutil.copytree(own_recordings, tmp_path / "moved")
    for source in (own_recordings, moved):
        assert any("already complete" in line for line in said(source, tmp_path / "out"))


@pytest.mark.parametrize("length", ["equal", "other"])
def test_a_resumed_run_does_not_mix_old_and_new_recordings(
    own_recordings: Path, tmp_path: Path, length: str
) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError, match="power"):
        preprocess(own_recordings, target, executor=Dying(2), say=print, limits=SMALL_SHARDS)
    path = own_recordings / "sam" / "2_sam_3.wav"
    if length == "equal":
        replaced(path, 1)
    else:
        write(path, 0.3, seed=5)
    assert "--overwrite" in refusal(own_recordings, target, limits=SMALL_SHARDS)
    preprocess(own_recordings, target, overwrite=True, say=print, limits=SMALL_SHARDS)
    run(own_recordings, tmp_path / "straight", limits=SMALL_SHARDS)
    assert content(target) == content(tmp_path / "straight")


def test_a_resumed_run_does_not_compute_checksums_again(
    own_recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError, match="power"):
        preprocess(own_recordings, target, executor=Dying(2), say=print, limits=SMALL_SHARDS)
    read: list[str] = []

    def counted(path: str, stamp: catalog_module.Stamp) -> Any:
        read.append(os.path.basename(path))
        return read_plain(path, stamp)

    read_plain = catalog_module._read_plain
    monkeypatch.setattr(catalog_module, "_read_plain", counted)
    (own_recordings / "jan" / "0_jan_0.wav").touch()
    preprocess(own_recordings, target, say=print, limits=SMALL_SHARDS)
    assert read == ["0_jan_0.wav"]


@pytest.mark.parametrize("block", [1 << 20, 300])
def test_a_recording_replaced_during_a_run_is_refused_in_one_line(
    own_recordings: Path, tmp_path: Path, block: int
) -> None:
    class Meddling(Dying):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if fn.__name__ == "make_shard":
                replaced(own_recordings / "jan" / "1_jan_1.wav", self.left)
            return super().submit(fn, *args, **kwargs)

    limits, executor = Limits(block_samples=block), Meddling(1000)  # 300: every recording is long
    with pytest.raises(
        AudiovqError, match=r"1_jan_1.wav: changed while it was read; .*--overwrite$"
    ):
        preprocess(own_recordings, tmp_path / "out", executor=executor, limits=limits, say=print)
    assert not (tmp_path / "out" / "dataset.json").exists()
    preprocess(own_recordings, tmp_path / "out", overwrite=True, limits=limits, say=print)
    run(own_recordings, tmp_path / "straight", limits=limits)
    assert len(clips(tmp_path / "out")) == len(clips(tmp_path / "straight")) == 24


def test_a_dataset_holds_no_absolute_paths(own_recordings: Path, tmp_path: Path) -> None:
    rows = [f"{p.name},glad" for p in own_recordings.rglob("*.wav")]
    table = tmp_path / "mine" / "moods.csv"
    table.parent.mkdir()
    table.write_text("\n".join(["file,mood", *rows]))
    run(own_recordings, tmp_path / "out", labels=str(table))
    header = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert header["source"] == "../recordings"
    assert header["preprocess"]["labels"] == "moods.csv"
    for name, data in content(tmp_path / "out").items():
        assert str(tmp_path).encode() not in data, name
    assert Dataset(tmp_path / "out").recordings is not None
    shutil.move(own_recordings, tmp_path / "elsewhere")
    moved = Dataset(tmp_path / "out", tmp_path / "elsewhere")
    assert moved.recordings == tmp_path / "elsewhere"
    with pytest.raises(AudiovqError, match=r"--recordings .*gone: no such folder"):
        Dataset(tmp_path / "out", tmp_path / "gone")


def test_another_dataset_is_replaced_only_with_overwrite(
    own_recordings: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    run(own_recordings, target)
    before = content(target)
    assert "--overwrite" in refusal(own_recordings, target, n_mels=40)
    write(own_recordings / "new.wav")
    assert "holds another dataset" in refusal(own_recordings, target)
    assert content(target) == before
    preprocess(own_recordings, target, overwrite=True, say=print)
    assert len(clips(target)) == 25
    run(own_recordings, tmp_path / "straight")
    assert content(target) == content(tmp_path / "straight")


def test_an_unfinished_dataset_of_other_settings_is_replaced_only_with_overwrite(
    recordings: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError, match="power"):
        preprocess(recordings, target, executor=Dying(1), say=print)
    assert "--overwrite" in refusal(recordings, target, n_mels=40)
    preprocess(recordings, target, PreprocessConfig(n_mels=40), overwrite=True, say=print)
    run(recordings, tmp_path / "straight", n_mels=40)
    assert content(target) == content(tmp_path / "straight")


def test_a_folder_that_is_not_a_dataset_is_never_emptied(recordings: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        assert "out: exists" in refusal(recordings, target, overwrite=overwrite)
    assert content(target) == {"thesis.txt": b"years of work"}
    file = tmp_path / "file"
    file.write_text("years of work")
    for overwrite in (False, True):
        assert "file: exists" in refusal(recordings, file, overwrite=overwrite)
    assert file.read_text() == "years of work"


def test_a_dataset_never_overwrites_its_recordings(tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(many(tmp_path / "in", 2), target)
    shutil.move(tmp_path / "in", target / "in")
    before = content(target)
    for source in (target, target / "in"):
        for overwrite in (False, True):
            assert "holds the files to read" in refusal(source, target, overwrite=overwrite)
    assert content(target) == before


def test_folders_without_usable_recordings_are_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    assert "no such folder" in refusal(source, target)
    source.mkdir()
    assert "holds no recordings" in refusal(source, target)
    (source / "notes.txt").touch()
    assert "1 other file" in refusal(source, target)
    (source / "broken.wav").write_text("Dear diary")
    message = refusal(source, target)
    assert "none of 1 recordings can be used" in message
    assert "broken.wav" in message
    assert "broken.wav: is a file" in refusal(source / "broken.wav", target)
    assert not target.exists()
    soundfile.write(source / "silent.wav", np.zeros(4000), 8000)
    assert "no recording can be used for training" in refusal(source, target)
    assert not target.exists()


def test_a_refused_dataset_leaves_a_link_to_an_empty_folder_as_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "link"
    source.mkdir()
    soundfile.write(source / "silent.wav", np.zeros(4000), 8000)
    (tmp_path / "disk").mkdir()
    target.symlink_to(tmp_path / "disk")
    assert "no recording can be used for training" in refusal(source, target)
    assert target.is_symlink()
    assert list(target.iterdir()) == []


def test_a_refusal_gives_the_reason_of_a_recording_and_not_of_another_file(
    tmp_path: Path, voice: Callable[..., Waveform]
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "README.txt").write_text("Dear diary")
    (source / "a cover.jpg").touch()
    soundfile.write(source / "quiet.wav", 1e-6 * voice(0.02), 8000, subtype="FLOAT")
    said = refusal(source, target)
    assert "quiet.wav is silent" in said
    assert "README" not in said


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "dataset.json").write_text("{"),
        lambda folder: (folder / "train-00000.npy").write_bytes(b""),
        lambda folder: (folder / "skipped.jsonl").unlink(),
    ],
)
def test_a_damaged_dataset_is_refused_and_overwrite_repairs_it(
    recordings: Path, dataset_folder: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    target = shutil.copytree(dataset_folder, tmp_path / "out")
    damage(target)
    assert str(target) in refusal(recordings, target)
    preprocess(recordings, target, overwrite=True, say=print)
    assert content(target) == content(dataset_folder)


def test_the_recordings_are_not_changed(own_recordings: Path, tmp_path: Path) -> None:
    before = content(own_recordings)
    run(own_recordings, tmp_path / "out")
    assert content(own_recordings) == before


def test_shard_jobs_can_be_pickled(recordings: Path, tmp_path: Path) -> None:
    class Sending(Dying):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            fn, args = pickle.loads(pickle.dumps((fn, args)))
            future = super().submit(fn, *args, **kwargs)
            if future.exception() is None:
                pickle.dumps(future.result())
            return future

    preprocess(recordings, tmp_path / "out", executor=Sending(1000), say=print)
    assert len(clips(tmp_path / "out")) == 24


@pytest.mark.parametrize("folder", ["digits", "fsdd"])
def test_all_spoken_digits_are_used(
    folder: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    paths = sorted(request.getfixturevalue(folder).glob("*.wav"))[::10]
    for path in paths:
        shutil.copy(path, source)
    pattern = r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d+\.wav"
    summary = run(source, tmp_path / "out", labels=pattern)
    assert summary.used == len(paths) >= 90
    assert Dataset(tmp_path / "out").labels["digit"] == [str(digit) for digit in range(10)]


# --- Processes --------------------------------------------------------------------------------

ALONE = """
import functools, os, signal, sys, time
from pathlib import Path
from audiovq.preprocessing import preprocess as module
from audiovq.cli.main import main
limits = module.Limits(files_per_shard=5)
module.preprocess = functools.partial(module.preprocess, limits=limits)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
real, do = module.make_shard, sys.argv[1]
def make_shard(job):
    with open(Path(sys.argv[3]).parent / "makers", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if do == "kill" and job.name == "train-00001":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "stop" and job.name == "train-00001":
        os.kill(int(Path("/proc/self/stat").read_text().split()[3]), signal.SIGINT)
        time.sleep(0.1)
    return real(job)
module.make_shard = make_shard
status = main(["preprocess", *sys.argv[2:]])
assert "torch" not in sys.modules, "torch was loaded"
sys.exit(status)
"""


def alone(do: str, source: Path, target: Path) -> tuple[int, str, set[int]]:
    """Run the command in a new process: exit code, standard error, process ids that made shards."""
    target.parent.mkdir(exist_ok=True)
    (target.parent / "makers").unlink(missing_ok=True)
    command = [sys.executable, "-c", ALONE, do, str(source), str(target)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _, said = process.communicate()
    makers = set(map(int, (target.parent / "makers").read_text().split()))
    assert process.pid not in makers or not sys.platform.startswith("linux")
    for maker in makers - {process.pid}:
        with pytest.raises(ProcessLookupError):
            os.kill(maker, 0)
    return process.returncode, said, makers


def test_the_command_imports_no_torch_and_its_processes_give_the_bytes_of_threads(
    recordings: Path, tmp_path: Path
) -> None:
    run(recordings, tmp_path / "b" / "straight", limits=SMALL_SHARDS)
    status, said, _ = alone("go", recordings, tmp_path / "a" / "out")
    assert status == 0, said
    assert content(tmp_path / "a" / "out") == content(tmp_path / "b" / "straight")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing is forked")
@pytest.mark.parametrize(
    ("do", "status", "words"), [("kill", 2, "a worker process"), ("stop", 130, "stopped")]
)
def test_a_killed_worker_or_ctrl_c_ends_in_one_line_without_orphans_and_the_next_run_resumes(
    recordings: Path, tmp_path: Path, do: str, status: int, words: str
) -> None:
    target = tmp_path / "a" / "out"
    ended, said, _ = alone(do, recordings, target)
    assert (ended, said.count("\n")) == (status, 1), said
    assert words in said
    assert not (target / "dataset.json").exists()
    ended, said, _ = alone("go", recordings, target)
    assert ended == 0, said
    run(recordings, tmp_path / "b" / "straight", limits=SMALL_SHARDS)
    assert content(target) == content(tmp_path / "b" / "straight")


def test_no_process_is_forked_with_torch_loaded_or_a_second_thread() -> None:
    code = (
        "import threading, sys\n"
        "from audiovq.runtime.executors import can_fork\n"
        "print(can_fork())\n"
        "wait = threading.Event()\n"
        "thread = threading.Thread(target=wait.wait)\n"
        "thread.start()\n"
        "print(can_fork())\n"
        "wait.set(), thread.join()\n"
        "sys.modules['torch'] = sys\n"
        "print(can_fork())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(sys.platform == "linux"), "False", "False"]


def test_a_pool_that_breaks_while_shards_are_submitted_is_reported(
    recordings: Path, tmp_path: Path
) -> None:
    class Broken(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if fn.__name__ == "make_shard":
                raise BrokenExecutor
            return super().submit(fn, *args, **kwargs)

    with Broken(1) as executor, pytest.raises(AudiovqError, match="was killed; run the same"):
        preprocess(recordings, tmp_path / "out", executor=executor, say=print)
    preprocess(recordings, tmp_path / "out", say=print)
