"""Figures against what is known beforehand."""

import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from audiovq import evaluation
from audiovq.config import PreprocessConfig, SpectrogramConfig
from audiovq.dataset import Dataset
from audiovq.preprocess import preprocess


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 3, generator=generator)
    assert evaluation.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    shift = torch.tensor([1.0, -2.0, 0.5])
    assert evaluation.frechet_distance(a, a + shift) == pytest.approx(5.25, abs=1e-4)
    # scaled by 3 around its mean: (3 - 1)² times the trace of the covariance
    centred = a - a.mean(dim=0)
    expected = 4 * float(torch.cov(centred.T).trace())
    assert evaluation.frechet_distance(centred, 3 * centred) == pytest.approx(expected, rel=1e-5)


def test_nearest_distance_is_zero_for_a_copy_even_if_shifted() -> None:
    generator = torch.Generator().manual_seed(0)
    references = [torch.rand(1, 8, frames, generator=generator) for frames in (12, 20, 16)]
    copy = references[1].clone()
    shifted = torch.nn.functional.pad(references[2], (3, 0))
    other = torch.rand(1, 8, 18, generator=generator)
    distances = evaluation.nearest_distances([copy, shifted, other], references, 80.0)
    assert float(distances[0]) < 0.1
    assert float(distances[1]) < 0.1
    assert float(distances[2]) > 10


def test_nearest_distance_is_the_root_mean_square_in_decibels() -> None:
    reference = torch.full((1, 4, 10), 0.5)
    distances = evaluation.nearest_distances([reference + 0.1], [reference], 80.0)
    assert float(distances[0]) == pytest.approx(8.0, rel=1e-3)


def test_shared_codes_counts_places_in_common() -> None:
    end = 10
    references = torch.tensor([[12, 1, 2, 3, 4, 10, 10], [12, 5, 6, 7, 8, 9, 9]])
    clips = torch.tensor([[12, 1, 2, 3, 9, 10, 10], [13, 1, 2, 10, 10, 10, 10]])
    assert evaluation.shared_codes(clips, references, end).tolist() == [0.75, 0.5]


def noise(samples: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) * 0.1


def test_log_spectral_distance_of_a_gain_is_the_gain() -> None:
    sound = noise(8000)
    assert evaluation.log_spectral_distance(sound, sound, 256, 64) == 0
    half = evaluation.log_spectral_distance(sound, sound / 2, 256, 64)
    assert half == pytest.approx(20 * np.log10(2), rel=1e-3)


def test_mel_distance_and_spectral_convergence_of_a_gain_are_the_gain() -> None:
    sound = noise(8000)
    assert evaluation.mel_distance(sound, sound, 8000) == 0
    assert evaluation.spectral_convergence(sound, sound, 256, 64) == 0
    expected = pytest.approx(20 * np.log10(2), rel=1e-3)
    assert evaluation.mel_distance(sound, sound / 2, 8000) == expected
    assert evaluation.spectral_convergence(sound, sound / 2, 256, 64) == pytest.approx(0.5)


@pytest.mark.parametrize("sample_rate", [8000, 96_000])
def test_mel_distance_is_its_definition(sample_rate: int) -> None:
    """By librosa's filters and NumPy's FFT; at 96 kHz the narrowest bands cover no bin."""
    from librosa.filters import mel

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
    assert evaluation.mel_distance(sound, other, sample_rate) == expected


