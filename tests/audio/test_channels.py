"""If channels cancel each other, the loudest is used; otherwise they are averaged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from audiovq.audio import reading
from audiovq.audio.waveform import AudioError
from audiovq.cli.main import main
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.manifest import SPLITS
from audiovq.inspection.inspect import inspect
from audiovq.preprocessing.preprocess import Limits, preprocess

Waveform = npt.NDArray[np.float32]
RATE = 8000


def noise(seconds: float = 1.0, seed: int = 0, level: float = 0.3) -> Waveform:
    count = round(seconds * RATE)
    return np.random.default_rng(seed).uniform(-level, level, count).astype(np.float32)


def read_back(path: Path, channels: list[Waveform], subtype: str = "FLOAT") -> tuple[Waveform, int]:
    """Write channels and read them: the mono waveform, and the number of notes."""
    soundfile.write(path, np.stack(channels, axis=1), RATE, subtype=subtype)
    notes: list[str] = []
    waveform, _ = reading.read(path, note=notes.append)
    notes_of_short: list[str] = []
    short = reading.short(path, 1 << 20, notes_of_short.append)
    assert short is not None
    np.testing.assert_array_equal(waveform, short[0])
    assert notes_of_short == notes
    assert notes == [] or "cancel" in notes[0]
    return waveform, len(notes)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("gain", [-1.0, -0.9, -1.1])
def test_the_louder_of_two_opposite_channels_is_used_and_noted(
    tmp_path: Path, subtype: str, gain: float
) -> None:
    sound = noise()
    channels = [sound, np.float32(gain) * sound]
    waveform, noted = read_back(tmp_path / "a.wav", channels, subtype)
    louder = channels[1] if abs(gain) > 1 else channels[0]
    assert noted == 1
    np.testing.assert_allclose(waveform, louder, atol=1e-4)


@pytest.mark.parametrize("second", [1.0, 0.5, 0.0, -0.5])
def test_channels_that_do_not_cancel_are_averaged(tmp_path: Path, second: float) -> None:
    sound = noise()
    waveform, noted = read_back(tmp_path / "a.wav", [sound, np.float32(second) * sound])
    assert noted == 0
    np.testing.assert_allclose(waveform, sound * (1 + second) / 2, atol=1e-6)
    _, noted = read_back(tmp_path / "b.wav", [sound, noise(seed=1)])
    assert noted == 0


def test_an_offset_does_not_hide_that_channels_cancel(tmp_path: Path) -> None:
    sound = noise()
    offset = np.float32(0.4)
    waveform, noted = read_back(tmp_path / "a.wav", [sound + offset, offset - sound])
    assert noted == 1
    np.testing.assert_allclose(waveform - waveform.mean(), sound - sound.mean(), atol=1e-3)


@pytest.mark.parametrize("part", [slice(0, 4000), slice(4000, 8000), slice(3000, 5000)])
def test_a_recording_keeps_a_part_in_which_channels_cancel(tmp_path: Path, part: slice) -> None:
    sound, other = noise(), noise()
    other[part] *= -1
    waveform, noted = read_back(tmp_path / "a.wav", [sound, other])
    assert noted == 1
    np.testing.assert_allclose(waveform, sound, atol=1e-6)


def test_cancelling_channels_are_detected_after_silence_and_dither(tmp_path: Path) -> None:
    before = [noise(3, seed, 1e-4) for seed in (1, 2)]
    sound = noise()
    channels = [
        np.concatenate([quiet, sign * sound]) for quiet, sign in zip(before, (1, -1), strict=True)
    ]
    waveform, noted = read_back(tmp_path / "a.wav", channels)
    assert noted == 1
    np.testing.assert_array_equal(waveform, channels[0])


def test_the_loudest_of_three_cancelling_channels_is_used(tmp_path: Path) -> None:
    sound = noise()
    weights = (0.5, -0.3, -0.2)
    waveform, noted = read_back(tmp_path / "a.wav", [np.float32(w) * sound for w in weights])
    assert noted == 1
    np.testing.assert_allclose(waveform, 0.5 * sound, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_in_cancelling_channels(
    tmp_path: Path, value: float
) -> None:
    sound = noise()
    broken = -sound
    broken[100] = value
    with pytest.raises(AudioError, match="not numbers"):
        read_back(tmp_path / "a.wav", [sound, broken])
    loud = np.float32(1e38) * sound
    soundfile.write(tmp_path / "b.wav", np.stack([loud, loud], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(
        reading.read(tmp_path / "b.wav")[0], sound / np.abs(sound).max(), 1e-5
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("count", [2, 3])
def test_infinity_in_opposite_channels_is_refused_without_a_warning(
    tmp_path: Path, count: int, channels: int
) -> None:
    sounds = np.stack([noise(seed=seed) for seed in range(count)], axis=1)
    sounds[100, 0], sounds[100, 1] = np.inf, -np.inf
    soundfile.write(tmp_path / "a.wav", sounds, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="not numbers"):
        reading.read(tmp_path / "a.wav", channels=channels)
    with pytest.raises(AudioError, match="not numbers"):
        reading.short(tmp_path / "a.wav", 1 << 20, channels=channels)


def test_the_same_channel_is_used_in_all_blocks_and_noted_once(tmp_path: Path) -> None:
    sound = noise(4)
    whole, _ = read_back(tmp_path / "a.wav", [sound, -sound])
    notes: list[str] = []
    blocks = list(reading.blocks(tmp_path / "a.wav", note=notes.append, block_samples=3000))
    assert len(blocks) > 10
    assert len(notes) == 1
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("block", [1 << 20, 3000])
def test_preprocess_and_inspect_use_one_of_cancelling_channels_and_say_so(
    tmp_path: Path,
    voice: Callable[..., Waveform],
    block: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    sound = voice(1.0)
    soundfile.write(source / "mono.wav", sound, RATE)
    soundfile.write(source / "opposite.wav", np.stack([sound, -sound], axis=1), RATE)
    soundfile.write(source / "stereo.wav", np.stack([sound, sound], axis=1), RATE)
    lines: list[str] = []
    config = PreprocessConfig(labels="none", channels="mono")
    limits = Limits(block_samples=block)
    summary = preprocess(source, tmp_path / "out", config, limits=limits, say=lines.append)
    expected = "1 of 3 files: channels cancel each other; the louder one is used (opposite.wav)"
    assert f"note: {expected}" in lines
    assert expected in summary.warnings
    assert summary.skipped == []
    dataset = Dataset(tmp_path / "out")
    levels = {c.path: c.level for split in SPLITS for c in getattr(dataset, split).clips}
    assert len(set(levels.values())) == 1
    assert expected in inspect(source, config=config).notes
    assert main(["inspect", str(source), "--channels", "mono"]) == 0
    assert f"note: {expected}" in capsys.readouterr().out
