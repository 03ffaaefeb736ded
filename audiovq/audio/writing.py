"""Writing waveforms as WAV files, from memory or block by block."""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from audiovq.audio import reading
from audiovq.audio.waveform import Waveform, peak_of
from audiovq.config.errors import AudiovqError
from audiovq.runtime.files import atomic

LIMIT = 32767 / 32768
"""The largest value that 16 bits hold on both sides of zero."""
SPOOLED = 1 << 24
"""Bytes of a sound to be written that stay in memory; more goes to disk until its peak is known."""
MOST_BYTES = (1 << 32) - 1024
"""Of samples in a WAV, whose header counts them in 32 bits."""


def write(path: Path | str, waveform: Waveform, sample_rate: int) -> bool:
    """Write (samples,) as a 16-bit WAV: see `write_blocks`."""
    return write_blocks(path, [waveform], sample_rate)


def limited_note(limited: int, written: int) -> str:
    """How many of the sounds written were brought down to full scale, in a sentence; or nothing."""
    if not limited:
        return ""
    return (
        f"note: {limited} of {written} sounds went beyond full scale and were made softer as a"
        " whole, so that they do not crackle"
    )


def safe_gain(peak: float) -> float:
    """What a waveform of this peak is multiplied by to stay within full scale: at most 1."""
    return min(1.0, LIMIT / peak) if peak else 1.0


def write_blocks(
    path: Path | str, blocks: Iterable[Waveform], sample_rate: int, gain: float | None = None
) -> bool:
    """Write blocks (samples,), one after another, as one 16-bit WAV, atomically.

    All are multiplied by `gain`; None: by what `safe_gain` says (a clipped waveform would crackle).
    Returns True where that is less than 1. Raises AudiovqError where it cannot be written, or is longer than
    a WAV can be.
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
        # By Python's own writer: libsndfile rounds down, and says nothing where a disk is full.
        with open(temporary, "wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(sample_rate)
            while data := spool.read(4 * reading.BLOCK):
                samples = np.frombuffer(data, "<f4") * factor
                file.writeframesraw(np.rint(samples * 32768).astype("<i2").tobytes())
    return bool(factor < 1)
