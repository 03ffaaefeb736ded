"""Stage 5: the masked prior, on the same codes as the autoregressive prior."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audiovq.codec.tokenize import Encodings
from audiovq.dataset.dataset import sounds_begin
from audiovq.dataset.measured import clips_and_why, counted
from audiovq.models.model import Model
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masking import MaskedClips, replace_visible, training_masks
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from audiovq.runtime import distributed
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

FEWEST_MASKED = 64
"""Clips with masks of a validation, at least: with fewer clips, each is used with several masks."""
SIZE_WEIGHT = 0.05
"""Weight of a clip's length and level in the loss."""
MOST_SIZES = 4096
"""Clips whose length and level a model keeps, fewer than twice as many: of more, evenly spaced ones."""


class MaskedPriorStage(Stage):
    """Training of the masked prior on encodings of the training clips, with random masks."""

    name = "masked"

    def __init__(
        self, run: Run, model: Model, encode: Callable[[], tuple[Encodings, Encodings]]
    ) -> None:
        """Creates `model.masked`, from that of `run.origin` where it fits, else with the autoregressive prior's
        weights where their sizes agree.

        `encode` returns the encodings to train on and those to validate on.
        """
        torch.manual_seed(run.config.seed)
        self.masked: MaskedPrior = model.new_masked(run.config.masked)
        carried = run.origin is not None and run.origin.start_prior(self.masked, model.labels)
        prior = model.prior
        if not carried and isinstance(prior, Transformer) and self.masked.can_start_from(prior):
            self.masked.start_from(prior.cpu())
            prior.to(model.device)
        model.masked = self.masked.to(model.device)
        super().__init__(run, model, self.masked, run.config.masked_training, carried)
        self.encode = encode

    def begin(self, resumed: bool) -> Sequence[str]:
        """Encode the clips; the line names network and clips."""
        started = time.perf_counter()
        self.source, self.held_out_codes = self.encode()
        self.lengths = self.source.lengths
        self.masked.longest_complete = longest_complete(self.source, self.masked.vocabulary)
        self.masked.sizes = clip_sizes(self.source, len(self.run.dataset.train), self.masked)
        self.facts = {
            "longest_complete": list(self.masked.longest_complete),
            "sizes": self.masked.sizes.tolist(),
        }
        clips = counted(len(self.run.dataset.train), "train")
        return [f"{self.size_line()}, {clips} ({time.perf_counter() - started:.0f} s)"]

    def prepare(self, step: Step) -> Inputs:
        """This rank's clips with random masks, and some wrong codes among the visible ones: the fields of `MaskedClips`."""
        clips = _masked_clips(
            self.masked,
            self.source,
            step.indices,
            step.generator,
            distributed.local_slice(),
            step.width,
            replaces=True,
        )
        return tuple(getattr(clips, field.name) for field in dataclasses.fields(clips))

    def loss(self, *inputs: Tensor) -> Losses:
        """Nats per masked code, and SIZE_WEIGHT times those of length and level."""
        clips = MaskedClips(*inputs).to(self.model.device)
        code, length, level = self.masked.loss(clips)
        return {"loss": code + SIZE_WEIGHT * (length + level), "nats_per_code": code}

    def validate(self) -> Metrics:
        """As `validate_masked`."""
        return validate_masked(self.masked, self.held_out_codes)

    def training_score(self, metrics: Metrics) -> float | None:
        """Bits per masked code in training, with dropout and some wrong codes."""
        nats = metrics.get("nats_per_code")
        return None if nats is None else nats / math.log(2)

    def describe(self, metrics: Metrics) -> str:
        """As `describe_masked`."""
        return describe_masked(metrics, self.held_out.name)


