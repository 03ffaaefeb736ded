"""New sounds of a model by several settings of sampling, judged on average, so that small differences show.

    python benchmarks/quality/new_sounds.py MODEL DATASET RECORDINGS --setting 1:0.5 --setting 0.8:1:2 --out FILE

A setting is `temperature:guidance`, then optionally `:steps`, `:order` and `:sweeps` (see `SamplingConfig`; empty: the default).
Two judges, those of `audiovq evaluate`, are trained once, the second one without a third of the training clips of each
kind. Fréchet distances of a few dozen sounds fluctuate more between choices of sounds than between settings. So each distance is
the mean over `SUBSETS` random subsets with equal labels, of the new sounds of all seeds: to validation clips, and to
the training clips that the second judge has not learnt, whose own distance to the validation clips is the floor. Clips are
those that begin as new sounds do. Near copies of training clips are counted, not sampled again. Flux is how unevenly
sounds ring: see `flux`.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import numpy as np
import torch
import tyro
from torch import Tensor
from tyro.conf import Positional, UseAppendAction

from audiovq.audio.channels import to_channels
from audiovq.audio.waveform import Waveform
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig
from audiovq.dataset.dataset import Dataset, Split
from audiovq.evaluation import classifier, envelopes, listener
from audiovq.evaluation.classifier import Classifier, Predictions
from audiovq.evaluation.distances import frechet_distance
from audiovq.evaluation.judges import MIN_MATCHED, RESERVED_SHARE, SECONDS, comparable
from audiovq.evaluation.listener import Listener
from audiovq.evaluation.originals import clip_waveforms
from audiovq.generation.generate import generate
from audiovq.generation.sound import Sound
from audiovq.models.checkpoint import load
from audiovq.models.model import Model, require_match
from audiovq.runtime.files import write_json
from audiovq.spectral.spectrogram import waveform_images
from benchmarks.command import refusing
from benchmarks.provenance import stamp
from benchmarks.quality.edits import requested_labels

SUBSETS = 30
"""Random subsets of the sounds, over whose distances the mean is taken."""
FLUX_FRAMES = 5
"""Frames of 10 ms that `flux` averages."""
FLUX_BLOCKS = 6
"""Averages that a sound needs for `flux`"""
ATTACK_BLOCKS = 2
"""of which the first ones are its attack."""
AUDIBLE = 0.12
"""Least value of an average that counts: 62 dB below the loudest cell."""


@dataclass(frozen=True)
class Judged:
    """Sounds as two judges hear them."""

    predictions: tuple[Predictions, Predictions]
    """By the first and the second judge."""
    labels: Tensor
    """(sounds, labels)"""

    def accuracy(self) -> list[list[float | None]]:
        """Share of the sounds of which each judge names each label as it is."""
        return [p.accuracy(self.labels) for p in self.predictions]


@dataclass(frozen=True)
class Judges:
    """Two judges of the sounds of a model."""

    model: Model
    first: Classifier
    second: Listener

    def hear(self, waveforms: Sequence[Waveform], labels: Tensor) -> Judged:
        """Features of the beginnings of waveforms (..., samples) with labels (sounds, labels)."""
        rate = self.model.sample_rate
        most = int(SECONDS * rate)
        beginnings = [w[..., :most] for w in waveforms]
        images = waveform_images(self.model.spectrogram, beginnings)
        mel_images = [listener.mel_image(w, rate) for w in beginnings]
        predictions = (
            classifier.judge(self.first, images),
            listener.listen(self.second, mel_images),
        )
        return Judged(predictions, labels)


def trained(model: Model, dataset: Dataset) -> tuple[Judges, Judged, Judged]:
    """Judges, the validation clips, and the training clips held back, as the judges hear them."""
    generator = torch.Generator().manual_seed(0)
    validation = comparable(dataset, dataset.validation, generator).sort().values
    held = held_back(dataset.train.label_indices, comparable(dataset, dataset.train, generator))
    learnt = torch.ones(len(dataset.train), dtype=torch.bool)
    learnt[held] = False
    rows = learnt.nonzero()[:, 0]
    most = int(SECONDS * model.sample_rate)
    mel_images = [
        listener.mel_image(waveform[..., :most], model.sample_rate)
        for waveform in _waveforms(dataset, dataset.train, rows)
    ]
    sizes = [len(values) for values in model.labels.values()]
    judges = Judges(
        model,
        classifier.train_classifier([dataset.train], pool=classifier.pooling(dataset.spectrogram)),
        listener.train_listener(mel_images, dataset.train.label_indices[rows], sizes),
    )
    real, floor = (
        judges.hear(_waveforms(dataset, split, indices), split.label_indices[indices])
        for split, indices in ((dataset.validation, validation), (dataset.train, held))
    )
    return judges, real, floor


def held_back(label_indices: Tensor, order: Tensor) -> Tensor:
    """A share RESERVED_SHARE of the clips at `order` with the same labels (clips, labels), ascending."""
    by_labels = defaultdict[tuple[int, ...], list[int]](list)
    for index in order.tolist():
        by_labels[tuple(label_indices[index].tolist())].append(index)
    held = [
        i for indices in by_labels.values() for i in indices[: int(RESERVED_SHARE * len(indices))]
    ]
    return torch.tensor(sorted(held or order[: int(RESERVED_SHARE * len(order))].tolist()))


def _waveforms(dataset: Dataset, split: Split, indices: Tensor) -> list[Waveform]:
    found = list(clip_waveforms(dataset, [split.clips[i] for i in indices.tolist()]))
    waveforms = [waveform for waveform in found if waveform is not None]
    if len(waveforms) < len(found):
        raise AudiovqError("recordings are missing: give the folder that the dataset was made of")
    return waveforms


def mean_distances(sounds: Judged, others: Judged) -> list[float]:
    """Mean Fréchet distance by both judges of random subsets of `sounds` and `others` with equal labels."""
    rng = np.random.default_rng(0)
    distances = []
    for _ in range(SUBSETS):
        ours, theirs = matched(sounds.labels, others.labels, rng)
        distances.append(
            [
                frechet_distance(a.features[ours], b.features[theirs])
                for a, b in zip(sounds.predictions, others.predictions, strict=True)
            ]
        )
    return [round(float(mean), 2) for mean in np.mean(distances, axis=0)]


def matched(labels: Tensor, others: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random indices into two sets of labels (sounds, labels) such that the nth of both have the same ones.

    With fewer than MIN_MATCHED such pairs, labels are not matched.
    """
    queues = [defaultdict[tuple[int, ...], list[int]](list) for _ in range(2)]
    for queue, rows in zip(queues, (labels, others), strict=True):
        for index in rng.permutation(len(rows)):
            queue[tuple(rows[index].tolist())].append(int(index))
    pairs = [
        pair for key in queues[1] for pair in zip(queues[0][key], queues[1][key], strict=False)
    ]
    if len(pairs) < MIN_MATCHED:
        n = min(len(labels), len(others))
        pairs = list(
            zip(rng.permutation(len(labels))[:n], rng.permutation(len(others))[:n], strict=True)
        )
    ours, theirs = torch.tensor(np.array(pairs)).T
    return ours, theirs


