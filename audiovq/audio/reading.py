"""Recordings: find, read, resample, write. NumPy in, NumPy out; mono float32 in [-1, 1]."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from audiovq.audio import waveform as audio_waveform
from audiovq.audio.channels import NOTE, Mixer
from audiovq.audio.finding import HEADERLESS, UNREADABLE, require_file, suffix, why_not
from audiovq.audio.headers import (
    Patched,
    end_of_w64,
    patches_of,
    patches_of_joined_mp3,
    stated_size_of_mp3,
)
from audiovq.audio.resampling import Resampler
from audiovq.audio.waveform import NO_NUMBERS, AudioError, Waveform
from audiovq.config.errors import AudiovqError

Say = Callable[[str], object]
BLOCK = 1 << 20
"""Samples that are read at a time, all channels together, before or after resampling."""
_HEAD = struct.Struct("<4sI12sHHIIHH4sI")
HEAD = _HEAD.size
"""Bytes before the samples of a WAV of the plainest kind."""
ERRORS = soundfile.LibsndfileError, OSError, UnicodeError
"""That reading a file may end in."""
FRAME = b"\xff\xfb\x90\0"
"""Such bytes a frame of an MP3 may begin with."""
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Hz. A header with any other sample rate is damaged, and would take hours or all memory to resample."""
ENDLESS = 1 << 45
"""Bytes that an MP3 is said to have, so that no guess of its length from them is too small."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file holds."""

    sample_rate: int
    channels: int
    num_samples: int

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate


def info(path: Path | str) -> AudioInfo:
    """A recording's rate, channels and length, as `blocks` gives them at its own rate.

    A length that its header only promises is counted: that of an MP3, and of what was cut short.
    Raises AudioError with the reason where the file cannot be used.
    """
    try:
        require_file(path)
        str(path).encode()  # libsndfile takes no other names, and so neither do we
        with open(path, "rb", buffering=0) as opened:
            found = _plain(opened.read(HEAD), os.fstat(opened.fileno()).st_size)
        if not found:
            with _opened(path) as file:
                found = AudioInfo(file.samplerate, file.channels, file.frames)
                is_sure = file.frames == 0 or _holds_its_last(file)
            if not is_sure:
                num_samples = sum(map(len, blocks(path)))
                found = AudioInfo(found.sample_rate, found.channels, num_samples)
    except ERRORS as error:
        raise AudioError(_reason(path, error)) from error
    if found.num_samples == 0:
        raise AudioError("holds no samples")
    return found


def blocks(
    path: Path | str, sample_rate: int | None = None, note: Say | None = None
) -> Iterator[Waveform]:
    """A recording's samples in order, as mono blocks (samples,), channels averaged: at least one.

    However long the file is, up to BLOCK samples are in memory. With `sample_rate` the stream is
    resampled to it, to round(samples * to / from) in all. What lies beyond full scale is left so.
    A constant offset that outweighs the sound is taken away: no ear hears it, but levels and
    trimming would be its own. Where channels cancel each other, the louder one is taken, and `note`
    is told. Raises AudioError with the reason where the file cannot be used.
    """
    try:
        require_file(path)
        with _opened(path) as file:
            rate = sample_rate or file.samplerate
            resampler = Resampler(file.samplerate, rate)
            frames = int(BLOCK / file.channels * min(1, file.samplerate / rate))
            for mono, last in _mono(file, max(1, frames), note):
                block = resampler(mono, last)
                _require_numbers(block)  # what is close to infinity may reach it
                yield block
    except ERRORS as error:
        raise AudioError(_reason(path, error)) from error


