"""Judges and metrics of sets against known values."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.dataset import dataset as dataset_dataset
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation import classifier, distances
from audiovq.preprocessing.preprocess import preprocess


def test_the_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 3, generator=generator)
    assert distances.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    shift = torch.tensor([1.0, -2.0, 0.5])
    assert distances.frechet_distance(a, a + shift) == pytest.approx(5.25, abs=1e-4)
    # scaled by 3 around its mean: (3 - 1)² times the trace of the covariance
    centred = a - a.mean(dim=0)
    expected = 4 * float(torch.cov(centred.T).trace())
    assert distances.frechet_distance(centred, 3 * centred) == pytest.approx(expected, rel=1e-5)


def test_the_inception_score_is_1_for_constant_and_n_for_certain_balanced_probabilities() -> None:
    certain = torch.eye(4).repeat(3, 1)
    assert distances.inception_score(certain) == pytest.approx(4)
    assert distances.inception_score(certain[:1]) == pytest.approx(1)
    assert distances.inception_score(torch.full((5, 4), 0.25)) == pytest.approx(1)
    p = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).softmax(dim=1).numpy()
    divergences = (p * np.log(p / p.mean(axis=0))).sum(axis=1)
    expected = np.exp(divergences.mean())
    assert distances.inception_score(torch.from_numpy(p)) == pytest.approx(expected, rel=1e-5)


def test_the_spread_of_a_class_is_the_mean_distance_of_its_features() -> None:
    features = torch.tensor([[0.0, 0], [9, 9], [3, 4], [1, 1], [6, 8], [1, 1]])
    labels = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 0], [0, 0], [1, 0]])
    # distances 5, 5 and 10; distance 0; class (0, 1) has a single clip
    expected = {(0, 0): pytest.approx(20 / 3), (1, 0): pytest.approx(0)}
    assert distances.class_spreads(features, labels) == expected


def test_a_judge_can_be_trained_on_any_number_of_clips() -> None:
    """Batch norm needs two clips, and the last batch of an epoch may have one."""
    generator = torch.Generator().manual_seed(0)
    for n in range(1, 41):
        clips = torch.rand(n, 1, 16, 12, generator=generator)
        judge = classifier.train_classifier([FewClips(clips)], min_steps=4, max_steps=4)
        assert not judge.training
        assert all(bool(value.isfinite().all()) for value in judge.state_dict().values())
        judged = classifier.judge(judge, list(clips))
        assert judged.features.shape == (n, 128)


@pytest.mark.parametrize("pool", [(1, 1), (2, 2), (4, 3)])
def test_a_judge_of_averaged_spectrograms_judges_each_clip_as_it_would_alone(
    pool: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    judge = classifier.Classifier(18, [2], pool).eval()
    clips = [torch.rand(1, 18, frames) for frames in (31, 12, 40, 7)]
    together = classifier.judge(judge, clips).features
    for clip, features in zip(clips, together, strict=True):
        torch.testing.assert_close(classifier.judge(judge, [clip]).features[0], features)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SpectrogramConfig.for_rate(8_000), (1, 1)),
        (SpectrogramConfig.for_rate(16_000), (1, 1)),
        (SpectrogramConfig.for_rate(44_100), (2, 1)),
        (SpectrogramConfig(44_100, n_fft=1024, hop_length=256, n_mels=128), (2, 2)),
    ],
)
def test_finer_spectrograms_are_averaged_to_about_as_many_cells_a_second(
    config: SpectrogramConfig, expected: tuple[int, int]
) -> None:
    assert classifier.pooling(config) == expected


class FewClips:
    """A split of clips (clips, 1, bins, frames) with two labels, the second of which is often missing."""

    def __init__(self, clips: torch.Tensor) -> None:
        self.clips = clips
        self.labels = {"digit": ["0", "1"], "speaker": ["ada"]}
        self.num_frames = torch.full((len(clips),), clips.shape[3])
        self.label_indices = torch.arange(len(clips))[:, None] % torch.tensor([2, 3])
        self.label_indices[:, 1].clamp_(max=1)

    def __len__(self) -> int:
        return len(self.clips)

    def spectrograms(self, indices: torch.Tensor) -> torch.Tensor:
        return self.clips[indices]


def test_a_judge_recognises_unseen_clips_in_any_batch(digits: Path, tmp_path: Path) -> None:
    """On two of the bundled voices, in a quarter of the default steps."""
    torch.manual_seed(0)
    for voice in ("ben", "ivy"):
        for path in digits.glob(f"*_{voice}_*.wav"):
            (tmp_path / "words").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "words")
    config = PreprocessConfig(labels=r"(?P<digit>\d)_(?P<speaker>[a-z]+)", test=r"_[67]\.wav$")
    preprocess(tmp_path / "words", tmp_path / "dataset", config, say=lambda _: None)
    dataset = Dataset(tmp_path / "dataset")
    splits = [dataset.train, dataset.validation]
    judge = classifier.train_classifier(splits, min_steps=150, max_steps=150)
    images = dataset_dataset.split_images(dataset.test)
    judged = classifier.judge(judge, images)
    digit, speaker = judged.accuracy(dataset.test.label_indices)
    assert digit > 0.8
    assert speaker > 0.9
    alone = classifier.judge(judge, images[:1])
    assert torch.allclose(alone.probabilities[0][0], judged.probabilities[0][0], atol=1e-3)
    wrong = (dataset.test.label_indices + 1) % torch.tensor([10, 2])
    assert judged.accuracy(wrong)[0] < 0.2, "wrong labels must score badly"
