"""Waveform ↔ codes: a trained autoencoder as a codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiovq.audio import Waveform
from audiovq.checkpoint import Model
from audiovq.context import ContextTables, search
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


def encode(
    model: Model, waveforms: Sequence[Waveform], *, rate_weight: float | None = None
) -> list[Encoded]:
    """Waveforms (samples,) at the model's rate, each of any length → codes, in the same order.

    Where the model has context tables, codes are chosen that weigh the bits they take: see
    `context.search`. `rate_weight` None: the model's own; 0: the nearest codes.
    """
    if rate_weight is None:
        rate_weight = model.context.rate_weight if model.context else 0
    encoded: dict[int, Encoded] = {}
    for places in _batches([len(w) for w in waveforms], model.spectrogram.config.hop_length):
        batch, num_samples = _padded([waveforms[i] for i in places])
        batch = batch.to(model.device)
        with torch.inference_mode():
            spectrogram, levels = model.spectrogram(batch, num_samples.to(model.device))
            frames = num_frames(num_samples, model.spectrogram.config.hop_length)
            columns = model.autoencoder.num_columns(frames)
            if model.context is not None and rate_weight > 0:
                latents = model.autoencoder.latents(spectrogram, frames)
                codes = _search(model, model.context, latents, columns, rate_weight)
            else:
                codes = model.autoencoder.encode(spectrogram, frames).cpu()
        for row_codes, c, level, i in zip(
            codes, columns.tolist(), levels.tolist(), places, strict=True
        ):
            encoded[i] = Encoded(row_codes[:, :, :c], level, len(waveforms[i]))
    return [encoded[i] for i in range(len(waveforms))]


def _search(
    model: Model, tables: ContextTables, latents: Tensor, columns: Tensor, rate_weight: float
) -> Tensor:
    """`context.search` over tensors."""
    books = model.autoencoder.quantizer.codebooks()
    embeddings = [book.embedding.cpu().numpy() for book in books]
    return torch.from_numpy(
        search(tables, latents.cpu().numpy(), columns.numpy(), embeddings, rate_weight)
    )


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
    device = next(spectrogram.buffers(), torch.zeros(())).device
    for places in _batches([len(w) for w in waveforms], spectrogram.config.hop_length):
        batch, num_samples = _padded([waveforms[i] for i in places])
        with torch.inference_mode():
            num_samples = num_samples.to(device)
            images, levels = spectrogram(batch.to(device), num_samples)
            audio = spectrogram.inverse(images, levels, num_samples, phase=phase)
        for row, length, i in zip(audio.cpu().numpy(), num_samples.tolist(), places, strict=True):
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
