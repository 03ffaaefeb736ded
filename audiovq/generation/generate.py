"""New sounds: a prior samples codes, the decoder turns them into waveforms. With a Gaussian bottleneck,
latents are sampled instead.

Codes come from the autoregressive prior or, all at once, from the masked one. Sounds can have any length,
and can loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from audiovq.audio.chunks import Tags
from audiovq.audio.notes import TEMPO_LABELS
from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.checks import derived_seed, require_count, require_seed
from audiovq.config.errors import AudiovqError
from audiovq.config.output import Bars
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.dataset.numbers import Numbers
from audiovq.generation.codes import require_candidates, sample_codes, sample_latents
from audiovq.generation.copies import Nearest, compare
from audiovq.generation.inpaint import AnyPrior
from audiovq.generation.labels import (
    Labels,
    label_names,
    learnt_values,
    named,
    sample_each,
    sample_labels,
)
from audiovq.generation.long import (
    close_loop,
    codes_of_length,
    decode_loops,
    require_samples,
    seam_flux,
)
from audiovq.generation.sound import Sound, end_in_silence, of_new_sounds, prior_or_none, settled
from audiovq.models.model import Model

MAX_BATCH = 64
"""Sounds per batch; fewer where they are longer than"""
MAX_BATCH_SAMPLES = 1 << 24
"""samples in total."""
FIRST_BATCH = 4
"""Sounds of the first batch on a CPU. Each batch is twice as large as the one before, so that the first sounds are there
soon."""
SEAM_TRIES = 4
"""How often a loop is closed again whose seam has more spectral flux than 95 % of the rest."""
MAX_TRIES = 8
"""How often a near copy of a training clip is sampled again."""


def generate(
    model: Model,
    n: int = 16,
    labels: Labels | None = None,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    best_of: int = 1,
    seconds: float | None = None,
    loop: bool = False,
    bars: Bars | None = None,
    each: int | None = None,
    by: str | None = None,
    seed: int = 0,
    keep_copies: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Sound]:
    """`n` new sounds, all in memory at once: see `Batches`, whose arguments these are.

    `progress` is called with the size of each finished batch.
    """
    batches = Batches(
        model,
        n,
        labels,
        sampling=sampling,
        inversion=inversion,
        best_of=best_of,
        seconds=seconds,
        loop=loop,
        bars=bars,
        each=each,
        by=by,
        seed=seed,
        keep_copies=keep_copies,
    )
    sounds: list[Sound] = []
    for number in range(len(batches)):
        sounds += batches.make(number)
        progress(len(batches.labels(number)))
    return sounds


class Batches:
    """New sounds, batch by batch. Labels that are not given are sampled as in the training data.

    Each sound is the most likely of `best_of` candidates (see `sample_codes`). `seconds` sets the length,
    which may exceed that of any clip; without it, sounds end where they have decayed. `loop` makes sounds
    whose end leads into their beginning, a whole number of columns long unless `seconds` is given. `bars`
    makes loops of that length, exact to the sample. `each` makes this number of sounds of each value of the
    label `by`, in place of `n` (see `sample_each`).

    A model with a Gaussian bottleneck needs no prior: latents are sampled, sounds are as long as its longest
    clip (with `dense`, up to the last audible frame), and `sampling` and `best_of` have no effect. Where the
    model has the codes of its training clips, each sound is compared with them, and near copies are sampled
    again up to MAX_TRIES times, unless `keep_copies`. The same seed on the same device gives the same sounds,
    whichever batches are made.
    """

    def __init__(
        self,
        model: Model,
        n: int,
        labels: Labels | None = None,
        *,
        sampling: SamplingConfig = SamplingConfig(),
        inversion: Inversion = Inversion(),
        best_of: int = 1,
        seconds: float | None = None,
        loop: bool = False,
        bars: Bars | None = None,
        each: int | None = None,
        by: str | None = None,
        seed: int = 0,
        keep_copies: bool = False,
    ) -> None:
        """Samples the labels only. Raises AudiovqError where the model cannot generate, an argument is out
        of range, or a label or value does not occur in the training clips."""
        require_candidates(model, best_of)
        labels = dict(labels or {})
        if bars is not None:
            if seconds is not None:
                raise AudiovqError("bars: set the length; leave out --length")
            seconds, loop = bars.seconds, True
            labels = _with_tempo(model, labels, bars)
        self._model, self._sampling, self._bars = model, settled(model, sampling), bars
        self._inversion = of_new_sounds(model, inversion)
        self._prior = prior_or_none(model, sampling)
        if self._prior is None and (seconds is not None or loop):
            raise AudiovqError("--length and --loop need a model with codes (bottleneck vq or fsq)")
        if best_of > 1 and seconds is not None:
            raise AudiovqError(
                "--best-of: chooses among sounds whose length is open; leave out --length and --bars"
            )
        self._num_samples = None if seconds is None else require_samples(model, seconds)
        rows = label_rows(model, n, labels, seed, each, by)
        self._rows = rows.split(batch_sizes(model, len(rows), self._num_samples or 0))
        self._best_of, self._loop, self._seed = best_of, loop, seed
        self._keep_copies = keep_copies

    def __len__(self) -> int:
        return len(self._rows)

    def labels(self, number: int) -> list[dict[str, str]]:
        """The labels of a batch's sounds, known before the sounds are made."""
        return [label_names(self._model, row) for row in self._rows[number].tolist()]

    def make(self, number: int) -> list[Sound]:
        """The sounds of a batch."""
        model, rows, seed = self._model, self._rows[number], derived_seed(self._seed, number)
        nearest: list[Nearest | None] = [None] * len(rows)
        tries = [1] * len(rows)
        if self._prior is None:
            generator = torch.Generator().manual_seed(seed)
            encoded, waveforms = sample_latents(model, rows, generator, self._inversion)
        else:
            encoded, nearest, tries = self._sample_new(self._prior, rows, seed)
            if self._loop:
                waveforms = self._decode_loops(self._prior, encoded, rows, seed)
                nearest = compare(model, encoded)  # codes at seams may be others now
            else:
                waveforms = codec.decode(model, encoded, inversion=self._inversion, seed=seed)
        sounds = [
            Sound(*parts)
            for parts in zip(waveforms, self.labels(number), encoded, nearest, tries, strict=True)
        ]
        if self._loop:
            return [replace(s, tags=self._tags(s.waveform.shape[-1])) for s in sounds]
        return [end_in_silence(model, sound, self._num_samples is None) for sound in sounds]

    def _decode_loops(
        self, prior: AnyPrior, encoded: list[Encoded], rows: Tensor, seed: int
    ) -> list[Waveform]:
        """Waveforms of loops with these codes; those whose seam is audible are closed again, up to SEAM_TRIES times,
        and the codes of the best replace theirs in `encoded`."""
        model = self._model

        def decode(sounds: list[Encoded]) -> list[Waveform]:
            samples, inversion = self._num_samples, self._inversion
            return decode_loops(model, sounds, inversion=inversion, seed=seed, num_samples=samples)

        waveforms = decode(encoded)
        flux = [seam_flux(waveform, model.sample_rate) for waveform in waveforms]
        for attempt in range(1, 1 + SEAM_TRIES):
            audible = [i for i, one in enumerate(flux) if one > 1]
            if not audible:
                break
            generator = torch.Generator().manual_seed(derived_seed(seed, 1000 + attempt))
            closed = [
                close_loop(model, prior, encoded[i], rows[i], self._sampling, generator)
                for i in audible
            ]
            for i, sound, waveform in zip(audible, closed, decode(closed), strict=True):
                if (found := seam_flux(waveform, model.sample_rate)) < flux[i]:
                    encoded[i], waveforms[i], flux[i] = sound, waveform, found
        return waveforms

    def _tags(self, num_samples: int) -> Tags:
        """Loop, tempo and beats of a loop, a cue at each beat."""
        if self._bars is None:
            return Tags(loop=(0, num_samples))
        beats = self._bars.beats
        cues = tuple(round(beat * num_samples / beats) for beat in range(beats))
        return Tags(
            loop=(0, num_samples),
            tempo=self._bars.tempo,
            beats=beats,
            beats_per_bar=self._bars.beats_per_bar,
            cues=cues,
        )

    def _sample_new(
        self, prior: AnyPrior, rows: Tensor, seed: int
    ) -> tuple[list[Encoded], list[Nearest | None], list[int]]:
        """Codes for label rows (batch, labels), near copies of training clips sampled again; the nearest
        training clip of each; the number of tries."""
        encoded = self._sample(prior, rows, torch.Generator().manual_seed(seed))
        nearest, tries = compare(self._model, encoded), [1] * len(rows)
        for attempt in range(1, 1 if self._keep_copies else 1 + MAX_TRIES):
            copies = [i for i, one in enumerate(nearest) if one is not None and one.is_copy]
            if not copies:
                break
            generator = torch.Generator().manual_seed(derived_seed(seed, attempt))
            others = self._sample(prior, rows[copies], generator)
            for i, sound, one in zip(copies, others, compare(self._model, others), strict=True):
                encoded[i], nearest[i], tries[i] = sound, one, 1 + attempt
        return encoded, nearest, tries

    def _sample(self, prior: AnyPrior, rows: Tensor, generator: torch.Generator) -> list[Encoded]:
        """Codes for label rows (batch, labels)."""
        model, sampling = self._model, self._sampling
        if self._num_samples is None:
            encoded = sample_codes(model, prior, rows, sampling, generator, self._best_of)
        else:
            encoded = codes_of_length(
                model, prior, rows, self._num_samples, sampling, generator, self._loop
            )
        if self._loop:
            encoded = [
                close_loop(model, prior, sound, row, sampling, generator)
                for sound, row in zip(encoded, rows, strict=True)
            ]
        return encoded


