"""Waveform ↔ codes: a trained autoencoder as a codec.

Short sounds go through the networks in batches. A long one goes window by window, so that memory
is bounded whatever its length: with margins as wide as the encoder sees, its codes are those it has
in one piece; and where decoding goes from one window to the next, the phase is gone on from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from audiovq.audio.waveform import Waveform
from audiovq.codec import windows
from audiovq.codec.windows import Encoded, codes_of, decode_blocks, encode_blocks
from audiovq.config.checks import require_seed
from audiovq.config.sampling import Inversion
from audiovq.models.model import Model
from audiovq.spectral import inversion as batching
from audiovq.spectral.inversion import batches, padded
from audiovq.spectral.stft import num_frames


def encode(
    model: Model, waveforms: Sequence[Waveform], *, rate_weight: float | None = None
) -> list[Encoded]:
    """Waveforms (samples,) at the model's rate, each of any length → codes, in the same order.

    Where the model has context tables, codes are chosen that weigh the bits they take: see
    `context.search`. `rate_weight` None: the model's own; 0: the nearest codes.
    """
    hop_length = model.spectrogram.config.hop_length
    encoded: dict[int, Encoded] = {}
    for places in batches([len(w) for w in waveforms], hop_length):
        whole = [waveforms[i] for i in places]
        if num_frames(len(whole[-1]), hop_length) > batching.BATCH_FRAMES:  # then it is alone
            encoded[places[0]] = encode_blocks(model, whole.copy, rate_weight=rate_weight)
            continue
        batch, num_samples = padded(whole)
        frames = num_frames(num_samples, hop_length)
        columns = model.autoencoder.num_columns(frames)
        with torch.inference_mode():
            spectrogram, levels = model.spectrogram(
                batch.to(model.device), num_samples.to(model.device)
            )
            latents = model.autoencoder.latents(spectrogram, frames)
            codes = codes_of(model, latents, columns, rate_weight)
        for row_codes, c, level, i in zip(
            codes, columns.tolist(), levels.tolist(), places, strict=True
        ):
            encoded[i] = Encoded(row_codes[:, :, :c], level, len(waveforms[i]))
    return [encoded[i] for i in range(len(waveforms))]


def decode(
    model: Model,
    sounds: Sequence[Encoded],
    *,
    inversion: Inversion = Inversion(),
    seed: int = 0,
) -> list[Waveform]:
    """The inverse of `encode`: codes → waveforms (samples,) of exact length, in the same order.

    Raises AudiovqError where `seed` is out of range.
    """
    require_seed(seed)
    hop_length = model.spectrogram.config.hop_length
    waveforms: dict[int, Waveform] = {}
    short = [
        i
        for i, s in enumerate(sounds)
        if num_frames(s.num_samples, hop_length) <= windows.WINDOW_FRAMES
    ]
    for i in set(range(len(sounds))) - set(short):
        blocks = decode_blocks(model, sounds[i], inversion=inversion, seed=seed)
        waveforms[i] = np.concatenate(list(blocks))
    for group in batches([sounds[i].num_samples for i in short], hop_length):
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
                inversion=inversion,
                generator=torch.Generator().manual_seed(seed),
            )
        for row, length, i in zip(audio.cpu().numpy(), num_samples.tolist(), places, strict=True):
            waveforms[i] = row[:length]
    return [waveforms[i] for i in range(len(sounds))]
