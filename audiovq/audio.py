"""Recordings: find, read, resample, write. NumPy in, NumPy out; mono float32 in [-1, 1]."""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import tempfile
import wave
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from audiovq.config import AudiovqError
from audiovq.files import atomic

Waveform = npt.NDArray[np.float32]
BLOCK = 1 << 20
"""Samples that are read at a time, all channels together, before or after resampling."""
LIMIT = 32767 / 32768
"""The largest value that 16 bits hold on both sides of zero."""
SPOOLED = 1 << 24
"""Bytes of a sound to be written that stay in memory; more goes to disk until its peak is known."""
MOST_BYTES = (1 << 32) - 1024
"""Of samples in a WAV, whose header counts them in 32 bits."""
OFFSET = 0.25
"""A constant that much larger than the sound around it (its standard deviation) is no sound."""
_HEAD = struct.Struct("<4sI12sHHIIHH4sI")
HEAD = _HEAD.size
"""Bytes before the samples of a WAV of the plainest kind."""
RING = 128
"""Samples, at the lower of two rates, after which the resampling filter is silent again."""
LONGEST_PERIOD = 2048
"""Samples after which two rates meet, up to which recordings share a filter."""

NO_NUMBERS = "holds samples that are not numbers (NaN or infinity)"
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"})


class AudioError(AudiovqError):
    """A recording that cannot be used; its text is the reason."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says."""

    sample_rate: int
    channels: int
    num_samples: int

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate


