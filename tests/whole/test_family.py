"""Models of the lessons: shapes and losses against NumPy; every kind is saved, loaded and trained."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fast_training import CONFIG, train
from tiny_models import changed, shake, untrained
from torch import nn

from audiovq.codec import codec
from audiovq.codec.archive import pack
from audiovq.codec.windows import Encoded
from audiovq.config import presets
from audiovq.config.autoencoder import (
    AutoencoderConfig,
    BottleneckConfig,
    LossConfig,
    NetworkConfig,
)
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion
from audiovq.config.serialize import from_json, to_json
from audiovq.config.settings import PriorConfig
from audiovq.dataset.dataset import Dataset
from audiovq.generation.generate import generate
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.checkpoint import load, save
from audiovq.training.stages import context
from audiovq.training.stages.autoencoder import validate_autoencoder

Array = npt.NDArray[np.float64]

LESSON = changed(presets.LESSON, loss="cross_entropy")
RESIDUAL = AutoencoderConfig(
    NetworkConfig(kind="residual", channels=32, encoder_blocks=2, decoder_blocks=2),
    BottleneckConfig(latent_dim=16, codebook_size=64, update="gradient", kmeans_start=False),
    LossConfig(emphasis=0.0),
)
EIGHT = changed(RESIDUAL, channels=128, encoder_blocks=3, decoder_blocks=3, latent_dim=128)
"""Two convolutions that shrink, and six in residual units."""


def numbers(tensor: Any) -> Array:
    made: Array = tensor.detach().double().numpy()
    return made


def convolved(x: Array, conv: nn.Conv2d) -> Array:
    """(channels, rows, columns) → the same of the convolution, from its definition."""
    kernel, stride, padding = conv.kernel_size, conv.stride[0], conv.padding[0]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
    places = windows[:, ::stride, ::stride]
    made = np.tensordot(numbers(conv.weight), places, axes=([1, 2, 3], [0, 3, 4]))
    return made + numbers(conv.bias)[:, None, None]


def spread(x: Array, conv: nn.ConvTranspose2d) -> Array:
    """The transposed convolution: each cell adds its kernel to what comes out."""
    (high, wide), stride, padding = conv.kernel_size, conv.stride[0], conv.padding[0]
    weight, more = numbers(conv.weight), conv.output_padding[0]
    rows, columns = stride * (x.shape[1] - 1), stride * (x.shape[2] - 1)
    full = np.zeros((weight.shape[1], rows + high + more, columns + wide + more))
    for i in range(high):
        for j in range(wide):
            part = np.tensordot(weight[:, :, i, j], x, axes=(0, 0))
            full[:, i : i + rows + 1 : stride, j : j + columns + 1 : stride] += part
    cut = slice(padding, -padding)
    return full[:, cut, cut] + numbers(conv.bias)[:, None, None]


def normed(x: Array, norm: nn.BatchNorm2d) -> Array:
    mean, variance, weight, bias = (
        numbers(v)[:, None, None]
        for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def residual(x: Array, units: Any) -> Array:
    for unit in units:
        x = x + convolved(relu(convolved(relu(x), unit.conv)), unit.out)
    return x


def encoded(x: Array, net: Any) -> Array:
    """A spectrogram (1, rows, columns) → latents (dim, rows, columns)."""
    if hasattr(net, "layers"):
        for conv, _, norm in net.layers:
            x = normed(relu(convolved(x, conv)), norm)
        return convolved(x, net.out) + numbers(net.rows.bias)[0]
    x = convolved(relu(convolved(x, net.first)), net.second) + numbers(net.rows.bias)[0]
    return convolved(relu(residual(x, net.blocks)), net.out)


def decoded(x: Array, net: Any) -> Array:
    """The inverse, before any sigmoid."""
    if hasattr(net, "layers"):
        x = convolved(x + numbers(net.rows.bias)[0], net.inward)
        for conv, _, norm in net.layers:
            x = normed(relu(spread(x, conv)), norm)
        return convolved(x, net.out)
    x = residual(convolved(x, net.inward) + numbers(net.rows.bias)[0], net.blocks)
    return spread(relu(spread(relu(x), net.first)), net.second)


@pytest.mark.parametrize(
    ("config", "bins", "frames", "latents"),
    [
        pytest.param(LESSON, 32, 16, (16, 8, 4), id="lesson"),
        pytest.param(RESIDUAL, 32, 16, (16, 8, 4), id="residual"),
        pytest.param(EIGHT, 128, 128, (128, 32, 32), id="eight"),
    ],
)
def test_lesson_models_have_the_shapes_and_losses_computed_by_numpy(
    config: AutoencoderConfig, bins: int, frames: int, latents: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    model = Autoencoder(config, bins)
    shake(model.encoder)
    (book,) = model.quantizer.codebooks()
    assert float(book.embedding.detach().abs().max()) <= 1 / 64, "uniform in ±1 / codes"
    model.eval()
    image = torch.rand(1, 1, bins, frames, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        result = model(image, torch.tensor([frames]))
        codes = model.encode(image, torch.tensor([frames]))

    wanted = numbers(image)[0]
    z = encoded(wanted, model.encoder)
    assert z.shape == latents
    vectors, e = z.reshape(latents[0], -1).T, numbers(book.embedding)
    k = ((vectors**2).sum(1)[:, None] - 2 * vectors @ e.T + (e**2).sum(1)).argmin(axis=1)
    assert codes.shape == (1, 1, *latents[1:])
    np.testing.assert_array_equal(codes.flatten(), k)
    distance = ((vectors - e[k]) ** 2).mean()
    assert result.bottleneck_loss.item() == pytest.approx((1 + 0.25) * distance, rel=1e-4)
    made = decoded(e[k].T.reshape(latents), model.decoder)
    assert made.shape == (1, bins, frames)
    error = 16 * ((made - wanted) ** 2).mean()
    if config.network.output == "sigmoid":
        made = 1 / (1 + np.exp(-made))
        error = -(wanted * np.log(made) + (1 - wanted) * np.log(1 - made)).mean()
    np.testing.assert_allclose(numbers(result.spectrogram)[0], made, atol=1e-4)
    assert result.reconstruction_loss.item() == pytest.approx(error, rel=1e-4)
    assert result.loss.item() == pytest.approx(error + 1.25 * distance, rel=1e-4)


def test_the_residual_encoder_has_two_strided_and_six_residual_convolutions() -> None:
    encoder = Autoencoder(EIGHT, 128).encoder
    convs = [part for part in encoder.modules() if isinstance(part, nn.Conv2d)]
    assert [conv.stride for conv in convs] == [(2, 2)] * 2 + [(1, 1)] * 7
    assert convs[-1].kernel_size == (1, 1), "to the latents' dimensions"


KINDS: dict[str, dict[str, Any]] = {
    "gaussian": {"bottleneck": "gaussian"},
    "conditional": {"bottleneck": "gaussian", "conditional": True, "kl_warmup": 0.5},
    "plane": {"bottleneck": "gaussian", "conditional": True, "dense": 2},
    "dense": {"bottleneck": "none", "dense": 6, "corruption": "mask"},
    "fsq": {"bottleneck": "fsq", "levels": (4, 3)},
    "cosine": {"cosine": True, "gradient_through": "rotation", "kmeans_start": True},
    "cosine-gradient": {"cosine": True, "update": "gradient"},
    "sigmoid": {"output": "sigmoid", "loss": "cross_entropy", "corruption": "noise"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_of_each_kind_equals_the_saved_one(kind: str, tmp_path: Path) -> None:
    model = untrained(**KINDS[kind])
    save(tmp_path, model, "autoencoder", {})
    back = load(tmp_path)
    assert back.autoencoder.config == model.autoencoder.config
    images = torch.rand(2, 1, 16, 21, generator=torch.Generator().manual_seed(0))
    frames, labels = torch.tensor([21, 13]), torch.tensor([[0, 2], [1, 3]])
    with torch.no_grad():
        ours, theirs = (m.autoencoder(images, frames, labels) for m in (model, back))
        assert torch.equal(ours.spectrogram, theirs.spectrogram)
        assert torch.equal(ours.loss, theirs.loss)
        if model.autoencoder.config.quantizes:
            assert torch.equal(*(m.autoencoder.encode(images, frames) for m in (model, back)))
        if model.autoencoder.config.bottleneck.kind == "gaussian":
            drawn = [
                m.autoencoder.sample(2, labels, torch.Generator().manual_seed(0))
                for m in (model, back)
            ]
            assert torch.equal(*drawn)


def test_missing_settings_have_their_defaults() -> None:
    golden = Path(__file__).parents[1] / "golden"
    headers = sorted(golden.glob("**/model.json"))
    assert headers
    for path in headers:
        before = json.loads(path.read_text(encoding="utf-8"))["autoencoder"]["config"]
        config = from_json(AutoencoderConfig, before)
        now = to_json(config)
        plain = to_json(AutoencoderConfig())
        assert {name: now[name] for name in now.keys() - before.keys()} == {
            name: plain[name] for name in now.keys() - before.keys()
        }


@pytest.mark.parametrize("kind", ["plane", "dense"])
def test_models_without_codes_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    model = untrained(**KINDS[kind])
    sound = np.zeros(400, np.float32)
    grid = torch.zeros(1, model.autoencoder.rows, 3, dtype=torch.long)
    for refused in (
        lambda: codec.encode(model, [sound]),
        lambda: codec.decode(model, [Encoded(grid, 0, 80)]),
        lambda: pack(model, {"a": Encoded(grid, 0, 80)}),
        lambda: model.new_prior(PriorConfig()),
    ):
        with pytest.raises(
            AudiovqError, match=r"^the model has no quantizer .*no codes; .*plot.*$"
        ):
            refused()
    if kind == "dense":
        with pytest.raises(AudiovqError, match=r"bottleneck none.*cannot generate"):
            generate(model, 1)


@pytest.mark.parametrize("kind", ["conditional", "fsq"])
def test_each_kind_trains_in_all_stages_and_generates(
    kind: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "PASSES", 10)  # tables that tell likely codes from others
    autoencoder = changed(CONFIG.autoencoder, **KINDS[kind])
    config = dataclasses.replace(CONFIG, autoencoder=autoencoder)
    model = train(dataset, tmp_path / "model", config, device="cpu", say=lambda _: None)
    text = (tmp_path / "model" / "training" / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    rows = [row for row in rows if row["stage"] == "autoencoder"]
    for row in rows:
        total = row["reconstruction_loss"] + row["bottleneck_loss"]
        assert row["loss"] == pytest.approx(total, rel=1e-4)
        assert ("kl" in row) == ("validation_kl" in row) == (kind == "conditional")
    assert rows[-1]["validation_error_db"] < rows[0]["validation_error_db"]
    split = dataset.validation
    assert len(split) <= 32, "one batch"
    everything = split.spectrograms(torch.arange(len(split)))
    with torch.no_grad():
        result = model.autoencoder(everything, split.num_frames, split.label_indices)
        metrics = validate_autoencoder(model.autoencoder, split, 80.0)
    assert 16 * metrics["score"] == pytest.approx(result.loss.item(), rel=1e-4)
    if kind == "conditional":
        assert rows[0]["bottleneck_loss"] < 0.1 * 0.9 * rows[0]["kl"], "the weight is still growing"
        assert rows[-1]["bottleneck_loss"] == pytest.approx(0.1 * rows[-1]["kl"], rel=1e-4)
        assert "no codes (bottleneck gaussian)" in (tmp_path / "model" / "README.md").read_text()
    else:
        assert model.prior is not None
        clips = [sound.waveform for sound in generate(model, 2, inversion=Inversion(n_iter=1))]
        near, nearly, cheap = (codec.encode(model, clips, rate_weight=w) for w in (0, 1e-9, 9.0))
        for one, other in zip(near, nearly, strict=True):
            assert torch.equal(one.codes, other.codes), "bits weigh against the same distances"
        bits = [len(pack(model, {"0": some[0], "1": some[1]})) for some in (near, cheap)]
        assert bits[1] < bits[0]
    names = dataset.labels["folder"]
    sounds = generate(model, 3, {"folder": names[0]}, inversion=Inversion(n_iter=1))
    assert [sound.labels["folder"] for sound in sounds] == [names[0]] * 3
    for sound in sounds:
        assert bool(np.isfinite(sound.waveform).all())
        assert float(np.abs(sound.waveform).max()) > 0
        assert len(sound.waveform) == sound.encoded.num_samples
    again = generate(model, 3, {"folder": names[0]}, inversion=Inversion(n_iter=1))
    for one, other in zip(sounds, again, strict=True):
        np.testing.assert_array_equal(one.waveform, other.waveform)
