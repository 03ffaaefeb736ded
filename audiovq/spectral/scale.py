"""Scale of a spectrogram in time, frequency and level, for NumPy arrays and torch tensors.

Imports no torch. Functions that need more than operators take the arrays' namespace, `numpy` or `torch`,
as `xp`, so that preprocessing and models share this code.
"""

from __future__ import annotations

import functools
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


def num_frames(num_samples: IntOrArray, hop_length: int) -> IntOrArray:
    """Number of STFT frames of a clip of `num_samples` samples: 1 + num_samples // hop_length.

    Takes and returns an int, or integers of any shape.
    """
    return 1 + num_samples // hop_length


def decibels(xp: Any, magnitude: Array, config: SpectrogramConfig) -> Array:
    """dB relative to a full-scale sine, at least -240, of STFT magnitudes in bands or bins."""
    relative = (magnitude / (config.n_fft / 4)).clip(SILENCE)
    loudness: Array = 20 * xp.log10(relative)
    return loudness


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
    knee, step = 1000.0, np.log(6.4) / 27
    top = sample_rate / 2
    highest = 3 * top / 200 if top < knee else 15 + np.log(top / knee) / step
    mel = np.linspace(0, highest, n_mels + 2)
    hertz = np.where(mel < 15, 200 * mel / 3, knee * np.exp(step * (mel - 15)))
    bins = np.linspace(0, top, n_fft // 2 + 1)
    slopes = (bins - hertz[:, None]) / np.diff(hertz, append=np.inf)[:, None]
    filters = np.minimum(slopes[:-2], 1 - slopes[1:-1]).clip(0)
    sums = filters.sum(axis=1, keepdims=True)
    rows: npt.NDArray[np.float32] = (filters / np.where(sums > 0, sums, 1)).astype(np.float32)
    return rows
