"""Scale of a spectrogram in time, frequency and level, and of stereo in position and width, for NumPy and torch.

A stereo spectrogram has planes of balance and coherence beside its loudness, in a few bands. Loudness is the energy
of both channels together, so nothing cancels. Balance says where a band is between left and right, coherence how much
of both channels is one signal: the parameters of J. Breebaart, S. van de Par, A. Kohlrausch and E. Schuijers,
"Parametric coding of stereo audio", EURASIP JASP 2005.

Imports no torch. Functions that need more than operators take the arrays' namespace, `numpy` or `torch`,
as `xp`, so that preprocessing and models share this code.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import SpectrogramConfig

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", npt.NDArray[np.float32], "Tensor")
IntOrArray = TypeVar("IntOrArray", int, npt.NDArray[np.int64], "Tensor")
LOUDEST_DB = 3.0
"""dB of level 0, relative to a full-scale sine; the fundamental of a full-scale square wave has 2.1."""
SILENCE = 1e-12
"""Smallest magnitude, relative to a full-scale sine: -240 dB."""
MIDDLE, IN_PHASE = 0.5, 1.0
"""Neutral values: the balance of the middle, and the coherence of equal channels."""
NEUTRAL = 0.0, MIDDLE, IN_PHASE
"""Value of each plane in silence."""
COMPANDING = 15.0
"""How much finer the balance distinguishes positions near the middle than near a side. A balance of 0 or 1 is one
channel alone, and .165 from there the other channel is 20 dB quieter."""
FAINT = 0.01
"""A channel of less than this share of the power of the other has no coherence with it; it counts as in phase."""
TIME_WEIGHTS = ((1, 2.0), (2, 1.0))
"""Frames before and after that powers are averaged over: distance, and weight where the frame itself has 3."""
REACH = 2
"""Largest of these distances."""


def num_frames(num_samples: IntOrArray, hop_length: int) -> IntOrArray:
    """Number of STFT frames of a clip of `num_samples` samples: 1 + num_samples // hop_length.

    Takes and returns an int, or integers of any shape.
    """
    return 1 + num_samples // hop_length


def decibels(magnitude: Tensor, config: SpectrogramConfig) -> Tensor:
    """dB relative to a full-scale sine, at least -240, of STFT magnitudes in bands or bins; `numpy_spectrogram` does it in place."""
    relative = (magnitude / (config.n_fft / 4)).clip(SILENCE)
    return 20 * relative.log10()


def level(xp: Any, loudest: Array, config: SpectrogramConfig) -> Array:
    """Levels, 0 to num_levels - 1, as floats, of clips whose loudest cells are `loudest` dB."""
    steps: Array = xp.floor((LOUDEST_DB - loudest) / config.level_step_db)
    return steps.clip(0, config.num_levels - 1)


def level_db(level: Array, config: SpectrogramConfig) -> Array:
    """Level in dB: a clip's loudest cell, relative to a full-scale sine."""
    return LOUDEST_DB - level * config.level_step_db


def normalized(decibels: Array, loudest: Array, config: SpectrogramConfig) -> Array:
    """dB scaled to [0, 1]: 1 at `loudest` (from `level_db`), 0 at `range_db` below it and less."""
    return (decibels / config.range_db + (1 - loudest / config.range_db)).clip(0, 1)


@functools.lru_cache(8)
def mel_filters(config: SpectrogramConfig) -> npt.NDArray[np.float32]:
    """Mel filter bank of the settings (n_mels, n_fft / 2 + 1), float32, read-only.

    Raises AudiovqError if a band covers no bin.
    """
    rows = mel_bands(config.sample_rate, config.n_fft, config.n_mels)
    if not rows.any(axis=1).all():
        raise AudiovqError(
            f"n_mels {config.n_mels}: too many for n_fft {config.n_fft} at {config.sample_rate} Hz;"
            " give fewer bands or a longer window"
        )
    rows.flags.writeable = False
    return rows


def mel_bands(sample_rate: int, n_fft: int, n_mels: int) -> npt.NDArray[np.float32]:
    """Slaney's mel filter bank (n_mels, n_fft / 2 + 1), as in librosa, with rows that sum to one.

    Triangles from 0 Hz to half the rate; rows that cover no bin are 0. Slaney, Auditory Toolbox, 1998:
    linear up to 1 kHz, 3 mel per 200 Hz, then logarithmic, 27 mel per factor of 6.4.
    """
    hertz = mel_hertz(sample_rate, n_mels + 2)
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    slopes = (bins - hertz[:, None]) / np.diff(hertz, append=np.inf)[:, None]
    filters = np.minimum(slopes[:-2], 1 - slopes[1:-1]).clip(0)
    sums = filters.sum(axis=1, keepdims=True)
    rows: npt.NDArray[np.float32] = (filters / np.where(sums > 0, sums, 1)).astype(np.float32)
    return rows


