"""Writing waveforms as WAV or FLAC files, from memory or block by block."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from audiovq.audio import chunks
from audiovq.audio.chunks import Tags
from audiovq.audio.waveform import Waveform, peak_of
from audiovq.config.errors import AudiovqError
from audiovq.config.output import Bits
from audiovq.runtime.files import atomic

LIMIT = 32767 / 32768
"""Largest absolute value that 16 bits hold with either sign."""
SPOOLED = 1 << 24
"""Bytes of a sound that are buffered in memory until its peak is known; longer sounds are buffered on disk."""
MOST_BYTES = (1 << 32) - (1 << 20)
"""Largest number of bytes of samples in a WAV, whose header counts them in 32 bits."""
CHUNK_SAMPLES = 1 << 20
"""Samples that are converted and written at a time."""
WIDTHS = {"16": 2, "24": 3, "32f": 4}
"""Bytes per sample."""
MOST_FLAC_CHANNELS = 8
WHOLE_FLAC_RATE, MOST_FLAC_RATE = 65_535, 655_350
"""Hz. FLAC holds every rate up to the first, and multiples of ten above it up to the second (RFC 9639, section 9.1.2)."""
FLAC_SUFFIX = ".flac"
"""Suffix of files that are written as FLAC; all others are WAVs."""


def write(
    path: Path | str,
    waveform: Waveform,
    sample_rate: int,
    gain: float | None = None,
    bits: Bits = "16",
    tags: Tags = Tags(),
) -> bool:
    """Write (samples,) or (channels, samples) as a WAV, or as FLAC if the path ends in `.flac`: see `write_blocks`."""
    return write_blocks(path, [waveform], sample_rate, gain, bits, tags)


def limited_note(limited: int, written: int) -> str:
    """Note for the user that `limited` of `written` sounds were turned down; "" if none was."""
    if not limited:
        return ""
    return f"note: turned down {limited} of {written} sounds to prevent clipping"


def require_flac(path: Path, channels: int, sample_rate: int) -> None:
    """Raise AudiovqError where a sound with the channels and the rate (Hz) of the recording at `path` does not fit into
    FLAC."""
    if channels > MOST_FLAC_CHANNELS:
        raise AudiovqError(
            f"{path}: has {channels} channels, and FLAC holds up to {MOST_FLAC_CHANNELS}; give --format wav"
        )
    if sample_rate > MOST_FLAC_RATE or (sample_rate > WHOLE_FLAC_RATE and sample_rate % 10):
        raise AudiovqError(
            f"{path}: has {sample_rate:,} Hz, and FLAC holds up to {MOST_FLAC_RATE:,} Hz, above"
            f" {WHOLE_FLAC_RATE:,} Hz multiples of 10; give --format wav"
        )


def safe_gain(peak: float, limit: float = LIMIT) -> float:
    """Gain, at most 1, that brings a waveform with this peak to `limit` at most."""
    return min(1.0, limit / peak) if peak else 1.0


def interleaved(block: Waveform) -> bytes:
    """The samples of a block (samples,) or (2, samples) as float32, left and right alternating."""
    return block.T.astype("<f4").tobytes()


def write_blocks(
    path: Path | str,
    blocks: Iterable[Waveform],
    sample_rate: int,
    gain: float | None = None,
    bits: Bits = "16",
    tags: Tags = Tags(),
) -> bool:
    """Write blocks (samples,) or (channels, samples), one after another, as one file, atomically: FLAC if the path ends
    in `.flac`, else WAV.

    The samples are multiplied by `gain`; None: by the `safe_gain` of their peak, so that none clips. `bits` are
    those of a sample: 16, 24, or 32 as floating point (WAV only). `tags` are stored as chunks, in FLAC as comments.
    Returns True if the gain is below 1. Raises AudiovqError if the file cannot be written, or is longer
    than a WAV can be.
    """
    path = Path(path)
    is_flac = path.suffix.lower() == FLAC_SUFFIX
    if is_flac and bits == "32f":
        raise AudiovqError(f"{path}: FLAC has no floating-point samples; give 16 or 24 bits")
    with (
        atomic(path) as temporary,
        tempfile.SpooledTemporaryFile(max_size=SPOOLED, mode="w+b", dir=str(path.parent)) as spool,
    ):
        peak, channels = 0.0, 1  # known only at the end
        for block in blocks:
            peak, channels = max(peak, peak_of(block)), 1 if block.ndim == 1 else len(block)
            spool.write(interleaved(block))
        if spool.tell() // 4 * WIDTHS[bits] > MOST_BYTES:
            raise AudiovqError(f"{path}: longer than a WAV file can be (4 GiB)")
        if is_flac:
            require_flac(path, channels, sample_rate)
        factor = np.float32(safe_gain(peak) if gain is None else gain)
        form = _Form(sample_rate, channels, bits)
        (_write_flac if is_flac else _write_wav)(temporary, spool, form, factor, tags)
    return bool(factor < 1)


class _Form(NamedTuple):
    """The form of the samples in a file."""

    sample_rate: int
    channels: int
    bits: Bits


def _write_wav(path: Path, spool: IO[bytes], form: _Form, factor: np.float32, tags: Tags) -> None:
    """A WAV of the samples in `spool`, float32, channels interleaved, times `factor`.

    libsndfile does not write it: it rounds down, and does not report a full disk.
    """
    sample_rate, channels, bits = form
    num_samples, width = spool.tell() // 4, WIDTHS[bits]
    size, frame = width * num_samples, width * channels
    kind = 3 if bits == "32f" else 1
    settings = kind, channels, sample_rate, frame * sample_rate, frame, 8 * width
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, *settings)
    if bits == "32f":
        head += struct.pack("<4sII", b"fact", 4, num_samples // channels)
    after = chunks.pack(tags, sample_rate)
    whole = 4 + len(head) + 8 + size + size % 2 + len(after)
    spool.seek(0)
    with open(path, "wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + head)
        file.write(struct.pack("<4sI", b"data", size))
        while data := spool.read(4 * CHUNK_SAMPLES):
            samples = np.frombuffer(data, "<f4") * factor
            file.write(samples.tobytes() if bits == "32f" else packed(samples, width))
        file.write(bytes(size % 2) + after)


def packed(samples: Waveform, width: int) -> bytes:
    """Samples as little-endian integers of 2 or 3 bytes, rounded; those beyond full scale are cut off."""
    whole = _whole(samples, 8 * width)
    if width == 2:
        return whole.astype("<i2").tobytes()
    return whole.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def _whole(samples: Waveform, bits: int) -> npt.NDArray[np.int32]:
    """Samples as integers of this many bits."""
    scale = 1 << (bits - 1)
    scaled = np.rint(samples.astype(np.float64) * scale)
    return np.clip(scaled, -scale, scale - 1).astype(np.int32)


def _write_flac(path: Path, spool: IO[bytes], form: _Form, factor: np.float32, tags: Tags) -> None:
    """FLAC of the samples in `spool`, float32, channels interleaved, times `factor`."""
    import soundfile

    num_samples, depth = spool.tell() // 4, int(form.bits)
    spool.seek(0)
    encoded = io.BytesIO()
    kind = {"subtype": f"PCM_{depth}", "format": "FLAC"}
    with soundfile.SoundFile(encoded, "w", form.sample_rate, form.channels, **kind) as file:
        while data := spool.read(4 * form.channels * CHUNK_SAMPLES):
            samples = np.frombuffer(data, "<f4").reshape(-1, form.channels) * factor
            file.write(_whole(samples, depth) << (32 - depth))
    if not encoded.tell():  # libsndfile writes no header before the first sample
        raise OSError("FLAC could not be encoded" if num_samples else "FLAC holds a sample or more")
    with open(path, "wb") as out:
        out.write(_with_comments(encoded.getvalue(), comments(tags)))


def comments(tags: Tags) -> dict[str, str]:
    """The tags as Vorbis comments, by the names that tag editors use."""
    names = {"ISFT": "ENCODER", "INAM": "TITLE", "ICMT": "COMMENT"}
    found = {names.get(name, name): text for name, text in tags.info.items()}
    if tags.tempo is not None:
        found["BPM"] = f"{tags.tempo:g}"
    if tags.root is not None:
        found["ROOT"] = str(tags.root)
    if tags.loop is not None:
        found |= {
            "LOOPSTART": str(tags.loop[0]),
            "LOOPLENGTH": str(tags.loop[1] - tags.loop[0]),
        }
    return found


def _with_comments(flac: bytes, texts: dict[str, str]) -> bytes:
    """A FLAC file with its block of comments replaced (RFC 9639, 8.6)."""
    blocks, begin, last = [], 4, False
    while not last:
        head = int.from_bytes(flac[begin : begin + 4])
        last, kind, size = bool(head >> 31), head >> 24 & 0x7F, head & 0xFFFFFF
        if kind not in (1, 4):  # padding, comments
            blocks.append((kind, flac[begin + 4 : begin + 4 + size]))
        begin += 4 + size
    if texts:
        lines = [b""] + [
            f"{name}={text}".encode("utf-8", "replace") for name, text in texts.items()
        ]
        vendor, *rest = (struct.pack("<I", len(line)) + line for line in lines)
        blocks.append((4, vendor + struct.pack("<I", len(rest)) + b"".join(rest)))
    heads = [
        struct.pack(">I", (i == len(blocks) - 1) << 31 | kind << 24 | len(body)) + body
        for i, (kind, body) in enumerate(blocks)
    ]
    return flac[:4] + b"".join(heads) + flac[begin:]
