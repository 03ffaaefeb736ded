"""Mel bands of magnitudes, and magnitudes of mel bands, where each band is computed from its own bins alone; stereo
bands of two channels, and two channels of these.

Stereo is made of a mono waveform and two planes, which say where each band is and how wide. In the left channel, the
spectrum is turned by a phase to the one side, and in the right one to the other, which makes them as coherent as they
should be; then each gets its gain. The sense of the turn alternates with frequency, so that no side comes first (R.
Orban, "A rational technique for synthesizing pseudo-stereo from monophonic sources", JAES 1970; the gains are those
of Breebaart et al. 2005, see `scale`). Nothing is added, so that attacks stay nearly as short as they are, and the
sum of both channels has the power that the recording's has. Windows blur the turns: both channels are analysed, and made
again with the planes moved by the difference.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.spectral import scale
from audiovq.spectral.stft import ENVELOPE_FLOOR, Packing, stft

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
TURN_BINS = 9.0
"""Mean width, in bins, of the lowest bands in which both channels are turned in one sense. The window blurs their
borders: narrower bands would bring the channels closer together than they should be (a coherence of 0 becomes .07,
with half the width .14), and spread attacks over more time."""
TURN_SHARE = 1 / 6
"""Width of higher bands relative to their frequency: about as wide as those of hearing."""
SETTLED = 0.015, 0.04
"""Distances of balance and coherence from their neutral values that count as none."""
NARROW = 1e-3
"""Share of the power of the sum of both channels that their difference has at most where there should be none: -30 dB."""
GOLDEN = (math.sqrt(5) - 1) / 2
"""Widths follow its multiples, so that no period is audible."""


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
        rows = _enough(
            magnitude
        )  # below, not len(), which would be a constant of an exported program
        parts = [rows[:, bins] @ self.filters[bands, bins].T for bands, bins in self._parts(rows)]
        return torch.cat(parts, dim=1)[: magnitude.shape[0]]

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
            return (rows @ weights)[: values.shape[0]]
        result = rows.new_zeros(len(rows), weights.shape[1])
        for bands, bins in parts:
            result[:, bins].addmm_(rows[:, bands], weights[bands, bins])
        return result[: values.shape[0]]

    def _parts(self, values: Tensor) -> list[tuple[slice, slice]]:
        """Bands and their bins, to be computed together."""
        return self._whole if self._in_one(values) else self._blocks

    def _in_one(self, values: Tensor) -> bool:
        """Whether one product replaces many: on a GPU zeros cost less than products, and an exported program is
        plainer."""
        return values.device.type != "cpu" or torch.compiler.is_exporting()


def _enough(rows: Tensor) -> Tensor:
    """`rows` (rows, width), with zeros added to very few: a product of few rows has other last bits.

    So a short clip gets the same sound alone as in a batch. An exported program, which takes any number, adds none.
    """
    if torch.compiler.is_exporting() or len(rows) >= LEAST_ROWS:
        return rows
    return nn.functional.pad(rows, (0, 0, 0, LEAST_ROWS - len(rows)))


class Stereo(nn.Module):
    """Planes of balance and coherence of two spectra, and two channels of such planes."""

    filters: Tensor
    rows: Tensor
    shares: Tensor
    of_row: Tensor
    signs: Tensor

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.config = config
        filters = torch.tensor(scale.stereo_filters(config))
        of_row = torch.from_numpy(scale.row_bands(config))
        members = nn.functional.one_hot(of_row, config.stereo_bands).T.float()
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("of_row", of_row, persistent=False)
        self.register_buffer("rows", members / members.sum(dim=1, keepdim=True), persistent=False)
        self.register_buffer("shares", _shares(filters), persistent=False)
        self.register_buffer("signs", torch.from_numpy(turns(config)), persistent=False)

    def analyse(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Spectra (batch, 2, n_fft / 2 + 1, frames) → magnitudes (batch, n_fft / 2 + 1, frames) by the mean power,
        and powers (batch, 3, stereo bands, frames): of left, of right, and cross."""
        parts = torch.view_as_real(spectrum)
        power = parts.square().sum(dim=-1)
        cross = (parts[:, 0] * parts[:, 1]).sum(dim=-1)
        powers = self.filters @ torch.cat([power, cross[:, None]], dim=1)
        return power.mean(dim=1).sqrt(), powers * (self.config.n_fft / 4) ** -2

    def planes(self, powers: Tensor, level_db: Tensor) -> Tensor:
        """Balance and coherence (batch, 2, bins, frames) of smoothed powers (batch, 3, stereo bands, frames) of clips
        whose loudest cells are `level_db` (batch, 1, 1, 1)."""
        left, right, cross = (powers / scale.floor_power(level_db, self.config)).unbind(dim=1)
        both = scale.balance(torch, left, right), scale.coherence(torch, left, right, cross)
        return torch.stack(both, dim=1)[:, :, self.of_row]

    def widen(
        self, waveform: Tensor, spectrogram: Tensor, num_samples: Tensor, level_db: Tensor
    ) -> Tensor:
        """Two channels (batch, 2, samples) of a waveform (batch, samples) and the planes of a spectrogram (batch, 3,
        bins, frames); `num_samples` (batch,) are the clips' lengths, `level_db` (batch,) their loudest cells.

        Their mean power is that of the waveform. In the middle and in phase, or nearly so, both are the waveform: a
        network's planes of a mono recording are never exactly neutral.
        """
        config = self.config
        grid = config.n_fft, config.hop_length
        lengths = num_samples.to(waveform.device).long().repeat_interleave(2)
        packing = Packing(lengths, *grid, ENVELOPE_FLOOR)
        spectrum = stft(waveform, *grid)
        wanted = spectrogram[..., : spectrum.shape[2]]

        def turned(planes: Tensor) -> Tensor:
            gains, turn = self.sides(planes)
            both = spectrum[:, None] * torch.polar(gains, torch.stack([turn, -turn], dim=1))
            signal = packing.synthesise(packing.pack(both.flatten(0, 1)))
            channels: Tensor = packing.unpack(signal).unflatten(0, (-1, 2))
            return channels

        wanted = _settled(wanted)
        made = stft(turned(wanted).flatten(0, 1), *grid).unflatten(0, (-1, 2))
        powers = scale.smoothed(self.analyse(made)[1] * packing.is_frame[::2, None, None])
        both = turned(_corrected(wanted, self.planes(powers, level_db[:, None, None, None])))
        side = (both[:, 0] - both[:, 1]).square().sum(dim=-1)
        is_stereo = side > NARROW * both.sum(dim=1).square().sum(dim=-1)
        return torch.where(is_stereo[:, None, None], both, waveform[:, None])

    def sides(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """Gains (batch, 2, n_fft / 2 + 1, frames) of left and right by the planes of a spectrogram (batch, 3, bins,
        frames), and the angle (batch, n_fft / 2 + 1, frames) that left is turned by, and right the other way."""
        values = self.rows @ spectrogram[:, 1:].float().clamp(0, 1)
        balance, coherence = (self.shares.T @ values).unbind(dim=1)
        side = 2 * balance - 1
        ratio = scale.gain_ratio(torch, side.abs())
        louder = (2 / (1 + ratio.square())).sqrt()
        quieter = louder * ratio
        left, right = (
            torch.where(is_louder, louder, quieter) for is_louder in (side <= 0, side >= 0)
        )
        turn = (math.pi / 2) * (1 - coherence) * self.signs[:, None]
        return torch.stack([left, right], dim=1), turn


def _settled(wanted: Tensor) -> Tensor:
    """A spectrogram (batch, 3, bins, frames) with neutral planes where both are within SETTLED of neutral."""
    neutral = wanted.new_tensor((scale.MIDDLE, scale.IN_PHASE))[:, None, None]
    away = (wanted[:, 1:] - neutral).abs() > wanted.new_tensor(SETTLED)[:, None, None]
    planes = torch.where(away.any(dim=1, keepdim=True), wanted[:, 1:], neutral)
    return torch.cat([wanted[:, :1], planes], dim=1)


def _corrected(wanted: Tensor, made: Tensor) -> Tensor:
    """A spectrogram (batch, 3, bins, frames), its planes moved by their difference from those (batch, 2, bins, frames)
    of the channels made of it."""
    balance, coherence = wanted[:, 1:].float().clamp(0, 1).unbind(dim=1)
    correlation = 2 * scale.correlation(torch, coherence) - scale.correlation(torch, made[:, 1])
    planes = (2 * balance - made[:, 0]).clamp(0, 1), scale.of_correlation(torch, correlation)
    return torch.stack([wanted[:, 0], *planes], dim=1)


def turns(config: SpectrogramConfig) -> npt.NDArray[np.float32]:
    """(n_fft / 2 + 1,) sense of the turn of each bin in the left channel, 1 or -1."""
    bins = config.n_fft // 2 + 1
    edges = [0.0]
    while edges[-1] < bins:
        width = max(TURN_BINS, TURN_SHARE * edges[-1])
        edges.append(edges[-1] + width * (0.5 + GOLDEN * (len(edges) - 1) % 1))
    return (1 - 2 * (np.searchsorted(edges[1:], np.arange(bins)) % 2)).astype(np.float32)


def _shares(filters: Tensor) -> Tensor:
    """Each band's share in a bin (bands, bins); bins that no band covers belong to the nearest band."""
    covered = filters.sum(dim=0) > 0
    found = covered.nonzero()[:, 0]
    nearest = (torch.arange(filters.shape[1])[:, None] - found).abs().argmin(dim=1)
    weights = filters[:, found[nearest]]
    return weights / weights.sum(dim=0)
