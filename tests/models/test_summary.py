"""A model in figures: nothing is left out of the count, and what is told is what the networks do."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from tiny_models import AUTOENCODER, PRIOR, changed, tiny_model, untrained

from audiovq.cli.main import main
from audiovq.codec import codec
from audiovq.config.settings import PriorConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.models.checkpoint import load, save
from audiovq.models.model import new_model
from audiovq.models.summary import summarize, summary_table
from audiovq.spectral.spectrogram import Spectrogram

KINDS: dict[str, dict[str, Any]] = {
    "ema": {},
    "residual": {"network": "residual", "num_quantizers": 3, "update": "gradient"},
    "conv": {"network": "conv", "filters": (4, 8), "kernels": (3, 5), "strides": (2, 2)},
    "fsq": {"bottleneck": "fsq", "levels": (4, 3)},
    "conditional": {"bottleneck": "gaussian", "conditional": True},
    "plane": {"bottleneck": "gaussian", "dense": 2},
    "none": {"bottleneck": "none"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_of_each_kind_have_all_parameters_and_the_shapes_of_a_real_forward(
    kind: str,
) -> None:
    model = untrained(**KINDS[kind])
    found = summarize(model)
    modules = dict(model.autoencoder.named_modules())
    for layer in found.layers:
        assert type(modules[layer.name]).__name__ == layer.kind
    count = sum(p.numel() for p in model.autoencoder.parameters())
    assert sum(layer.parameters for layer in found.layers) == found.parameters == count
    clip = torch.rand(1, 1, 16, 30)
    padded = torch.zeros(1, 1, 16, 32)
    mask = torch.ones(1, 1, 1, 8)
    with torch.no_grad():
        latents = model.autoencoder.encoder(padded, mask)
        image = model.autoencoder(clip, torch.tensor([30])).spectrogram
    shapes = {layer.name.split(".")[0]: layer.shape for layer in found.layers}  # of the last ones
    assert shapes["encoder"] == latents.shape[1:]
    assert shapes["decoder"][:2] == image.shape[1:3]
    assert shapes["decoder"][2] == 32, "whole codes"
    quantizes = model.autoencoder.config.quantizes
    assert (found.compression is None) == (found.codes_per_second is None) == (not quantizes)
    if quantizes:
        rows, columns = latents.shape[2:]
        assert shapes["bottleneck"] == (rows * columns, latents.shape[1])


@pytest.mark.parametrize("kind", ["transformer", "pixelcnn"])
def test_the_prior_is_counted_and_has_the_shape_of_its_logits(
    kind: Literal["transformer", "pixelcnn"],
) -> None:
    model = untrained()
    model.prior = model.new_prior(PriorConfig(kind=kind, dim=16, layers=2, heads=2)).eval()
    found = summarize(model)
    tokens = torch.zeros(1, model.vocabulary.max_tokens, dtype=torch.long)
    with torch.no_grad():
        logits = model.prior(tokens, torch.zeros(1, 2, dtype=torch.long))
    assert found.layers[-1].shape == logits.shape[1:]
    count = sum(p.numel() for part in (model.autoencoder, model.prior) for p in part.parameters())
    assert found.parameters == count
    assert found.prior == f"{kind}: 2 layers of 16 dimensions"


def test_a_vivid_decoder_returns_what_the_other_does() -> None:
    model = load("sounds")
    layers = {layer.name: layer.shape for layer in summarize(model).layers}
    assert layers["vivid"][0] == model.autoencoder.planes == 3


def test_the_rates_are_those_of_sounds_encoded() -> None:
    model = tiny_model()
    found = summarize(model)
    noise = np.random.default_rng(0).standard_normal(80_000).astype(np.float32)
    (encoded,) = codec.encode(model, [0.1 * noise])
    rate = encoded.codes.numel() / 10
    assert found.codes_per_second == pytest.approx(rate, rel=0.01)
    assert found.nominal_bits_per_second == pytest.approx(4 * rate, rel=0.01), "16 codes"
    assert found.compression == pytest.approx(16 * 8000 / (4 * rate), rel=0.01)


@pytest.mark.parametrize(
    ("kind", "depths", "frames"),
    [
        ("none", {"encoder_blocks": 1, "decoder_blocks": 3}, 12),
        ("none", {"encoder_blocks": 3, "decoder_blocks": 1}, 28),
        ("residual", {"encoder_blocks": 1, "decoder_blocks": 3}, 18),
        ("residual", {"encoder_blocks": 2, "decoder_blocks": 1}, 26),
        ("conv", {}, 11),
        ("conv", {"filters": (4, 4, 8), "kernels": (5, 3, 1), "strides": (1, 2, 2)}, 7),
        ("plane", {}, 32),
    ],
)
def test_the_receptive_field_holds_the_very_frames_that_have_a_say(
    kind: str, depths: dict[str, Any], frames: int
) -> None:
    model = untrained(**(KINDS[kind] | depths))
    found = summarize(model)
    length = 32 if kind == "plane" else 64
    image = torch.rand(1, 1, 16, length, requires_grad=True)
    latents = model.autoencoder.latents(image, torch.tensor([length]))
    (latents[..., 7] if latents.dim() == 4 else latents).square().sum().backward()
    assert image.grad is not None
    assert int((image.grad.abs().sum(dim=(0, 1, 2)) > 0).sum()) == frames == found.receptive_frames
    assert found.receptive_seconds == ((frames - 1) * 8 + 32) / 8000


def test_the_prior_is_named_that_new_sounds_are_sampled_by() -> None:
    model = tiny_model(masked=True)
    masked = "masked: 2 layers of 16 dimensions"
    assert summarize(model).prior == "transformer: 2 layers of 16 dimensions"
    wide = dataclasses.replace(model.spectrogram.config, sample_rate=44_100)
    model.spectrogram = Spectrogram(wide)
    assert summarize(model).prior == masked
    model.spectrogram, model.prior = Spectrogram(dataclasses.replace(wide, sample_rate=8000)), None
    assert summarize(model).prior == masked


def test_the_compression_of_stereo_is_relative_to_both_channels() -> None:
    found = summarize(load("sounds"))
    assert found.nominal_bits_per_second is not None
    assert found.compression == pytest.approx(32 * 44_100 / found.nominal_bits_per_second)


def test_the_verb_prints_a_table_and_the_same_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    save(tmp_path, model, "autoencoder", {})
    model.prior = model.new_prior(PRIOR)
    save(tmp_path, model, "prior", {})
    assert main(["summary", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(dataclasses.asdict(summarize(model))))
    assert main(["summary", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed == summary_table(summarize(model)) + "\n"
    for layer in told["layers"]:
        assert layer["name"] in printed
    assert f"{told['parameters']:,}" in printed
    assert "64.0:1 relative to 16-bit PCM" in printed


@pytest.mark.parametrize("kind", ["plane", "ema"])
def test_a_model_of_images_tells_of_pixels_and_not_of_seconds(kind: str) -> None:
    config = changed(AUTOENCODER, **KINDS[kind])
    model = new_model(SpectrogramConfig.for_images(28), config, {}, [((), 1)], 28)
    table = summary_table(summarize(model))
    assert "28 × 28 pixels" in table
    assert "columns of pixels" in table
    assert ("28 an image" in table) == (kind == "ema"), "4 rows of 7 columns"
    assert not re.search(r"\bs\b|Hz|second|bit/s|PCM", table)


def test_a_model_without_codes_tells_of_no_rate() -> None:
    table = summary_table(summarize(untrained(**KINDS["plane"])))
    assert "bit/s" not in table
    assert "gaussian: 2 dimensions a clip" in table
    assert "normal distribution" in table
