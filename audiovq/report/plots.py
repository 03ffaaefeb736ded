"""PNGs of a model on a dataset: what comes back, where latents lie, what lies between them.

Where a picture shows sounds that were never recorded, they go beside it as WAVs. matplotlib is
imported where something is drawn, and without pyplot, so that no window system is needed.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from audiovq.audio import writing
from audiovq.audio.waveform import Waveform
from audiovq.codec.tokenize import code_counts
from audiovq.config.checks import require_seed
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.manifest import Clip
from audiovq.dataset.measured import HELD_OUT, measured_split
from audiovq.generation.codes import GAUSSIAN_LEVEL_DB
from audiovq.generation.morph import interpolate
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.model import Model, require_match
from audiovq.runtime.files import atomic, require_new
from audiovq.spectral.stft import num_frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from audiovq.runtime.progress import Say

Kind = Literal["reconstructions", "latent-scatter", "latent-grid", "interpolation", "codebook"]
BATCH = 64
"""Clips that go through the networks at a time."""
MOST = 32
"""Of `n`: a grid of more has over a thousand sounds."""
ACROSS = 4
"""Panels side by side."""


def plot(
    model: Model,
    dataset: Dataset,
    path: Path | str,
    kind: Kind = "reconstructions",
    *,
    n: int = 8,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Draw a PNG, with WAVs beside it where there is something to hear; returns all paths.

    reconstructions  `n` clips, and below them what comes back
    latent-scatter   a point for each clip, coloured by label
    latent-grid      the plane of a model with `dense` 2, decoded at `n` × `n` points; WAVs row by
                     row, from low to high
    interpolation    `n` steps on the straight line between the latents of two clips; WAVs
    codebook         a point for each code, the larger the more often training clips use it

    Clips are of the test split, else of the validation split, else of the training split; `seed` draws
    them. Raises AudiovqError where the model has no such thing, the dataset is not
    the model's, or a file is there already, unless `overwrite`.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise AudiovqError(f"{path}: give a name that ends in .png")
    if not 2 <= n <= MOST:
        raise AudiovqError(f"n {n}: give 2 to {MOST}")
    require_match(model, dataset)
    require_new(path, overwrite)
    require_seed(seed)
    split = measured_split(dataset, *HELD_OUT)
    places = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    drawn: list[Drawn] = []
    with torch.inference_mode():
        if kind == "reconstructions":
            figure = _draw_reconstructions(model, split, places[:n])
        elif kind == "latent-scatter":
            figure = _draw_scatter(model, split)
        elif kind == "latent-grid":
            figure, drawn = _draw_grid(model, split, n)
        elif kind == "interpolation":
            figure, drawn = _draw_interpolation(model, split, places[:2], n)
        else:
            figure = _draw_codebook(model, dataset.train)
        heard = not model.spectrogram.config.images
        waveforms = [_waveform(model, sound) for sound in drawn if heard]
    sounds = [path.with_name(f"{path.stem}-{i:02d}.wav") for i in range(len(waveforms))]
    for sound in sounds:
        require_new(sound, overwrite)
    limited = [
        writing.write(sound, waveform, model.sample_rate)
        for sound, waveform in zip(sounds, waveforms, strict=True)
    ]
    if note := writing.limited_note(sum(limited), len(limited)):
        say(note)
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters in labels that the font lacks
        figure.savefig(temporary, format="png")
    return [path, *sounds]


@dataclass(frozen=True)
class Drawn:
    """A sound on the line between two, or on a grid."""

    spectrogram: Tensor
    """(1, 1, bins, frames) in [0, 1]"""
    level: int
    num_samples: int


def decoded(autoencoder: Autoencoder, latents: Tensor, num_columns: Tensor) -> Tensor:
    """What `latents` gives, (batch,) columns → (batch, 1, bins, frames) in [0, 1].

    By way of the nearest codes, where the model makes codes.
    """
    if autoencoder.config.quantizes:
        return autoencoder.decode(autoencoder.nearest(latents, num_columns), num_columns)
    return autoencoder.decode_latents(latents, num_columns)


def interpolated(model: Model, split: Split, places: Tensor, n: int) -> list[Drawn]:
    """`n` sounds on the straight line between the latents of two clips: see `morph.interpolate`.

    Raises AudiovqError where `places` are not two.
    """
    if len(places) != 2:
        raise AudiovqError(f"interpolation: takes two clips, and {split.name} has {len(split)}")
    autoencoder, hop_length = model.autoencoder, model.spectrogram.config.hop_length
    frames = _frames(autoencoder, split, places)
    ends = autoencoder.latents(split.spectrograms(places).to(model.device), frames).split(1)
    if autoencoder.dense is None:
        columns = autoencoder.num_columns(frames).tolist()
        ends = tuple(grid[..., :end] for grid, end in zip(ends, columns, strict=True))
    num_samples = split.num_samples[places].minimum(frames * hop_length - 1).tolist()
    steps = []
    for step in interpolate(model, ends, split.levels[places].tolist(), num_samples, n):
        width = autoencoder.num_columns(torch.tensor([num_frames(step.num_samples, hop_length)]))
        made = decoded(autoencoder, step.latents, width)
        made = made[..., : num_frames(step.num_samples, hop_length)]
        steps.append(Drawn(made, step.level, step.num_samples))
    return steps


def clip_latents(model: Model, split: Split) -> Tensor:
    """(clips, dim): the mean of each clip's latents; with `dense`, its one vector."""
    points = []
    for indices in torch.arange(len(split)).split(BATCH):
        frames = split.num_frames[indices]
        latents = model.autoencoder.latents(split.spectrograms(indices).to(model.device), frames)
        if model.autoencoder.dense is None:
            cells = model.autoencoder.rows * model.autoencoder.num_columns(frames)
            latents = latents.sum(dim=(2, 3)) / cells[:, None].to(latents)
        points.append(latents.cpu())
    return torch.cat(points)


