"""Makes the model that ships, audiovq/models/digits: trained on data/digits alone.

    python data/make_model.py --max-minutes 20

Weights are stored as float16 and the training's state is left out, so that it stays below 6 MB. Then
the README's picture of what it says, docs/pictures/digits.png: the first sound that `audiovq generate
digits OUT --label digit=D --seed D` makes for each digit D, as it comes.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import tyro

from audiovq.checkpoint import SHIPPED, Model, export, load
from audiovq.config import PriorConfig
from audiovq.evaluation import waveform_images
from audiovq.files import atomic
from audiovq.generation import generate
from audiovq.pipeline import DEMO_DATA, preprocess, train
from audiovq.presets import PRESETS

PRIOR = PriorConfig(dim=160, layers=3)
"""Smaller than the preset's, for the 6 MB."""


def main(max_minutes: float = 20.0, work: Path | None = None) -> None:
    """Preprocess, train, store.

    Args:
        max_minutes: Limit of the training.
        work: Folder for dataset and training, kept and gone on with; None: a temporary one.
    """
    work = work or Path(tempfile.mkdtemp())
    preprocess(Path(__file__).parent / "digits", work / "dataset", DEMO_DATA)
    config = dataclasses.replace(PRESETS["small"], prior=PRIOR, max_minutes=max_minutes)
    train(work / "dataset", work / "model", config)
    target = SHIPPED / "digits"
    if target.exists():
        shutil.rmtree(target)
    export(work / "model", target)
    shutil.copy(work / "model" / "README.md", target)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"wrote {target}: {size / 1e6:.1f} MB")
    draw_samples(load(target), Path(__file__).parents[1] / "docs" / "pictures" / "digits.png")


def draw_samples(model: Model, path: Path) -> None:
    """A new sound of each digit as a spectrogram, PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(2, 5, sharex=True, sharey=True)
    for axis, digit in zip(axes.flat, model.labels["digit"], strict=True):
        (sound,) = generate(model, 1, {"digit": digit}, seed=int(digit))
        (image,) = waveform_images(model.spectrogram, [sound.waveform])
        seconds = len(sound.waveform) / model.sample_rate
        axis.imshow(
            image[0],
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(0, seconds, 0, len(image[0])),
        )
        axis.set_title(" · ".join(sound.labels.values()), fontsize=9)
        axis.set_facecolor("black")
    figure.supxlabel("seconds", fontsize=9)
    figure.supylabel("mel band", fontsize=9)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)


if __name__ == "__main__":
    tyro.cli(main)
