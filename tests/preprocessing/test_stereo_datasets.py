"""Datasets in stereo: which folders become one, what is stored, and that mono ones stay as they were."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from audiovq.audio import reading
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.dataset.batches import random_positions, random_variations, random_views
from audiovq.dataset.dataset import Dataset
from audiovq.preprocessing.preprocess import Limits, Summary, preprocess
from audiovq.spectral import scale
from audiovq.spectral.spectrogram import Spectrogram

Waveform = npt.NDArray[np.float32]
Voice = Callable[..., Waveform]
RATE = 8000


def run(source: Path, target: Path, limits: Limits = Limits(), **settings: Any) -> Summary:
    config = PreprocessConfig(trim=False, **settings)
    return preprocess(source, target, config, limits=limits, say=lambda line: None)


def fill(folder: Path, voice: Voice, stereo: int, mono: int, seconds: float = 0.3) -> Path:
    """`stereo` recordings of two voices, left and right, and `mono` ones of two equal channels."""
    folder.mkdir()
    for number in range(stereo + mono):
        left = voice(seconds, 100 + 10 * number)
        right = voice(seconds, 230 + 10 * number) if number < stereo else left
        path = folder / f"{'stereo' if number < stereo else 'mono'}-{number:02d}.wav"
        soundfile.write(path, np.stack([left, right], axis=1), RATE)
    return folder


def test_a_dataset_is_in_stereo_where_a_tenth_of_its_recordings_are(
    tmp_path: Path, voice: Voice
) -> None:
    summary = run(fill(tmp_path / "a", voice, 2, 18), tmp_path / "out-a")
    assert Dataset(tmp_path / "out-a").spectrogram.channels == 2
    assert any("2 of 20 sound files are stereo" in note for note in summary.warnings)
    run(fill(tmp_path / "b", voice, 1, 19), tmp_path / "out-b")
    assert Dataset(tmp_path / "out-b").spectrogram.channels == 1
    run(tmp_path / "a", tmp_path / "mono", channels="mono")
    assert Dataset(tmp_path / "mono").spectrogram.channels == 1
    run(tmp_path / "b", tmp_path / "stereo", channels="stereo")
    assert Dataset(tmp_path / "stereo").spectrogram.channels == 2
    with pytest.raises(AudiovqError, match="channels 'quad': give"):
        dataclasses.replace(PreprocessConfig(), channels="quad")


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_recordings_that_begin_in_mono_or_in_silence_may_be_stereo(
    level: float, tmp_path: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiovq.preprocessing.settings.STEREO_BLOCK", 2000)
    begin = np.tile(level * voice(0.4, 100), (2, 1))  # more than a block of both channels
    sides = np.concatenate([begin, [voice(0.3, 100), voice(0.3, 230)]], axis=1)
    source = tmp_path / "in"
    source.mkdir()
    soundfile.write(source / "a.wav", sides.T, RATE)
    run(source, tmp_path / "out")
    assert Dataset(tmp_path / "out").spectrogram.channels == 2


def test_recordings_with_swapped_channels_in_another_format_are_not_identical(
    tmp_path: Path, voice: Voice
) -> None:
    source = fill(tmp_path / "in", voice, 3, 0)
    sides, _ = soundfile.read(source / "stereo-00.wav", dtype="int16")
    soundfile.write(source / "swapped.flac", sides[:, ::-1], RATE)
    soundfile.write(
        source / "same.flac", soundfile.read(source / "stereo-01.wav", dtype="int16")[0], RATE
    )
    summary = preprocess(source, tmp_path / "out", near=False, say=lambda line: None)
    (note,) = [note for note in summary.warnings if "identical" in note]
    assert note.startswith(
        "2 of 5 recordings are identical to another (such as same.flac and stereo-01.wav)"
    )


def test_mono_datasets_do_not_mention_channels(recordings: Path, tmp_path: Path) -> None:
    """So their bytes and fingerprints are those of before stereo existed."""
    run(recordings, tmp_path / "out")
    header = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert header["version"] == 2
    assert "channels" not in header["spectrogram"] | header["preprocess"]


def test_stored_clips_are_the_planes_of_their_recordings(tmp_path: Path, voice: Voice) -> None:
    source = fill(tmp_path / "in", voice, 6, 6)
    run(source, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    header = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (header["version"], header["spectrogram"]["channels"]) == (3, 2)
    spectrogram = Spectrogram(dataset.spectrogram)
    seen = 0
    for split in dataset.splits:
        for index, clip in enumerate(split.clips):
            waveform, _ = reading.read(source / clip.path, channels=2)
            image, level = spectrogram(torch.from_numpy(waveform)[None])
            stored = split.spectrograms(torch.tensor([index]))
            assert int(level) == clip.level
            torch.testing.assert_close(stored, image, atol=4e-3, rtol=0)
            if clip.path.startswith("mono"):
                assert torch.equal(stored[:, 1], torch.full_like(stored[:, 1], scale.MIDDLE))
                assert float(stored[:, 2].min()) > 0.999
            seen += 1
    assert seen == 12


def test_mono_files_among_stereo_ones_are_in_the_middle(tmp_path: Path, voice: Voice) -> None:
    source = fill(tmp_path / "in", voice, 3, 0)
    for number in range(9):
        soundfile.write(source / f"{number}.flac", voice(0.3, 90 + 7 * number), RATE)
    run(source, tmp_path / "out", test_share=0.0, validation_share=0.0)
    train = Dataset(tmp_path / "out").train
    mono = Spectrogram(SpectrogramConfig.for_rate(RATE))
    for index, clip in enumerate(train.clips):
        if clip.path.endswith("flac"):
            stored = train.spectrograms(torch.tensor([index]))
            waveform, _ = reading.read(source / clip.path)
            expected, _ = mono(torch.from_numpy(waveform)[None])
            torch.testing.assert_close(stored[:, :1], expected, atol=2**-10, rtol=0)
            assert torch.equal(stored[:, 1], torch.full_like(stored[:, 1], scale.MIDDLE))


def test_long_recordings_read_in_blocks_give_the_same_clips(tmp_path: Path, voice: Voice) -> None:
    source = fill(tmp_path / "in", voice, 2, 0, seconds=3.1)
    settings = {"clip_seconds": 0.5, "test_share": 0.0, "validation_share": 0.0}
    run(source, tmp_path / "whole", **settings)
    run(source, tmp_path / "blocks", Limits(block_samples=4000), **settings)
    whole, blocks = (Dataset(tmp_path / name).train for name in ("whole", "blocks"))
    assert whole.clips == blocks.clips
    indices = torch.arange(len(whole))
    torch.testing.assert_close(
        whole.spectrograms(indices), blocks.spectrograms(indices), atol=2**-10, rtol=0
    )


def test_resampled_stereo_recordings_keep_their_sides(tmp_path: Path, voice: Voice) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        left = voice(0.4, 120 + 10 * number, 16_000)
        soundfile.write(source / f"{number}.wav", np.stack([left, 0 * left], axis=1), 16_000)
    run(source, tmp_path / "out", sample_rate=RATE, test_share=0.0, validation_share=0.0)
    images = Dataset(tmp_path / "out").train.spectrograms(torch.arange(3))
    loud = images[:, 0] > 0.7
    assert float(images[:, 1][loud].max()) < 0.05


def test_views_of_clips_are_silent_and_neutral_before_their_sound(
    tmp_path: Path, voice: Voice
) -> None:
    run(fill(tmp_path / "in", voice, 4, 0), tmp_path / "out", test_share=0.0, validation_share=0.0)
    train = Dataset(tmp_path / "out").train
    generator = torch.Generator().manual_seed(1)
    views, frames = random_views(train, torch.arange(4), generator, 4)
    assert views.shape[:2] == (4, 3)
    shifts = (frames - train.num_frames).tolist()
    assert max(shifts) > 0
    for view, clip, shift in zip(views, train.spectrograms(torch.arange(4)), shifts, strict=True):
        assert not view[0, :, :shift].any()
        assert bool((view[1, :, :shift] == scale.MIDDLE).all())
        assert bool((view[2, :, :shift] == scale.IN_PHASE).all())
        assert torch.equal(view[..., shift : shift + 20], clip[..., :20])
    varied, _ = random_variations(train, torch.arange(4), generator, 4, 80.0)
    assert varied.shape[:2] == (4, 3)
    assert float(varied.min()) >= 0
    assert float(varied.max()) <= 1


def test_moved_clips_are_those_of_recordings_in_these_positions() -> None:
    """On the side, in the middle and anywhere: as a recording of one sound with gains would be, where it is loud."""
    rng = np.random.default_rng(0)
    config = SpectrogramConfig(RATE, 256, 64, 64, channels=2)
    spectrogram = Spectrogram(config)
    sound = rng.normal(0, 0.1, 4000).astype(np.float32)
    cases = {(0.77, 0.3, 0.9): (1, 1), (0.83, 0.2, 0.1): (1, 0), (0.83, 0.9, 0.1): (0, 1)}
    cases |= {(0.9, 0.25, 0.5): (math.cos(math.pi / 8), math.sin(math.pi / 8))}
    for chances, (left, right) in cases.items():
        gains = np.float32([left, right]) / np.float32(math.hypot(left, right) / math.sqrt(2))
        wanted, _ = spectrogram(torch.from_numpy(sound * gains[:, None])[None])
        start, _ = spectrogram(torch.from_numpy(sound)[None])
        found = random_positions(start, torch.tensor([chances]), config)
        loud = wanted[:, 0] > 0.6
        assert torch.equal(found[:, 0], start[:, 0])
        for plane in (1, 2):
            difference = (found[:, plane] - wanted[:, plane]).abs()[loud]
            assert float(difference.max()) < 0.05
    kept = random_positions(start, torch.tensor([[0.1, 0.2, 0.3]]), config)
    assert torch.equal(kept, start)
    opposite = random_positions(start, torch.tensor([[0.97, 0.5, 0.0]]), config)
    assert float(opposite[:, 2][loud].max()) < 0.1


def test_a_stereo_header_of_the_other_version_is_damaged(tmp_path: Path, voice: Voice) -> None:
    from audiovq.runtime.checksums import read_header, write_header

    run(fill(tmp_path / "in", voice, 4, 0), tmp_path / "out")
    header = read_header(tmp_path / "out" / "dataset.json", "dataset", 3, "")
    write_header(tmp_path / "out" / "dataset.json", header | {"version": 2})
    with pytest.raises(AudiovqError, match="damaged"):
        Dataset(tmp_path / "out")


def test_images_are_never_stereo() -> None:
    with pytest.raises(AudiovqError, match="channels 2: give 1"):
        dataclasses.replace(SpectrogramConfig.for_images(28), channels=2)
    with pytest.raises(AudiovqError, match="channels 3: give 1 to 2"):
        SpectrogramConfig(RATE, 256, 64, 64, channels=3)
