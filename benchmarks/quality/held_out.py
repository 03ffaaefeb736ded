"""Labels that are numbers: notes that no training clip has, and brightness and loudness asked for.

    python benchmarks/quality/held_out.py --minutes 48 --work WORK --out held-out.json

The recordings are those of the set `notes` (`sets.py`), without every third semitone. They are preprocessed with their
note and velocity as numbers, brightness and loudness measured (`preprocess --describe`), in mono, all other settings
by default; the preset small is trained. Then sounds are asked for by instrument and note: the notes left out that lie
between those of training clips, and as many of training clips. Their pitch is measured by swift-f0, of the
instruments that it is right about in recordings, and within its range. Others are asked for by brightness or loudness
alone, at even steps from 0 to 1; the spectral centroid and the loudness after BS.1770 of what comes out become ranks
among the training recordings, and are correlated with those asked for.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import numpy as np
import torch
import tyro

from audiovq.config.presets import PRESETS
from audiovq.config.sampling import SamplingConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.generation.generate import generate
from audiovq.generation.sound import Sound
from audiovq.inspection.describe import describe
from audiovq.inspection.hearing import measured_labels
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.device import pick_device
from audiovq.runtime.files import write_json
from audiovq.training.run import train
from benchmarks.command import refusing
from benchmarks.provenance import stamp
from benchmarks.quality.packages import PITCH_RANGE, pitch
from benchmarks.quality.sets import SETS, SHARED, recordings
from benchmarks.quality.stated import data_of, trained_minutes

CENTS = 50.0
LEFT_OUT = 3
"""One of LEFT_OUT semitones is left out."""
EXTREMES = 0.02, 0.98
"""Ranks that are asked for."""
MEASURED = {"brightness": "centroid_hz", "loudness": "loudness_lufs"}


@dataclass(frozen=True)
class Settings:
    """Measure a model of notes with labels that are numbers."""

    minutes: float = 25.0
    """Time limit of the training."""
    recordings: Path | None = None
    """Folder of the 1,200 notes; None: where `sets.py` says."""
    work: Path = Path("held-out-work")
    """Folder for recordings, dataset and model; a training in it is resumed."""
    per_note: int = 2
    """Sounds of each instrument and note."""
    ranks: int = 100
    """Sounds of brightness, and as many of loudness."""
    guidance: float | None = None
    """Guidance of the new sounds, as of `audiovq generate`."""
    out: Path | None = None
    """JSON file for the figures."""
    seed: int = 0
    """Seed of the new sounds."""


def main(settings: Settings) -> None:
    """Make all that `work` lacks, measure, and write the figures."""
    notes = SETS["notes"]
    source = settings.recordings or recordings(notes, SHARED, settings.work)
    kept = settings.work / "recordings"
    played = _without_every_third(source, kept)
    dataset, folder = settings.work / "dataset", settings.work / "model"
    if not (dataset / "dataset.json").exists():
        how = PreprocessConfig(labels=notes.labels, test_share=0.0, channels="mono")
        numbers = ["note", "velocity", *MEASURED]
        measured = measured_labels(kept, list(MEASURED), print)
        preprocess(kept, dataset, how, measured=measured, numbers=numbers)
    config = replace(PRESETS["small"], max_minutes=settings.minutes)
    train(dataset, folder, config, say=print)
    model = load(folder, pick_device("auto"))
    sampling = SamplingConfig(guidance=settings.guidance)
    figures: dict[str, Any] = stamp() | {
        "data": data_of(notes, Dataset(dataset, kept), settings.recordings),
        "minutes": trained_minutes(folder),
        "guidance": settings.guidance,
        "training_clips": sum(count for _, count in model.label_counts),
    }
    asked = {"held_out": _between(played), "trained": played}
    most = sum(map(len, asked["held_out"].values()))
    for name, by_instrument in asked.items():
        figures[name] = _in_tune(model, by_instrument, most, sampling, settings)
        print(name, figures[name]["within_50_cents"], flush=True)
    for number, label in enumerate(MEASURED):
        figures[label] = _correlation(model, kept, label, sampling, settings, number)
        print(label, figures[label], flush=True)
    if settings.out is not None:
        write_json(settings.out, figures)


def _without_every_third(source: Path, kept: Path) -> dict[str, list[int]]:
    """Link all recordings but those of every third semitone into `kept`: the notes of each instrument there."""
    kept.mkdir(parents=True, exist_ok=True)
    played: dict[str, set[int]] = {}
    for path in sorted(source.glob("*.wav")):
        instrument, note, _ = path.stem.split("_")
        if int(note) % LEFT_OUT:
            played.setdefault(instrument, set()).add(int(note))
            if not (kept / path.name).exists():
                (kept / path.name).symlink_to(path.resolve())
    clear = SETS["notes"].pitched["instrument"]
    low, high = (69 + 12 * math.log2(hertz / 440) for hertz in PITCH_RANGE)
    return {one: sorted(n for n in played[one] if low < n < high) for one in clear}


def _between(played: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The notes left out that lie between those of each instrument."""
    return {
        one: [n for n in range(notes[0], notes[-1]) if n % LEFT_OUT == 0]
        for one, notes in played.items()
    }


