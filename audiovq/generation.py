"""New sounds: prior → codes → waveforms; or, of a Gaussian, latents → waveforms."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiovq import codec
from audiovq.audio import Waveform
from audiovq.bottlenecks import Gaussian
from audiovq.checkpoint import Model
from audiovq.config import AudiovqError, SamplingConfig
from audiovq.prior import Prior, sample
from audiovq.spectrogram import Phase

BATCH = 64
"""Clips drawn at a time."""
SCORED = 16
"""Clips whose likelihood is computed at a time: all of a clip's tokens at once take more memory."""


DRAWN_DB = -12.0
"""Loudest cell of a sound that is drawn from a Gaussian, relative to a full-scale sine: no prior says
how loud it is."""
SILENCE = 0.1
"""Of values in [0, 1]: nothing is heard of such a sound's end that stays below."""


@dataclass(frozen=True)
class Sound:
    """A new recording and what it was made from."""

    waveform: Waveform
    """(samples,) at the model's rate."""
    labels: dict[str, str]
    encoded: codec.Encoded
    """Of no quantizers where the model makes no codes."""


def generate(
    model: Model,
    n: int = 16,
    labels: Mapping[str, str] | None = None,
    *,
    sampling: SamplingConfig | None = None,
    best_of: int = 1,
    seed: int = 0,
    phase: Phase = "pghi",
    n_iter: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Sound]:
    """`n` new sounds with the labels asked for; the others are drawn as the training data has them.

    Each is the likeliest of `best_of` candidates (see `sample_codes`). A model with a Gaussian needs no
    prior: its latents are drawn, sounds are as long as its longest clip (with `dense`, as what is heard
    of them), and `sampling` and `best_of` have no say. Raises AudiovqError where a model has neither, or a label or value is unknown. `progress` is called with the number of
    sounds that each batch added. The same seed on the same device gives the same sounds.
    """
    sounds: list[Sound] = []
    for number, (part, generator) in enumerate(_parts(model, n, labels or {}, seed)):
        if model.prior is None:
            encoded, waveforms = _from_latents(model, part, generator, phase, n_iter)
        else:
            encoded = sample_codes(
                model, model.prior, part, sampling or SamplingConfig(), generator, best_of
            )
            waveforms = codec.decode(model, encoded, phase=phase, n_iter=n_iter, seed=seed + number)
        for waveform, row, codes in zip(waveforms, part.tolist(), encoded, strict=True):
            sounds.append(Sound(waveform, _named(model, row), codes))
        progress(len(part))
    return sounds


def draw(
    model: Model,
    n: int = 16,
    labels: Mapping[str, str] | None = None,
    *,
    sampling: SamplingConfig | None = None,
    best_of: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Tensor, list[dict[str, str]]]:
    """`n` new grids (n, 1, bins, frames) in [0, 1], which are a model's images, and the labels of each.

    As `generate`, of which it is all but the way to a waveform.
    """
    images, named = [], []
    for part, generator in _parts(model, n, labels or {}, seed):
        with torch.inference_mode():
            if model.prior is None:
                made = model.autoencoder.sample(len(part), part, generator)
            else:
                encoded = sample_codes(
                    model, model.prior, part, sampling or SamplingConfig(), generator, best_of
                )
                columns = torch.tensor([one.codes.shape[2] for one in encoded])
                longest = int(columns.max())
                codes = [
                    nn.functional.pad(e.codes, (0, longest - e.codes.shape[2])) for e in encoded
                ]
                made = model.autoencoder.decode(torch.stack(codes).to(model.device), columns)
        missing = model.clip_frames - made.shape[3]
        images.append(nn.functional.pad(made, (0, missing)).cpu())
        named += [_named(model, row) for row in part.tolist()]
        progress(len(part))
    return torch.cat(images), named


