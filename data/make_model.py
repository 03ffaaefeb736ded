"""Makes the model that ships, audiovq/pretrained/digits: trained on data/digits alone.

    python data/make_model.py --max-minutes 11

Weights are stored as float16 and the training's state is left out, so that it stays below 7 MB, of
which .7 MB are the codes of the training clips. Then
the README's picture of what it says, docs/pictures/digits.png: the first sound that `audiovq generate
digits OUT --label digit=D --seed D` makes for each digit D, as it comes.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tyro

from audiovq.config.presets import PRESETS
from audiovq.config.settings import PriorConfig
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation.evaluate import evaluate
from audiovq.evaluation.wording import describe_figures
from audiovq.generation.generate import generate
from audiovq.models.checkpoint import export, load
from audiovq.models.folder import SHIPPED
from audiovq.models.model import Model
from audiovq.pipeline import DEMO_DATA, preprocess, train
from audiovq.runtime.files import atomic, write_text
from audiovq.spectral.spectrogram import waveform_images

PRIOR = PriorConfig(dim=112, cell=80, layers=3)
"""Smaller than the preset's, for the 7 MB."""


CARD = """# digits, a model that comes with audiovq

Makes the words "zero" to "nine" in twelve synthetic English voices, at {rate} Hz, up to {longest} s long: a
VQ-VAE on spectrograms ({codes} codes a second) and a transformer over its codes. Made by
`python data/make_model.py`.

```
audiovq generate digits OUT -n 16 --label digit=7
```

{labels}

## What it is for

To try audiovq without training, to test it, to learn how such models work. It is a toy: not a voice for a
product, and no measure of what audiovq can do with other recordings.

## Training data

The 960 synthetic recordings of `data/digits` alone (eSpeak NG, CC0; `data/README.md`), in
{clips} clips; no
recording of a human. The last two takes of every word by every voice are the test clips.

## Figures

Of the test clips and of new sounds, by `audiovq evaluate`:

| figure | value | meaning |
|---|---|---|
{rows}

## What it cannot do

- Say anything but the ten digits, or in a voice but these twelve.
- Code sounds that are unlike them well: other words, human voices and music are reproduced with distortion.
- Generate frequencies above {top} Hz, or, without `--length`, sounds longer than {longest} s.
- Sound human: its voices are a synthesizer's, and no figure here says how people would judge them.

`training-codes.safetensors` holds its training clips in coded form: `audiovq generate` finds near copies of
them by it, marks them and samples them again. The model works without it.

No human voice is in it. Licence: MIT, as all of audiovq.
"""


def main(max_minutes: float = 20.0, work: Path | None = None) -> None:
    """Preprocess, train, store.

    Args:
        max_minutes: Limit of the training.
        work: Folder for dataset and training, which is resumed; None: a temporary folder.
    """
    work = work or Path(tempfile.mkdtemp())
    preprocess(Path(__file__).parent / "digits", work / "dataset", DEMO_DATA)
    config = dataclasses.replace(
        PRESETS["small"], prior=PRIOR, masked_share=0.0, max_minutes=max_minutes
    )
    train(work / "dataset", work / "model", config)
    target = SHIPPED / "digits"
    if target.exists():
        shutil.rmtree(target)
    export(work / "model", target)
    model, dataset = load(target), Dataset(work / "dataset", Path(__file__).parent / "digits")
    write_text(target / "README.md", card(model, dataset, evaluate(model, dataset)))
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"wrote {target}: {size / 1e6:.1f} MB")
    draw_samples(model, Path(__file__).parents[1] / "docs" / "pictures" / "digits.png")


def card(model: Model, dataset: Dataset, figures: dict[str, Any]) -> str:
    """The model's card (Mitchell et al. 2019), Markdown; `figures` are those of `evaluate`."""
    labels = "\n".join(f"- `{name}`: {', '.join(v)}" for name, v in model.labels.items())
    rows = "\n".join(f"| {' | '.join(row)} |" for row in describe_figures(figures))
    clips = ", ".join(
        f"{len(s)} {s.name}" for s in (dataset.train, dataset.validation, dataset.test)
    )
    longest = model.clip_frames * model.spectrogram.config.hop_length / model.sample_rate
    return CARD.format(
        rate=f"{model.sample_rate:,}",
        top=f"{model.sample_rate // 2:,}",
        longest=f"{longest:.2f}",
        codes=f"{model.codes_per_second:.0f}",
        labels=labels,
        clips=clips,
        rows=rows,
    )


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
