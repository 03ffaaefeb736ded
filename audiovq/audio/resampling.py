"""Resampling by soxr: one recording, a stream of blocks, or many recordings through one filter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr

from audiovq.audio.waveform import Waveform, peak_of

RING = 128
"""Samples, at the lower of two rates, after which the resampling filter is silent again."""
LONGEST_PERIOD = 2048
"""Samples after which two rates meet, up to which recordings share a filter."""


class Resampler:
    """soxr over blocks: the same samples as over the whole.

    Silence goes before the first one, since soxr's first samples would be off without it.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self.stream: Any = None
        self._rates = from_rate, to_rate
        self._taken = self._given = 0
        if from_rate != to_rate:
            self.stream = soxr.ResampleStream(from_rate, to_rate, 1, "float32", "HQ")
            silence, self._early = _periods(from_rate, to_rate, RING)
            self._before = np.zeros(silence, np.float32)

    def __call__(self, block: Waveform, last: bool) -> Waveform:
        """The samples that are ready after `block`; all that are left after the last one."""
        if self.stream is None:
            return block
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
        return resampled


def _length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Of so many samples resampled, to the nearest, a half down: soxr gives at least as many."""
    return (2 * num_samples * to_rate + from_rate - 1) // (2 * from_rate)


def _periods(from_rate: int, to_rate: int, least: int) -> tuple[int, int]:
    """The shortest time of whole samples at both rates that is `least` at the lower one: in both."""
    common = math.gcd(from_rate, to_rate)
    times = math.ceil(least * common / min(from_rate, to_rate))
    return times * from_rate // common, times * to_rate // common


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """(samples,) at one rate → (round(samples * to / from),) at another, by soxr's high quality."""
    return Resampler(from_rate, to_rate)(waveform, last=True)


def resample_all(waveforms: Sequence[Waveform], from_rate: int, to_rate: int) -> Sequence[Waveform]:
    """Waveforms (samples,), each as `resample` gives it, within two millionths of its
    peak.

    A filter is designed once for all: they go through it end to end, silence in between, each from
    where samples of both rates meet. Scaled by powers of two, so that none drowns another in its
    rounding. Takes several times their memory.
    """
    period, _ = _periods(from_rate, to_rate, 1)
    if from_rate == to_rate:
        return waveforms
    if period > LONGEST_PERIOD:
        return [resample(waveform, from_rate, to_rate) for waveform in waveforms]
    silence, _ = _periods(from_rate, to_rate, RING)
    places = np.cumsum([0, *(-(-len(w) // period) * period + silence for w in waveforms)]).tolist()
    peaks = [peak_of(waveform) for waveform in waveforms]
    scales = [2.0 ** (math.frexp(peak)[1] - 1) for peak in peaks]
    signal = np.zeros(places[-1], np.float32)
    for waveform, place, scale in zip(waveforms, places, scales, strict=False):
        np.divide(waveform, scale, out=signal[place : place + len(waveform)])
    resampled = resample(signal, from_rate, to_rate)
    found = []
    for waveform, place, scale, peak in zip(waveforms, places, scales, peaks, strict=False):
        begin = place * to_rate // from_rate
        length = _length(len(waveform), from_rate, to_rate)
        with np.errstate(over="ignore"):  # what is close to infinity may reach it
            found.append(resampled[begin : begin + length] * np.float32(scale if peak else 0))
    return found
