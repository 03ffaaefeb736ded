"""Features of a sound by which sounds are compared: what a model's spectrogram shows of it from its onset on.

Loudness and silence before the onset have no effect: the model's spectrogram is relative to the loudest cell, and
sounds are aligned at their onset.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from audiovq.audio.waveform import Waveform, peak_of
from audiovq.spectral.spectrogram import Spectrogram

VERSION = 2
"""Changes where the features do."""
LISTENED_SECONDS = 5.0
"""Beginning of a sound that is compared."""
ONSET = 0.03
"""Share of the peak from which a sound has begun."""
LEAD_SECONDS = 0.001
"""Part before the onset that belongs to the sound."""
BANDS = 32
"""Bands of the spectrogram."""
PATCH_SECONDS = 1.5
"""Duration from the onset that is compared in detail,"""
PATCH_TIMES = 13
"""in this many parts, longer with the time from the onset."""
WEIGHTS = 0.3, 1.0, 1.0
"""Of the patch, the means and the deviations (docs/experiments.md, "Features of find")."""
Row = npt.NDArray[np.float32]


def features(spectrogram: Spectrogram, waveform: Waveform) -> Row:
    """Features (features,) of a waveform (samples,) at the spectrogram's rate.

    Cells of a patch from the onset; mean and deviation of each band, frames weighted by loudness.
    """
    sound = aligned(waveform, spectrogram.config.sample_rate)
    num_samples = torch.tensor([len(sound)])
    device = next(spectrogram.buffers(), torch.zeros(())).device
    with torch.inference_mode():
        image, _ = spectrogram(torch.from_numpy(sound)[None].to(device), num_samples.to(device))
        bands = nn.functional.adaptive_avg_pool1d(image[0, 0].cpu().T, BANDS).T
        weights = bands.mean(dim=0)
        shares = weights / weights.sum().clamp(min=1e-9)
        mean = (bands * shares).sum(dim=1)
        deviation = ((bands - mean[:, None]).square() * shares).sum(dim=1).sqrt()
        patch = _patch(bands, spectrogram.config.sample_rate / spectrogram.config.hop_length)
    row: Row = torch.cat([patch.flatten(), mean, deviation]).numpy()
    return row


def compared(table: Row, queries: Row) -> tuple[Row, Row]:
    """Rows of features, (sounds, features) and (queries, features), as vectors of length 1; products are similarities.

    Each feature is scaled by its mean and deviation in the table, and each part by its weight.
    """
    mean = table.mean(axis=0)
    centred = table - mean
    deviation = np.sqrt(np.einsum("ij,ij->j", centred, centred) / len(table))
    scale = 1 / (deviation + 1e-3 * float(deviation.mean()) + 1e-9)
    sizes = BANDS * PATCH_TIMES, BANDS, BANDS
    scale *= np.concatenate([np.full(n, w / n**0.5) for n, w in zip(sizes, WEIGHTS, strict=True)])
    found = []
    for rows in (centred, queries - mean):
        scaled = rows * scale.astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
        scaled /= np.maximum(norms, 1e-9)[:, None]
        found.append(scaled)
    return found[0], found[1]


def aligned(waveform: Waveform, sample_rate: int) -> Waveform:
    """The sound from its onset, LISTENED_SECONDS at most; at least two samples."""
    peak = peak_of(waveform)
    onset = int(np.argmax(np.abs(waveform) > ONSET * peak)) if peak else 0
    begin = max(0, onset - round(LEAD_SECONDS * sample_rate))
    sound = waveform[begin : begin + round(LISTENED_SECONDS * sample_rate)]
    return np.pad(sound, (0, max(0, 2 - len(sound))))


def _patch(bands: Tensor, frames_per_second: float) -> Tensor:
    """The beginning of bands (BANDS, frames), averaged over PATCH_TIMES parts, (BANDS, PATCH_TIMES)."""
    frames = max(PATCH_TIMES + 1, round(PATCH_SECONDS * frames_per_second))
    edges = np.geomspace(1, frames + 1, PATCH_TIMES + 1) - 1
    edges = np.maximum(np.round(edges), np.arange(PATCH_TIMES + 1)).astype(int)
    padded = nn.functional.pad(bands, (0, max(0, int(edges[-1]) - bands.shape[1])))
    return torch.stack([padded[:, a:b].mean(dim=1) for a, b in itertools.pairwise(edges)], dim=1)
