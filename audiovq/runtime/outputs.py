"""Folders that one command fills with files: resumable, and never mixed with another command's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiovq.config.errors import AudiovqError

if sys.platform != "win32":
    pass
from audiovq.runtime.files import (
    UNFINISHED,
    WRITTEN,
    _identity,
    append_line,
    lock_folder,
    product_at,
    read_json,
    require_new,
    write_text,
)


class OutputFolder:
    """A folder that one command fills, file by file: what is there already, and what was written.

    The mark `.unfinished` holds all of it while the command runs, a JSON object a line:

        {"command": SHA-256}                what the run was asked for
        {"old": [NAME, ...]}                files of an earlier run, which go
        {"files": [NAME, ...]}              files that are about to be written
        {"done": NAME, "row": {...}}        a file that is whole, and what is told of it
    """

    def __init__(self, folder: Path, command: str, sources: Sequence[Path]) -> None:
        self.folder = folder
        self._command, self._begun = command, False
        self._sources = {identity: path for path in sources if (identity := _identity(path))}
        self._old: list[str] = []
        self._files: dict[str, None] = {}
        self._rows: dict[str, dict[str, Any]] = {}

    def row(self, name: str) -> dict[str, Any] | None:
        """What `done` was told of the file `name` by this run or the stopped one that it resumes; None
        where the file is still to be written."""
        return self._rows.get(name) if (self.folder / name).is_file() else None

    def expect(self, *names: str) -> None:
        """Files that are about to be written, relative to the folder, with forward slashes.

        Call it before each batch of files: whatever stops the run, they are known as its own. With
        the first call, the files of the run that is overwritten go. Raises AudiovqError where a
        file would be written over one of the sources.
        """
        self._spare((*self._old, *names))
        if not self._begun:
            self._begin()
        new = [name for name in names if name not in self._files]
        if new:
            self._files |= dict.fromkeys(new)
            append_line(self.folder / UNFINISHED, json.dumps({"files": new}))

    def done(self, name: str, row: Mapping[str, Any] | None = None) -> None:
        """The file `name` is whole; `row` is what a resumed run needs to know of it, as JSON has it."""
        self._rows[name] = dict(row or {})
        append_line(self.folder / UNFINISHED, json.dumps({"done": name, "row": self._rows[name]}))

    def _spare(self, names: Iterable[str]) -> None:
        """Raise AudiovqError where one of `names` is a source."""
        if not self._sources:
            return
        for name in names:
            identity = _identity(self.folder / name)
            if identity and (source := self._sources.get(identity)):
                raise AudiovqError(
                    f"{source}: would be written over by what is made of it; name another folder"
                )

    def _begin(self) -> None:
        """Mark the folder as this run's, and remove what an overwritten run left."""
        mark = self.folder / UNFINISHED
        lines: list[dict[str, Any]] = [
            {"command": self._command},
            {"old": self._old},
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
        """Leave a list of the files in place of the mark."""
        if self._files and not self._begun:  # all was there, short of the list
            self._begin()
        if self._files:
            write_text(self.folder / WRITTEN, json.dumps(list(self._files), indent=1) + "\n")
        if self._begun:
            (self.folder / UNFINISHED).unlink()

    def _take_over(self, overwrite: bool) -> None:
        """Find what earlier runs left. Raises AudiovqError where it is not this run's to resume, unless
        `overwrite`."""
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
            raise AudiovqError(
                f"{self.folder}: another command was stopped here; run that one again, name another"
                " folder, or add --overwrite"
            )
        else:
            if not mark.exists():
                require_new(self.folder, overwrite)
            for line in left:
                self._old += [*line.get("old", []), *line.get("files", [])]
            if (self.folder / WRITTEN).exists():
                self._old += _names(read_json(self.folder / WRITTEN, "an output folder"))


def _marked(mark: Path) -> list[dict[str, Any]]:
    """The lines of a mark, checked; a line that is cut, as by a power failure, ends them."""
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, RecursionError):
        for text in mark.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if not isinstance(line, dict):
                break
            for key in ("old", "files"):
                line[key] = _names(line.get(key, []))
            if "done" in line and not (
                _names([line["done"]]) and isinstance(line.get("row"), dict)
            ):
                break
            lines.append(line)
    return lines


def _names(listed: Any) -> list[str]:
    """The strings in a list that came from a file."""
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _remove(folder: Path, name: str) -> None:
    """Delete the file `name` in `folder` or below it, and the folders that it leaves empty; nothing
    where the name leads anywhere else, as a list from a stranger may."""
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
) -> Iterator[OutputFolder]:
    """`folder`, claimed, for one command to fill; unfinished until the block ends without an error.

    `command` is all that decides what is written, as JSON has it: verb, settings, checksums of the
    model and of what is read, no paths. Where the same command was stopped, what it wrote is still
    there and is not to be written again (`Filling.row`). Raises AudiovqError where the folder holds
    anything else, unless `overwrite`, or another run holds the folder. With `overwrite`, the files
    that the earlier run listed go when the first new one is about to be written (`Filling.expect`);
    files that no run listed stay. `sources` are files that must never be written over.

        with filling(out, overwrite, {"verb": "decode", "archive": digest}, [archive]) as filled:
            for name in names:
                if filled.row(name) is None:
                    filled.expect(name)
                    limited = audio.write(out / name, ...)
                    filled.done(name, {"limited": limited})

    None for `command`: nothing is listed, and any such run is resumed by any other.
    """
    text = json.dumps(command, sort_keys=True, ensure_ascii=True)
    if what := product_at(folder):
        raise AudiovqError(f"{folder}: is a {what}; name another folder")
    with lock_folder(folder):
        filled = OutputFolder(folder, hashlib.sha256(text.encode()).hexdigest(), sources)
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
