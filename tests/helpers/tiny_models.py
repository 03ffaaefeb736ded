"""Networks small enough for a test, with no weight left at a start that would hide a fault."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn

from audiovq.codec.windows import Encoded
from audiovq.config.autoencoder import AutoencoderConfig, BottleneckConfig, NetworkConfig
from audiovq.config.settings import MaskedConfig, PriorConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.autoencoder.quantizers import Codebook
from audiovq.models.model import Model, new_model

SPECTROGRAM = SpectrogramConfig(8000, n_fft=32, hop_length=8, n_mels=0)
"""16 rows."""
AUTOENCODER = AutoencoderConfig(
    NetworkConfig(channels=8, encoder_blocks=1, decoder_blocks=1, patch=(8, 4)),
    BottleneckConfig(latent_dim=4, codebook_size=16, kmeans_start=False),
)
"""2 codes a column."""
PRIOR = PriorConfig(dim=16, cell=8, layers=2, heads=2, dropout=0.0)
MASKED = MaskedConfig(dim=16, cell=8, layers=2, heads=2, dropout=0.0)
LABELS = {"digit": ["0", "1"], "speaker": ["ada", "bob", "cyd"]}
COUNTS = [((0, 0), 1), ((0, 1), 3), ((1, 0), 4)]


def changed(config: AutoencoderConfig, **changes: Any) -> AutoencoderConfig:
    """`config` with other values of settings, each named without its part.

    A string for a part is its kind: `changed(AUTOENCODER, network="conv", latent_dim=2)`.
    """
    parts: dict[str, Any] = {}
    for name in ("network", "bottleneck", "loss"):
        part = getattr(config, name)
        own = {f.name for f in fields(part)} & changes.keys()
        kind = {"kind": changes.pop(name)} if name in changes else {}
        parts[name] = replace(part, **kind, **{setting: changes.pop(setting) for setting in own})
    return replace(config, **parts, **changes)


def shake(module: nn.Module, seed: int = 0) -> None:
    """Random weights throughout: residual blocks start as the identity, labels without a say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(module.state_dict().items()):
            if "running_var" in name:
                value.uniform_(0.5, 2, generator=generator)
            elif "num_batches" not in name and value.is_floating_point():
                value += 0.2 * torch.randn(value.shape, generator=generator)
        for part in module.modules():
            if isinstance(part, Codebook):
                part.embedding.copy_(torch.randn(part.embedding.shape, generator=generator))
            if isinstance(part, Autoencoder):  # outputs around 0.5, not all cut off at 0 or 1
                last = [m for m in part.decoder.modules() if hasattr(m, "padding_mode")][-1]
                last.bias.fill_(0.5)


def untrained(**changes: Any) -> Model:
    """Without a prior, AUTOENCODER but for `changes`, in eval mode."""
    torch.manual_seed(0)
    config = changed(AUTOENCODER, **changes)
    model = new_model(SPECTROGRAM, config, dict(LABELS), list(COUNTS), 30)
    shake(model.autoencoder)
    model.autoencoder.eval()
    return model


def plain(sounds: Mapping[str, Encoded]) -> dict[str, Any]:
    """Sounds by name as JSON has them."""
    return {
        name: {
            "level": sound.level,
            "num_samples": sound.num_samples,
            "codes": sound.codes.tolist(),
        }
        for name, sound in sounds.items()
    }


def tiny_model(
    seed: int = 0,
    labels: dict[str, list[str]] | None = None,
    clip_frames: int = 30,
    masked: bool = False,
) -> Model:
    """Autoencoder and prior, and a masked one where asked, untrained, in eval mode."""
    labels = LABELS if labels is None else labels
    counts = COUNTS if labels else [((), 8)]
    torch.manual_seed(seed)
    model = new_model(SPECTROGRAM, AUTOENCODER, dict(labels), list(counts), clip_frames)
    model.prior = model.new_prior(PRIOR)
    for module in (model.autoencoder, model.prior):
        shake(module, seed)
        module.eval()
    if masked:
        model.masked = model.new_masked(MASKED)
        shake(model.masked, seed)
        model.masked.eval()
    return model
