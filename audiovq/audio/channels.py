"""Mixing to mono: the mean of the channels, or the loudest one if they cancel each other; DC offset removed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from audiovq.audio.waveform import Waveform

OFFSET = 0.25
"""A DC offset is removed if it exceeds this multiple of the standard deviation around it."""
CANCELLED_POWER = 0.01
"""Channels cancel in a step if the power of their mean is below this share of their mean power."""
CANCELLED_SHARE = 0.1
"""One channel is used if steps that cancel hold at least this share of a block's power."""
STEPS_PER_SECOND = 10
NOTE = "channels cancel each other; the louder one is used"


class Mixer:
    """Mixes the blocks of a recording, in order, to mono.

    The DC offset is that of the first block. From the first block whose channels cancel each other, its
    loudest channel is used until the end.
    """

    def __init__(self, sample_rate: int) -> None:
        self.channel: int | None = None
        """Index of the channel used since channels cancelled each other; None: their mean."""
        self._step = max(1, sample_rate // STEPS_PER_SECOND)
        self._offset: float | None = None

    def mix(self, samples: Waveform) -> npt.NDArray[np.floating[Any]]:
        """(samples, channels) → (samples,). NaN and infinity stay so."""
        if samples.shape[1] == 1:
            return samples[:, 0]
        if self.channel is None:
            self.channel = cancelled(samples, self._step)
        if self.channel is None:
            return mean(samples)
        return np.ascontiguousarray(samples[:, self.channel])

    def centre(self, mono: npt.NDArray[np.floating[Any]]) -> Waveform:
        """Remove the DC offset from a block (samples,) of `mix`.

        All samples must be finite, and the first block must not be empty.
        """
        if self._offset is None:
            self._offset = _offset(mono.astype(np.float64))
        if self._offset:
            mono = mono - self._offset
        return mono.astype(np.float32, copy=False)


def mean(samples: Waveform) -> npt.NDArray[np.floating[Any]]:
    """(samples, channels) → (samples,), the mean of the channels."""
    mono = np.zeros(
        len(samples)
    )  # a loop: NumPy's mean over a short axis takes several times as long
    for channel in samples.T:
        mono += channel
    mono /= samples.shape[1]
    return mono


def cancelled(samples: Waveform, step: int) -> int | None:
    """Index of the loudest channel of a block (samples, channels) if its channels cancel; else None.

    Channels cancel in a step of `step` samples if the power of their mean is below CANCELLED_POWER of
    their mean power. They cancel in the block if such steps hold CANCELLED_SHARE of its power. Each
    step's mean is subtracted first, so that a DC offset does not count as power.
    """
    step = min(step, len(samples))
    if not step:
        return None
    steps = samples[: len(samples) - len(samples) % step].reshape(-1, step, samples.shape[1])
    mono = np.zeros(steps.shape[:2], np.float32)
    powers = np.zeros((samples.shape[1], len(steps)))
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # NaN compares false: such steps do not cancel
        for index in range(samples.shape[1]):
            channel = steps[:, :, index] - steps[:, :, index].mean(axis=1, keepdims=True)
            powers[index] = np.einsum("ij,ij->i", channel, channel)
            mono += channel
        mixed = np.einsum("ij,ij->i", mono, mono).astype(np.float64) / samples.shape[1] ** 2
        power = powers.mean(axis=0)
        lost = power[mixed < CANCELLED_POWER * power].sum()
        if not 0 < CANCELLED_SHARE * power.sum() <= lost:
            return None
    totals = powers.sum(axis=1)
    return int(np.argmax(totals > 0.999 * totals.max()))  # the first of equally loud channels


def _offset(samples: npt.NDArray[np.float64]) -> float:
    """Mean of the samples if it exceeds OFFSET standard deviations; else 0."""
    mean = float(samples.sum()) / len(samples)
    variance = float(np.einsum("i,i->", samples, samples)) / len(samples) - mean**2
    return mean if mean**2 > OFFSET**2 * variance else 0.0
