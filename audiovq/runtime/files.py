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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from audiovq.config.errors import AudiovqError

if sys.platform != "win32":
    import fcntl

UNFINISHED = ".unfinished"
"""Name of the mark of a folder that is being filled."""
WRITTEN = ".written"
"""Name of the list of the files that the command wrote which filled a folder, as JSON."""
_LEFT = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)
"""Names of the files that `atomic` has not renamed yet."""
PARTS = frozenset({".json", ".jsonl", ".npy", ".safetensors"})
"""Suffixes of the files that datasets and models are made of."""
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
        text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        data = _finite(data)
        text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    if not text.isascii() and text.encode("utf-8", "ignore").decode() != text:
        text = json.dumps(data, indent=indent)  # half a character, as in a file name, has no UTF-8
    return text


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


def _make(folder: Path) -> None:
    """Make `folder` where it is missing. Raises AudiovqError where it cannot be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        with contextlib.suppress(FileNotFoundError):  # another run's folder, which is gone by now
            mode = os.lstat(folder).st_mode
            if not stat.S_ISDIR(mode) and not (stat.S_ISLNK(mode) and folder.is_dir()):
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
def lock_folder(folder: Path) -> Iterator[None]:
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


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common, whatever links or letter case lead to it."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def is_blank(folder: Path) -> bool:
    """Whether `folder` holds no file but what killed runs left half-written, in any sub-folder, and the
    list of files that are gone."""
    return not any(
        not path.is_dir() and not _LEFT.fullmatch(path.name) and path != folder / WRITTEN
        for path in folder.rglob("*")
    )


def require_apart(out: Path, *inputs: Path, emptied: bool = False) -> None:
    """Raise AudiovqError where writing `out` would change one of `inputs`.

    That is so where `out` is one of them, or a file that lies in one, such as a model's weights; and,
    if `out` is `emptied` first, where it holds one. Links are followed on both sides.
    """
    own = _identity(out)
    if own is None:  # there is nothing to write over
        return
    for path in inputs:
        if _identity(path) is None:
            continue
        around = [_identity(place) for place in Path(os.path.realpath(path)).parents]
        if own == _identity(path) or (emptied and own in around):
            raise AudiovqError(f"{out}: would overwrite {path}, which is read; name another output")
        around = [_identity(place) for place in Path(os.path.realpath(out)).parents]
        if not out.is_dir() and _identity(path) in around:
            raise AudiovqError(f"{out}: is a part of {path}, which is read; name another output")


def clear(folder: Path, but: Path | None = None) -> None:
    """Delete all that `folder` holds, short of the folder itself and of the sub-folder `but`."""
    for path in folder.iterdir():
        if path == but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_partials(folder: Path) -> None:
    """Delete what killed runs left half-written below `folder`, which must be claimed."""
    for path in folder.rglob(".*.tmp"):
        if _LEFT.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def product_at(folder: Path) -> str | None:
    """`dataset` or `model` where `folder` is one, else None."""
    return next(
        (name for name in ("dataset", "model") if (folder / f"{name}.json").is_file()), None
    )


def require_outside_products(path: Path) -> None:
    """Raise AudiovqError where a folder above `path` is a dataset or a model."""
    for folder in Path(os.path.realpath(path)).parents:
        if what := product_at(folder):
            raise AudiovqError(f"{path}: lies inside a {what} ({folder}); name another folder")


def require_new(path: Path, overwrite: bool) -> None:
    """Raise AudiovqError where `path` exists and holds something, unless `overwrite`; with it, where
    `path` is a file that a dataset or a model is made of."""
    if overwrite and path.suffix in PARTS and path.is_file() and (what := product_at(path.parent)):
        raise AudiovqError(f"{path}: is a part of a {what}; name another file")
    if overwrite or not path.exists() or (path.is_dir() and is_blank(path)):
        return
    raise AudiovqError(f"{path}: exists already; name another, or add --overwrite")


VALUE = 40
"""Characters of a label's value, or of a path, in the name of a file."""
NAME_BYTES = 120
"""Of such a name in UTF-8, short of its suffix."""


def name_of(number: int, values: Iterable[str], digits: int = 4) -> str:
    """A file's name, short of its suffix: a number and some words, such as 0007_7_george.

    Letters, digits, `.`, `_` and `-` stay, all else becomes `-`; a word is cut to VALUE characters,
    and the name to NAME_BYTES, so that every file system takes it. Names differ as their numbers do.
    """
    words = (re.sub(r"[^\w.-]+", "-", value)[:VALUE] for value in values)
    name = "_".join([f"{number:0{digits}d}", *words])
    return name.encode("utf-8", "ignore")[:NAME_BYTES].decode("utf-8", "ignore")