def short(path: Path | str, most: int, note: Say | None = None) -> tuple[Waveform, int, str] | None:
    """A recording of less than `most` samples: its one block as `blocks` gives it, its rate in Hz, and
    the SHA-256 of its bytes. None where it is longer, or a large file.

    Raises AudioError with the reason where the file cannot be used, or changed while it was read.
    """
    try:
        require_file(path)
        str(path).encode()  # libsndfile takes no other names, and so neither do we
        with open(path, "rb", buffering=0) as opened:
            before = os.fstat(opened.fileno())
            data = opened.read(8 * BLOCK)
        if len(data) == 8 * BLOCK:
            return None
        checksum = hashlib.sha256(data).hexdigest()
        if plain := _plain(data, len(data)):
            if plain.num_samples >= most:
                return None
            samples = np.frombuffer(data, "<i2", offset=HEAD).astype(np.float32) / np.float32(32768)
            mixer = Mixer(plain.sample_rate)
            mono = mixer.centre(mixer.mix(samples.reshape(-1, plain.channels)))
            if note and mixer.channel is not None:
                note(NOTE)
            return mono, plain.sample_rate, checksum
        told: list[str] = []
        with _opened(path) as file:
            mono, last = next(_mono(file, most, told.append))
            rate = file.samplerate
        after = os.stat(path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise AudioError("changed while it was read")
        if not last or len(mono) >= most:
            return None
        if note and told:
            note(told[0])
        return mono, rate, checksum
    except ERRORS as error:
        raise AudioError(_reason(path, error)) from error


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    """A file as libsndfile reads it, open: always by its name, since many an MP3 is told by that alone.

    Of an MP3 without a count of its frames it knows the length by a guess, and reads no further. So
    it is given another one, of which nobody knows where it ends.
    """
    if suffix(str(path)) in HEADERLESS:
        raise AudioError(why_not(str(path)))
    name = str(path)
    name.encode()
    with contextlib.ExitStack() as stack:

        def seen_as(view: Patched) -> Any:
            return stack.enter_context(soundfile.SoundFile(stack.enter_context(view)))

        try:
            file = stack.enter_context(soundfile.SoundFile(name))
        except soundfile.LibsndfileError:
            if not (patches := patches_of(name)):
                raise
            file = seen_as(Patched(name, patches))
        if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
            raise AudioError(
                f"has a sample rate of {file.samplerate:,} Hz by its header; rates from"
                f" {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz are read"
            )
        if file.format == "RAW":  # told by its suffix: any text would be noise
            raise AudioError("is broken or not a sound file (it has no header)")
        if not file.frames and (patches := patches_of(name)):
            file = seen_as(Patched(name, patches))
        elif file.format == "W64" and (end := end_of_w64(name)):
            file = seen_as(Patched(name, {}, end))
        elif file.format == "MP3":
            patches = patches_of_joined_mp3(name)
            stated = None if patches else stated_size_of_mp3(name)
            try:
                file = seen_as(_Endless(name, patches, stated))
            except soundfile.LibsndfileError:  # told by its name alone
                with contextlib.suppress(soundfile.LibsndfileError):
                    file = seen_as(_Endless(name, {0: FRAME}))
        yield file


class _Endless(Patched):
    """A file that reports a size of `stated` bytes, or one larger than any, and holds no more than it has.

    An MP3's own count of its bytes is reported where it has one: libsndfile's decoder prints a warning
    about any other size.
    """

    _far = 0
    """Position that it reports, beyond the end of all files."""

    def __init__(self, path: str, patches: dict[int, bytes], stated: int | None = None) -> None:
        super().__init__(path, patches)
        self._size = stated or ENDLESS

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        place = self._size + offset if whence == os.SEEK_END else offset
        self._far = place if place > ENDLESS // 2 else 0
        return self._far or super().seek(
            place if whence == os.SEEK_END else offset,
            whence if whence == os.SEEK_CUR else os.SEEK_SET,
        )

    def tell(self) -> int:
        return self._far or super().tell()

    def readinto(self, buffer: Any, /) -> int:
        if not self._far:
            return super().readinto(buffer) or 0
        buffer[:] = bytes(len(buffer))  # where a tag might be
        return len(buffer)


def _holds_its_last(file: Any) -> bool:
    """Whether an open file has the last sample that its header promises, of which we can be sure."""
    if file.format == "MP3":
        return False
    try:
        file.seek(file.frames - 1)
        return len(file.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


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
    known = LOWEST_RATE <= rate <= HIGHEST_RATE
    return AudioInfo(rate, channels, stored // frame) if known else None


def _mono(file: Any, frames: int, note: Say | None) -> Iterator[tuple[Waveform, bool]]:
    """Blocks of so many samples of an open file, at its own rate, and whether each is the last."""
    file.seekable = lambda: False  # soundfile would seek after each read, which upsets MP3 decoders
    mixer = Mixer(file.samplerate)
    left = file.frames
    last = False
    while not last:
        # No more than there are: FLAC's decoder would take any byte behind the last one for damage.
        wanted = min(frames, left)
        samples, is_cut = _next(file, wanted, left == file.frames)
        left -= len(samples)
        last = is_cut or len(samples) < wanted or not left
        if not len(samples) and left == file.frames:
            raise AudioError("holds no samples")
        is_mixed = mixer.channel is not None
        mono = mixer.mix(samples)
        _require_numbers(mono)
        mono = mixer.centre(mono)
        if note and not is_mixed and mixer.channel is not None:
            note(NOTE)
        yield mono, last


def _next(file: Any, wanted: int, is_first: bool) -> tuple[Waveform, bool]:
    """The next samples (samples, channels) of an open file, up to so many, and whether it ended there in
    an error: it was cut short, or has junk behind the last sample and does not say which that is."""
    out = np.zeros((wanted, file.channels), np.float32)
    try:
        return file.read(out=out), False
    except soundfile.LibsndfileError:
        given = np.flatnonzero(out.any(axis=1))
        if (is_first and not len(given)) or _goes_on(file):
            raise
        return out[: given[-1] + 1 if len(given) else 0], True


def _goes_on(file: Any) -> bool:
    """Whether a file that could not be read further has its last sample: then its middle is damaged."""
    if not isinstance(file.name, str):  # an MP3, whose decoder finds the next frame, or unfinished
        return False
    with soundfile.SoundFile(file.name) as again:
        return _holds_its_last(again)


def _require_numbers(samples: npt.NDArray[np.floating[Any]]) -> None:
    if not np.isfinite(samples).all():
        raise AudioError(NO_NUMBERS)


def read(
    path: Path, sample_rate: int | None = None, note: Say | None = None
) -> tuple[Waveform, int]:
    """A recording as (mono waveform (samples,), rate in Hz): all its `blocks` at once.

    What goes beyond full scale is brought down to it as a whole. Raises AudioError with the reason
    where the file cannot be used.
    """
    rate = sample_rate or info(path).sample_rate
    waveform = np.concatenate(list(blocks(path, rate, note)))
    peak = np.abs(waveform).max(initial=0)
    return waveform / peak if peak > 1 else waveform, rate


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
    if suffix(str(path)) in UNREADABLE:
        return why_not(str(path))
    return f"is broken or not a sound file ({getattr(error, 'error_string', error)})".replace(
        ".)", ")"
    )


def read_recording(path: Path, sample_rate: int) -> Waveform:
    """A recording (samples,) at `sample_rate`. Raises AudiovqError that names it and the reason."""
    try:
        return read(path, sample_rate)[0]
    except audio_waveform.AudioError as error:
        raise AudiovqError(f"{path}: {error}") from error
