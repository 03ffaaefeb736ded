"""Views of files whose headers do not say rightly where the sound ends.

A writer into a pipe, or a recorder that was killed, never came back to the header: it says that there are no
samples, or more than there are. Of several MP3s in one file it counts the first one's.
"""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO

HEADER = 1 << 16
"""Bytes in which the samples begin."""


class Patched(io.FileIO):
    """A file that is read as if other bytes were at some places of it, and none from `end` on."""

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
        for place, patch in self._patches.items():
            for number in range(len(patch)):
                if 0 <= place + number - begin < count:
                    at = place + number - begin
                    buffer[at : at + 1] = patch[number : number + 1]
        return count


def patches_of(path: str) -> dict[int, bytes]:
    """Where the header of a WAV, RF64, AU or CAF is unfinished: place → the bytes that belong there."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
        size = file.seek(0, io.SEEK_END)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _wav(head, size)
    if head[:4] in (b".snd", b"dns.") and head[8:12] == bytes(4):
        begin = int.from_bytes(head[4:8], "big" if head[:1] == b"." else "little")
        return {8: b"\xff\xff\xff\xff"} if begin >= 24 else {}  # not known, by the format itself
    if head[:4] == b"caff":
        place = 8
        while place + 12 <= len(head):
            name, length = struct.unpack_from(">4sq", head, place)
            place += 12
            if name == b"data":
                is_finished = 0 < length <= size - place
                return {} if is_finished else {place - 8: struct.pack(">q", size - place)}
            place += max(0, length)
    return {}


def end_of_w64(path: str) -> int | None:
    """Where the samples of a W64 end, if something lies behind them: libsndfile would read it as sound."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
        size = file.seek(0, io.SEEK_END)
    place = 40
    while place + 24 <= len(head):
        name, length = struct.unpack_from("<4s12xQ", head, place)
        if name == b"data":
            return place + length if 24 < length < size - place else None
        place += max(24, length + -length % 8)
    return None


def patches_of_joined_mp3(path: str) -> dict[int, bytes]:
    """Where the first of several MP3s in one file counts its own frames, the place of that count's name:
    without it all of them are read."""
    with open(path, "rb") as file:
        place = _behind_tags(file, 0)
        file.seek(place)
        frame = file.read(256)
        at = max(frame.find(b"Xing", 4), frame.find(b"Info", 4))
        if frame[:1] != b"\xff" or at < 0 or frame[at + 7 : at + 8] < b"\3":
            return {}
        length = int.from_bytes(frame[at + 12 : at + 16], "big")
        file.seek(_behind_tags(file, place + max(length, len(frame))))
        return {place + at: bytes(4)} if file.read(2) == frame[:2] else {}


def stated_size_of_mp3(path: str) -> int | None:
    """Size in bytes that the file would have by the Xing header of its MP3; None where that has none."""
    with open(path, "rb") as file:
        place = _behind_tags(file, 0)
        file.seek(place)
        frame = file.read(256)
    at = max(frame.find(b"Xing", 4), frame.find(b"Info", 4))
    if frame[:1] != b"\xff" or at < 0 or not frame[at + 7 : at + 8] or frame[at + 7] & 3 != 3:
        return None
    return place + int.from_bytes(frame[at + 12 : at + 16], "big") or None


def _behind_tags(file: BinaryIO, place: int) -> int:
    """The first place from `place` on where no ID3 tag begins."""
    while True:
        file.seek(place)
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            high, *rest = head[6:]
            for byte in rest:
                high = high << 7 | byte
            place += 10 + high
        elif head[:3] == b"TAG":
            place += 128
        else:
            return place


def _wav(head: bytes, size: int) -> dict[int, bytes]:
    wide = 0  # where lengths of 64 bits are
    place = 12
    while place + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, place)
        place += 8
        if name == b"ds64":
            wide = place
        if name == b"data":
            if wide:
                length = int.from_bytes(head[wide + 8 : wide + 16], "little")
            if 0 < length <= size - place or _is_chunk(head[place : place + 8], size - place):
                return {}  # all are there; or none are, and what is behind is something else
            if wide:
                return {wide: struct.pack("<QQ", size - 8, size - place)}
            longest = (1 << 32) - 1
            return {
                4: struct.pack("<I", min(size - 8, longest)),
                place - 4: struct.pack("<I", min(size - place, longest)),
            }
        place += length + length % 2
    return {}


def _is_chunk(head: bytes, left: int) -> bool:
    """Whether a chunk begins with these bytes, which fits into so many."""
    if len(head) < 8 or not head[:4].decode("latin-1").strip().isalnum() or not head[:4].isascii():
        return False
    return 8 + int.from_bytes(head[4:], "little") <= left
