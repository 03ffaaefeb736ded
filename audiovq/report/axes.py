"""Ticks of a spectrogram's axes: seconds and Hz at round numbers."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

from audiovq.spectral.spectrogram import Spectrogram

ROUND = (1, 2, 5)
"""First digits of ticks."""
HERTZ_APART, HERTZ_EDGE = 0.17, 0.05
"""Shares of the height between two ticks, and from both edges to a tick, at least."""


class Tick(NamedTuple):
    """A mark on an axis."""

    share: float
    """Where it is: 0 at the beginning (left, bottom), 1 at the end."""
    text: str


def second_ticks(seconds: float, parts: int = 5) -> list[Tick]:
    """Ticks of an axis from 0 to `seconds`, in at most `parts` parts."""
    step = _round_up(seconds / parts)
    count = math.floor(seconds / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [Tick(i * step / seconds, f"{i * step:.{digits}f}") for i in range(count + 1)]


def hertz_ticks(spectrogram: Spectrogram, bins: int | None = None) -> list[Tick]:
    """Ticks of an axis of frequency, lowest first, over `bins` rows of a picture, of which the lowest are the
    spectrogram's (None: as many as it has)."""
    hertz = bin_hertz(spectrogram)
    ticks: list[Tick] = []
    for exponent in range(1, 6):
        for digit in ROUND:
            wanted = digit * 10**exponent
            above = bisect.bisect_left(hertz, wanted)
            if not 0 < above < len(hertz):
                continue
            low, high = hertz[above - 1], hertz[above]
            row = above - 1 + (wanted - low) / max(high - low, 1e-9) + 0.5
            share = row / (bins or len(hertz))
            if not HERTZ_EDGE <= share <= 1 - HERTZ_EDGE:
                continue
            if not ticks or share - ticks[-1].share >= HERTZ_APART:
                ticks.append(Tick(share, hertz_text(wanted)))
    return ticks


def bin_hertz(spectrogram: Spectrogram) -> list[float]:
    """The frequency at the middle of each bin or band, lowest first."""
    config = spectrogram.config
    width = config.sample_rate / config.n_fft
    if spectrogram.mel is not None:
        return [i * width for i in spectrogram.mel.argmax(dim=1).tolist()]
    return [i * width for i in range(config.bins)]


def hertz_text(hertz: float) -> str:
    """A frequency in few characters, such as `500` or `2k`."""
    return f"{hertz / 1000:g}k" if hertz >= 1000 else f"{hertz:g}"


def _round_up(value: float) -> float:
    """The next number that begins with one of ROUND."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (*ROUND, 10) if digit * power >= value * (1 - 1e-9))
