"""Sounds of a given length, sampled window by window, and loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec, windows
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import STEPS, Inversion, SamplingConfig
from audiovq.generation.inpaint import inpaint
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.sampling import sample
from audiovq.spectral.stft import num_frames

MAX_SECONDS = 3600.0
"""Longest sound that can be asked for."""
SHORTEST = 0.001
"""Shortest sound that can be asked for, in seconds."""
SPLICE_FRAMES = 2
"""Frames of the crossfade that makes a loop as long as was asked for."""
SEAM_SECONDS, SEAM_WINDOWS = 0.023, 8
"""Length of the windows that seams are measured by, and how many a loop needs for it."""


def require_samples(model: Model, seconds: float) -> int:
    """Seconds as samples. Raises AudiovqError where they are less than SHORTEST, or above MAX_SECONDS."""
    if not SHORTEST <= seconds <= MAX_SECONDS:
        raise AudiovqError(
            f"length {seconds:g}: give seconds from {SHORTEST:g} to {MAX_SECONDS:.0f}"
        )
    return round(seconds * model.sample_rate)


def codes_of_length(
    model: Model,
    prior: Prior | MaskedPrior,
    labels: Tensor,
    num_samples: int,
    sampling: SamplingConfig,
    generator: torch.Generator,
    loop: bool,
) -> list[Encoded]:
    """Codes of new sounds of `num_samples` with the labels (batch, labels).

    With `loop`, the length is rounded up to whole columns, which `decode_loops` undoes, and the seam is not
    closed yet: see `close_loop`.
    """
    stride, hop_length = model.autoencoder.stride[1], model.spectrogram.config.hop_length
    vocabulary, labels = model.vocabulary, labels.to(model.device)
    columns = -(-num_frames(num_samples, hop_length) // stride)
    if loop:
        columns = -(-num_samples // (stride * hop_length))
        num_samples = columns * stride * hop_length
    window = None
    if isinstance(prior, MaskedPrior):
        sampling = replace(sampling, steps=sampling.steps or STEPS)
        with torch.no_grad():
            typical, levels = prior.draw_sizes(labels, sampling, generator)
        window = round(float(typical.float().mean()))
    else:
        first = sample(prior, labels, sampling, generator, longest=0)
        levels = first[:, 0] - vocabulary.end - 1
    shape = len(labels), vocabulary.num_quantizers, vocabulary.rows, columns
    codes = inpaint(
        prior,
        torch.zeros(shape, dtype=torch.long),
        torch.ones(1, dtype=torch.bool),
        levels,
        labels,
        sampling=sampling,
        generator=generator,
        whole=(not loop, not loop),
        window=window,
    )
    return [
        Encoded(grid, level, num_samples)
        for grid, level in zip(codes, levels.tolist(), strict=True)
    ]


def close_loop(
    model: Model,
    prior: Prior | MaskedPrior,
    sound: Encoded,
    labels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
) -> Encoded:
    """Resample the last and first sixth of a sound, so that its end leads into its beginning."""
    columns = sound.codes.shape[2]
    rotated = sound.codes.roll(columns // 2, dims=2)
    mask = torch.zeros(columns, dtype=torch.bool)
    seam = columns // 2  # the sound's first column, after the rotation
    mask[max(0, seam - columns // 6) : seam + max(1, columns // 6)] = True
    filled = inpaint(
        prior,
        rotated[None],
        mask,
        torch.tensor([sound.level]),
        labels[None],
        sampling=sampling,
        generator=generator,
        whole=(False, False),
    )
    num_samples = columns * model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    return Encoded(filled[0].roll(-(columns // 2), dims=2), sound.level, num_samples)


def decode_loops(
    model: Model,
    sounds: Sequence[Encoded],
    *,
    inversion: Inversion = Inversion(),
    seed: int = 0,
    num_samples: int | None = None,
) -> list[Waveform]:
    """Decode sounds that loop: three repetitions of the codes are decoded, and the second one is returned.

    With `num_samples`, it is shortened to them by a `splice`. Its first samples are cross-faded with the third
    repetition's, into which its last samples lead.
    """
    repeated = [
        Encoded(sound.codes.repeat(1, 1, 3), sound.level, 3 * sound.num_samples - 1)
        for sound in sounds
    ]
    waveforms = codec.decode(model, repeated, inversion=inversion, seed=seed)
    loops = []
    for sound, waveform in zip(sounds, waveforms, strict=True):
        length = sound.num_samples
        fade = min(windows.FADE_FRAMES * model.spectrogram.config.hop_length, length - 1)
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        middle = waveform[..., length : 2 * length].copy()
        third = waveform[..., 2 * length : 2 * length + fade]
        middle[..., :fade] = ramp * middle[..., :fade] + (1 - ramp) * third
        overlap = SPLICE_FRAMES * model.spectrogram.config.hop_length
        loops.append(middle if num_samples is None else splice(middle, num_samples, overlap))
    return loops


def seam_flux(waveform: Waveform, sample_rate: int) -> float:
    """Spectral flux at the seam of a loop (samples,) or (2, samples), over the 95th percentile of that elsewhere.

    The largest rise of magnitudes, summed over bins, of windows within half a window of the seam. 0 where the loop is
    too short to tell.
    """
    mono = waveform if waveform.ndim == 1 else waveform.mean(axis=0)
    n_fft = 1 << max(4, round(math.log2(SEAM_SECONDS * sample_rate)))
    hop = n_fft // 4
    if len(mono) < SEAM_WINDOWS * n_fft:
        return 0.0
    around = np.concatenate([mono[-len(mono) // 2 :], mono])  # the seam is in the middle of it
    pieces = np.lib.stride_tricks.sliding_window_view(around, n_fft)[::hop]
    magnitudes = np.abs(np.fft.rfft(pieces * np.hanning(n_fft).astype(np.float32)))
    flux = np.maximum(0, np.diff(magnitudes, axis=0)).sum(axis=1)
    centres = hop * np.arange(1, len(flux) + 1) + n_fft // 2
    at_seam = np.abs(centres - (len(around) - len(mono))) <= n_fft // 2
    return float(flux[at_seam].max() / max(float(np.percentile(flux[~at_seam], 95)), 1e-12))


def splice(waveform: Waveform, num_samples: int, overlap: int) -> Waveform:
    """Shorten a waveform (samples,) or (2, samples) to `num_samples` by leaving out a part of it; its ends stay.

    The part is left out where what precedes it and what follows it differ least (as in WSOLA, Verhelst and
    Roelands 1993), with a crossfade of up to `overlap` samples.
    """
    removed, overlap = waveform.shape[-1] - num_samples, min(overlap, num_samples)
    if not removed:
        return waveform
    squares = (waveform[..., :num_samples] - waveform[..., removed:]).astype(np.float64) ** 2
    squares = squares if squares.ndim == 1 else squares.sum(axis=0)
    sums = np.concatenate([[0.0], np.cumsum(squares)])
    begin = int(np.argmin(sums[overlap:] - sums[: len(sums) - overlap]))
    end = begin + overlap
    ramp = np.linspace(0, 1, overlap, dtype=np.float32)
    before, after = waveform[..., begin:end], waveform[..., begin + removed : end + removed]
    faded = before + ramp * (after - before)
    return np.concatenate([waveform[..., :begin], faded, waveform[..., end + removed :]], axis=-1)