def _parts(
    model: Model, n: int, labels: Mapping[str, str], seed: int
) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Batch by batch the labels (batch, labels) of what is to be made, and what it is drawn from.

    Raises AudiovqError where the model cannot generate, or `n` or the labels make no sense.
    """
    if not isinstance(model.autoencoder.bottleneck, Gaussian):
        if not model.autoencoder.config.quantizes:
            raise AudiovqError(
                "the model makes no codes (bottleneck none), so it cannot generate; train one with"
                " --autoencoder.bottleneck vq, fsq or gaussian"
            )
        if model.prior is None:
            raise AudiovqError(
                "the model has no prior yet, so it cannot generate; train it further"
            )
    if n < 1:
        raise AudiovqError(f"n {n}: give 1 or more")
    for number, part in enumerate(draw_labels(model, n, labels, seed).split(BATCH)):
        yield part, torch.Generator().manual_seed(seed * 1_000_003 + number)


def _from_latents(
    model: Model, labels: Tensor, generator: torch.Generator, phase: Phase, n_iter: int | None
) -> tuple[list[codec.Encoded], list[Waveform]]:
    """labels (batch, labels) → as many sounds of a Gaussian, and what stands for their codes: none."""
    hop_length = model.spectrogram.config.hop_length
    level = model.spectrogram.level(torch.full((len(labels),), DRAWN_DB, device=model.device))
    with torch.inference_mode():
        drawn = model.autoencoder.sample(len(labels), labels, generator)[..., : model.clip_frames]
        frames = torch.full((len(labels),), drawn.shape[3], device=model.device)
        if model.autoencoder.dense is not None:  # clips were filled up with silence
            heard = drawn.amax(dim=(1, 2)) > SILENCE
            places = torch.arange(1, drawn.shape[3] + 1, device=model.device)
            frames = (heard * places).amax(dim=1).clamp(min=2)
        num_samples = (frames - 1) * hop_length
        waveforms = model.spectrogram.inverse(
            drawn, level, num_samples, phase=phase, n_iter=n_iter, generator=generator
        )
    none = torch.empty(0, model.autoencoder.rows, model.autoencoder.columns, dtype=torch.long)
    lengths = num_samples.tolist()
    encoded = [
        codec.Encoded(none, value, length)
        for value, length in zip(level.tolist(), lengths, strict=True)
    ]
    made = waveforms.cpu().numpy()
    return encoded, [waveform[:length] for waveform, length in zip(made, lengths, strict=True)]


def sample_codes(
    model: Model,
    prior: Prior,
    labels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
    best_of: int = 1,
) -> list[codec.Encoded]:
    """labels (batch, labels) → as many sounds' codes, of lengths that the prior chose.

    Each is the one of `best_of` candidates that the prior, asked with the sound's own labels at
    temperature 1 and without guidance, finds likeliest: of the highest mean log-probability a
    token, level and END included: "sample and rank" (Adiwardana et al. 2020, Meena). Raises
    AudiovqError where `best_of` is less than 1.
    """
    if best_of < 1:
        raise AudiovqError(f"best_of {best_of}: give 1 or more")
    labels = labels.to(model.device)
    if best_of == 1:
        tokens = sample(prior, labels, sampling, generator)
    else:
        tokens = _likeliest(prior, labels, sampling, generator, best_of)
    codes, num_columns, levels = model.vocabulary.codes(tokens.cpu())
    config = model.spectrogram.config
    frames = (num_columns * model.autoencoder.stride[1]).clamp(max=model.clip_frames)
    num_samples = ((frames - 1) * config.hop_length).clamp(min=1)
    return [
        codec.Encoded(grid[:, :, :columns], level, length)
        for grid, columns, level, length in zip(
            codes, num_columns.tolist(), levels.tolist(), num_samples.tolist(), strict=True
        )
    ]


def _likeliest(
    prior: Prior, labels: Tensor, sampling: SamplingConfig, generator: torch.Generator, best_of: int
) -> Tensor:
    """labels (batch, labels) → tokens (batch, 1 + slots × max_columns), filled with END."""
    vocabulary, longest = prior.vocabulary, prior.vocabulary.max_tokens - 1
    asked = labels.repeat(best_of, 1)
    drawn = [sample(prior, rows, sampling, generator) for rows in asked.split(BATCH)]
    tokens = torch.cat(
        [nn.functional.pad(t, (0, longest - t.shape[1]), value=vocabulary.end) for t in drawn]
    )
    lengths = ((tokens != vocabulary.end).sum(dim=1) + 1).clamp(max=longest)
    with torch.no_grad():
        likelihoods = torch.cat(
            [
                prior.log_likelihood(*part)
                for part in zip(*(x.split(SCORED) for x in (tokens, lengths, asked)), strict=True)
            ]
        )
    best = (likelihoods / lengths).view(best_of, -1).argmax(dim=0)
    return tokens.view(best_of, -1, longest)[best, torch.arange(len(labels), device=best.device)]


def draw_labels(model: Model, n: int, asked: Mapping[str, str], seed: int) -> Tensor:
    """(n, labels) places of values: those asked for, the others as they go with them in training.

    Where training has no clip with all that was asked for, the others are left open.
    """
    names = list(model.labels)
    wanted: dict[int, int] = {}
    for name, value in asked.items():
        if name not in names:
            raise AudiovqError(f"unknown label {name!r}; {_known(name, names, 'the model has')}")
        values = model.labels[name]
        if value not in values:
            raise AudiovqError(
                f"label {name}: unknown value {value!r}; {_known(value, values, 'known are')}"
            )
        wanted[names.index(name)] = values.index(value)
    fitting = [
        (places, count)
        for places, count in model.label_counts
        if all(places[i] == value for i, value in wanted.items())
    ]
    if not fitting:
        open_places = [len(values) for values in model.labels.values()]
        fitting = [(tuple(wanted.get(i, place) for i, place in enumerate(open_places)), 1)]
    counts = torch.tensor([count for _, count in fitting], dtype=torch.double)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + 500_000)
    # Evenly spaced places on the cumulative counts, shuffled: every value gets its due share.
    offsets = (torch.arange(n) + torch.rand(1, generator=generator).double()) / max(1, n)
    drawn = torch.searchsorted(counts.cumsum(0) / counts.sum(), offsets).clamp(max=len(fitting) - 1)
    drawn = drawn[torch.randperm(n, generator=generator)]
    return torch.tensor([places for places, _ in fitting], dtype=torch.long).view(len(fitting), -1)[
        drawn
    ]


def _known(word: str, words: list[str], lead: str) -> str:
    """A short list of what there is, the likeliest meant first."""
    if not words:
        return "the model was trained without labels"
    close = difflib.get_close_matches(word, words, 3, 0.5)
    shown = close + [w for w in words if w not in close]
    return f"{lead} {', '.join(shown[:12])}" + (
        f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    )


def _named(model: Model, row: list[int]) -> dict[str, str]:
    return {
        name: values[place]
        for (name, values), place in zip(model.labels.items(), row, strict=True)
        if place < len(values)
    }
