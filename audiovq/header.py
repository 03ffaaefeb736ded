"""dataset.json and model.json: what lies in a folder, with a checksum of every file and of itself.

    "format"    what the folder is
    "version"   of its layout
    "sha256"    of this very file, computed with sixty-four zeros in the place of its own digits

It is over bytes, so that a reader need not agree with us on how JSON is written.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePath
from typing import Any

from audiovq.config import AudiovqError
from audiovq.files import MOST_JSON, atomic, json_text, read_bytes, read_json, sha256

ZEROS = b"0" * 64
"""Where a checksum will stand."""
DAMAGED = "damaged (its checksum is not that of its bytes)"


def seal(data: bytes) -> bytes:
    """Bytes that hold ZEROS → the same with the SHA-256 of them all in the place of the first."""
    return data.replace(ZEROS, hashlib.sha256(data).hexdigest().encode(), 1)


def is_sealed(data: bytes, digest: Any) -> bool:
    """Whether `data` are bytes that `seal` gave `digest`."""
    if not isinstance(digest, str) or len(digest) != len(ZEROS) or not digest.isascii():
        return False
    return hashlib.sha256(data.replace(digest.encode(), ZEROS, 1)).hexdigest() == digest


def header_bytes(header: dict[str, Any]) -> bytes:
    """`header`, which has format and version, as indented JSON with its checksum."""
    first = {"format": header["format"], "version": header["version"], "sha256": ZEROS.decode()}
    text = json_text(first | header, indent=2) + "\n"
    return seal(text.encode())


def write_header(path: Path, header: dict[str, Any]) -> None:
    """Write `header_bytes`, atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(header_bytes(header))


def read_header(path: Path, kind: str, version: int, again: str) -> dict[str, Any]:
    """The inverse of `write_header`, for the format `audiovq-KIND`.

    Raises AudiovqError where the file is none, is of another version, or is damaged, and says to do
    it `again`.
    """
    header = read_json(path, f"a {kind}")
    if not isinstance(header, dict) or header.get("format") != f"audiovq-{kind}":
        raise AudiovqError(
            f"{path.parent}: not a {kind} ({path.name} says no 'audiovq-{kind}'); {again}"
        )
    found = header.get("version")
    if type(found) is not int or found != version:
        raise AudiovqError(
            f"{path.parent}: {kind} version {found!r:.40}; this program reads {version}"
        )
    if not is_sealed(read_bytes(path, MOST_JSON), header.pop("sha256", None)):
        raise AudiovqError(f"{path}: {DAMAGED}; {again}")
    return header


def listed(folder: Path, name: Any, digest: Any, again: str) -> Path:
    """The path of the file `name` that a header lists with its SHA-256.

    All of it is read, at a gigabyte a second or so. Raises AudiovqError where it does not lie in
    `folder` itself, is missing, or has other bytes.
    """
    if not isinstance(name, str) or not name.isprintable() or PurePath(name).name != name:
        raise AudiovqError(f"{folder}: {name!r:.80} does not lie in its own folder; {again}")
    path = folder / name
    try:
        if path.resolve().parent != folder.resolve():
            raise AudiovqError(f"{path}: does not lie in its own folder; {again}")
        if not path.is_file():
            raise AudiovqError(f"{path}: missing; {again}")
        if sha256(path) != digest:
            raise AudiovqError(f"{path}: damaged (its checksum is not the one listed); {again}")
    except (OSError, RuntimeError) as error:  # the latter where a link leads to itself
        raise AudiovqError(f"{path}: cannot be read ({error}); {again}") from error
    return path


def leads_out(name: str, flavour: type[PurePath] = PurePath) -> bool:
    """Whether a path in a file of ours leads out of the folder that it is meant for.

    By the rules of this system, where `flavour` names no other: a backslash or a colon is a letter
    like any other on one, and a way out on another.
    """
    path = flavour(name)
    return bool(path.anchor) or ".." in path.parts or "\0" in name
