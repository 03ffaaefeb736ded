"""Envelopes of sounds: attack, pre-echo, clicks, and a beat at the rate of the frames.

These are properties of one waveform, which spectral distances hardly show: whether a drum hits, whether something
sounds before it, whether it is cut, and whether noise sounds like metal. Each figure is to be read beside
that of real recordings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from audiovq.audio.waveform import Waveform

SILENT = 1e-4
"""Peak, 80 dB below full scale, up to which a waveform has no figures."""
AUDIBLE = 0.01
"""Where an attack begins, relative to the loudest millisecond: 40 dB below it."""
LOUD = 0.5
"""Where an attack ends, and the onset is, relative to the loudest millisecond."""
AROUND_SECONDS = 0.02
"""Duration of the sound before and after the onset that a pre-echo is measured in."""
FLOOR_DB = -100.0
"""Lowest pre-echo: silence before the onset."""
CLICK = 0.05
"""Share of the peak above which a first or last sample is a click."""
WINDOW_SECONDS = 256 / 44_100
"""Window in which the envelope of a band is measured, shorter than the hop of any spectrogram here."""
STEPS_PER_WINDOW = 16
BAND_HZ = 1_378.0
"""Width of a band: eight bins of such a window at 44.1 kHz."""
LOWEST_HZ, HIGHEST_HZ = 3_000.0, 14_000.0
"""Range of the bands; for rates below 24 kHz they begin at an eighth of the rate."""
BEAT_SECONDS = 0.25, 0.12
"""Longest stretch that is searched for a beat, and the shortest."""
BEAT_HZ = 7.0
"""Distance from the rate of the frames within which a peak is the beat."""
NEAR_HZ = 14.0, 35.0
"""Distances from the rate of the frames at which its neighbours are."""

Floats = npt.NDArray[np.floating[Any]]


def envelope_figures(
    waveforms: Sequence[Waveform], sample_rate: int, hop_seconds: float
) -> dict[str, Any]:
    """Figures of a set of waveforms (samples,): `sounds`, attack_ms (quartiles), pre_echo_db and beat_db
    (medians), clicks_at_start and clicks_at_end (shares of the sounds); None where no sound has the figure.
    """
    attacks = _known(attack_ms(w, sample_rate) for w in waveforms)
    echoes = _known(pre_echo_db(w, sample_rate) for w in waveforms)
    beats = _known(beat_db(w, sample_rate, hop_seconds) for w in waveforms)
    found = [clicks(w) for w in waveforms]
    return {
        "sounds": len(waveforms),
        "attack_ms": np.percentile(attacks, [25, 50, 75]).tolist() if attacks else None,
        "pre_echo_db": float(np.median(echoes)) if echoes else None,
        "beat_db": float(np.median(beats)) if beats else None,
        "clicks_at_start": float(np.mean([start for start, _ in found])) if found else None,
        "clicks_at_end": float(np.mean([end for _, end in found])) if found else None,
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def attack_ms(waveform: Waveform, sample_rate: int) -> float | None:
    """Milliseconds from the first audible millisecond to the first loud one (AUDIBLE, LOUD).

    Whole milliseconds, of the root mean square within each. 0 if a sound is loud at once; None for a
    silent sound, or one of less than 3 ms.
    """
    envelope = _per_millisecond(waveform, sample_rate)
    if len(envelope) < 3 or np.abs(waveform).max() < SILENT:
        return None
    loudest = envelope.max()
    return float(np.argmax(envelope > LOUD * loudest) - np.argmax(envelope > AUDIBLE * loudest))


def pre_echo_db(waveform: Waveform, sample_rate: int) -> float | None:
    """Energy of the 20 ms before the onset, in dB relative to that of the 20 ms from it, at least FLOOR_DB.

    The onset is the beginning of the first loud millisecond (LOUD). Time outside of the waveform counts
    as silence. None as for `attack_ms`.
    """
    envelope = _per_millisecond(waveform, sample_rate)
    if len(envelope) < 3 or np.abs(waveform).max() < SILENT:
        return None
    onset = int(np.argmax(envelope > LOUD * envelope.max())) * _millisecond(sample_rate)
    around = round(AROUND_SECONDS * sample_rate)
    samples = waveform.astype(np.float64)
    before = float(np.square(samples[max(0, onset - around) : onset]).sum())
    after = float(np.square(samples[onset : onset + around]).sum())
    return max(FLOOR_DB, float(10 * np.log10(before / after))) if before else FLOOR_DB


def clicks(waveform: Waveform) -> tuple[bool, bool]:
    """Whether a sound begins, and ends, with a click: a sample above CLICK of the peak. Silence has none."""
    peak = float(np.abs(waveform).max(initial=0))
    if peak < SILENT:
        return False, False
    return bool(abs(waveform[0]) > CLICK * peak), bool(abs(waveform[-1]) > CLICK * peak)


def beat_db(waveform: Waveform, sample_rate: int, hop_seconds: float) -> float | None:
    """Beat of the bands' envelopes at the rate of the frames, 1 / `hop_seconds`, in dB, mean over bands.

    In each band between LOWEST_HZ and HIGHEST_HZ, the log envelope of the first quarter second of sound,
    without its slow course (a cubic), is transformed; the beat is the greatest power within BEAT_HZ of
    the rate relative to the mean power of its neighbours (NEAR_HZ). Recorded noise has 1 to 2 dB, which
    is chance. Noise that was made from smooth magnitudes and orderly phases has 3.5 dB or more, and
    sounds like metal. None if no band sounds for long enough, or frames follow each other too fast for the envelopes.
    """
    window = round(WINDOW_SECONDS * sample_rate)
    step = max(1, window // STEPS_PER_WINDOW)
    per_second = sample_rate / step
    longest, shortest = (int(seconds * per_second) for seconds in BEAT_SECONDS)
    if len(waveform) < window + shortest * step or 1 / hop_seconds > per_second / 2:
        return None
    bands, loudness = _band_powers(waveform, sample_rate, window, step)
    beats = []
    for band in bands:
        begin = int(np.argmax(band > 1e-4 * loudness))
        envelope = band[begin : begin + longest]
        if len(envelope) >= shortest and envelope.max() > 1e-5 * loudness:
            beats.append(_beat(envelope, per_second, 1 / hop_seconds))
    return float(np.mean(beats)) if beats else None


def _millisecond(sample_rate: int) -> int:
    """Samples of a millisecond, rounded down."""
    return max(1, sample_rate // 1000)


def _per_millisecond(waveform: Waveform, sample_rate: int) -> Floats:
    """Root mean square of each whole millisecond."""
    step = _millisecond(sample_rate)
    count = len(waveform) // step
    blocks = waveform[: count * step].astype(np.float64).reshape(count, step)
    envelope: Floats = np.sqrt(np.square(blocks).mean(axis=1))
    return envelope


def _band_powers(
    waveform: Waveform, sample_rate: int, window: int, step: int
) -> tuple[Floats, float]:
    """Power (bands, steps) of each band over time; the greatest power of all bins at one time."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), window)[::step]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window), axis=1))).T
    bin_hz = sample_rate / window
    width = max(1, round(BAND_HZ / bin_hz))
    lowest = min(LOWEST_HZ, sample_rate / 8)
    first, last = int(lowest / bin_hz) + 1, min(int(HIGHEST_HZ / bin_hz) + 1, len(power))
    begins = range(first, last - width + 1, width)
    bands = np.stack([power[begin : begin + width].sum(axis=0) for begin in begins])
    return bands, float(power.sum(axis=0).max())


def _beat(envelope: Floats, per_second: float, rate: float) -> float:
    """Power of the log envelope at `rate`, in dB relative to its neighbours."""
    logs = np.log(envelope + 1e-3 * envelope.mean())
    time = np.linspace(-1, 1, len(logs))
    logs -= np.polyval(np.polyfit(time, logs, 3), time)
    power = np.square(np.abs(np.fft.rfft(logs * np.hanning(len(logs)))))
    distance = np.abs(np.fft.rfftfreq(len(logs), 1 / per_second) - rate)
    near = (distance > NEAR_HZ[0]) & (distance < NEAR_HZ[1])
    return float(10 * np.log10(power[distance < BEAT_HZ].max() / (power[near].mean() + 1e-12)))
