"""Read a recording of any format as mono or stereo float32, in one piece or block by block."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from audiovq.audio.channels import SIDES, Layout, Mixer, StereoMixer, layout_of_mask
from audiovq.audio.finding import HEADERLESS, UNREADABLE, require_file, suffix, why_not
from audiovq.audio.headers import (
    Patched,
    channel_mask,
    end_of_w64,
    opus_has_layout,
    patches_of,
    patches_of_joined_mp3,
    stated_size_of_mp3,
)
from audiovq.audio.resampling import Resampler
from audiovq.audio.waveform import NO_NUMBERS, AudioError, Waveform, peak_of
from audiovq.config.errors import AudiovqError
from audiovq.config.output import Bits

Say = Callable[[str], object]
BLOCK = 1 << 20
"""Samples of all channels that are read at a time, before or after resampling, whichever is more."""
_HEAD = struct.Struct("<4sI12sHHIIHH4sI")
HEAD = _HEAD.size
"""Bytes of the header of a WAV that holds nothing but 16-bit samples."""
ERRORS = soundfile.LibsndfileError, OSError, UnicodeError
"""Exceptions that reading a file may raise."""
FRAME = b"\xff\xfb\x90\0"
"""Bytes with which an MP3 frame may begin."""
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Hz. A header with any other sample rate is damaged; resampling would take hours or all memory."""
SHORT_BYTES = 8 * BLOCK
"""Files of this size and more are not read at once."""
FLAC_MASKS = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
"""Channel masks of FLAC files, by the number of channels."""
VORBIS_SPEAKERS = {
    3: (0, 2, 1),
    4: (0, 1, 4, 5),
    5: (0, 2, 1, 4, 5),
    6: (0, 2, 1, 4, 5, 3),
    7: (0, 2, 1, 9, 10, 8, 3),
    8: (0, 2, 1, 9, 10, 4, 5, 3),
}
"""Speakers of each channel of Ogg files, as bits of a channel mask, by the number of channels (Vorbis I, 4.3.9)."""
ENDLESS = 1 << 45
"""File size that is reported for an MP3 without a frame count, so that its estimated length is never too short."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Sample rate, channels and length of a recording."""

    sample_rate: int
    """Hz"""
    channels: int
    num_samples: int
    """Samples of each channel."""

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate


def info(path: Path | str) -> AudioInfo:
    """Sample rate, channels and length of a recording, as `blocks` reads it at its own rate.

    Where the header's length is unreliable (an MP3, a truncated file), the samples are counted.
    Raises AudioError with the reason if the file cannot be used.
    """
    try:
        require_file(path)
        str(path).encode()  # libsndfile accepts only names in UTF-8
        with open(path, "rb", buffering=0) as opened:
            found = plain_info(opened.read(HEAD), os.fstat(opened.fileno()).st_size)
        if not found:
            with _opened(path) as file:
                found = AudioInfo(file.samplerate, file.channels, file.frames)
                is_reliable = file.frames == 0 or _has_last_sample(file)
            if not is_reliable:
                num_samples = sum(map(len, blocks(path)))
                found = AudioInfo(found.sample_rate, found.channels, num_samples)
    except ERRORS as error:
        raise AudioError(_reason(path, error)) from error
    if found.num_samples == 0:
        raise AudioError("holds no samples")
    return found


