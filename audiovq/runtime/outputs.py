"""Output folders: filled by one command, resumable, never mixed with the files of another command."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiovq.config.errors import AudiovqError
from audiovq.runtime.files import (
    UNFINISHED,
    WRITTEN,
    append_line,
    file_identity,
    lock_folder,
    product_at,
    read_json,
    require_new,
    write_text,
)


class OutputFolder:
    """A folder that one command fills: which files are from earlier runs, planned, and complete.

    The file `.unfinished` holds this state while the command runs, one JSON object per line:

        {"command": SHA-256}                checksum of the command
        {"old": [NAME, ...]}                files of an earlier run, to be deleted
        {"kept": [NAME, ...]}               files of earlier runs that this one adds to
        {"files": [NAME, ...]}              files that are about to be written
        {"done": NAME, "row": {...}}        a complete file with its data
    """

    def __init__(
        self, folder: Path, command: str, sources: Sequence[Path], kept: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self._command, self._begun = command, False
        self._sources = {identity: path for path in sources if (identity := file_identity(path))}
        self._old: list[str] = []
        self._kept = list(kept)
        self._files: dict[str, None] = dict.fromkeys(kept)
        self._rows: dict[str, dict[str, Any]] = {}

    def row(self, name: str) -> dict[str, Any] | None:
        """The data that `done` stored for the file `name`, in this run or the one that it resumes; None if the
        file has to be written."""
        return self._rows.get(name) if (self.folder / name).is_file() else None

    def expect(self, *names: str) -> None:
        """Announce files that are about to be written, relative to the folder, with forward slashes.

        Call it before each batch of files, so that they can be attributed to this run even if it is stopped.
        The first call deletes the files of an overwritten run. Raises AudiovqError if a file would
        overwrite one of the sources.
        """
        self._protect_sources((*self._old, *names))
        if not self._begun:
            self._begin()
        new = [name for name in names if name not in self._files]
        if new:
            self._files |= dict.fromkeys(new)
            append_line(self.folder / UNFINISHED, json.dumps({"files": new}))

    def done(self, name: str, row: Mapping[str, Any] | None = None) -> None:
        """Mark the file `name` as complete; `row`: data for a resumed run, as JSON."""
        self._rows[name] = dict(row or {})
        append_line(self.folder / UNFINISHED, json.dumps({"done": name, "row": self._rows[name]}))

    def _protect_sources(self, names: Iterable[str]) -> None:
        """Raise AudiovqError if one of `names` is a source."""
        if not self._sources:
            return
        for name in names:
            identity = file_identity(self.folder / name)
            if identity and (source := self._sources.get(identity)):
                raise AudiovqError(
                    f"{source}: would be overwritten by an output; choose another folder"
                )

    def _begin(self) -> None:
        """Write `.unfinished`, and delete the files of an overwritten run."""
        mark = self.folder / UNFINISHED
        lines: list[dict[str, Any]] = [
            {"command": self._command},
            {"old": self._old},
            *([{"kept": self._kept}] if self._kept else []),
            {"files": list(self._files)},
            *({"done": name, "row": row} for name, row in self._rows.items()),
        ]
        write_text(mark, "".join(json.dumps(line) + "\n" for line in lines))
        (self.folder / WRITTEN).unlink(missing_ok=True)
        for name in self._old:
            if name not in self._rows:
                _remove(self.folder, name)
        self._begun = True

    def _end(self) -> None:
        """Replace `.unfinished` by the list of files."""
        if self._files and not self._begun:  # all files were complete, only the list was missing
            self._begin()
        if self._files:
            write_text(self.folder / WRITTEN, json.dumps(list(self._files), indent=1) + "\n")
        if self._begun:
            (self.folder / UNFINISHED).unlink()

    def _take_over(self, overwrite: bool) -> None:
        """Read the state of earlier runs. Raises AudiovqError if the folder contains files of another command,
        unless `overwrite`."""
        mark = self.folder / UNFINISHED
        left = _marked(mark) if mark.exists() else []
        before = next((line["command"] for line in left if "command" in line), None)
        if mark.exists() and before == self._command:
            for line in left:
                self._old += line.get("old", [])
                self._files |= dict.fromkeys(line.get("files", []))
                if "done" in line:
                    self._rows[line["done"]] = line["row"]
        elif mark.exists() and not overwrite:
            # Overwriting would delete the sounds that the stopped command was only to add to.
            adds = any(line["kept"] for line in left)
            raise AudiovqError(
                f"{self.folder}: contains unfinished output of another command; run that command again"
                + (" or" if adds else ",")
                + " choose another folder"
                + (
                    " (--overwrite also deletes the sounds that it was adding to)"
                    if adds
                    else ", or add --overwrite"
                )
            )
        elif not self._kept:
            if not mark.exists():
                require_new(self.folder, overwrite)
            for line in left:
                self._old += [*line.get("old", []), *line.get("files", [])]
            if (self.folder / WRITTEN).exists():
                self._old += _names(read_json(self.folder / WRITTEN, "an output folder"))


def earlier_files(folder: Path) -> list[str]:
    """The files in `folder` of finished runs, which another run may add to; of a stopped run that added to some,
    only those. Empty if there are none."""
    mark, written = folder / UNFINISHED, folder / WRITTEN
    if mark.exists():
        return [name for line in _marked(mark) for name in line["kept"]]
    return _names(read_json(written, "an output folder")) if written.exists() else []


def _marked(mark: Path) -> list[dict[str, Any]]:
    """The valid lines of `.unfinished`, up to the first damaged one, as after a power failure."""
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, RecursionError):
        for text in mark.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if not isinstance(line, dict):
                break
            for key in ("old", "files", "kept"):
                line[key] = _names(line.get(key, []))
            if "done" in line and not (
                _names([line["done"]]) and isinstance(line.get("row"), dict)
            ):
                break
            lines.append(line)
    return lines


def _names(listed: Any) -> list[str]:
    """The strings in a list that was read from a file; empty if it is not a list."""
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _remove(folder: Path, name: str) -> None:
    """Delete the file `name` below `folder`, and sub-folders that become empty.

    Does nothing if the name leads out of `folder`, as in a manipulated list.
    """
    root = folder.resolve()
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path = (root / name).parent.resolve() / Path(name).name
        if root not in path.parents or path.is_dir():
            return
        path.unlink(missing_ok=True)
        for above in path.parents:
            if above == root:
                return
            above.rmdir()


@contextlib.contextmanager
def writing_into(
    folder: Path,
    overwrite: bool,
    command: Mapping[str, Any] | None = None,
    sources: Sequence[Path] = (),
    kept: Sequence[str] = (),
) -> Iterator[OutputFolder]:
    """Lock `folder` for one command to fill; it counts as unfinished until the block ends without an error.

    `command`: everything that determines the output, as JSON: verb, settings, checksums of the model and of
    the inputs, no paths. If the same command was stopped before, its complete files need not be written
    again (`OutputFolder.row`). Raises AudiovqError if the folder contains other files, unless `overwrite`,
    or if another run has locked it. With `overwrite`, the files listed by the earlier run are deleted when the
    first new one is announced (`OutputFolder.expect`); other files stay. `sources`: files that are never
    overwritten. `kept`: `earlier_files`, to which this command adds.

        with writing_into(out, overwrite, {"verb": "decode", "archive": digest}, [archive]) as filled:
            for name in names:
                if filled.row(name) is None:
                    filled.expect(name)
                    limited = audio.write(out / name, ...)
                    filled.done(name, {"limited": limited})

    Without a `command`, any other such run may resume, and files need not be announced.
    """
    text = json.dumps(command, sort_keys=True, ensure_ascii=True)
    if what := product_at(folder):
        raise AudiovqError(f"{folder}: is a {what}; choose another folder")
    with lock_folder(folder):
        filled = OutputFolder(folder, hashlib.sha256(text.encode()).hexdigest(), sources, kept)
        filled._take_over(overwrite)
        if command is None:
            filled.expect()
        mark = folder / UNFINISHED
        try:
            yield filled
            filled._end()
        finally:
            if list(folder.iterdir()) == [mark]:
                mark.unlink()
