"""Train all systems of the lessons on images and on sound, and write a table and pictures.

    python scripts/learn.py OUT

Takes half an hour on two cores: one for the images (scikit-learn's digits), one for the sound
(data/digits). OUT/images and OUT/sound hold the datasets, a model for each system and, for systems that
generate, ten new images or WAVs. Run it again to resume. `--docs` also updates docs/learn.md and its
pictures.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image
from torch import Tensor
from tyro.conf import Positional

from audiovq.config.presets import PRESETS
from audiovq.config.settings import TrainConfig
from audiovq.dataset.dataset import Dataset, Split, split_images
from audiovq.evaluation.classifier import Classifier, judge, train_classifier
from audiovq.evaluation.distances import frechet_distance
from audiovq.generation.codes import INAUDIBLE
from audiovq.generation.files import generate_files
from audiovq.generation.generate import generate_images
from audiovq.generation.labels import learns_labels, sample_labels
from audiovq.models.model import Model
from audiovq.models.summary import summarize
from audiovq.pipeline import DEMO_DATA, preprocess, train
from audiovq.preprocessing.images import preprocess_images
from audiovq.report.plots import decode_latents, plot
from audiovq.runtime.files import atomic, write_json, write_text
from audiovq.training.stages.autoencoder import validate_autoencoder

ROOT = Path(__file__).parents[1]
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencoder": ("lesson-ae", {}),
    "denoising autoencoder": ("lesson-dae", {}),
    "VAE, a plane": ("lesson-vae", {"dense": 2}),
    "VAE": ("lesson-vae", {}),
    "conditional VAE": ("lesson-cvae", {}),
    "VQ-VAE, transformer": ("lesson-vqvae", {}),
    "residual VQ-VAE, transformer": ("lesson-vqvae-residual", {}),
    "VQ-VAE, PixelCNN": ("lesson-pixelcnn", {}),
}
"""Systems, from simple to complex: preset, and settings of its bottleneck that differ."""
DATA = "images", "sound"
DRAWN = 300
"""New clips to judge a system by."""
SHOWN = 10
"""Clips in a row of a picture."""


@dataclass(frozen=True)
class Row:
    """Results of one system on one kind of data."""

    system: str
    parameters: int
    seconds: float
    error: float
    """Root mean square error of test clips: in dB, or in hundredths of white."""
    obeys: float | None
    """Share of new clips that the judge recognises as the requested digit; None without labels."""
    distance: float
    """Fréchet distance of new clips to the test clips in the judge's features."""


def main(out: Positional[Path], minutes: float = 1.0, docs: bool = False) -> None:
    """Train, judge, plot.

    Args:
        out: Folder for all results; an earlier run in it is resumed.
        minutes: Factor on the presets' time limits.
        docs: Update docs/learn.md and docs/pictures/learn.
    """
    started = time.perf_counter()
    threads = max(1, (os.cpu_count() or 1) // 2)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, torch.set_num_threads, (threads,)) as pool:
        jobs = {kind: pool.submit(climb, kind, out / kind, minutes) for kind in DATA}
        rows = {kind: job.result() for kind, job in jobs.items()}
    write_json(out / "table.json", {k: [dataclasses.asdict(r) for r in v] for k, v in rows.items()})
    table = markdown(rows)
    write_text(out / "table.md", table)
    print(f"{table}\n{(time.perf_counter() - started) / 60:.1f} minutes; wrote {out}")
    if docs:
        for page in (ROOT / "docs" / "learn.md", ROOT / "docs" / "learn.zh-CN.md"):
            text = page.read_text(encoding="utf-8")
            between = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)
            write_text(page, between.sub(lambda m: m[1] + table + m[2], text))
        for picture in sorted(out.glob("*/*.png")):
            target = ROOT / "docs" / "pictures" / "learn" / f"{picture.parent.name}-{picture.name}"
            with (
                Image.open(picture) as image,
                atomic(target) as temporary,
            ):  # a quarter of the bytes
                image.convert("RGB").quantize(64).save(temporary, format="png", optimize=True)


def climb(kind: str, folder: Path, minutes: float) -> list[Row]:
    """Train and judge all systems on one kind of data: one row each; pictures go to `folder`."""
    if kind == "images":
        preprocess_images(Path("digits"), folder / "dataset")
    else:
        config = dataclasses.replace(DEMO_DATA, n_mels=32, hop_length=128)  # as small as the images
        preprocess(ROOT / "data" / "digits", folder / "dataset", config)
    dataset = Dataset(folder / "dataset")
    classifier = train_classifier([dataset.train, dataset.validation])
    indices = first_of_each_digit(dataset.test)
    rows, new, again = [], {}, {"original": dataset.test.spectrograms(indices)}
    for system, (preset, changes) in SYSTEMS.items():
        name = "-".join([preset, *(f"{k}{v}" for k, v in changes.items())])
        settings = settings_of(preset, changes, minutes)
        model, seconds = trained(dataset, folder / name, settings)
        row, images = judged(system, model, dataset, classifier, seconds)
        rows.append(row)
        new[system], again[system] = images, reconstructed(model, dataset.test, indices)
        if settings.autoencoder.bottleneck.kind != "none":
            generate_files(model, folder / name / "new", SHOWN, overwrite=True)
        if changes.get("dense") == 2:
            for view in ("latent-grid", "latent-scatter"):
                plot(model, dataset, folder / f"{view}.png", view, n=16, overwrite=True)
    draw_rows(folder / "new.png", new)
    draw_rows(folder / "reconstructions.png", again)
    return rows


