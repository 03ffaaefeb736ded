"""Which recordings a folder holds, what their paths and headers tell, and which split each is in."""

from __future__ import annotations

import csv
import hashlib
import itertools
import re
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from audiovq import audio
from audiovq.config import AudiovqError, PreprocessConfig

PART = 64
"""Headers that are read by one task."""


@dataclass(frozen=True)
class Recording:
    """A file to be used, as its header and its path tell."""

    path: str
    info: audio.AudioInfo
    labels: dict[str, str]
    split: str


@dataclass(frozen=True)
class Skipped:
    """A file left out."""

    path: str
    reason: str


@dataclass(frozen=True)
class Catalog:
    """All files below a folder."""

    recordings: list[Recording]
    skipped: list[Skipped]
    notes: list[str]
    """What the user should know of the labels."""

    @property
    def found(self) -> int:
        """Files in all."""
        return len(self.recordings) + len(self.skipped)


def catalog(source: Path, target: Path, config: PreprocessConfig, executor: Executor) -> Catalog:
    """The recordings below `source`, from their paths and headers alone; `target` is left out.

    Raises AudiovqError where there are none, or labels or test pattern fit none.
    """
    paths, skipped = _find(source, target)
    if not paths:
        raise AudiovqError(
            f"{source}: holds no recordings ({', '.join(sorted(audio.SUFFIXES))})"
            + (f"; {len(skipped)} other files" if skipped else "")
        )
    headers, broken = _scan(source, paths, executor)
    if not headers:
        raise AudiovqError(
            f"{source}: none of {len(paths)} recordings can be used: {broken[0].path} {broken[0].reason}"
        )
    labels, notes = labels_of(source, list(headers), config.labels)
    splits = splits_of(list(headers), config)
    recordings = [Recording(p, headers[p], labels[p], splits[p]) for p in headers]
    return Catalog(recordings, skipped + broken, notes)


def _find(source: Path, target: Path) -> tuple[list[Path], list[Skipped]]:
    """The recordings below `source`, and its other files with the reason; `target` is no part."""
    recordings, others = audio.find(source)
    if _below(source, target):
        raise AudiovqError(f"{target}: holds the recordings; name another folder for the dataset")
    own = str(target.resolve().relative_to(source.resolve())) if _below(target, source) else None
    paths: list[Path] = []
    skipped: list[Skipped] = []
    for path in recordings + others:
        name = _relative(path, source)
        if own is not None and path.relative_to(source).is_relative_to(own):
            continue
        if (plain := name.encode(errors="replace").decode()) != name:
            skipped.append(Skipped(plain, "has a name that is not UTF-8; rename it"))
        elif path.suffix.lower() in audio.SUFFIXES:
            paths.append(path)
        else:
            skipped.append(Skipped(name, _other(path)))
    return paths, skipped


def _other(path: Path) -> str:
    """Why what is named unlike a recording is none."""
    try:
        audio.require_file(path)
    except audio.AudioError as error:
        return str(error)
    return "is not a sound file by its name"


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _relative(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()


def _scan(
    source: Path, paths: list[Path], executor: Executor
) -> tuple[dict[str, audio.AudioInfo], list[Skipped]]:
    """Every header: those that can be read, by relative path, and the others with the reason."""
    headers: dict[str, audio.AudioInfo] = {}
    broken: list[Skipped] = []
    parts = [
        [path.absolute() for path in paths[begin : begin + PART]]
        for begin in range(0, len(paths), PART)
    ]
    infos = itertools.chain.from_iterable(executor.map(_infos, parts))
    for path, found in zip(paths, infos, strict=True):
        if isinstance(found, str):
            broken.append(Skipped(_relative(path, source), found))
        else:
            headers[_relative(path, source)] = found
    return headers, broken


def _infos(paths: list[Path]) -> list[audio.AudioInfo | str]:
    return [_info(path) for path in paths]


def _info(path: Path) -> audio.AudioInfo | str:
    try:
        return audio.info(path)
    except audio.AudioError as error:
        return str(error)


def labels_of(
    source: Path, paths: list[str], how: str | None
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Each path's labels by name. `None` takes folders where there are several, else no labels."""
    folders = {path: path.rpartition("/")[0] for path in paths}
    if how is None:
        how = "folder" if 1 < len(set(folders.values())) <= len(paths) / 2 else "none"
    if how == "none":
        return {path: {} for path in paths}, []
    if how == "folder":
        labels = {path: {"folder": folder} if folder else {} for path, folder in folders.items()}
    elif how.endswith(".csv"):
        labels = _csv_labels(Path(how), paths)
    else:
        try:
            pattern = re.compile(how)
        except re.error as error:
            raise AudiovqError(f"--labels {how}: not a pattern ({error})") from error
        if not pattern.groupindex:
            raise AudiovqError(
                f"--labels {how}: give folder, none, a .csv file, or a pattern with named groups"
                " such as '(?P<digit>\\d)_'"
            )
        matches = {path: pattern.search(path) for path in paths}
        labels = {
            path: {k: v for k, v in match.groupdict().items() if v is not None} if match else {}
            for path, match in matches.items()
        }
    without = [path for path in paths if not labels[path]]
    if len(without) == len(paths):
        raise AudiovqError(f"--labels {how}: fits none of {len(paths)} recordings ({paths[0]})")
    note = f"{len(without)} of {len(paths)} files have no label ({without[0]})" if without else ""
    return labels, [note] if note else []


def _csv_labels(table: Path, paths: list[str]) -> dict[str, dict[str, str]]:
    """First column: path or file name. Every other column is a label named by its heading."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AudiovqError(f"--labels {table}: cannot be read ({error})") from error
    if not rows or len(rows[0]) < 2:
        raise AudiovqError(f"--labels {table}: give a heading line, then path and labels on each")
    key = next(iter(rows[0]))
    by_path = {row[key]: {k: v for k, v in row.items() if k != key and k and v} for row in rows}
    return {path: by_path.get(path, by_path.get(path.rpartition("/")[2], {})) for path in paths}


def splits_of(paths: list[str], config: PreprocessConfig) -> dict[str, str]:
    """Each path's split, from the path alone: files added later move no other."""
    test = None
    if config.test is not None:
        try:
            test = re.compile(config.test)
        except re.error as error:
            raise AudiovqError(f"--test {config.test}: not a pattern ({error})") from error
        if not any(map(test.search, paths)):
            raise AudiovqError(f"--test {config.test}: fits none of {len(paths)} recordings")
        if all(map(test.search, paths)):
            raise AudiovqError(f"--test {config.test}: fits every recording; none is left to learn")

    def split(path: str) -> str:
        share = int(hashlib.sha256(path.encode()).hexdigest()[:12], 16) / 16**12
        if test is not None:
            if test.search(path):
                return "test"
        elif share >= 0.9:
            return "test"
        rest = 0.9 if test is None else 1.0
        return "validation" if share < rest * config.validation_share else "train"

    splits = {path: split(path) for path in paths}
    if "train" not in splits.values():  # a handful of files: learning comes first
        splits = {
            path: "train" if config.test is None or s != "test" else s for path, s in splits.items()
        }
    return splits
