"""Channels → mono: their mean, or one of them where they cancel each other; without a constant offset."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from audiovq.audio.waveform import Waveform

OFFSET = 0.25
"""A constant that much larger than the sound around it (its standard deviation) is no sound."""
LOST = 0.01
"""Where the mean holds less than this share of the channels' power, they cancel each other."""
PART = 0.1
"""This share of a block's power must be in steps that cancel, so that one channel is taken."""
STEPS = 10
"""A second has so many."""
NOTE = "channels cancel each other, the louder one is taken"


class Mixer:
    """Blocks of a recording, in order → mono. The offset is that of the first block; once a block's
    channels cancel each other, its louder channel is taken until the end, and `channel` says which."""

    def __init__(self, sample_rate: int) -> None:
        self.channel: int | None = None
        self._step = max(1, sample_rate // STEPS)
        self._offset: float | None = None

    def mix(self, samples: Waveform) -> npt.NDArray[np.floating[Any]]:
        """(samples, channels) → (samples,). What is not a number stays none."""
        if samples.shape[1] == 1:
            return samples[:, 0]
        if self.channel is None:
            self.channel = cancelled(samples, self._step)
        if self.channel is None:
            return mean(samples)
        return np.ascontiguousarray(samples[:, self.channel])

    def centre(self, mono: npt.NDArray[np.floating[Any]]) -> Waveform:
        """What `mix` gave (samples,), numbers all of them and one in the first block at least, without
        the offset."""
        if self._offset is None:
            self._offset = _offset(mono.astype(np.float64))
        if self._offset:
            mono = mono - self._offset
        return mono.astype(np.float32, copy=False)


def mean(samples: Waveform) -> npt.NDArray[np.floating[Any]]:
    """(samples, channels) → (samples,), the mean of the channels."""
    mono = np.zeros(len(samples))  # by hand: NumPy's mean over so few takes several times as long
    for channel in samples.T:
        mono += channel
    mono /= samples.shape[1]
    return mono


def cancelled(samples: Waveform, step: int) -> int | None:
    """The loudest of some channels (samples, channels) where they cancel each other; else None.

    They do where the mean holds less than LOST of their mean power in steps of so many samples, and
    these have PART of all power. What does not change within a step is no sound.
    """
    step = min(step, len(samples))
    if not step:
        return None
    steps = samples[: len(samples) - len(samples) % step].reshape(-1, step, samples.shape[1])
    mono = np.zeros(steps.shape[:2], np.float32)
    powers = np.zeros((samples.shape[1], len(steps)))
    with np.errstate(over="ignore", invalid="ignore"):  # and so nothing that is no number cancels
        for number in range(samples.shape[1]):
            channel = steps[:, :, number] - steps[:, :, number].mean(axis=1, keepdims=True)
            powers[number] = np.einsum("ij,ij->i", channel, channel)
            mono += channel
        mixed = np.einsum("ij,ij->i", mono, mono).astype(np.float64) / samples.shape[1] ** 2
        power = powers.mean(axis=0)
        lost = power[mixed < LOST * power].sum()
        if not 0 < PART * power.sum() <= lost:
            return None
    whole = powers.sum(axis=1)
    return int(np.argmax(whole > 0.999 * whole.max()))  # of equally loud ones the first


def _offset(samples: npt.NDArray[np.float64]) -> float:
    """The mean, where it is OFFSET times as large as the standard deviation around it; else 0."""
    mean = float(samples.sum()) / len(samples)
    variance = float(np.einsum("i,i->", samples, samples)) / len(samples) - mean**2
    return mean if mean**2 > OFFSET**2 * variance else 0.0
