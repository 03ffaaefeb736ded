"""Discriminator of spectrograms: which patches are from recordings, and which from the decoder.

The vivid decoder is trained against it (Goodfellow et al. 2014; patches as Isola et al. 2017, section 3.2.2): a decoder
of least squared error returns the mean of all sounds that share their codes, and a mean has no texture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from audiovq.config.settings import DiscriminatorConfig
from audiovq.runtime import distributed

KERNELS = (5, 3), (5, 3), (3, 3)
"""Kernel sizes (bins, frames) of the layers before the last."""
STRIDES = (2, 1), (2, 2), (1, 1)
SLOPE = 0.2
"""Slope of the leaky ReLU below 0."""


class Judgement(NamedTuple):
    """What one scale of a discriminator says about a batch."""

    scores: Tensor
    """(batch, 1, rows, columns): above 0 where a patch seems recorded."""
    features: list[Tensor]
    """Activations of the layers before it, each (batch, channels, rows, columns)."""


class PatchDiscriminator(nn.Module):
    """Four convolutions on spectrograms that are averaged over `scale` bins and frames, and on the number of the
    row."""

    def __init__(self, channels: int, scale: int, planes: int = 1) -> None:
        super().__init__()
        self.scale = scale
        widths = (planes + 1, channels, 2 * channels, 2 * channels)
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(inputs, outputs, kernel, stride, (kernel[0] // 2, kernel[1] // 2))
            )
            for inputs, outputs, kernel, stride in zip(
                widths, widths[1:], KERNELS, STRIDES, strict=False
            )
        )
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, spectrogram: Tensor) -> Judgement:
        """(batch, planes, bins, frames) in [0, 1] → scores of patches, and the features below them."""
        x = spectrogram
        if self.scale > 1:
            bins, frames = (max(0, self.scale - size) for size in x.shape[2:])
            x = nn.functional.avg_pool2d(nn.functional.pad(x, (0, frames, 0, bins)), self.scale)
        batch, _, bins, frames = x.shape
        rows = torch.arange(bins, device=x.device) * (2 / max(1, bins - 1)) - 1
        rows = rows.to(x.dtype)[None, None, :, None].expand(batch, 1, -1, frames)
        x = torch.cat([2 * x - 1, rows], dim=1)
        features = []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return Judgement(self.score(x), features)


class Discriminator(nn.Module):
    """One PatchDiscriminator for each scale: 1, 2, 4 … bins and frames."""

    def __init__(self, config: DiscriminatorConfig, planes: int = 1) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(config.channels, 1 << number, planes)
            for number in range(config.scales)
        )

    def forward(self, spectrogram: Tensor) -> list[Judgement]:
        """(batch, planes, bins, frames) in [0, 1] → a Judgement of each scale."""
        return [scale(spectrogram) for scale in self.scales]


def halves(judgements: list[Judgement]) -> tuple[list[Judgement], list[Judgement]]:
    """Judgements of two batches that were concatenated, apart."""
    apart = [(j.scores.chunk(2), [f.chunk(2) for f in j.features]) for j in judgements]
    first, second = (
        [Judgement(scores[i], [pair[i] for pair in features]) for scores, features in apart]
        for i in range(2)
    )
    return first, second


def hinge_loss(real: list[Judgement], decoded: list[Judgement], cells: Tensor) -> Tensor:
    """Loss of the discriminator (Lim and Ye 2017, "Geometric GAN"): 0 where all scores are past ±1.

    `cells` (batch, 1, 1, frames) is 1 inside the clips. Mean over scales.
    """
    terms = [
        _mean((1 - r.scores.float()).relu() + (1 + d.scores.float()).relu(), cells)
        for r, d in zip(real, decoded, strict=True)
    ]
    return torch.stack(terms).mean()


def adversarial_loss(decoded: list[Judgement], cells: Tensor) -> Tensor:
    """Loss of the decoder: minus the mean score of what it decoded. Arguments as in `hinge_loss`."""
    return torch.stack([-_mean(d.scores.float(), cells) for d in decoded]).mean()


def feature_loss(real: list[Judgement], decoded: list[Judgement], cells: Tensor) -> Tensor:
    """Distance of features, relative to those of the recording (Kumar et al. 2019, MelGAN, eq. 3).

    Arguments as in `hinge_loss`; gradients reach `decoded` only. Mean over scales, sum over layers.
    """
    terms = []
    for r, d in zip(real, decoded, strict=True):
        for wanted, found in zip(r.features, d.features, strict=True):
            target = wanted.detach().float()
            size = distributed.all_reduce_mean(_mean(target.abs(), cells)).clamp_min(1e-6)
            terms.append(_mean((found.float() - target).abs(), cells) / size)
    return torch.stack(terms).sum() / len(real)


def share_right(judgements: list[Judgement], cells: Tensor, recorded: bool) -> Tensor:
    """Share of patches, 0 to 1, that are taken for what they are. `cells` as in `hinge_loss`."""
    right = [_mean(((j.scores > 0) == recorded).float(), cells) for j in judgements]
    return torch.stack(right).mean()


def _mean(values: Tensor, cells: Tensor) -> Tensor:
    """Mean of (batch, channels, rows, columns) inside the clips: this rank's term of the mean over ranks."""
    columns = values.shape[3]
    stride = -(-cells.shape[3] // columns)
    mask = cells[..., ::stride][..., :columns]
    mask = nn.functional.pad(mask, (0, columns - mask.shape[3]))
    weight = (
        distributed.all_reduce_mean(mask.sum()).clamp_min(1) * values.shape[1] * values.shape[2]
    )
    return (values * mask).sum() / weight
