"""Figures of a model that need no dataset: layers, parameters, receptive field, bit rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from audiovq.config.autoencoder import NetworkConfig
from audiovq.models.autoencoder.quantizers import Codebook, FiniteScalarQuantizer
from audiovq.models.model import Model


@dataclass(frozen=True)
class Layer:
    """One layer, and its output for the longest clip."""

    name: str
    """Path of attributes, such as encoder.blocks.0.conv."""
    kind: str
    """Name of its class."""
    shape: tuple[int, ...]
    """Shape of its output: (channels, rows, columns), (size,), or (vectors, dim) in the bottleneck."""
    parameters: int
    """Number of its parameters; 0 for a codebook that learns by moving averages."""


@dataclass(frozen=True)
class Summary:
    """Figures of a model."""

    layers: list[Layer]
    """Layers of the autoencoder in the order in which they run, then each prior as one layer."""
    parameters: int
    """Number of parameters of all layers."""
    sample_rate: int
    clip_seconds: float
    """Length of the longest training clip."""
    receptive_frames: int
    """Most frames that one column of latents depends on; the whole clip with `dense`."""
    receptive_seconds: float
    codes_per_second: float | None
    """None, like the next two, where the model has no codes."""
    nominal_bits_per_second: float | None
    compression: float | None
    """Bit rate of 16-bit PCM at the model's sample rate and channels, divided by the nominal bit rate."""
    bottleneck: str
    prior: str
    pixels: tuple[int, int] | None = None
    """Height and width of images, of which a second is a column of pixels; None: of sounds."""


def summarize(model: Model) -> Summary:
    """Figures of a model; runs its networks on one silent clip."""
    spectrogram, autoencoder = model.spectrogram.config, model.autoencoder
    layers = _layers(model)
    if model.vivid is not None:
        kind, bins = type(model.vivid).__name__, autoencoder.bins
        whole = autoencoder.planes, bins, model.clip_frames
        layers.append(Layer("vivid", kind, whole, _parameters(model.vivid)))
    if model.prior is not None:
        vocabulary = model.vocabulary
        shape = vocabulary.max_tokens, vocabulary.size
        kind = type(model.prior).__name__
        layers.append(Layer("prior", kind, shape, _parameters(model.prior)))
    if model.masked is not None:
        vocabulary = model.vocabulary
        grid = vocabulary.slots, vocabulary.max_columns, vocabulary.codebook_size
        layers.append(Layer("masked", "MaskedPrior", grid, _parameters(model.masked)))
    whole_clip = autoencoder.columns * autoencoder.stride[1]
    frames = whole_clip if autoencoder.dense else _frames_of_column(autoencoder.config.network)
    rate = bits = None
    if autoencoder.config.quantizes:
        rate = model.codes_per_second
        bits = rate * math.log2(autoencoder.config.bottleneck.num_codes)
    return Summary(
        layers=layers,
        parameters=sum(layer.parameters for layer in layers),
        sample_rate=model.sample_rate,
        clip_seconds=model.clip_frames * spectrogram.hop_length / model.sample_rate,
        receptive_frames=frames,
        receptive_seconds=((frames - 1) * spectrogram.hop_length + spectrogram.n_fft)
        / model.sample_rate,
        codes_per_second=rate,
        nominal_bits_per_second=bits,
        compression=bits and 16 * model.sample_rate * model.channels / bits,
        bottleneck=_bottleneck(model),
        prior=_prior(model),
        pixels=(autoencoder.bins, model.clip_frames) if spectrogram.images else None,
    )


def _frames_of_column(config: NetworkConfig) -> int:
    """Frames that one column of an encoder's output depends on."""
    layers = {  # kernel and stride in time, from the input on
        "patch": [(config.stride[1], config.stride[1]), *[(3, 1)] * config.encoder_blocks],
        "residual": [(4, 2), (4, 2), *[(3, 1)] * config.encoder_blocks],
        "conv": list(zip(config.kernels, config.strides, strict=True)),
    }
    frames = 1
    for kernel, stride in reversed(layers[config.kind]):
        frames = (frames - 1) * stride + kernel
    return frames


