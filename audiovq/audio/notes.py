"""Notes, keys and tempos in words: `A3` as a MIDI number, and what a file name such as kick_120bpm_Cmin says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from audiovq.config.output import HIGHEST_TEMPO, LOWEST_TEMPO

NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
HIGHEST_NOTE = 127
"""Of MIDI."""
ROOT_LABELS = ("note", "root", "midi", "pitch")
"""Names of labels whose value is a note, the first in order of preference."""
TEMPO_LABELS = ("bpm", "tempo")
"""Names of labels whose value is a tempo."""
_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_NOTE = re.compile(r"([A-Ga-g])([#♯bs]?)(-?\d{1,2})")
_TEMPO = re.compile(
    r"(?<![\d.])(\d{2,3}(?:\.\d+)?)(?=[ _-]?bpm)|bpm[ _-]?(\d{2,3}(?:\.\d+)?)(?![\d.])", re.I
)
_BEGIN, _END = r"(?<![^ _()\[\].-])", r"(?![^ _()\[\].-])"
"""Of a word of a file name."""
_KEY = re.compile(rf"{_BEGIN}([A-G])([#♯b]?)([ _-]?(?:maj|min)(?:or)?|m){_END}", re.I)
_NOTE_WORD = re.compile(rf"{_BEGIN}([A-G])([#♯b]?)(\d){_END}")


def midi_of(text: str) -> float | None:
    """MIDI number of a note's name (`A3`: 57, `C#4`, `Bb2`, with C4 as 60) or of a number; None for other texts.

    Names are read beyond 0 to 127, too.
    """
    if match := _NOTE.fullmatch(text.strip()):
        letter, sign, octave = match.groups()
        shift = {"": 0, "b": -1}.get(sign, 1)
        return float(12 * (int(octave) + 1) + _SEMITONES[letter.lower()] + shift)
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= HIGHEST_NOTE else None


def name_of_note(midi: int) -> str:
    """Name of a MIDI note, such as `A3` for 57. `midi_of` is the inverse."""
    return f"{NOTES[midi % 12]}{midi // 12 - 1}"


def midi_of_hertz(hertz: float) -> float:
    """MIDI number of a frequency, at A4 = 440 Hz, with fractions."""
    return 69 + 12 * math.log2(hertz / 440)


def root_of(labels: Mapping[str, str]) -> int | None:
    """The MIDI note, 0 to 127, that a sound's labels name; None if they name none."""
    by_name = {name.lower(): value for name, value in labels.items()}
    for name in ROOT_LABELS:
        if name in by_name and (midi := midi_of(by_name[name])) is not None:
            return round(midi) if 0 <= round(midi) <= HIGHEST_NOTE else None
    return None


def tempo_of(labels: Mapping[str, str]) -> float | None:
    """The tempo in beats per minute that a sound's labels name; None if they name none."""
    for name, value in labels.items():
        if name.lower() in TEMPO_LABELS and re.fullmatch(r"\d+(\.\d+)?", value):
            tempo = float(value)
            return tempo if LOWEST_TEMPO <= tempo <= HIGHEST_TEMPO else None
    return None


def labels_in_name(path: str) -> dict[str, str]:
    """Labels in a file name: `kick_120bpm_Cmin.wav` has bpm 120 and key Cmin, `pad-A3.wav` the note A3."""
    stem = PurePosixPath(path).stem
    found = {}
    tempos = (before or after for before, after in _TEMPO.findall(stem))
    if tempo := next((t for t in tempos if LOWEST_TEMPO <= float(t) <= HIGHEST_TEMPO), None):
        found["bpm"] = tempo
    for letter, sign, mode in _KEY.findall(stem):
        is_short = mode.lower() == "m"
        # `10 cm` and `a major change` are no keys, and what CM means differs.
        if (letter.islower() and (is_short or mode[0] in " _-")) or mode == "M":
            continue
        kind = "maj" if "maj" in mode.lower() else "min"
        found["key"] = f"{letter.upper()}{sign.lower().replace('♯', '#')}{kind}"
    for letter, sign, octave in _NOTE_WORD.findall(stem):
        found["note"] = f"{letter}{sign.replace('♯', '#')}{octave}"
    return found
