"""Waveform ↔ codes: a trained autoencoder as a codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiovq.audio import Waveform
from audiovq.checkpoint import Model
from audiovq.phase import num_frames
from audiovq.spectrogram import Phase, Spectrogram

BATCH_FRAMES = 1 << 14
"""Frames, padding included, that go through the networks at a time."""


@dataclass(frozen=True)
class Encoded:
    """One sound as codes."""

    codes: Tensor
    """(quantizers, rows, columns), integers."""
    level: int
    num_samples: int


def encode(model: Model, waveforms: Sequence[Waveform]) -> list[Encoded]:
    """Waveforms (samples,) at the model's rate, each of any length → codes, in the same order."""
    encoded: dict[int, Encoded] = {}
    for places in _batches([len(w) for w in waveforms], model.spectrogram.config.hop_length):
        batch, num_samples = _padded([waveforms[i] for i in places])
        batch = batch.to(model.device)
        with torch.inference_mode():
            spectrogram, levels = model.spectrogram(batch, num_samples.to(model.device))
            frames = num_frames(num_samples, model.spectrogram.config.hop_length)
            codes = model.autoencoder.encode(spectrogram, frames).cpu()
        columns = model.autoencoder.num_columns(frames)
        for row_codes, c, level, i in zip(
            codes, columns.tolist(), levels.tolist(), places, strict=True
        ):
            encoded[i] = Encoded(row_codes[:, :, :c], level, len(waveforms[i]))
    return [encoded[i] for i in range(len(waveforms))]


def decode(
    model: Model,
    sounds: Sequence[Encoded],
    *,
    phase: Phase = "pghi",
    n_iter: int | None = None,
    seed: int = 0,
) -> list[Waveform]:
    """The inverse of `encode`: codes → waveforms (samples,) of exact length, in the same order."""
    waveforms: dict[int, Waveform] = {}
    for places in _batches([s.num_samples for s in sounds], model.spectrogram.config.hop_length):
        batch = [sounds[i] for i in places]
        num_columns = torch.tensor([s.codes.shape[2] for s in batch])
        codes = torch.zeros(
            len(batch), *batch[0].codes.shape[:2], int(num_columns.max()), dtype=torch.long
        )
        for row, sound in zip(codes, batch, strict=True):
            row[:, :, : sound.codes.shape[2]] = sound.codes
        num_samples = torch.tensor([s.num_samples for s in batch])
        with torch.inference_mode():
            spectrogram = model.autoencoder.decode(codes.to(model.device), num_columns)
            audio = model.spectrogram.inverse(
                spectrogram,
                torch.tensor([s.level for s in batch], device=model.device),
                num_samples.to(model.device),
                phase=phase,
                n_iter=n_iter,
                generator=torch.Generator().manual_seed(seed),
            )
        for row, length, i in zip(audio.cpu().numpy(), num_samples.tolist(), places, strict=True):
            waveforms[i] = row[:length]
    return [waveforms[i] for i in range(len(sounds))]


def invert(
    spectrogram: Spectrogram, waveforms: Sequence[Waveform], *, phase: Phase = "pghi"
) -> list[Waveform]:
    """Waveforms → true spectrograms → waveforms: what no codec on these spectrograms can exceed."""
    inverted: dict[int, Waveform] = {}
    for places in _batches([len(w) for w in waveforms], spectrogram.config.hop_length):
        batch, num_samples = _padded([waveforms[i] for i in places])
        with torch.inference_mode():
            images, levels = spectrogram(batch, num_samples)
            audio = spectrogram.inverse(images, levels, num_samples, phase=phase)
        for row, length, i in zip(audio.numpy(), num_samples.tolist(), places, strict=True):
            inverted[i] = row[:length]
    return [inverted[i] for i in range(len(waveforms))]


def _padded(waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
    """(batch, longest), zeros after each waveform's end, and (batch,) lengths."""
    num_samples = torch.tensor([len(w) for w in waveforms])
    padded = torch.zeros(len(waveforms), int(num_samples.max()))
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return padded, num_samples


def _batches(lengths: Sequence[int], hop_length: int) -> list[list[int]]:
    """Places in order of length, as many together as BATCH_FRAMES allows."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        frames = num_frames(lengths[i], hop_length)
        if not batches or (len(batches[-1]) + 1) * frames > BATCH_FRAMES:
            batches.append([])
        batches[-1].append(i)
    return batches
