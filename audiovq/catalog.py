"""Which recordings a folder holds, what their paths and headers tell, and which split each is in."""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import re
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from audiovq import audio
from audiovq.config import AudiovqError, PreprocessConfig
from audiovq.suffixes import why_not

PART = 64
"""Headers that are read by one task."""


@dataclass(frozen=True, slots=True)  # there may be millions
class Recording:
    """A file to be used, as its header and its path tell."""

    path: str
    info: audio.AudioInfo
    labels: dict[str, str]
    split: str


@dataclass(frozen=True, slots=True)
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
    headers, others, broken = scan(source, target, executor)
    if not headers:
        raise AudiovqError(
            f"{source}: none of {len(broken)} recordings can be used: {broken[0].path} {broken[0].reason}"
        )
    labels, notes = labels_of(source, list(headers), config.labels)
    splits = splits_of(list(headers), config)
    recordings = [Recording(p, headers[p], labels[p], splits[p]) for p in headers]
    return Catalog(recordings, others + broken, notes)


def scan(
    source: Path, target: Path | None, executor: Executor
) -> tuple[dict[str, audio.AudioInfo], list[Skipped], list[Skipped]]:
    """Every header that can be read, by path below `source`; other files; recordings that are broken.

    Raises AudiovqError where there is not even a broken one.
    """
    names, others = _find(source, target)
    if not names:
        raise AudiovqError(f"{source}: holds no recordings ({audio.KINDS}){_others(others)}")
    headers, broken = _headers(source, names, executor)
    return headers, others, broken


def _others(others: list[Skipped]) -> str:
    """How many files are left out, and why the first that its user may take for a recording is."""
    if not others:
        return ""
    sounds = [one for one in others if "convert it" in one.reason]
    return f"; {len(others)} other files" + (
        f", such as {sounds[0].path}, which {sounds[0].reason}" if sounds else ""
    )


def _find(source: Path, target: Path | None) -> tuple[list[str], list[Skipped]]:
    """The names of the recordings below `source`, and its other files with the reason; `target` is no part."""
    recordings, others = audio.find(source)
    own = None
    if target is not None:
        if _below(source, target):
            raise AudiovqError(
                f"{target}: holds the recordings; name another folder for the dataset"
            )
        if _below(target, source):
            own = target.resolve().relative_to(source.resolve()).as_posix()
    names: list[str] = []
    skipped: list[Skipped] = []
    for name in itertools.chain(recordings, others):
        if own is not None and (name == own or name.startswith(own + "/")):
            continue
        if (plain := name.encode(errors="replace").decode()) != name:
            skipped.append(Skipped(plain, "has a name that is not UTF-8; rename it"))
        elif audio.is_recording(name):
            names.append(name)
        else:
            skipped.append(Skipped(name, no_recording(source / name)))
    return names, skipped


def no_recording(path: Path) -> str:
    """Why what is named unlike a recording is none."""
    try:
        audio.require_file(path)
    except audio.AudioError as error:
        return str(error)
    return why_not(path.name)


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _headers(
    source: Path, names: list[str], executor: Executor
) -> tuple[dict[str, audio.AudioInfo], list[Skipped]]:
    """Every header: those that can be read, by name, and the others with the reason."""
    headers: dict[str, audio.AudioInfo] = {}
    broken: list[Skipped] = []
    parts = [names[begin : begin + PART] for begin in range(0, len(names), PART)]
    folder = [str(source.absolute())] * len(parts)  # another machine has another working folder
    told = itertools.chain.from_iterable(executor.map(_told, folder, parts))
    rates: dict[int, int] = {}
    for name, found in zip(names, told, strict=True):
        if isinstance(found, str):
            broken.append(Skipped(name, found))
        else:
            rate, channels, num_samples = found
            # What a process sends is a copy, each time: here one number of a kind is kept.
            headers[name] = audio.AudioInfo(rates.setdefault(rate, rate), channels, num_samples)
    return headers, broken


def _told(source: str, names: list[str]) -> list[tuple[int, int, int] | str]:
    """What each header says, in the order of AudioInfo, or what is wrong with it."""
    return [_header(os.path.join(source, name)) for name in names]


def _header(path: str) -> tuple[int, int, int] | str:
    try:
        info = audio.info(path)
    except audio.AudioError as error:
        return str(error)
    return info.sample_rate, info.channels, info.num_samples


def labels_of(
    source: Path, paths: list[str], how: str | None
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Each path's labels by name, and what the user should know of them.

    `how` is a folder, a pattern or a table as in `PreprocessConfig`; None takes folders where there
    are several, else no labels. Raises AudiovqError where it fits no path.
    """
    folders = {path: path.rpartition("/")[0] for path in paths}
    if how is None:
        how = "folder" if 1 < len(set(folders.values())) <= len(paths) / 2 else "none"
    if how == "none":
        return _each(paths, lambda path: {}), []
    if how == "folder":
        labels = _each(paths, lambda path: {"folder": folders[path]} if folders[path] else {})
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

        def told(path: str) -> dict[str, str]:
            match = pattern.search(path)
            return {k: v for k, v in match.groupdict().items() if v is not None} if match else {}

        labels = _each(paths, told)
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
    return _each(paths, lambda p: by_path.get(p, by_path.get(p.rpartition("/")[2], {})))


def _each(paths: list[str], told: Callable[[str], dict[str, str]]) -> dict[str, dict[str, str]]:
    """Each path's labels, as `told`; those that are alike are one object, as there may be millions."""
    known: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    labels = {}
    for path in paths:
        own = told(path)
        labels[path] = known.setdefault(tuple(own.items()), own)
    return labels


def guess_pattern(paths: list[str]) -> str | None:
    """A pattern for `--labels` where file names are alike, as 7_jackson_0.wav: None where they are not.

    Names must have as many parts as one another, between `_` or `-`. From the left, a part is a label
    as long as four files at least share its value and those of the labels before it; so what numbers
    the takes is none.
    """
    stems = [path.rpartition("/")[2].rpartition(".")[0] for path in paths]
    for separator in "_-":
        rows = [stem.split(separator) for stem in stems]
        if len(rows[0]) < 2 or any(len(row) != len(rows[0]) or not all(row) for row in rows):
            continue
        found: list[int] = []
        for place in range(len(rows[0])):
            values = {tuple(row[i] for i in (*found, place)) for row in rows}
            if len({row[place] for row in rows}) > 1 and len(values) <= len(rows) / 4:
                found.append(place)
        part = f"[^{separator}/]+"
        names = {place: f"(?P<label{number}>{part})" for number, place in enumerate(found, 1)}
        if found:
            return separator.join(names.get(i, part) for i in range(len(rows[0]))) + r"\.\w+$"
    return None


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
