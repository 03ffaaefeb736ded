"""Checksummed headers, dataset.json and model.json: a folder's contents, with SHA-256 of every file.

    "format"    kind of folder
    "version"   of its format
    "sha256"    of the header itself, computed with 64 zeros in place of these digits

The checksum is over bytes, so that it does not depend on how a reader would write JSON.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePath
from typing import Any

from audiovq.config.errors import AudiovqError
from audiovq.runtime.files import MAX_JSON_BYTES, atomic, json_text, read_bytes, read_json, sha256

CHECKSUM_PLACEHOLDER = b"0" * 64
"""Placeholder of a file's own checksum."""
DAMAGED = "damaged (checksum mismatch)"
AGAIN = "train again, or get an intact copy"
"""Advice to the user for a damaged model."""


def add_checksum(data: bytes) -> bytes:
    """`data` with its first CHECKSUM_PLACEHOLDER replaced by the SHA-256 of `data`."""
    return data.replace(CHECKSUM_PLACEHOLDER, hashlib.sha256(data).hexdigest().encode(), 1)


def has_valid_checksum(data: bytes, digest: Any) -> bool:
    """Whether `digest` is the checksum that `add_checksum` put into `data`."""
    if (
        not isinstance(digest, str)
        or len(digest) != len(CHECKSUM_PLACEHOLDER)
        or not digest.isascii()
    ):
        return False
    return (
        hashlib.sha256(data.replace(digest.encode(), CHECKSUM_PLACEHOLDER, 1)).hexdigest() == digest
    )


def header_bytes(header: dict[str, Any]) -> bytes:
    """`header`, with keys format and version, as indented JSON with its checksum."""
    first = {
        "format": header["format"],
        "version": header["version"],
        "sha256": CHECKSUM_PLACEHOLDER.decode(),
    }
    text = json_text(first | header, indent=2) + "\n"
    return add_checksum(text.encode())


def write_header(path: Path, header: dict[str, Any]) -> None:
    """Write `header_bytes` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(header_bytes(header))


def read_header(
    path: Path, kind: str, versions: int | tuple[int, ...], again: str
) -> dict[str, Any]:
    """Header of the format `audiovq-KIND`, without its checksum: inverse of `write_header`.

    Raises AudiovqError, ending in the advice `again`, for another kind or version, or a damaged file.
    """
    versions = (versions,) if isinstance(versions, int) else versions
    try:
        header = read_json(path, f"a {kind}")
    except AudiovqError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise
        missing = not path.parent.exists()
        what = f"{path.parent}: no such {kind}" if missing else str(error)
        raise AudiovqError(f"{what}{_how_to_make(kind, path.parent)}") from error
    if not isinstance(header, dict) or header.get("format") != f"audiovq-{kind}":
        raise AudiovqError(
            f"{path.parent}: not a {kind} ({path.name} is not of format 'audiovq-{kind}'); {again}"
        )
    found = header.get("version")
    if type(found) is not int or found not in versions:
        raise AudiovqError(
            f"{path.parent}: {kind} version {found!r:.40}; this program reads"
            f" {' and '.join(map(str, versions))}"
        )
    if not has_valid_checksum(read_bytes(path, MAX_JSON_BYTES), header.pop("sha256", None)):
        raise AudiovqError(f"{path}: {DAMAGED}; {again}")
    return header


def _how_to_make(kind: str, folder: Path) -> str:
    """What to do where a dataset or a model is wanted, and `folder` is neither, or the other."""
    if kind == "dataset":
        if (folder / "model.json").is_file():
            return "; it is a model: give the dataset that `audiovq preprocess` made"
        return "; `audiovq preprocess FOLDER DATASET` makes one of a folder of recordings"
    if (folder / "dataset.json").is_file():
        return "; it is a dataset, of which `audiovq train DATASET MODEL` makes one"
    return "; `audiovq preprocess FOLDER DATASET` and `audiovq train DATASET MODEL` make one of recordings"


def verified_path(folder: Path, name: Any, digest: Any, again: str) -> Path:
    """Path of the file `name` that a header lists, verified against its SHA-256.

    Reads the whole file, at about a gigabyte per second. Raises AudiovqError where it is not directly in
    `folder`, is missing, or has another checksum.
    """
    if not isinstance(name, str) or not name.isprintable() or PurePath(name).name != name:
        raise AudiovqError(f"{folder}: {name!r:.80} is outside its folder; {again}")
    path = folder / name
    try:
        if path.resolve().parent != folder.resolve():
            raise AudiovqError(f"{path}: is outside its folder; {again}")
        if not path.is_file():
            raise AudiovqError(f"{path}: missing; {again}")
        if sha256(path) != digest:
            raise AudiovqError(f"{path}: damaged (checksum mismatch); {again}")
    except (OSError, RuntimeError) as error:  # the latter for a link to itself
        raise AudiovqError(f"{path}: cannot be read ({error}); {again}") from error
    return path


def escapes_folder(name: str, flavour: type[PurePath] = PurePath) -> bool:
    """Whether a relative path read from a file escapes the folder that it is relative to.

    By the rules of this system or of `flavour`: a backslash or a colon is an ordinary character on one
    system and a separator on another.
    """
    path = flavour(name)
    return bool(path.anchor) or ".." in path.parts or "\0" in name
