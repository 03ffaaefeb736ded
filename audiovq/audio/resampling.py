"""Resampling with soxr: one recording, a stream of blocks, or many recordings through one filter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr

from audiovq.audio.waveform import Waveform, peak_of

RING = 128
"""Samples, at the lower of two rates, in which the impulse response of the resampling filter decays."""
LONGEST_PERIOD = 2048
"""Longest common period of two rates, in samples, for which recordings share one filter."""


class Resampler:
    """Streaming resampler: blocks give the same samples as the whole signal at once.

    Silence is fed in before the first block, as soxr's first samples would be wrong without it.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int = 1) -> None:
        self.stream: Any = None
        self._rates = from_rate, to_rate
        self._taken = self._given = 0
        if from_rate != to_rate:
            self.stream = soxr.ResampleStream(from_rate, to_rate, channels, "float32", "HQ")
            silence, self._early = _periods(from_rate, to_rate, RING)
            self._before = np.zeros((silence, channels)[:channels], np.float32)

    def __call__(self, block: Waveform, last: bool) -> Waveform:
        """Resample a block (samples,), or (2, samples): the samples that are ready so far, and all others after the
        last."""
        if self.stream is None:
            return block
        block = block.T  # soxr has the samples first
        self._taken += len(block)
        if len(self._before):
            block = np.concatenate([self._before, block])
            self._before = self._before[:0]
        resampled: Waveform = self.stream.resample_chunk(block, last)
        early = min(self._early, len(resampled))
        self._early -= early
        resampled = resampled[early:]
        if last:
            resampled = resampled[: _length(self._taken, *self._rates) - self._given]
        self._given += len(resampled)
        return np.ascontiguousarray(resampled.T)


def _length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Samples after resampling, rounded, halves down: soxr gives at least as many."""
    return (2 * num_samples * to_rate + from_rate - 1) // (2 * from_rate)


def _periods(from_rate: int, to_rate: int, least: int) -> tuple[int, int]:
    """Samples, at both rates, of the shortest time that is whole at both and `least` at the lower one."""
    common = math.gcd(from_rate, to_rate)
    times = math.ceil(least * common / min(from_rate, to_rate))
    return times * from_rate // common, times * to_rate // common


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """(..., samples) at one rate → (..., round(samples * to / from)) at another, by soxr's high quality."""
    return Resampler(from_rate, to_rate, waveform.ndim)(waveform, last=True)


def resample_all(waveforms: Sequence[Waveform], from_rate: int, to_rate: int) -> Sequence[Waveform]:
    """Resample waveforms (samples,), or all (2, samples), through one filter; each equals `resample` within 4e-6 of
    its peak.

    They are laid end to end with silence between them, each at a multiple of the rates' common period,
    and scaled by powers of two, so that rounding does not affect quiet ones. Takes several times their
    memory.
    """
    period, _ = _periods(from_rate, to_rate, 1)
    if from_rate == to_rate:
        return waveforms
    if waveforms and waveforms[0].ndim == 2:
        apart = resample_all([side for both in waveforms for side in both], from_rate, to_rate)
        return [
            np.stack([left, right]) for left, right in zip(apart[::2], apart[1::2], strict=True)
        ]
    if period > LONGEST_PERIOD:
        return [resample(waveform, from_rate, to_rate) for waveform in waveforms]
    silence, _ = _periods(from_rate, to_rate, RING)
    starts = np.cumsum([0, *(-(-len(w) // period) * period + silence for w in waveforms)]).tolist()
    peaks = [peak_of(waveform) for waveform in waveforms]
    scales = [2.0 ** (math.frexp(peak)[1] - 1) for peak in peaks]
    signal = np.zeros(starts[-1], np.float32)
    for waveform, start, scale in zip(waveforms, starts, scales, strict=False):
        np.divide(waveform, scale, out=signal[start : start + len(waveform)])
    joined = resample(signal, from_rate, to_rate)
    resampled = []
    for waveform, start, scale, peak in zip(waveforms, starts, scales, peaks, strict=False):
        begin = start * to_rate // from_rate
        length = _length(len(waveform), from_rate, to_rate)
        with np.errstate(over="ignore"):  # values close to infinity may reach it
            resampled.append(joined[begin : begin + length] * np.float32(scale if peak else 0))
    return resampled
