"""Plots of a model on a dataset as PNG: reconstructions, latents, interpolations, codebooks.

Plots of decoded latents come with WAVs. matplotlib is imported only when a plot is made, and without pyplot,
so that no display is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
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
from audiovq.dataset.measured import HELD_OUT, counted, measured_split
from audiovq.dataset.numbers import Numbers
from audiovq.generation.codes import GAUSSIAN_LEVEL_DB
from audiovq.generation.morph import interpolate
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.model import Model, require_match
from audiovq.runtime.files import atomic, require_new, sha256
from audiovq.runtime.progress import Say
from audiovq.spectral.stft import num_frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["reconstructions", "latent-scatter", "latent-grid", "interpolation", "codebook"]
BATCH = 64
"""Clips that are encoded or decoded at a time."""
MAX_N = 32
"""Maximum of `n`: a larger grid would have over a thousand sounds."""
COLUMNS = 4
"""Maximum number of panels side by side."""
RECORDINGS = "audiovq recordings"
"""Text in the PNG: SHA-256 of the WAVs of the plot, in order, by which the next plot knows which files may be replaced."""


def plot(
    model: Model,
    dataset: Dataset,
    path: Path | str,
    kind: Kind = "reconstructions",
    *,
    n: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write a plot as PNG, and WAVs of its sounds next to it; returns all paths. `n`: None is 8.

    reconstructions  `n` clips, with their reconstructions below
    latent-scatter   a point for each clip, coloured by label
    latent-grid      the latent plane of a model with `dense` 2, decoded at `n` × `n` points; WAVs row
                     by row, from low to high
    interpolation    `n` steps on the line between the latents of two clips; WAVs
    codebook         a point for each code, its area proportional to its uses in training clips

    Clips are sampled with `seed` from the test split, or without one from the validation or the training
    split. `overwrite` replaces an earlier plot with its WAVs, of any kind and number; other WAVs are neither
    replaced nor removed. Raises AudiovqError if the model does not support the plot, the dataset does not match the
    model, or a file exists that may not be replaced.
    """
    path, given, n = Path(path), n is not None, 8 if n is None else n
    if path.suffix.lower() != ".png":
        raise AudiovqError(f"{path}: give a name that ends in .png")
    if not 2 <= n <= MAX_N:
        raise AudiovqError(f"n {n}: give 2 to {MAX_N}")
    require_match(model, dataset)
    require_new(path, overwrite)
    require_seed(seed)
    split = measured_split(dataset, *HELD_OUT)
    indices = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    sounds: list[DecodedSound] = []
    with torch.inference_mode():
        if kind == "reconstructions":
            if len(split) < n and given:
                say(f"note: all {counted(len(split), split.name)} are drawn, fewer than {n}")
            figure = _draw_reconstructions(model, split, indices[:n])
        elif kind == "latent-scatter":
            figure = _draw_scatter(model, split)
        elif kind == "latent-grid":
            figure, sounds = _draw_grid(model, split, n)
        elif kind == "interpolation":
            figure, sounds = _draw_interpolation(model, split, indices[:2], n)
        else:
            figure = _draw_codebook(model, dataset.train)
        has_sound = not model.spectrogram.config.images
        waveforms = [_waveform(model, sound) for sound in sounds if has_sound]
    earlier = _recordings_of(path)
    paths = _write_wavs(path, waveforms, model.sample_rate, earlier, say)
    listed = {RECORDINGS: " ".join(map(sha256, paths))} if paths else None
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for characters in labels that the font lacks
        figure.savefig(temporary, format="png", metadata=listed)
    for stale in earlier - {*paths}:
        stale.unlink()
    return [path, *paths]


def _recording(plot_path: Path, number: int) -> Path:
    """The path of a WAV of the plot NAME.png: NAME-00.wav, NAME-01.wav and so on."""
    return plot_path.with_name(f"{plot_path.stem}-{number:02d}.wav")


def _recordings_of(plot_path: Path) -> set[Path]:
    """The WAVs that came with the plot at this path, those that have not changed since; none if it is no such plot."""
    import PIL.Image

    broken = OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError
    try:
        with PIL.Image.open(plot_path) as image:
            checksums = str(image.info.get(RECORDINGS, "")).split()
    except broken:
        return set()
    paths = (_recording(plot_path, number) for number in range(len(checksums)))
    return {
        path
        for path, checksum in zip(paths, checksums, strict=True)
        if path.is_file() and sha256(path) == checksum
    }


