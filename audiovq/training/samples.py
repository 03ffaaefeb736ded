"""Samples written during training: WAVs with pictures of their spectrograms, or images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiovq.audio import writing
from audiovq.audio.waveform import Waveform
from audiovq.models.model import Model
from audiovq.runtime.files import atomic
from audiovq.spectral.picture import write_images

SAMPLES = 6
"""Clips in each file."""


def write_samples(
    folder: Path, stage: str, step: int, model: Model, waveforms: Sequence[Waveform]
) -> None:
    """Write one WAV of all waveforms, with pauses, and one PNG of its spectrogram."""
    pause = np.zeros((*waveforms[0].shape[:-1], model.sample_rate // 4), np.float32)
    waveform = np.concatenate([part for w in waveforms for part in (w, pause)], axis=-1)
    path = folder / "training" / "samples" / f"{stage}-{step:06d}.wav"
    writing.write(path, waveform, model.sample_rate)
    image = (
        model.spectrogram(torch.from_numpy(waveform)[None].to(model.device))[0][0, 0].cpu().numpy()
    )
    with atomic(path.with_suffix(".png")) as temporary:
        import matplotlib.image

        matplotlib.image.imsave(temporary, image, cmap="magma", origin="lower", format="png")


def write_strips(folder: Path, stage: str, step: int, rows: Sequence[Tensor]) -> None:
    """Write one PNG of rows of images, each (n, 1, bins, frames), side by side; the first row on top."""
    strips = [torch.cat(list(images[:, 0].cpu()), dim=1) for images in reversed(rows)]
    grid = torch.cat(strips)[None, None]
    write_images(folder / "training" / "samples", grid, [f"{stage}-{step:06d}"])
