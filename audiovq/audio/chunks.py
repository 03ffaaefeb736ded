"""The chunks of a WAV that describe its sound to samplers and audio workstations: root note, loop, tempo, texts.

RIFF chunks (Microsoft and IBM 1991): `smpl` (root note, loop), `cue `, `LIST` of type `INFO` (texts); `acid` (tempo,
beats, root note) as Sonic Foundry's Acid writes it; `bext` (EBU Tech 3285, version 2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIDDLE_C = 60
"""The root note that `smpl` states for a loop without one."""
ONE_SHOT, HAS_ROOT = 1, 2
"""Flags of `acid`."""
UNMEASURED = 0x7FFF
"""A loudness in `bext` that was not measured."""
MAX_CUES = 10_000
MOST_BYTES = 1 << 20
"""Chunks larger than this are not read."""
_SMPL, _LOOP, _CUE = struct.Struct("<9I"), struct.Struct("<6I"), struct.Struct("<II4s3I")
_ACID = struct.Struct("<IHHfIHHf")
_BEXT = struct.Struct("<256s32s32s10s8sQH64s5h180x")


@dataclass(frozen=True)
class Tags:
    """What a WAV states about its sound; nothing by default."""

    root: int | None = None
    """MIDI note at which it has its pitch, 0 to 127."""
    loop: tuple[int, int] | None = None
    """First sample of the loop, and the one after its last."""
    loop_kind: int = 0
    """0: forward, 1: forward and backward in turn, 2: backward."""
    tempo: float | None = None
    """Beats per minute."""
    beats: int = 0
    """Number of beats in the sound."""
    beats_per_bar: int = 4
    cues: tuple[int, ...] = ()
    """Marked samples, ascending."""
    info: dict[str, str] = field(default_factory=dict)
    """Texts by their four letters: ISFT software, ICMT comment, INAM name."""
    bext: str | None = None
    """Description of the sound for broadcasting, up to 256 bytes; None: no `bext`."""
    loudness: float | None = None
    """Integrated loudness in LUFS, for `bext`."""

    def __bool__(self) -> bool:
        return self != Tags()


def pack(tags: Tags, sample_rate: int) -> bytes:
    """The chunks, one after another, as they follow the samples in a WAV. `unpack` is the inverse."""
    parts = []
    if tags.bext is not None:
        parts.append(_chunk(b"bext", _bext(tags)))
    if tags.root is not None or tags.loop is not None:
        root = MIDDLE_C if tags.root is None else tags.root
        period = round(1e9 / sample_rate)
        body = _SMPL.pack(0, 0, period, root, 0, 0, 0, tags.loop is not None, 0)
        if tags.loop is not None:
            body += _LOOP.pack(0, tags.loop_kind, tags.loop[0], tags.loop[1] - 1, 0, 0)
        parts.append(_chunk(b"smpl", body))
    if tags.cues:
        points = (
            _CUE.pack(i, sample, b"data", 0, 0, sample) for i, sample in enumerate(tags.cues, 1)
        )
        parts.append(_chunk(b"cue ", struct.pack("<I", len(tags.cues)) + b"".join(points)))
    if tags.tempo is not None or tags.root is not None:
        flags = (ONE_SHOT if tags.loop is None else 0) | (HAS_ROOT if tags.root is not None else 0)
        root = MIDDLE_C if tags.root is None else tags.root
        meter = 4, tags.beats_per_bar
        body = _ACID.pack(flags, root, 0x8000, 0.0, tags.beats, *meter, tags.tempo or 0.0)
        parts.append(_chunk(b"acid", body))
    if tags.info:
        texts = (_chunk(name.encode(), _text(text)) for name, text in tags.info.items())
        parts.append(_chunk(b"LIST", b"INFO" + b"".join(texts)))
    return b"".join(parts)


def unpack(data: bytes) -> Tags:
    """The tags in chunks that follow one another; others, and damaged ones, are passed over."""
    values: dict[str, Any] = {}
    info: dict[str, str] = {}
    for name, body in _chunks(data):
        if name == b"LIST" and body[:4] == b"INFO":
            info |= {
                key.decode("latin-1"): text.split(b"\0")[0].decode("utf-8", "replace")
                for key, text in _chunks(body[4:])
            }
        elif reader := _READERS.get(name):
            values |= reader(body)
    return Tags(**values, info=info)


def read(path: Path | str) -> Tags:
    """The tags of a file; none if it is not a WAV. Raises OSError if it cannot be read."""
    found = []
    with open(path, "rb") as file:
        if file.read(12)[::8] != b"RW":
            return Tags()
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if (name == b"LIST" or name in _READERS) and size <= MOST_BYTES:
                found.append(head + file.read(size) + bytes(size % 2))
                file.seek(size % 2, 1)
            else:
                file.seek(size + size % 2, 1)
    return unpack(b"".join(found))


def _chunk(name: bytes, body: bytes) -> bytes:
    """A chunk, padded to an even number of bytes."""
    return struct.pack("<4sI", name, len(body)) + body + bytes(len(body) % 2)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each chunk that is complete."""
    begin = 0
    while begin + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, begin)
        if begin + 8 + size > len(data):
            return
        yield name, data[begin + 8 : begin + 8 + size]
        begin += 8 + size + size % 2


