"""The ends of decoded sounds: they begin from silence and end in it, without clicks.

Before its first sample and after its last, a sound is silent. A phase that is estimated from magnitudes spreads an
onset over its window, so that a decoded waveform would begin, and a sampled one end, with a step.
"""

from __future__ import annotations

import math

import numpy as np

from audiovq.audio.waveform import Waveform, peak_of

STEP_SECONDS = 0.001
"""Seconds at the ends of every decoded sound in which it rises from 0, and falls to 0. The first millisecond of half
of all drum hits stays below a tenth of their peak."""
RELEASE_SECONDS = 0.01
"""The same at the end of a new sound that has decayed."""
RINGING_SECONDS = 0.1
"""The same at the end of a new sound that still rings."""
RINGING = 0.03
"""A sound rings if the peak of its last RELEASE_SECONDS is above this share of its peak (-30 dB)."""
DECAYED = 10 ** (-50 / 20)
"""A new sound ends when it has decayed to this share of its peak, which recordings are trimmed by (`trim_db`)."""


def from_silence(
    waveform: Waveform, sample_rate: int, begins: bool = True, ends: bool = True
) -> Waveform:
    """A waveform (samples,), part of a sound that it begins, ends, or both, with faded ends; a copy.

    The fades take STEP_SECONDS, at most an eighth of the samples.
    """
    faded = waveform.copy()
    ramp = _ramp(STEP_SECONDS, sample_rate, len(waveform) // 8)
    if begins:
        faded[: len(ramp)] *= ramp
    if ends:
        faded[len(faded) - len(ramp) :] *= ramp[::-1]
    return faded


def ended(waveform: Waveform, sample_rate: int, trims: bool) -> Waveform:
    """A new sound (samples,) that ends in silence.

    With `trims`, it is cut RELEASE_SECONDS after the last sample above DECAYED. Then it is faded out, longer
    if it still rings. The fade takes at most half of the sound.
    """
    peak = peak_of(waveform)
    release = round(RELEASE_SECONDS * sample_rate)
    if trims and peak:
        last = int(np.flatnonzero(np.abs(waveform) > DECAYED * peak)[-1])
        waveform = waveform[: last + 1 + release]
    rings = peak_of(waveform[-release:]) > RINGING * peak
    ramp = _ramp(RINGING_SECONDS if rings else RELEASE_SECONDS, sample_rate, len(waveform) // 2)
    faded = waveform.copy()
    faded[len(faded) - len(ramp) :] *= ramp[::-1]
    return faded


def _ramp(seconds: float, sample_rate: int, most: int) -> Waveform:
    """Half a period of a cosine from 0 to 1 (samples,), `most` samples at most."""
    samples = min(round(seconds * sample_rate), most)
    phase = (np.arange(samples, dtype=np.float32) + 0.5) / max(1, samples)
    ramp: Waveform = np.sin(math.pi / 2 * phase).astype(np.float32) ** 2
    return ramp
