"""Labels that are numbers: a pitch, a tempo, a brightness. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiovq.audio.notes import HIGHEST_NOTE, ROOT_LABELS, TEMPO_LABELS, midi_of, name_of_note
from audiovq.config.errors import AudiovqError

STEPS = 2000
"""Least number of steps between the lowest and the highest value."""
MARGIN, MARGIN_NOTES = 0.1, 2.0
"""Share of the range by which a value may lie beyond it, and semitones by which a note may at least."""
BEYOND = 12
"""Semitones beyond MIDI's notes that a recording's note may be: a transposed one, or of a name such as C-2."""
PARTS = 10
"""Even parts of a range, whose ends stand for the label where its values are listed."""


@dataclass(frozen=True)
class Numbers(Sequence[str]):
    """Values of a label that is a number, in even steps from a little below its range to a little above.

    As a sequence it has the text of each value, as a label that is not a number has the words of its values, so that an
    index is a value. Of notes, numbers are MIDI notes with fractions, and whole ones have the note's name (`A3`).
    """

    low: float
    """Lowest value of a training clip,"""
    high: float
    """and highest."""
    notes: bool = False
    """Whether the values are notes."""

    @classmethod
    def of(cls, name: str, low: float, high: float) -> Numbers:
        """The numbers of a label by its name: `note`, `root`, `midi` and `pitch` are notes."""
        return cls(low, high, is_note(name))

    @classmethod
    def from_json(cls, data: Any) -> Numbers:
        """Inverse of `to_json`. Raises ValueError."""
        low, high, notes = data["low"], data["high"], data["notes"]
        numbers = type(low) in (int, float) and type(high) in (int, float)
        if not numbers or type(notes) is not bool or not -1e9 <= low <= high <= 1e9:
            raise ValueError(f"expected a range of numbers, found {data!r:.80}")
        return cls(float(low), float(high), notes)

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        return {"low": self.low, "high": self.high, "notes": self.notes}

    @property
    def _span(self) -> float:
        """Width of the range; of a single value, as much as is taken for one."""
        return max(self.high - self.low, 1.0 if self.notes else 0.01 * abs(self.low), 1e-6)

    @property
    def digits(self) -> int:
        """Decimals of a step; negative: of tens, hundreds …"""
        return math.ceil(math.log10(STEPS / self._span))

    def _grid(self, value: float) -> float:
        """A value in steps."""
        return value * 10.0**self.digits

    @property
    def _margin(self) -> float:
        """How far a value may lie beyond the range."""
        return max(MARGIN * self._span, MARGIN_NOTES if self.notes else 0.0)

    @property
    def first(self) -> int:
        """The first value in steps: the index of a value is round(value · 10 ** digits) - first."""
        return math.floor(self._grid(self.low - self._margin))

    def __len__(self) -> int:
        return math.ceil(self._grid(self.high + self._margin)) - self.first + 1

    def __getitem__(self, index: Any) -> Any:
        """The text of a value, or of a slice of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.text(self.number(index % len(self)))

    def number(self, index: int) -> float:
        """The value at an index."""
        return round((self.first + index) / 10.0**self.digits, max(0, self.digits))

    def text(self, number: float) -> str:
        """A value in words: the name of a note, or digits."""
        if self.notes and number == int(number) and 0 <= number <= 127:
            return name_of_note(int(number))
        digits = f"{number:.{max(0, self.digits)}f}"
        return digits.rstrip("0").rstrip(".") if "." in digits else digits

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The index of the value nearest to that of a text. Raises ValueError for one that is not a number, or is far
        outside the range."""
        number = number_of(value, self.notes)
        index = -1 if number is None else round(self._grid(number)) - self.first
        if not max(0, start) <= index < (len(self) if stop is None else stop):
            raise ValueError(f"{value!r} is not from {self[0]} to {self[-1]}")
        return index

    def __contains__(self, value: object) -> bool:
        try:
            self.index(value)
        except ValueError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    @property
    def ends(self) -> tuple[int, int]:
        """Indices of the lowest and of the highest value, the second at least one more."""
        low, high = (round(self._grid(value)) - self.first for value in (self.low, self.high))
        return low, max(high, low + 1)

    def listed(self, low: float | None = None, high: float | None = None) -> list[str]:
        """Values that stand for all from `low` to `high` (None: the ends of the range): each note, or PARTS even
        steps."""
        low, high = self.low if low is None else low, self.high if high is None else high
        if self.notes:
            notes = range(math.ceil(low), math.floor(high) + 1)
            return [self.text(note) for note in notes] or [self.text(low)]
        values = [low + (high - low) * part / PARTS for part in range(PARTS + 1)]
        return list(dict.fromkeys(self[self.index(str(value))] for value in values))

    @property
    def in_words(self) -> str:
        """`E1 to D#7`."""
        return f"{self.text(self.low)} to {self.text(self.high)}"


LabelValues = Mapping[str, Sequence[str]]
"""Values of each label: words, or `Numbers`."""


def is_note(name: str) -> bool:
    """Whether the numbers of a label are notes, by its name."""
    return name.lower() in ROOT_LABELS


def number_of(text: Any, notes: bool) -> float | None:
    """The number in a text, or of `notes` also the MIDI number of a note's name; None if it is none."""
    if notes and (midi := midi_of(str(text))) is not None:
        return midi
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and abs(number) <= 1e9 else None


