"""Sounds and pictures inside a page: WAV and PNG files as data URIs."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from audiovq.spectral.picture import data_uri


def wav(waveform: npt.NDArray[np.float32], sample_rate: int) -> str:
    """(samples,) → a 16-bit WAV; what goes beyond full scale is brought down to it as a whole."""
    import soundfile

    samples = np.nan_to_num(waveform)
    samples = samples / max(1.0, float(np.abs(samples).max(initial=0)))
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, subtype="PCM_16", format="WAV")
    return data_uri("audio/wav", file)
