"""The ends of decoded sounds, which begin from silence and end in it, and the seams between a recording and new parts.

Before its first sample and after its last, a sound is silent. A phase that is estimated from magnitudes spreads an
onset over its window, so that a decoded waveform would begin, and a sampled one end, with a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from audiovq.audio.silence import trim
from audiovq.audio.waveform import Waveform, peak_of
from audiovq.config.output import OutputConfig
from audiovq.config.spectrogram import PreprocessConfig

STEP_SECONDS = 0.001
"""Seconds at the ends of every decoded sound in which it rises from 0, and falls to 0. The first millisecond of half
of all drum hits stays below a tenth of their peak."""
RELEASE_SECONDS = 0.01
"""The same at the end of a new sound that has decayed."""
RINGING_SECONDS = 0.1
"""The same at the end of a new sound that still rings,"""
RINGING_SHARE = 1 / 16
"""but at most this share of the sound, where that is longer than RELEASE_SECONDS: a spoken digit of half a second would
lose its last sound."""
RINGING = 0.03
"""A sound rings if the peak of its last RELEASE_SECONDS is above this share of its peak (-30 dB)."""
TRIM_DB = PreprocessConfig().trim_db
"""A new sound ends where its recording would be trimmed."""
Spans = Sequence[tuple[int, int]]
"""First sample of each part, and the one after its last."""
FADE_SECONDS = 0.01
"""Length of the crossfade before and after each new part."""
LEVEL_SECONDS = 0.05
"""Length beside a seam that levels are compared in."""
MAX_GAIN_DB = 6.0
"""Largest change of the level of a new part."""
QUIET_DB = -40.0
"""Levels are not compared where either sound is this far below the recording's peak."""
HIGHEST = OutputConfig().highest_peak
"""Highest peak of a new part, unless the recording's is higher."""