def _layers(model: Model) -> list[Layer]:
    """The autoencoder's layers that have weights or codes, in the order in which they run."""
    autoencoder = model.autoencoder
    layers: dict[str, Layer] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            made: Tensor = output[0] if isinstance(output, tuple) else output
            shape = made.shape if name.startswith("bottleneck.") else made.shape[1:]
            count = sum(p.numel() for p in module.parameters(recurse=False))
            layers[name] = Layer(name, type(module).__name__, tuple(shape), count)

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in autoencoder.named_modules()
        if isinstance(module, Codebook | FiniteScalarQuantizer)
        or any(True for _ in module.parameters(False))
    ]
    try:
        with torch.inference_mode():
            clip = torch.zeros(1, 1, autoencoder.bins, model.clip_frames, device=model.device)
            labels = torch.zeros(1, len(model.labels), dtype=torch.long)
            autoencoder(clip, torch.tensor([model.clip_frames]), labels)
    finally:
        for hook in hooks:
            hook.remove()
    return list(layers.values())


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _bottleneck(model: Model) -> str:
    """Description of the bottleneck."""
    config = model.autoencoder.config.bottleneck
    if config.kind == "fsq":
        grid = " × ".join(map(str, config.levels))
        return f"fsq: {config.num_codes} codes on a grid of {grid}"
    if config.kind == "vq":
        books = f"{config.num_quantizers} × {config.num_codes}".removeprefix("1 × ")
        return f"vq: {books} codes of {config.dim} dimensions{', cosine' * config.cosine}"
    dim, of = (config.dense, "clip") if config.dense else (config.dim, "cell of the grid")
    return f"{config.kind}: {dim} dimensions a {of}{', conditional' * config.conditional}"


def _prior(model: Model) -> str:
    """Description of the distribution that new sounds are sampled from."""
    masked, prior = model.masked, model.prior
    if masked is not None and (prior is None or model.spectrogram.config.is_wide):
        return f"masked: {masked.config.layers} layers of {masked.config.dim} dimensions"
    if prior is not None:
        return f"{prior.config.kind}: {prior.config.layers} layers of {prior.config.dim} dimensions"
    bottleneck = model.autoencoder.config.bottleneck
    if bottleneck.kind == "gaussian":
        return "normal distribution" + ", by label" * bottleneck.conditional
    return "none"


def summary_table(summary: Summary) -> str:
    """A summary as lines of text: a table of the layers, then the figures."""
    rows = [("layer", "kind", "output", "parameters")] + [
        (layer.name, layer.kind, " × ".join(map(str, layer.shape)), f"{layer.parameters:,}")
        for layer in summary.layers
    ]
    w = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{a:<{w[0]}}  {b:<{w[1]}}  {c:<{w[2]}}  {d:>{w[3]}}" for a, b, c, d in rows]
    figures = [
        ("parameters", f"{summary.parameters:,}"),
        ("longest clip", f"{summary.clip_seconds:.2f} s at {summary.sample_rate:,} Hz"),
        (
            "receptive field",
            f"{summary.receptive_frames} frames, {summary.receptive_seconds:.2f} s",
        ),
        ("bottleneck", summary.bottleneck),
    ]
    if summary.pixels is not None:
        height, width = summary.pixels
        figures[1] = "size", f"{height} × {width} pixels"
        figures[2] = "receptive field", f"{summary.receptive_frames} columns of pixels"
        if summary.codes_per_second is not None:
            figures.append(("codes", f"{summary.codes_per_second * width:.0f} an image"))
    elif summary.codes_per_second is not None:
        figures += [
            ("codes", f"{summary.codes_per_second:.0f} a second"),
            ("nominal rate", f"{summary.nominal_bits_per_second:.0f} bit/s"),
            ("compression", f"{summary.compression:.1f}:1 relative to 16-bit PCM"),
        ]
    figures.append(("prior", summary.prior))
    width = max(len(name) for name, _ in figures)
    return "\n".join([*lines, "", *(f"{name:<{width}}  {value}" for name, value in figures)])