def _in_tune(
    model: Model,
    notes: Mapping[str, list[int]],
    most: int,
    sampling: SamplingConfig,
    settings: Settings,
) -> dict[str, Any]:
    """How many sounds of the notes of each instrument are within CENTS, of `most` notes chosen at random."""
    pairs = [(one, note) for one, some in notes.items() for note in some]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(settings.seed))
    found: dict[str, list[float]] = {one: [] for one in notes}
    rows = []
    for index in sorted(order[:most].tolist()):
        one, note = pairs[index]
        labels = {"instrument": one, "note": str(note)}
        for sound in generate(
            model, settings.per_note, labels, sampling=sampling, seed=settings.seed + index
        ):
            hertz = pitch(sound.waveform, model.sample_rate)
            cents = math.inf if hertz is None else 1200 * math.log2(hertz / 440) - 100 * (note - 69)
            found[one].append(abs(cents))
            rows.append([one, note, None if hertz is None else round(cents)])
    cents_of_all = np.concatenate(list(map(np.array, found.values())))
    return {
        "sounds": len(cents_of_all),
        "within_50_cents": float((cents_of_all <= CENTS).mean()),
        "median_cents": float(np.median(cents_of_all)),
        "by_instrument": {one: float((np.array(c) <= CENTS).mean()) for one, c in found.items()},
        "wrong": [row for row in rows if row[2] is None or abs(row[2]) > CENTS],
    }


def _correlation(
    model: Model,
    kept: Path,
    label: str,
    sampling: SamplingConfig,
    settings: Settings,
    number: int,
) -> dict[str, Any]:
    """The correlation of the ranks asked for and measured."""
    from audiovq.audio.reading import read

    waveforms = (read(path) for path in sorted(kept.glob("*.wav"))[::2])
    known = np.sort([_value(waveform, rate, label) for waveform, rate in waveforms])
    ranks = np.linspace(*EXTREMES, settings.ranks)
    sounds: list[Sound] = []
    for index, rank in enumerate(ranks):
        seed = settings.seed + 10_000 * (1 + number) + index
        sounds += generate(model, 1, {label: f"{rank:.3f}"}, sampling=sampling, seed=seed)
    values = np.array([_value(sound.waveform, model.sample_rate, label) for sound in sounds])
    measured = np.interp(values, known, np.linspace(0, 1, len(known)))
    return {
        "sounds": len(sounds),
        "correlation": float(np.corrcoef(ranks, measured)[0, 1]),
        "median_error": float(np.median(np.abs(ranks - measured))),
    }


def _value(waveform: np.ndarray[Any, Any], sample_rate: int, label: str) -> float:
    return float(asdict(describe(waveform, sample_rate, pitch=False))[MEASURED[label]])


if __name__ == "__main__":
    with refusing("held_out"):
        main(tyro.cli(Settings))
