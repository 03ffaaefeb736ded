"""The character of recordings, measured on a few of them: hits, tones, or neither."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from audiovq.audio import reading
from audiovq.audio.silence import SILENT
from audiovq.audio.waveform import AudioError, Waveform

RECORDINGS = 12
"""Recordings that are measured, at most; the median decides."""
SECONDS = 1.0
"""Duration from the onset that is measured."""
READ_SECONDS = 3.0
"""Beginning of a recording that is read, to find its onset in."""
BLOCK_SAMPLES = 1 << 16
ONSET = 0.01
"""Share of the peak from which a sound has begun."""
EARLY_SECONDS = 0.06
"""The beginning of a hit."""
HIT = 0.4
"""Share of the energy in the beginning, from which a sound is a hit. Medians: drums .76, body percussion .67, notes
.09, recordings of rooms .01, spoken digits .04."""
TONE = 0.15
"""Loss of concentration by halved windows, from which a sound is a tone. Medians: notes .40, drums .04, rooms .02, body
percussion -.03."""
WINDOW_SECONDS = 0.046
"""Length of the windows that concentration is compared with windows of half the length by."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Character:
    """Medians over recordings."""

    early: float
    """Share of the energy in the first 60 ms from the onset, 0 to 1."""
    ringing: float
    """How much less concentrated the spectrogram is with windows of half the length: above 0 for tones, below for
    hits."""

    @property
    def kind(self) -> Literal["hits", "tones", "mixed"]:
        """Hits and tones want other spectrograms than everything else."""
        if self.early >= HIT:
            return "hits"
        return "tones" if self.ringing >= TONE else "mixed"


def character(paths: Iterable[Path], sample_rate: int) -> Character | None:
    """Character of recordings, resampled to `sample_rate`; of RECORDINGS of them, evenly spaced in their order.

    Recordings that cannot be read or are silent do not count. None if none counts.
    """
    chosen = evenly_spaced(list(paths), RECORDINGS)
    sounds = [sound for path in chosen if (sound := beginning(path, sample_rate)) is not None]
    if not sounds:
        return None
    measured = [(early(sound, sample_rate), ringing(sound, sample_rate)) for sound in sounds]
    return Character(*np.median(measured, axis=0).round(3).tolist())


def evenly_spaced(items: Sequence[_T], most: int) -> Sequence[_T]:
    """Some of the items, `most` or fewer, at equal distances from the first on; all if there are no more."""
    return items[:: max(1, -(-len(items) // most))]


def beginning(path: Path, sample_rate: int) -> Waveform | None:
    """SECONDS (samples,) from the onset of a recording; None if it is silent or cannot be read."""
    with contextlib.suppress(AudioError):
        joined = np.zeros(0, np.float32)
        for block in reading.blocks(path, sample_rate, block_samples=BLOCK_SAMPLES):
            joined = np.append(joined, block)
            if len(joined) >= READ_SECONDS * sample_rate:
                break
        peak = np.abs(joined).max(initial=0)
        if peak >= SILENT:
            onset = int(np.argmax(np.abs(joined) > ONSET * peak))
            return joined[onset : onset + round(SECONDS * sample_rate)]
    return None


def early(waveform: Waveform, sample_rate: int) -> float:
    """Share of the energy of a waveform (samples,) in its first EARLY_SECONDS, 0 to 1."""
    power = np.square(waveform, dtype=np.float64)
    return float(power[: round(EARLY_SECONDS * sample_rate)].sum() / max(power.sum(), 1e-30))


def ringing(waveform: Waveform, sample_rate: int) -> float:
    """Octaves by which the spectrogram (samples,) of a waveform is less concentrated with windows of half the length.

    Concentration is the ratio of the norms L2 and L1 of the magnitudes: D. L. Jones and T. W. Parks, "A high
    resolution data-adaptive time-frequency representation", IEEE TASSP 1990, with other norms.
    """
    n_fft = 2 ** round(np.log2(WINDOW_SECONDS * sample_rate))
    return _spread(waveform, n_fft // 2) - _spread(waveform, n_fft)


def _spread(waveform: Waveform, n_fft: int) -> float:
    """log2 of the norm L1 of the magnitudes over L2, for cells of equal number."""
    hop_length = n_fft // 4
    padded = np.pad(waveform, (n_fft // 2, n_fft // 2 + hop_length))
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    taper = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    magnitude: npt.NDArray[np.floating] = np.abs(np.fft.rfft(windows * taper))
    norm = float(np.sqrt(np.square(magnitude).sum() * magnitude.size))
    return float(np.log2(max(float(magnitude.sum()), 1e-30) / max(norm, 1e-30)))