def mel_hertz(sample_rate: int, count: int) -> npt.NDArray[np.float64]:
    """`count` frequencies in Hz from 0 to half the rate, in equal steps of the mel scale of `mel_bands`."""
    knee, step = 1000.0, np.log(6.4) / 27
    top = sample_rate / 2
    highest = 3 * top / 200 if top < knee else 15 + np.log(top / knee) / step
    mel = np.linspace(0, highest, count)
    return np.where(mel < 15, 200 * mel / 3, knee * np.exp(step * (mel - 15)))


def row_bands(config: SpectrogramConfig) -> npt.NDArray[np.int64]:
    """(bins,) index of the stereo band of each row of a spectrogram, in rising order; every band has a row.

    Mel bands are divided into equal numbers of rows; linear bins by equal steps of the mel scale.
    """
    bins, bands = config.bins, config.stereo_bands
    if config.n_mels:
        return np.arange(bins) * bands // bins
    edges = mel_hertz(config.sample_rate, bands + 1)[1:-1] * config.n_fft / config.sample_rate
    starts = [0]
    for number, edge in enumerate(edges, 1):
        starts.append(min(max(starts[-1] + 1, round(float(edge))), bins - bands + number))
    return np.searchsorted(starts, np.arange(bins), side="right") - 1


@functools.lru_cache(8)
def stereo_filters(config: SpectrogramConfig) -> npt.NDArray[np.float32]:
    """Filter bank (stereo_bands, n_fft / 2 + 1) of powers, float32, read-only; rows sum to one.

    A band is the sum of the mel bands of its rows, or its linear bins.
    """
    of_row = row_bands(config)
    rows = mel_filters(config) if config.n_mels else np.eye(config.bins, config.bins + 1)
    sums = np.stack([rows[of_row == band].sum(axis=0) for band in range(config.stereo_bands)])
    filters: npt.NDArray[np.float32] = (sums / sums.sum(axis=1, keepdims=True)).astype(np.float32)
    filters.flags.writeable = False
    return filters


def expanded_rows(config: SpectrogramConfig) -> npt.NDArray[np.int64]:
    """(planes, bins) the row of a stored clip that each row of its planes is: see `stored_rows`."""
    of_row = config.bins + row_bands(config)
    return np.stack([np.arange(config.bins), of_row, of_row + config.stereo_bands])


def smoothed(powers: Array) -> Array:
    """Powers (..., frames) averaged over neighbouring frames; those before and after a clip are silent."""
    result: Any = 3 * powers
    for lag, weight in TIME_WEIGHTS:
        result[..., lag:] += weight * powers[..., :-lag]
        result[..., :-lag] += weight * powers[..., lag:]
    averaged: Array = result / (3 + 2 * sum(weight for _, weight in TIME_WEIGHTS))
    return averaged


def floor_power(level_db: Array, config: SpectrogramConfig) -> Array:
    """Power, relative to a full-scale sine, below which a clip of this level counts as silent here."""
    decibels: Any = level_db - config.stereo_floor_db
    power: Array = 10 ** (decibels / 10)
    return power


def balance(xp: Any, left: Array, right: Array) -> Array:
    """Balance, 0 (left) to 1 (right), of the powers of two channels, in units of `floor_power`."""
    left, right = left + 1, right + 1
    ratio = xp.sqrt(xp.minimum(left, right) / xp.maximum(left, right))
    side = 1 - xp.log1p(COMPANDING * ratio) / math.log1p(COMPANDING)
    value: Array = MIDDLE + xp.where(right > left, side, -side) / 2
    return value.clip(0, 1)


def coherence(xp: Any, left: Array, right: Array, cross: Array) -> Array:
    """Coherence of two channels: 1 in phase, .5 independent, 0 in opposite phase.

    That is 1 − φ / π, where cos φ is the real part of their cross spectrum over the root of their powers. `cross`,
    `left` and `right` are in units of `floor_power`.
    """
    bias = 1 + FAINT / 2 * (left + right)
    value: Array = of_correlation(xp, (cross + bias) / (xp.sqrt(left * right) + bias))
    return value


def of_correlation(xp: Any, correlation: Array) -> Array:
    """Coherence, 0 to 1, of a correlation, which is clamped to -1 to 1."""
    value: Array = 1 - xp.arccos(correlation.clip(-1, 1)) / math.pi
    return value


def correlation(xp: Any, coherence: Array) -> Array:
    """Correlation, -1 to 1, of a coherence: the inverse of `of_correlation`."""
    value: Array = -xp.cos(math.pi * coherence)
    return value


def gain_ratio(xp: Any, side: Array) -> Array:
    """Magnitude of the quieter channel over that of the louder one, by the distance `side` of the balance from the
    middle, 0 to 1: the inverse of `balance`."""
    ratio: Array = (xp.exp((1 - side) * math.log1p(COMPANDING)) - 1) / COMPANDING
    return ratio
