"""Which cells of a batch of grids lie inside their clips: vectors are taken from there and put back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inside:
    """The cells inside the clips of a padded batch of grids (batch, dim, rows, columns)."""

    mask: Tensor
    """(batch, 1, 1, columns), 1 inside and 0 beyond."""
    shape: tuple[int, int, int]
    """Of the grids: batch, rows, columns."""
    places: Tensor | None
    """Of the vectors, flat (batch · row · column). None: all cells' are taken, those beyond too, so
    that how many there are does not depend on the clips."""

    @classmethod
    def of(cls, num_columns: Tensor, rows: int, columns: int, device: torch.device) -> Inside:
        """Of grids on `device` with (batch,) columns inside.

        Where these lie on a GPU, vectors of all cells are taken: to know which lie inside, the CPU
        would have to wait for it.
        """
        columns_inside = torch.arange(columns, device=num_columns.device) < num_columns[:, None]
        shape = len(num_columns), rows, columns
        mask = columns_inside[:, None, None].float()
        if num_columns.is_cuda:
            return cls(mask, shape, None)
        places = columns_inside[:, None].expand(-1, rows, -1).reshape(-1).nonzero()[:, 0]
        return cls(mask.to(device), shape, places.to(device))

    @property
    def weights(self) -> Tensor | None:
        """(vectors,) 1 for vectors inside, 0 for those beyond; None where there are none beyond."""
        if self.places is not None:
            return None
        return self.mask[:, :, 0].expand(-1, self.shape[1], -1).flatten()

    def take(self, grid: Tensor) -> Tensor:
        """(batch, dim, rows, columns) → (vectors, dim)."""
        vectors = grid.permute(0, 2, 3, 1).flatten(0, 2)
        return vectors if self.places is None else vectors[self.places]

    def put(self, vectors: Tensor) -> Tensor:
        """The inverse of `take`: (vectors, dim) → (batch, dim, rows, columns), zeros beyond."""
        batch, rows, columns = self.shape
        if self.places is None:
            grid = vectors.view(batch, rows, columns, vectors.shape[1]).permute(0, 3, 1, 2)
            return torch.where(self.mask > 0, grid, 0)
        flat = vectors.new_zeros(batch * rows * columns, vectors.shape[1])
        flat = flat.index_copy(0, self.places, vectors)
        return flat.view(batch, rows, columns, vectors.shape[1]).permute(0, 3, 1, 2)

    def of_clips(self, values: Tensor) -> Tensor:
        """(batch, any) → (vectors, any): of each vector what its clip has."""
        _, rows, columns = self.shape
        if self.places is not None:
            return values[self.places // (rows * columns)]
        return values[:, None].expand(-1, rows * columns, -1).flatten(0, 1)
