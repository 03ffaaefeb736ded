"""Labels of recordings: from folders, file names, or a table; and those that are numbers, with recordings transposed so
that numbers in between occur in training."""

from __future__ import annotations

import csv
import hashlib
import itertools
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from audiovq.config.checks import require
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import is_table
from audiovq.dataset.numbers import is_note, number_of, require_numbers, transposed
from audiovq.preprocessing.character import evenly_spaced

if TYPE_CHECKING:
    from audiovq.preprocessing.catalog import Recording

FARTHEST = 1.5
"""Semitones by which a training recording is transposed at most: with every third semitone missing, each of those is
reached from both sides."""
MOST_COPIES = 16
FILES_PER_VALUE = 4
"""Files that a value of a label needs on average, for parts of file names to be taken for labels."""
IN_COMMON = 0.9
"""Share of the file names whose first word must be that of other names, too, to be taken for a label."""
FIRST_WORD = r"[^\W\d_]+"
"""Letters, up to a digit, a space or a sign."""
MOST_NAMES = 10_000
"""File names that are looked at, evenly spaced."""
SYNONYMS = (
    ("kick", "kickdrum", "bassdrum", "bd", "kd"),
    ("snare", "snaredrum", "sd", "sn"),
    ("hat", "hihat", "hh", "closedhat", "closedhihat", "chh"),
    ("openhat", "openhihat", "oh", "ohh"),
    ("clap", "handclap", "cp"),
    ("tom", "tomtom", "tm"),
    ("crash", "crashcymbal", "cr"),
    ("ride", "ridecymbal", "rd"),
    ("cowbell", "cb"),
    ("rim", "rimshot", "sidestick", "rs"),
)
"""Names of one kind of sound, without spaces and hyphens."""