def flux(waveforms: Sequence[Waveform], rate: int) -> list[float]:
    """Quartiles, over waveforms (..., samples) of .3 s and more, of how unevenly they ring, in dB.

    The root mean square change of 64 mel bands (`listener.mel_image`) from 50 ms to the next, of audible cells after the
    attack, less the mean change of each band, its decay.
    """
    found = []
    for waveform in waveforms:
        image = listener.mel_image(to_channels(waveform, 1), rate).float()
        blocks = image.shape[1] // FLUX_FRAMES
        if blocks < FLUX_BLOCKS:
            continue
        means = image[:, : blocks * FLUX_FRAMES].unflatten(1, (blocks, FLUX_FRAMES)).mean(dim=2)
        means = means[:, ATTACK_BLOCKS:]
        audible = (means[:, 1:] > AUDIBLE) & (means[:, :-1] > AUDIBLE)
        if not audible.any():
            continue
        changes = means.diff(dim=1) * audible
        decay = changes.sum(dim=1, keepdim=True) / audible.sum(dim=1, keepdim=True).clamp_min(1)
        squares = ((changes - decay) * audible).square().sum() / audible.sum()
        found.append(listener.RANGE_DB * float(squares.sqrt()))
    return np.quantile(found, (0.25, 0.5, 0.75)).round(2).tolist() if found else []


