"""Near copies are found among recordings, and kept in one split."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr

from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.preprocessing.preprocess import Summary, preprocess
from audiovq.preprocessing.similar import correlation, near_copies, scaled, sketch

RATE = 16_000


def hit(seed: int) -> npt.NDArray[np.float32]:
    """A decaying tone with noise, all different."""
    generator = np.random.default_rng(seed)
    time = np.arange(RATE // 2) / RATE
    tone = np.sin(2 * np.pi * generator.uniform(80, 3000) * time)
    noise = generator.standard_normal(len(time)) * generator.uniform(0.2, 1)
    decay = np.exp(-time * generator.uniform(5, 40))
    return (0.2 * decay * (tone + noise)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "sounds"
    source.mkdir()
    for seed in range(30):
        soundfile.write(source / f"{seed:02d}.wav", hit(seed), RATE)
    later = np.concatenate([np.zeros(480, np.float32), hit(3)])
    soundfile.write(source / "a_quieter.wav", 0.5 * hit(3), RATE)
    soundfile.write(source / "b_later.flac", later, RATE)
    soundfile.write(source / "c_slower_rate.wav", soxr.resample(hit(3), RATE, 11_025), 11_025)
    soundfile.write(source / "d_compressed.mp3", hit(7), RATE)
    soundfile.write(source / "silent.wav", np.zeros(2000), RATE)
    return source


def names(source: Path) -> list[str]:
    return sorted(path.name for path in source.iterdir())


def test_copies_at_other_levels_rates_and_formats_are_found_and_no_others(folder: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        found = near_copies(folder, names(folder), executor)
        assert found == {
            "03.wav": "03.wav",
            "a_quieter.wav": "03.wav",
            "b_later.flac": "03.wav",
            "c_slower_rate.wav": "03.wav",
            "07.wav": "07.wav",
            "d_compressed.mp3": "07.wav",
        }
        (folder / "broken.wav").write_bytes(b"broken")
        assert near_copies(folder, names(folder), executor) == found
        assert near_copies(folder, ["03.wav"], executor) == {}
        assert near_copies(folder, ["03.wav", "silent.wav"], executor) == {}


def test_a_hit_that_is_cut_off_is_a_copy_where_hardly_any_energy_is_missing(tmp_path: Path) -> None:
    time = np.arange(RATE // 2) / RATE
    ringing = np.random.default_rng(0).standard_normal(len(time)) * np.exp(-30 * time)
    choked = ringing[: RATE // 12] * np.linspace(1, 0, RATE // 12) ** 0.2
    sounds = {"ringing.wav": ringing, "choked.wav": choked}
    sounds |= {f"{seed}.wav": hit(seed) for seed in range(20)}
    for name, sound in sounds.items():
        soundfile.write(tmp_path / name, 0.1 * sound, RATE)
    with ThreadPoolExecutor(1) as executor:
        found = near_copies(tmp_path, names(tmp_path), executor)
    assert found == {"choked.wav": "choked.wav", "ringing.wav": "choked.wav"}


@pytest.mark.parametrize("rate", [8000, 11_025])
def test_copies_at_lower_rates_are_found_wherever_between_two_samples_they_begin(
    tmp_path: Path, rate: int
) -> None:
    for seed in range(30):
        soundfile.write(tmp_path / f"{seed:02d}.wav", hit(seed), RATE)
    for seed in range(8):
        later = np.concatenate([np.zeros(seed, np.float32), hit(seed)])
        lower = soxr.resample(later, RATE, rate)
        soundfile.write(tmp_path / f"{seed:02d}_low.wav", lower, rate)
    with ThreadPoolExecutor(1) as executor:
        found = near_copies(tmp_path, names(tmp_path), executor)
    copies = {
        f"{seed:02d}{end}.wav": f"{seed:02d}.wav" for seed in range(8) for end in ("", "_low")
    }
    assert found == copies


@pytest.mark.parametrize("copies", [2, 12, 30])
@pytest.mark.parametrize("others", [0, 30])
def test_copies_are_one_group_however_many_they_are_and_whether_alone_or_not(
    tmp_path: Path, copies: int, others: int
) -> None:
    # Every other one is a little noisy: its nearest copies are those that are, too.
    noise = np.random.default_rng(0).uniform(-0.003, 0.003, RATE // 2)
    for number in range(copies):
        sound = 0.9**number * (hit(50) + number % 2 * noise)
        soundfile.write(tmp_path / f"copy{number:02d}.wav", sound, RATE, subtype="FLOAT")
    for seed in range(others):
        soundfile.write(tmp_path / f"{seed:02d}.wav", hit(seed), RATE)
    with ThreadPoolExecutor(1) as executor:
        found = near_copies(tmp_path, names(tmp_path), executor)
    assert found == {f"copy{number:02d}.wav": "copy00.wav" for number in range(copies)}


def test_a_sketch_ignores_level_and_is_finite_for_silence_and_short_sounds() -> None:
    quiet, loud, other = scaled(
        np.array([sketch(sound, RATE) for sound in (0.1 * hit(0), hit(0), hit(1))])
    )
    np.testing.assert_allclose(quiet, loud, atol=1e-4)
    assert np.abs(other - loud).max() > 0.05
    for waveform in (np.zeros(10, np.float32), hit(0)[:1]):
        assert np.isfinite(sketch(waveform, RATE)).all()
    assert correlation(hit(0), np.zeros(10, np.float32)) == 0


def test_near_copies_are_in_one_split_and_a_note_says_so(folder: Path, tmp_path: Path) -> None:
    (folder / "silent.wav").unlink()
    said: list[str] = []
    apart, together = tmp_path / "apart", tmp_path / "together"
    config = PreprocessConfig(test_share=0.4)
    preprocess(folder, apart, config, near=False, say=lambda _: None)
    preprocess(folder, together, config, say=said.append)
    copies = {"03.wav", "a_quieter.wav", "b_later.flac", "c_slower_rate.wav"}
    sides = [
        {
            split.name
            for split in Dataset(path).splits
            for clip in split.clips
            if clip.path in copies
        }
        for path in (apart, together)
    ]
    assert len(sides[0]) > 1, "without it, a copy is in another split"
    assert len(sides[1]) == 1
    assert any("6 of 34 recordings are copies or near copies of another" in line for line in said)


def test_a_part_of_a_recording_that_is_split_in_time_is_left_out_and_named(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 60 * 8000)
    soundfile.write(source / "song.wav", noise, 8000)
    soundfile.write(source / "song_edit.wav", 0.7 * noise[: 30 * 8000], 8000)
    said: list[str] = []
    summary = preprocess(source, tmp_path / "out", say=said.append)
    clips = [clip.path for split in Dataset(tmp_path / "out").splits for clip in split.clips]
    assert set(clips) == {"song.wav"}
    assert all(summary.clips.values())
    assert (summary.found, summary.used) == (2, 1)
    assert [skipped.path for skipped in summary.skipped] == ["song_edit.wav"]
    assert any("1 of 2 recordings (such as song_edit.wav) is left out" in line for line in said)


def noise(seed: int, seconds: float) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE))


def silence(seconds: float) -> npt.NDArray[np.float64]:
    return np.zeros(round(seconds * RATE))


def made(source: Path, target: Path, **settings: Any) -> tuple[Summary, dict[str, set[str]], str]:
    """The summary of a dataset, the splits of each path, and all that was said."""
    said: list[str] = []
    summary = preprocess(source, target, PreprocessConfig(**settings), say=said.append)
    found: dict[str, set[str]] = {}
    for split in Dataset(target).splits:
        for clip in split.clips:
            found.setdefault(clip.path, set()).add(split.name)
    return summary, found, "\n".join(said)


def write_all(folder: Path, sounds: dict[str, list[npt.NDArray[np.float64]]]) -> Path:
    """Write each sound, of several parts, as a WAV."""
    folder.mkdir()
    for name, parts in sounds.items():
        soundfile.write(folder / name, np.concatenate(parts), RATE)
    return folder


def test_of_copies_that_are_split_in_time_the_one_with_the_most_sound_is_used(
    tmp_path: Path,
) -> None:
    whole = noise(0, 20)
    part = [whole[: 6 * RATE], silence(30)]
    source = write_all(tmp_path / "in", {"full.wav": [whole], "part.wav": part})
    shutil.copy(source / "full.wav", source / "same.wav")
    summary, found, said = made(source, tmp_path / "out", clip_seconds=1.0)
    assert found.keys() == {"full.wav", "same.wav"}
    assert found["full.wav"] == found["same.wav"] == {"train", "validation", "test"}
    assert [skipped.path for skipped in summary.skipped] == ["part.wav"]
    assert "1 of 3 recordings (such as part.wav) is left out: near copies of others" in said


def test_of_copies_of_equal_length_that_begin_elsewhere_one_is_split_in_time(
    tmp_path: Path,
) -> None:
    both = noise(0, 20)
    sounds = {"late.wav": [silence(3), both], "more.wav": [both, noise(1, 3)]}
    summary, found, _ = made(write_all(tmp_path / "in", sounds), tmp_path / "out", clip_seconds=1.0)
    assert found == {"more.wav": {"train", "validation", "test"}}
    assert [skipped.path for skipped in summary.skipped] == ["late.wav"]


def test_copies_with_little_sound_in_long_files_are_neither_split_nor_left_out(
    tmp_path: Path,
) -> None:
    hit = noise(1, 0.74)
    sounds = {
        "a.wav": [silence(2), noise(0, 1.25)],
        "b.wav": [hit, silence(4)],
        "c.wav": [silence(2), 0.5 * hit, silence(1)],
    }
    summary, found, said = made(
        write_all(tmp_path / "in", sounds), tmp_path / "out", clip_seconds=1.0
    )
    assert set(found) == set(sounds)
    assert all(summary.clips.values()), "three distinct clips give all three splits"
    assert found["b.wav"] == found["c.wav"]
    assert len(found["b.wav"]) == 1
    assert "b.wav: split in time" not in said
    assert "left out" not in said


def test_a_recording_with_clips_in_one_split_is_not_said_to_be_split_in_time(
    tmp_path: Path,
) -> None:
    sounds = {f"{n}.wav": [noise(n, 0.1)] for n in range(30)}
    sounds["ring.wav"] = [noise(30, 0.9), silence(30)]
    _, found, said = made(write_all(tmp_path / "in", sounds), tmp_path / "out", clip_seconds=1.0)
    assert len(found["ring.wav"]) == 1
    assert "split in time" not in said
