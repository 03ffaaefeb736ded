"""Morphing: sounds on the straight line between the latents of two recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiovq.audio.channels import to_channels
from audiovq.audio.waveform import Waveform
from audiovq.codec.windows import Encoded
from audiovq.config.checks import require_count, require_seed
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion
from audiovq.generation.sound import Sound, decode_sounds
from audiovq.models.model import Model
from audiovq.spectral.stft import num_frames

MAX_SAMPLES = 1 << 28
"""Upper bound for the samples of all steps together: they are in memory at once."""


@dataclass(frozen=True)
class Interpolated:
    """One step between two sounds."""

    latents: Tensor
    """(1, dim, rows, columns); with `dense` (1, dense)."""
    level: int
    num_samples: int


def morph(
    model: Model,
    first: Waveform,
    second: Waveform,
    steps: int = 8,
    *,
    inversion: Inversion = Inversion(),
    seed: int = 0,
) -> list[Sound]:
    """`steps` sounds from one recording (samples,) to another, both ends included: see `interpolate`.

    Each is decoded from the codes nearest to the interpolated latents. Raises AudiovqError where `steps`
    is less than 2 or too large for the recordings' lengths, or the model has no codes.
    """
    require_seed(seed)
    require_count(steps, "steps", 2)
    first, second = (to_channels(waveform, model.channels) for waveform in (first, second))
    most = max(2, MAX_SAMPLES // max(1, first.shape[-1], second.shape[-1]))
    if steps > most:
        raise AudiovqError(f"steps {steps}: give at most {most} for recordings as long as these")
    _ = model.autoencoder.quantizer  # raises where the model has no codes
    latents, levels, lengths = [], [], []
    sounds = []
    with torch.inference_mode():
        for waveform in (first, second):
            batch = torch.from_numpy(waveform)[None].to(model.device)
            images, level = model.spectrogram(batch)
            frames = torch.tensor([images.shape[3]])
            latents.append(model.autoencoder.latents(images, frames))
            levels.append(int(level))
            lengths.append(waveform.shape[-1])
        for step in interpolate(model, latents, levels, lengths, steps):
            num_columns = torch.tensor([step.latents.shape[3]])
            codes = model.autoencoder.nearest(step.latents, num_columns)[0].cpu()
            sounds.append(Encoded(codes, step.level, step.num_samples))
    return decode_sounds(model, sounds, None, inversion, seed)


def interpolate(
    model: Model, latents: Sequence[Tensor], levels: Sequence[int], lengths: Sequence[int], n: int
) -> list[Interpolated]:
    """`n` steps on the straight line between the latents (1, dim, rows, columns) of two sounds, both ends
    included; `levels` and `lengths` (samples) are the two sounds'.

    Lengths are interpolated too: the latents are resized in time to each step's length, so that
    beginnings mix with beginnings and ends with ends.
    """
    autoencoder, hop_length = model.autoencoder, model.spectrogram.config.hop_length
    steps = []
    for share in torch.linspace(0, 1, n).tolist():
        length, level = (round((1 - share) * a + share * b) for a, b in (lengths, levels))
        resized = list(latents)
        if autoencoder.dense is None:
            columns = int(autoencoder.num_columns(torch.tensor([num_frames(length, hop_length)])))
            resized = [_resize(grid, columns) for grid in latents]
        steps.append(Interpolated(torch.lerp(resized[0], resized[1], share), level, length))
    return steps


def _resize(grid: Tensor, columns: int) -> Tensor:
    """(1, dim, rows, columns) resized in time to `columns`; exact where the number is the same."""
    size = (grid.shape[2], columns)
    return nn.functional.interpolate(grid, size, mode="bilinear", align_corners=True)
