"""Networks, models and programs of stereo spectrograms."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch
from tiny_models import AUTOENCODER, COUNTS, LABELS, SPECTROGRAM, changed, shake
from torch import Tensor

from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.models.autoencoder.autoencoder import PLANE_WEIGHTS, Autoencoder
from audiovq.models.autoencoder.discriminator import Discriminator
from audiovq.models.checkpoint import load, save
from audiovq.models.export import write_programs
from audiovq.models.model import Model, new_model
from audiovq.runtime.checksums import read_header, write_header
from audiovq.spectral.scale import NEUTRAL

STEREO = dataclasses.replace(SPECTROGRAM, channels=2)
MEL_STEREO = dataclasses.replace(STEREO, n_fft=64, n_mels=16)


def stereo_model(config: SpectrogramConfig = STEREO) -> Model:
    """Untrained, with random weights, without a prior."""
    torch.manual_seed(0)
    model = new_model(config, AUTOENCODER, dict(LABELS), list(COUNTS), 30)
    shake(model.autoencoder)
    model.autoencoder.eval()
    return model


def images(clips: int, frames: int) -> Tensor:
    return torch.rand(clips, 3, 16, frames, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("network", ["patch", "conv", "residual"])
@pytest.mark.parametrize("bottleneck", ["vq", "none"])
@torch.no_grad()
def test_a_clip_in_a_padded_batch_gives_the_same_as_alone(network: str, bottleneck: str) -> None:
    torch.manual_seed(0)
    config = changed(AUTOENCODER, network=network, bottleneck=bottleneck)
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


def test_the_loss_weighs_planes_and_is_that_of_mono_for_the_loudness() -> None:
    autoencoder = stereo_model().autoencoder
    image, cells = images(1, 8), torch.ones(1, 1, 1, 8)
    with_power = Autoencoder(changed(AUTOENCODER, power=4.0), 16, planes=3)
    of_power = 1.0, 3 * PLANE_WEIGHTS[1], 3 * PLANE_WEIGHTS[2]
    for plane, weights in enumerate(zip(PLANE_WEIGHTS, of_power, strict=True)):
        errors = torch.zeros_like(image)
        errors[:, plane] = 1
        for network, weight in zip((autoencoder, with_power), weights, strict=True):
            found = network.weighted_error(errors, image, cells)
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


def test_a_mono_model_does_not_mention_channels(tmp_path: Path) -> None:
    """So its header has the bytes that it had before stereo existed."""
    save(tmp_path, stereo_model(SPECTROGRAM), "autoencoder", {})
    header = read_header(tmp_path / "model.json", "model", 5, "")
    assert "channels" not in header["spectrogram"]


def test_exported_programs_are_the_networks_and_give_the_gains_of_both_channels(
    tmp_path: Path,
) -> None:
    model = stereo_model(MEL_STEREO)
    write_programs(model, tmp_path, "pt2")
    image = images(2, 12)
    found = torch.export.load(tmp_path / "encoder.pt2").module()(spectrogram=image)
    assert torch.equal(found, model.autoencoder.encode(image, torch.full((2,), 12)))
    program = torch.export.load(tmp_path / "decoder.pt2").module()
    codes = torch.randint(16, (2, 1, 2, 5), generator=torch.Generator().manual_seed(0))
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
