"""Stage 3: the autoregressive prior, on the autoencoder's codes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiovq.codec.tokenize import VIEWS, Encodings
from audiovq.config.settings import TrainConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.measured import clips_and_why, counted, measured_split
from audiovq.generation.generate import generate, generate_images
from audiovq.models.checkpoint import save
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.runtime import distributed
from audiovq.runtime.device import pick_precision, to_device_async
from audiovq.runtime.progress import Say
from audiovq.training.loop import Inputs, State, Step, Trainer
from audiovq.training.samples import (
    SAMPLE_EVERY,
    SAMPLES,
    ended,
    loss_line,
    naming_clips,
    progress_line,
    write_samples,
    write_strips,
)

HEART_BITS = 1.0
"""A prior that needs so many more bits for a code of a validation clip than in training learns by heart."""
HEART_SHARE = 0.25
"""Share of the unigram bits below which training clips are learnt by heart; good priors need .35 to .5."""
BY_HEART = "learning by heart: expect copies of the training clips; add recordings, or stop earlier"


def train_prior(
    dataset: Dataset,
    model: Model,
    folder: Path,
    config: TrainConfig,
    limit: float | None,
    encoded: Callable[[], tuple[Encodings, Encodings]],
    say: Say,
) -> None:
    """Train and save the prior of a model that has its codes, on what `encoded` gives; `limit` is in
    seconds."""
    torch.manual_seed(config.seed)
    prior = model.prior = model.new_prior(config.prior).to(model.device)
    device = model.device
    trainer = Trainer(
        prior,
        config.prior_training,
        folder / "training",
        stage="prior",
        clips=len(dataset.train),
        seed=config.seed,
        dtype=pick_precision(config.precision, device),
        max_seconds=None,
    )
    if trainer.state.done:
        say("prior: trained already")
        ended(folder, trainer, say)
        return
    measured_on = measured_split(dataset, "validation").name
    started = time.perf_counter()
    (tokens, lengths, labels, _), held_out = encoded()
    baselines = _baselines(model, tokens, lengths, *held_out[:2])
    parameters = sum(p.numel() for p in prior.parameters())
    views = len(tokens) // len(dataset.train)
    say(
        f"prior: {parameters:,} parameters, {int(lengths.sum()):,} tokens in {views} of {VIEWS}"
        f" encodings of each clip{', cut short by the time limit' * (views < VIEWS)}"
        f" ({time.perf_counter() - started:.0f} s);"
        f" a blind guess needs {baselines['uniform_bits']:.2f} bits a code,"
        f" one that knows which codes are common {baselines['unigram_bits']:.2f}"
    )

    if trainer.steps < config.prior_training.steps:
        clips = counted(len(dataset.train), "train")
        say(f"prior: {trainer.steps:,} steps at most, for {clips}: more would learn them by heart")
    if limit is not None:
        elapsed, _ = distributed.sync_clock(time.perf_counter() - started)
        trainer.max_seconds = max(1.0, limit - elapsed)

    def prepare(step: Step) -> Inputs:
        part = distributed.local_slice()
        longest = step.width(int(lengths[step.indices].max()))
        indices = step.indices[part]
        hidden = prior.hide_labels(labels[step.indices], step.generator)[part]
        return tokens[indices, :longest], lengths[indices], to_device_async(hidden, device)

    def loss(tokens: Tensor, lengths: Tensor, labels: Tensor) -> dict[str, Tensor]:
        clips = to_device_async(tokens, device).long()
        return {"loss": prior.loss(clips, lengths, labels)[0]}

    def validate() -> dict[str, float]:
        return validate_prior(prior, held_out)

    def keep(state: State, metrics: Mapping[str, float]) -> None:
        measured = {"step": state.step, "measured_on": measured_on}
        save(folder, model, "prior", measured | baselines | dict(metrics))

    shown = [trainer.progress]

    def speak(metrics: Mapping[str, float]) -> None:
        say(describe_prior(metrics, baselines, measured_on))
        validated = "validation_score" in metrics
        if validated and metrics["progress"] >= min(1.0, shown[0] + SAMPLE_EVERY):
            shown[0] = metrics["progress"]
            if model.spectrogram.config.images:
                write_strips(
                    folder, "prior", int(metrics["step"]), [generate_images(model, SAMPLES)[0]]
                )
                return
            sounds = [sound.waveform for sound in generate(model, SAMPLES, keep_copies=True)]
            write_samples(folder, "prior", int(metrics["step"]), model, sounds)

    with naming_clips(dataset.train):
        trainer.fit(lengths, prepare, loss, validate, keep, speak)
    ended(folder, trainer, say)


def validate_prior(prior: Prior, held_out: Encodings) -> dict[str, float]:
    """Over up to 512 clips: score and bits per code (END included), bits per level."""
    tokens, lengths, labels, _ = held_out
    device = next(prior.parameters()).device
    places = torch.arange(len(tokens))[:: max(1, len(tokens) // 512)]
    places = places[lengths[places].argsort(stable=True)]
    code_nats, level_nats, codes = 0.0, 0.0, 0.0
    for indices in distributed.shard(places.split(16)):
        cut = int(lengths[indices].max())
        clips = tokens[indices, :cut].long().to(device)
        _, code, level = prior.loss(clips, lengths[indices], labels[indices].to(device))
        code_nats, level_nats = code_nats + float(code), level_nats + float(level)
        codes += int(
            ((lengths[indices] - 1) // prior.vocabulary.slots * prior.vocabulary.slots).sum()
        )
    code_nats, level_nats, codes = distributed.all_reduce_floats(code_nats, level_nats, codes)
    bits = code_nats / codes / math.log(2)
    return {
        "score": bits,
        "bits_per_code": bits,
        "bits_per_level": level_nats / len(places) / math.log(2),
    }


def _baselines(
    model: Model, tokens: Tensor, lengths: Tensor, held_tokens: Tensor, held_lengths: Tensor
) -> dict[str, float]:
    """Bits per code of a blind guess, and of one that knows how common each code is in training."""
    vocabulary = model.vocabulary
    counts = torch.bincount(tokens.flatten(), minlength=vocabulary.end)[: vocabulary.end] + 1.0
    by_book = counts.view(vocabulary.num_quantizers, -1)
    bits = -(by_book / by_book.sum(dim=1, keepdim=True)).log2().flatten()
    return {
        "uniform_bits": math.log2(vocabulary.codebook_size),
        "unigram_bits": float(bits[held_tokens[held_tokens < vocabulary.end].long()].mean()),
    }


def learns_by_heart(metrics: Mapping[str, Any]) -> bool:
    """Whether a prior overfits so far that its samples are, more and more often, copies.

    It does where it needs HEART_BITS more for a code of a validation clip than of a training clip. Without
    a validation split: where it needs less than HEART_SHARE of the bits that the codes' frequencies give.
    """
    if metrics.get("measured_on", "validation") != "validation":
        return bool(metrics["validation_bits_per_code"] < HEART_SHARE * metrics["unigram_bits"])
    return bool(metrics["validation_bits_per_code"] > metrics["loss"] / math.log(2) + HEART_BITS)


def describe_prior(
    metrics: Mapping[str, float], baselines: Mapping[str, float], measured_on: str = "validation"
) -> str:
    """A validation's metrics on the split `measured_on`, or the training's alone, in a line of words."""
    if "validation_bits_per_code" not in metrics:
        return loss_line("prior", metrics)
    bits, blind = metrics["validation_bits_per_code"], baselines["unigram_bits"]
    train_bits = metrics["loss"] / math.log(2)
    verdict = "is learning" if bits < 0.95 * blind else "has learnt little yet"
    if learns_by_heart({**metrics, **baselines, "measured_on": measured_on}):
        verdict = BY_HEART
    return (
        f"{progress_line('prior', metrics)}: {bits:.2f} bits a code on"
        f" {clips_and_why(measured_on, 'validation')}, {train_bits:.2f} in training (blind"
        f" {baselines['uniform_bits']:.2f}, by frequency {blind:.2f}); {verdict}"
    )
