"""Networks, models and programs of stereo spectrograms."""

import dataclasses
import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import AUTOENCODER, COUNTS, LABELS, SPECTROGRAM, changed, shake
from torch import Tensor

from audiovq.config.autoencoder import POSITION_ROWS, NetworkConfig
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.numbers import LabelValues, Numbers
from audiovq.models.autoencoder.autoencoder import (
    PLANE_WEIGHTS,
    SEPARATE_PLANE_WEIGHTS,
    Autoencoder,
)
from audiovq.models.autoencoder.discriminator import Discriminator
from audiovq.models.checkpoint import load, save
from audiovq.models.export import write_programs
from audiovq.models.model import Model, new_model
from audiovq.runtime.checksums import read_header, write_header
from audiovq.spectral.scale import NEUTRAL

STEREO = dataclasses.replace(SPECTROGRAM, channels=2)
MEL_STEREO = dataclasses.replace(STEREO, n_fft=128, n_mels=32)
"""Bands of positions of two rows each."""


def stereo_model(config: SpectrogramConfig = STEREO, **changes: Any) -> Model:
    """Untrained, with random weights, without a prior."""
    torch.manual_seed(0)
    model = new_model(config, changed(AUTOENCODER, **changes), dict(LABELS), list(COUNTS), 30)
    shake(model.autoencoder)
    model.autoencoder.eval()
    return model


def images(clips: int, frames: int, bins: int = 16) -> Tensor:
    return torch.rand(clips, 3, bins, frames, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("network", "position_rows"),
    [("patch", None), ("patch", 4), ("conv", None), ("residual", None)],
)
@pytest.mark.parametrize("bottleneck", ["vq", "none"])
@torch.no_grad()
def test_a_clip_in_a_padded_batch_gives_the_same_as_alone(
    network: str, position_rows: int | None, bottleneck: str
) -> None:
    torch.manual_seed(0)
    config = changed(
        AUTOENCODER, network=network, position_rows=position_rows, bottleneck=bottleneck
    )
    autoencoder = Autoencoder(config, 16, planes=3)
    shake(autoencoder)
    autoencoder.eval()
    batch, frames = images(2, 22), torch.tensor([22, 13])
    batch[1, :, :, 13:] = 0.7  # whatever the padding holds
    together = autoencoder(batch, frames)
    alone = autoencoder(batch[1:, :, :, :13].clone(), frames[1:])
    assert together.spectrogram.shape == batch.shape
    torch.testing.assert_close(
        together.spectrogram[1:, :, :, :13], alone.spectrogram, atol=1e-4, rtol=1e-3
    )
    if bottleneck == "vq":
        codes = autoencoder.encode(batch, frames)
        columns = autoencoder.num_columns(frames)
        assert torch.equal(
            codes[1:, :, :, : columns[1]], autoencoder.encode(batch[1:, :, :, :13], frames[1:])
        )
        decoded = autoencoder.decode(codes, columns)
        assert decoded.shape[:3] == (2, 3, 16)
        assert 0 <= float(decoded.min()) <= float(decoded.max()) <= 1


@torch.no_grad()
def test_position_rows_describe_balance_and_coherence_and_the_others_the_loudness() -> None:
    autoencoder = stereo_model(MEL_STEREO, position_rows=2, encoder_blocks=0).autoencoder
    image, frames = images(1, 8, 32), torch.tensor([8])
    latents = autoencoder.latents(image, frames)
    assert latents.shape[2] == autoencoder.rows == 4 + 2
    for plane in range(3):
        moved = image.clone()
        moved[:, plane] = 1 - moved[:, plane]
        is_changed = (autoencoder.latents(moved, frames) != latents).flatten(3).any(dim=3)
        rows = is_changed.any(dim=1)[0]
        assert rows.tolist() == [plane == 0] * 4 + [plane > 0] * 2


@torch.no_grad()
def test_decoded_positions_are_the_same_in_all_rows_of_a_band() -> None:
    autoencoder = stereo_model(MEL_STEREO, position_rows=4).autoencoder
    codes = torch.randint(16, (2, 1, 8, 5), generator=torch.Generator().manual_seed(0))
    decoded = autoencoder.decode(codes, torch.tensor([5, 3]))
    assert decoded.shape == (2, 3, 32, 20)
    bands = decoded[:, 1:].unflatten(2, (16, 2))
    assert torch.equal(bands[:, :, :, 0], bands[:, :, :, 1])
    assert not torch.equal(bands[:, :, 0], bands[:, :, 1])
    assert float(decoded[:, 0].std(dim=1).mean()) > 0


