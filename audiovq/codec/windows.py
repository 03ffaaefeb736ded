"""Long recordings through the codec, window by window, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiovq.audio import reading
from audiovq.audio.ends import from_silence
from audiovq.audio.waveform import Waveform
from audiovq.config.sampling import Decoder, Inversion
from audiovq.models.entropy.context_tables import SEGMENT_COLUMNS
from audiovq.models.entropy.rate_search import search
from audiovq.models.model import Model
from audiovq.runtime.threads import tuned_step
from audiovq.spectral import inversion, scale
from audiovq.spectral.inversion import padded
from audiovq.spectral.spectrogram import Analysed
from audiovq.spectral.stft import num_frames, stft

WINDOW_FRAMES = 1 << 12
"""Frames of a window; longer sounds are decoded in windows."""
FADE_FRAMES = 8
"""Frames of the crossfade between two windows."""


@dataclass(frozen=True)
class Limits:
    """Sizes that bound the memory of encoding and decoding."""

    batch_frames: int = inversion.BATCH_FRAMES
    """Frames of a batch of short sounds, padding included; longer sounds are encoded in windows."""
    window_frames: int = WINDOW_FRAMES
    overlap_frames: int = 64
    """Frames that two windows share in decoding. The second one continues the phase of the first half."""
    fade_frames: int = FADE_FRAMES
    """Frames of the crossfade, which ends as many frames before the middle of the overlap."""
    block_samples: int = reading.BLOCK
    """Samples of a file that are read at a time."""
    rate_files: int = 128
    """Recordings, sampled at random, on which the weight of bits is first chosen for a rate."""


@dataclass(frozen=True)
class Encoded:
    """One sound as codes."""

    codes: Tensor
    """(quantizers, rows, columns), integers."""
    level: int
    """Loudness: see `Spectrogram`."""
    num_samples: int
    """Length at the model's sample rate."""


