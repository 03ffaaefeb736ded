"""Writing waveforms as WAV files, from memory or block by block."""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from audiovq.audio.waveform import Waveform, peak_of
from audiovq.config.errors import AudiovqError
from audiovq.runtime.files import atomic

LIMIT = 32767 / 32768
"""Largest absolute value that 16 bits hold with either sign."""
SPOOLED = 1 << 24
"""Bytes of a sound that are buffered in memory until its peak is known; longer sounds are buffered on disk."""
MOST_BYTES = (1 << 32) - 1024
"""Largest number of bytes of samples in a WAV, whose header counts them in 32 bits."""
CHUNK_SAMPLES = 1 << 20
"""Samples that are converted and written at a time."""


def write(path: Path | str, waveform: Waveform, sample_rate: int) -> bool:
    """Write (samples,) as a 16-bit WAV: see `write_blocks`."""
    return write_blocks(path, [waveform], sample_rate)


def limited_note(limited: int, written: int) -> str:
    """Note for the user that `limited` of `written` sounds were turned down; "" if none was."""
    if not limited:
        return ""
    return f"note: turned down {limited} of {written} sounds to prevent clipping"


def safe_gain(peak: float) -> float:
    """Gain, at most 1, that brings a waveform with this peak within full scale."""
    return min(1.0, LIMIT / peak) if peak else 1.0


def write_blocks(
    path: Path | str, blocks: Iterable[Waveform], sample_rate: int, gain: float | None = None
) -> bool:
    """Write blocks (samples,), one after another, as one 16-bit WAV, atomically.

    The samples are multiplied by `gain`; None: by the `safe_gain` of their peak, so that none clips.
    Returns True if the gain is below 1. Raises AudiovqError if the file cannot be written, or is longer
    than a WAV can be.
    """
    path = Path(path)
    with (
        atomic(path) as temporary,
        tempfile.SpooledTemporaryFile(max_size=SPOOLED, mode="w+b", dir=str(path.parent)) as spool,
    ):
        peak = 0.0  # known only at the end
        for block in blocks:
            peak = max(peak, peak_of(block))
            spool.write(block.astype("<f4").tobytes())
        if spool.tell() > 2 * MOST_BYTES:
            raise AudiovqError(f"{path}: longer than a WAV file can be (4 GiB)")
        factor = np.float32(safe_gain(peak) if gain is None else gain)
        spool.seek(0)
        # Python's own writer: libsndfile rounds down, and does not report a full disk.
        with open(temporary, "wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(sample_rate)
            while data := spool.read(4 * CHUNK_SAMPLES):
                samples = np.frombuffer(data, "<f4") * factor
                file.writeframesraw(np.rint(samples * 32768).astype("<i2").tobytes())
    return bool(factor < 1)