def from_silence(
    waveform: Waveform, sample_rate: int, begins: bool = True, ends: bool = True
) -> Waveform:
    """A waveform (samples,) or (2, samples), part of a sound that it begins, ends, or both, with faded ends; a copy.

    The fades take STEP_SECONDS, at most an eighth of the samples.
    """
    faded = waveform.copy()
    length = waveform.shape[-1]
    ramp = _ramp(STEP_SECONDS, sample_rate, length // 8)
    if begins:
        faded[..., : len(ramp)] *= ramp
    if ends:
        faded[..., length - len(ramp) :] *= ramp[::-1]
    return faded


def ended(waveform: Waveform, sample_rate: int, trims: bool) -> Waveform:
    """A new sound (samples,) or (2, samples) that ends in silence.

    With `trims`, it is cut where recordings are when they are preprocessed: by `silence.trim`. Then it is faded out, longer
    if it still rings: see RINGING_SECONDS. The fade takes at most half of the sound.
    """
    release = round(RELEASE_SECONDS * sample_rate)
    if trims:
        waveform = waveform[..., : trim(waveform, sample_rate, TRIM_DB)[1] or None]
    length = waveform.shape[-1]
    ramp = _ramp(RELEASE_SECONDS, sample_rate, length // 2)
    if peak_of(waveform[..., -release:]) > RINGING * peak_of(waveform):
        most = max(len(ramp), int(RINGING_SHARE * length))
        ramp = _ramp(RINGING_SECONDS, sample_rate, most)
    faded = waveform.copy()
    faded[..., length - len(ramp) :] *= ramp[::-1]
    return faded


def join(original: Waveform, made: Waveform, spans: Spans, sample_rate: int) -> Waveform:
    """`made` in `spans` and `original` elsewhere, (samples,) or (channels, samples), as long as `made`.

    Before and after each span, `made` is cross-faded with equal power in FADE_SECONDS, in which it is assumed to
    represent the same sound as the original. Its level is changed to the original's beside the seams, linearly in
    decibels from one to the other. All other samples of the original are unchanged.
    """
    num_samples = made.shape[-1]
    missing = max(0, num_samples - original.shape[-1])
    widths = [(0, 0)] * (original.ndim - 1) + [(0, missing)]
    joined: Waveform = np.pad(original, widths)[..., :num_samples].copy()
    made = np.broadcast_to(made, joined.shape)
    highest = max(HIGHEST, peak_of(original))
    fade = round(FADE_SECONDS * sample_rate)
    for begin, end in spans:
        first, last = max(0, begin - fade), min(num_samples, end + fade)
        if end >= original.shape[-1]:
            last = end = num_samples
        position = np.arange(first, last, dtype=np.float32)
        rise = (position - first + 0.5) / (begin - first) if begin > first else 1.0
        fall = (last - position - 0.5) / (last - end) if last > end else 1.0
        angle = np.pi / 2 * np.clip(np.minimum(rise, fall), 0, 1) * np.ones_like(position)
        new = made[..., first:last] * _gains(joined, made, (begin, end), (first, last), sample_rate)
        new *= np.float32(min(1.0, highest / max(peak_of(new), 1e-9)))
        mixed = np.cos(angle) * joined[..., first:last] + np.sin(angle) * new
        joined[..., first:last] = np.clip(
            np.where(angle < np.pi / 2, mixed, new), -highest, highest
        )
    return joined


def add(original: Waveform, change: Waveform, spans: Spans, sample_rate: int) -> Waveform:
    """`original` with `change` added in `spans`, both (samples,) or (channels, samples) of equal length.

    Before and after each span, the change is faded in and out in FADE_SECONDS. All other samples of the original are
    unchanged.
    """
    fade = round(FADE_SECONDS * sample_rate)
    num_samples = original.shape[-1]
    changed, highest = original.copy(), max(HIGHEST, peak_of(original))
    for begin, end in spans:
        first, last = max(0, begin - fade), min(num_samples, end + fade)
        gain = np.ones(max(0, last - first), np.float32)
        rise, fall = (_ramp(FADE_SECONDS, sample_rate, n) for n in (begin - first, last - end))
        gain[: len(rise)] *= rise
        gain[len(gain) - len(fall) :] *= fall[::-1]
        part = original[..., first:last] + gain * change[..., first:last]
        changed[..., first:last] = np.clip(part, -highest, highest)
    return changed


def _gains(
    original: Waveform,
    made: Waveform,
    span: tuple[int, int],
    window: tuple[int, int],
    sample_rate: int,
) -> npt.NDArray[np.float32]:
    """Gain of each sample of `made` in `window`, (samples,) or (channels, samples): see `join`."""
    width = round(LEVEL_SECONDS * sample_rate)
    (begin, end), num_samples = span, made.shape[-1]
    seams = []
    if begin > 0:
        seams.append((begin, slice(max(0, begin - width), begin)))
    if end < num_samples:
        seams.append((end, slice(end, min(num_samples, end + width))))
    quiet = peak_of(original) * 10 ** (QUIET_DB / 20)
    channels = np.atleast_2d(original), np.atleast_2d(made)
    gains = []
    for kept, new in zip(*channels, strict=True):
        decibels = []
        for _, part in seams:
            levels = [
                float(np.sqrt(np.mean(np.square(x[part], dtype=np.float64)))) for x in (kept, new)
            ]
            ratio = levels[0] / levels[1] if min(levels) > quiet else 1.0
            decibels.append(float(np.clip(20 * np.log10(ratio), -MAX_GAIN_DB, MAX_GAIN_DB)))
        position = np.arange(*window)
        curve = np.interp(position, [at for at, _ in seams], decibels) if seams else 0 * position
        gains.append(10 ** (curve / 20))
    return np.array(gains if original.ndim > 1 else gains[0], np.float32)


def _ramp(seconds: float, sample_rate: int, most: int) -> Waveform:
    """Half a period of a cosine from 0 to 1 (samples,), `most` samples at most."""
    samples = min(round(seconds * sample_rate), most)
    phase = (np.arange(samples, dtype=np.float32) + 0.5) / max(1, samples)
    ramp: Waveform = np.sin(math.pi / 2 * phase).astype(np.float32) ** 2
    return ramp
