"""Files on disk: whole or not at all, never over something that was there by accident."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
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
MOST_JSON = 100 << 20
"""Bytes of the largest JSON file that is read."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    Readers see the old file or the new one, never half of one; the bytes are on disk before the
    name is. Raises AudiovqError where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    number = int.from_bytes(os.urandom(4))  # a process of another machine may have the same one
    temporary = path.with_name(f".audiovq.{number}.tmp")  # short, however long the name is
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
    """Write `data` as indented JSON, atomically: see `json_text`."""
    write_text(path, json_text(data, indent=2) + "\n")


def json_text(data: Any, indent: int | None = None) -> str:
    """`data` as JSON. NaN and infinity, which JSON does not have, become null."""
    try:
        return json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(data), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(data: Any) -> Any:
    """`data` with None in place of numbers that are not finite."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


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
        return json.loads(_regular(path, MOST_JSON).decode("utf-8"))
    except FileNotFoundError as error:
        raise AudiovqError(f"{path.parent}: not {what} (it has no {path.name})") from error
    except (OSError, ValueError, RecursionError) as error:
        words = getattr(error, "strerror", None) or error
        raise AudiovqError(f"{path}: cannot be read as JSON ({words})") from error


def read_object(path: Path, what: str) -> dict[str, Any]:
    """As `read_json`, where the file has to hold an object."""
    data = read_json(path, what)
    if not isinstance(data, dict):
        raise AudiovqError(f"{path}: not {what} (no JSON object)")
    return data


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file. Raises AudiovqError where it is none, or holds more than `most`."""
    try:
        return _regular(path, most)
    except OSError as error:
        raise AudiovqError(f"{path}: cannot be read ({error.strerror or error})") from error


def _regular(path: Path, most: int | None) -> bytes:
    """As `read_bytes`, but raises OSError. A pipe is not waited for, a device not read without end."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if most is not None and found.st_size > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB")
    return path.read_bytes()


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """`folder`, made where it is missing, is this process's to write into until the block ends.

    The system frees it when the process dies. What locks is the folder itself, so no file is left;
    where the system cannot lock one (Windows, some network file systems), nothing does. A folder
    that is still empty at the end goes. Raises AudiovqError where another run holds it.
    """
    _make(folder)
    if sys.platform == "win32":
        yield
        return
    lock = _locked(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
        os.close(lock)


def _make(folder: Path) -> None:
    """Make `folder` where it is missing. Raises AudiovqError where it cannot be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise AudiovqError(f"{folder}: exists and is no folder; name another") from error
    except OSError as error:
        raise AudiovqError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _locked(folder: Path) -> int:
    """A descriptor of `folder`, locked. Raises AudiovqError where another run holds it.

    A run that ends removes its folder where it is empty, so that what was opened may be gone by the
    time that it is locked. Then the folder is made and opened again.
    """
    held = f"{folder}: another run is writing here; wait for it, or name another folder"
    for _ in range(100):
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            _make(folder)
            continue
        except OSError as error:
            raise AudiovqError(f"{folder}: cannot be opened ({error.strerror or error})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise AudiovqError(held) from error
        except OSError:  # a file system without locks
            return lock
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(folder)):
                return lock
        os.close(lock)
        _make(folder)
    raise AudiovqError(held)


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


def require_apart(out: Path, *inputs: Path) -> None:
    """Raise AudiovqError where writing `out` would change one of `inputs`.

    That is so where `out` is one of them or a folder that holds one, and where it is a file that lies
    in one, such as a model's weights. Links are followed on both sides.
    """
    try:
        own = os.stat(out)
    except OSError:  # there is nothing to write over
        return
    for path in inputs:
        if any(os.path.samestat(own, place) for place in _places(path)):
            raise AudiovqError(f"{out}: would overwrite {path}, which is read; name another output")
        if path.is_dir() and not out.is_dir():
            folder = os.stat(path)
            if any(os.path.samestat(folder, place) for place in _places(out)):
                raise AudiovqError(
                    f"{out}: is a part of {path}, which is read; name another output"
                )


def _places(path: Path) -> Iterator[os.stat_result]:
    """What `path` leads to, and every folder around it."""
    real = Path(os.path.realpath(path))
    for place in (real, *real.parents):
        with contextlib.suppress(OSError):
            yield os.stat(place)
