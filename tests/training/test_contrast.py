"""Laws of the fitted contrast and sharpness of a decoder."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fast_training import CONFIG, train
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import shake
from torch import Tensor, nn

from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.batches import evenly_spaced
from audiovq.dataset.dataset import Dataset, Split
from audiovq.models.autoencoder.autoencoder import detail
from audiovq.models.autoencoder.vivid import VividDecoder
from audiovq.models.checkpoint import load
from audiovq.models.model import Model, new_model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.training import run
from audiovq.training.stages import contrast as contrast_stage
from audiovq.training.stages.contrast import (
    AREA,
    CLIPS,
    HIGHEST,
    LOWEST,
    SHARPEST,
    SILENCE,
    fitted_contrast,
    fitted_sharpness,
    silence_of,
)


class Changed(nn.Module):
    """A decoder whose values are those of another after a change."""

    def __init__(self, decoder: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.decoder, self.change = decoder, change

    def forward(self, grid: Tensor, mask: Tensor) -> Tensor:
        return self.change(self.decoder(grid, mask))


def blurred(decoder: nn.Module, factor: float) -> Changed:
    """A decoder whose neighbouring bins differ less than another's, by a factor."""
    return Changed(decoder, lambda values: values - (1 - 1 / factor) * detail(values))


@pytest.fixture(scope="module", autouse=True)
def exact() -> Iterator[None]:
    """As users have it; other tests need no exact contrast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast_stage, "TOLERANCE", 0.001)
        yield


@pytest.fixture(scope="module")
def clips(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Validation clips of the bundled digits."""
    folder = tmp_path_factory.mktemp("digits") / "dataset"
    preprocess(digits, folder, PreprocessConfig(), say=lambda _: None)
    return Dataset(folder).validation


def vivid(model: Model, factor: float) -> VividDecoder:
    """A decoder whose values are closer to the loudest one than those of the model's, by a factor."""
    flat = Changed(model.autoencoder.decoder, lambda values: 1 - (1 - values) / factor)
    return VividDecoder(flat, contrast=1.0)


@pytest.fixture(scope="module")
def own(clips: Split) -> float:
    """The contrast of the decoder of `digits`."""
    return fitted_contrast(load("digits"), clips)


@given(st.floats(1.0, 1.45), st.floats(-0.5, 0.5), st.floats(1e-3, 1e6))
def test_the_root_of_what_falls_nearly_in_a_line_is_found_in_a_few_steps(
    root: float, bend: float, scale: float
) -> None:
    asked: list[float] = []

    def excess(contrast: float) -> float:
        asked.append(contrast)
        return scale * (root - contrast) * (1 + bend * (contrast - root))

    assert contrast_stage._root(excess) == pytest.approx(root, abs=0.002)
    assert len(asked) <= 2 + contrast_stage.STEPS
    assert contrast_stage._root(lambda contrast: root - contrast) == pytest.approx(root, abs=1e-9)


def test_the_contrast_is_the_same_whichever_clips_are_inverted_together(
    clips: Split, own: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrast_stage, "BATCH", 5)
    assert fitted_contrast(load("digits"), clips) == pytest.approx(own, abs=0.0011)


def test_clips_are_fewer_where_they_are_long(clips: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("digits")

    def count() -> int:
        batches = contrast_stage._decoded(model, clips, None, None)
        lengths = [int(batch.num_samples.max()) for batch in batches]
        assert lengths == sorted(lengths)
        return sum(len(batch.images) for batch in batches)

    assert count() == CLIPS
    monkeypatch.setattr(contrast_stage, "SECONDS", 0.1)
    assert count() == contrast_stage.FEWEST


def test_a_flatter_decoder_gets_so_much_more_contrast(clips: Split, own: float) -> None:
    model = load("digits")
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


def test_a_decoder_that_blurs_bins_gets_so_much_more_sharpness(clips: Split) -> None:
    model = load("digits")
    own = fitted_sharpness(model, clips)
    assert 1 < own < SHARPEST
    model.autoencoder.decoder = blurred(model.autoencoder.decoder, 1.05)
    # Only nearly: the detail of a detail is not quite the detail.
    assert own + 0.02 < fitted_sharpness(model, clips) < 1.05 * own + 0.02
    model.autoencoder.decoder = blurred(model.autoencoder.decoder, 3.0)
    assert fitted_sharpness(model, clips) == SHARPEST
    model.autoencoder.decoder = blurred(model.autoencoder.decoder, 0.2)
    assert fitted_sharpness(model, clips) == 1


def test_sharpness_scales_the_detail_and_keeps_the_mean_of_the_bins() -> None:
    autoencoder = load("digits").autoencoder
    output = torch.rand(2, 1, 64, 5)
    assert torch.equal(autoencoder.sharpen(output), output), "models without one are as before"
    autoencoder.config = dataclasses.replace(autoencoder.config, sharpness=1.5)
    sharp = autoencoder.sharpen(output)
    torch.testing.assert_close(sharp - output, 0.5 * detail(output))
    torch.testing.assert_close(sharp.mean(dim=2), output.mean(dim=2), rtol=0, atol=0.02)
    constant = torch.full((1, 1, 8, 3), 0.7)
    torch.testing.assert_close(autoencoder.sharpen(constant), constant)
    expected = autoencoder.stretch(sharp, autoencoder.contrast).clamp(0, 1)
    assert torch.equal(autoencoder.apply_contrast(output), expected)


def test_few_clips_are_made_up_by_others(clips: Split, own: float) -> None:
    model, few = load("digits"), copy.copy(clips)
    few.clips = few.clips[:2]
    for name in ("num_frames", "levels", "num_samples"):
        setattr(few, name, getattr(few, name)[:2])
    alone, made_up = fitted_contrast(model, few), fitted_contrast(model, few, also=clips)
    assert abs(made_up - own) < abs(alone - own)
    assert fitted_contrast(model, clips, also=few) == own, "enough clips need no others"
    assert fitted_contrast(model, few, also=few) == alone


def test_a_trained_model_has_the_fitted_contrast_and_a_given_one_is_left_alone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, autoencoder_share=1.0, max_minutes=10.0)
    monkeypatch.setattr(run, "fitted_sharpness", lambda *_: 1.2)
    model = train(dataset, tmp_path / "fitted", config, device="cpu", say=lambda _: None)
    assert load(tmp_path / "fitted").autoencoder.config.contrast == model.autoencoder.contrast
    assert model.autoencoder.contrast == fitted_contrast(model, dataset.validation)
    assert model.autoencoder.sharpness == 1.2
    for setting, sharpness in (({"contrast": 1.01}, 1.0), ({"sharpness": 1.25}, 1.25)):
        autoencoder = dataclasses.replace(CONFIG.autoencoder, **setting)
        given = dataclasses.replace(config, autoencoder=autoencoder)
        name = next(iter(setting))
        train(dataset, tmp_path / name, given, device="cpu", say=lambda _: None)
        found = load(tmp_path / name).autoencoder
        assert getattr(found, name) == setting[name]
        assert found.sharpness == sharpness


