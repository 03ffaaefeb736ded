"""Stage 4: the autoregressive prior, on the autoencoder's codes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from audiovq.codec.tokenize import VIEWS, Encodings
from audiovq.dataset.dataset import sounds_begin
from audiovq.dataset.measured import clips_and_why, counted
from audiovq.generation.generate import generate, generate_images
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.runtime import distributed
from audiovq.runtime.device import to_device_async
from audiovq.training.samples import SAMPLES, write_samples, write_strips
from audiovq.training.stage import (
    VALIDATION_CLIPS,
    Inputs,
    Losses,
    Metrics,
    Run,
    Stage,
    Step,
    evenly_spaced,
    loss_line,
    progress_line,
)

OVERFIT_BITS = 1.0
"""A prior overfits where a code of a validation clip takes this many bits more than in training."""
OVERFIT_SHARE = 0.25
"""The same without a validation split: share of the unigram bits; good priors need 0.35 to 0.5."""
OVERFITTING = "overfitting: expect copies of your clips; use more recordings or train less"
LEARNT_SHARE = 0.95
"""Share of the unigram bits below which a prior has learnt something."""


class PriorStage(Stage):
    """Training of the autoregressive prior on encodings of the training clips."""

    name = "prior"

    def __init__(
        self, run: Run, model: Model, encode: Callable[[], tuple[Encodings, Encodings]]
    ) -> None:
        """Creates `model.prior`, from that of `run.origin` where it fits.

        `encode` returns the encodings to train on and those to validate on.
        """
        torch.manual_seed(run.config.seed)
        self.prior: Prior = model.new_prior(run.config.prior)
        carried = run.origin is not None and run.origin.start_prior(self.prior, model.labels)
        model.prior = self.prior.to(model.device)
        super().__init__(run, model, self.prior, run.config.prior_training, carried)
        self.encode = encode

    def begin(self, resumed: bool) -> Sequence[str]:
        """Encode the clips; the lines name network, tokens and baselines, and the schedule if it is shortened."""
        started = time.perf_counter()
        self.source, self.held_out_codes = self.encode()
        self.lengths = self.source.lengths
        self.levels_count = levels_count(self.source)
        self.facts = _baselines(self.model, self.source, self.held_out_codes)
        clips = len(self.run.dataset.train)
        views = len(self.source.tokens) // clips
        lines = [
            f"{self.size_line()}, {int(self.lengths.sum()):,} tokens in {views} of {VIEWS} encodings"
            f" of each clip{', stopped by the time limit' * (views < VIEWS)}"
            f" ({time.perf_counter() - started:.0f} s);"
            f" baselines: {self.facts['uniform_bits']:.2f} bits/code (uniform),"
            f" {self.facts['unigram_bits']:.2f} (code frequencies)"
        ]
        steps = self.optimizer.steps_for(clips, self.run.limits.fewest_steps)
        if steps < self.optimizer.steps:
            lines.append(
                f"prior: at most {steps:,} steps for {counted(clips, 'train')}, against overfitting"
            )
        return lines

    def prepare(self, step: Step) -> Inputs:
        """This rank's tokens (batch, longest), lengths (batch,), labels (batch, labels), some of them hidden, and
        `levels_count` (batch,)."""
        tokens, lengths, labels, _ = self.source
        part = distributed.local_slice()
        longest = step.width(int(lengths[step.indices].max()))
        indices = step.indices[part]
        hidden = self.prior.hide_labels(labels[step.indices], step.generator)[part]
        return (
            tokens[indices, :longest],
            lengths[indices],
            to_device_async(hidden, self.model.device),
            to_device_async(self.levels_count[indices], self.model.device),
        )

    def loss(self, *inputs: Tensor) -> Losses:
        """As `Prior.loss`: nats per token."""
        tokens, lengths, labels, counted = inputs
        tokens = to_device_async(tokens, self.model.device).long()
        return {"loss": self.prior.loss(tokens, lengths, labels, counted)[0]}

    def validate(self) -> Metrics:
        """As `validate_prior`."""
        return validate_prior(self.prior, self.held_out_codes)

    def describe(self, metrics: Metrics) -> str:
        """As `describe_prior`."""
        return describe_prior(metrics, self.facts, self.held_out.name)

    def sample(self, step: int) -> None:
        """Write a few new clips."""
        if self.model.spectrogram.config.images:
            write_strips(
                self.run.folder, self.name, step, [generate_images(self.model, SAMPLES)[0]]
            )
            return
        sounds = generate(self.model, SAMPLES, keep_copies=True)
        waveforms = [sound.waveform for sound in sounds]
        write_samples(self.run.folder, self.name, step, self.model, waveforms)


def levels_count(source: Encodings) -> Tensor:
    """Whether each clip's level is one that a new sound may have, bool (clips,).

    Where new sounds begin as recordings do, these are the levels of clips that do.
    """
    return source.complete[:, 0] | (not sounds_begin(source.complete))


def validate_prior(prior: Prior, held_out: Encodings) -> dict[str, float]:
    """Score and bits per code (END included) and bits per level, on clips of `held_out`. Sums over ranks."""
    tokens, lengths, labels, _ = held_out
    counted = levels_count(held_out)
    device = next(prior.parameters()).device
    indices = evenly_spaced(len(tokens), VALIDATION_CLIPS)
    indices = indices[lengths[indices].argsort(stable=True)]
    code_nats, level_nats, codes = 0.0, 0.0, 0.0
    for batch in distributed.shard(indices.split(16)):
        longest = int(lengths[batch].max())
        clips = tokens[batch, :longest].long().to(device)
        rest = labels[batch].to(device), counted[batch].to(device)
        _, code, level = prior.loss(clips, lengths[batch], *rest)
        code_nats, level_nats = code_nats + float(code), level_nats + float(level)
        within = torch.arange(longest) < lengths[batch, None]
        codes += int((within & (tokens[batch, :longest] < prior.vocabulary.end)).sum())
    code_nats, level_nats, codes = distributed.all_reduce_floats(code_nats, level_nats, codes)
    bits = code_nats / codes / math.log(2)
    return {
        "score": bits,
        "bits_per_code": bits,
        "bits_per_level": level_nats / max(1, int(counted[indices].sum())) / math.log(2),
    }


def _baselines(model: Model, source: Encodings, held_out: Encodings) -> dict[str, float]:
    """Bits per code of a uniform guess, and on `held_out` by the frequencies of codes in `source`."""
    vocabulary = model.vocabulary
    counts = torch.bincount(source.tokens.flatten(), minlength=vocabulary.end)
    smoothed = (counts[: vocabulary.end] + 1.0).view(vocabulary.num_quantizers, -1)
    bits = -(smoothed / smoothed.sum(dim=1, keepdim=True)).log2().flatten()
    codes = held_out.tokens[held_out.tokens < vocabulary.end].long()
    return {
        "uniform_bits": math.log2(vocabulary.codebook_size),
        "unigram_bits": float(bits[codes].mean()),
    }


def overfits(metrics: Mapping[str, Any]) -> bool:
    """Whether a prior overfits so far that its samples become copies of training clips.

    With a validation split: its clips need OVERFIT_BITS more per code than those of training. Without: codes need
    less than OVERFIT_SHARE of the unigram bits. `metrics`: as the prior's summary in model.json.
    """
    if metrics.get("measured_on", "validation") != "validation":
        return bool(metrics["validation_bits_per_code"] < OVERFIT_SHARE * metrics["unigram_bits"])
    in_training = metrics.get("loss", math.inf) / math.log(2)  # none before the first step
    return bool(metrics["validation_bits_per_code"] > in_training + OVERFIT_BITS)


def describe_prior(metrics: Metrics, baselines: Metrics, measured_on: str = "validation") -> str:
    """The progress line of a validation on the split `measured_on`, or of training alone.

    `baselines`: `uniform_bits` and `unigram_bits`.
    """
    if "validation_bits_per_code" not in metrics:
        return loss_line("prior", metrics)
    bits, unigram = metrics["validation_bits_per_code"], baselines["unigram_bits"]
    verdict = "learning" if bits < LEARNT_SHARE * unigram else "little learnt yet"
    if overfits({**metrics, **baselines, "measured_on": measured_on}):
        verdict = OVERFITTING
    trained = f", {metrics['loss'] / math.log(2):.2f} in training" if "loss" in metrics else ""
    return (
        f"{progress_line('prior', metrics)}: {bits:.2f} bits/code on"
        f" {clips_and_why(measured_on, 'validation')}{trained}"
        f" (baselines: {baselines['uniform_bits']:.2f} uniform, {unigram:.2f} by code frequencies); {verdict}"
    )
