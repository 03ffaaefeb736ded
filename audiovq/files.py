"""Files on disk: whole or not at all, never over something that was there by accident."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiovq.config import AudiovqError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    Readers see the old file or the new one, never half of one; the bytes are on disk before the
    name is. Raises AudiovqError where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise AudiovqError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, atomically."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, what: str) -> Any:
    """The inverse of `write_json`. Raises AudiovqError saying that `path` is not `what`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AudiovqError(f"{path.parent}: not {what} (it has no {path.name})") from error
    except (OSError, ValueError) as error:
        raise AudiovqError(f"{path}: cannot be read as JSON ({error})") from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_new(path: Path, overwrite: bool) -> None:
    """Raise AudiovqError where `path` exists and holds something, unless `overwrite`."""
    if overwrite or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    raise AudiovqError(f"{path}: exists already; name another, or add --overwrite")
