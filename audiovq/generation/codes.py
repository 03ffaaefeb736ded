"""Codes, or latents, of new sounds: sampled from a prior, the best of several, or from a Gaussian."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from audiovq.audio.ends import from_silence
from audiovq.audio.waveform import Waveform
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import STEPS, Inversion, SamplingConfig
from audiovq.generation.inpaint import AnyPrior, sample_masked_autocast
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masking import MaskedClips
from audiovq.models.priors.sampling import sample

MAX_CANDIDATES = 1000
CANDIDATE_BATCH = 64
"""Candidates sampled at a time."""
GAUSSIAN_LEVEL_DB = -12.0
"""Loudest cell of a sound from a Gaussian bottleneck, relative to a full-scale sine: no prior models it."""
INAUDIBLE = 0.1
"""Spectrogram values, in [0, 1], below which the end of such a sound is cut off."""


def sample_codes(
    model: Model,
    prior: AnyPrior,
    labels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
    best_of: int = 1,
    candidate_batch: int = CANDIDATE_BATCH,
) -> list[Encoded]:
    """Codes of new sounds with the labels (batch, labels); the prior decides on their lengths.

    Each is the best of `best_of` candidates: the one with the highest mean log-probability per token,
    level and END included, under the autoregressive prior with the sound's labels, at temperature 1 and
    without guidance: "sample and rank" (Adiwardana et al. 2020, Meena). Raises AudiovqError as
    `require_candidates` does.
    """
    require_candidates(model, best_of)
    labels = labels.to(model.device)
    if best_of == 1:
        tokens = _sample_tokens(prior, labels, sampling, generator)
    else:
        assert model.prior is not None
        repeated = labels.repeat(best_of, 1)
        batches = [
            _sample_tokens(prior, rows, sampling, generator)
            for rows in repeated.split(candidate_batch)
        ]
        tokens = _most_likely(model.prior, batches, repeated, best_of)
    codes, num_columns, levels = model.vocabulary.codes(tokens.cpu())
    frames = (num_columns * model.autoencoder.stride[1]).clamp(max=model.clip_frames)
    num_samples = frames * model.spectrogram.config.hop_length - 1  # the most in these frames
    return [
        Encoded(grid[:, :, :columns], level, length)
        for grid, columns, level, length in zip(
            codes, num_columns.tolist(), levels.tolist(), num_samples.tolist(), strict=True
        )
    ]


def require_candidates(model: Model, best_of: int) -> None:
    """Raise AudiovqError where `best_of` is not from 1 to MAX_CANDIDATES, or no autoregressive prior can
    rank the candidates."""
    if not isinstance(best_of, int) or not 1 <= best_of <= MAX_CANDIDATES:
        raise AudiovqError(f"best_of {best_of}: give 1 to {MAX_CANDIDATES}")
    if best_of > 1 and model.prior is None and model.autoencoder.config.quantizes:
        raise AudiovqError(
            "best_of: needs an autoregressive prior to rank candidates; the model has none"
        )


def sample_latents(
    model: Model, labels: Tensor, generator: torch.Generator, inversion: Inversion
) -> tuple[list[Encoded], list[Waveform]]:
    """Sounds of a Gaussian bottleneck with the labels (batch, labels): empty codes, and waveforms."""
    hop_length = model.spectrogram.config.hop_length
    loudest = torch.full((len(labels),), GAUSSIAN_LEVEL_DB, device=model.device)
    level = model.spectrogram.level(loudest)
    with torch.inference_mode():
        images = model.autoencoder.sample(len(labels), labels, generator)[..., : model.clip_frames]
        frames = torch.full((len(labels),), images.shape[3], device=model.device)
        if model.autoencoder.dense is not None:  # training clips were padded with silence
            audible = images[:, :1].amax(dim=(1, 2)) > INAUDIBLE
            positions = torch.arange(1, images.shape[3] + 1, device=model.device)
            frames = (audible * positions).amax(dim=1).clamp(min=2)
        num_samples = (frames - 1) * hop_length
        batch = model.spectrogram.inverse(
            images, level, num_samples, inversion=inversion, generator=generator
        )
    empty = torch.empty(0, model.autoencoder.rows, model.autoencoder.columns, dtype=torch.long)
    lengths = num_samples.tolist()
    encoded = [Encoded(empty, *parts) for parts in zip(level.tolist(), lengths, strict=True)]
    waveforms = batch.cpu().numpy()
    return encoded, [
        from_silence(row[..., :length], model.sample_rate)
        for row, length in zip(waveforms, lengths, strict=True)
    ]


def _sample_tokens(
    prior: AnyPrior, labels: Tensor, sampling: SamplingConfig, generator: torch.Generator
) -> Tensor:
    """Tokens (batch, 1 + slots × columns) for labels (batch, labels), END after a clip's last code."""
    if isinstance(prior, Prior):
        return sample(prior, labels, sampling, generator)
    with torch.no_grad():
        num_columns, levels = prior.draw_sizes(labels, sampling, generator)
    vocabulary = prior.vocabulary
    shape = len(labels), vocabulary.num_quantizers, vocabulary.rows, int(num_columns.max())
    codes = torch.zeros(shape, dtype=torch.long, device=labels.device)
    mask, complete = torch.ones_like(codes, dtype=torch.bool), prior.complete(num_columns)
    clips = MaskedClips(codes, mask, num_columns, levels, labels, complete)
    sampling = replace(sampling, steps=sampling.steps or STEPS)
    codes = sample_masked_autocast(prior, clips, sampling, generator)
    return vocabulary.tokens(codes, num_columns, levels)[0][:, :-1]


def _most_likely(prior: Prior, batches: list[Tensor], labels: Tensor, best_of: int) -> Tensor:
    """The most likely candidate of each sound: tokens (batch, 1 + slots × max_columns), padded with END.

    `batches` hold tokens of all first candidates, then of all second ones, and so on; labels
    (candidates, labels) are theirs.
    """
    vocabulary, longest = prior.vocabulary, prior.vocabulary.max_tokens - 1
    tokens = torch.cat(
        [nn.functional.pad(t, (0, longest - t.shape[1]), value=vocabulary.end) for t in batches]
    )
    lengths = ((tokens != vocabulary.end).sum(dim=1) + 1).clamp(max=longest)
    with torch.no_grad():
        likelihoods = prior.log_likelihood(tokens, lengths, labels) / lengths
    best = likelihoods.view(best_of, -1).argmax(dim=0)
    sounds = torch.arange(len(best), device=best.device)
    return tokens.view(best_of, -1, longest)[best, sounds]