@pytest.mark.parametrize("position_rows", [None, 1, 2, 16])
def test_every_bin_belongs_to_one_row_of_loudness_and_to_one_of_positions(
    position_rows: int | None,
) -> None:
    autoencoder = stereo_model(MEL_STEREO, position_rows=position_rows).autoencoder
    bins = [list(autoencoder.bins_of(row)) for row in range(autoencoder.rows)]
    split = autoencoder.loudness_rows
    of_loudness, of_positions = bins[:split], bins[split:]
    assert list(itertools.chain(*of_loudness)) == list(range(32))
    assert list(itertools.chain(*of_positions)) == (list(range(32)) if position_rows else [])


def test_stereo_of_mel_bands_has_position_rows_where_no_patch_is_given() -> None:
    network = NetworkConfig()
    assert network.fitted(MEL_STEREO).position_rows == POSITION_ROWS == 4
    assert [NetworkConfig(tall=n).fitted(MEL_STEREO).position_rows for n in (2, 4)] == [2, 1]
    for config in (SPECTROGRAM, STEREO, dataclasses.replace(MEL_STEREO, n_mels=20)):
        assert network.fitted(config).position_rows is None
        with pytest.raises(AudiovqError, match=r"^position_rows 2: needs stereo, and mel bands"):
            NetworkConfig(position_rows=2).fitted(config)
    assert NetworkConfig(patch=(8, 4)).fitted(MEL_STEREO).position_rows is None
    assert NetworkConfig(kind="residual").fitted(MEL_STEREO).position_rows is None
    assert NetworkConfig(position_rows=0).fitted(MEL_STEREO).position_rows == 0
    again = network.fitted(MEL_STEREO)
    assert again.fitted(MEL_STEREO) == again
    with pytest.raises(AudiovqError, match=r"^position_rows 3: give 0, or a divisor of 16$"):
        NetworkConfig(position_rows=3)


def test_silence_is_zero_for_a_network() -> None:
    """A neutral clip gives the latents of a clip of no cells."""
    model = stereo_model()
    neutral = torch.tensor(NEUTRAL).view(1, 3, 1, 1).expand(1, 3, 16, 8)
    latents = model.autoencoder.latents(neutral, torch.tensor([8]))
    padded = torch.zeros(1, 3, 16, 8)
    of_padding = model.autoencoder.latents(padded, torch.tensor([0]))
    assert not of_padding.any()  # there is no cell
    shorter = torch.cat([neutral[..., :5], padded[..., :3]], dim=3)
    torch.testing.assert_close(model.autoencoder.latents(shorter, torch.tensor([5])), latents)


@pytest.mark.parametrize(
    ("position_rows", "weights"), [(None, PLANE_WEIGHTS), (2, SEPARATE_PLANE_WEIGHTS)]
)
def test_the_loss_weighs_planes_and_is_that_of_mono_for_the_loudness(
    position_rows: int | None, weights: tuple[float, ...]
) -> None:
    config = dataclasses.replace(STEREO, n_mels=16)
    autoencoder = stereo_model(config, position_rows=position_rows).autoencoder
    image, cells = images(1, 8), torch.ones(1, 1, 1, 8)
    for plane, weight in enumerate(weights):
        errors = torch.zeros_like(image)
        errors[:, plane] = 1
        found = autoencoder.weighted_error(errors, image, cells)
        assert float(found) == pytest.approx(weight, rel=1e-5)
    mono = Autoencoder(AUTOENCODER, 16)
    errors = torch.zeros_like(image)
    errors[:, 0] = image[:, 1]
    of_stereo = autoencoder.weighted_error(errors, image, cells)
    of_mono = mono.weighted_error(errors[:, :1], image[:, :1], cells)
    torch.testing.assert_close(of_stereo, of_mono)


def test_contrast_changes_the_loudness_alone() -> None:
    autoencoder = stereo_model().autoencoder
    image = images(1, 8)
    found = autoencoder.apply_contrast(image, 1.5)
    assert torch.equal(found[:, 1:], image[:, 1:])
    mono = Autoencoder(AUTOENCODER, 16)
    assert torch.equal(found[:, :1], mono.apply_contrast(image[:, :1], 1.5))


