"""Labels by ear: labels that are measured on recordings, all but the key numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from audiovq.audio import finding
from audiovq.audio.notes import labels_in_name, midi_of_hertz
from audiovq.audio.reading import beginning
from audiovq.audio.silence import SILENT
from audiovq.audio.waveform import AudioError, Waveform, peak_of
from audiovq.config.errors import AudiovqError
from audiovq.evaluation.envelopes import attack_ms
from audiovq.inspection.describe import LONGEST_SECONDS, Description, describe
from audiovq.runtime.progress import Say, progress

MEASURED = ("pitch", "tempo", "brightness", "loudness", "attack", "noisiness", "key")
"""What can be measured; `key` is read from file names only."""

Measure = Callable[[Description, Waveform, int], float | None]
_MEASURES: dict[str, Measure] = {
    "brightness": lambda found, *_: found.centroid_hz,
    "loudness": lambda found, *_: found.loudness_lufs,
    "attack": lambda _, waveform, rate: attack_ms(waveform, rate),
    "noisiness": lambda found, *_: found.flatness,
}


def measured_labels(
    source: Path, what: Sequence[str], say: Say = lambda line: None
) -> dict[str, dict[str, str]]:
    """Labels of the recordings below `source`, measured by librosa, by path.

    `pitch` is a MIDI note with fractions, `bpm` the tempo in beats per minute; file names that state a note or a tempo
    have precedence, and `key` is from them alone (`kick_120bpm_Cmin`). `brightness`, `loudness`, `attack` (0 the
    fastest) and `noisiness` are ranks among the recordings, from 0 to 1. Recordings have no label where there is
    nothing to measure, or that cannot be read. Raises AudiovqError for another name in `what`.
    """
    for name in what:
        if name not in MEASURED:
            raise AudiovqError(f"--describe {name}: give some of {', '.join(MEASURED)}")
    paths, _ = finding.find(source)
    labels: dict[str, dict[str, str]] = {path: {} for path in paths}
    values: dict[str, dict[str, float]] = {name: {} for name in what if name in _MEASURES}
    with progress("describe", len(paths), "recordings") as step:
        for path in paths:
            try:
                waveform, rate = beginning(source / path, LONGEST_SECONDS)
            except AudioError:  # preprocess names it with the reason
                step(1)
                continue
            found = describe(waveform, rate, "pitch" in what and "note" not in labels_in_name(path))
            labels[path] |= _stated(path, found, what)
            # Silent recordings have no rank, as preprocess skips them.
            for name in values if peak_of(waveform) >= SILENT else ():
                if (value := _MEASURES[name](found, waveform, rate)) is not None:
                    values[name][path] = value
            step(1)
    for name, by_path in values.items():
        for path, rank in _ranks(by_path).items():
            labels[path][name] = rank
    for name in what:
        label = "bpm" if name == "tempo" else name
        count = sum(label in row for row in labels.values())
        say(f"described: {name} of {count} of {len(paths)} recordings")
    return labels


def _stated(path: str, found: Description, what: Sequence[str]) -> dict[str, str]:
    """Note and tempo of a recording, by its file name or as measured."""
    named, labels = labels_in_name(path), dict[str, str]()
    if "pitch" in what:
        if "note" in named:
            labels["pitch"] = named["note"]
        elif found.pitch_hz is not None:
            labels["pitch"] = f"{midi_of_hertz(found.pitch_hz):.2f}"
    if "tempo" in what:
        if "bpm" in named:
            labels["bpm"] = named["bpm"]
        elif found.tempo_bpm is not None:
            labels["bpm"] = f"{found.tempo_bpm:.1f}"
    if "key" in what and "key" in named:
        labels["key"] = named["key"]
    return labels


def _ranks(values: Mapping[str, float]) -> dict[str, str]:
    """The rank of each value among all: 0 the lowest, 1 the highest, equal ones the same."""
    numbers = np.array(list(values.values()))
    ordered = np.sort(numbers)
    sums = np.searchsorted(ordered, numbers, "left") + np.searchsorted(ordered, numbers, "right")
    ranks = (sums - 1) / 2 / max(1, len(numbers) - 1)
    return {path: f"{rank:.4f}" for path, rank in zip(values, ranks, strict=True)}
