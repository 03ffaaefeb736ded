"""The contrast of a decoder, fitted to recordings: after encoding, decoding and inversion they are as loud as before.

A decoder returns means, which are flatter than recordings, and the inversion of a spectrogram that no waveform has
fills its quiet cells. Both shift all quiet cells by about the same amount, and one number
takes it back.
"""

from __future__ import annotations

import torch
from torch import nn

from audiovq.dataset.batches import evenly_spaced
from audiovq.dataset.dataset import Split
from audiovq.models.autoencoder.vivid import VividDecoder
from audiovq.models.model import Model

CLIPS = 32
"""Clips that the contrast is fitted to, evenly spaced in their split."""
LOWEST, HIGHEST = 0.95, 1.2
STEPS = 4
"""Of the search; two are enough where the mean depends on the contrast in a line, as it nearly does."""


@torch.inference_mode()
def fitted_contrast(model: Model, split: Split, decoder: VividDecoder | None = None) -> float:
    """Contrast, LOWEST to HIGHEST, at which clips of `split` have the mean that they had as recordings.

    The mean is over all cells of the normalized spectrograms of the decoded waveforms. `decoder`: None is the
    autoencoder's own. Found by regula falsi and rounded, so that it does not depend on the last bits.
    """
    indices = evenly_spaced(len(split), CLIPS)[:CLIPS]
    images, frames = split.spectrograms(indices).to(model.device), split.num_frames[indices]
    levels, num_samples = (
        values[indices].to(model.device) for values in (split.levels, split.num_samples)
    )
    cells = (torch.arange(images.shape[3]) < frames[:, None])[:, None, None].to(images)
    autoencoder = model.autoencoder
    codes, columns = autoencoder.encode(images, frames), autoencoder.num_columns(frames)
    values = autoencoder.decode_values(codes, columns, decoder)[..., : images.shape[3]]

    def excess(contrast: float) -> float:
        """Mean of the cells after a decoder with `contrast`, less that of the recordings."""
        decoded = autoencoder.apply_contrast(values, contrast)
        waveforms = model.spectrogram.inverse(decoded, levels, num_samples)
        again, _ = model.spectrogram(waveforms, num_samples)
        again = nn.functional.pad(again, (0, images.shape[3] - again.shape[3]))
        return float(((again - images)[:, :1] * cells).sum())

    low, high = LOWEST, HIGHEST
    at_low, at_high = excess(low), excess(high)
    if at_low <= 0 or at_high >= 0:
        return low if at_low <= 0 else high
    contrast = low
    for _ in range(STEPS):
        contrast = low + (high - low) * at_low / (at_low - at_high)
        found = excess(contrast)
        if found > 0:
            low, at_low = contrast, found
        else:
            high, at_high = contrast, found
    return round(contrast, 3)