def require_numbers(
    labels: Mapping[str, Mapping[str, str]], names: Collection[str], flag: str
) -> None:
    """Raise AudiovqError, with the `flag` that asks for numbers, where a recording's label of one of these `names` is
    none, or is a note that no instrument plays, as a frequency in Hz would be.

    `labels` are those of each recording, by path.
    """
    for path, row in labels.items():
        for name in row.keys() & names:
            number, value = number_of(row[name], is_note(name)), f"{path} has {row[name]!r}"
            if number is None:
                or_note = " or a note such as A3" if is_note(name) else ""
                raise AudiovqError(f"{flag} {name}: {value}, which is not a number{or_note}")
            if is_note(name) and not -BEYOND <= number <= HIGHEST_NOTE + BEYOND:
                raise AudiovqError(
                    f"{flag} {name}: {value}, which is not a note; give names such as A3, MIDI numbers from 0 to"
                    f" {HIGHEST_NOTE}, or the label another name, such as hz"
                )


def transposed(
    labels: Mapping[str, str], numbers: Mapping[str, Any] | frozenset[str], semitones: float
) -> dict[str, str]:
    """The labels of a recording that is played faster, `semitones` higher: notes and tempos among `numbers` are
    moved, and keys, notes and tempos that are words are left out."""
    moved = dict(labels)
    for name, value in labels.items():
        is_number = name in numbers
        if is_note(name):
            number = number_of(value, True) if is_number else None
            moved[name] = "" if number is None else f"{number + semitones:.3f}"
        elif name.lower() in TEMPO_LABELS:
            number = number_of(value, False) if is_number else None
            moved[name] = "" if number is None else f"{number * 2 ** (semitones / 12):.2f}"
        elif name.lower() == "key":
            moved[name] = ""
    return {name: value for name, value in moved.items() if value}


def labels_to_json(labels: LabelValues) -> dict[str, Any]:
    """Labels with the lists of their words, or the ranges of their numbers."""
    return {
        name: values.to_json() if isinstance(values, Numbers) else list(values)
        for name, values in labels.items()
    }


def labels_from_json(data: Any) -> dict[str, Sequence[str]]:
    """Inverse of `labels_to_json`. Raises ValueError, TypeError or LookupError."""
    labels: dict[str, Sequence[str]] = {}
    for name, values in data.items():
        if isinstance(values, dict):
            labels[name] = Numbers.from_json(values)
        elif not all(type(value) is str for value in values):
            raise ValueError("labels must be lists of strings")
        else:
            labels[name] = list(values)
    return labels


def label_numbers(labels: LabelValues) -> dict[int, tuple[int, int]]:
    """For each label that is a number, by its index among the labels: the indices of the ends of its range."""
    return {
        index: values.ends
        for index, values in enumerate(labels.values())
        if isinstance(values, Numbers)
    }
