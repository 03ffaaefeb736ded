"""Files on disk: atomic writes, JSON, folder locks, and checks of paths before they are written."""

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
"""File that marks a folder that a command is filling."""
WRITTEN = ".written"
"""File with the list of files that a command wrote into its folder, as JSON."""
_PARTIAL = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)
"""Names of temporary files of `atomic`."""
PRODUCT_SUFFIXES = frozenset({".json", ".jsonl", ".npy", ".safetensors"})
"""Suffixes of the files of datasets and models."""
MAX_JSON_BYTES = 100 << 20
"""Maximum size of JSON files; larger ones are rejected."""


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a full disk, and of a user's share of one that is used up."""
FULL_ADVICE = "make room on that disk, then run the same command again"


def is_full(error: OSError) -> bool:
    """Whether `error` is that of a full disk."""
    return error.errno in FULL


def cannot_write(path: Path | str, error: OSError) -> AudiovqError:
    """The error to raise where `path` cannot be written; of a full disk, it says what to do."""
    advice = f"; {FULL_ADVICE}" if is_full(error) else ""
    return AudiovqError(f"{path}: cannot be written ({error.strerror or error}){advice}")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to `path` when the block ends without an error.

    Readers see the old file or the new one, never a part; the data is flushed to disk before the file is
    renamed. Raises AudiovqError if the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    number = int.from_bytes(os.urandom(4))  # process ids are not unique across machines
    temporary = path.with_name(
        f".audiovq.{number}.tmp"
    )  # the name of `path` may have the maximum length
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
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
    """`data` as JSON; NaN and infinity become null."""
    try:
        text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        data = _finite(data)
        text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    if not text.isascii() and text.encode("utf-8", "ignore").decode() != text:
        text = json.dumps(data, indent=indent)  # lone surrogates, as in file names, have no UTF-8
    return text


def _finite(data: Any) -> Any:
    """`data` with non-finite numbers replaced by None."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, as a whole or not at all. Raises AudiovqError if it cannot be written."""
    try:
        with open(path, "ab", buffering=0) as file:
            data, before = f"{line}\n".encode(), file.tell()
            try:
                while data:  # a disk that becomes full takes a part first
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def read_json(path: Path, what: str) -> Any:
    """Read JSON, inverse of `write_json`. Raises AudiovqError; if the file is missing, with "not WHAT"."""
    try:
        return json.loads(_regular(path, MAX_JSON_BYTES).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudiovqError(f"{path.parent}: not {what} (it has no {path.name})") from error
    except (OSError, ValueError, RecursionError) as error:
        words = getattr(error, "strerror", None) or error
        raise AudiovqError(f"{path}: cannot be read as JSON ({words})") from error


def read_object(path: Path, what: str) -> dict[str, Any]:
    """`read_json` of a JSON object. Raises AudiovqError for other JSON, too."""
    data = read_json(path, what)
    if not isinstance(data, dict):
        raise AudiovqError(f"{path}: not {what} (no JSON object)")
    return data


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Bytes of a regular file. Raises AudiovqError for other files, and if there are more than `most`."""
    try:
        return _regular(path, most)
    except OSError as error:
        raise AudiovqError(f"{path}: cannot be read ({error.strerror or error})") from error


def _regular(path: Path, most: int | None) -> bytes:
    """`read_bytes` that raises OSError; pipes and devices, which might never end, are not opened."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if most is not None and found.st_size > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB")
    return path.read_bytes()


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if 0 < size <= 1 << 20:  # `file_digest` is slower for short files
            data = file.read(size)
            if len(data) == size:
                return hashlib.sha256(data).hexdigest()
            file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def relative(path: Path, folder: Path) -> str | None:
    """Relative path from `folder` to `path`, with forward slashes; None if only the root of the file system
    contains both.

    Unlike an absolute path, it discloses less, and stays valid if both are moved together.
    """
    path, folder = path.resolve(), folder.resolve()
    if path.anchor != folder.anchor or path.parts[1:2] != folder.parts[1:2] or not path.parts[1:]:
        return None
    return Path(os.path.relpath(path, folder)).as_posix()


def state_folder() -> Path | None:
    """The user's folder for what the program remembers on this machine, `$XDG_STATE_HOME/audiovq`; None without a home."""
    given = os.environ.get("XDG_STATE_HOME", "")
    with contextlib.suppress(RuntimeError):
        return (Path(given) if os.path.isabs(given) else Path.home() / ".local/state") / "audiovq"
    return None


