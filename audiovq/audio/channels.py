"""Mixing to mono: the mean of the channels, or the loudest one if they cancel each other; DC offset removed.

Mixing to stereo: left and right, of more channels by their layout.
"""

from __future__ import annotations

import math
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
SIDE_POWER = 1e-4
"""Share of the power of the sum of two channels that their difference has in a stereo recording: -40 dB."""
NOTE = "channels cancel each other; the louder one is used"
HALF_POWER = 0.5**0.5
SIDES = (
    (1.0, 0.0),  # front left
    (0.0, 1.0),  # front right
    (HALF_POWER, HALF_POWER),  # front centre
    (0.0, 0.0),  # low frequency effects
    (HALF_POWER, 0.0),  # back left
    (0.0, HALF_POWER),  # back right
    (HALF_POWER, 0.0),  # front left of centre
    (0.0, HALF_POWER),  # front right of centre
    (0.5, 0.5),  # back centre
    (HALF_POWER, 0.0),  # side left
    (0.0, HALF_POWER),  # side right
)
"""Gain of each speaker in the left and in the right channel, by the bits of the channel mask of a WAV: Recommendation
ITU-R BS.775-3, annex 4, table 2, which leaves the effects out. Speakers of later bits are above, and have none."""
Layout = tuple[tuple[float, float], ...]
"""Gains in the left and in the right channel of each channel of a file."""


class Mixer:
    """Mixes the blocks of a recording, in order, to mono.

    The DC offset is that of the first block. From the first block whose channels cancel each other, its
    loudest channel is used until the end.
    """

    def __init__(self, sample_rate: int) -> None:
        self.channel: int | None = None
        """Index of the channel used since channels cancelled each other; None: their mean."""
        self.note: str | None = None
        """Note for the user on what became of the channels."""
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
        self.note = NOTE
        return np.ascontiguousarray(samples[:, self.channel])

    def centre(self, mono: npt.NDArray[np.floating[Any]]) -> Waveform:
        """Remove the DC offset from a block (samples,) of `mix`.

        All samples must be finite, and the first block must not be empty.
        """
        if self._offset is None:
            self._offset = _offset(mono)
        if self._offset:
            mono = mono - self._offset
        return mono.astype(np.float32, copy=False)


class StereoMixer:
    """Brings the blocks of a recording, in order, to left and right, as `Mixer` brings them to mono.

    A mono recording is in the middle, the same in both. More than two channels are mixed by their layout. The DC
    offset of each side is that of the first block.
    """

    def __init__(self, channels: int, layout: Layout | None) -> None:
        """`layout` of the file's `channels`; None: unknown. Then the first, third … are left, the others right."""
        self.note: str | None = None
        """Note for the user on what became of the channels."""
        self._gains: npt.NDArray[np.float32] | None = None
        """(channels, 2); None: one or two channels."""
        self._offsets: list[float] | None = None
        if channels <= 2:
            return
        if layout is not None:
            self.note = f"{channels} channels are mixed to stereo by their layout (ITU-R BS.775)"
            self._gains = np.array(layout, np.float32)
            return
        self.note = f"{channels} channels of unknown layout are mixed to stereo: the first, third … are left"
        is_left = np.arange(channels) % 2 == 0
        sides = np.stack([is_left, ~is_left], axis=1)
        self._gains = (sides / sides.sum(axis=0)).astype(np.float32)

    def mix(self, samples: Waveform) -> npt.NDArray[np.floating[Any]]:
        """(samples, channels) → (2, samples). NaN and infinity stay so."""
        if samples.shape[1] == 1:
            return np.repeat(samples.T, 2, axis=0)
        if self._gains is None:
            return np.ascontiguousarray(samples.T)
        return np.ascontiguousarray((samples @ self._gains).T)

    def centre(self, stereo: npt.NDArray[np.floating[Any]]) -> Waveform:
        """Remove the DC offsets from a block (2, samples) of `mix`. See `Mixer.centre`."""
        if self._offsets is None:
            self._offsets = [_offset(side) for side in stereo]
        if any(self._offsets):
            stereo = stereo - np.array(self._offsets)[:, None]
        return stereo.astype(np.float32, copy=False)


def layout_of_mask(mask: int, channels: int) -> Layout | None:
    """Layout of `channels` channels by the channel mask of a WAV; None if the mask has not as many bits."""
    bits = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
    if len(bits) != channels:
        return None
    return tuple(SIDES[bit] if bit < len(SIDES) else (0.0, 0.0) for bit in bits)


def to_channels(waveform: Waveform, channels: int) -> Waveform:
    """A waveform (samples,) or (2, samples) as mono or stereo: averaged as `Mixer` does, or in the middle."""
    if waveform.ndim == channels:
        return waveform
    if channels == 2:
        return np.stack([waveform, waveform])
    found: Waveform = Mixer(STEPS_PER_SECOND * len(waveform.T)).mix(waveform.T).astype(np.float32)
    return found


def is_stereo(waveform: Waveform) -> bool:
    """Whether both sides of a waveform (2, samples) differ: their difference has over SIDE_POWER of the power of
    their sum."""
    left, right = waveform.astype(np.float64)
    middle, side = left + right, left - right
    return float(side @ side) > SIDE_POWER * float(middle @ middle)


def mean(samples: Waveform) -> npt.NDArray[np.floating[Any]]:
    """(samples, channels) → (samples,), the mean of the channels."""
    if samples.shape[1] == 2:  # halves are exact, so that the sum is rounded once, as in float64
        half = np.multiply(samples[:, 0], np.float32(0.5))
        half += samples[:, 1] * np.float32(0.5)
        return half
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
    if _never_cancel(steps):
        return None
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


def _never_cancel(steps: Waveform) -> bool:
    """Whether two channels clearly cancel in none of the steps (steps, samples, 2); False: they may.

    Powers are those of the samples less that of the means, in float32: the margin is wider than rounding.
    """
    if steps.shape[2] != 2:
        return False
    left, right = steps[..., 0], steps[..., 1]
    with np.errstate(over="ignore", invalid="ignore"):
        pairs = (left, left), (right, right), (left, right)
        left_power, right_power, cross = (np.einsum("ij,ij->i", *pair) for pair in pairs)
        power = left_power + right_power
        constant = (left.sum(axis=1) + right.sum(axis=1)) ** 2 / np.float32(steps.shape[1])
        mixed = (power + 2 * cross - constant) / 4
        return bool((mixed >= 2 * CANCELLED_POWER * power).all())


def _offset(samples: npt.NDArray[np.floating[Any]]) -> float:
    """Mean of the samples if it exceeds OFFSET standard deviations; else 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        power = float(np.einsum("i,i->", samples, samples)) / len(samples)
        if (float(samples.sum()) / len(samples)) ** 2 < OFFSET**2 / 2 * power < math.inf:
            return 0.0  # clearly less, however float32 rounds
    samples = samples.astype(np.float64)
    mean = float(samples.sum()) / len(samples)
    variance = float(np.einsum("i,i->", samples, samples)) / len(samples) - mean**2
    return mean if mean**2 > OFFSET**2 * variance else 0.0
