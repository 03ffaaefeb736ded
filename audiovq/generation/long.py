"""Sounds of a length asked for, window by window, and loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec, windows
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.settings import SamplingConfig
from audiovq.generation.inpaint import inpaint
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.sampling import sample
from audiovq.spectral.spectrogram import Phase
from audiovq.spectral.stft import num_frames

LONGEST = 3600.0
"""Seconds that a sound may be asked to last."""


def require_samples(model: Model, seconds: float) -> int:
    """Seconds → samples. Raises AudiovqError where they are less than a column of codes, or too many."""
    column = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    shortest = column / model.sample_rate
    if not shortest <= seconds <= LONGEST:
        raise AudiovqError(f"length {seconds:g}: give seconds from {shortest:.2g} to {LONGEST:.0f}")
    return round(seconds * model.sample_rate)


def codes_of_length(
    model: Model,
    prior: Prior | MaskedPrior,
    labels: Tensor,
    samples: int,
    sampling: SamplingConfig,
    generator: torch.Generator,
    loop: bool,
) -> list[Encoded]:
    """labels (batch, labels) → as many sounds of so many samples; what loops is to be joined yet."""
    stride, hop_length = model.autoencoder.stride[1], model.spectrogram.config.hop_length
    vocabulary, labels = model.vocabulary, labels.to(model.device)
    columns = -(-num_frames(samples, hop_length) // stride)
    if loop:
        columns = max(1, round(samples / (stride * hop_length)))
        samples = columns * stride * hop_length
    window = None
    if isinstance(prior, MaskedPrior):
        with torch.no_grad():
            typical, levels = prior.draw_sizes(labels, generator)
        window = round(float(typical.float().mean()))
    else:
        alone = sample(prior, labels, sampling, generator, longest=0)
        levels = alone[:, 0] - vocabulary.end - 1
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
        Encoded(grid, level, samples) for grid, level in zip(codes, levels.tolist(), strict=True)
    ]


def close_loop(
    model: Model,
    prior: Prior | MaskedPrior,
    sound: Encoded,
    labels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
) -> Encoded:
    """A sound → the same with its last sixth and its first drawn anew, so that they go together."""
    columns = sound.codes.shape[2]
    turned = sound.codes.roll(columns // 2, dims=2)
    middle = torch.zeros(columns, dtype=torch.bool)
    joint = columns // 2  # which was the beginning
    middle[max(0, joint - columns // 6) : joint + max(1, columns // 6)] = True
    made = inpaint(
        prior,
        turned[None],
        middle,
        torch.tensor([sound.level]),
        labels[None],
        sampling=sampling,
        generator=generator,
        whole=(False, False),
    )
    samples = columns * model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    return Encoded(made[0].roll(-(columns // 2), dims=2), sound.level, samples)


def decode_loops(
    model: Model,
    sounds: Sequence[Encoded],
    *,
    phase: Phase = "pghi",
    n_iter: int | None = None,
    seed: int = 0,
) -> list[Waveform]:
    """As `codec.decode`, of sounds that loop: what is heard three times over, the second time.

    Its first samples are faded over from those of the third time, which is what its last ones lead to.
    """
    thrice = [
        Encoded(sound.codes.repeat(1, 1, 3), sound.level, 3 * sound.num_samples - 1)
        for sound in sounds
    ]
    waveforms = codec.decode(model, thrice, phase=phase, n_iter=n_iter, seed=seed)
    loops = []
    for sound, waveform in zip(sounds, waveforms, strict=True):
        length = sound.num_samples
        fade = min(windows.FADE_FRAMES * model.spectrogram.config.hop_length, length - 1)
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        once = waveform[length : 2 * length].copy()
        once[:fade] = ramp * once[:fade] + (1 - ramp) * waveform[2 * length : 2 * length + fade]
        loops.append(once)
    return loops
