"""Sounds as bytes of WAV files, and as data URIs."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from audiovq.spectral.picture import data_uri


def wav(waveform: npt.NDArray[np.float32], sample_rate: int) -> str:
    """`wav_bytes` as a data URI."""
    return data_uri("audio/wav", io.BytesIO(wav_bytes(waveform, sample_rate)))


def wav_bytes(waveform: npt.NDArray[np.float32], sample_rate: int) -> bytes:
    """A waveform (samples,) or (2, samples) as a 16-bit WAV, scaled down if its peak is above full scale."""
    import soundfile

    samples = np.nan_to_num(waveform)
    samples = samples / max(1.0, float(np.abs(samples).max(initial=0)))
    file = io.BytesIO()
    soundfile.write(file, samples.T, sample_rate, subtype="PCM_16", format="WAV")
    return file.getvalue()
