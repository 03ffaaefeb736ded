"""Encoder and decoder of the codec: one strided convolution to the grid of codes, residual blocks on it.

Padding is zeroed after every layer (`mask_columns`), so that it never affects a clip.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiovq.config.autoencoder import NetworkConfig


def mask_columns(x: Tensor, mask: Tensor) -> Tensor:
    """`x` (batch, channels, rows, frames) times `mask` (batch, 1, 1, columns) repeated to x's frames."""
    return x * mask.repeat_interleave(x.shape[3] // mask.shape[3], dim=3)


class RMSNorm2d(nn.Module):
    """RMS normalization over the channels of each cell (Zhang and Sennrich 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) → the same shape."""
        channels_last = x.permute(0, 2, 3, 1)
        normed = nn.functional.rms_norm(channels_last, (x.shape[1],), self.weight.to(x.dtype), 1e-6)
        return normed.permute(0, 3, 1, 2)


class RowMixing(nn.Module):
    """Adds to each row a learnt sum of all rows, with one matrix for each group of channels; 0 at initialisation.

    Convolutions see neighbouring rows only, whereas the pitch of a tone decides where all its partials are. The
    token mixing of I. Tolstikhin et al., "MLP-Mixer", 2021, along the rows and without a nonlinearity.
    """

    def __init__(self, groups: int, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(groups, rows, rows))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) → the same shape."""
        groups, rows = self.weight.shape[:2]
        batch, channels, _, columns = x.shape
        width = channels // groups
        split = x.permute(2, 0, 3, 1).reshape(rows, batch * columns, groups, width)
        grouped = split.permute(2, 0, 1, 3).flatten(2)  # (groups, rows, batch · columns · width)
        mixed = torch.bmm(self.weight.to(x.dtype), grouped).unflatten(2, (batch, columns, width))
        sums: Tensor = mixed.permute(2, 1, 3, 0, 4).flatten(3).permute(0, 3, 1, 2)
        return x + sums


class Block(nn.Module):
    """Residual block: RMSNorm, row mixing if there is any, 3×3 convolution, SiLU, 1×1 convolution.

    It is the identity at initialisation.
    """

    def __init__(self, channels: int, rows: int, groups: int) -> None:
        super().__init__()
        self.norm = RMSNorm2d(channels)
        self.mixing = RowMixing(groups, rows) if groups else nn.Identity()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(_bias(self.out))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (batch, channels, rows, columns), mask (batch, 1, 1, columns) → the shape of x."""
        hidden = self.conv(self.mixing(self.norm(x)))
        return mask_columns(x + self.out(nn.functional.silu(hidden)), mask)


class RowBias(nn.Module):
    """Learnt bias per row: without it, convolutions cannot tell low from high frequencies."""

    def __init__(self, channels: int, rows: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(1, channels, rows, 1))
        nn.init.normal_(self.bias, std=0.02)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, channels, rows, columns) → the same shape."""
        return mask_columns(x + self.bias, mask)


class PatchEncoder(nn.Module):
    """Encoder with one strided convolution to the code grid, followed by residual blocks."""

    def __init__(self, config: NetworkConfig, dim: int, rows: int, planes: int = 1) -> None:
        super().__init__()
        width = config.channels
        self.patch = nn.Conv2d(planes, width, config.stride, stride=config.stride)
        self.rows = RowBias(width, rows)
        blocks = (Block(width, rows, config.row_mixing or 0) for _ in range(config.encoder_blocks))
        self.blocks = nn.ModuleList(blocks)
        self.norm = RMSNorm2d(width)
        self.out = nn.Conv2d(width, dim, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, planes, bins, frames) → (batch, dim, rows, columns)."""
        x = self.rows(self.patch(x), mask)
        for block in self.blocks:
            x = block(x, mask)
        return mask_columns(self.out(self.norm(x)), mask)


class PatchDecoder(nn.Module):
    """Mirror of PatchEncoder: residual blocks, then one transposed convolution."""

    def __init__(self, config: NetworkConfig, dim: int, rows: int, planes: int = 1) -> None:
        super().__init__()
        width = config.channels
        self.inward = nn.Conv2d(dim, width, 1)
        self.rows = RowBias(width, rows)
        blocks = (Block(width, rows, config.row_mixing or 0) for _ in range(config.decoder_blocks))
        self.blocks = nn.ModuleList(blocks)
        self.norm = RMSNorm2d(width)
        self.patch = nn.ConvTranspose2d(width, planes, config.stride, stride=config.stride)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, dim, rows, columns) → (batch, planes, bins, frames)."""
        x = self.rows(self.inward(x), mask)
        for block in self.blocks:
            x = block(x, mask)
        return mask_columns(self.patch(self.norm(x)), mask)


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise TypeError("expected a convolution with a bias")
    return conv.bias