def _write_wavs(
    plot_path: Path,
    waveforms: Sequence[Waveform],
    sample_rate: int,
    earlier: Collection[Path],
    say: Say,
) -> list[Path]:
    """Write waveforms next to the plot. Raises AudiovqError if a file exists that is not one of `earlier`."""
    paths = [_recording(plot_path, number) for number in range(len(waveforms))]
    for path in paths:
        if path.exists() and path not in earlier:
            raise AudiovqError(
                f"{path}: exists already, and is not as a plot {plot_path.name} wrote it; move it, or choose another"
                " name for the plot"
            )
    limited = [
        writing.write(path, waveform, sample_rate)
        for path, waveform in zip(paths, waveforms, strict=True)
    ]
    if note := writing.limited_note(sum(limited), len(limited)):
        say(note)
    return paths


@dataclass(frozen=True)
class DecodedSound:
    """A sound decoded from interpolated latents or a point of the latent plane."""

    spectrogram: Tensor
    """(1, 1, bins, frames) in [0, 1]"""
    level: int
    num_samples: int


def decode_latents(autoencoder: Autoencoder, latents: Tensor, num_columns: Tensor) -> Tensor:
    """Decode latents with (batch,) `num_columns` to (batch, 1, bins, frames) in [0, 1].

    Latents are quantized first if the model has codes.
    """
    if autoencoder.config.quantizes:
        return autoencoder.decode(autoencoder.nearest(latents, num_columns), num_columns)
    return autoencoder.decode_latents(latents, num_columns)


def interpolated(model: Model, split: Split, indices: Tensor, n: int) -> list[DecodedSound]:
    """`n` sounds on the straight line between the latents of two clips: see `morph.interpolate`.

    Raises AudiovqError unless there are two `indices`.
    """
    if len(indices) != 2:
        raise AudiovqError(f"interpolation: needs two clips; {split.name} has {len(split)}")
    autoencoder, hop_length = model.autoencoder, model.spectrogram.config.hop_length
    frames = _frames(autoencoder, split, indices)
    ends = autoencoder.latents(split.spectrograms(indices).to(model.device), frames).split(1)
    if autoencoder.dense is None:
        columns = autoencoder.num_columns(frames).tolist()
        ends = tuple(grid[..., :end] for grid, end in zip(ends, columns, strict=True))
    num_samples = split.num_samples[indices].minimum(frames * hop_length - 1).tolist()
    steps = []
    for step in interpolate(model, ends, split.levels[indices].tolist(), num_samples, n):
        width = autoencoder.num_columns(torch.tensor([num_frames(step.num_samples, hop_length)]))
        decoded = decode_latents(autoencoder, step.latents, width)
        decoded = decoded[..., : num_frames(step.num_samples, hop_length)]
        steps.append(DecodedSound(decoded, step.level, step.num_samples))
    return steps


def clip_latents(model: Model, split: Split) -> Tensor:
    """Mean latent of each clip, (clips, dim); with `dense`, its only one."""
    points = []
    for indices in torch.arange(len(split)).split(BATCH):
        frames = split.num_frames[indices]
        latents = model.autoencoder.latents(split.spectrograms(indices).to(model.device), frames)
        if model.autoencoder.dense is None:
            cells = model.autoencoder.rows * model.autoencoder.num_columns(frames)
            latents = latents.sum(dim=(2, 3)) / cells[:, None].to(latents)
        points.append(latents.cpu())
    return torch.cat(points)


def project_to_plane(points: Tensor) -> Tensor:
    """Project (points, dim) to two principal components, (points, 2); two dimensions stay as they are."""
    if points.shape[1] == 2:
        return points
    centred = points - points.mean(dim=0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    components = centred @ directions.T
    return nn.functional.pad(components, (0, 2 - components.shape[1]))


def _frames(autoencoder: Autoencoder, split: Split, indices: Tensor) -> Tensor:
    """Number of frames (clips,), limited to the input size of a dense layer."""
    frames = split.num_frames[indices]
    if autoencoder.dense is None:
        return frames
    return frames.clamp(max=autoencoder.columns * autoencoder.stride[1])


def _draw_reconstructions(model: Model, split: Split, indices: Tensor) -> Figure:
    autoencoder, images = model.autoencoder, split.spectrograms(indices)
    frames = _frames(autoencoder, split, indices)
    latents = autoencoder.latents(images.to(model.device), frames)
    decoded = decode_latents(autoencoder, latents, autoencoder.num_columns(frames))
    figure = _figure(1.6 * len(indices), 3.6)
    axes = figure.subplots(2, len(indices), squeeze=False)
    for i, index in enumerate(indices.tolist()):
        end = int(split.num_frames[index])
        for axis, image in zip(axes[:, i], (images[i, 0], decoded[i, 0]), strict=True):
            _show(axis, image[:, :end])
        axes[0, i].set_title(_name(split.clips[index]), fontsize=8, parse_math=False)
    axes[0, 0].set_ylabel("original")
    axes[1, 0].set_ylabel("reconstruction")
    return figure


def _draw_scatter(model: Model, split: Split) -> Figure:
    """A panel for each label, with the name of each value at the mean of its points, numbers as colours from low to high;
    grey: no value."""
    from matplotlib import colormaps

    points = project_to_plane(clip_latents(model, split))
    names = list(split.labels) or [""]
    figure, panels = _panels(len(names))
    for i, (axis, name) in enumerate(zip(panels, names, strict=True)):
        axis.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=9, color="0.8")
        values = split.labels.get(name, [])
        if isinstance(values, Numbers):
            indices = split.label_indices[:, i]
            members = points[indices < len(values)]
            shades = indices[indices < len(values)].numpy()
            axis.scatter(members[:, 0].numpy(), members[:, 1].numpy(), s=9, c=shades, cmap="turbo")
            axis.set_title(f"{name}, {values.in_words}", parse_math=False)
            continue
        for number, value in enumerate(values):
            members = points[split.label_indices[:, i] == number]
            if not len(members):
                continue
            color = colormaps["turbo"]((number + 0.5) / len(values))
            axis.scatter(members[:, 0].numpy(), members[:, 1].numpy(), s=9, color=color)
            x, y = members.mean(dim=0).tolist()
            box = {"facecolor": "white", "edgecolor": color, "pad": 2}
            axis.text(x, y, value, parse_math=False, ha="center", va="center", bbox=box)
        axis.set_title(name, parse_math=False)
    return figure


