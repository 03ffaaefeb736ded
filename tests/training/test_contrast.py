"""Laws of the fitted contrast of a decoder."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from fast_training import CONFIG
from torch import Tensor, nn

from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.batches import evenly_spaced
from audiovq.dataset.dataset import Dataset, Split
from audiovq.models.autoencoder.vivid import VividDecoder
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.training.contrast import CLIPS, HIGHEST, LOWEST, fitted_contrast
from audiovq.training.run import train


class Flat(nn.Module):
    """A decoder whose values are closer to the loudest one than another's, by a factor."""

    def __init__(self, decoder: nn.Module, factor: float) -> None:
        super().__init__()
        self.decoder, self.factor = decoder, factor

    def forward(self, grid: Tensor, mask: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(grid, mask)
        return 1 - (1 - decoded) / self.factor


@pytest.fixture(scope="module")
def clips(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Validation clips of the bundled digits."""
    folder = tmp_path_factory.mktemp("digits") / "dataset"
    preprocess(digits, folder, PreprocessConfig(), say=lambda _: None)
    return Dataset(folder).validation


def vivid(model: Model, factor: float) -> VividDecoder:
    return VividDecoder(Flat(model.autoencoder.decoder, factor), contrast=1.0)


def test_a_flatter_decoder_gets_so_much_more_contrast(clips: Split) -> None:
    model = load("digits")
    own = fitted_contrast(model, clips)
    assert LOWEST < own < HIGHEST
    flatter = fitted_contrast(model, clips, vivid(model, 1.02))
    assert flatter == pytest.approx(1.02 * own, abs=0.003)


def test_the_fitted_contrast_restores_the_mean_of_the_cells(clips: Split) -> None:
    model, split = load("digits"), clips
    decoder, indices = vivid(model, 1.0), evenly_spaced(len(split), CLIPS)[:CLIPS]
    images, frames = split.spectrograms(indices), split.num_frames[indices]
    levels, num_samples = split.levels[indices], split.num_samples[indices]
    cells = (torch.arange(images.shape[3]) < frames[:, None])[:, None, None].float()
    shares = []
    for contrast in (LOWEST, fitted_contrast(model, clips, decoder), HIGHEST):
        decoder.contrast.fill_(contrast)
        with torch.inference_mode():
            codes = model.autoencoder.encode(images, frames)
            columns = model.autoencoder.num_columns(frames)
            decoded = model.autoencoder.decode(codes, columns, decoder)[..., : images.shape[3]]
            waveforms = model.spectrogram.inverse(decoded, levels, num_samples)
            again, _ = model.spectrogram(waveforms, num_samples)
        again = nn.functional.pad(again, (0, images.shape[3] - again.shape[3]))
        shares.append(float((again * cells).sum() / (images * cells).sum()))
    assert shares[1] == pytest.approx(1, abs=0.005)
    assert shares[0] > 1.01 > 0.99 > shares[2]


def test_few_clips_are_made_up_by_others(clips: Split) -> None:
    model, few = load("digits"), copy.copy(clips)
    few.clips = few.clips[:2]
    for name in ("num_frames", "levels", "num_samples"):
        setattr(few, name, getattr(few, name)[:2])
    alone, made_up = fitted_contrast(model, few), fitted_contrast(model, few, also=clips)
    of_all = fitted_contrast(model, clips)
    assert abs(made_up - of_all) < abs(alone - of_all)
    assert fitted_contrast(model, clips, also=few) == of_all, "enough clips need no others"
    assert fitted_contrast(model, few, also=few) == alone


def test_a_trained_model_has_the_fitted_contrast_and_a_given_one_is_left_alone(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, autoencoder_share=1.0, max_minutes=10.0)
    model = train(dataset, tmp_path / "fitted", config, device="cpu", say=lambda _: None)
    assert load(tmp_path / "fitted").autoencoder.config.contrast == model.autoencoder.contrast
    assert model.autoencoder.contrast == fitted_contrast(model, dataset.validation)
    autoencoder = dataclasses.replace(CONFIG.autoencoder, contrast=1.01)
    given = dataclasses.replace(config, autoencoder=autoencoder)
    train(dataset, tmp_path / "given", given, device="cpu", say=lambda _: None)
    assert load(tmp_path / "given").autoencoder.contrast == 1.01
