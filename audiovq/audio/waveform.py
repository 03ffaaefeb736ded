"""The waveform type, its peak, and the error for recordings that cannot be used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiovq.config.errors import AudiovqError


def peak_of(samples: Waveform) -> float:
    """Largest absolute value; 0 for no samples, NaN if any sample is NaN."""
    return float(np.maximum(samples.max(initial=0), -samples.min(initial=0)))


NO_NUMBERS = "holds samples that are not numbers (NaN or infinity)"


class AudioError(AudiovqError):
    """A recording that cannot be used; its text is the reason."""


Waveform = npt.NDArray[np.float32]
"""Samples of one sound: mono (samples,), stereo (2, samples), left first."""