@pytest.fixture(scope="module")
def hits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """18 decays of noise at 44.1 kHz, with silence after them."""
    folder = tmp_path_factory.mktemp("hits")
    (folder / "in").mkdir()
    rng, time = np.random.default_rng(0), np.arange(8_000) / 44_100
    for number in range(18):
        decay = np.exp(-time * rng.uniform(30, 100))
        sound = np.concatenate([0.3 * rng.normal(size=len(time)) * decay, np.zeros(3_000)])
        soundfile.write(folder / "in" / f"{number}.wav", sound, 44_100)
    config = PreprocessConfig(trim=False, n_mels=32, validation_share=0.3)
    preprocess(folder / "in", folder / "dataset", config, say=lambda _: None)
    return Dataset(folder / "dataset", folder / "in")


def test_above_24_khz_the_power_is_restored_and_silence_is_fitted_with_it(
    hits: Dataset, tmp_path: Path
) -> None:
    enough = dataclasses.replace(CONFIG.autoencoder_training, steps=60)
    config = dataclasses.replace(
        CONFIG, autoencoder_training=enough, autoencoder_share=1.0, max_minutes=10.0
    )
    model = train(hits, tmp_path / "model", config, device="cpu", say=lambda _: None)
    assert load(tmp_path / "model").autoencoder.config.silence == SILENCE == silence_of(model)
    assert model.autoencoder.sharpness == 1
    assert model.autoencoder.contrast == fitted_contrast(model, hits.validation, also=hits.train)
    fitted = fitted_contrast(model, hits.train)
    errors = [_power_error_db(model, hits.train, c) for c in (fitted - 0.05, fitted, fitted + 0.05)]
    assert errors[0] > 0.2 > abs(errors[1])
    assert errors[2] < -0.2


def test_clips_shorter_than_an_area_have_a_contrast_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        decay = np.exp(-np.arange(250) / rng.uniform(50, 100))
        soundfile.write(
            tmp_path / "in" / f"{number}.wav", 0.3 * rng.normal(size=250) * decay, 44_100
        )
    config = PreprocessConfig(trim=False, n_mels=32)
    preprocess(tmp_path / "in", tmp_path / "dataset", config, say=lambda _: None)
    short = Dataset(tmp_path / "dataset", tmp_path / "in")
    assert int(short.train.num_frames.max()) < AREA[1]
    torch.manual_seed(0)
    model = new_model(short.spectrogram, CONFIG.autoencoder, {}, [], short.clip_frames)
    shake(model.autoencoder)
    assert LOWEST <= fitted_contrast(model, short.train) <= HIGHEST


@torch.inference_mode()
def _power_error_db(model: Model, split: Split, contrast: float) -> float:
    """Mean over areas of 4 bins and 9 frames, within 60 dB of a clip's loudest cell, of the decibels by which decoded
    clips are louder."""
    indices = evenly_spaced(len(split), CLIPS)[:CLIPS]
    frames, levels = split.num_frames[indices], split.levels[indices]
    images, num_samples = split.spectrograms(indices), split.num_samples[indices]
    columns = model.autoencoder.num_columns(frames)
    values = model.autoencoder.decode_values(model.autoencoder.encode(images, frames), columns)
    decoded = model.autoencoder.apply_contrast(values[..., : images.shape[3]], contrast, SILENCE)
    waveforms = model.spectrogram.inverse(decoded, levels, num_samples)
    again, levels_again = model.spectrogram(waveforms, num_samples)
    errors = []
    for clip, count in enumerate(frames.tolist()):
        pair = []
        for images_of, levels_of in ((again, levels_again), (images, levels)):
            top = 3 - 1.5 * float(levels_of[clip])
            cells = images_of[clip, 0, :, :count].numpy()
            power = np.where(cells > 0, 10.0 ** (8 * (cells - 1)), 0.0)
            rows, times = power.shape[0] // 4, images.shape[3] // 9
            areas = np.full((rows, times), top - 80)
            for row, time in np.ndindex(rows, times):
                part = power[4 * row : 4 * row + 4, 9 * time : 9 * time + 9]
                if part.size:
                    areas[row, time] = top + 10 * np.log10(max(1e-8, part.mean()))
            pair.append(areas)
        found, wanted = pair
        errors += (found - wanted)[wanted > top - 60].tolist()
    return float(np.mean(errors))