def labels_of(
    source: Path, paths: list[str], how: str | None
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Labels (name → value) of each path, and notes for the user.

    `how` is `folder`, `none`, a pattern or a table as in `PreprocessConfig.labels`; None: `default_source`. Raises
    AudiovqError if no path gets a label.
    """
    folders = {path: path.rpartition("/")[0] for path in paths}
    notes: list[str] = []
    if how is None:
        how = default_source(paths)
        if how == "none" and (guess := guess_pattern(paths)):
            notes = [f"file names hold labels: --labels {shlex.quote(guess)} reads them"]
    if how == "none":
        return _each(paths, lambda path: {}), notes
    if how == "folder":
        labels = _each(paths, lambda path: {"folder": folders[path]} if folders[path] else {})
    elif is_table(how):
        labels, notes = _csv_labels(Path(how), paths)
    else:
        try:
            pattern = re.compile(how)
        except re.error as error:
            raise AudiovqError(
                f"--labels {how}: not a valid regular expression ({error})"
            ) from error
        if not pattern.groupindex:
            raise AudiovqError(
                f"--labels {how}: give folder, none, a .csv file, or a pattern with named groups"
                " such as '(?P<digit>\\d)_'"
            )

        def groups(path: str) -> dict[str, str]:
            match = pattern.search(path)
            found = {k: v for k, v in match.groupdict().items() if v} if match else {}
            if pattern.flags & re.IGNORECASE:  # Kick and kick are one value
                found = {name: value.lower() for name, value in found.items()}
            return found

        labels = _each(paths, groups)
    unlabelled = [path for path in paths if not labels[path]]
    if len(unlabelled) == len(paths):
        raise AudiovqError(f"--labels {how}: matches none of {len(paths)} recordings ({paths[0]})")
    if not unlabelled:
        return labels, notes
    advice = {"folder": "move them into one", "csv": "add them to the table"}.get(
        how.rpartition(".")[2].lower(), "add a word of their names to the pattern"
    )
    one = "has", "it is", "it"
    have, they_are, them = one if len(unlabelled) == 1 else ("have", "they are", "them")
    return labels, [
        *notes,
        f"{len(unlabelled)} of {len(paths)} files {have} no label ({unlabelled[0]}): {they_are} used, but no label brings"
        f" {them} up; {advice}, if one should",
    ]


def default_source(paths: list[str]) -> str:
    """`folder` if there are several folders with two of the paths each on average, else `none`."""
    folders = {path.rpartition("/")[0] for path in paths}
    return "folder" if 1 < len(folders) <= len(paths) / 2 else "none"


def _csv_labels(table: Path, paths: list[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Labels from a CSV table, and notes for the user: the first column is a path or file name, each other column a label.

    Blanks around names and values do not count. Raises AudiovqError for a table that cannot be read, or has two lines of
    different labels for one file.
    """
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AudiovqError(f"--labels {table}: cannot be read ({error})") from error
    if not rows or len(rows[0]) < 2:
        raise AudiovqError(
            f"--labels {table}: needs a header line, then one line per file: its path and its labels"
        )
    key = next(iter(rows[0]))
    by_path: dict[str, dict[str, str]] = {}
    for row in rows:
        name = (row[key] or "").strip()
        # Cells beyond the last column have no name; those of a short line have no value.
        cells = ((k.strip(), v.strip()) for k, v in row.items() if k and k != key and v)
        found = {label: value for label, value in cells if label and value}
        require(
            by_path.setdefault(name, found) == found,
            f"--labels {table}: has two lines with different labels for {name}; leave one",
        )
    stripped = {path: path.strip() for path in paths}
    named = {*stripped.values(), *(path.rpartition("/")[2].strip() for path in paths)}
    unknown = [name for name in by_path if name not in named]
    notes = []
    if unknown:
        lines = "1 line names" if len(unknown) == 1 else f"{len(unknown)} lines name"
        notes = [f"{table}: {lines} no recording that can be read (such as {unknown[0]})"]

    def labels_of_path(path: str) -> dict[str, str]:
        return by_path.get(path.strip(), by_path.get(path.rpartition("/")[2].strip(), {}))

    return _each(paths, labels_of_path), notes


def _each(
    paths: list[str], labels_of_path: Callable[[str], dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Labels of each path. Equal ones share one object, as there may be millions of paths."""
    shared: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    labels = {}
    for path in paths:
        found = labels_of_path(path)
        labels[path] = shared.setdefault(tuple(found.items()), found)
    return labels


def joined(
    labels: Mapping[str, Mapping[str, str]], join: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Labels of each path with the values that `join` has replaced by others.

    Raises AudiovqError where no path has such a value.
    """
    values = {value for row in labels.values() for value in row.values()}
    for old, new in join.items():
        require(bool(new), f"--join {old}=: give a name for it after =")
        require(
            old in values,
            f"--join {old}={new}: no label has the value {old}; there are {_few(sorted(values))}",
        )
    return _each(
        list(labels), lambda path: {n: join.get(value, value) for n, value in labels[path].items()}
    )


def synonyms(labels: Iterable[Mapping[str, str]], but: Iterable[str] = ()) -> list[str]:
    """A note for each label with values that look like one: by SYNONYMS, or but for capitals, hyphens and a plural.

    `but`: names of labels that are numbers.
    """
    values: dict[str, set[str]] = {}
    for row in labels:
        for name, value in row.items():
            values.setdefault(name, set()).add(value)
    notes = []
    for name, found in values.items():
        groups: dict[str, list[str]] = {}
        for value in sorted(found) if name not in but and not is_note(name) else ():
            groups.setdefault(_kind(value), []).append(value)
        same = [sorted(group, key=len) for group in groups.values() if len(group) > 1]
        if same:
            pairs = [f"{old}={new}" for *others, new in same for old in others]
            can_be_typed = all(map(_can_be_typed, itertools.chain.from_iterable(same)))
            advice = f"; preprocess --join {shlex.quote(','.join(pairs))} makes them one"
            notes.append(
                f"label {name}: {_few([' and '.join(group) for group in same])} look like one kind"
                f"{' each' * (len(same) > 1)}{advice * can_be_typed}"
            )
    return notes


def _can_be_typed(value: str) -> bool:
    """Whether a value can be named in `--join`, whose list has signs, and is stripped of blanks."""
    return value == value.strip() and not value.startswith("-") and not {",", "="} & {*value}


def _kind(value: str) -> str:
    """What two names of one kind have in common."""
    plain = re.sub(r"[\s_-]+", "", value.casefold())
    for names in SYNONYMS:
        if plain in names or plain.removesuffix("s") in names:
            return names[0]
    return plain.removesuffix("s") if len(plain) > 3 else plain


def _few(words: list[str]) -> str:
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")


def guess_pattern(paths: list[str]) -> str | None:
    """A pattern for `--labels` if file names have one form, such as 7_jackson_0.wav, or begin with a few words; else None.

    Names of one form have the same number of parts, separated by `_` or `-`. A part is taken for a label if
    its values, combined with those of the labels to its left, occur in FILES_PER_VALUE files each on average; so
    the number of a take is not a label. Otherwise the first word of each name may be one, as in Kick 01.wav and
    kick_soft.wav, if nearly all names have it in common with others.
    """
    if not paths:
        return None
    some = evenly_spaced(paths, MOST_NAMES)
    stems = [path.rpartition("/")[2].rpartition(".")[0] for path in some]
    for separator in "_-":
        rows = [stem.split(separator) for stem in stems]
        if len(rows[0]) < 2 or any(len(row) != len(rows[0]) or not all(row) for row in rows):
            continue
        found: list[int] = []
        for index in range(len(rows[0])):
            values = {tuple(row[i] for i in (*found, index)) for row in rows}
            if len({row[index] for row in rows}) > 1 and len(values) <= len(rows) / FILES_PER_VALUE:
                found.append(index)
        part = f"[^{separator}/]+"
        names = {index: f"(?P<label{number}>{part})" for number, index in enumerate(found, 1)}
        if found:
            return separator.join(names.get(i, part) for i in range(len(rows[0]))) + r"\.\w+$"
    words = Counter(match[0].lower() for stem in stems if (match := re.match(FIRST_WORD, stem)))
    in_common = sum(files for files in words.values() if files > 1)
    if 1 < len(words) <= len(stems) / FILES_PER_VALUE and in_common >= IN_COMMON * len(stems):
        return rf"(?i)(?:^|/)(?P<name>{FIRST_WORD})[^/]*$"
    return None


@dataclass(frozen=True)
class Numbered:
    """Which labels are numbers, and how many transposed copies of each training recording are made."""

    names: frozenset[str] = frozenset()
    transpose: int = 0

    def __post_init__(self) -> None:
        require(
            0 <= self.transpose <= MOST_COPIES,
            f"--transpose {self.transpose}: give 0 to {MOST_COPIES} copies",
        )

    @property
    def notes(self) -> list[str]:
        """A note for the user on transposed copies."""
        if not self.transpose:
            return []
        return [
            f"training recordings are also learnt {self.transpose} times up to {FARTHEST:g} semitones higher or"
            " lower, so that notes that none of them has can be asked for (--transpose 0: they are not)"
        ]

    def words(self, labels: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """Labels of each path, without those that are numbers. Raises AudiovqError for a value that is not a number, or
        a name that no recording has a label of."""
        for name in sorted(self.names):
            if not any(name in row for row in labels.values()):
                raise AudiovqError(
                    f"--numbers {name}: no recording has a label of this name; give names of --labels"
                )
        require_numbers(labels, self.names, "--numbers")
        return {
            path: {name: value for name, value in row.items() if name not in self.names}
            for path, row in labels.items()
        }

    def recordings(self, recordings: Iterable[Recording]) -> Iterator[Recording]:
        """The recordings, each of training followed by its transposed copies, half of them higher.

        The first two go to the next whole notes below and above, as those are asked for by name.
        """
        for recording in recordings:
            yield recording
            if recording.splits != ("train",):
                continue
            note = next(filter(None, map(self._note, recording.labels.items())), None)
            for number in range(self.transpose):
                semitones = _semitones(recording.path, number, note)
                labels = transposed(recording.labels, self.names, semitones)
                yield replace(recording, labels=labels, transposed=semitones)

    def _note(self, label: tuple[str, str]) -> float | None:
        """The MIDI note of a label that is one, by its name and value."""
        name, value = label
        return number_of(value, True) if name in self.names and is_note(name) else None


def _semitones(path: str, number: int, note: float | None) -> float:
    """By how many semitones the copy `number` of a recording of `note` is transposed, always the same.

    The first two to whole notes; others by a hash of the path.
    """
    if note is not None and number < 2:
        return round((math.floor(note) + 1 if number else math.ceil(note) - 1) - note, 3)
    digest = hashlib.sha256(f"{number}/{path}".encode()).hexdigest()
    share = (int(digest[:8], 16) + 1) / 16**8
    distance = max(0.01, round(FARTHEST * share, 2))
    return distance if number % 2 else -distance


NONE = Numbered()
"""No label is a number."""
