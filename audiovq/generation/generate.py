"""New sounds: prior → codes → waveforms; or, of a Gaussian, latents → waveforms.

Codes come from the prior in time order, or, all at once, from the masked one. They can be as long as
one likes, and close into a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.checks import derived_seed, require_count, require_phase, require_seed
from audiovq.config.errors import AudiovqError
from audiovq.config.settings import SamplingConfig
from audiovq.generation.copies import Nearest, compare
from audiovq.generation.inpaint import sample_masked_autocast
from audiovq.generation.labels import draw_labels, named
from audiovq.generation.long import close_loop, codes_of_length, decode_loops, require_samples
from audiovq.generation.sound import Sound, prior_or_none
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masking import MaskedClips
from audiovq.models.priors.sampling import sample
from audiovq.spectral.spectrogram import Phase

BATCH = 64
"""Clips drawn at a time, or fewer where they have more than"""
BATCH_SAMPLES = 1 << 24
"""in all."""
TRIES = 3
"""How often a near copy of a training clip is drawn again at most."""
MOST_CANDIDATES = 1000
"""Of which the likeliest is kept."""
SCORED = 16
"""Clips whose likelihood is computed at a time: all of a clip's tokens at once take more memory."""
DRAWN_DB = -12.0
"""Loudest cell of a sound that is drawn from a Gaussian, relative to a full-scale sine: no prior says
how loud it is."""
SILENCE = 0.1
"""Of values in [0, 1]: nothing is heard of such a sound's end that stays below."""


def generate(
    model: Model,
    n: int = 16,
    labels: Mapping[str, str] | None = None,
    *,
    sampling: SamplingConfig | None = None,
    best_of: int = 1,
    seconds: float | None = None,
    loop: bool = False,
    seed: int = 0,
    phase: Phase = "pghi",
    n_iter: int | None = None,
    keep_copies: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Sound]:
    """`n` new sounds: see `Batches`, whose arguments these are. All of them are in memory at once.

    `progress` is called with the number of sounds that each batch added.
    """
    batches = Batches(
        model,
        n,
        labels,
        sampling=sampling,
        best_of=best_of,
        seconds=seconds,
        loop=loop,
        seed=seed,
        phase=phase,
        n_iter=n_iter,
        keep_copies=keep_copies,
    )
    sounds: list[Sound] = []
    for number in range(len(batches)):
        made = batches.make(number)
        sounds += made
        progress(len(made))
    return sounds


