"""Waveform ↔ codes: a trained autoencoder as a codec.

Short sounds go through the networks in batches. A long one goes window by window, so that memory
is bounded whatever its length: with margins as wide as the encoder sees, its codes are those it has
in one piece; and where decoding goes from one window to the next, the phase is gone on from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiovq.audio import Waveform
from audiovq.checkpoint import Model
from audiovq.config import require_phase, require_seed
from audiovq.context import SEGMENT_COLUMNS, search
from audiovq.spectrogram import Phase, Spectrogram
from audiovq.stft import num_frames, stft

BATCH_FRAMES = 1 << 14
"""Frames, padding included, that go through the networks at a time."""
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


def encode(
    model: Model, waveforms: Sequence[Waveform], *, rate_weight: float | None = None
) -> list[Encoded]:
    """Waveforms (samples,) at the model's rate, each of any length → codes, in the same order.

    Where the model has context tables, codes are chosen that weigh the bits they take: see
    `context.search`. `rate_weight` None: the model's own; 0: the nearest codes.
    """
    hop_length = model.spectrogram.config.hop_length
    encoded: dict[int, Encoded] = {}
    for places in _batches([len(w) for w in waveforms], hop_length):
        whole = [waveforms[i] for i in places]
        if num_frames(len(whole[-1]), hop_length) > BATCH_FRAMES:  # then it is alone
            encoded[places[0]] = encode_blocks(model, whole.copy, rate_weight=rate_weight)
            continue
        batch, num_samples = _padded(whole)
        frames = num_frames(num_samples, hop_length)
        columns = model.autoencoder.num_columns(frames)
        with torch.inference_mode():
            spectrogram, levels = model.spectrogram(
                batch.to(model.device), num_samples.to(model.device)
            )
            latents = model.autoencoder.latents(spectrogram, frames)
            codes = _codes(model, latents, columns, rate_weight)
        for row_codes, c, level, i in zip(
            codes, columns.tolist(), levels.tolist(), places, strict=True
        ):
            encoded[i] = Encoded(row_codes[:, :, :c], level, len(waveforms[i]))
    return [encoded[i] for i in range(len(waveforms))]


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
    inner = SEGMENT_COLUMNS * max(1, BATCH_FRAMES // (2 * stride * SEGMENT_COLUMNS))

    def windows() -> Iterator[_Window]:
        for samples, begin, own in _windows(blocks(), inner * per_column, margin * per_column):
            batch, length = _padded([samples])
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
        parts.append(_codes(model, own, columns.clamp(max=inner), rate_weight)[0])
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


def _codes(model: Model, latents: Tensor, columns: Tensor, rate_weight: float | None) -> Tensor:
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


def decode(
    model: Model,
    sounds: Sequence[Encoded],
    *,
    phase: Phase = "pghi",
    n_iter: int | None = None,
    seed: int = 0,
) -> list[Waveform]:
    """The inverse of `encode`: codes → waveforms (samples,) of exact length, in the same order.

    Raises AudiovqError where `phase`, `n_iter` or `seed` is out of its range.
    """
    require_phase(phase, n_iter)
    require_seed(seed)
    hop_length = model.spectrogram.config.hop_length
    waveforms: dict[int, Waveform] = {}
    short = [
        i for i, s in enumerate(sounds) if num_frames(s.num_samples, hop_length) <= WINDOW_FRAMES
    ]
    for i in set(range(len(sounds))) - set(short):
        blocks = decode_blocks(model, sounds[i], phase=phase, n_iter=n_iter, seed=seed)
        waveforms[i] = np.concatenate(list(blocks))
    for group in _batches([sounds[i].num_samples for i in short], hop_length):
        places = [short[i] for i in group]
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


@torch.inference_mode()
def decode_blocks(
    model: Model,
    sound: Encoded,
    *,
    phase: Phase = "pghi",
    n_iter: int | None = None,
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
            phase=phase,
            n_iter=n_iter,
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