def _create(folder: Path) -> None:
    """Create `folder` if it is missing. Raises AudiovqError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        with contextlib.suppress(FileNotFoundError):  # another run removed its folder meanwhile
            mode = os.lstat(folder).st_mode
            if not stat.S_ISDIR(mode) and not (stat.S_ISLNK(mode) and folder.is_dir()):
                raise AudiovqError(
                    f"{folder}: exists and is not a folder; choose another one"
                ) from error
    except OSError as error:
        raise cannot_write(folder, error) from error


def _lock(folder: Path) -> int:
    """Open and lock `folder`; returns its descriptor. Raises AudiovqError if another run has locked it.

    A run that ends removes its folder if it is empty, so the folder may be removed between opening and
    locking. Then it is created and opened again.
    """
    locked = f"{folder}: another run is writing here; wait for it, or choose another folder"
    for _ in range(100):
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            _create(folder)
            continue
        except OSError as error:
            raise AudiovqError(f"{folder}: cannot be opened ({error.strerror or error})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise AudiovqError(locked) from error
        except OSError:  # a file system without locks
            return lock
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(folder)):
                return lock
        os.close(lock)
        _create(folder)
    raise AudiovqError(locked)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process during the block; creates it if it is missing.

    The lock is on the folder itself and leaves no file; the system releases it when the process ends. On
    systems that cannot lock folders (Windows, some network file systems) there is no lock. If the folder is
    empty at the end, it is removed. Raises AudiovqError if another run has locked it.
    """
    _create(folder)
    if sys.platform == "win32":
        yield
        return
    lock = _lock(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
        os.close(lock)


@contextlib.contextmanager
def take_turns(path: Path) -> Iterator[None]:
    """Lock an existing file for this process during the block; waits while another process has locked it.

    The file is only read. On systems without such locks (Windows, some network file systems) there is none.
    """
    if sys.platform == "win32":
        yield
        return
    with path.open("rb") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def file_identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, equal for all paths of one file; None if it does not exist."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def is_blank(folder: Path) -> bool:
    """Whether `folder` and its sub-folders contain no files except partial ones of killed runs, and the list
    of files."""
    return not any(
        not path.is_dir() and not _PARTIAL.fullmatch(path.name) and path != folder / WRITTEN
        for path in folder.rglob("*")
    )


def require_apart(out: Path, *inputs: Path, emptied: bool = False) -> None:
    """Raise AudiovqError if writing `out` would change one of `inputs`.

    That is the case if `out` is one of them, or an existing file in one, such as a model's weights; and if
    `out` is `emptied` first, also if it contains one. Links are followed on both sides.
    """
    target = file_identity(out)
    if target is None:  # nothing exists there
        return
    for path in inputs:
        if file_identity(path) is None:
            continue
        parents = [file_identity(parent) for parent in Path(os.path.realpath(path)).parents]
        if target == file_identity(path) or (emptied and target in parents):
            raise AudiovqError(f"{out}: would overwrite the input {path}; choose another output")
        parents = [file_identity(parent) for parent in Path(os.path.realpath(out)).parents]
        if not out.is_dir() and file_identity(path) in parents:
            raise AudiovqError(f"{out}: is inside the input {path}; choose another output")


def require_outside(out: Path, *folders: Path) -> None:
    """Raise AudiovqError if `out` is inside one of `folders`, of which other files may be recordings."""
    for folder in folders:
        if folder.is_dir() and folder.resolve() in out.resolve().parents:
            raise AudiovqError(f"{out}: is inside the input {folder}; choose another folder")


def clear(folder: Path, but: Path | None = None) -> None:
    """Delete the contents of `folder`, except the sub-folder `but`."""
    for path in folder.iterdir():
        if path == but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_partials(folder: Path) -> None:
    """Delete partial files of killed runs below `folder`, which must be locked."""
    for path in folder.rglob(".*.tmp"):
        if _PARTIAL.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def product_at(folder: Path) -> str | None:
    """`dataset` or `model` if `folder` is one, else None."""
    return next(
        (name for name in ("dataset", "model") if (folder / f"{name}.json").is_file()), None
    )


def require_outside_products(path: Path) -> None:
    """Raise AudiovqError if a parent folder of `path` is a dataset or a model."""
    for folder in Path(os.path.realpath(path)).parents:
        if what := product_at(folder):
            raise AudiovqError(f"{path}: lies inside a {what} ({folder}); choose another folder")


def require_new(path: Path, overwrite: bool) -> None:
    """Raise AudiovqError if `path` is an existing file or a folder with files, unless `overwrite`; in any
    case if it is a file of a dataset or a model."""
    if (
        overwrite
        and path.suffix in PRODUCT_SUFFIXES
        and path.is_file()
        and (what := product_at(path.parent))
    ):
        raise AudiovqError(f"{path}: is a part of a {what}; choose another file")
    if overwrite or not path.exists() or (path.is_dir() and is_blank(path)):
        return
    raise AudiovqError(f"{path}: exists already; choose another, or add --overwrite")


MAX_VALUE_CHARS = 40
"""Maximum length of a label's value, or of a path, in the name of a file."""
MAX_NAME_BYTES = 120
"""Maximum length of such a name in UTF-8, without suffix."""


def name_of(number: int, values: Iterable[str], digits: int = 4) -> str:
    """File name without suffix: a number and words, such as 0007_7_george.

    The sharp of a note's name is `s` (`Ds3`); other characters other than letters, digits, `.`, `_` and `-` become `-`; words are truncated to
    MAX_VALUE_CHARS and the name to MAX_NAME_BYTES, which every file system supports. Names with different
    numbers differ.
    """
    words = (
        re.sub(r"[^\w.-]+", "-", re.sub(r"\b([A-G])#(-?\d)\b", r"\1s\2", value))[:MAX_VALUE_CHARS]
        for value in values
    )
    name = "_".join([f"{number:0{digits}d}", *words])
    return name.encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
