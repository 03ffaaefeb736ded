"""What single codes sound like: one code, held in its row, in an otherwise silent grid."""

from __future__ import annotations

import torch
from torch import Tensor

from audiovq.audio.waveform import Waveform
from audiovq.models.model import Model
from audiovq.spectral.scale import NEUTRAL

HELD_SECONDS = 0.3
"""Duration of the sound of a single code."""
MARGIN = 2
"""Columns of silence before and after it."""
HELD_LEVEL_DB = -12.0
"""Level of its spectrogram's loudest cell."""


@torch.inference_mode()
def held_codes(model: Model, codes: Tensor, row: int) -> Tensor:
    """Spectrograms (codes, planes, bins, frames) of each of `codes` (codes,) of the first quantizer, held for
    HELD_SECONDS in its row, which counts from the lowest."""
    autoencoder, vocabulary = model.autoencoder, model.vocabulary
    vectors = autoencoder.quantizer.codebooks()[0].vectors.float()
    columns_per_second = model.codes_per_second / vocabulary.slots
    width = max(1, round(HELD_SECONDS * columns_per_second))
    frames = torch.tensor([(width + 2 * MARGIN) * autoencoder.stride[1]])
    neutral = torch.tensor(NEUTRAL[: autoencoder.planes], device=model.device).view(1, -1, 1, 1)
    silence = neutral.repeat(1, 1, autoencoder.bins, int(frames))
    silent = autoencoder.encode(silence, frames)
    grid = autoencoder.quantizer.decode(silent[0].permute(1, 2, 0).flatten(0, 1))
    grid = grid.view(vocabulary.rows, -1, vectors.shape[1]).permute(2, 0, 1)
    latents = grid.repeat(len(codes), 1, 1, 1)
    latents[:, :, row, MARGIN : MARGIN + width] = vectors[codes.to(vectors.device)][:, :, None]
    return autoencoder.decode_latents(latents, torch.full((len(codes),), latents.shape[3]))


def held_waveform(model: Model, image: Tensor) -> Waveform:
    """Waveform (..., samples) of one of the spectrograms (planes, bins, frames) of `held_codes`."""
    num_samples = (image.shape[2] - 1) * model.spectrogram.config.hop_length
    waveform = model.spectrogram.inverse(
        image[None],
        model.spectrogram.level(torch.tensor([HELD_LEVEL_DB], device=model.device)),
        torch.tensor([num_samples], device=model.device),
        generator=torch.Generator().manual_seed(0),
    )
    first: Waveform = waveform[0].cpu().numpy()
    return first