def _draw_grid(model: Model, split: Split, n: int) -> tuple[Figure, list[DecodedSound]]:
    """A grid over the range of the latents of the split's clips."""
    autoencoder, config = model.autoencoder, model.spectrogram.config
    if autoencoder.config.bottleneck.dense != 2:
        raise AudiovqError(
            "latent-grid: the model's latent space is not a plane; train a model with"
            " --autoencoder.bottleneck.dense 2 and --autoencoder.bottleneck.kind gaussian or none"
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
    return figure, [DecodedSound(image, level, num_samples) for image in images.split(1)]


def _draw_interpolation(
    model: Model, split: Split, indices: Tensor, n: int
) -> tuple[Figure, list[DecodedSound]]:
    steps = interpolated(model, split, indices, n)
    longest = max(step.spectrogram.shape[3] for step in steps)
    figure = _figure(1.6 * n, 2.2)
    axes = figure.subplots(1, n, squeeze=False)[0]
    for axis, step in zip(axes, steps, strict=True):
        image = step.spectrogram[0, 0]
        _show(axis, nn.functional.pad(image, (0, longest - image.shape[1])))
    for axis, index in zip((axes[0], axes[-1]), indices.tolist(), strict=True):
        axis.set_title(_name(split.clips[index]), fontsize=8, parse_math=False)
    return figure, steps


def _draw_codebook(model: Model, split: Split) -> Figure:
    """A panel for each quantizer; unused codes are crosses."""
    codebooks = model.autoencoder.quantizer.codebooks()
    figure, panels = _panels(len(codebooks))
    for number, (axis, codebook, counts) in enumerate(
        zip(panels, codebooks, code_counts(model, split), strict=True), 1
    ):
        points, used = project_to_plane(codebook.vectors.float().cpu()), (counts > 0).numpy()
        area = 40 * counts[used] / counts[used].float().mean()
        x, y = points.T.numpy()
        axis.scatter(x[~used], y[~used], s=12, marker="x", color="0.6", linewidth=0.8)
        axis.scatter(x[used], y[used], s=area.numpy(), alpha=0.5, color="#7b2382")
        axis.set_title(f"codebook {number}: {int(used.sum())} of {len(used)} codes in use")
    return figure


def _figure(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches, 100 pixels each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    """A figure with `n` square panels, COLUMNS in a row."""
    rows, columns = -(-n // COLUMNS), min(n, COLUMNS)
    figure = _figure(5 * columns, 5 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in panels[n:]:
        axis.set_axis_off()
    return figure, panels[:n]


def _show(axis: Axes, image: Tensor) -> None:
    """Draw a spectrogram (bins, frames), the lowest frequency at the bottom."""
    axis.imshow(image.cpu().numpy(), origin="lower", aspect="auto", cmap="magma", vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])


def _waveform(model: Model, sound: DecodedSound) -> Waveform:
    waveform = model.spectrogram.inverse(
        sound.spectrogram,
        torch.tensor([sound.level], device=model.device),
        torch.tensor([sound.num_samples], device=model.device),
        generator=torch.Generator().manual_seed(0),
    )
    first: Waveform = waveform[0].cpu().numpy()
    return first


def _name(clip: Clip) -> str:
    """Its labels, or else its path."""
    return " · ".join(clip.labels.values()) or clip.path