def plane(points: Tensor) -> Tensor:
    """(points, dim) → (points, 2): as they are, or else their two principal components."""
    if points.shape[1] == 2:
        return points
    centred = points - points.mean(dim=0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    components = centred @ directions.T
    return nn.functional.pad(components, (0, 2 - components.shape[1]))


def _frames(autoencoder: Autoencoder, split: Split, places: Tensor) -> Tensor:
    """(clips,) frames, cut to those that a dense layer takes."""
    frames = split.num_frames[places]
    if autoencoder.dense is None:
        return frames
    return frames.clamp(max=autoencoder.columns * autoencoder.stride[1])


def _draw_reconstructions(model: Model, split: Split, places: Tensor) -> Figure:
    autoencoder, images = model.autoencoder, split.spectrograms(places)
    frames = _frames(autoencoder, split, places)
    latents = autoencoder.latents(images.to(model.device), frames)
    made = decoded(autoencoder, latents, autoencoder.num_columns(frames))
    figure = _figure(1.6 * len(places), 3.6)
    axes = figure.subplots(2, len(places), squeeze=False)
    for i, place in enumerate(places.tolist()):
        end = int(split.num_frames[place])
        for axis, image in zip(axes[:, i], (images[i, 0], made[i, 0]), strict=True):
            _show(axis, image[:, :end])
        axes[0, i].set_title(_name(split.clips[place]), fontsize=8, parse_math=False)
    axes[0, 0].set_ylabel("original")
    axes[1, 0].set_ylabel("reconstruction")
    return figure


def _draw_scatter(model: Model, split: Split) -> Figure:
    """A panel for each label, whose values stand where their points have their mean; grey has none."""
    from matplotlib import colormaps

    points = plane(clip_latents(model, split))
    names = list(split.labels) or [""]
    figure, panels = _panels(len(names))
    for i, (axis, name) in enumerate(zip(panels, names, strict=True)):
        axis.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=9, color="0.8")
        values = split.labels.get(name, [])
        for number, value in enumerate(values):
            own = points[split.label_indices[:, i] == number]
            if not len(own):
                continue
            color = colormaps["turbo"]((number + 0.5) / len(values))
            axis.scatter(own[:, 0].numpy(), own[:, 1].numpy(), s=9, color=color)
            x, y = own.mean(dim=0).tolist()
            box = {"facecolor": "white", "edgecolor": color, "pad": 2}
            axis.text(x, y, value, parse_math=False, ha="center", va="center", bbox=box)
        axis.set_title(name, parse_math=False)
    return figure


