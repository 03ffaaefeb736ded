"""Files on disk: whole or not at all, never over something that was there by accident."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiovq.config import AudiovqError

if sys.platform != "win32":
    import fcntl

UNFINISHED = ".unfinished"
"""Name of the mark of a folder that is being filled."""
_LEFT = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)
"""Names of the files that `atomic` has not renamed yet."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    Readers see the old file or the new one, never half of one; the bytes are on disk before the
    name is. Raises AudiovqError where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    number = int.from_bytes(os.urandom(4))  # a process of another machine may have the same one
    temporary = path.with_name(f".{path.name}.{number}.tmp")
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


def append_line(path: Path, line: str) -> None:
    """Add a line to a log. Raises AudiovqError where it cannot be written."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise AudiovqError(f"{path}: cannot be written ({error.strerror or error})") from error


def read_json(path: Path, what: str) -> Any:
    """The inverse of `write_json`. Raises AudiovqError saying that `path` is not `what`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AudiovqError(f"{path.parent}: not {what} (it has no {path.name})") from error
    except (OSError, ValueError, RecursionError) as error:
        raise AudiovqError(f"{path}: cannot be read as JSON ({error})") from error


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb", buffering=0) as file:
        data = file.read(1 << 16)
        if (
            len(data) == os.fstat(file.fileno()).st_size
        ):  # `file_digest` takes longer for short ones
            return hashlib.sha256(data).hexdigest()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def relative(path: Path, folder: Path) -> str | None:
    """The way from `folder` to `path`, with forward slashes; None where they have no folder in common but
    the root of the file system.

    It tells others who get `folder` less than the whole path, and holds when both are moved together.
    """
    path, folder = path.resolve(), folder.resolve()
    if path.anchor != folder.anchor or path.parts[1:2] != folder.parts[1:2] or not path.parts[1:]:
        return None
    return Path(os.path.relpath(path, folder)).as_posix()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """`folder`, made where it is missing, is this process's to write into until the block ends.

    The system frees it when the process dies. What locks is the folder itself, so no file is left;
    where the system cannot lock one (Windows, some network file systems), nothing does. A folder
    that is still empty at the end goes. Raises AudiovqError where another run holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise AudiovqError(f"{folder}: exists and is no folder; name another") from error
    except OSError as error:
        raise AudiovqError(f"{folder}: cannot be written ({error.strerror or error})") from error
    if sys.platform == "win32":
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise AudiovqError(
            f"{folder}: another run is writing here; wait for it, or name another folder"
        ) from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
        os.close(lock)


@contextlib.contextmanager
def filling(folder: Path, overwrite: bool) -> Iterator[None]:
    """`folder` is claimed, and marked as unfinished until the block ends well.

    What a killed run left is gone on with; raises AudiovqError where something else is there already,
    unless `overwrite`, or where another run holds the folder.
    """
    with claimed(folder):
        mark = folder / UNFINISHED
        if not mark.exists():
            require_new(folder, overwrite)
        write_text(mark, "")
        try:
            yield
            mark.unlink()
        finally:
            if list(folder.iterdir()) == [mark]:
                mark.unlink()


def is_blank(folder: Path) -> bool:
    """Whether `folder` holds no file but what killed runs left half-written, in any sub-folder."""
    return not any(
        not path.is_dir() and not _LEFT.fullmatch(path.name) for path in folder.rglob("*")
    )


def clear(folder: Path, but: Path | None = None) -> None:
    """Delete all that `folder` holds, short of the folder itself and of the sub-folder `but`."""
    for path in folder.iterdir():
        if path == but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sweep(folder: Path) -> None:
    """Delete what killed runs left half-written below `folder`, which must be claimed."""
    for path in folder.rglob(".*.tmp"):
        if _LEFT.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def require_new(path: Path, overwrite: bool) -> None:
    """Raise AudiovqError where `path` exists and holds something, unless `overwrite`."""
    if overwrite or not path.exists() or (path.is_dir() and is_blank(path)):
        return
    raise AudiovqError(f"{path}: exists already; name another, or add --overwrite")