@pytest.mark.parametrize("sample_rate", [8000, 44_100])
def test_no_clip_is_too_short_or_too_silent_for_figures(sample_rate: int) -> None:
    config = SpectrogramConfig(sample_rate, 256, 64, n_mels=0)
    silence = np.zeros(sample_rate, np.float32)
    for samples in (1, 40, 300, sample_rate // 20):
        sound = noise(samples)
        for other in (noise(samples, seed=1), np.zeros_like(sound)):
            scores = evaluation.waveform_scores([sound, silence], [other, silence], config)
            assert set(scores) == {
                "log_spectral_distance_db",
                "mel_distance_db",
                "spectral_convergence",
            }, "too short for PESQ and STOI, which must not be made up"
            assert all(map(math.isfinite, scores.values()))
    for nothing in (silence, 1e-40 * noise(sample_rate)):
        assert evaluation.waveform_scores([nothing], [noise(sample_rate)], config) == {}
        assert evaluation.log_spectral_distance(nothing, silence, 256, 64) == 0
    assert evaluation.mel_distance(silence, silence, sample_rate) == 0
    distance = evaluation.log_spectral_distance(silence, noise(sample_rate), 256, 64)
    quieter = evaluation.log_spectral_distance(silence, noise(sample_rate) / 100, 256, 64)
    assert 0 < distance <= 80
    assert quieter == pytest.approx(distance, rel=1e-4)


def test_a_stretch_too_short_to_be_scored_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pesq")
    monkeypatch.setattr(evaluation, "STRETCH_SECONDS", 0.9)
    clips = [noise(8000), noise(200)]
    same = evaluation.speech_scores(clips, clips, 8000)
    assert same["stoi"] > 0.99
    assert same["estoi"] > 0.99
    assert same["pesq"] > 4.4


def test_inception_score_counts_what_is_named_surely_and_equally_often() -> None:
    sure = torch.eye(4).repeat(3, 1)
    assert evaluation.inception_score(sure) == pytest.approx(4)
    assert evaluation.inception_score(sure[:1]) == pytest.approx(1)
    assert evaluation.inception_score(torch.full((5, 4), 0.25)) == pytest.approx(1)
    p = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).softmax(dim=1).numpy()
    divergences = (p * np.log(p / p.mean(axis=0))).sum(axis=1)
    expected = np.exp(divergences.mean())
    assert evaluation.inception_score(torch.from_numpy(p)) == pytest.approx(expected, rel=1e-5)


def test_spread_is_the_mean_distance_within_a_class() -> None:
    features = torch.tensor([[0.0, 0], [9, 9], [3, 4], [1, 1], [6, 8], [1, 1]])
    labels = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 0], [0, 0], [1, 0]])
    # 5, 5 and 10 apart; both in one place; (0, 1) has one clip alone
    expected = {(0, 0): pytest.approx(20 / 3), (1, 0): pytest.approx(0)}
    assert evaluation.class_spreads(features, labels) == expected


def test_speech_scores_fall_with_noise(digits: Path) -> None:
    pytest.importorskip("pesq")
    from audiovq.audio import read

    words = [read(path)[0] for path in sorted(digits.glob("*_ben_0.wav"))]
    generator = np.random.default_rng(0)
    noisy = [w + 0.03 * generator.standard_normal(len(w)).astype(np.float32) for w in words]
    same = evaluation.speech_scores(words, words, 8000)
    worse = evaluation.speech_scores(words, noisy, 8000)
    assert same["pesq"] > 4.4
    assert same["estoi"] > 0.99
    assert worse["pesq"] < same["pesq"] - 1
    assert worse["estoi"] < same["estoi"] - 0.1


def test_the_judge_names_clips_it_has_not_heard(digits: Path, tmp_path: Path) -> None:
    """On two of the voices that ship; and what it says does not depend on the batch."""
    torch.manual_seed(0)
    for voice in ("ben", "ivy"):
        for path in digits.glob(f"*_{voice}_*.wav"):
            (tmp_path / "words").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "words")
    config = PreprocessConfig(labels=r"(?P<digit>\d)_(?P<speaker>[a-z]+)", test=r"_[67]\.wav$")
    preprocess(tmp_path / "words", tmp_path / "dataset", config, say=lambda _: None)
    dataset = Dataset(tmp_path / "dataset")
    judge = evaluation.train_classifier([dataset.train, dataset.validation])
    images = evaluation.split_images(dataset.test)
    judged = evaluation.judge(judge, images)
    digit, speaker = judged.accuracy(dataset.test.label_indices)
    assert digit > 0.8
    assert speaker > 0.9
    alone = evaluation.judge(judge, images[:1])
    assert torch.allclose(alone.probabilities[0][0], judged.probabilities[0][0], atol=1e-3)
    wrong = (dataset.test.label_indices + 1) % torch.tensor([10, 2])
    assert judged.accuracy(wrong)[0] < 0.2, "wrong labels must score badly"
