"""The vivid decoder: another decoder for the same codes, with its contrast."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VividDecoder(nn.Module):
    """A decoder of the shape of the autoencoder's, and the contrast of its spectrograms.

    It is trained against a `discriminator`, and then its contrast is fitted (`training.stages.contrast`).
    """

    contrast: Tensor
    """Scalar, as `AutoencoderConfig.contrast`."""

    def __init__(self, decoder: nn.Module, contrast: float) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("contrast", torch.tensor(contrast))

    def forward(self, grid: Tensor, mask: Tensor) -> Tensor:
        """As the decoder: (batch, dim, rows, columns), (batch, 1, 1, columns) → (batch, planes, bins, frames)."""
        decoded: Tensor = self.decoder(grid, mask)
        return decoded
