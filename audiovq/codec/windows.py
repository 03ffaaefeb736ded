"""Long recordings through the codec, window by window, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiovq.audio.waveform import Waveform
from audiovq.config.sampling import Inversion
from audiovq.models.entropy.context_tables import SEGMENT_COLUMNS
from audiovq.models.entropy.rate_search import search
from audiovq.models.model import Model
from audiovq.spectral import inversion
from audiovq.spectral.inversion import padded
from audiovq.spectral.stft import num_frames, stft

WINDOW_FRAMES = 1 << 12
"""Frames of a long sound that are made into sound at a time,"""
OVERLAP_FRAMES = 64
"""those that two such windows share: the first half keep their phase, and"""
FADE_FRAMES = 8
"""amid these the one fades into the other."""


@dataclass(frozen=True)
class Encoded:
    """One sound as codes."""

    codes: Tensor
    """(quantizers, rows, columns), integers."""
    level: int
    num_samples: int


@torch.inference_mode()
def encode_blocks(
    model: Model, blocks: Callable[[], Iterable[Waveform]], *, rate_weight: float | None = None
) -> Encoded:
    """A sound of any length, block by block (samples,) → its codes, as `encode` gives them.

    `blocks` is called twice, for the level and for the codes, and gives the same both times. What
    goes beyond full scale is brought down to it as a whole.
    """
    config, stride = model.spectrogram.config, model.autoencoder.stride[1]
    per_column = stride * config.hop_length
    margin = model.autoencoder.reach + -(-config.n_fft // (2 * per_column))
    # Half a batch: what networks hold of one long image is more than of many short ones.
    inner = SEGMENT_COLUMNS * max(1, inversion.BATCH_FRAMES // (2 * stride * SEGMENT_COLUMNS))

    def windows() -> Iterator[_Window]:
        for samples, begin, own in _windows(blocks(), inner * per_column, margin * per_column):
            batch, length = padded([samples])
            decibels = model.spectrogram.decibels(batch.to(model.device), length.to(model.device))
            yield _Window(
                decibels,
                num_frames(length, config.hop_length),
                (own - begin) // per_column,
                begin + len(samples),
                float(np.abs(samples).max(initial=0)),
            )

    loudest, peak = torch.full((1,), -torch.inf, device=model.device), 1.0
    for window in windows():
        own = window.decibels[:, :, window.first * stride : (window.first + inner) * stride]
        loudest, peak = torch.maximum(loudest, own.amax(dim=(1, 2))), max(peak, window.peak)
    excess = 20 * math.log10(peak)
    level = model.spectrogram.level(loudest - excess)
    parts, num_samples = [], 0
    for window in windows():
        spectrogram = model.spectrogram.normalized(window.decibels - excess, level)
        latents = model.autoencoder.latents(spectrogram, window.frames)
        columns = model.autoencoder.num_columns(window.frames) - window.first
        own = latents[..., window.first : window.first + inner]
        parts.append(codes_of(model, own, columns.clamp(max=inner), rate_weight)[0])
        num_samples = window.end
    return Encoded(torch.cat(parts, dim=2), int(level), num_samples)


@dataclass(frozen=True)
class _Window:
    """A part of a long sound."""

    decibels: Tensor
    """(1, bins, frames)"""
    frames: Tensor
    """(1,)"""
    first: int
    """Column that is the window's own, and not margin."""
    end: int
    """Samples of the sound up to its end."""
    peak: float
    """Of the absolute samples."""


def _windows(
    blocks: Iterable[Waveform], inner: int, margin: int
) -> Iterator[tuple[Waveform, int, int]]:
    """Blocks → windows of `inner` samples and up to `margin` more on each side, one after another.

    Gives samples, the place of the first of them, and the place where the window's own begin.
    """
    held, begin, own, ended = np.zeros(0, np.float32), 0, 0, False
    source = iter(blocks)
    while True:
        while not ended and begin + len(held) < own + inner + margin:
            block = next(source, None)
            ended = block is None
            held = held if block is None else np.concatenate([held, block])
        if ended and own > begin + len(held):
            return
        yield held[: own + inner + margin - begin], begin, own
        own += inner
        dropped = min(len(held), max(0, own - margin - begin))
        held, begin = held[dropped:], begin + dropped


def codes_of(model: Model, latents: Tensor, columns: Tensor, rate_weight: float | None) -> Tensor:
    """Latents (batch, dim, rows, columns), (batch,) columns → codes on the CPU: see `encode`."""
    tables = model.context
    if rate_weight is None:
        rate_weight = tables.rate_weight if tables else 0
    if tables is None or rate_weight == 0:
        return model.autoencoder.nearest(latents, columns).cpu()
    books = model.autoencoder.quantizer.codebooks()
    embeddings = [book.vectors.cpu().numpy() for book in books]
    return torch.from_numpy(
        search(tables, latents.cpu().numpy(), columns.numpy(), embeddings, rate_weight)
    )


@torch.inference_mode()
def decode_blocks(
    model: Model,
    sound: Encoded,
    *,
    inversion: Inversion = Inversion(),
    seed: int = 0,
) -> Iterator[Waveform]:
    """Codes → the waveform of a sound of any length, block by block (samples,)."""
    config = model.spectrogram.config
    hop_length, step = config.hop_length, WINDOW_FRAMES - OVERLAP_FRAMES
    cut = (
        OVERLAP_FRAMES // 2 - FADE_FRAMES
    ) * hop_length  # from a window's start: where the one before it ends
    fade = FADE_FRAMES * hop_length
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    lead = -(-config.n_fft // (2 * hop_length))
    total = num_frames(sound.num_samples, hop_length)
    known, tail = None, None
    for start in range(0, max(1, total - OVERLAP_FRAMES), step):
        stop = min(start + WINDOW_FRAMES, total)
        end = sound.num_samples if stop == total else (stop - 1) * hop_length
        (waveform,) = model.spectrogram.inverse(
            frames_of(model, sound.codes, start, stop),
            torch.tensor([sound.level], device=model.device),
            torch.tensor([end - start * hop_length], device=model.device),
            inversion=inversion,
            generator=torch.Generator().manual_seed(seed),
            known=known,
        )
        samples = waveform.cpu().numpy()
        begin = 0
        if tail is not None:
            begin = cut - fade
            samples[begin:cut] = ramp * samples[begin:cut] + (1 - ramp) * tail
        if stop == total:
            yield samples[begin:]
            return
        end = step * hop_length + cut - fade
        yield samples[begin:end]
        tail = samples[end : end + fade].copy()
        again = stft(waveform[None, (step - lead) * hop_length :], config.n_fft, hop_length)
        known = again[:, :, lead : lead + OVERLAP_FRAMES // 2].angle()


def frames_of(model: Model, codes: Tensor, start: int, stop: int) -> Tensor:
    """Codes (quantizers, rows, columns) → their spectrogram's frames (1, 1, bins, stop - start)."""
    stride, reach = model.autoencoder.stride[1], model.autoencoder.reach
    first = max(0, start // stride - reach)
    part = codes[None, :, :, first : -(-stop // stride) + reach]
    spectrogram = model.autoencoder.decode(part.to(model.device), torch.tensor([part.shape[3]]))
    return spectrogram[..., start - first * stride : stop - first * stride]
