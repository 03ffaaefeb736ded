"""How far a recording's sound goes: its length, its peak, and where in it silence ends and begins."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from audiovq.audio import waveform as audio_waveform
from audiovq.audio.waveform import AudioError, Waveform, peak_of

SILENT = 9.1e-5
"""A recording whose samples stay below it, -80 dBFS within what 16 bits tell, is silent."""


class SilenceDetector:
    """What a recording's blocks tell, one after another: its length, its peak, where sound is."""

    def __init__(self, sample_rate: int, where: bool = True) -> None:
        """`where` False: it will not be asked where sound is."""
        self.num_samples = 0
        self.peak = 0.0
        """Of the absolute values."""
        self._where = where
        self._step = max(1, sample_rate // 100)
        self._rest: Waveform = np.zeros(0, np.float32)
        self._powers: list[npt.NDArray[np.float64]] = []

    def add(self, block: Waveform) -> None:
        """Take in the next block, of any length. Raises AudioError where a sample is no number."""
        self.num_samples += len(block)
        peak = peak_of(block)
        if not math.isfinite(peak):
            raise AudioError(audio_waveform.NO_NUMBERS)
        self.peak = max(self.peak, peak)
        if not self._where:
            return
        samples = np.concatenate([self._rest, block]) if len(self._rest) else block
        cut = len(samples) - len(samples) % self._step
        self._powers.append(self._power(samples[:cut]))
        self._rest = samples[cut:]

    def trim(self, trim_db: float) -> tuple[int, int]:
        """Where the sound begins and ends, in samples: (start, end), end exclusive.

        10 ms are kept on each side of what is not silence. Silence throughout gives (0, 0).
        """
        loud = np.flatnonzero(self.loud(trim_db))
        if not len(loud):
            return 0, 0
        start, end = (int(loud[0]) - 1) * self._step, (int(loud[-1]) + 3) * self._step
        return max(0, start), min(self.num_samples, end)

    def loud(self, trim_db: float) -> npt.NDArray[np.bool_]:
        """(windows,): which windows of 20 ms, 10 ms apart, are not silence.

        Silence is what lies `trim_db` below the loudest one's power; what does not change within
        10 ms is no sound.
        """
        rest = self._rest
        if len(rest):
            rest = np.append(rest, np.full(self._step - len(rest), rest[-1]))
        power = np.concatenate([*self._powers, self._power(rest)])
        power = power + np.append(power[1:], 0)
        loud: npt.NDArray[np.bool_] = power > power.max(initial=0) * 10 ** (-trim_db / 10)
        return loud

    def _power(self, samples: Waveform) -> npt.NDArray[np.float64]:
        """(steps * step,) → (steps,), without each step's mean: a slow wave is no sound."""
        steps = samples.reshape(-1, self._step).astype(np.float64)
        steps -= steps.mean(axis=1, keepdims=True)
        power: npt.NDArray[np.float64] = np.einsum("ij,ij->i", steps, steps)
        return power


def trim(waveform: Waveform, sample_rate: int, trim_db: float) -> tuple[int, int]:
    """Where the sound of a whole waveform begins and ends: see `Extent.trim`."""
    extent = SilenceDetector(sample_rate)
    extent.add(waveform)
    return extent.trim(trim_db)
