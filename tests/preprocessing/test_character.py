"""Tests of the character of recordings, and of the windows, bands and patches that it decides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from audiovq.audio.reading import AudioInfo
from audiovq.config.autoencoder import NetworkConfig
from audiovq.config.spectrogram import WIDE_ABOVE, PreprocessConfig, SpectrogramConfig
from audiovq.dataset.dataset import Dataset
from audiovq.inspection.inspect import inspect
from audiovq.models import folder
from audiovq.preprocessing.character import (
    HIT,
    TONE,
    Character,
    character,
    early,
    evenly_spaced,
    ringing,
)
from audiovq.preprocessing.preprocess import preprocess
from audiovq.preprocessing.settings import choose_settings

RATE = 44_100
HITS, TONES, MIXED = Character(0.7, 0.0), Character(0.1, 0.4), Character(0.1, 0.0)


def decaying(seconds: float, tau: float, kind: str) -> npt.NDArray[np.float32]:
    """Noise or a tone that decays with the time constant `tau` seconds."""
    time = np.arange(round(seconds * RATE)) / RATE
    random = np.random.default_rng(0)
    carrier = (
        random.standard_normal(len(time)) if kind == "noise" else np.sin(2 * np.pi * 440 * time)
    )
    return (0.3 * carrier * np.exp(-time / tau)).astype(np.float32)


def test_early_is_the_share_of_energy_before_60_ms() -> None:
    steady = np.ones(RATE, np.float32)
    assert early(steady, RATE) == pytest.approx(0.06, abs=1e-3)
    assert early(0.01 * steady[: RATE // 20], RATE) == pytest.approx(1)
    assert early(decaying(1, 0.06, "noise"), RATE) == pytest.approx(1 - np.exp(-2), abs=0.03)


def test_tones_ring_and_clicks_do_not() -> None:
    click = np.zeros(RATE, np.float32)
    click[RATE // 2] = 1
    assert ringing(decaying(1, 10, "tone"), RATE) > 2 * TONE
    assert ringing(click, RATE) < 0
    assert abs(ringing(decaying(1, 10, "noise"), RATE)) < TONE / 2
    quiet = 1e-3 * decaying(1, 0.1, "tone")
    assert ringing(quiet, RATE) == pytest.approx(ringing(1000 * quiet, RATE), abs=1e-3)


@pytest.mark.parametrize(
    ("tau", "carrier", "kind"),
    [
        (0.03, "noise", "hits"),
        (0.03, "tone", "hits"),
        (2.0, "tone", "tones"),
        (2.0, "noise", "mixed"),
    ],
)
def test_the_median_decides_and_unreadable_or_silent_files_do_not_count(
    tmp_path: Path, tau: float, carrier: str, kind: str
) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(5)]
    sounds = [decaying(1, tau, carrier)] * 3 + [
        decaying(1, 0.03, "noise"),
        np.zeros(RATE, np.float32),
    ]
    for number, (path, sound) in enumerate(zip(paths, sounds, strict=True)):
        silence = np.zeros(number * 1000, np.float32)  # the onset is found
        soundfile.write(path, np.concatenate([silence, sound]), RATE)
    broken = tmp_path / "broken.wav"
    broken.write_text("no sound")
    found = character([*paths, broken, tmp_path / "missing.wav"], RATE)
    assert found is not None
    assert found.kind == kind
    assert found == character(paths[:4], RATE)
    assert character([paths[4], broken], RATE) is None


@pytest.mark.parametrize("count", [0, 1, 11, 12, 13, 23, 24, 25, 1000])
def test_evenly_spaced_items_reach_the_end(count: int) -> None:
    found = evenly_spaced(range(count), 12)
    steps = set(np.diff(found))
    assert min(count, 6) <= len(found) <= 12
    assert len(steps) <= 1
    assert not found or found[-1] + max(steps, default=1) >= count


def test_recordings_that_are_as_good_as_silent_do_not_decide(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(5)]
    for path in paths[:3]:
        dither = np.random.default_rng(0).integers(-1, 2, RATE) / 32768
        soundfile.write(path, dither, RATE)
    for path in paths[3:]:
        soundfile.write(path, decaying(1, 0.03, "noise"), RATE)
    found = character(paths, RATE)
    assert found is not None
    assert found == character(paths[3:], RATE)
    assert found.kind == "hits"


def infos(rate: int) -> list[AudioInfo]:
    return [AudioInfo(rate, 1, rate)] * 3


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000, 96_000])
def test_hits_get_short_windows_and_tones_more_bands(rate: int) -> None:
    default = SpectrogramConfig.for_rate(rate)
    plain, _, _ = choose_settings(PreprocessConfig(), infos(rate))
    assert plain == default
    chosen = {}
    for sound in (HITS, TONES, MIXED, None):
        chosen[sound], _, notes = choose_settings(
            PreprocessConfig(), infos(rate), lambda _, s=sound: s
        )
        assert any("the recordings are" in note for note in notes) == (sound in (HITS, TONES))
    assert chosen[MIXED] == chosen[None] == default
    assert chosen[HITS].n_fft == default.n_fft // 2
    assert chosen[HITS].hop_length == default.hop_length // 2
    assert chosen[TONES].n_fft == default.n_fft
    assert chosen[TONES].n_mels > 1.5 * default.n_mels


def test_given_settings_and_low_rates_are_not_decided_by_the_character() -> None:
    def listen(_: int) -> Character:
        raise AssertionError("nothing was open")

    for given in ({"n_fft": 512}, {"hop_length": 300}, {"n_mels": 100}, {"n_mels": 0}):
        config = PreprocessConfig(**given)
        settings, _, _ = choose_settings(config, infos(RATE), listen)
        assert all(getattr(settings, name) == value for name, value in given.items())
    choose_settings(PreprocessConfig(), infos(WIDE_ABOVE), listen)


def test_preprocess_and_inspect_choose_the_same_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where clips are few, `inspect` advises the windows of a shipped model: here six are not."""
    monkeypatch.setattr(folder, "FEW_CLIPS", 6)
    source = tmp_path / "hits"
    source.mkdir()
    for number in range(6):
        soundfile.write(
            source / f"{number}.wav", decaying(0.5, 0.02 + 0.001 * number, "noise"), RATE
        )
    said: list[str] = []
    preprocess(source, tmp_path / "dataset", say=said.append)
    made = Dataset(tmp_path / "dataset").spectrogram
    assert (made.n_fft, made.hop_length) == (1024, 256)
    (note,) = [line for line in said if "the recordings are hits" in line]
    inspection = inspect(source)
    assert inspection.settings == made
    assert note.removeprefix("note: ") in inspection.reasons
    assert "--n-fft 1024" in inspection.commands[0]


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_a_code_lasts_as_long_and_covers_as_much_whatever_the_windows_and_bands(rate: int) -> None:
    default = SpectrogramConfig.for_rate(rate)
    short = SpectrogramConfig.for_rate(rate, default.n_fft // 2)
    fine = SpectrogramConfig.for_rate(rate, n_mels=min(256, 2 * default.n_mels))
    network = NetworkConfig()
    for other in (default, short, fine):
        stride = network.fitted(other).stride
        assert stride[1] * other.hop_length == 4 * default.hop_length
        rows = (other.n_mels / stride[0], default.n_mels / 8)
        assert rows[0] <= rows[1]
    assert network.fitted(fine).row_mixing == 8, "tones: a pitch decides about all rows"
    assert network.fitted(default).row_mixing is network.fitted(short).row_mixing is None
    assert replace(network, row_mixing=0).fitted(fine).row_mixing == 0
    assert replace(network, channels=12).fitted(fine).row_mixing is None
    given = NetworkConfig(patch=(4, 2))
    assert given.fitted(short) == given
    assert given.fitted(fine) == given, "models of earlier versions have no row mixing"
    assert network.fitted(SpectrogramConfig.for_images(16)).stride == (8, 4)
    assert HIT > 0.06