class Batches:
    """New sounds with the labels asked for; the others are drawn as the training data has them.

    Each is the likeliest of `best_of` candidates (see `sample_codes`). With `seconds` they are so long,
    longer than any clip the model knows too; with `loop` their end leads to their beginning, and they
    are whole columns long. A model with a Gaussian needs no prior: its latents are drawn, sounds are as
    long as its longest clip (with `dense`, as what is heard of them), and `sampling` and `best_of` have
    no say. Where the model has the codes of its training clips, each sound is compared with them, and
    near copies are drawn again, TRIES times at most, unless `keep_copies`. The same seed on the same
    device gives the same sounds, whichever batches are made.
    """

    def __init__(
        self,
        model: Model,
        n: int,
        labels: Mapping[str, str] | None = None,
        *,
        sampling: SamplingConfig | None = None,
        best_of: int = 1,
        seconds: float | None = None,
        loop: bool = False,
        seed: int = 0,
        phase: Phase = "pghi",
        n_iter: int | None = None,
        keep_copies: bool = False,
    ) -> None:
        """Draws nothing yet. Raises AudiovqError where a model lacks what it takes, an argument is out of
        its range, or a label or value is unknown to the training clips."""
        self._model, self._sampling = model, sampling or SamplingConfig()
        require_phase(phase, n_iter)
        require_candidates(model, best_of)
        self._prior = prior_or_none(model, self._sampling)
        if self._prior is None and (seconds is not None or loop):
            raise AudiovqError("a length and loops take a model with codes, not a Gaussian")
        self._samples = None if seconds is None else require_samples(model, seconds)
        self._rows = _label_rows(model, n, labels or {}, seed).split(
            batch_size(model, self._samples or 0)
        )
        self._best_of, self._loop, self._seed = best_of, loop, seed
        self._phase: Phase = phase
        self._n_iter, self._keep_copies = n_iter, keep_copies

    def __len__(self) -> int:
        return len(self._rows)

    def labels(self, number: int) -> list[dict[str, str]]:
        """The labels of a batch's sounds, before they are drawn."""
        return [named(self._model, row) for row in self._rows[number].tolist()]

    def make(self, number: int) -> list[Sound]:
        """The sounds of a batch."""
        model, rows, seed = self._model, self._rows[number], derived_seed(self._seed, number)
        generator = torch.Generator().manual_seed(seed)
        nearest: list[Nearest | None] = [None] * len(rows)
        tries = [1] * len(rows)
        if self._prior is None:
            encoded, waveforms = _from_latents(model, rows, generator, self._phase, self._n_iter)
        else:
            encoded = self._drawn(self._prior, rows, generator)
            nearest = compare(model, encoded)
            for attempt in range(1, 1 if self._keep_copies else 1 + TRIES):
                again = [i for i, one in enumerate(nearest) if one is not None and one.is_copy]
                if not again:
                    break
                generator = torch.Generator().manual_seed(derived_seed(seed, attempt))
                others = self._drawn(self._prior, rows[again], generator)
                for i, sound, one in zip(again, others, compare(model, others), strict=True):
                    encoded[i], nearest[i], tries[i] = sound, one, 1 + attempt
            decode = decode_loops if self._loop else codec.decode
            waveforms = decode(model, encoded, phase=self._phase, n_iter=self._n_iter, seed=seed)
        return [
            Sound(*parts)
            for parts in zip(waveforms, self.labels(number), encoded, nearest, tries, strict=True)
        ]

    def _drawn(
        self, prior: Prior | MaskedPrior, rows: Tensor, generator: torch.Generator
    ) -> list[Encoded]:
        """Label rows (batch, labels) → codes."""
        model, sampling = self._model, self._sampling
        if self._samples is None:
            encoded = sample_codes(model, prior, rows, sampling, generator, self._best_of)
        else:
            encoded = codes_of_length(
                model, prior, rows, self._samples, sampling, generator, self._loop
            )
        if self._loop:
            encoded = [
                close_loop(model, prior, sound, row, sampling, generator)
                for sound, row in zip(encoded, rows, strict=True)
            ]
        return encoded