def parse(text: str) -> SamplingConfig:
    """`temperature:guidance:steps:order:sweeps`, of which each may be empty and the last may be left out."""
    temperature, guidance, steps, order, sweeps = (*text.split(":"), *5 * [""])[:5]
    return SamplingConfig(
        order=order or "auto",  # type: ignore[arg-type]  # SamplingConfig refuses other words
        temperature=float(temperature or 1),
        guidance=float(guidance) if guidance else None,
        steps=int(steps) if steps else None,
        sweeps=int(sweeps) if sweeps else None,
    )


def figures_of(
    sounds: Sequence[Sound], judges: Judges, real: Judged, floor: Judged
) -> dict[str, Any]:
    """Distances, kinds named, near copies, and envelopes of new sounds."""
    model = judges.model
    waveforms = [sound.waveform for sound in sounds]
    judged = judges.hear(waveforms, requested_labels(model, sounds))
    hop_seconds = model.spectrogram.config.hop_length / model.sample_rate
    return {
        "sounds": len(sounds),
        "to_validation_clips": mean_distances(judged, real),
        "to_training_clips": mean_distances(judged, floor),
        "labels_named": judged.accuracy(),
        "near_copies": sum(s.nearest is not None and s.nearest.is_copy for s in sounds),
        "flux_db": flux(waveforms, model.sample_rate),
        "envelopes": envelopes.envelope_figures(
            [to_channels(waveform, 1) for waveform in waveforms], model.sample_rate, hop_seconds
        ),
    }


def main(
    model: Positional[Path],
    dataset: Positional[Path],
    recordings: Positional[Path],
    setting: UseAppendAction[tuple[str, ...]] = (),
    n: int = 200,
    seeds: tuple[int, ...] = (1, 2),
    out: Path | None = None,
) -> None:
    """Train the judges, make new sounds by each setting, print, and write if asked to.

    Args:
        model: Folder of a model.
        dataset: Folder of the dataset that it was trained on.
        recordings: Folder of its recordings.
        setting: `temperature:guidance:steps:order:sweeps`. May be repeated; empty: the defaults.
        n: New sounds of each seed.
        seeds: Seeds of the new sounds.
        out: JSON file for the results.
    """
    loaded, data = load(model), Dataset(dataset, recordings)
    require_match(loaded, data)
    judges, real, floor = trained(loaded, data)
    order = comparable(data, data.train, torch.Generator().manual_seed(0))
    clips = _waveforms(data, data.train, order[:n].sort().values)
    figures: dict[str, Any] = stamp() | {
        "validation_clips": len(real.labels),
        "labels_of_validation_clips_named": real.accuracy(),
        "floor": mean_distances(floor, real),
        "flux_db_of_training_clips": flux(clips, loaded.sample_rate),
        "settings": {},
    }
    print(figures, flush=True)
    for text in setting or ("",):
        sampling = parse(text)
        sounds = [
            sound
            for seed in seeds
            for sound in generate(loaded, n, sampling=sampling, seed=seed, keep_copies=True)
        ]
        figures["settings"][text or "default"] = row = figures_of(sounds, judges, real, floor)
        print(text or "default", row, flush=True)
    if out is not None:
        write_json(out, figures)


if __name__ == "__main__":
    with refusing("new_sounds"):
        tyro.cli(main)
