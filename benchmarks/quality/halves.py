"""Halves of the labels: a model of one half of a set's label values as the start of one of the other half, both ways.

    python benchmarks/quality/halves.py drums --minutes 12 --fine-minutes 5 --work W --out halves-drums.json

The values are divided alternately, in order of their names. A model learns one half from scratch, preset small; another
starts from it (`train --from`) and learns the other half, made with its settings (`preprocess --like`). Of each model, and
the clips that it has learnt last:

codebook_use    share of the codes that their nearest codes use
error_db        decibels between validation clips' spectrograms and their reconstructions
bits_per_code   of the masked or else the other prior, on validation clips
named           share of 100 new sounds whose value is that named by a judge, trained on recordings of the whole set,
                and of the validation clips
copies          new sounds left that count as near copies
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import torch
import tyro
from tyro.conf import Positional

from audiovq.codec.tokenize import encode_split
from audiovq.config.presets import PRESETS
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset, split_images
from audiovq.evaluation import classifier
from audiovq.generation.generate import generate
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.files import write_json
from audiovq.spectral.spectrogram import Spectrogram, waveform_images
from audiovq.training.origin import Origin
from audiovq.training.run import train
from audiovq.training.stages.autoencoder import validate_autoencoder
from benchmarks.command import refusing
from benchmarks.provenance import stamp
from benchmarks.quality.sets import SETS, SHARED, recordings
from benchmarks.quality.stated import trained_minutes

Figures = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Trainings from a model of other label values."""

    set: Positional[Literal["drums", "foley"]]
    work: Path
    """Folder for files, datasets and models."""
    minutes: float = 12.0
    """Time limit of a training from scratch."""
    fine_minutes: float = 5.0
    """Time limit of a training from the other half's model."""
    n: int = 100
    """Number of new sounds."""
    shared: Path = SHARED
    """Folder with `sounds`."""
    out: Path | None = None
    """JSON file for the figures."""


def halves(settings: Settings) -> tuple[Path, Path]:
    """Folders of the recordings of both halves of the values, by links."""
    source = recordings(SETS[settings.set], settings.shared, settings.work)
    kinds = sorted(path for path in source.iterdir() if path.is_dir())
    folders = settings.work / "half0", settings.work / "half1"
    for number, kind in enumerate(kinds):
        for path in kind.iterdir():
            link = folders[number % 2] / kind.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                os.symlink(path.resolve(), link)
    return folders


def figures_of(
    model: Model, dataset: Dataset, judge: classifier.Classifier, values: list[str], n: int
) -> Figures:
    """Figures of a model, and of the clips of `dataset`, by a judge of `values`."""
    loss = validate_autoencoder(
        model.autoencoder, dataset.validation, model.spectrogram.config.range_db
    )
    tokens = encode_split(model, dataset.train).tokens
    codes = tokens[tokens < model.autoencoder.config.bottleneck.num_codes].unique()
    prior = model.header["masked" if model.masked else "prior"]["summary"]
    sounds = generate(model, n, seed=1)
    spectrogram = Spectrogram(dataset.spectrogram)
    (label,) = model.labels
    asked = torch.tensor([[values.index(sound.labels[label])] for sound in sounds])
    images = waveform_images(spectrogram, [sound.waveform for sound in sounds])
    (names,) = dataset.labels.values()
    real = torch.tensor([[values.index(names[int(i)])] for i in dataset.validation.label_indices])
    return {
        "training_clips": len(dataset.train),
        "codebook_use": round(len(codes) / model.autoencoder.config.bottleneck.num_codes, 3),
        "error_db": round(loss["error_db"], 3),
        "bits_per_code": round(prior["validation_bits_per_code"], 3),
        "named": classifier.judge(judge, images).accuracy(asked)[0],
        "named_real": classifier.judge(judge, split_images(dataset.validation)).accuracy(real)[0],
        "copies": sum(bool(sound.nearest and sound.nearest.is_copy) for sound in sounds),
    }


def measure(settings: Settings) -> Figures:
    """Train and measure both halves, and each from the other's model."""
    plain = PreprocessConfig(labels="folder")
    folders, work = halves(settings), settings.work
    source = recordings(SETS[settings.set], settings.shared, work)
    mono = dataclasses.replace(plain, channels="mono")
    preprocess(source, work / "whole-dataset", mono)
    whole = Dataset(work / "whole-dataset", source)
    judge = classifier.train_classifier([whole.train], pool=classifier.pooling(whole.spectrogram))
    (values,) = whole.labels.values()
    figures: Figures = {**stamp(), "set": settings.set, "trainings": []}
    for number, folder in enumerate(folders):
        data = work / f"dataset{number}"
        preprocess(folder, data, mono)
        trained = work / f"model{number}"
        model = _train(settings, data, trained, settings.minutes)
        measured = figures_of(model, Dataset(data, folder), judge, list(values), settings.n)
        about = {"half": number, "from": None, "minutes": trained_minutes(trained)}
        figures["trainings"].append(about | measured)
        print(figures["trainings"][-1], flush=True)
    for number, folder in enumerate(folders):
        origin, data = work / f"model{1 - number}", work / f"like{number}"
        like = Origin.read(origin).model.spectrogram.config
        preprocess(folder, data, plain.like(like, str(origin)))
        trained = work / f"fine{number}"
        model = _train(settings, data, trained, settings.fine_minutes, str(origin))
        measured = figures_of(model, Dataset(data, folder), judge, list(values), settings.n)
        about = {"half": number, "from": 1 - number, "minutes": trained_minutes(trained)}
        figures["trainings"].append(about | measured)
        print(figures["trainings"][-1], flush=True)
    return figures


def _train(
    settings: Settings, data: Path, folder: Path, minutes: float, origin: str | None = None
) -> Model:
    """The model in `folder`, trained unless it exists."""
    config = PRESETS["small"]
    if origin is not None:
        config = Origin.read(origin).adopt(config)
    config = dataclasses.replace(config, max_minutes=minutes)
    began = time.perf_counter()
    model = train(data, folder, config, origin=origin, device="cpu")
    print(f"{folder.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return model


def main(settings: Settings) -> None:
    """Measure, and write the figures."""
    figures = measure(settings)
    if settings.out is not None:
        write_json(settings.out, figures)


if __name__ == "__main__":
    with refusing("halves"):
        main(tyro.cli(Settings))
