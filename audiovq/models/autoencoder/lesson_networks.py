"""Networks of the tutorials, for the lessons: conv, residual, and the dense layer.

Padding is zeroed after every layer (`mask_columns`), so that it never affects a clip.
"""

from __future__ import annotations

from torch import Tensor, nn

from audiovq.config.autoencoder import BottleneckConfig, NetworkConfig
from audiovq.models.autoencoder.networks import RowBias, mask_columns
from audiovq.runtime import distributed


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalization (Ioffe and Szegedy 2015) with statistics over the batch of all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) → the same shape."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(x)
        x = x.float()
        cells = distributed.row_offset(len(x))[0] * x.shape[2] * x.shape[3]
        mean = distributed.all_reduce_sum_with_gradient(x.sum(dim=(0, 2, 3))) / cells
        centred = x - mean[:, None, None]
        variance = (
            distributed.all_reduce_sum_with_gradient(centred.square().sum(dim=(0, 2, 3))) / cells
        )
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.lerp_(mean.detach(), self.momentum or 0.0)
            unbiased = variance.detach() * (cells / (cells - 1))
            self.running_var.lerp_(unbiased, self.momentum or 0.0)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


class ConvEncoder(nn.Module):
    """Convolutional encoder of the tutorials: convolution, ReLU and batch norm per layer."""

    def __init__(self, config: NetworkConfig, dim: int, rows: int, planes: int = 1) -> None:
        super().__init__()
        sizes = [planes, *config.filters]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(sizes[i], filters, kernel, stride=stride, padding=kernel // 2),
                nn.ReLU(),
                BatchNorm2d(filters),
            )
            for i, (filters, kernel, stride) in enumerate(
                zip(config.filters, config.kernels, config.strides, strict=True)
            )
        )
        self.out = nn.Conv2d(sizes[-1], dim, 1)
        self.rows = RowBias(dim, rows)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, planes, bins, frames) → (batch, dim, rows, columns)."""
        for layer in self.layers:
            x = mask_columns(layer(x), mask)
        latents: Tensor = self.rows(self.out(x), mask)
        return latents


class ConvDecoder(nn.Module):
    """Mirror of ConvEncoder with transposed convolutions, and a plain output convolution."""

    def __init__(self, config: NetworkConfig, dim: int, rows: int, planes: int = 1) -> None:
        super().__init__()
        self.rows = RowBias(dim, rows)
        self.inward = nn.Conv2d(dim, config.filters[-1], 1)
        sizes = [*reversed(config.filters), config.filters[0]]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(
                    sizes[i],
                    sizes[i + 1],
                    kernel,
                    stride=stride,
                    padding=kernel // 2,
                    output_padding=stride - 1,
                ),
                nn.ReLU(),
                BatchNorm2d(sizes[i + 1]),
            )
            for i, (kernel, stride) in enumerate(
                zip(reversed(config.kernels), reversed(config.strides), strict=True)
            )
        )
        self.out = nn.Conv2d(sizes[-1], planes, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, dim, rows, columns) → (batch, planes, bins, frames)."""
        x = mask_columns(self.inward(self.rows(x, mask)), mask)
        for layer in self.layers:
            x = mask_columns(layer(x), mask)
        return mask_columns(self.out(x), mask)


class ResidualUnit(nn.Module):
    """Residual block of the tutorials: ReLU, 3×3 convolution, ReLU, 1×1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, channels, rows, columns) → the same shape."""
        hidden = self.conv(nn.functional.relu(x))
        return mask_columns(x + self.out(nn.functional.relu(hidden)), mask)


class ResidualEncoder(nn.Module):
    """Two 4×4 stride-2 convolutions and residual blocks (van den Oord et al. 2017, section 4.1)."""

    def __init__(self, config: NetworkConfig, dim: int, rows: int, planes: int = 1) -> None:
        super().__init__()
        width = config.channels
        self.first = nn.Conv2d(planes, width, 4, stride=2, padding=1)
        self.second = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.rows = RowBias(width, rows)
        self.blocks = nn.ModuleList(ResidualUnit(width) for _ in range(config.encoder_blocks))
        self.out = nn.Conv2d(width, dim, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, planes, bins, frames) → (batch, dim, rows, columns)."""
        x = mask_columns(nn.functional.relu(self.first(x)), mask)
        x = self.rows(self.second(x), mask)
        for block in self.blocks:
            x = block(x, mask)
        return mask_columns(self.out(nn.functional.relu(x)), mask)


class ResidualDecoder(nn.Module):
    """Mirror of ResidualEncoder: residual blocks, then two transposed convolutions."""

    def __init__(self, config: NetworkConfig, dim: int, rows: int, planes: int = 1) -> None:
        super().__init__()
        width = config.channels
        self.inward = nn.Conv2d(dim, width, 3, padding=1)
        self.rows = RowBias(width, rows)
        self.blocks = nn.ModuleList(ResidualUnit(width) for _ in range(config.decoder_blocks))
        self.first = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.second = nn.ConvTranspose2d(width, planes, 4, stride=2, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, dim, rows, columns) → (batch, planes, bins, frames)."""
        x = self.rows(self.inward(x), mask)
        for block in self.blocks:
            x = block(x, mask)
        x = mask_columns(nn.functional.relu(self.first(nn.functional.relu(x))), mask)
        return mask_columns(self.second(x), mask)


class Dense(nn.Module):
    """Linear layers between a clip's whole grid and one vector: the latent space of the tutorials."""

    def __init__(self, config: BottleneckConfig, size: int, rows: int, columns: int) -> None:
        super().__init__()
        self.shape = config.dim, rows, columns
        vector = size * (2 if config.kind == "gaussian" else 1)
        self.project_in = nn.Linear(config.dim * rows * columns, vector)
        self.project_out = nn.Linear(size, config.dim * rows * columns)

    def forward(self, grid: Tensor) -> Tensor:
        """(batch, dim, rows, columns) → (batch, size); 2 · size for a Gaussian."""
        vectors: Tensor = self.project_in(grid.flatten(1))
        return vectors

    def back(self, vectors: Tensor) -> Tensor:
        """(batch, size) → (batch, dim, rows, columns)."""
        grid: Tensor = self.project_out(vectors)
        return grid.view(-1, *self.shape)
