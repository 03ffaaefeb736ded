"""Other speech codecs for comparison: Codec 2, Speex, AMR and Opus, run as programs.

Each codes one recording of any length. Its rate counts the payload: the bits of the codec's frames, or
the bytes of its packets, without the container.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiovq.audio.waveform import Waveform
from audiovq.config.errors import AudiovqError

RATE = 8000
FLUSH = RATE // 4
"""Samples of silence appended to a recording, to flush a codec's delay."""
MAX_DELAY = RATE // 10
"""Largest delay of a codec, in samples."""
SMOOTH = RATE // 50
"""Width in samples of the window that smooths an envelope."""
MIN_CORRELATION = 0.5
"""Correlation above which a delay is found from waveforms (waveform codecs: 0.7; vocoders: 0.1)."""

Floats = npt.NDArray[np.floating[Any]]

RAW = ("-f", "s16le", "-ar", str(RATE), "-ac", "1")


class Missing(AudiovqError):
    """A codec that cannot be run on this machine; its text is the reason."""


@dataclass(frozen=True)
class Peer:
    """One codec at one rate."""

    name: str
    family: str
    code: Callable[[bytes], tuple[bytes, float]]
    """16-bit samples at RATE → decoded samples, and the bits of the payload."""
    variable: bool = False
    """Whether the rate is variable, so that pauses cost less than speech."""


def encode_decode(peer: Peer, waveform: Waveform) -> tuple[Waveform, float, float]:
    """Code and decode (samples,) at RATE → aligned samples, the payload's bits, and the coded seconds
    (those of the samples and of FLUSH).

    Raises Missing if the codec's program is not installed or fails.
    """
    padded = np.pad(waveform, (0, FLUSH))
    samples = np.rint(padded * 32768).clip(-32768, 32767).astype("<i2")
    data, bits = peer.code(samples.tobytes())
    decoded = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    return aligned(waveform, decoded), bits, len(padded) / RATE


def aligned(original: Waveform, other: Waveform) -> Waveform:
    """`other`, shifted back by its delay, and cut or zero-padded to the length of `original`."""
    lag = delay(original, other)
    begin = max(0, lag)
    moved = np.zeros_like(original)
    part = other[begin : lag + len(original)]
    moved[begin - lag : begin - lag + len(part)] = part
    return moved


def delay(original: Waveform, other: Waveform) -> int:
    """The delay of `other` in samples, from -MAX_DELAY to MAX_DELAY.

    It maximizes the cross-correlation of the waveforms or, if that is low, of their envelopes: a
    vocoder invents the phases.
    """
    lag, correlation = _lag(original, other)
    return lag if correlation > MIN_CORRELATION else _lag(_envelope(original), _envelope(other))[0]


def _lag(a: Floats, b: Floats) -> tuple[int, float]:
    """The lag of `b` behind `a` with the greatest correlation, and that correlation, at most 1."""
    n = len(a) + len(b)
    correlation = np.fft.irfft(np.fft.rfft(b, n) * np.fft.rfft(a, n).conj(), n)
    lags = np.arange(-MAX_DELAY, MAX_DELAY + 1)
    best = int(lags[correlation[lags].argmax()])
    return best, float(correlation[best] / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12))


def _envelope(waveform: Waveform) -> Floats:
    """Absolute values (samples,), smoothed over SMOOTH."""
    envelope: Floats = np.convolve(np.abs(waveform), np.hanning(SMOOTH), "same")
    return envelope


def _codec2(mode: str, samples: bytes) -> tuple[bytes, float]:
    # One byte per bit, so that frames of 18 or 28 bits are not rounded up to whole bytes.
    bits = _run(samples, "c2enc", mode, "-", "-", "--bitperchar")
    return _run(bits, "c2dec", mode, "-", "-", "--bitperchar"), len(bits)


def _speex(quality: int, samples: bytes) -> tuple[bytes, float]:
    # Ten frames of 20 ms per packet, so that rounding up to bytes costs almost nothing.
    flags = f"--narrowband --rate {RATE} --16bit --le --nframes 10 --quality {quality}".split()
    stored = _run(samples, "speexenc", *flags, "-", "-")
    return _run(stored, "speexdec", "-", "-"), _packet_bits(stored)


def _amr(samples: bytes) -> tuple[bytes, float]:
    stored = _run(samples, "sox", *_sox_raw(), "-", "-t", "amr-nb", "-C", "0", "-")
    # SoX drops frames of silence. At a constant rate pauses cost as much as speech, so all frames are
    # counted: 95 bits per 20 ms.
    return _run(stored, "sox", "-t", "amr-nb", "-", *_sox_raw(), "-"), 4750 * len(
        samples
    ) / 2 / RATE


def _sox_raw() -> list[str]:
    return ["-t", "s16", "-r", str(RATE), "-c", "1"]


def _opus(kilobits: int, vbr: str, samples: bytes) -> tuple[bytes, float]:
    flags = f"-b:a {kilobits}k -vbr {vbr} -application voip -frame_duration 60 -f ogg".split()
    stored = _ffmpeg(samples, *RAW, "-i", "-", "-c:a", "libopus", *flags, "-")
    return _ffmpeg(stored, "-c:a", "libopus", "-i", "-", *RAW, "-"), _packet_bits(stored)


def _packet_bits(stored: bytes) -> int:
    """Bits of the packets in an Ogg file."""
    return 8 * len(_ffmpeg(stored, "-i", "-", "-map", "0:a", "-c", "copy", "-f", "data", "-"))


def _ffmpeg(data: bytes, *arguments: str) -> bytes:
    return _run(data, "ffmpeg", "-v", "error", *arguments)


def _run(data: bytes, *command: str) -> bytes:
    """Run `command` on `data` and return its output. Raises Missing if it is not installed or fails."""
    if shutil.which(command[0]) is None:
        raise Missing(f"{command[0]} is not installed")
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise Missing(f"{command[0]} failed: {lines[-1] if lines else done.returncode}")
    return done.stdout


PEERS = (
    *(
        Peer(f"Codec 2 {mode}", "Codec 2", functools.partial(_codec2, mode))
        for mode in ("450", "700C", "1200", "1600", "2400", "3200")
    ),
    *(
        Peer(f"Speex {rate}k", "Speex", functools.partial(_speex, quality))
        for quality, rate in enumerate(("2.15", "3.95", "5.95", "8"))
    ),
    Peer("AMR-NB 4.75k", "AMR-NB", _amr),
    *(Peer(f"Opus {rate}k", "Opus", functools.partial(_opus, rate, "off")) for rate in (6, 8, 12)),
    *(
        Peer(f"Opus VBR {rate}k", "Opus VBR", functools.partial(_opus, rate, "on"), variable=True)
        for rate in (6, 8, 12)
    ),
)
"""Within each family, ordered by rising rate."""
