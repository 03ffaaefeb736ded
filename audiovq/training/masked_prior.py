"""Stage 4: the masked prior, on the same codes as the autoregressive prior."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from audiovq.codec.tokenize import Encodings
from audiovq.config.settings import TrainConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.measured import clips_and_why, counted, measured_split
from audiovq.models.checkpoint import save
from audiovq.models.model import Model
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masking import MaskedClips, training_masks
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from audiovq.runtime import distributed
from audiovq.runtime.device import pick_precision
from audiovq.runtime.progress import Say
from audiovq.training.loop import Inputs, State, Step, Trainer
from audiovq.training.samples import ended, loss_line, naming_clips, progress_line

SIZES = 0.05
"""Weight of a clip's length and level in the loss."""


def train_masked(
    dataset: Dataset,
    model: Model,
    folder: Path,
    config: TrainConfig,
    limit: float | None,
    encoded: Callable[[], tuple[Encodings, Encodings]],
    say: Say,
) -> None:
    """Train and save the masked prior of a model that has its codes, on what `encoded` gives; `limit` is
    in seconds. Where the prior in time order is of the same sizes, it begins with what that has learnt.
    """
    torch.manual_seed(config.seed)
    masked = model.new_masked(config.masked)
    if isinstance(model.prior, Transformer) and masked.can_start_from(model.prior):
        masked.start_from(model.prior.cpu())
        model.prior.to(model.device)
    model.masked = masked.to(model.device)
    trainer = Trainer(
        masked,
        config.masked_training,
        folder / "training",
        stage="masked",
        clips=len(dataset.train),
        seed=config.seed,
        dtype=pick_precision(config.precision, model.device),
        max_seconds=None,
    )
    if trainer.state.done:
        say("masked: trained already")
        ended(folder, trainer, say)
        return
    measured_on = measured_split(dataset, "validation").name
    started = time.perf_counter()
    source, held_out = encoded()
    masked.longest_complete = longest_complete(source, masked.vocabulary)
    seconds = time.perf_counter() - started
    parameters = sum(p.numel() for p in masked.parameters())
    say(
        f"masked: {parameters:,} parameters, {counted(len(dataset.train), 'train')} ({seconds:.0f} s)"
    )
    if limit is not None:
        trainer.max_seconds = max(1.0, limit - distributed.sync_clock(seconds)[0])

    def prepare(step: Step) -> Inputs:
        canvas = _canvas(
            masked, source, step.indices, step.generator, distributed.local_slice(), step.width
        )
        return tuple(getattr(canvas, field.name) for field in dataclasses.fields(canvas))

    def loss(*canvas: Tensor) -> dict[str, Tensor]:
        code, length, level = masked.loss(MaskedClips(*canvas).to(model.device))
        return {"loss": code + SIZES * (length + level), "nats_per_code": code}

    def validate() -> dict[str, float]:
        return validate_masked(masked, held_out)

    def keep(state: State, metrics: Mapping[str, float]) -> None:
        measured = {"step": state.step, "measured_on": measured_on}
        ends = {"longest_complete": list(masked.longest_complete)}
        save(folder, model, "masked", measured | ends | dict(metrics))

    def speak(metrics: Mapping[str, float]) -> None:
        say(describe_masked(metrics, measured_on))

    with naming_clips(dataset.train):
        trainer.fit(source[1], prepare, loss, validate, keep, speak)
    ended(folder, trainer, say)


def validate_masked(masked: MaskedPrior, held_out: Encodings) -> dict[str, float]:
    """Over up to 512 clips, with the same holes each time: score and bits per hidden code, bits per
    length and per level."""
    device = masked.level_embedding.weight.device
    places = torch.arange(len(held_out[0]))[:: max(1, len(held_out[0]) // 512)]
    places = places[held_out[1][places].argsort(stable=True)]
    totals, holes, clips = [0.0, 0.0, 0.0], 0.0, 0.0
    for number, indices in distributed.shard(list(enumerate(places.split(32)))):
        generator = torch.Generator().manual_seed(number)
        canvas = _canvas(masked, held_out, indices, generator).to(device)
        counts = int((canvas.hidden & canvas.inside[:, None, None]).sum())
        whole = int(masked.length_known(canvas).sum())
        weights = counts, whole, whole
        for i, (nats, weight) in enumerate(zip(masked.loss(canvas), weights, strict=True)):
            totals[i] += float(nats) * weight if weight else 0.0
        holes, clips = holes + counts, clips + whole
    *totals, holes, clips = distributed.all_reduce_floats(*totals, holes, clips)
    code, length, level = (
        total / max(1, count) / math.log(2)
        for total, count in zip(totals, (holes, clips, clips), strict=True)
    )
    return {
        "score": code,
        "bits_per_code": code,
        "bits_per_length": length,
        "bits_per_level": level,
    }


def longest_complete(source: Encodings, vocabulary: Vocabulary) -> tuple[bool, bool]:
    """Whether most clips of the most columns begin and end as their recordings do; True where none is so
    long."""
    longest = source.tokens[:, vocabulary.max_tokens - 2] != vocabulary.end
    begin, end = (2 * source.complete[longest].sum(dim=0) >= longest.sum()).tolist()
    return begin, end


def _canvas(
    masked: MaskedPrior,
    source: Encodings,
    indices: Tensor,
    generator: torch.Generator,
    part: slice = slice(None),
    width: Callable[[int], int] = int,
) -> MaskedClips:
    """Clips with random holes, on the CPU; drawn for all, made of those in `part`, as wide as `width` makes
    the widest."""
    tokens, lengths, labels, complete = (part[indices] for part in source)
    slots = masked.vocabulary.slots
    wide = width(int(lengths.max() - 1) // slots)
    codes, num_columns, levels = masked.vocabulary.codes(tokens[:, : 1 + slots * wide].long())
    hidden = masked.hide_labels(labels, generator)
    canvas = training_masks(codes, num_columns, levels, hidden, generator, complete)
    fields = {field.name: getattr(canvas, field.name)[part] for field in dataclasses.fields(canvas)}
    return MaskedClips(**fields)


def describe_masked(metrics: Mapping[str, float], measured_on: str = "validation") -> str:
    """A validation's metrics on the split `measured_on`, or the training's alone, in a line of words."""
    if "validation_bits_per_code" not in metrics:
        return loss_line("masked", metrics)
    return (
        f"{progress_line('masked', metrics)}: {metrics['validation_bits_per_code']:.2f} bits a hidden code on"
        f" {clips_and_why(measured_on, 'validation')}, {metrics['nats_per_code'] / math.log(2):.2f} in training"
    )
