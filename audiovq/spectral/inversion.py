"""Inversion of true spectrograms in batches, an upper bound for the quality of any codec on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiovq.audio.ends import from_silence
from audiovq.audio.waveform import Waveform
from audiovq.config.sampling import Inversion
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.spectral.stft import num_frames

BATCH_FRAMES = 1 << 14
"""Frames of a batch, padding included."""


def invert(
    spectrogram: Spectrogram, waveforms: Sequence[Waveform], *, inversion: Inversion = Inversion()
) -> list[Waveform]:
    """Waveforms (..., samples) → true spectrograms → waveforms: the best quality that these settings allow.

    They begin and end as decoded sounds do (`ends.from_silence`).
    """
    inverted: dict[int, Waveform] = {}
    device = next(spectrogram.buffers(), torch.zeros(())).device
    for indices in batches([w.shape[-1] for w in waveforms], spectrogram.config.hop_length):
        batch, num_samples = padded([waveforms[i] for i in indices])
        with torch.inference_mode():
            num_samples = num_samples.to(device)
            images, levels = spectrogram(batch.to(device), num_samples)
            audio = spectrogram.inverse(images, levels, num_samples, inversion=inversion)
        for row, length, i in zip(audio.cpu().numpy(), num_samples.tolist(), indices, strict=True):
            inverted[i] = from_silence(row[..., :length], spectrogram.config.sample_rate)
    return [inverted[i] for i in range(len(waveforms))]


def padded(waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
    """Waveforms (..., samples) as a batch (batch, ..., longest), padded with zeros, and their lengths (batch,)."""
    num_samples = torch.tensor([w.shape[-1] for w in waveforms])
    padded = torch.zeros(len(waveforms), *waveforms[0].shape[:-1], int(num_samples.max()))
    for row, waveform in zip(padded, waveforms, strict=True):
        row[..., : waveform.shape[-1]] = torch.from_numpy(waveform)
    return padded, num_samples


def batches(
    lengths: Sequence[int], hop_length: int, batch_frames: int = BATCH_FRAMES
) -> list[list[int]]:
    """Indices of waveforms of these lengths in samples, sorted by length and cut into batches.

    A batch has at most `batch_frames` frames, padding included, or holds a single waveform.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        frames = num_frames(lengths[i], hop_length)
        if not batches or (len(batches[-1]) + 1) * frames > batch_frames:
            batches.append([])
        batches[-1].append(i)
    return batches