def find(folder: Path) -> tuple[list[str], list[str]]:
    """The names of all that lies below `folder`, hidden ones left out: (recordings, others), each sorted.

    A name leads from `folder` to a file, with forward slashes; it sorts folder by folder.

    Links to files are files, even where they lead nowhere. Links to folders are not followed, so
    that no loop is walked and no sound comes twice: they are listed themselves, as are folders
    that cannot be opened. Raises AudiovqError where `folder` is not a folder.
    """
    if not folder.is_dir():
        raise AudiovqError(f"{folder}: no such folder")
    found: list[str] = []
    before = len(os.path.join(folder, ""))

    def closed(error: OSError) -> None:
        found.append(error.filename[before:].replace(os.sep, "/") or ".")

    for root, folders, files in os.walk(folder, onerror=closed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        shown = (name for name in files + links if not name.startswith("."))
        found += [os.path.join(root, name)[before:].replace(os.sep, "/") for name in shown]
    recordings: list[str] = []
    others: list[str] = []
    for name in sorted(found, key=lambda name: name.replace("/", "\0")):  # lists would take memory
        (recordings if is_recording(name) else others).append(name)
    return recordings, others


def is_recording(name: str) -> bool:
    """Whether a file is a recording by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def info(path: Path | str) -> AudioInfo:
    """The header of a recording. Raises AudioError with the reason where it cannot be used."""
    try:
        require_file(path)
        str(path).encode()  # libsndfile takes no other names, and so neither do we
        with open(path, "rb", buffering=0) as opened:
            plain = _plain(opened.read(HEAD), os.fstat(opened.fileno()).st_size)
        if plain:
            found = plain
        else:
            with soundfile.SoundFile(str(path)) as file:
                found = AudioInfo(file.samplerate, file.channels, file.frames)
    except (soundfile.LibsndfileError, OSError, UnicodeError) as error:
        raise AudioError(_reason(path, error)) from error
    if found.num_samples == 0:
        raise AudioError("holds no samples")
    return found


def blocks(path: Path | str, sample_rate: int | None = None) -> Iterator[Waveform]:
    """A recording's samples in order, as mono blocks (samples,), channels averaged: at least one.

    However long the file is, up to BLOCK samples are in memory. With `sample_rate` the stream is
    resampled to it, to round(samples * to / from) in all. What lies beyond full scale is left so.
    A constant offset that outweighs the sound is taken away: no ear hears it, but levels and
    trimming would be its own. Raises AudioError with the reason where the file cannot be used.
    """
    try:
        require_file(path)
        with soundfile.SoundFile(str(path)) as file:
            rate = sample_rate or file.samplerate
            resampler = _Resampler(file.samplerate, rate)
            frames = int(BLOCK / file.channels * min(1, file.samplerate / rate))
            for mono, last in _mono(file, max(1, frames)):
                block = resampler(mono, last)
                _require_numbers(block)  # what is close to infinity may reach it
                yield block
    except (soundfile.LibsndfileError, OSError, UnicodeError) as error:
        raise AudioError(_reason(path, error)) from error


def short(path: Path | str, most: int) -> tuple[Waveform, int, str] | None:
    """A recording of up to `most` samples: its one block as `blocks` gives it, its rate in Hz, and the
    SHA-256 of its bytes, which are read once for both. None where it is longer, or a large file.

    Raises AudioError with the reason where the file cannot be used.
    """
    try:
        require_file(path)
        str(path).encode()  # libsndfile takes no other names, and so neither do we
        with open(path, "rb", buffering=0) as opened:
            data = opened.read(8 * BLOCK)
        if len(data) == 8 * BLOCK:
            return None
        checksum = hashlib.sha256(data).hexdigest()
        if plain := _plain(data, len(data)):
            if plain.num_samples >= most:
                return None
            samples = np.frombuffer(data, "<i2", offset=HEAD).astype(np.float32) / np.float32(32768)
            mono, _ = _centred(_averaged(samples.reshape(-1, plain.channels)), None)
            return mono, plain.sample_rate, checksum
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            mono, last = next(_mono(file, most))
            return (mono, file.samplerate, checksum) if last else None
    except (soundfile.LibsndfileError, OSError, UnicodeError) as error:
        raise AudioError(_reason(path, error)) from error


def _plain(head: bytes, size: int) -> AudioInfo | None:
    """What the first HEAD bytes of a file of `size` bytes tell, where it is a WAV of the plainest kind:
    16 bits, and nothing but its samples behind its head, of which there are as many as it says.

    libsndfile, which reads all others, takes several times as long.
    """
    if len(head) < HEAD:
        return None
    riff, said, wave, form, channels, rate, _, frame, bits, data, stored = _HEAD.unpack_from(head)
    if (riff, said, wave) != (b"RIFF", size - 8, b"WAVEfmt \x10\0\0\0") or form != 1 or bits != 16:
        return None
    if (data, stored, frame) != (b"data", size - HEAD, 2 * channels) or not frame or stored % frame:
        return None
    return AudioInfo(rate, channels, stored // frame) if 0 < rate < 1 << 31 else None


def _mono(file: Any, frames: int) -> Iterator[tuple[Waveform, bool]]:
    """Blocks of so many samples of an open file, at its own rate, and whether each is the last."""
    file.seekable = lambda: False  # soundfile would seek after each read, which upsets MP3 decoders
    offset = None
    while True:
        samples = file.read(frames, dtype="float32", always_2d=True)
        mono = _averaged(samples)
        _require_numbers(mono)
        mono, offset = _centred(mono, offset)
        last = len(samples) < frames
        yield mono, last
        if last:
            return


def _averaged(samples: Waveform) -> npt.NDArray[np.floating[Any]]:
    """(samples, channels) → (samples,), the mean of the channels."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    mono = np.zeros(len(samples))  # by hand: NumPy's mean over so few takes several times as long
    for channel in samples.T:
        mono += channel
    mono /= samples.shape[1]
    return mono


def _centred(mono: npt.NDArray[np.floating[Any]], offset: float | None) -> tuple[Waveform, float]:
    """Samples (samples,) without the offset: that of the first block, which is this one where None."""
    if offset is None:
        if not len(mono):
            raise AudioError("holds no samples")
        offset = _offset(mono.astype(np.float64))
    if offset:
        mono = mono - offset
    return mono.astype(np.float32, copy=False), offset


def _offset(samples: npt.NDArray[np.float64]) -> float:
    """The mean, where it is OFFSET times as large as the standard deviation around it; else 0."""
    mean = float(samples.sum()) / len(samples)
    variance = float(np.einsum("i,i->", samples, samples)) / len(samples) - mean**2
    return mean if mean**2 > OFFSET**2 * variance else 0.0


def _require_numbers(samples: npt.NDArray[np.floating[Any]]) -> None:
    if not np.isfinite(samples).all():
        raise AudioError(NO_NUMBERS)


def peak_of(samples: Waveform) -> float:
    """The largest absolute value, 0 of none, NaN where one is no number."""
    return float(np.maximum(samples.max(initial=0), -samples.min(initial=0)))


class _Resampler:
    """soxr's high quality over blocks: the same samples as over the whole.

    Silence goes before the first one, since soxr's first samples would be off without it.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self.stream: Any = None
        self._rates = from_rate, to_rate
        self._taken = self._given = 0
        if from_rate != to_rate:
            self.stream = soxr.ResampleStream(from_rate, to_rate, 1, "float32", "HQ")
            silence, self._early = _periods(from_rate, to_rate, RING)
            self._before = np.zeros(silence, np.float32)

    def __call__(self, block: Waveform, last: bool) -> Waveform:
        """The samples that are ready after `block`; all that are left after the last one."""
        if self.stream is None:
            return block
        self._taken += len(block)
        if len(self._before):
            block = np.concatenate([self._before, block])
            self._before = self._before[:0]
        resampled: Waveform = self.stream.resample_chunk(block, last)
        early = min(self._early, len(resampled))
        self._early -= early
        resampled = resampled[early:]
        if last:
            resampled = resampled[: _length(self._taken, *self._rates) - self._given]
        self._given += len(resampled)
        return resampled


def _length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Of so many samples resampled, to the nearest, a half down: soxr gives at least as many."""
    return (2 * num_samples * to_rate + from_rate - 1) // (2 * from_rate)


def _periods(from_rate: int, to_rate: int, least: int) -> tuple[int, int]:
    """The shortest time of whole samples at both rates that is `least` at the lower one: in both."""
    common = math.gcd(from_rate, to_rate)
    times = math.ceil(least * common / min(from_rate, to_rate))
    return times * from_rate // common, times * to_rate // common


def read(path: Path, sample_rate: int | None = None) -> tuple[Waveform, int]:
    """A recording as (mono waveform (samples,), rate in Hz): all its `blocks` at once.

    What goes beyond full scale is brought down to it as a whole. Raises AudioError with the reason
    where the file cannot be used.
    """
    rate = sample_rate or info(path).sample_rate
    waveform = np.concatenate(list(blocks(path, rate)))
    peak = np.abs(waveform).max(initial=0)
    return waveform / peak if peak > 1 else waveform, rate


def require_file(path: Path | str) -> None:
    """Raise AudioError where `path` is no file: reading a pipe, say, would wait for ever."""
    if os.path.isfile(path):
        return
    path = Path(path)
    if path.is_symlink():
        if path.is_dir():
            raise AudioError("is a link to a folder; name that folder itself, or copy it here")
        raise AudioError("is a link that leads nowhere")
    if path.is_dir():
        raise AudioError("is a folder that cannot be opened")
    if path.exists():
        raise AudioError("is neither a file nor a folder")


def _reason(path: Path | str, error: Exception) -> str:
    """libsndfile's and the system's errors in words a musician understands."""
    if isinstance(error, UnicodeError):
        return "has a name that is not UTF-8; rename it"
    try:
        if os.stat(path).st_size == 0:
            return "is empty (0 bytes)"
        with open(path, "rb"):
            pass
    except OSError as system:
        return f"cannot be opened ({system.strerror})"
    return f"is broken or not a sound file ({getattr(error, 'error_string', error)})".replace(
        ".)", ")"
    )


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """(samples,) at one rate → (round(samples * to / from),) at another, by soxr's high quality."""
    return _Resampler(from_rate, to_rate)(waveform, last=True)


def resample_all(waveforms: Sequence[Waveform], from_rate: int, to_rate: int) -> Sequence[Waveform]:
    """Waveforms (samples,), each as `resample` gives it, within two millionths of its
    peak.

    A filter is designed once for all: they go through it end to end, silence in between, each from
    where samples of both rates meet. Scaled by powers of two, so that none drowns another in its
    rounding. Takes several times their memory.
    """
    period, _ = _periods(from_rate, to_rate, 1)
    if from_rate == to_rate:
        return waveforms
    if period > LONGEST_PERIOD:
        return [resample(waveform, from_rate, to_rate) for waveform in waveforms]
    silence, _ = _periods(from_rate, to_rate, RING)
    places = np.cumsum([0, *(-(-len(w) // period) * period + silence for w in waveforms)]).tolist()
    peaks = [peak_of(waveform) for waveform in waveforms]
    scales = [2.0 ** (math.frexp(peak)[1] - 1) for peak in peaks]
    signal = np.zeros(places[-1], np.float32)
    for waveform, place, scale in zip(waveforms, places, scales, strict=False):
        np.divide(waveform, scale, out=signal[place : place + len(waveform)])
    resampled = resample(signal, from_rate, to_rate)
    found = []
    for waveform, place, scale, peak in zip(waveforms, places, scales, peaks, strict=False):
        begin = place * to_rate // from_rate
        length = _length(len(waveform), from_rate, to_rate)
        with np.errstate(over="ignore"):  # what is close to infinity may reach it
            found.append(resampled[begin : begin + length] * np.float32(scale if peak else 0))
    return found


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
            while data := spool.read(4 * BLOCK):
                samples = np.frombuffer(data, "<f4") * factor
                file.writeframesraw(np.rint(samples * 32768).astype("<i2").tobytes())
    return bool(factor < 1)
