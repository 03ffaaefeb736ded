"""Labels and splits of recordings: from folders, file names, or a table."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

from audiovq.config.errors import AudiovqError


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
