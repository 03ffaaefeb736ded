"""Stereo at 44.1 kHz beside mono: preprocessing, a training step of the autoencoder, and inversion.

The recordings are synthetic stereo hits. In mono they are averaged as they are read.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch

from audiovq.config.presets import PRESETS
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.batches import batches
from audiovq.dataset.dataset import Dataset
from audiovq.models.model import new_model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.device import pick_precision, to_device_async
from audiovq.runtime.executors import cores
from audiovq.spectral.inversion import invert
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.training.loop import Trainer
from audiovq.training.stage import Inputs, Losses, Step
from audiovq.training.stages.autoencoder import shifted_excerpts
from benchmarks.speed.comparison import ONE_CORE, Peer, Row, Run, compare
from benchmarks.speed.limits import device
from benchmarks.speed.sounds import hits, write_hits

HITS, INVERTED = 300, 16
STEP_LIMIT, PREPROCESSING_LIMIT = 1.25, 1.6
"""Targets: times of stereo over mono, at most."""
PEER = "the same in mono"
Channels = Literal["mono", "stereo"]


def preprocessing(source: Path, targets: Path, channels: Channels) -> Run:
    """A function that makes a dataset, without the search for near copies, which reads the beginnings of files once more."""
    numbers = itertools.count()
    config = PreprocessConfig(labels="folder", channels=channels)

    def run() -> None:
        folder = targets / f"{channels}-{next(numbers)}"
        preprocess(source, folder, config, near=False, say=lambda _: None)

    return run


def training_step(dataset: Dataset, folder: Path) -> Run:
    """A function that trains the autoencoder of preset small by one step, on clips as in a training."""
    torch.manual_seed(0)
    preset, train = PRESETS["small"], dataset.train
    model = new_model(
        dataset.spectrogram, preset.autoencoder, dataset.labels, [], dataset.clip_frames
    )
    autoencoder = model.autoencoder.to(device())
    trainer = Trainer(
        autoencoder,
        dataclasses.replace(preset.autoencoder_training, validate_every=10**9),
        folder,
        stage="autoencoder",
        clips=len(train),
        seed=0,
        dtype=pick_precision("auto", device()),
        max_seconds=None,
    )

    def prepare(step: Step) -> Inputs:
        images, frames = shifted_excerpts(train, step, autoencoder)
        return to_device_async(images, device()), frames

    def loss(*inputs: torch.Tensor) -> Losses:
        images, frames = inputs
        return {"loss": autoencoder(images, frames).loss}

    batch = preset.autoencoder_training.batch_size
    order = itertools.cycle(batches(train.num_frames, batch, 0, 0))
    update = trainer._updating(loss)
    return lambda: trainer._step(prepare, update, next(order))


def inversion(dataset: Dataset) -> Run:
    """A function that inverts the true spectrograms of hits."""
    spectrogram = Spectrogram(dataset.spectrogram).to(device())
    waveforms = [
        hit.T if dataset.spectrogram.channels == 2 else hit.mean(axis=1)
        for hit in hits(INVERTED, 2)
    ]
    return lambda: invert(spectrogram, waveforms)


def rows(sounds: Path | None = None) -> Iterator[Row]:
    """Preprocessing, training step, inversion."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "hits"
        write_hits(source, HITS, 2)
        make = {c: preprocessing(source, folder / "datasets", c) for c in ("mono", "stereo")}
        wanted = 1 / PREPROCESSING_LIMIT
        yield from compare(
            f"preprocess, {HITS} stereo files to a stereo dataset",
            make["stereo"],
            Peer(PEER, make["mono"], wanted, ONE_CORE, threads=(1,)),
            workers=cores,
        )
        datasets = {c: Dataset(folder / "datasets" / f"{c}-0", source) for c in make}
        steps = {c: training_step(datasets[c], folder / c) for c in make}
        batch = PRESETS["small"].autoencoder_training.batch_size
        yield from compare(
            f"training step, preset small, batch {batch}, stereo hits",
            steps["stereo"],
            Peer(PEER, steps["mono"], 1 / STEP_LIMIT, ONE_CORE, threads=(1,)),
        )
        runs = {c: inversion(datasets[c]) for c in make}
        yield from compare(
            f"inversion of {INVERTED} hits of up to 1 s, stereo",
            runs["stereo"],
            Peer(PEER, runs["mono"], threads=(1,)),
        )