def settings_of(preset: str, changes: dict[str, Any], minutes: float) -> TrainConfig:
    """A preset with `changes` of its bottleneck, and `minutes` as a factor on its time limit."""
    settings = PRESETS[preset]
    autoencoder = settings.autoencoder
    bottleneck = dataclasses.replace(autoencoder.bottleneck, **changes)
    return dataclasses.replace(
        settings,
        autoencoder=dataclasses.replace(autoencoder, bottleneck=bottleneck),
        max_minutes=(settings.max_minutes or 5) * minutes,
    )


def trained(dataset: Dataset, folder: Path, config: TrainConfig) -> tuple[Model, float]:
    """Train a model, or load it; with the seconds of its first training run."""
    took = folder / "training" / "seconds.json"
    started = time.perf_counter()
    model = train(dataset, folder, config, device="cpu")
    if not took.exists():
        write_json(took, time.perf_counter() - started)
    return model, float(json.loads(took.read_text()))


def judged(
    system: str, model: Model, dataset: Dataset, classifier: Classifier, seconds: float
) -> tuple[Row, Tensor]:
    """A system's row, and new clips: one of each digit if the system has labels."""
    config = model.autoencoder.config
    model.autoencoder.eval()
    with torch.inference_mode():
        range_db = dataset.spectrogram.range_db
        error = validate_autoencoder(model.autoencoder, dataset.test, range_db)["error_db"]
    asked = sample_labels(model, DRAWN, {}, 0)
    if config.bottleneck.kind == "none":
        images = at_random(model, dataset.train, DRAWN)
        some = images[:SHOWN]
    else:
        images, _ = generate_images(model, DRAWN)
        digits = model.labels["digit"]
        asked_each = [{"digit": d} if learns_labels(model) else {} for d in digits]
        some = torch.cat(
            [generate_images(model, 1, one, seed=seed)[0] for seed, one in enumerate(asked_each)]
        )
    generated = judge(classifier, [without_end(i, model) for i in images])
    real = judge(classifier, split_images(dataset.test))
    index = list(model.labels).index("digit")
    obeys = None
    if config.bottleneck.conditional or model.prior is not None:
        obeys = generated.accuracy(asked)[index]
    distance = frechet_distance(generated.features, real.features)
    row = Row(system, summarize(model).parameters, seconds, error, obeys, distance)
    return row, some


def at_random(model: Model, split: Split, n: int) -> Tensor:
    """Decode latents sampled from independent normal distributions: (n, 1, bins, frames).

    Each component of a latent has its mean and standard deviation of the training clips; correlations
    between components are ignored.
    """
    with torch.inference_mode():
        latents = model.autoencoder.latents(
            split.spectrograms(torch.arange(len(split))), split.num_frames
        )
        noise = torch.randn(n, *latents.shape[1:], generator=torch.Generator().manual_seed(0))
        sampled = latents.mean(dim=0) + latents.std(dim=0) * noise
        columns = torch.full((n,), latents.shape[-1])
        return model.autoencoder.decode_latents(sampled, columns)[..., : model.clip_frames]


def reconstructed(model: Model, split: Split, indices: Tensor) -> Tensor:
    """Reconstruct clips of a split by encoder, bottleneck and decoder: (clips, 1, bins, frames)."""
    frames = split.num_frames[indices]
    with torch.inference_mode():
        latents = model.autoencoder.latents(split.spectrograms(indices), frames)
        return decode_latents(model.autoencoder, latents, model.autoencoder.num_columns(frames))


def first_of_each_digit(split: Split) -> Tensor:
    """Index of the first clip of each digit, (10,)."""
    digits = split.label_indices[:, list(split.labels).index("digit")]
    return torch.tensor([int((digits == d).nonzero()[0]) for d in range(SHOWN)])


def without_end(image: Tensor, model: Model) -> Tensor:
    """A spectrogram (1, bins, frames) without the silence at its end; images are unchanged."""
    if model.spectrogram.config.images:
        return image
    audible = (image.amax(dim=(0, 1)) > INAUDIBLE).nonzero()
    return image[..., : int(audible.max()) + 1 if len(audible) else 8]


def draw_rows(path: Path, rows: dict[str, Tensor]) -> None:
    """Write a PNG with one row of SHOWN clips per name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SHOWN * 0.75 + 1.8, len(rows) * 0.8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, images) in zip(
        figure.subplots(len(rows), SHOWN, squeeze=False), rows.items(), strict=True
    ):
        for axis, image in zip(axes, images[:, 0].numpy(), strict=True):
            axis.imshow(image, origin="lower", aspect="auto", cmap="magma", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        axes[0].set_ylabel(
            name.replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=8
        )
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")


def markdown(rows: dict[str, list[Row]]) -> str:
    """The table of docs/learn.md."""
    lines = [
        "| | images: error, % of white | obeys its digit | distance | seconds | parameters |"
        " sound: error, dB | obeys its digit | distance | seconds | parameters |",
        "|---" * 11 + "|",
    ]
    for pair in zip(*(rows[kind] for kind in DATA), strict=True):
        cells = [pair[0].system]
        for row in pair:
            obeys = "–" if row.obeys is None else f"{100 * row.obeys:.0f} %"
            cells += [f"{row.error:.1f}", obeys, f"{row.distance:.1f}", f"{row.seconds:.0f}"]
            cells.append(f"{row.parameters:,}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tyro.cli(main)
