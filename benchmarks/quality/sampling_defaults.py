"""Choose the defaults of sampling on validation clips: temperature, guidance and steps.

    python benchmarks/quality/sampling_defaults.py MODEL DATASET --out benchmarks/results/NAME.json

The judge is trained on training clips only. For each setting, `n` new sounds are compared with the
validation clips: by the share whose labels the judge predicts as requested, and by the Fréchet distance
in its features. The chosen setting has the least distance among those whose accuracy, averaged over the
labels, is at most one point below the best. It and the default are repeated with three other seeds,
which shows the noise. Then both are compared once with the test clips, with sounds of another seed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import tyro
from torch import Tensor
from tyro.conf import Positional

from audiovq.config.sampling import SamplingConfig
from audiovq.dataset import dataset as dataset_dataset
from audiovq.dataset.dataset import Dataset, Split
from audiovq.evaluation import classifier, distances
from audiovq.evaluation.classifier import Classifier
from audiovq.generation.generate import generate
from audiovq.generation.sound import settled
from audiovq.models.checkpoint import load
from audiovq.models.model import Model, require_match
from audiovq.runtime.files import write_json
from audiovq.spectral import spectrogram
from benchmarks.command import refusing
from benchmarks.provenance import stamp
from benchmarks.quality.edits import requested_labels

TIME = [
    SamplingConfig(order="time", temperature=temperature, guidance=guidance)
    for guidance in (0.0, 0.5, 1.0, 2.0)
    for temperature in (0.7, 0.8, 0.9, 1.0)
]
MASKED = [
    SamplingConfig(order="masked", temperature=0.8, guidance=guidance, steps=steps)
    for guidance in (0.0, 1.0)
    for steps in (1, 2, 3, 4, 8)
]
SEEDS = (3, 4, 5)
WITHIN = 0.01
"""Accuracy that the chosen setting may lack, compared with the best."""


def scored(
    model: Model,
    judge: Classifier,
    sampling: SamplingConfig,
    features: Tensor,
    n: int,
    seed: int,
) -> dict[str, Any]:
    """Accuracy of each label, and Fréchet distance to the `features` of real clips, of `n` new sounds."""
    sounds = generate(model, n, sampling=sampling, seed=seed)
    images = spectrogram.waveform_images(model.spectrogram, [sound.waveform for sound in sounds])
    judged = classifier.judge(judge, images)
    shares = judged.accuracy(requested_labels(model, sounds))
    return {
        "sampling": asdict(sampling),
        "accuracy": {
            name: round(share, 4)
            for name, share in zip(model.labels, shares, strict=True)
            if share is not None
        },
        "frechet_distance": round(distances.frechet_distance(judged.features, features), 3),
    }


def chosen(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the least distance among those whose accuracy is nearly the best."""
    best = max(map(_mean_accuracy, rows))
    near = [row for row in rows if _mean_accuracy(row) >= best - WITHIN]
    return min(near, key=lambda row: float(row["frechet_distance"]))


def _mean_accuracy(row: dict[str, Any]) -> float:
    shares: list[float] = list(row["accuracy"].values())
    return sum(shares) / len(shares)


def real(
    model: Model, judge: Classifier, dataset: Dataset, split: Split, n: int
) -> tuple[Tensor, dict[str, Any]]:
    """Features of a split's clips; the judge's accuracy on them, and the distance of `n` training clips."""
    judged = classifier.judge(judge, dataset_dataset.split_images(split))
    picked = dataset_dataset.random_clips(dataset.train, n, seed=0)
    training = classifier.judge(judge, dataset_dataset.split_images(dataset.train, picked))
    shares = judged.accuracy(split.label_indices)
    distance = distances.frechet_distance(training.features, judged.features)
    return judged.features, {
        "clips": len(split),
        "accuracy_of_real_clips": dict(zip(model.labels, shares, strict=True)),
        "frechet_distance_of_training_clips": round(distance, 3),
    }


def main(
    model: Positional[Path], dataset: Positional[Path], out: Path | None = None, n: int = 600
) -> None:
    """Measure, print, and write if asked to.

    Args:
        model: Folder of a model with labels. With a masked prior, its steps are chosen too.
        dataset: Folder of the dataset that it was trained on.
        out: JSON file for the results.
        n: New sounds for each setting.
    """
    loaded, data = load(model), Dataset(dataset)
    require_match(loaded, data)
    judge = classifier.train_classifier([data.train])
    features, about = real(loaded, judge, data, data.validation, n)
    figures: dict[str, Any] = stamp() | {"sounds": n, "validation": about, "chosen": {}}
    picked = []
    for name, settings in (("time", TIME), ("masked", MASKED if loaded.masked else [])):
        rows = []
        for sampling in settings:
            rows.append(scored(loaded, judge, sampling, features, n, seed=1))
            print(rows[-1], flush=True)
        if rows:
            about[name] = rows
            figures["chosen"][name] = chosen(rows)["sampling"]
            default = SamplingConfig(order="time" if name == "time" else "masked")
            picked += [asdict(settled(loaded, default)), figures["chosen"][name]]
    picked = [sampling for i, sampling in enumerate(picked) if sampling not in picked[:i]]
    about["again"] = [
        scored(loaded, judge, SamplingConfig(**sampling), features, n, seed) | {"seed": seed}
        for sampling in picked
        for seed in SEEDS
    ]
    features, about = real(loaded, judge, data, data.test, n)
    figures["test"] = about | {
        "rows": [
            scored(loaded, judge, SamplingConfig(**sampling), features, n, seed=2)
            for sampling in picked
        ]
    }
    print(figures["chosen"], figures["test"], sep="\n")
    if out is not None:
        write_json(out, figures)


if __name__ == "__main__":
    with refusing("sampling_defaults"):
        tyro.cli(main)