@torch.inference_mode()
def encode_blocks(
    model: Model,
    blocks: Callable[[], Iterable[Waveform]],
    *,
    rate_weight: float | None = None,
    limits: Limits = Limits(),
) -> Encoded:
    """Encode a sound of any length, block by block (samples,) or (2, samples), to the codes that `encode` gives.

    `blocks` is called twice, for the level and for the codes, and must give the same samples. A sound
    that exceeds full scale is scaled down to it.
    """
    config, stride = model.spectrogram.config, model.autoencoder.stride[1]
    per_column = stride * config.hop_length
    lead = config.n_fft // 2 + (scale.REACH * config.hop_length if config.channels > 1 else 0)
    margin = model.autoencoder.reach + -(-lead // per_column)
    # Half a batch, as one long image takes more memory in networks than many short ones.
    inner = SEGMENT_COLUMNS * max(1, limits.batch_frames // (2 * stride * SEGMENT_COLUMNS))

    def windows() -> Iterator[_Window]:
        for samples, begin, inner_begin in _windows(
            blocks(), inner * per_column, margin * per_column
        ):
            batch, length = padded([samples])
            analysed = model.spectrogram.analyse(batch.to(model.device), length.to(model.device))
            yield _Window(
                analysed,
                num_frames(length, config.hop_length),
                (inner_begin - begin) // per_column,
                begin + samples.shape[-1],
                float(np.abs(samples).max(initial=0)),
            )

    loudest, peak = torch.full((1,), -torch.inf, device=model.device), 1.0
    for window in windows():
        part = window.analysed.decibels[
            :, :, window.first * stride : (window.first + inner) * stride
        ]
        loudest, peak = torch.maximum(loudest, part.amax(dim=(1, 2))), max(peak, window.peak)
    excess = 20 * math.log10(peak)
    level = model.spectrogram.level(loudest - excess)
    parts, num_samples = [], 0
    for window in windows():
        decibels, powers = window.analysed.turned_down(excess)
        spectrogram = model.spectrogram.normalized(decibels, level, powers)
        latents = latents_of(model, spectrogram, window.frames)
        columns = model.autoencoder.num_columns(window.frames) - window.first
        part = latents[..., window.first : window.first + inner]
        parts.append(codes_of(model, part, columns.clamp(max=inner), rate_weight)[0])
        num_samples = window.end
    return Encoded(torch.cat(parts, dim=2), int(level), num_samples)


@dataclass(frozen=True)
class _Window:
    """A window of a long sound, with margins."""

    analysed: Analysed
    """Of the one window as a batch."""
    frames: Tensor
    """(1,) number of frames."""
    first: int
    """First column after the margin."""
    end: int
    """Sample of the sound at which the window ends."""
    peak: float
    """Largest absolute sample."""


def _windows(
    blocks: Iterable[Waveform], inner: int, margin: int
) -> Iterator[tuple[Waveform, int, int]]:
    """Blocks → consecutive windows of `inner` samples with up to `margin` more on each side.

    Yields the window's samples, the position of the first, and the position after the first margin.
    """
    begin, inner_begin, ended = 0, 0, False
    source = iter(blocks)
    buffer = next(source)
    while True:
        while not ended and begin + buffer.shape[-1] < inner_begin + inner + margin:
            block = next(source, None)
            ended = block is None
            buffer = buffer if block is None else np.concatenate([buffer, block], axis=-1)
        if ended and inner_begin > begin + buffer.shape[-1]:
            return
        yield buffer[..., : inner_begin + inner + margin - begin], begin, inner_begin
        inner_begin += inner
        dropped = min(buffer.shape[-1], max(0, inner_begin - margin - begin))
        buffer, begin = buffer[..., dropped:], begin + dropped


def latents_of(model: Model, spectrogram: Tensor, frames: Tensor) -> Tensor:
    """`Autoencoder.latents` with the number of threads that suits the machine's load."""
    with _network_step(model, "encoder", spectrogram):
        return model.autoencoder.latents(spectrogram, frames)


def spectrogram_of(
    model: Model, codes: Tensor, num_columns: Tensor, decoder: Decoder = "auto"
) -> Tensor:
    """`Autoencoder.decode` by the named decoder, with the number of threads that suits the machine's load."""
    chosen = model.pick_decoder(decoder)
    with _network_step(model, "decoder", codes):
        return model.autoencoder.decode(codes.to(model.device), num_columns, chosen)


def _network_step(model: Model, kind: str, batch: Tensor) -> AbstractContextManager[None]:
    """A step of `runtime.threads`. Small batches lose by threads what large ones gain, so that each size has its
    own number."""
    size = batch.numel()
    return tuned_step(f"{kind} {size.bit_length()}", size, model.device.type == "cpu")


def codes_of(model: Model, latents: Tensor, columns: Tensor, rate_weight: float | None) -> Tensor:
    """Codes (batch, quantizers, rows, columns) on the CPU of latents (batch, dim, rows, columns).

    `columns` (batch,) are the clips' lengths; for `rate_weight` see `codec.encode`.
    """
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
    limits: Limits = Limits(),
) -> Iterator[Waveform]:
    """Decode a sound of any length, window by window, to blocks (samples,), or (2, samples), of its waveform."""
    config, overlap = model.spectrogram.config, limits.overlap_frames
    hop_length, step = config.hop_length, limits.window_frames - overlap
    fade = limits.fade_frames * hop_length
    cut = overlap // 2 * hop_length - fade  # the sample of a window at which the one before it ends
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    lead = -(-config.n_fft // (2 * hop_length))
    total = num_frames(sound.num_samples, hop_length)
    known, tail = None, None
    for start in range(0, max(1, total - overlap), step):
        stop = min(start + limits.window_frames, total)
        end = sound.num_samples if stop == total else (stop - 1) * hop_length
        images = frames_of(model, sound.codes, start, stop, inversion.decoder)
        length = torch.tensor([end - start * hop_length], device=model.device)
        level = torch.tensor([sound.level], device=model.device)
        waveform = model.spectrogram.inverse_of_loudness(
            images,
            level,
            length,
            inversion=inversion,
            generator=torch.Generator().manual_seed(seed),
            known=known,
        )
        samples = model.spectrogram.widened(waveform, images, level, length)[0].cpu().numpy()
        begin = 0
        if tail is not None:
            begin = cut - fade
            samples[..., begin:cut] = ramp * samples[..., begin:cut] + (1 - ramp) * tail
        if stop == total:
            yield from_silence(samples[..., begin:], config.sample_rate, begins=start == 0)
            return
        end = step * hop_length + cut - fade
        yield from_silence(samples[..., begin:end], config.sample_rate, start == 0, ends=False)
        tail = samples[..., end : end + fade].copy()
        spectrum = stft(waveform[:, (step - lead) * hop_length :], config.n_fft, hop_length)
        known = spectrum[:, :, lead : lead + overlap // 2]


def frames_of(
    model: Model, codes: Tensor, start: int, stop: int, decoder: Decoder = "auto"
) -> Tensor:
    """Decode frames `start` to `stop` of codes (quantizers, rows, columns): (1, planes, bins, stop - start)."""
    stride, reach = model.autoencoder.stride[1], model.autoencoder.reach
    first = max(0, start // stride - reach)
    part = codes[None, :, :, first : -(-stop // stride) + reach]
    spectrogram = spectrogram_of(model, part, torch.tensor([part.shape[3]]), decoder)
    return spectrogram[..., start - first * stride : stop - first * stride]