def validate_masked(masked: MaskedPrior, held_out: Encodings) -> dict[str, float]:
    """Score and bits per masked code, bits per length and per level, on clips of `held_out`.

    Masks are the same in each validation; FEWEST_MASKED. Sums over ranks.
    """
    device = masked.level_embedding.weight.device
    indices = evenly_spaced(len(held_out.tokens), VALIDATION_CLIPS)
    indices = indices.repeat(-(-FEWEST_MASKED // len(indices)))
    indices = indices[held_out.lengths[indices].argsort(stable=True)]
    totals, codes, clips = [0.0, 0.0, 0.0], 0.0, 0.0
    for number, batch in distributed.shard(list(enumerate(indices.split(32)))):
        generator = torch.Generator().manual_seed(number)
        masked_clips = _masked_clips(masked, held_out, batch, generator).to(device)
        masked_codes = int((masked_clips.hidden & masked_clips.valid[:, None, None]).sum())
        known = masked.length_known(masked_clips.num_columns, masked_clips.whole)
        complete = int(known.sum())
        weights = masked_codes, complete, complete
        for i, (nats, weight) in enumerate(zip(masked.loss(masked_clips), weights, strict=True)):
            totals[i] += float(nats) * weight if weight else 0.0
        codes, clips = codes + masked_codes, clips + complete
    *totals, codes, clips = distributed.all_reduce_floats(*totals, codes, clips)
    code, length, level = (
        total / max(1, count) / math.log(2)
        for total, count in zip(totals, (codes, clips, clips), strict=True)
    )
    return {
        "score": code,
        "bits_per_code": code,
        "bits_per_length": length,
        "bits_per_level": level,
    }


def longest_complete(source: Encodings, vocabulary: Vocabulary) -> tuple[bool, bool]:
    """Whether new sounds of the maximum length begin, and end, as recordings do.

    They begin so where `sounds_begin` says it, or most clips of that length do; they end so where most of these clips
    do that begin as new sounds do. True where there are none.
    """
    all_begin = sounds_begin(source.complete)
    longest = source.tokens[:, vocabulary.max_tokens - 2] != vocabulary.end
    if all_begin:
        longest &= source.complete[:, 0]
    begin, end = (2 * source.complete[longest].sum(dim=0) >= longest.sum()).tolist()
    return all_begin or begin, end


def clip_sizes(source: Encodings, clips: int, masked: MaskedPrior) -> Tensor:
    """`MaskedPrior.sizes` of the first `clips` of `source`, see MOST_SIZES; `masked.longest_complete` is known."""
    tokens, _, labels, complete = (field[:clips] for field in source)
    vocabulary = masked.vocabulary
    num_columns = (tokens[:, 1 : -1 : vocabulary.slots] != vocabulary.end).sum(dim=1)
    levels = tokens[:, 0].long() - vocabulary.end - 1
    sizes = torch.cat([labels, num_columns[:, None], levels[:, None]], dim=1)
    known = sizes[masked.length_known(num_columns, complete)]
    return known[evenly_spaced(len(known), MOST_SIZES)]


def _masked_clips(
    masked: MaskedPrior,
    source: Encodings,
    indices: Tensor,
    generator: torch.Generator,
    part: slice = slice(None),
    width: Callable[[int], int] = int,
    replaces: bool = False,
) -> MaskedClips:
    """Clips at `indices` (batch,) with random masks, on the CPU.

    Masks are sampled for the whole batch; only the clips in `part` of it are returned. `width` gives the padded
    number of columns, `replaces` says whether visible codes are replaced by `replace_visible`.
    """
    tokens, lengths, labels, complete = (field[indices] for field in source)
    slots = masked.vocabulary.slots
    padded = width(int(lengths.max() - 1) // slots)
    codes, num_columns, levels = masked.vocabulary.codes(tokens[:, : 1 + slots * padded].long())
    hidden = masked.hide_labels(labels, generator)
    clips = training_masks(codes, num_columns, levels, hidden, generator, complete)
    if replaces:
        clips = replace_visible(clips, generator)
    fields = {field.name: getattr(clips, field.name)[part] for field in dataclasses.fields(clips)}
    return MaskedClips(**fields)


def describe_masked(metrics: Metrics, measured_on: str = "validation") -> str:
    """The progress line of a validation on the split `measured_on`, or of training alone."""
    if "validation_bits_per_code" not in metrics:
        return loss_line("masked", metrics)
    trained = ""  # before the first step
    if "nats_per_code" in metrics:
        trained = f", {metrics['nats_per_code'] / math.log(2):.2f} in training"
    return (
        f"{progress_line('masked', metrics)}: {metrics['validation_bits_per_code']:.2f} bits/masked code"
        f" on {clips_and_why(measured_on, 'validation')}{trained}"
    )
