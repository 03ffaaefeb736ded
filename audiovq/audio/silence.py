"""Detection of silence at the start and the end of a recording; its length and peak."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from audiovq.audio import waveform as audio_waveform
from audiovq.audio.waveform import AudioError, Waveform, peak_of

SILENT = 9.1e-5
"""A recording whose absolute peak is below this (-80 dBFS, plus a margin for 16-bit rounding) is silent."""


class SilenceDetector:
    """Measures a recording block by block: its length, its peak, and which parts are silent."""

    def __init__(self, sample_rate: int, find_silence: bool = True) -> None:
        """`find_silence` False: measure only length and peak; `trim` and `loud` are not called."""
        self.num_samples = 0
        self.peak = 0.0
        """Largest absolute sample."""
        self._find_silence = find_silence
        self._step = max(1, sample_rate // 100)
        self._rest: Waveform = np.zeros(0, np.float32)
        self._steps: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.complex128]]] = []

    def add(self, block: Waveform) -> None:
        """Add the next block (samples,), or (2, samples), of any length. Raises AudioError if a sample is not
        finite."""
        self.num_samples += block.shape[-1]
        peak = peak_of(block)
        if not math.isfinite(peak):
            raise AudioError(audio_waveform.NO_NUMBERS)
        self.peak = max(self.peak, peak)
        if not self._find_silence:
            return
        samples = np.concatenate([self._rest, block], axis=-1) if self._rest.size else block
        length = samples.shape[-1]
        cut = length - length % self._step
        self._steps.append(self._powers_and_means(samples[..., :cut]))
        self._rest = samples[..., cut:]

    def trim(self, trim_db: float) -> tuple[int, int]:
        """Samples at which the sound begins and ends: (start, end), end exclusive.

        10 ms of silence are kept on each side. Silence throughout gives (0, 0).
        """
        loud = np.flatnonzero(self.loud(trim_db))
        if not len(loud):
            return 0, 0
        start, end = (int(loud[0]) - 1) * self._step, (int(loud[-1]) + 3) * self._step
        return max(0, start), min(self.num_samples, end)

    def loud(self, trim_db: float) -> npt.NDArray[np.bool_]:
        """Mask (windows,) of the windows of 20 ms, 10 ms apart, that are not silent.

        A window is silent if its power is `trim_db` or more below that of the loudest. The mean of
        every 10 ms is subtracted first, so that a DC offset has no power; where nothing else has any, as in a
        square wave of 50 Hz, the steps between these means count.
        """
        rest = self._rest
        if rest.size:
            missing = [(0, 0)] * (rest.ndim - 1) + [(0, self._step - rest.shape[-1])]
            rest = np.pad(rest, missing, mode="edge")
        powers, means = zip(*self._steps, self._powers_and_means(rest), strict=True)
        power = np.concatenate(powers)
        if not power.any():
            joined = np.concatenate(means)
            power = np.abs(np.diff(joined, prepend=joined[:1])) ** 2
        power = power + np.append(power[1:], 0)
        loud: npt.NDArray[np.bool_] = power > power.max(initial=0) * 10 ** (-trim_db / 10)
        return loud

    def _powers_and_means(
        self, samples: Waveform
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.complex128]]:
        """(steps * step,), or of two channels, → power (steps,) of each step around its mean, of both together, and
        the means (steps,), those of the second channel imaginary."""
        power = np.zeros(samples.shape[-1] // self._step)
        means = np.zeros(len(power), np.complex128)
        for side, unit in zip(np.atleast_2d(samples), (1, 1j), strict=False):
            steps = side.reshape(-1, self._step).astype(np.float64)
            mean = steps.mean(axis=1, keepdims=True)
            steps -= mean
            power += np.einsum("ij,ij->i", steps, steps)
            means += unit * mean[:, 0]
        return power, means


def trim(waveform: Waveform, sample_rate: int, trim_db: float) -> tuple[int, int]:
    """Samples at which the sound of a waveform (samples,), or (2, samples), begins and ends: see `SilenceDetector.trim`."""
    detector = SilenceDetector(sample_rate)
    detector.add(waveform)
    return detector.trim(trim_db)