def _draw_grid(model: Model, split: Split, n: int) -> tuple[Figure, list[Drawn]]:
    """As far as the latents of the split's clips go."""
    autoencoder, config = model.autoencoder, model.spectrogram.config
    if autoencoder.config.bottleneck.dense != 2:
        raise AudiovqError(
            "latent-grid: the model's latent space is no plane; train one with --autoencoder.bottleneck.dense 2"
            " and --autoencoder.bottleneck.kind gaussian, or none"
        )
    low, high = clip_latents(model, split).aminmax(dim=0)
    step = ((high - low) / (n - 1)).clamp_min(1e-3)
    x, y = (low + step * torch.arange(n)[:, None]).T
    points = torch.cartesian_prod(y, x).flip(1).to(model.device)
    columns = torch.full((n * n,), autoencoder.columns)
    parts = [
        autoencoder.decode_latents(*part)
        for part in zip(points.split(BATCH), columns.split(BATCH), strict=True)
    ]
    images = torch.cat(parts)[..., : model.clip_frames]
    figure = _figure(8, 8)
    axis = figure.subplots()
    tiles = images[:, 0].unflatten(0, (n, n)).transpose(1, 2).flatten(2).flatten(0, 1)
    (left, bottom), (right, top) = (low - step / 2).tolist(), (high + step / 2).tolist()
    axis.imshow(
        tiles.cpu().numpy(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=0,
        vmax=1,
        extent=(left, right, bottom, top),
    )
    level = int(model.spectrogram.level(torch.tensor(GAUSSIAN_LEVEL_DB)))
    num_samples = max(1, (model.clip_frames - 1) * config.hop_length)
    return figure, [Drawn(image, level, num_samples) for image in images.split(1)]


def _draw_interpolation(
    model: Model, split: Split, places: Tensor, n: int
) -> tuple[Figure, list[Drawn]]:
    steps = interpolated(model, split, places, n)
    longest = max(step.spectrogram.shape[3] for step in steps)
    figure = _figure(1.6 * n, 2.2)
    axes = figure.subplots(1, n, squeeze=False)[0]
    for axis, step in zip(axes, steps, strict=True):
        image = step.spectrogram[0, 0]
        _show(axis, nn.functional.pad(image, (0, longest - image.shape[1])))
    for axis, place in zip((axes[0], axes[-1]), places.tolist(), strict=True):
        axis.set_title(_name(split.clips[place]), fontsize=8, parse_math=False)
    return figure, steps


def _draw_codebook(model: Model, split: Split) -> Figure:
    """A panel for each quantizer; codes without use are crosses."""
    books = model.autoencoder.quantizer.codebooks()
    figure, panels = _panels(len(books))
    for number, (axis, book, counts) in enumerate(
        zip(panels, books, code_counts(model, split), strict=True), 1
    ):
        points, used = plane(book.vectors.float().cpu()), (counts > 0).numpy()
        area = 40 * counts[used] / counts[used].float().mean()
        x, y = points.T.numpy()
        axis.scatter(x[~used], y[~used], s=12, marker="x", color="0.6", linewidth=0.8)
        axis.scatter(x[used], y[used], s=area.numpy(), alpha=0.5, color="#7b2382")
        axis.set_title(f"codebook {number}: {int(used.sum())} of {len(used)} codes in use")
    return figure


def _figure(width: float, height: float) -> Figure:
    """Empty, of so many inches at 100 pixels each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    """A figure with `n` square panels, ACROSS in a row."""
    rows, across = -(-n // ACROSS), min(n, ACROSS)
    figure = _figure(5 * across, 5 * rows)
    panels = list(figure.subplots(rows, across, squeeze=False).flat)
    for axis in panels[n:]:
        axis.set_axis_off()
    return figure, panels[:n]


def _show(axis: Axes, image: Tensor) -> None:
    """A spectrogram (bins, frames), the lowest frequency at the bottom."""
    cells = image.cpu().numpy()
    axis.imshow(cells, origin="lower", aspect="auto", cmap="magma", vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])


def _waveform(model: Model, sound: Drawn) -> Waveform:
    waveform = model.spectrogram.inverse(
        sound.spectrogram,
        torch.tensor([sound.level], device=model.device),
        torch.tensor([sound.num_samples], device=model.device),
        generator=torch.Generator().manual_seed(0),
    )
    made: Waveform = waveform[0].cpu().numpy()
    return made


def _name(clip: Clip) -> str:
    return " · ".join(clip.labels.values()) or clip.path
