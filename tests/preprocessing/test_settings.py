"""Settings are chosen by the usable recordings and their true lengths."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiovq.audio.reading import AudioInfo, info
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import STEREO_FLOOR_DB, PreprocessConfig, SpectrogramConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.manifest import Skipped
from audiovq.inspection.inspect import inspect
from audiovq.preprocessing import settings as preprocessing_settings
from audiovq.preprocessing.preprocess import Summary, preprocess
from audiovq.preprocessing.settings import choose_channels, choose_settings, voters
from audiovq.preprocessing.slicing import Slicing, first_clip
from audiovq.spectral.numpy_spectrogram import Analysis, Piece
from audiovq.spectral.scale import mel_filters

Waveform = npt.NDArray[np.float32]
Voice = Callable[..., Waveform]


def run(source: Path, target: Path, **settings: Any) -> tuple[Summary, Dataset]:
    summary = preprocess(source, target, PreprocessConfig(**settings), say=lambda line: None)
    return summary, Dataset(target)


def unusable(kind: str, path: Path, rate: int, seconds: float, voice: Voice) -> None:
    """Write a recording that will be skipped; only for some kinds does its header show that."""
    sound = voice(seconds, sample_rate=rate)
    if kind == "silent":
        sound *= 0
    if kind == "dither":
        sound = np.sign(sound) / np.float32(32768)
    if kind == "not numbers":
        sound[len(sound) // 2] = np.nan
    if kind == "damaged":
        soundfile.write(path.with_suffix(".flac"), sound, rate)
        data = bytearray(path.with_suffix(".flac").read_bytes())
        data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
        path.with_suffix(".flac").write_bytes(data)
        return
    soundfile.write(path, sound, rate, subtype="FLOAT")


KINDS = ["silent", "dither", "not numbers", "damaged"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_rate_is_the_most_frequent_one_of_usable_recordings(
    kind: str, tmp_path: Path, voice: Voice
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i in range(5):
        unusable(kind, source / f"bad{i}.wav", 8000, 1.0, voice)
    for i in range(3):
        soundfile.write(source / f"good{i}.wav", voice(0.5, sample_rate=44_100), 44_100)
    soundfile.write(source / "low.wav", voice(0.5), 8000)
    summary, dataset = run(source, tmp_path / "out")
    assert summary.used == 4
    assert dataset.spectrogram.sample_rate == 44_100
    assert "44,100 Hz, the rate of most" in inspect(source).reasons[0]


@pytest.mark.parametrize("kind", ["silent", "dither", "not numbers"])
@pytest.mark.parametrize("seconds", [1.5, 9.0])
def test_clips_are_as_long_as_the_longest_usable_recording(
    kind: str, seconds: float, tmp_path: Path, voice: Voice
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i in range(3):
        soundfile.write(source / f"good{i}.wav", voice(0.4), 8000)
    _, alone = run(source, tmp_path / "alone")
    for i in range(2):
        unusable(kind, source / f"bad{i}.wav", 8000, seconds, voice)
    _, both = run(source, tmp_path / "both")
    assert both.clip_frames == alone.clip_frames
    assert inspect(source).clip_seconds == alone.clip_frames * 64 / 8000


@given(
    st.lists(st.tuples(st.sampled_from([8000, 16_000, 44_100]), st.booleans()), min_size=1),
)
def test_settings_are_chosen_as_by_all_usable_recordings_but_few_are_read(
    files: list[tuple[int, bool]],
) -> None:
    infos = {f"{i}": AudioInfo(rate, 1, 2 * rate) for i, (rate, _) in enumerate(files)}
    usable = {f"{i}" for i, (_, is_good) in enumerate(files) if is_good}
    tried: list[str] = []

    def is_used(path: Path, slicing: object) -> bool:
        tried.append(path.name)
        return path.name in usable

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocessing_settings, "is_used", is_used)
        found = choose_settings(
            PreprocessConfig(), list(voters(Path(), infos, PreprocessConfig()).values())
        )
    expected = [infos[path] for path in sorted(usable)] or list(infos.values())
    assert found[0] == choose_settings(PreprocessConfig(), expected)[0]
    if len({rate for rate, _ in files}) == 1 and all(is_good for _, is_good in files):
        assert len(tried) == 1


def flac_of_unknown_length(sound: Waveform, number: int = 0) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, 8000, format="FLAC", subtype="PCM_16")
    data = bytearray(file.getvalue())
    count = data.index(b"fLaC") + 4 + 4 + 13
    data[count] &= 0xF0
    data[count + 1 : count + 5] = struct.pack(">I", number)
    return bytes(data)


@pytest.mark.parametrize("promised", [0, 4_000_000_000])
def test_a_wrong_length_in_a_header_is_never_used(
    promised: int, tmp_path: Path, voice: Voice
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i in range(12):
        (source / f"{i}.flac").write_bytes(flac_of_unknown_length(voice(0.5, 100 + i), promised))
    found = inspect(source)
    assert found.seconds == pytest.approx(6)
    assert found.lengths == [pytest.approx(0.5)] * 12
    assert found.clip_seconds == pytest.approx(0.5, abs=0.13)
    assert found.clips == 12
    lines: list[str] = []
    preprocess(source, tmp_path / "out", say=lines.append)
    dataset = Dataset(tmp_path / "out")
    assert dataset.clip_frames * 64 / 8000 == found.clip_seconds
    assert len(list((tmp_path / "out").glob("train-*.npy"))) == 1
    assert not any("longer than a clip" in line for line in lines)


@pytest.mark.parametrize("rate", [8000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000])
@pytest.mark.parametrize("n_fft", [None, 16, 128, 256, 512, 1024, 2048])
def test_the_default_number_of_mel_bands_is_the_largest_possible(
    rate: int, n_fft: int | None
) -> None:
    config = SpectrogramConfig.for_rate(rate, n_fft)
    assert mel_filters(config).any(axis=1).all()
    wanted = {8000: 64, 22_050: 96}.get(rate, 128)
    if config.n_mels < min(wanted, config.n_fft // 4) and config.n_mels > 8:
        with pytest.raises(AudiovqError, match="too many"):
            mel_filters(SpectrogramConfig.for_rate(rate, n_fft, n_mels=config.n_mels + 3))


def test_a_recording_shorter_than_a_window_is_a_clip_of_its_true_length(
    tmp_path: Path, voice: Voice
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    sound = voice(0.5, sample_rate=44_100)
    for i in range(3):
        soundfile.write(source / f"{i}.wav", sound, 44_100)
    lengths = (2, 3, 440, 511, 512, 838, 2029)
    for length in lengths:
        soundfile.write(source / f"short-{length}.wav", np.resize([0.5, -0.5], length), 44_100)
    summary, dataset = run(source, tmp_path / "out", n_fft=2048)
    assert summary.skipped == []
    assert dataset.spectrogram.n_fft == 2048
    found = {
        clip.path: clip for split in dataset.splits for clip in split.clips if "short" in clip.path
    }
    assert {path: clip.num_samples for path, clip in found.items()} == {
        f"short-{length}.wav": length for length in lengths
    }
    assert all(clip.complete == (True, True) for clip in found.values())


def test_a_recording_of_less_than_a_sample_at_the_dataset_s_rate_is_skipped(
    tmp_path: Path, voice: Voice
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    soundfile.write(source / "good.wav", voice(0.5), 8000)
    soundfile.write(source / "click.wav", np.array([0.5, -0.5]), 48_000)
    summary, _ = run(source, tmp_path / "out", sample_rate=8000)
    (skipped,) = summary.skipped
    assert skipped == Skipped("click.wav", "is shorter than one sample at 8000 Hz")


def test_the_spectrogram_of_a_short_recording_is_that_of_it_followed_by_silence(
    tmp_path: Path,
) -> None:
    """Padding to a window changes none of its frames."""
    config = SpectrogramConfig.for_rate(44_100)
    sound = np.random.default_rng(0).uniform(-1, 1, 838).astype(np.float32)
    soundfile.write(tmp_path / "rim.wav", sound, 44_100, subtype="FLOAT")
    found = first_clip(tmp_path / "rim.wav", Slicing(config, 16, None))
    padded = np.pad(sound, (0, config.n_fft - len(sound)))
    ((short, level),) = Analysis(config).batches([found], 16)
    ((long, same),) = Analysis(config).batches([Piece(padded)], 16)
    frames = 1 + len(sound) // config.hop_length
    assert level == same
    assert np.array_equal(short[..., :frames], long[..., :frames])
    assert not short[..., frames:].any()


def test_a_dataset_like_a_model_has_its_spectrograms_whatever_the_recordings_are(
    tmp_path: Path, voice: Voice
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        soundfile.write(tmp_path / "in" / f"{number}.wav", voice(0.4, sample_rate=22_050), 22_050)
    model = SpectrogramConfig(8_000, 128, 32, 48, range_db=70.0)
    preprocess(
        tmp_path / "in", tmp_path / "out", PreprocessConfig().like(model, "it"), say=lambda _: None
    )
    assert Dataset(tmp_path / "out").spectrogram == model


def test_a_setting_that_differs_from_the_models_is_refused_by_name_and_an_equal_one_is_not() -> (
    None
):
    model = SpectrogramConfig(8_000, 128, 32, 48, range_db=70.0)
    with pytest.raises(AudiovqError, match=r"--sample-rate 16000: it has 8000"):
        PreprocessConfig(sample_rate=16_000).like(model, "it")
    with pytest.raises(AudiovqError, match="is a model of images"):
        PreprocessConfig().like(SpectrogramConfig.for_images(28), "it")
    given = PreprocessConfig(sample_rate=8_000, clip_seconds=1.0).like(model, "it")
    assert (given.sample_rate, given.clip_seconds) == (8_000, 1.0)


def test_a_dataset_like_a_model_has_as_many_channels() -> None:
    mono = SpectrogramConfig(8_000, 128, 32, 48)
    stereo = SpectrogramConfig(8_000, 128, 32, 48, channels=2)
    assert PreprocessConfig().like(mono, "it").channels == "mono"
    assert PreprocessConfig().like(stereo, "it").channels == "stereo"
    with pytest.raises(AudiovqError, match=r"--channels mono: it has stereo"):
        PreprocessConfig(channels="mono").like(stereo, "it")


def test_the_floor_of_balance_is_that_of_the_model_or_the_default_of_new_datasets(
    tmp_path: Path, voice: Voice
) -> None:
    earlier = SpectrogramConfig(8_000, 128, 32, 48, channels=2)
    like = PreprocessConfig().like(earlier, "it")
    assert like.stereo_floor_db == earlier.stereo_floor_db == 60.0
    (tmp_path / "in").mkdir()
    for number in range(4):
        sound = voice(0.4 + number / 100)
        pair = np.stack([sound, sound[::-1]], axis=1)
        soundfile.write(tmp_path / "in" / f"{number}.wav", pair, 8_000)
    for name, config in (("like", like), ("new", PreprocessConfig())):
        preprocess(tmp_path / "in", tmp_path / name, config, say=lambda _: None)
    assert Dataset(tmp_path / "like").spectrogram == earlier
    assert Dataset(tmp_path / "new").spectrogram.stereo_floor_db == STEREO_FLOOR_DB
    with pytest.raises(AudiovqError, match=r"stereo_floor_db 10\.0: give decibels from 20 to 120"):
        PreprocessConfig(stereo_floor_db=10.0)


@pytest.mark.parametrize("dither", [0.0, 1.0])
def test_silent_recordings_do_not_decide_about_stereo(
    tmp_path: Path, voice: Voice, dither: float
) -> None:
    noise = np.random.default_rng(0).integers(-1, 2, (21, 4000, 2)) * dither / 32768
    for number, silence in enumerate(noise):
        soundfile.write(tmp_path / f"{number}.wav", silence[:, 0], 8000)
    pair = np.stack([voice(0.4), voice(0.4, 300)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", pair, 8000)

    def chosen() -> tuple[int, list[str]]:
        infos = {path.name: info(path) for path in sorted(tmp_path.iterdir())}
        found, notes = choose_channels(
            PreprocessConfig(), SpectrogramConfig.for_rate(8000), tmp_path, infos
        )
        return found.channels, notes

    channels, (note,) = chosen()
    assert channels == 2
    assert note.startswith("1 of 1 sound files that were read is stereo")
    soundfile.write(tmp_path / "stereo.wav", voice(0.4), 8000)
    for number, silence in enumerate(noise):
        soundfile.write(tmp_path / f"{number}.wav", silence, 8000)
    assert chosen() == (1, [])