def _text(text: str) -> bytes:
    """A text as `INFO` stores it: UTF-8, which ends with a zero byte."""
    return text.replace("\0", " ").encode("utf-8", "replace") + b"\0"


def _cut(text: str, most: int) -> bytes:
    """A text in at most `most` bytes of UTF-8."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore").encode()


def _bext(tags: Tags) -> bytes:
    """Version 2, without a date, so that equal sounds give equal files."""
    loudness = UNMEASURED if tags.loudness is None else round(100 * tags.loudness)
    originator = _cut(tags.info.get("ISFT", ""), 32)
    measured = max(-UNMEASURED, min(UNMEASURED, loudness)), *[UNMEASURED] * 4
    return _BEXT.pack(
        _cut(tags.bext or "", 256), originator, b"", b"", b"", 0, 2, bytes(64), *measured
    )


def _read_smpl(body: bytes) -> dict[str, Any]:
    if len(body) < _SMPL.size:
        return {}
    *_, root, _, _, _, loops, _ = _SMPL.unpack_from(body)
    found: dict[str, Any] = {"root": root} if root <= 127 else {}
    if loops and len(body) >= _SMPL.size + _LOOP.size:
        _, kind, begin, last, _, _ = _LOOP.unpack_from(body, _SMPL.size)
        found |= {"loop": (begin, last + 1), "loop_kind": kind}
        if root == MIDDLE_C:  # states no root; `acid` may
            del found["root"]
    return found


def _read_cue(body: bytes) -> dict[str, Any]:
    count = int.from_bytes(body[:4], "little")
    count = min(count, MAX_CUES, (len(body) - 4) // _CUE.size)
    points = (_CUE.unpack_from(body, 4 + i * _CUE.size) for i in range(count))
    return {"cues": tuple(sorted(point[5] for point in points))}


def _read_acid(body: bytes) -> dict[str, Any]:
    if len(body) < _ACID.size:
        return {}
    flags, root, _, _, beats, _, beats_per_bar, tempo = _ACID.unpack_from(body)
    found: dict[str, Any] = {"root": root} if flags & HAS_ROOT and root <= 127 else {}
    if 0 < tempo < 1e4:
        found |= {"tempo": tempo, "beats": beats, "beats_per_bar": beats_per_bar}
    return found


def _read_bext(body: bytes) -> dict[str, Any]:
    if len(body) < _BEXT.size:
        return {}
    description, *_, version, _, loudness, _, _, _, _ = _BEXT.unpack_from(body)
    found: dict[str, Any] = {"bext": description.split(b"\0")[0].decode("utf-8", "replace")}
    if version >= 2 and loudness != UNMEASURED:
        found["loudness"] = loudness / 100
    return found


_READERS = {b"smpl": _read_smpl, b"cue ": _read_cue, b"acid": _read_acid, b"bext": _read_bext}
