"""How many clips are enough: quality against the number of training clips, on four sets of sounds.

    python benchmarks/quality/enough.py --work WORK --out enough.json

A fixed sixth of each set's recordings (`sets.py`; near copies stay together) are test recordings. Of the others,
25, 100, 500 and 2,000 chosen at random are preprocessed and trained on, preset tiny, each for `--minutes` of one core, all sets at
22,050 Hz in mono but the digits, which are at 8 kHz, clips of up to 2 s. So the curves show what more recordings bring, not what
longer training does. Of each model:

error       decibels between spectrograms of test recordings and their reconstructions
bits        per code of test recordings, by the prior
named       share of 60 new sounds whose label is that named by a classifier trained on all other recordings of the
            set (`audiovq/evaluation/classifier.py`)
copies      share of 60 new sounds, and of test recordings, which no model has learnt, that count as near copies

A model that is in WORK already is not trained again; a figure is added to OUT as soon as it is measured. Models trained for
other minutes are refused, in WORK and in OUT.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import torch
import tyro

from audiovq.codec.tokenize import encode_split
from audiovq.config.errors import AudiovqError
from audiovq.config.presets import PRESETS
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset, random_clips, split_images
from audiovq.evaluation import classifier
from audiovq.generation.copies import compare
from audiovq.generation.generate import generate
from audiovq.generation.known import encode_clips
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.files import write_json
from audiovq.spectral.spectrogram import waveform_images
from audiovq.training.run import train
from audiovq.training.stages.autoencoder import validate_autoencoder
from audiovq.training.stages.prior import validate_prior
from benchmarks.command import refusing
from benchmarks.provenance import stamp
from benchmarks.quality.sets import SETS, SHARED, recordings
from benchmarks.quality.stated import trained_minutes

SIZES = 25, 100, 500, 2000
"""Recordings to learn from."""
LABELS = {
    "drums": "folder",
    "notes": r"(?P<instrument>[a-z]+)_",
    "foley": "folder",
    "fsdd": r"(?P<digit>\d)_",
}
RATES = {"drums": 22_050, "notes": 22_050, "foley": 22_050, "fsdd": 8_000}
NEW = 60
"""New sounds of each model."""


@dataclass(frozen=True)
class Settings:
    """Measure curves over the number of clips."""

    work: Path = Path("enough-work")
    """Folder for recordings, datasets and models."""
    out: Path = Path("enough.json")
    """JSON file for the figures; those in it are kept."""
    minutes: float = 2.5
    """Time limit of each training."""
    sets: tuple[str, ...] = ("drums", "notes", "foley", "fsdd")
    """Sets to measure."""
    sizes: tuple[int, ...] = SIZES
    """Numbers of recordings to learn from; of a smaller set, all."""
    stop_after: float = 1e9
    """Seconds after which no further training starts."""
    shared: Path = SHARED
    """Folder with `sounds` and `fsdd`."""


def main(settings: Settings) -> None:
    """Measure all that is missing in `out`."""
    started = time.perf_counter()
    figures: dict[str, Any] = stamp() | {"minutes": settings.minutes, "rows": []}
    if settings.out.exists():
        figures = json.loads(settings.out.read_text())
        if figures["minutes"] != settings.minutes:
            raise AudiovqError(
                f"{settings.out}: its models were trained for {figures['minutes']:g} minutes each; give"
                " --minutes as much, or another file"
            )
    known = {(row["set"], row["asked"]) for row in figures["rows"]}
    judges: dict[str, classifier.Classifier] = {}
    for size in settings.sizes:
        for name in settings.sets:
            if (name, size) in known:
                continue
            if time.perf_counter() - started > settings.stop_after:
                return
            row = _measure(name, size, settings, judges)
            if row is not None:
                figures["rows"].append(row)
                write_json(settings.out, figures)
                print(row, flush=True)


def _measure(
    name: str, size: int, settings: Settings, judges: dict[str, classifier.Classifier]
) -> dict[str, Any] | None:
    """The figures of one model; None if the set has no more recordings than the size before."""
    source = recordings(SETS[name], settings.shared, settings.work)
    how = PreprocessConfig(
        sample_rate=RATES[name],
        clip_seconds=2.0,
        labels=LABELS[name],
        test_share=0.15,
        channels="mono",
    )
    whole_folder = settings.work / f"{name}-all"
    if not (whole_folder / "dataset.json").exists():
        preprocess(source, whole_folder, how, say=_quiet)
    whole = Dataset(whole_folder, source)
    kept = [clip.path for split in (whole.train, whole.validation) for clip in split.clips]
    paths = sorted(set(kept))
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0)).tolist()
    before = [one for one in SIZES if one < size]
    if before and len(paths) <= before[-1]:
        return None
    chosen = [paths[i] for i in order[:size]]
    part = settings.work / f"{name}-{size}"
    for path in chosen:
        link = part / "recordings" / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to((source / path).resolve())
    same = whole.spectrogram
    how = replace(
        how, test_share=0.0, n_fft=same.n_fft, hop_length=same.hop_length, n_mels=same.n_mels
    )
    preprocess(part / "recordings", part / "dataset", how, say=_quiet)
    config = replace(PRESETS["tiny"], max_minutes=settings.minutes)
    model = train(part / "dataset", part / "model", config, say=_quiet)
    if (minutes := trained_minutes(part / "model")) != settings.minutes:
        raise AudiovqError(
            f"{part / 'model'}: was trained for {minutes} minutes; give --minutes as much, or another folder"
            " with --work"
        )
    if name not in judges:
        judges[name] = classifier.train_classifier(
            (whole.train, whole.validation),
            0,
            pool=classifier.pooling(same),
            min_steps=300,
            max_steps=300,
        )
    dataset = Dataset(part / "dataset")
    return {
        "set": name,
        "asked": size,
        "recordings": len(chosen),
        "clips": len(dataset.train) + len(dataset.validation),
        "seconds": dataset.header["seconds"],
        "labels": len(next(iter(dataset.labels.values()))),
        **_figures(model, whole, judges[name]),
    }


def _figures(model: Model, whole: Dataset, judge: classifier.Classifier) -> dict[str, Any]:
    """The figures of a model against the test recordings of the whole set."""
    test = whole.test.relabelled(model.labels)
    assert model.prior is not None
    with torch.inference_mode():
        error = validate_autoencoder(model.autoencoder, test, model.spectrogram.config.range_db)
        bits = validate_prior(model.prior, encode_split(model, test))
    sounds = generate(model, NEW, keep_copies=True, seed=1)
    images = waveform_images(model.spectrogram, [sound.waveform for sound in sounds])
    (name,) = whole.labels
    asked = torch.tensor([[whole.labels[name].index(sound.labels[name])] for sound in sounds])
    real = classifier.judge(judge, split_images(whole.test))
    found = compare(model, [sound.encoded for sound in sounds])
    others = compare(model, encode_clips(model, test, random_clips(test, NEW, seed=0)))
    return {
        "error_db": error["error_db"],
        "bits_per_code": bits["bits_per_code"],
        "named": classifier.judge(judge, images).accuracy(asked)[0],
        "named_real": real.accuracy(whole.test.label_indices)[0],
        "copies": sum(one is not None and one.is_copy for one in found) / len(found),
        "copies_real": sum(one is not None and one.is_copy for one in others) / len(others),
    }


def _quiet(_: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    with refusing("enough"):
        main(tyro.cli(Settings))
