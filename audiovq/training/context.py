"""Stage 2: the entropy coder's context tables, fitted to a dataset's codes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audiovq.codec.tokenize import encode_split
from audiovq.config.settings import TrainConfig
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.measured import clips_and_why, measured_split
from audiovq.models.checkpoint import save
from audiovq.models.entropy.context_model import NEIGHBOURS, ContextModel, context_cells
from audiovq.models.entropy.context_tables import ContextTables, code_bits, to_integers
from audiovq.models.entropy.rate_search import least_weight, search
from audiovq.models.model import Model
from audiovq.runtime import distributed
from audiovq.runtime.cuda_graphs import (
    GraphedFunction,
    make_capturable,
    optimizer_step,
    set_learning_rate,
    side_stream,
)
from audiovq.runtime.device import pick_precision, to_device_async
from audiovq.runtime.progress import Say
from audiovq.runtime.tensors import scratch

VIEWS = 8
"""Augmented encodings of each training clip."""
STEPS = 3_000
"""Maximum number of steps."""
STEPS_A_MINUTE = 200
"""Steps for each minute of a time limit, and one view for each minute. Steps are counted, not timed, so that
a slow machine fits the same tables as a fast one."""
PASSES = 30
"""Maximum epochs over the training cells, against overfitting on small sets."""
BATCH_CELLS = 2_048
LEARNING_RATE = 3e-3
TARGET_SHARE = 0.95
"""Share of `target_rate` to aim at, as other recordings may take more bits than those that it is tuned on."""
TUNING_CLIPS = 128
"""Clips of the validation split on which the rate weight is tuned."""
PART = 512
"""Clips whose cells are extracted at a time."""
CHECKS = 8
"""Validations; the best state is kept."""


@dataclass(frozen=True)
class Fitted:
    """Result of `fit_context`."""

    tables: ContextTables
    bits_per_code: float
    """Mean over cells and quantizers of the clips of `held_out`."""
    steps: int
    steps_planned: int
    cut_short: bool
    """Whether the clock ended it, with fewer steps or views than planned."""


def fit_context(
    model: Model,
    train: Split,
    held_out: Split,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_minutes: float | None = None,
    max_seconds: float = math.inf,
) -> Fitted:
    """Train a context model on the codes of `train`; keep the state that is best on `held_out`.

    `max_minutes`, the limit of the whole training, chooses how many steps and views are planned;
    `max_seconds` cuts the fit short, which the result then says. Raises AudiovqError where the model has no codes.
    """
    started = time.perf_counter()
    books = model.autoencoder.quantizer.codebooks()
    codebooks = torch.stack([book.vectors.detach() for book in books])
    most, views = STEPS, VIEWS
    if max_minutes is not None:
        most = min(STEPS, math.ceil(STEPS_A_MINUTE * max_minutes))
        views = min(VIEWS, math.ceil(max_minutes))
    seen, columns, levels = _cells(model, train, views, max_seconds / 4)
    cut_short = len(columns) < views * len(train)
    unseen, _, _ = _cells(model, held_out, 1, math.inf)

    torch.manual_seed(seed)
    network = ContextModel(codebooks, model.autoencoder.rows).to(model.device)
    device, on_gpu = model.device, model.device.type == "cuda"
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), fused=on_gpu or None
    )

    def update(contexts: Tensor, targets: Tensor, rows: Tensor) -> None:
        there = (to_device_async(part, device).long() for part in (contexts, targets, rows))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = network.loss(*there)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer_step(optimizer, device)

    if on_gpu:
        make_capturable(optimizer, device)
    learn = GraphedFunction(update, device) if on_gpu else update
    generator = torch.Generator().manual_seed(seed)
    steps = min(most, max(CHECKS, PASSES * len(seen[2]) // BATCH_CELLS))
    best, best_bits, step, progress = dict(network.state_dict()), math.inf, 0, 0.0
    with side_stream(device):
        for check in range(CHECKS):
            while step == 0 or progress < (check + 1) / CHECKS:
                warm_up = min(1.0, (step + 1) / 50)
                cosine = (1 + math.cos(math.pi * progress)) / 2
                set_learning_rate(optimizer, LEARNING_RATE * warm_up * cosine)
                picks = torch.randint(len(seen[2]), (BATCH_CELLS,), generator=generator)
                learn(*(part[picks] for part in seen))
                step += 1
                by_time = (time.perf_counter() - started) / max_seconds
                progress = min(1.0, max(step / steps, by_time))
            bits = _bits(network, unseen)
            if bits < best_bits:
                best_bits, best = bits, {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(best)
    # Add-one smoothing: values that training lacks are rare, not impossible.
    vocabulary, config = model.vocabulary, model.autoencoder.config
    integers = to_integers(
        network,
        torch.bincount(levels, minlength=vocabulary.num_levels) + 1,
        torch.bincount(columns, minlength=vocabulary.max_columns + 1) + 1,
        _distortion(model, train),
        config.rate_weight,
    )
    if config.target_rate is not None:
        weight = _weight_for(model, ContextTables(integers), held_out, config.target_rate)
        integers["rate_weight"] = torch.tensor(weight)
    bits_per_code = best_bits / len(codebooks)
    return Fitted(ContextTables(integers), bits_per_code, step, steps, cut_short or step < steps)


@torch.inference_mode()
def _weight_for(model: Model, tables: ContextTables, split: Split, target_rate: float) -> float:
    """Least rate weight, from the model's own up, at which clips of `split` take at most TARGET_SHARE of
    `target_rate` bits per second, level and length included."""
    places = torch.arange(len(split))[:: max(1, len(split) // TUNING_CLIPS)]
    frames, samples = split.num_frames[places], split.num_samples[places]
    columns = model.autoencoder.num_columns(frames)
    latents = model.autoencoder.latents(split.spectrograms(places).to(model.device), frames)
    books = [book.vectors.cpu().numpy() for book in model.autoencoder.quantizer.codebooks()]
    sides = _side_bits(tables.level_counts, split.levels[places])
    sides += _side_bits(tables.column_counts, columns)
    per_column = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    sides += len(places) * math.log2(per_column)
    allowed = TARGET_SHARE * target_rate * float(samples.sum()) / model.sample_rate - sides

    def bits(weight: float) -> float:
        codes = search(tables, latents.cpu().numpy(), columns.numpy(), books, weight)
        return code_bits(tables, torch.from_numpy(codes), columns)

    return least_weight(bits, allowed, tables.rate_weight)


def _side_bits(counts: Sequence[int], values: Tensor) -> float:
    """Total bits of `values` (n,) at the probabilities given by `counts`."""
    shares = torch.tensor(counts).double() / sum(counts)
    return -float(shares[values.clamp(max=len(counts) - 1)].log2().sum())


def _cells(
    model: Model, split: Split, views: int, max_seconds: float
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Output of `context_cells` for all clips, in a small dtype, and columns and levels (clips · views,)."""
    tokens, *_ = encode_split(model, split, views, max_seconds)
    vocabulary = model.vocabulary
    parts = tokens.split(PART)
    columns, levels = (
        torch.cat(of_all)
        for of_all in zip(*(vocabulary.codes(part)[1:] for part in parts), strict=True)
    )
    count, made = int(columns.sum()) * vocabulary.rows, 0
    quantizers = vocabulary.num_quantizers
    places = (len(NEIGHBOURS) * quantizers + quantizers - 1,), (quantizers,), ()
    seen = [scratch(count, *shape, dtype=tokens.dtype) for shape in places]
    for part in parts:
        codes, inside, _ = vocabulary.codes(part)
        some = context_cells(codes, inside, vocabulary.codebook_size)
        for whole, piece in zip(seen, some, strict=True):
            whole[made : made + len(piece)] = piece
        made += len(some[2])
    return (seen[0], seen[1], seen[2]), columns, levels


