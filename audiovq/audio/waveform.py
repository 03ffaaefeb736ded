"""The waveform type, its peak, and the error that a recording raises when it cannot be used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiovq.config.errors import AudiovqError


def peak_of(samples: Waveform) -> float:
    """The largest absolute value, 0 of none, NaN where one is no number."""
    return float(np.maximum(samples.max(initial=0), -samples.min(initial=0)))


NO_NUMBERS = "holds samples that are not numbers (NaN or infinity)"


class AudioError(AudiovqError):
    """A recording that cannot be used; its text is the reason."""


Waveform = npt.NDArray[np.float32]
