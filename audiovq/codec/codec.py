"""Waveform ↔ codes: a trained autoencoder as a codec.

Short sounds are coded in batches. A long sound is coded window by window, in bounded memory. Windows have margins
as wide as the encoder's receptive field, so the codes equal those of the whole sound; decoding continues the phase
from one window to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from audiovq.audio.channels import to_channels
from audiovq.audio.ends import from_silence
from audiovq.audio.waveform import Waveform, peak_of
from audiovq.codec.windows import (
    Encoded,
    Limits,
    codes_of,
    decode_blocks,
    encode_blocks,
    latents_of,
    spectrogram_of,
)
from audiovq.config.checks import require_seed
from audiovq.config.sampling import Inversion
from audiovq.models.model import Model
from audiovq.spectral.inversion import batches, padded
from audiovq.spectral.stft import num_frames


def encode(
    model: Model,
    waveforms: Sequence[Waveform],
    *,
    rate_weight: float | None = None,
    limits: Limits = Limits(),
) -> list[Encoded]:
    """Encode waveforms (samples,) or (2, samples) at the model's sample rate, of any length, in the same order.

    A mono model averages two channels; a stereo one takes one channel for the middle. A sound that exceeds full scale
    is scaled down to it.

    If the model has context tables, codes are chosen by distance plus `rate_weight` times their bits: see
    `rate_search.search`. None: the model's own weight; 0: the nearest codes.
    """
    hop_length = model.spectrogram.config.hop_length
    encoded: dict[int, Encoded] = {}
    waveforms = [to_channels(waveform, model.channels) for waveform in waveforms]
    for indices in batches([w.shape[-1] for w in waveforms], hop_length, limits.batch_frames):
        members = [waveforms[i] for i in indices]
        if num_frames(members[-1].shape[-1], hop_length) > limits.batch_frames:  # the only one
            encoded[indices[0]] = encode_blocks(
                model, members.copy, rate_weight=rate_weight, limits=limits
            )
            continue
        batch, num_samples = padded([w / np.float32(max(1.0, peak_of(w))) for w in members])
        frames = num_frames(num_samples, hop_length)
        columns = model.autoencoder.num_columns(frames)
        with torch.inference_mode():
            spectrogram, levels = model.spectrogram(
                batch.to(model.device), num_samples.to(model.device)
            )
            latents = latents_of(model, spectrogram, frames)
            codes = codes_of(model, latents, columns, rate_weight)
        for row_codes, c, level, i in zip(
            codes, columns.tolist(), levels.tolist(), indices, strict=True
        ):
            encoded[i] = Encoded(row_codes[:, :, :c], level, waveforms[i].shape[-1])
    return [encoded[i] for i in range(len(waveforms))]


def decode(
    model: Model,
    sounds: Sequence[Encoded],
    *,
    inversion: Inversion = Inversion(),
    seed: int = 0,
    limits: Limits = Limits(),
) -> list[Waveform]:
    """Inverse of `encode`: decode sounds to waveforms (samples,), or (2, samples), of exact length, in the same order.

    Each begins and ends as `ends.from_silence` makes it. `seed` decides random phases. Raises AudiovqError if it is
    out of range.
    """
    require_seed(seed)
    hop_length = model.spectrogram.config.hop_length
    waveforms: dict[int, Waveform] = {}
    short = [
        i
        for i, s in enumerate(sounds)
        if num_frames(s.num_samples, hop_length) <= limits.window_frames
    ]
    for i in set(range(len(sounds))) - set(short):
        blocks = decode_blocks(model, sounds[i], inversion=inversion, seed=seed, limits=limits)
        waveforms[i] = np.concatenate(list(blocks), axis=-1)
    lengths = [sounds[i].num_samples for i in short]
    for group in batches(lengths, hop_length, limits.batch_frames):
        indices = [short[i] for i in group]
        batch = [sounds[i] for i in indices]
        num_columns = torch.tensor([s.codes.shape[2] for s in batch])
        codes = torch.zeros(
            len(batch), *batch[0].codes.shape[:2], int(num_columns.max()), dtype=torch.long
        )
        for row, sound in zip(codes, batch, strict=True):
            row[:, :, : sound.codes.shape[2]] = sound.codes
        num_samples = torch.tensor([s.num_samples for s in batch])
        with torch.inference_mode():
            spectrogram = spectrogram_of(model, codes, num_columns, inversion.decoder)
            audio = model.spectrogram.inverse(
                spectrogram,
                torch.tensor([s.level for s in batch], device=model.device),
                num_samples.to(model.device),
                inversion=inversion,
                generator=torch.Generator().manual_seed(seed),
            )
        for row, length, i in zip(audio.cpu().numpy(), num_samples.tolist(), indices, strict=True):
            waveforms[i] = from_silence(row[..., :length], model.sample_rate)
    return [waveforms[i] for i in range(len(sounds))]
