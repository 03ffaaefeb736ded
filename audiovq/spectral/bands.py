"""Mel bands of magnitudes, and magnitudes of mel bands, where each band is computed from its own bins alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

BLOCK = 16
"""Bands that are computed together: few products, and few zeros beside the bands' own bins."""
LEAST_ROWS = 32
FIT_ROWS = 512
"""Rows that are fitted at a time on a CPU, in half the time of thousands."""
FIT_STEPS = 30
START_STEPS = 10
"""Steps of a fit that Griffin-Lim starts from and that it brings closer to the bands itself."""
EMPTY = 1e-10
"""Band that counts as empty, where the loudest cell is near 1: 200 dB below it."""


class Bands(nn.Module):
    """Filter bank of narrow bands: magnitudes (rows, bins) to sums (rows, bands), and back."""

    filters: Tensor
    shares: Tensor

    def __init__(self, filters: npt.NDArray[np.float32]) -> None:
        """`filters` (bands, bins): at least 0, none empty; a band's bins lie side by side, bands in rising order."""
        super().__init__()
        weights = torch.tensor(filters)
        self.register_buffer("filters", weights, persistent=False)
        # Each band's share in a bin. A bin that no band covers, but for rounding, has no share, and stays 0.
        covered = weights.sum(dim=0).clamp_min(torch.finfo(weights.dtype).eps)
        self.register_buffer("shares", weights / covered, persistent=False)
        bands, bins = filters.shape
        self._whole = [(slice(0, bands), slice(0, bins))]
        self._blocks = []
        for first in range(0, bands, BLOCK):
            support = np.flatnonzero(filters[first : first + BLOCK].any(axis=0)).tolist()
            self._blocks.append((slice(first, first + BLOCK), slice(support[0], support[-1] + 1)))

    def sums(self, magnitude: Tensor) -> Tensor:
        """Sums (rows, bands) of magnitudes (rows, bins)."""
        rows = _enough(magnitude)
        parts = [rows[:, bins] @ self.filters[bands, bins].T for bands, bins in self._parts(rows)]
        return torch.cat(parts, dim=1)[: len(magnitude)]

    def spread(self, values: Tensor) -> Tensor:
        """Values (rows, bands) as values of bins (rows, bins): the mean of a bin's bands by their shares in it."""
        return self._to_bins(values, self.shares)

    def gain(self, magnitude: Tensor, wanted: Tensor) -> Tensor:
        """Factors (rows, bins) that bring the sums of `magnitude` (rows, bins) closer to `wanted` (rows, bands).

        One of the multiplicative steps of W. H. Richardson (JOSA 1972) and L. B. Lucy (AJ 1974).
        """
        return self.spread(wanted / self.sums(magnitude).clamp_min(EMPTY))

    def fit(self, wanted: Tensor, steps: int = FIT_STEPS) -> Tensor:
        """Smooth magnitudes (..., bins), at least 0, whose sums are close to `wanted` (..., bands).

        Non-negative least squares with multiplicative updates (Lee and Seung 2001), which are invariant to
        scale. Where all bands are 0, the magnitudes are exact zeros.
        """
        rows = wanted.contiguous().flatten(0, -2)
        parts = [rows] if self._in_one(rows) else rows.split(FIT_ROWS)
        magnitude = torch.cat([self._fit(part, steps) for part in parts])
        return magnitude.view(*wanted.shape[:-1], -1)

    def _fit(self, rows: Tensor, steps: int) -> Tensor:
        """`fit` of few enough rows (rows, bands) for the caches of a CPU."""
        magnitude = backprojected = self._to_bins(rows, self.filters)
        for _ in range(steps):
            again = self._to_bins(self.sums(magnitude), self.filters)
            magnitude = magnitude * backprojected / again.clamp_min(1e-12)
        return magnitude

    def roughness(self) -> Tensor:
        """(bins,), 0 to 1: how little the bands tell of a bin. 0: its bands hold no other bin; 1: very many."""
        return (1 - self.filters.square().sum(dim=1)) @ self.shares

    def _to_bins(self, values: Tensor, weights: Tensor) -> Tensor:
        """Values (rows, bands) times weights (bands, bins), which are 0 where the filters are."""
        rows, parts = _enough(values), self._parts(values)
        if len(parts) == 1:
            return (rows @ weights)[: len(values)]
        result = rows.new_zeros(len(rows), weights.shape[1])
        for bands, bins in parts:
            result[:, bins].addmm_(rows[:, bands], weights[bands, bins])
        return result[: len(values)]

    def _parts(self, values: Tensor) -> list[tuple[slice, slice]]:
        """Bands and their bins, to be computed together."""
        return self._whole if self._in_one(values) else self._blocks

    def _in_one(self, values: Tensor) -> bool:
        """Whether one product replaces many: on a GPU zeros cost less than products, and an exported program is plainer."""
        return values.device.type != "cpu" or torch.compiler.is_exporting()


def _enough(rows: Tensor) -> Tensor:
    """`rows` (rows, width), with zeros added to very few: a product of few rows has other last bits.

    So a short clip gets the same sound alone as in a batch.
    """
    missing = LEAST_ROWS - len(rows)
    return rows if missing <= 0 else nn.functional.pad(rows, (0, 0, 0, missing))