def plain_info(head: bytes, size: int) -> AudioInfo | None:
    """Parse the header of a plain WAV from the first HEAD bytes of a file of `size` bytes; None for any other.

    Plain: 16 bits, and nothing but the samples after the header, as many as it states. libsndfile, which
    reads all other files, takes several times as long. One without samples counts as any other.
    """
    if len(head) < HEAD:
        return None
    riff, stated, wave, form, channels, rate, _, frame, bits, data, stored = _HEAD.unpack_from(head)
    if (riff, stated, wave) != (b"RIFF", size - 8, b"WAVEfmt \x10\0\0\0"):
        return None
    if (form, bits) != (1, 16):
        return None
    if (
        (data, stored, frame) != (b"data", size - HEAD, 2 * channels)
        or not stored
        or not frame
        or stored % frame
    ):
        return None
    is_supported = LOWEST_RATE <= rate <= HIGHEST_RATE
    return AudioInfo(rate, channels, stored // frame) if is_supported else None


def blocks(
    path: Path | str,
    sample_rate: int | None = None,
    note: Say | None = None,
    *,
    block_samples: int = BLOCK,
    channels: int = 1,
) -> Iterator[Waveform]:
    """Read a recording as consecutive mono blocks (samples,), at least one, in bounded memory.

    Channels are averaged; if they cancel each other, the loudest is used and `note` is called with a sentence that
    says so. With `channels` 2, blocks are stereo (2, samples): see `StereoMixer`. A DC offset that exceeds the sound
    is removed: it is inaudible, but would decide levels and trimming. Samples beyond full scale are left as they are.

    Args:
        path: the file.
        sample_rate: Hz to resample to, which gives round(samples * to / from) samples in all; None:
            the recording's own.
        note: is called with notes for the user.
        block_samples: samples that a block holds, all channels together, before or after resampling,
            whichever is more.
        channels: 1 for mono, 2 for stereo.

    Raises:
        AudioError: the file cannot be used; the text is the reason.
    """
    try:
        require_file(path)
        with _opened(path) as file:
            rate = sample_rate or file.samplerate
            resampler = Resampler(file.samplerate, rate, channels)
            frames = block_frames(
                AudioInfo(file.samplerate, file.channels, file.frames), rate, block_samples
            )
            mixer = _mixer(path, file, channels)
            for mixed, last in _mixed(file, frames, mixer, note):
                block = resampler(mixed, last)
                _require_finite(block)  # values close to infinity may reach it
                yield block
    except ERRORS as error:
        raise AudioError(_reason(path, error)) from error


def block_frames(info: AudioInfo, rate: int, block_samples: int = BLOCK) -> int:
    """Samples of each channel that make one of the `blocks` of a recording resampled to `rate`."""
    return max(1, int(block_samples / info.channels * min(1, info.sample_rate / rate)))


def short(
    path: Path | str, most: int, note: Say | None = None, channels: int = 1
) -> tuple[Waveform, int] | None:
    """Read a recording of less than `most` samples with a single read of its file.

    Returns its waveform, (samples,) or (2, samples), as `blocks` gives it, and its rate in Hz; None if it is longer, or
    its file is large. Raises AudioError with the reason if the file cannot be used.
    """
    try:
        require_file(path)
        str(path).encode()  # libsndfile accepts only names in UTF-8
        with open(path, "rb", buffering=0) as opened:
            size = os.fstat(opened.fileno()).st_size
            if size >= SHORT_BYTES:
                return None
            header = plain_info(opened.read(HEAD), size)
            data = opened.read(size) if header else b""
        if header:
            if header.num_samples >= most:
                return None
            if len(data) != size - HEAD:
                raise AudioError("changed while it was read")
            interleaved = np.frombuffer(data, "<i2").reshape(-1, header.channels)
            samples = interleaved.T.astype(np.float32, order="C")  # each channel in one piece
            samples *= np.float32(1 / 32768)
            mixer = (
                Mixer(header.sample_rate) if channels == 1 else StereoMixer(header.channels, None)
            )
            mixed = mixer.centre(mixer.mix(samples.T))
            if note and mixer.note:
                note(mixer.note)
            return mixed, header.sample_rate
        notes: list[str] = []
        with _opened(path) as file:
            mixer = _mixer(path, file, channels)
            mixed, last = next(_mixed(file, most, mixer, notes.append))
            rate = file.samplerate
        if not last or mixed.shape[-1] >= most:
            return None
        if note and notes:
            note(notes[0])
        return mixed, rate
    except ERRORS as error:
        raise AudioError(_reason(path, error)) from error


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    """Open a file with libsndfile, with a wrong length in its header corrected.

    The file is opened by name, as libsndfile recognises many MP3s by their suffix alone. It estimates the
    length of an MP3 without a frame count and reads no further, so such a file is opened as `_Endless`.
    """
    if suffix(str(path)) in HEADERLESS:
        raise AudioError(why_not(str(path)))
    name = str(path)
    name.encode()
    with contextlib.ExitStack() as stack:

        def open_view(view: Patched) -> Any:
            return stack.enter_context(soundfile.SoundFile(stack.enter_context(view)))

        try:
            file = stack.enter_context(soundfile.SoundFile(name))
        except soundfile.LibsndfileError:
            if not (patches := patches_of(name)):
                raise
            file = open_view(Patched(name, patches))
        if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
            raise AudioError(
                f"has a sample rate of {file.samplerate:,} Hz in its header; supported are"
                f" {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz"
            )
        if file.format == "RAW":  # recognised by its suffix: any text would be read as noise
            raise AudioError("is broken or not a sound file (it has no header)")
        if not file.frames and (patches := patches_of(name)):
            file = open_view(Patched(name, patches))
        elif file.format == "W64" and (end := end_of_w64(name)):
            file = open_view(Patched(name, {}, end))
        elif file.format == "MP3":
            patches = patches_of_joined_mp3(name)
            stated = None if patches else stated_size_of_mp3(name)
            try:
                file = open_view(_Endless(name, patches, stated))
            except soundfile.LibsndfileError:  # libsndfile recognised it by its suffix alone
                with contextlib.suppress(soundfile.LibsndfileError):
                    file = open_view(_Endless(name, {0: FRAME}))
        yield file


class _Endless(Patched):
    """A file that reports a size of `stated` bytes, or else of ENDLESS; reads still end where the file ends.

    `stated` is the size in an MP3's own header: libsndfile's decoder prints a warning about any other.
    """

    _far = 0
    """Reported position while it is beyond the end of the file."""

    def __init__(self, path: str, patches: dict[int, bytes], stated: int | None = None) -> None:
        super().__init__(path, patches)
        self._size = stated or ENDLESS

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        position = self._size + offset if whence == os.SEEK_END else offset
        self._far = position if position > ENDLESS // 2 else 0
        return self._far or super().seek(position, whence if whence == os.SEEK_CUR else os.SEEK_SET)

    def tell(self) -> int:
        return self._far or super().tell()

    def readinto(self, buffer: Any, /) -> int:
        if not self._far:
            return super().readinto(buffer) or 0
        buffer[:] = bytes(len(buffer))  # the decoder looks for a tag here
        return len(buffer)


def _has_last_sample(file: Any) -> bool:
    """Whether the last sample that an open file's header states can be read; False for any MP3."""
    if file.format == "MP3":
        return False
    try:
        file.seek(file.frames - 1)
        return len(file.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


def _mixer(path: Path | str, file: Any, channels: int) -> Mixer | StereoMixer:
    """The mixer of an open file to mono or stereo."""
    if channels == 1:
        return Mixer(file.samplerate)
    return StereoMixer(file.channels, _layout(path, file) if file.channels > 2 else None)


def _layout(path: Path | str, file: Any) -> Layout | None:
    """Layout of an open file of more than two channels, by its header; None if that has none.

    The formats of FLAC (RFC 9639, section 9.1.3) and Vorbis have one layout for each number of channels.
    """
    if file.format == "OGG":
        has_layout = file.subtype == "VORBIS" or opus_has_layout(str(path))
        speakers = VORBIS_SPEAKERS.get(file.channels) if has_layout else None
        return None if speakers is None else tuple(SIDES[speaker] for speaker in speakers)
    mask = FLAC_MASKS.get(file.channels) if file.format == "FLAC" else channel_mask(str(path))
    return None if mask is None else layout_of_mask(mask, file.channels)


def _mixed(
    file: Any, frames: int, mixer: Mixer | StereoMixer, note: Say | None
) -> Iterator[tuple[Waveform, bool]]:
    """Read an open file as mono or stereo blocks of `frames` samples at its own rate, each with whether it is the
    last."""
    file.seekable = lambda: False  # soundfile would seek after each read, which upsets MP3 decoders
    noted: str | None = None
    left = file.frames
    last = False
    while not last:
        # No more than the file has: FLAC's decoder takes any byte after the last sample for damage.
        wanted = min(frames, left)
        samples, is_truncated = _next(file, wanted, left == file.frames)
        left -= len(samples)
        last = is_truncated or len(samples) < wanted or not left
        if not len(samples) and left == file.frames:
            raise AudioError("holds no samples")
        with np.errstate(over="ignore", invalid="ignore"):  # of infinity, which is refused
            mixed = mixer.mix(samples)
        _require_finite(mixed)
        block = mixer.centre(mixed)
        if note and mixer.note and not noted:
            note(mixer.note)
            noted = mixer.note
        yield block, last


def _next(file: Any, wanted: int, is_first: bool) -> tuple[Waveform, bool]:
    """Read up to `wanted` samples (samples, channels) of an open file; True if it ended in an error.

    Such a file was truncated, or has junk after its last sample and does not state its length. Raises
    libsndfile's error if there is nothing to use, or the damage is in the middle of the file.
    """
    out = np.zeros((wanted, file.channels), np.float32)
    try:
        return file.read(out=out), False
    except soundfile.LibsndfileError:
        decoded = np.flatnonzero(out.any(axis=1))
        if (is_first and not len(decoded)) or _is_damaged_in_middle(file):
            raise
        return out[: decoded[-1] + 1 if len(decoded) else 0], True


def _is_damaged_in_middle(file: Any) -> bool:
    """Whether a file that could not be read further has its last sample, so that its middle is damaged."""
    if not isinstance(file.name, str):  # an MP3, whose decoder finds the next frame, or unfinished
        return False
    with soundfile.SoundFile(file.name) as reopened:
        return _has_last_sample(reopened)


def _require_finite(samples: npt.NDArray[np.floating[Any]]) -> None:
    if not np.isfinite(samples).all():
        raise AudioError(NO_NUMBERS)


def read(
    path: Path, sample_rate: int | None = None, note: Say | None = None, channels: int = 1
) -> tuple[Waveform, int]:
    """Read a whole recording: (waveform (samples,) or (2, samples) in [-1, 1], rate in Hz). See `blocks`.

    A recording that exceeds full scale is scaled down to it. Raises AudioError with the reason if the
    file cannot be used.
    """
    rate = sample_rate or info(path).sample_rate
    waveform = np.concatenate(list(blocks(path, rate, note, channels=channels)), axis=-1)
    peak = np.abs(waveform).max(initial=0)
    return waveform / peak if peak > 1 else waveform, rate


def beginning(
    path: Path, seconds: float, sample_rate: int | None = None, channels: int = 1
) -> tuple[Waveform, int]:
    """The first `seconds` of a recording, at least one sample, as `read` gives a recording that ends there.

    What follows is not read, and does not count where sound that exceeds full scale is scaled down. Raises AudioError.
    """
    rate = sample_rate or info(path).sample_rate
    wanted, parts = max(1, round(seconds * rate)), list[Waveform]()
    for block in blocks(path, rate, channels=channels):
        parts.append(block[..., :wanted])
        wanted -= parts[-1].shape[-1]
        if wanted <= 0:
            break
    waveform = np.concatenate(parts, axis=-1)
    peak = np.abs(waveform).max(initial=0)
    return waveform / peak if peak > 1 else waveform, rate


def _reason(path: Path | str, error: Exception) -> str:
    """Reason, for the user, of an error of libsndfile or the system."""
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


def read_recording(path: Path, sample_rate: int, channels: int = 1) -> Waveform:
    """Read a recording (samples,), or (2, samples), at `sample_rate`. Raises AudiovqError with its path and the
    reason."""
    try:
        return read(path, sample_rate, channels=channels)[0]
    except AudioError as error:
        raise AudiovqError(f"{path}: {error}") from error


def read_channels(path: Path) -> tuple[Waveform, int]:
    """Read a whole recording as it is: (channels, samples) and its rate in Hz. Raises AudioError as `blocks` does."""
    try:
        require_file(path)
        with _opened(path) as file:
            file.seekable = lambda: False  # as in `_mixed`
            parts: list[Waveform] = []
            left, is_last = file.frames, False
            while not is_last:
                wanted = min(max(1, BLOCK // file.channels), left)
                samples, is_truncated = _next(file, wanted, not parts)
                left -= len(samples)
                is_last = is_truncated or len(samples) < wanted or not left
                parts.append(samples)
            joined = np.concatenate(parts)
            _require_finite(joined)
            return np.ascontiguousarray(joined.T), file.samplerate
    except ERRORS as error:
        raise AudioError(_reason(path, error)) from error


def bits_of(path: Path, whole: bool = False) -> Bits:
    """Bits that hold the samples of a recording; 16 for formats that compress with loss, but with `whole` floating point
    where they exceed full scale, as samples of MP3s may. Raises AudioError."""
    try:
        with _opened(path) as file:
            kind = str(file.subtype)
    except ERRORS as error:
        raise AudioError(_reason(path, error)) from error
    if kind in ("FLOAT", "DOUBLE", "PCM_32", "ALAC_32"):
        return "32f"
    if kind in ("PCM_24", "ALAC_24", "ALAC_20"):
        return "24"
    return "32f" if whole and peak_of(read_channels(path)[0]) > 1 else "16"