def batch_sizes(model: Model, n: int, num_samples: int) -> list[int]:
    """Sizes of batches of `n` sounds in all, of `num_samples` each: see `batch_size` and FIRST_BATCH."""
    most, sizes = batch_size(model, num_samples), list[int]()
    size = min(most, FIRST_BATCH) if model.device.type == "cpu" else most
    while (left := n - sum(sizes)) > 0:
        sizes.append(min(size, left))
        size = min(most, 2 * size)
    return sizes


def batch_size(model: Model, num_samples: int) -> int:
    """Number of sounds per batch that fit into memory, of `num_samples` each, or a clip's if that is more."""
    longest = max(num_samples, model.clip_frames * model.spectrogram.config.hop_length, 1)
    return max(1, min(MAX_BATCH, MAX_BATCH_SAMPLES // longest))


def generate_images(
    model: Model,
    n: int = 16,
    labels: Labels | None = None,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    best_of: int = 1,
    each: int | None = None,
    by: str | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Tensor, list[dict[str, str]]]:
    """`n` new spectrograms (n, 1, bins, frames) in [0, 1], not yet inverted to waveforms, and the labels
    of each. For a model of images these are its images. Arguments as for `generate`."""
    require_candidates(model, best_of)
    prior, sampling = prior_or_none(model, sampling), settled(model, sampling)
    images, names = [], []
    all_rows = label_rows(model, n, labels or {}, seed, each, by)
    for number, rows in enumerate(all_rows.split(MAX_BATCH)):
        generator = torch.Generator().manual_seed(derived_seed(seed, number))
        with torch.inference_mode():
            if prior is None:
                batch = model.autoencoder.sample(len(rows), rows, generator)
            else:
                encoded = sample_codes(model, prior, rows, sampling, generator, best_of)
                columns = torch.tensor([one.codes.shape[2] for one in encoded])
                longest = int(columns.max())
                codes = [
                    nn.functional.pad(e.codes, (0, longest - e.codes.shape[2])) for e in encoded
                ]
                batch = model.autoencoder.decode(
                    torch.stack(codes).to(model.device), columns, model.vivid
                )
        missing = model.clip_frames - batch.shape[3]
        images.append(nn.functional.pad(batch, (0, missing)).cpu())
        names += [label_names(model, row) for row in rows.tolist()]
        progress(len(rows))
    return torch.cat(images), names


def label_rows(
    model: Model, n: int, labels: Labels, seed: int, each: int | None = None, by: str | None = None
) -> Tensor:
    """(n, labels) value indices, or `each` of each value of `by`. Raises AudiovqError where an argument is invalid."""
    require_seed(seed)
    if each is not None:
        return sample_each(model, each, by, labels, seed)
    if by is not None:
        raise AudiovqError("by: names the label of --each; give --each, too")
    require_count(n)
    return sample_labels(model, n, labels, seed)


def _with_tempo(model: Model, labels: dict[str, str], bars: Bars) -> dict[str, str]:
    """`labels` with the tempo of `bars`, where the model has a label for it and has learnt the value."""
    for name in model.labels:
        value, values = f"{bars.tempo:g}", model.labels[name]
        numbers = values if isinstance(values, Numbers) else None
        if (
            name.lower() in TEMPO_LABELS
            and name not in named(model, labels)
            and value in (numbers or learnt_values(model, name))
        ):
            return labels | {name: value}
    return labels
