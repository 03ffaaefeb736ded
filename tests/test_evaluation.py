"""Figures against what is known beforehand."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from audiovq import evaluation
from audiovq.config import PreprocessConfig
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


def test_log_spectral_distance_of_a_gain_is_the_gain() -> None:
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    assert evaluation.log_spectral_distance(noise, noise, 256, 64) == 0
    half = evaluation.log_spectral_distance(noise, noise / 2, 256, 64)
    assert half == pytest.approx(20 * np.log10(2), rel=1e-3)


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
