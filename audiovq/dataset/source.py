"""Where the recordings of a dataset are, if the dataset does not say: a note on this machine, by its fingerprint.

A dataset may be published, so it has no path that begins at the root of a file system. Where it shares nothing but the
root with its recordings, their folder is noted in the user's own folder for such things, `$XDG_STATE_HOME/audiovq`.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from audiovq.config.errors import AudiovqError
from audiovq.runtime.files import relative, state_folder, write_text

MAX_BYTES = 1 << 16
"""Of a note: longer ones are not read."""


def relative_or_noted(recordings: Path, dataset: Path, fingerprint: str) -> str | None:
    """Relative path from a dataset's folder to its recordings; None if only the root contains both: then the path is
    noted, unless notes cannot be written."""
    found = relative(recordings, dataset)
    if found is None and (path := _path(fingerprint)) is not None:
        _note(path, recordings)
    return found


def _note(path: Path, recordings: Path) -> None:
    with contextlib.suppress(OSError, AudiovqError, UnicodeEncodeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, str(recordings.absolute()))


def noted(fingerprint: str) -> Path | None:
    """The folder that was noted for a dataset, if it still exists; else None."""
    path = _path(fingerprint)
    try:
        if path is None or path.stat().st_size > MAX_BYTES:
            return None
        found = Path(path.read_text(encoding="utf-8"))
        return found if found.is_absolute() and found.is_dir() else None
    except (OSError, ValueError):
        return None


def _path(fingerprint: str) -> Path | None:
    """The file of a note; None where the fingerprint is none, or there is no state folder."""
    folder = state_folder()
    if folder is None or not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        return None
    return folder / "recordings" / fingerprint
