"""Fidelity measures against known values."""

import math
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.evaluation import fidelity
from audiovq.inspection.describe import load_librosa


def noise(samples: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) * 0.1


def test_the_log_spectral_distance_of_a_gain_is_the_gain() -> None:
    sound = noise(8000)
    assert fidelity.log_spectral_distance(sound, sound, 256, 64) == 0
    half = fidelity.log_spectral_distance(sound, sound / 2, 256, 64)
    assert half == pytest.approx(20 * np.log10(2), rel=1e-3)


def test_mel_distance_and_spectral_convergence_of_a_gain_are_the_gain() -> None:
    sound = noise(8000)
    assert fidelity.mel_distance(sound, sound, 8000) == 0
    assert fidelity.spectral_convergence(sound, sound, 256, 64) == 0
    expected = pytest.approx(20 * np.log10(2), rel=1e-3)
    assert fidelity.mel_distance(sound, sound / 2, 8000) == expected
    assert fidelity.spectral_convergence(sound, sound / 2, 256, 64) == pytest.approx(0.5)


@pytest.mark.parametrize("sample_rate", [8000, 96_000])
def test_the_mel_distance_follows_its_definition(sample_rate: int) -> None:
    """By librosa's filters and NumPy's FFT; at 96 kHz the narrowest bands cover no bin."""
    mel = load_librosa().filters.mel
    sound, other = noise(3000), noise(3000, seed=1) * np.linspace(0, 1, 3000, dtype=np.float32)
    distances = []
    for n_fft, n_mels in zip(
        (32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320), strict=True
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty bands
            bands = mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
        bands = bands[bands.sum(axis=1) > 0]
        bands /= bands.sum(axis=1, keepdims=True)
        window = np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
        a, b = (
            bands
            @ np.abs(
                [
                    np.fft.rfft(window * padded[begin : begin + n_fft])
                    for begin in range(0, len(padded) - n_fft + 1, n_fft // 4)
                ]
            ).T
            for padded in (np.pad(w, n_fft // 2) for w in (sound, other))
        )
        a, b = (20 * np.log10(np.maximum(x, a.max() / 10_000)) for x in (a, b))
        distances.append(np.abs(a - b).mean())
    expected = pytest.approx(np.mean(distances), rel=1e-4)
    assert fidelity.mel_distance(sound, other, sample_rate) == expected


@pytest.mark.parametrize("sample_rate", [8000, 44_100])
def test_spectral_measures_are_finite_for_any_length_and_for_silence(sample_rate: int) -> None:
    config = SpectrogramConfig(sample_rate, 256, 64, n_mels=0)
    silence = np.zeros(sample_rate, np.float32)
    for samples in (1, 40, 300, sample_rate // 20):
        sound = noise(samples)
        for other in (noise(samples, seed=1), np.zeros_like(sound)):
            scores = fidelity.waveform_scores([sound, silence], [other, silence], config)
            assert scores.keys() >= {
                "log_spectral_distance_db",
                "mel_distance_db",
                "spectral_convergence",
            }
            assert not scores.keys() & {"pesq", "stoi", "estoi"}, "too short: must be omitted"
            assert ("high_distance_db" in scores) == (sample_rate == 44_100)
            assert all(map(math.isfinite, scores.values()))
    for inaudible in (silence, 1e-40 * noise(sample_rate)):
        assert fidelity.waveform_scores([inaudible], [noise(sample_rate)], config) == {}
        assert fidelity.log_spectral_distance(inaudible, silence, 256, 64) == 0
    assert fidelity.mel_distance(silence, silence, sample_rate) == 0
    distance = fidelity.log_spectral_distance(silence, noise(sample_rate), 256, 64)
    quieter = fidelity.log_spectral_distance(silence, noise(sample_rate) / 100, 256, 64)
    assert 0 < distance <= 80
    assert quieter == pytest.approx(distance, rel=1e-4)


def test_sounds_above_16_khz_are_scored_as_sounds_and_others_as_speech() -> None:
    pytest.importorskip("pesq")
    for rate in (16_000, 22_050):
        sound = noise(rate)
        scores = fidelity.waveform_scores(
            [sound], [sound], SpectrogramConfig(rate, 512, 128, n_mels=0)
        )
        assert ("pesq" in scores) == ("estoi" in scores) == (rate == 16_000)
        assert ("attack_error_ms" in scores) == (rate > 16_000)


def test_the_scores_of_a_sound_are_zero_for_itself_and_a_gain_is_an_error_of_loudness_alone() -> (
    None
):
    config = SpectrogramConfig(44_100, 1024, 256, n_mels=0)
    sound = noise(44_100)
    assert set(fidelity.sound_scores(sound, sound, config).values()) == {0.0}
    gain = 20 * math.log10(2)
    scores = fidelity.sound_scores(sound, sound / 2, config)
    assert scores.pop("attack_error_ms") == 0
    assert list(scores.values()) == pytest.approx([gain] * 4, rel=1e-2)


def test_a_later_and_softer_beginning_is_an_error_of_the_attack() -> None:
    sound = noise(20_000)
    softer = sound * np.minimum(1, np.arange(20_000, dtype=np.float32) / 1_764)  # 40 ms
    scores = fidelity.sound_scores(sound, softer, SpectrogramConfig(44_100, 1024, 256, n_mels=0))
    assert scores["attack_error_ms"] == pytest.approx(20, abs=3)


def test_only_the_band_that_differs_has_a_distance() -> None:
    config = SpectrogramConfig(44_100, 1024, 256, n_mels=0)
    time = np.arange(44_100) / 44_100
    tones = [np.sin(2 * np.pi * hertz * time) for hertz in (300, 3_000, 10_000)]
    sound, without_treble = (
        sum(tones).astype(np.float32),
        sum(tones[:2]).astype(np.float32),
    )
    scores = fidelity.sound_scores(sound, without_treble, config)
    assert scores["high_distance_db"] > 3
    assert max(scores["low_distance_db"], scores["middle_distance_db"]) < 0.5


def test_a_group_too_short_to_be_scored_is_skipped() -> None:
    pytest.importorskip("pesq")
    clips = [noise(8000), noise(200)]
    same = fidelity.speech_scores(clips, clips, 8000, group_seconds=0.9)
    assert same["stoi"] > 0.99
    assert same["estoi"] > 0.99
    assert same["pesq"] > 4.4


def test_noise_lowers_speech_scores(digits: Path) -> None:
    pytest.importorskip("pesq")
    from audiovq.audio.reading import read

    words = [read(path)[0] for path in sorted(digits.glob("*_ben_0.wav"))]
    generator = np.random.default_rng(0)
    noisy = [w + 0.03 * generator.standard_normal(len(w)).astype(np.float32) for w in words]
    same = fidelity.speech_scores(words, words, 8000)
    worse = fidelity.speech_scores(words, noisy, 8000)
    assert same["pesq"] > 4.4
    assert same["estoi"] > 0.99
    assert worse["pesq"] < same["pesq"] - 1
    assert worse["estoi"] < same["estoi"] - 0.1