@torch.inference_mode()
def _bits(network: ContextModel, unseen: tuple[Tensor, Tensor, Tensor]) -> float:
    """Mean bits per cell, summed over quantizers."""
    device = network.codebooks.device
    total = 0.0
    for part in torch.arange(len(unseen[2])).split(1 << 14):
        total += float(network.loss(*(x[part].long().to(device) for x in unseen))) * len(part)
    return total / len(unseen[2])


@torch.inference_mode()
def _distortion(model: Model, split: Split) -> float:
    """Mean squared distance between the latents of up to 256 clips or so and their code vectors."""
    autoencoder = model.autoencoder
    places = torch.arange(len(split))[:: max(1, len(split) // 256)]
    squared, count = 0.0, 0
    for indices in places.split(32):
        images, frames = split.spectrograms(indices).to(model.device), split.num_frames[indices]
        latents = autoencoder.latents(images, frames).permute(0, 2, 3, 1)
        codes = autoencoder.encode(images, frames).permute(0, 2, 3, 1)
        decoded = autoencoder.quantizer.decode(codes.flatten(0, 2)).view_as(latents)
        columns = torch.arange(latents.shape[2])
        inside = (columns < autoencoder.num_columns(frames)[:, None]).to(model.device)
        distances = (latents - decoded).square().sum(dim=3) * inside[:, None]
        squared += float(distances.sum())
        count += int(inside.sum()) * autoencoder.rows
    return squared / count


def train_context(
    dataset: Dataset, model: Model, folder: Path, config: TrainConfig, limit: float | None, say: Say
) -> None:
    """Fit and save the tables by which archives are coded."""
    started = time.perf_counter()
    say("context: fitting the entropy coder's tables, which `encode` uses")
    held_out = measured_split(dataset, "validation")
    fitted = fit_context(
        model,
        dataset.train,
        held_out,
        seed=config.seed,
        dtype=pick_precision(config.precision, model.device),
        max_minutes=config.max_minutes,
        max_seconds=math.inf if limit is None else limit,
    )
    if not distributed.is_main():
        return
    model.context = fitted.tables
    summary = {
        "bits_per_code": fitted.bits_per_code,
        "measured_on": held_out.name,
        "step": fitted.steps,
        "steps_planned": fitted.steps_planned,
        "ended_by": "time" if fitted.cut_short else "steps",
    }
    save(folder, model, "context", summary)
    say(
        f"context: {fitted.bits_per_code:.2f} bits a code on {clips_and_why(held_out.name, 'validation')},"
        f" {math.log2(model.vocabulary.codebook_size):.2f} without tables"
        f" ({time.perf_counter() - started:.0f} s)"
    )
    if fitted.cut_short:
        say(
            f"context: cut short by the time limit, after {fitted.steps:,} of {fitted.steps_planned:,}"
            " steps: archives will be larger than they need be; give more minutes"
        )