def test_the_discriminator_sees_all_planes() -> None:
    from audiovq.config.settings import DiscriminatorConfig

    torch.manual_seed(0)
    discriminator = Discriminator(DiscriminatorConfig(), planes=3)
    image = images(1, 16).requires_grad_()
    discriminator(image)[0].scores.sum().backward()
    gradient = image.grad
    assert gradient is not None
    assert bool((gradient.abs().sum(dim=(0, 2, 3)) > 0).all())


def test_a_stereo_model_is_loaded_as_it_was_saved_and_only_by_its_version(tmp_path: Path) -> None:
    model = stereo_model()
    save(tmp_path, model, "autoencoder", {})
    again = load(tmp_path)
    assert again.channels == 2
    assert again.header["version"] == 6
    image, frames = images(1, 8), torch.tensor([8])
    assert torch.equal(
        again.autoencoder.encode(image, frames), model.autoencoder.encode(image, frames)
    )
    header = read_header(tmp_path / "model.json", "model", 6, "")
    for version, channels in ((5, 2), (6, 1)):
        spectrogram = header["spectrogram"] | {"channels": channels}
        changed_header = header | {"version": version, "spectrogram": spectrogram}
        write_header(tmp_path / "model.json", changed_header)
        with pytest.raises(AudiovqError, match="damaged"):
            load(tmp_path)


@pytest.mark.parametrize("labels", [dict(LABELS), {"note": Numbers(40.0, 64.0, notes=True)}])
def test_a_model_with_position_rows_has_a_version_of_its_own(
    tmp_path: Path, labels: LabelValues
) -> None:
    torch.manual_seed(0)
    model = new_model(MEL_STEREO, changed(AUTOENCODER, position_rows=2), labels, [], 30)
    save(tmp_path, model, "autoencoder", {})
    image, frames = images(1, 8, 32), torch.tensor([8])
    codes = load(tmp_path).autoencoder.encode(image, frames)
    assert torch.equal(codes, model.autoencoder.eval().encode(image, frames))
    header = read_header(tmp_path / "model.json", "model", 8, "")
    for wrong in (
        *({"version": version} for version in (5, 6, 7)),
        {"spectrogram": header["spectrogram"] | {"channels": 1}},
        {"spectrogram": header["spectrogram"] | {"n_mels": 0}},
        {"spectrogram": header["spectrogram"] | {"n_mels": 36}},
    ):
        write_header(tmp_path / "model.json", header | wrong)
        with pytest.raises(AudiovqError, match="damaged"):
            load(tmp_path)


def test_a_mono_model_does_not_mention_channels(tmp_path: Path) -> None:
    """So its header has the bytes that it had before stereo existed."""
    save(tmp_path, stereo_model(SPECTROGRAM), "autoencoder", {})
    header = read_header(tmp_path / "model.json", "model", 5, "")
    assert "channels" not in header["spectrogram"]


@pytest.mark.parametrize("position_rows", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_exported_programs_are_the_networks_and_give_the_gains_of_both_channels(
    tmp_path: Path, position_rows: int | None
) -> None:
    model = stereo_model(MEL_STEREO, position_rows=position_rows)
    write_programs(model, tmp_path, "pt2")
    image = images(2, 12, 32)
    found = torch.export.load(tmp_path / "encoder.pt2").module()(spectrogram=image)
    assert torch.equal(found, model.autoencoder.encode(image, torch.full((2,), 12)))
    program = torch.export.load(tmp_path / "decoder.pt2").module()
    shape = 2, 1, model.autoencoder.rows, 5
    codes = torch.randint(16, shape, generator=torch.Generator().manual_seed(0))
    spectrogram, magnitude, gains, turn = program(codes=codes)
    expected = model.autoencoder.decode(codes, torch.full((2,), 5))
    torch.testing.assert_close(spectrogram, expected, rtol=1e-4, atol=1e-5)
    assert gains.shape == (2, 2, *magnitude.shape[1:])
    assert turn.shape == magnitude.shape
    torch.testing.assert_close(gains.square().mean(dim=1), torch.ones_like(turn))


@pytest.mark.slow
def test_the_example_generates_stereo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        pytest.skip("the example needs the extra [onnx]")
    from tiny_models import PRIOR

    model = stereo_model()
    model.prior = model.new_prior(PRIOR)
    model.prior.eval()
    write_programs(model, tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    sound, rate = importlib.import_module("onnx_example").generate(tmp_path, {})
    assert rate == STEREO.sample_rate
    assert sound.shape[0] == 2
    assert sound.shape[1] > 0
