"""Mask of the cells inside the clips of a padded batch, with gather and scatter of their vectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CellMask:
    """The cells inside the clips of a padded batch of grids (batch, dim, rows, columns)."""

    mask: Tensor
    """(batch, 1, 1, columns), 1 inside a clip and 0 in its padding."""
    shape: tuple[int, int, int]
    """Batch, rows and columns of the grids."""
    indices: Tensor | None
    """Flat indices (batch · row · column) of the cells that are gathered; None: all cells, padding
    included, so that the number of vectors does not depend on the clips."""

    @classmethod
    def from_num_columns(
        cls, num_columns: Tensor, rows: int, columns: int, device: torch.device
    ) -> CellMask:
        """Mask for grids on `device` whose clips have `num_columns` (batch,) columns.

        With `num_columns` on a GPU, all cells are gathered: to find those inside a clip, the CPU would
        have to synchronise with it.
        """
        column_mask = torch.arange(columns, device=num_columns.device) < num_columns[:, None]
        shape = len(num_columns), rows, columns
        mask = column_mask[:, None, None].float()
        if num_columns.is_cuda:
            return cls(mask, shape, None)
        indices = column_mask[:, None].expand(-1, rows, -1).reshape(-1).nonzero()[:, 0]
        return cls(mask.to(device), shape, indices.to(device))

    @property
    def weights(self) -> Tensor | None:
        """(vectors,), 1 for vectors inside a clip, 0 for padding; None where padding is not gathered."""
        if self.indices is not None:
            return None
        return self.mask[:, :, 0].expand(-1, self.shape[1], -1).flatten()

    def gather(self, grid: Tensor) -> Tensor:
        """Vectors (vectors, dim) of the cells of a grid (batch, dim, rows, columns)."""
        vectors = grid.permute(0, 2, 3, 1).flatten(0, 2)
        return vectors if self.indices is None else vectors[self.indices]

    def scatter(self, vectors: Tensor) -> Tensor:
        """Inverse of `gather`: (vectors, dim) → (batch, dim, rows, columns), zeros in the padding."""
        batch, rows, columns = self.shape
        if self.indices is None:
            grid = vectors.view(batch, rows, columns, vectors.shape[1]).permute(0, 3, 1, 2)
            return torch.where(self.mask > 0, grid, 0)
        flat = vectors.new_zeros(batch * rows * columns, vectors.shape[1])
        flat = flat.index_copy(0, self.indices, vectors)
        return flat.view(batch, rows, columns, vectors.shape[1]).permute(0, 3, 1, 2)

    def per_cell(self, values: Tensor) -> Tensor:
        """Values of each clip (batch, size), repeated for each of its vectors (vectors, size)."""
        _, rows, columns = self.shape
        if self.indices is not None:
            return values[self.indices // (rows * columns)]
        return values[:, None].expand(-1, rows * columns, -1).flatten(0, 1)
