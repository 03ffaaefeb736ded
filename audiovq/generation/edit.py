"""Playing with sounds: variations of a recording, going on with it, painting over parts of it, and
what lies between two. Waveforms at the model's rate in, new sounds out.

What is kept is kept as codes: it sounds as the model's codec has it. Labels that are not asked for are
those that the prior hears in the recording (`labels_heard`): a seven stays a seven.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.checks import derived_seed, require_count, require_phase, require_seed
from audiovq.config.errors import AudiovqError
from audiovq.config.settings import SamplingConfig
from audiovq.generation.generate import SCORED, batch_size
from audiovq.generation.inpaint import inpaint
from audiovq.generation.labels import places_of
from audiovq.generation.long import require_samples
from audiovq.generation.sound import Sound, pick_prior
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.sampling import sample
from audiovq.spectral.spectrogram import Phase
from audiovq.spectral.stft import num_frames

MOST_SAMPLES = 1 << 28
"""Of all steps of a morph, which are in memory at once."""
Labels = Mapping[str, str]
Span = tuple[float, float]


def variations(
    model: Model,
    waveform: Waveform,
    n: int = 8,
    strength: float = 0.5,
    labels: Labels | None = None,
    *,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    phase: Phase = "pghi",
    n_iter: int | None = None,
) -> list[Sound]:
    """`n` sounds like a recording (samples,): a share of `strength` of its codes is drawn anew.

    At 0 they are the recording as the codec has it, at 1 nothing is left but its length, level and labels.
    Raises AudiovqError where `strength` is not from 0 to 1, or the model has no prior.
    """
    if not 0 <= strength <= 1:
        raise AudiovqError(f"strength {strength:g}: give a number from 0 to 1")
    given = encoded(model, waveform)

    def mask(count: int, own: int) -> Tensor:
        chances = torch.rand(
            count, *given.codes.shape, generator=torch.Generator().manual_seed(own)
        )
        return chances < strength

    return _painted(model, given, mask, labels, n, sampling, phase, n_iter, seed)


def repaint(
    model: Model,
    waveform: Waveform,
    time: Span | None = None,
    band: Span | None = None,
    labels: Labels | None = None,
    n: int = 1,
    *,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    phase: Phase = "pghi",
    n_iter: int | None = None,
) -> list[Sound]:
    """`n` sounds: a recording (samples,) with what lies in `time` (from, to in seconds) and `band`
    (from, to in Hz) painted over, or in the one that is given (Bazin et al. 2020, NOTONO).

    All codes that touch the region are drawn anew, to go with what is around them; all others stay.
    Raises AudiovqError where no region is given or it holds no code, or the model has no prior.
    """
    given = encoded(model, waveform)
    return painted(
        model,
        given,
        region(model, given, time, band),
        labels,
        n,
        sampling=sampling,
        seed=seed,
        phase=phase,
        n_iter=n_iter,
    )


def painted(
    model: Model,
    given: Encoded,
    mask: Tensor,
    labels: Labels | None = None,
    n: int = 1,
    *,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    phase: Phase = "pghi",
    n_iter: int | None = None,
) -> list[Sound]:
    """`n` sounds: one in codes, of which those where `mask` (rows, columns) says so are drawn anew, to go
    with all others. Labels that are not asked for are those heard in it."""
    return _painted(model, given, lambda *_: mask, labels, n, sampling, phase, n_iter, seed)


def extend(
    model: Model,
    waveform: Waveform,
    seconds: float | None = None,
    labels: Labels | None = None,
    n: int = 1,
    *,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    phase: Phase = "pghi",
    n_iter: int | None = None,
) -> list[Sound]:
    """`n` sounds that begin with a recording (samples,) and go on to last `seconds` in all.

    None: to where the prior in time order ends them, after at least a column of codes. What the
    recording's own end has a part in, half a window of the spectrogram, is drawn anew. Raises
    AudiovqError where `seconds` are no longer than the recording, or the model has no prior.
    """
    sampling = sampling or SamplingConfig()
    require_phase(phase, n_iter)
    prior = pick_prior(model, sampling, "time")
    if seconds is None and not isinstance(prior, Prior):
        raise AudiovqError("continue: the masked prior knows no end; give a length as well")
    length = None if seconds is None else require_samples(model, seconds)
    if length is not None and length <= len(waveform):
        had = len(waveform) / model.sample_rate
        raise AudiovqError(f"length {seconds:g}: the recording has {had:.2f} s; give more")
    chunks = parts(model, n, len(waveform), seconds, seed)
    given = encoded(model, waveform)
    config, stride = model.spectrogram.config, model.autoencoder.stride[1]
    kept = max(1, (given.num_samples - config.n_fft // 2) // (stride * config.hop_length))
    kept = min(kept, given.codes.shape[2])
    row = labels_heard(model, given, labels, kept)
    sounds = []
    for count, own in chunks:
        codes = given.codes[None, :, :, :kept].expand(count, -1, -1, -1)
        rows, levels = row.expand(count, -1), torch.full((count,), given.level)
        generator = torch.Generator().manual_seed(own)
        if length is None:
            assert isinstance(prior, Prior)
            made = _to_its_end(prior, codes, rows, levels, sampling, generator)
            samples = [(grid.shape[2] * stride - 1) * config.hop_length for grid in made]
        else:
            columns = -(-num_frames(length, config.hop_length) // stride)
            grid = nn.functional.pad(codes, (0, columns - kept))
            mask = torch.arange(columns) >= kept
            filled = inpaint(
                prior, grid, mask, levels, rows, sampling=sampling, generator=generator
            )
            made, samples = list(filled), [length] * count
        coded = [Encoded(grid, given.level, end) for grid, end in zip(made, samples, strict=True)]
        sounds += _heard(model, coded, labels, phase, n_iter, own)
    return sounds


def parts(
    model: Model, n: int, samples: int, seconds: float | None, seed: int
) -> list[tuple[int, int]]:
    """How many of `n` sounds are made at a time, of a recording of so many samples that lasts `seconds`
    afterwards, where that is asked for: (number, seed) each.

    The seed of the first is `seed` itself, so that a part made by itself is as it is among all. Raises
    AudiovqError where `n` or `seed` is out of its range.
    """
    require_count(n)
    require_seed(seed)
    longest = samples if seconds is None else max(samples, require_samples(model, seconds))
    size = batch_size(model, longest)
    return [
        (min(size, n - begin), derived_seed(seed, begin // size) if begin else seed)
        for begin in range(0, n, size)
    ]


def morph(
    model: Model,
    first: Waveform,
    second: Waveform,
    steps: int = 8,
    *,
    seed: int = 0,
    phase: Phase = "pghi",
    n_iter: int | None = None,
) -> list[Sound]:
    """`steps` sounds from one recording (samples,) to another, the ends being the two: see `between`.

    Each is what the nearest codes decode to. Raises AudiovqError where `steps` are fewer than 2, or the
    model makes no codes.
    """
    require_phase(phase, n_iter)
    require_seed(seed)
    require_count(steps, "steps", 2)
    most = max(2, MOST_SAMPLES // max(1, len(first), len(second)))
    if steps > most:
        raise AudiovqError(f"steps {steps}: give {most} at most for recordings as long as these")
    _ = model.autoencoder.quantizer  # or it says that there is none
    latents, levels, lengths = [], [], []
    with torch.inference_mode():
        for waveform in (first, second):
            batch = torch.from_numpy(waveform)[None].to(model.device)
            images, level = model.spectrogram(batch)
            frames = torch.tensor([images.shape[3]])
            latents.append(model.autoencoder.latents(images, frames))
            levels.append(int(level))
            lengths.append(len(waveform))
        sounds = []
        for step in between(model, latents, levels, lengths, steps):
            width = torch.tensor([step.latents.shape[3]])
            codes = model.autoencoder.nearest(step.latents, width)[0].cpu()
            sounds.append(Encoded(codes, step.level, step.num_samples))
    return _heard(model, sounds, None, phase, n_iter, seed)


@dataclass(frozen=True)
class Between:
    """A sound on the line between two."""

    latents: Tensor
    """(1, dim, rows, columns); with `dense` (1, dense)."""
    level: int
    num_samples: int


def between(
    model: Model, latents: Sequence[Tensor], levels: Sequence[int], lengths: Sequence[int], n: int
) -> list[Between]:
    """`n` sounds on the straight line between the latents (1, dim, rows, columns) of two; the ends are
    they.

    Where they differ in length (`lengths`, in samples), so do the steps: latents are stretched in time
    to each step's own, so that beginnings mix with beginnings and ends with ends.
    """
    autoencoder, hop_length = model.autoencoder, model.spectrogram.config.hop_length
    steps = []
    for share in torch.linspace(0, 1, n).tolist():
        length, level = (round((1 - share) * a + share * b) for a, b in (lengths, levels))
        alike = list(latents)
        if autoencoder.dense is None:
            width = int(autoencoder.num_columns(torch.tensor([num_frames(length, hop_length)])))
            alike = [_stretched(grid, width) for grid in latents]
        steps.append(Between(torch.lerp(alike[0], alike[1], share), level, length))
    return steps


def encoded(model: Model, waveform: Waveform) -> Encoded:
    """A waveform (samples,) → its nearest codes, which are those that priors learn."""
    return codec.encode(model, [waveform], rate_weight=0)[0]


def region(model: Model, sound: Encoded, time: Span | None, band: Span | None) -> Tensor:
    """(rows, columns) bool: the codes that touch `time`, in seconds, and `band`, in Hz; None is all.

    Raises AudiovqError where neither is given, or no code of the sound does.
    """
    if time is None and band is None:
        raise AudiovqError("repaint: give a time, such as 0.2:0.5, or a band, such as 1000:3000")
    for name, span in (("time", time), ("band", band)):
        if span is not None and not all(map(math.isfinite, span)):
            raise AudiovqError(f"{name} {span[0]:g}:{span[1]:g}: give two numbers, FROM:TO")
    config = model.spectrogram.config
    (tall, wide), (_, rows, columns) = model.autoencoder.stride, sound.codes.shape
    mask = torch.ones(rows, columns, dtype=torch.bool)
    if time is not None:
        samples = torch.arange(columns + 1) * wide * config.hop_length
        begin, end = (t * config.sample_rate for t in time)
        mask &= (samples[:-1] < round(end)) & (samples[1:] > round(begin))
        if not mask.any() or time[1] <= time[0]:
            had = sound.num_samples / config.sample_rate
            raise AudiovqError(
                f"time {time[0]:g}:{time[1]:g}: give two rising times up to {had:.2f} seconds"
            )
    if band is not None:
        centres = torch.arange(config.n_fft // 2) * (config.sample_rate / config.n_fft)
        if model.spectrogram.mel is not None:
            centres = model.spectrogram.mel.cpu().argmax(dim=1) * config.sample_rate / config.n_fft
        inside = (centres >= band[0]) & (centres <= band[1])
        inside = nn.functional.pad(inside, (0, rows * tall - len(inside)))
        mask &= inside.view(rows, tall).any(dim=1)[:, None]
        if not mask.any():
            raise AudiovqError(
                f"band {band[0]:g}:{band[1]:g}: give two rising frequencies up to"
                f" {config.sample_rate / 2:g} Hz, further apart"
            )
    return mask


def _painted(
    model: Model,
    given: Encoded,
    mask: Callable[[int, int], Tensor],
    labels: Labels | None,
    n: int,
    sampling: SamplingConfig | None,
    phase: Phase,
    n_iter: int | None,
    seed: int,
) -> list[Sound]:
    """`n` sounds with new codes where `mask`, given a number of sounds and their seed, says so."""
    require_phase(phase, n_iter)
    sampling = sampling or SamplingConfig()
    chunks = parts(model, n, given.num_samples, None, seed)
    prior = pick_prior(model, sampling, "masked")
    row = labels_heard(model, given, labels)
    sounds = []
    for count, own in chunks:
        codes = inpaint(
            prior,
            given.codes.expand(count, -1, -1, -1),
            mask(count, own),
            torch.full((count,), given.level),
            row.expand(count, -1),
            sampling=sampling,
            generator=torch.Generator().manual_seed(derived_seed(own, 1)),
        )
        coded = [Encoded(grid, given.level, given.num_samples) for grid in codes]
        sounds += _heard(model, coded, labels, phase, n_iter, own)
    return sounds


def labels_heard(
    model: Model, sound: Encoded, asked: Labels | None = None, columns: int | None = None
) -> Tensor:
    """(labels,) places of values: those asked for, and of each other label, in turn, the value with which
    the prior in time order finds the sound's first `columns` likeliest (Bayes' rule, all values as
    likely before). Left open where the model has no such prior.
    """
    wanted = places_of(model, asked or {})
    sizes = [len(values) for values in model.labels.values()]
    places = torch.tensor([wanted.get(i, size) for i, size in enumerate(sizes)], dtype=torch.long)
    if model.prior is None:
        return places
    width = min(columns or sound.codes.shape[2], model.vocabulary.max_columns)
    tokens, _ = model.vocabulary.tokens(
        sound.codes[None, :, :, :width], torch.tensor([width]), torch.tensor([sound.level])
    )
    tokens = tokens[:, :-1].to(model.device)  # END is not heard yet
    lengths = torch.tensor([tokens.shape[1]])
    for i, size in enumerate(sizes):
        if i not in wanted:
            rows = places.repeat(size, 1)
            rows[:, i] = torch.arange(size)
            with torch.inference_mode():
                likelihoods = [
                    model.prior.log_likelihood(
                        tokens.expand(len(part), -1),
                        lengths.expand(len(part)),
                        part.to(model.device),
                    )
                    for part in rows.split(SCORED)
                ]
            places[i] = torch.cat(likelihoods).argmax()
    return places


def _to_its_end(
    prior: Prior,
    codes: Tensor,
    labels: Tensor,
    levels: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
) -> list[Tensor]:
    """Codes (n, quantizers, rows, columns) → each with what the prior adds up to its END."""
    vocabulary, device = prior.vocabulary, prior.head.weight.device
    before = max(0, codes.shape[3] - vocabulary.max_columns // 2)
    seen = codes[..., before:]
    counts = torch.full((len(codes),), seen.shape[3])
    tokens = vocabulary.tokens(seen, counts, levels)[0][:, :-1].to(device)
    shortest = min(seen.shape[3] + 1, vocabulary.max_columns)
    drawn = sample(prior, labels.to(device), sampling, generator, tokens, shortest)
    made, num_columns, _ = vocabulary.codes(drawn.cpu())
    return [
        torch.cat([head, grid[..., :width]], dim=2)
        for head, grid, width in zip(codes[..., :before], made, num_columns.tolist(), strict=True)
    ]


def _heard(
    model: Model,
    sounds: list[Encoded],
    labels: Labels | None,
    phase: Phase,
    n_iter: int | None,
    seed: int,
) -> list[Sound]:
    """Codes → sounds."""
    waveforms = codec.decode(model, sounds, phase=phase, n_iter=n_iter, seed=seed)
    return [
        Sound(waveform, dict(labels or {}), sound)
        for waveform, sound in zip(waveforms, sounds, strict=True)
    ]


def _stretched(grid: Tensor, columns: int) -> Tensor:
    """(1, dim, rows, columns) → the same in so many columns; exact where they are as many."""
    size = (grid.shape[2], columns)
    return nn.functional.interpolate(grid, size, mode="bilinear", align_corners=True)
