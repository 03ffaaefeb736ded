"""Corrections for files whose header states a wrong length.

A program that writes to a pipe, or a recorder that was killed, never updates the header: it states no samples, or
more than the file has. The header of several MP3s in one file counts only the frames of the first.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

HEADER = 1 << 16
"""Bytes at the start of a file that are searched for the begin of the samples."""
RIFF = b"RIFF", b"RF64", b"BW64"
"""First bytes of WAVs."""


class Patched(io.FileIO):
    """A file opened for reading, with `patches` (offset → bytes) applied and everything from `end` cut off."""

    def __init__(self, path: str, patches: dict[int, bytes], end: int | None = None) -> None:
        super().__init__(path)
        self._patches, self._end = patches, end

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END and self._end is not None:
            return super().seek(self._end + offset)
        return super().seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        begin = self.tell() if self._patches or self._end is not None else 0
        if self._end is not None:
            buffer = memoryview(buffer)[: max(0, self._end - begin)]
        count = super().readinto(buffer) or 0
        for offset, patch in self._patches.items():
            for i in range(len(patch)):
                if 0 <= offset + i - begin < count:
                    index = offset + i - begin
                    buffer[index : index + 1] = patch[i : i + 1]
        return count


def patches_of(path: str) -> dict[int, bytes]:
    """Corrections (offset → bytes) for an unfinished header of a WAV, RF64, AU or CAF; {} if it is complete."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
        size = file.seek(0, io.SEEK_END)
    if head[:4] in RIFF and head[8:12] == b"WAVE":
        return _wav(head, size)
    if head[:4] in (b".snd", b"dns.") and head[8:12] == bytes(4):
        begin = int.from_bytes(head[4:8], "big" if head[:1] == b"." else "little")
        return {8: b"\xff\xff\xff\xff"} if begin >= 24 else {}  # AU's own value for "unknown"
    if head[:4] == b"caff":
        offset = 8
        while offset + 12 <= len(head):
            name, length = struct.unpack_from(">4sq", head, offset)
            offset += 12
            if name == b"data":
                is_complete = 0 < length <= size - offset
                return {} if is_complete else {offset - 8: struct.pack(">q", size - offset)}
            offset += max(0, length)
    return {}


def end_of_w64(path: str) -> int | None:
    """Offset at which the samples of a W64 end; None if they are the last chunk of the file.

    libsndfile would read the chunks after them as sound.
    """
    with open(path, "rb") as file:
        head = file.read(HEADER)
        size = file.seek(0, io.SEEK_END)
    for name, offset, length in _chunks(head):
        if name == b"data":
            return offset + length if 0 < length < size - offset else None
    return None


def patches_of_joined_mp3(path: str) -> dict[int, bytes]:
    """Correction (offset → bytes) that erases the frame count of the first of several MP3s in one file.

    Without that count, libsndfile reads all of them. {} for any other file.
    """
    with open(path, "rb") as file:
        begin = _skip_tags(file, 0)
        file.seek(begin)
        frame = file.read(256)
        xing = max(frame.find(b"Xing", 4), frame.find(b"Info", 4))
        if frame[:1] != b"\xff" or xing < 0 or frame[xing + 7 : xing + 8] < b"\3":
            return {}
        length = int.from_bytes(frame[xing + 12 : xing + 16], "big")
        file.seek(_skip_tags(file, begin + max(length, len(frame))))
        return {begin + xing: bytes(4)} if file.read(2) == frame[:2] else {}


def stated_size_of_mp3(path: str) -> int | None:
    """File size in bytes that the Xing header of an MP3 states; None if it states none."""
    with open(path, "rb") as file:
        begin = _skip_tags(file, 0)
        file.seek(begin)
        frame = file.read(256)
    xing = max(frame.find(b"Xing", 4), frame.find(b"Info", 4))
    if (
        frame[:1] != b"\xff"
        or xing < 0
        or not frame[xing + 7 : xing + 8]
        or frame[xing + 7] & 3 != 3
    ):
        return None
    return begin + int.from_bytes(frame[xing + 12 : xing + 16], "big") or None


def _skip_tags(file: BinaryIO, offset: int) -> int:
    """First offset from `offset` on at which no ID3 tag begins."""
    while True:
        file.seek(offset)
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            size, *rest = head[6:]
            for byte in rest:
                size = size << 7 | byte
            offset += 10 + size
        elif head[:3] == b"TAG":
            offset += 128
        else:
            return offset


def _wav(head: bytes, size: int) -> dict[int, bytes]:
    """`patches_of` a WAV or RF64 of `size` bytes, which begins with `head`."""
    ds64 = 0  # offset of the 64-bit lengths
    for name, offset, length in _chunks(head):
        if name == b"ds64":
            ds64 = offset
        if name == b"data":
            if ds64:
                length = int.from_bytes(head[ds64 + 8 : ds64 + 16], "little")
            if 0 < length <= size - offset or _is_chunk(head[offset : offset + 8], size - offset):
                return {}  # the file holds all samples, or none and another chunk follows
            if ds64:
                return {ds64: struct.pack("<QQ", size - 8, size - offset)}
            longest = (1 << 32) - 1
            return {
                4: struct.pack("<I", min(size - 8, longest)),
                offset - 4: struct.pack("<I", min(size - offset, longest)),
            }
    return {}


def _chunks(head: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks that begin in the `head` of a WAV or a W64: name, offset of the content, and its length in bytes."""
    # Of a W64, names are 16 bytes that begin with the WAV's, and lengths count them.
    offset, form, multiple = (40, "<4s12xQ", 8) if head[:4] == b"riff" else (12, "<4sI", 2)
    size = struct.calcsize(form)
    while offset + size <= len(head):
        name, length = struct.unpack_from(form, head, offset)
        offset += size
        length = max(0, length - size) if multiple == 8 else length
        yield name, offset, length
        offset += length + -length % multiple


def _is_chunk(head: bytes, left: int) -> bool:
    """Whether `head` begins with a RIFF chunk of at most `left` bytes."""
    if len(head) < 8 or not head[:4].decode("latin-1").strip().isalnum() or not head[:4].isascii():
        return False
    return 8 + int.from_bytes(head[4:], "little") <= left


def channel_mask(path: str) -> int | None:
    """Channel mask in the header of a WAV or W64 of the extensible format; None in any other file."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
    is_wav = head[:4] in RIFF and head[8:12] == b"WAVE"
    for name, offset, length in _chunks(head) if is_wav or head[:4] == b"riff" else ():
        if name == b"fmt ":
            if length < 40 or head[offset : offset + 2] != b"\xfe\xff":
                return None
            return int.from_bytes(head[offset + 20 : offset + 24], "little")
    return None


def opus_has_layout(path: str) -> bool:
    """Whether the channels of an Ogg Opus file have Vorbis's layout: its mapping family is 1 (RFC 7845, 5.1.1)."""
    with open(path, "rb") as file:
        head = file.read(47)
    return head[28:36] == b"OpusHead" and head[46:] == b"\1"