def batch_size(model: Model, samples: int) -> int:
    """Sounds made at a time, where each has `samples`, or as many as a clip if those are more."""
    longest = max(samples, model.clip_frames * model.spectrogram.config.hop_length, 1)
    return max(1, min(BATCH, BATCH_SAMPLES // longest))


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
    sampling = sampling or SamplingConfig()
    require_candidates(model, best_of)
    prior = prior_or_none(model, sampling)
    images, names = [], []
    for number, part in enumerate(_label_rows(model, n, labels or {}, seed).split(BATCH)):
        generator = torch.Generator().manual_seed(derived_seed(seed, number))
        with torch.inference_mode():
            if prior is None:
                made = model.autoencoder.sample(len(part), part, generator)
            else:
                encoded = sample_codes(model, prior, part, sampling, generator, best_of)
                columns = torch.tensor([one.codes.shape[2] for one in encoded])
                longest = int(columns.max())
                codes = [
                    nn.functional.pad(e.codes, (0, longest - e.codes.shape[2])) for e in encoded
                ]
                made = model.autoencoder.decode(torch.stack(codes).to(model.device), columns)
        missing = model.clip_frames - made.shape[3]
        images.append(nn.functional.pad(made, (0, missing)).cpu())
        names += [named(model, row) for row in part.tolist()]
        progress(len(part))
    return torch.cat(images), names


def _label_rows(model: Model, n: int, labels: Mapping[str, str], seed: int) -> Tensor:
    """(n, labels) the labels of what is to be made. Raises AudiovqError where `n`, `seed` or the labels
    make no sense."""
    require_count(n)
    require_seed(seed)
    return draw_labels(model, n, labels, seed)


def require_candidates(model: Model, best_of: int) -> None:
    """Raise AudiovqError where `best_of` is not from 1 to MOST_CANDIDATES, or no prior could choose."""
    if not isinstance(best_of, int) or not 1 <= best_of <= MOST_CANDIDATES:
        raise AudiovqError(f"best_of {best_of}: give 1 to {MOST_CANDIDATES}")
    if best_of > 1 and model.prior is None and model.autoencoder.config.quantizes:
        raise AudiovqError("best_of: the model has no prior in time order, which would choose")


def _from_latents(
    model: Model, labels: Tensor, generator: torch.Generator, phase: Phase, n_iter: int | None
) -> tuple[list[Encoded], list[Waveform]]:
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
        Encoded(none, value, length) for value, length in zip(level.tolist(), lengths, strict=True)
    ]
    made = waveforms.cpu().numpy()
    return encoded, [waveform[:length] for waveform, length in zip(made, lengths, strict=True)]


def sample_codes(
    model: Model,
    prior: Prior | MaskedPrior,
    labels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
    best_of: int = 1,
) -> list[Encoded]:
    """labels (batch, labels) → as many sounds' codes, of lengths that the prior chose.

    Each is the one of `best_of` candidates that the prior in time order, asked with the sound's own labels at
    temperature 1 and without guidance, finds likeliest: of the highest mean log-probability a
    token, level and END included: "sample and rank" (Adiwardana et al. 2020, Meena). Raises
    AudiovqError as `require_candidates` does.
    """
    require_candidates(model, best_of)
    labels = labels.to(model.device)
    if best_of == 1:
        tokens = _sampled(prior, labels, sampling, generator)
    else:
        assert model.prior is not None
        tokens = _likeliest(prior, model.prior, labels, sampling, generator, best_of)
    codes, num_columns, levels = model.vocabulary.codes(tokens.cpu())
    config = model.spectrogram.config
    frames = (num_columns * model.autoencoder.stride[1]).clamp(max=model.clip_frames)
    num_samples = ((frames - 1) * config.hop_length).clamp(min=1)
    return [
        Encoded(grid[:, :, :columns], level, length)
        for grid, columns, level, length in zip(
            codes, num_columns.tolist(), levels.tolist(), num_samples.tolist(), strict=True
        )
    ]


def _sampled(
    prior: Prior | MaskedPrior, labels: Tensor, sampling: SamplingConfig, generator: torch.Generator
) -> Tensor:
    """labels (batch, labels) → tokens (batch, 1 + slots × columns), END from a clip's end on."""
    if isinstance(prior, Prior):
        return sample(prior, labels, sampling, generator)
    with torch.no_grad():
        num_columns, levels = prior.draw_sizes(labels, generator)
    vocabulary = prior.vocabulary
    shape = len(labels), vocabulary.num_quantizers, vocabulary.rows, int(num_columns.max())
    codes = torch.zeros(shape, dtype=torch.long, device=labels.device)
    holes, whole = torch.ones_like(codes, dtype=torch.bool), prior.complete(num_columns)
    canvas = MaskedClips(codes, holes, num_columns, levels, labels, whole)
    codes = sample_masked_autocast(prior, canvas, sampling, generator)
    return vocabulary.tokens(codes, num_columns, levels)[0][:, :-1]


def _likeliest(
    prior: Prior | MaskedPrior,
    judge: Prior,
    labels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
    best_of: int,
) -> Tensor:
    """labels (batch, labels) → tokens (batch, 1 + slots × max_columns), filled with END."""
    vocabulary, longest = prior.vocabulary, prior.vocabulary.max_tokens - 1
    asked = labels.repeat(best_of, 1)
    drawn = [_sampled(prior, rows, sampling, generator) for rows in asked.split(BATCH)]
    tokens = torch.cat(
        [nn.functional.pad(t, (0, longest - t.shape[1]), value=vocabulary.end) for t in drawn]
    )
    lengths = ((tokens != vocabulary.end).sum(dim=1) + 1).clamp(max=longest)
    with torch.no_grad():
        likelihoods = torch.cat(
            [
                judge.log_likelihood(*part)
                for part in zip(*(x.split(SCORED) for x in (tokens, lengths, asked)), strict=True)
            ]
        )
    best = (likelihoods / lengths).view(best_of, -1).argmax(dim=0)
    return tokens.view(best_of, -1, longest)[best, torch.arange(len(labels), device=best.device)]
