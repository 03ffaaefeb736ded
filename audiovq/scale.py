"""The scale of a spectrogram, in time, frequency and level; of NumPy arrays and torch tensors alike.

Loads no torch. What needs more than operators takes the arrays' namespace, `numpy` or `torch`, as `xp`,
so that datasets and models share every line of it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from audiovq.config import AudiovqError, SpectrogramConfig

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", npt.NDArray[np.float32], "Tensor")
IntOrArray = TypeVar("IntOrArray", int, npt.NDArray[np.int64], "Tensor")

LOUDEST_DB = 3.0
"""Level 0, in dB over a full-scale sine: a full-scale square wave's fundamental is at 2.1."""
SILENCE = 1e-12
"""Magnitude, of a full-scale sine's, below which nothing is told apart: -240 dB."""


def num_frames(num_samples: IntOrArray, hop_length: int) -> IntOrArray:
    """How many STFT frames a clip of `num_samples` samples has: 1 + num_samples // hop_length.

    Takes and returns an int, or integers of any shape.
    """
    return 1 + num_samples // hop_length


def decibels(xp: Any, magnitude: Array, config: SpectrogramConfig) -> Array:
    """Magnitudes of `stft`, in bands or bins → dB relative to a full-scale sine, at least -240."""
    relative = (magnitude / (config.n_fft / 4)).clip(SILENCE)
    loudness: Array = 20 * xp.log10(relative)
    return loudness


def level(xp: Any, loudest: Array, config: SpectrogramConfig) -> Array:
    """dB of clips' loudest cells → their levels, whole numbers from 0 to num_levels - 1, as floats."""
    steps: Array = xp.floor((LOUDEST_DB - loudest) / config.level_step_db)
    return steps.clip(0, config.num_levels - 1)


def level_db(level: Array, config: SpectrogramConfig) -> Array:
    """Level → dB of a clip's loudest cell, relative to a full-scale sine."""
    return LOUDEST_DB - level * config.level_step_db


def normalized(decibels: Array, loudest: Array, config: SpectrogramConfig) -> Array:
    """dB → [0, 1]: 1 at `loudest`, as `level_db` gave it, 0 from `range_db` below it on."""
    return (decibels / config.range_db + (1 - loudest / config.range_db)).clip(0, 1)


@functools.lru_cache(8)
def mel_filters(config: SpectrogramConfig) -> npt.NDArray[np.float32]:
    """`mel_bands` of the settings, float32, read-only. Raises AudiovqError where there are so many bands
    that some cover no bin."""
    rows = mel_bands(config.sample_rate, config.n_fft, config.n_mels)
    if not rows.any(axis=1).all():
        raise AudiovqError(
            f"n_mels {config.n_mels}: too many for n_fft {config.n_fft} at {config.sample_rate} Hz;"
            " give fewer bands or a longer window"
        )
    rows.flags.writeable = False
    return rows


def mel_bands(sample_rate: int, n_fft: int, n_mels: int) -> npt.NDArray[np.float32]:
    """Slaney's mel filter bank, as `librosa.filters.mel` has it: (n_mels, n_fft / 2 + 1).

    Triangles from 0 Hz to half the rate, each row summing to one, or all 0 where it covers no bin (Slaney,
    Auditory Toolbox, 1998): linear up to 1 kHz, 3 mel for 200 Hz, then 27 mel for a factor of 6.4.
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
