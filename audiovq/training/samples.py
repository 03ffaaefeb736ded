"""Samples, progress lines and divergence errors, shared by the stages of training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiovq.audio import writing
from audiovq.audio.waveform import Waveform
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Split
from audiovq.models.checkpoint import amend
from audiovq.models.model import Model
from audiovq.runtime import distributed
from audiovq.runtime.files import atomic
from audiovq.runtime.progress import Say, clock
from audiovq.spectral.picture import write_images
from audiovq.training.loop import Diverged, Trainer

SAMPLES = 6
"""Clips shown while training."""
SAMPLE_EVERY = 0.2
"""Share of the schedule between two such samples."""


@contextlib.contextmanager
def naming_clips(split: Split) -> Iterator[None]:
    """Where training diverges, say on which recordings."""
    try:
        yield
    except Diverged as error:
        # The prior's clips are views of the split's, one whole round after another.
        paths = sorted({split.clips[place % len(split)].path for place in error.places})
        names = ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
        raise AudiovqError(f"{error} (the batch there: {names})") from error


def write_samples(
    folder: Path, stage: str, step: int, model: Model, waveforms: Sequence[Waveform]
) -> None:
    """One WAV with pauses, one PNG with the spectrograms side by side."""
    pause = np.zeros(model.sample_rate // 4, np.float32)
    waveform = np.concatenate([part for w in waveforms for part in (w, pause)])
    path = folder / "training" / "samples" / f"{stage}-{step:06d}.wav"
    writing.write(path, waveform, model.sample_rate)
    image = (
        model.spectrogram(torch.from_numpy(waveform)[None].to(model.device))[0][0, 0].cpu().numpy()
    )
    with atomic(path.with_suffix(".png")) as temporary:
        import matplotlib.image

        matplotlib.image.imsave(temporary, image, cmap="magma", origin="lower", format="png")


def write_strips(folder: Path, stage: str, step: int, rows: Sequence[Tensor]) -> None:
    """Images (n, 1, bins, frames) side by side, a row below the other, in one PNG."""
    strips = [torch.cat(list(images[:, 0].cpu()), dim=1) for images in reversed(rows)]
    grid = torch.cat(strips)[None, None]
    write_images(folder / "training" / "samples", grid, [f"{stage}-{step:06d}"])


def ended(folder: Path, trainer: Trainer, say: Say) -> None:
    """Keep in model.json how a stage of training ended, and say so where the time limit cut it short."""
    if not distributed.is_main() or trainer.ended_by is None:
        return
    amend(folder, trainer.stage, {"steps_planned": trainer.steps, "ended_by": trainer.ended_by})
    if trainer.ended_by == "time":
        say(
            f"{trainer.stage}: cut short by the time limit, after {trainer.state.step:,} of"
            f" {trainer.steps:,} steps; more minutes may give a better model"
        )


def progress_line(stage: str, metrics: Mapping[str, float]) -> str:
    """Where training stands: share of its schedule, step, time taken and left."""
    share, seconds = metrics["progress"], metrics["seconds"]
    left = clock(seconds * (1 - share) / share) if share else "?"
    return f"{stage} {100 * share:3.0f} %, step {metrics['step']:,}, {clock(seconds)}, {left} left"


def loss_line(stage: str, metrics: Mapping[str, float]) -> str:
    """Between validations: where training stands, and the loss."""
    return f"{progress_line(stage, metrics)}: loss {metrics['loss']:.3f}, the lower the better"
