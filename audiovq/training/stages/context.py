"""Stage 3: the entropy coder's context tables, fitted to a dataset's codes.

Not a `Stage` of `loop.Trainer`: it takes seconds to minutes, so it is not resumed and leaves no state file. A step takes 2,048
random cells of all clips instead of a batch of clips, every rank takes the same steps, and validations come at
shares of the schedule. Only `update_function` is shared.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from audiovq.codec.tokenize import encode_split
from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.dataset import Split
from audiovq.dataset.measured import clips_and_why, measured_split
from audiovq.models.checkpoint import save
from audiovq.models.entropy.context_model import NEIGHBOURS, ContextModel, context_cells
from audiovq.models.entropy.context_tables import (
    ContextTables,
    code_bits,
    to_integers,
    to_network,
)
from audiovq.models.entropy.rate_search import least_weight, search
from audiovq.models.model import Model
from audiovq.runtime import distributed
from audiovq.runtime.cuda_graphs import make_capturable, set_learning_rate, side_stream
from audiovq.runtime.device import to_device_async
from audiovq.runtime.progress import progress
from audiovq.runtime.tensors import scratch
from audiovq.runtime.threads import tuned_step
from audiovq.training.loop import update_function
from audiovq.training.stage import Limits, Losses, Run, evenly_spaced
from audiovq.training.stages.plain import task_of

VIEWS = 8
"""Maximum number of augmented encodings of each training clip."""
STEPS_A_MINUTE = 400
"""Steps for each minute of a time limit, over the number of quantizers, or over 2 if there are fewer: a step of four takes six
times as long as one of one. Steps are counted, not timed, so that a slow machine fits the same tables as a fast one. There
is also one view for each minute."""
PASSES = 30
"""Maximum epochs over the training cells, against overfitting on small sets."""
BATCH_CELLS = 2_048
LEARNING_RATE = 3e-3
WARMUP_STEPS = 50
ENCODING_SHARE = 0.25
"""Share of a time limit after which no further view is encoded."""
FITTING_SHARE = 0.5
"""Share of a time limit that fitting has at least: where one view of all clips would take the rest, some are left out."""
TIMED_CLIPS = 64
"""Clips of each rank by which the time of encoding is estimated: one batch."""
TARGET_SHARE = 0.95
"""Share of `target_rate` to aim at, as other recordings may take more bits than those that it is tuned on."""
TUNING_CLIPS = 128
"""Clips of the validation split on which the rate weight is tuned."""
DISTORTION_CLIPS = 256
"""Clips of the training split on which the distortion is measured."""
PART = 512
"""Clips whose cells are extracted at a time."""
RATE_WEIGHT, HITS_RATE_WEIGHT, STEREO_HITS_RATE_WEIGHT = 0.1, 0.38, 0.07
"""Rate weight where the settings give none: in general, of hits, whose codes take most bits, and of hits in stereo, where
a cheaper code may also move the sound."""
CHECKS = 8
"""Number of validations; the best state is kept."""


@dataclass(frozen=True)
class Fitted:
    """Result of `fit_context`."""

    tables: ContextTables
    bits_per_code: float
    """Mean over cells and quantizers of the clips of `held_out`."""
    steps: int
    steps_planned: int
    cut_short: bool
    """Whether the time limit ended it, with fewer steps, views or clips than planned."""
    by_shares: bool = False
    """Whether no trained state was better than how often each code occurs, which the tables then hold."""


@dataclass(frozen=True)
class _Cells:
    """Cells of clips with their neighbours, in a small dtype, as `context_cells` returns them."""

    contexts: Tensor
    """(cells, neighbours · quantizers + quantizers - 1)"""
    targets: Tensor
    """(cells, quantizers)"""
    rows: Tensor
    """(cells,)"""
    columns: Tensor
    """(clips · views,) number of columns of each clip."""
    levels: Tensor
    """(clips · views,)"""

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Contexts, targets and rows of the cells at `indices`."""
        return self.contexts[indices], self.targets[indices], self.rows[indices]


def train_context(run: Run, model: Model, deadline: float | None) -> None:
    """Fit the context tables to the codes of the training clips and save them, in rank 0.

    Starts from those of `run.origin`, where it has any. `deadline`: seconds after which fitting is stopped.
    """
    started = time.perf_counter()
    start = None if run.origin is None else run.origin.model.context
    run.detail("context: fitting the entropy coder's tables (used by `encode`)")
    held_out = measured_split(run.dataset, "validation")
    fitted = fit_context(
        model,
        run.dataset.train,
        held_out,
        seed=run.config.seed,
        dtype=run.dtype,
        max_minutes=run.config.max_minutes,
        max_seconds=math.inf if deadline is None else deadline,
        most_steps=run.limits.context_steps,
        start=start,
        task=task_of(run, "context"),
        rate=1.0 if start is None else run.config.carried_rate,
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
    save(run.folder, model, "context", summary)
    run.detail(
        f"context: {fitted.bits_per_code:.2f} bits/code on {clips_and_why(held_out.name, 'validation')},"
        f" {math.log2(model.vocabulary.codebook_size):.2f} without tables"
        f" ({time.perf_counter() - started:.0f} s)"
    )
    if fitted.by_shares:
        run.say(
            f"{task_of(run, 'context')}: learnt no more than how often each code occurs; archives will be larger than"
            " necessary, new sounds are the same; more recordings, or a longer limit, may help"
        )
    elif fitted.cut_short:
        run.say(
            f"{task_of(run, 'context')}: stopped by the time limit after {fitted.steps:,} of"
            f" {fitted.steps_planned:,} steps; archives will be larger than necessary, new sounds are the same; a longer"
            " limit helps"
        )


def fit_context(
    model: Model,
    train: Split,
    held_out: Split,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_minutes: float | None = None,
    max_seconds: float = math.inf,
    most_steps: int = Limits.context_steps,
    most_views: int = VIEWS,
    checks: int = CHECKS,
    start: ContextTables | None = None,
    rate: float = 1.0,
    task: str = "",
) -> Fitted:
    """Train a context model on the codes of `train`; return the tables that are best on `held_out`: never worse there
    than how often each code occurs, and than no tables.

    It starts from the tables `start`, where they have the sizes of this model, and its learning rate is `rate` times
    as high.
    `dtype`: precision of autocast. `max_minutes`, the limit of the whole training, reduces the planned steps and
    views from `most_steps` and `most_views`; `max_seconds` stops fitting early, but leaves it FITTING_SHARE of them,
    which the result then says.
    `checks`: number of validations. `task`: name under which progress is shown. Raises AudiovqError where the model has no codes.
    """
    started = time.perf_counter()
    if max_minutes is not None:
        a_minute = STEPS_A_MINUTE / max(2, model.vocabulary.num_quantizers)
        most_steps = min(most_steps, math.ceil(a_minute * max_minutes))
        most_views = min(most_views, math.ceil(max_minutes))
    share = ENCODING_SHARE / (
        2 if train.planes > 1 else 1
    )  # views are encoded twice: `_with_moved`
    encoding = task and f"{task}, encoding"
    # Without a limit no clip is encoded twice, to measure the time of it.
    clips = 1.0 if max_seconds == math.inf else _share_within(model, train, held_out, max_seconds)
    chosen, of_held_out = (_evenly(split, clips) for split in (train, held_out))
    cells = _cells(model, train, chosen, most_views, share * max_seconds, task=encoding)
    checked = _cells(model, held_out, of_held_out)
    learnt = _with_moved(model, train, chosen, cells, encoding)
    steps = min(most_steps, max(checks, PASSES * len(learnt) // BATCH_CELLS))
    measured = _with_moved(model, held_out, of_held_out, checked)
    begun = time.perf_counter()
    seconds = max(max_seconds - (begun - started), FITTING_SHARE * max_seconds)
    with progress(task and f"{task}, fitting", steps, "steps") as done:
        schedule = _Schedule(steps, begun, seconds, rate * LEARNING_RATE, done)
        network, by_shares = _best_network(
            model, learnt, measured, schedule, checks, seed, dtype, start
        )
    # Add-one smoothing: values that training lacks are rare, not impossible.
    vocabulary, config = model.vocabulary, model.autoencoder.config
    integers = to_integers(
        network,
        torch.bincount(cells.levels, minlength=vocabulary.num_levels) + 1,
        torch.bincount(cells.columns, minlength=vocabulary.max_columns + 1) + 1,
        _distortion(model, train),
        rate_weight_of(config, model.spectrogram.config),
    )
    if config.target_rate is not None:
        weight = _weight_for(model, ContextTables(integers), held_out, config.target_rate)
        integers["rate_weight"] = torch.tensor(weight)
    cut_short = len(cells.columns) < most_views * len(train) or schedule.step < steps
    bits_per_code = _bits(network, checked) / vocabulary.num_quantizers
    tables = ContextTables(integers)
    return Fitted(tables, bits_per_code, schedule.step, steps, cut_short, by_shares)


def rate_weight_of(config: AutoencoderConfig, spectrogram: SpectrogramConfig) -> float:
    """Rate weight of the settings, or for the kind of sounds if they give none."""
    if config.rate_weight is not None:
        return config.rate_weight
    if not spectrogram.is_of_hits:
        return RATE_WEIGHT
    return HITS_RATE_WEIGHT if spectrogram.planes == 1 else STEREO_HITS_RATE_WEIGHT


@dataclass
class _Schedule:
    """Progress through `steps` steps or `max_seconds` seconds from `started` on, whichever is further."""

    steps: int
    started: float
    max_seconds: float
    peak: float
    """Highest learning rate."""
    done: Callable[[int], None]
    """Is called with the number of steps just taken."""
    step: int = 0
    progress: float = 0.0

    def advance(self) -> None:
        """Count a step."""
        self.step += 1
        self.done(1)
        by_time = (time.perf_counter() - self.started) / self.max_seconds
        self.progress = min(1.0, max(self.step / self.steps, by_time))

    @property
    def learning_rate(self) -> float:
        """Linear warm-up, then cosine decay to 0."""
        warmup = min(1.0, (self.step + 1) / WARMUP_STEPS)
        return self.peak * warmup * (1 + math.cos(math.pi * self.progress)) / 2


def _best_network(
    model: Model,
    train: _Cells,
    held_out: _Cells,
    schedule: _Schedule,
    checks: int,
    seed: int,
    dtype: torch.dtype,
    start: ContextTables | None,
) -> tuple[ContextModel, bool]:
    """A context model trained on `train`, in its best state on `held_out`, and whether that is `_by_shares`."""
    network, best_bits = _first_network(model, held_out, seed, start)
    device, on_gpu = model.device, model.device.type == "cuda"
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), fused=on_gpu or None
    )
    if on_gpu:
        make_capturable(optimizer, device)

    def loss(*cells: Tensor) -> Losses:
        return {"loss": network.loss(*(to_device_async(part, device).long() for part in cells))}

    update = update_function(network, optimizer, loss, dtype, math.inf, on_gpu)
    generator = torch.Generator().manual_seed(seed)
    best = {name: value.clone() for name, value in network.state_dict().items()}
    shares, bits = _by_shares(network, train, held_out)
    if by_shares := bits < best_bits:
        best_bits, best = bits, shares
    with side_stream(device):
        for check in range(checks):
            while schedule.step == 0 or schedule.progress < (check + 1) / checks:
                set_learning_rate(optimizer, schedule.learning_rate)
                cells = torch.randint(len(train), (BATCH_CELLS,), generator=generator)
                with tuned_step("context", enabled=not on_gpu and distributed.world_size() == 1):
                    update(*train.at(cells))
                schedule.advance()
            bits = _bits(network, held_out)
            if bits < best_bits:
                best_bits, best = bits, {k: v.clone() for k, v in network.state_dict().items()}
                by_shares = False
    network.load_state_dict(best)
    return network, by_shares


def _first_network(
    model: Model, held_out: _Cells, seed: int, start: ContextTables | None
) -> tuple[ContextModel, float]:
    """The network before its first step, and its bits per cell on `held_out`: infinite unless it starts from tables."""
    books = [book.vectors.detach() for book in model.autoencoder.quantizer.codebooks()]
    codebooks = torch.stack(books)
    torch.manual_seed(seed)
    if start is None or not start.fits(model.vocabulary):
        return ContextModel(codebooks, model.autoencoder.rows).to(model.device), math.inf
    network = to_network(start, codebooks).to(model.device)
    return network, _bits(network, held_out)


def _by_shares(
    network: ContextModel, train: _Cells, held_out: _Cells
) -> tuple[dict[str, Tensor], float]:
    """State of `network` in which no code depends on others, and its bits per cell on `held_out`.

    A code's probability is its share in `train` or, where that takes more bits, the same for all codes, as without
    tables.
    """
    size = network.codebooks.shape[1]
    learnt, seen = (_counts(cells, size) for cells in (train, held_out))
    shares = (learnt + 1) / (learnt + 1).sum(dim=1, keepdim=True)
    uniform = torch.full_like(shares, 1 / size)
    bits, shares = min(
        ((-float((seen * p.log2()).sum()) / len(held_out), p) for p in (uniform, shares)),
        key=lambda pair: pair[0],
    )
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for name, value in state.items():
        kind, _, quantizer = name.partition(".")
        if kind in ("weights", "heads"):
            value.zero_()
        if kind == "biases":
            value.copy_(shares[int(quantizer)].log())
    return state, bits


def _counts(cells: _Cells, size: int) -> Tensor:
    """(quantizers, size) number of cells with each code."""
    counts = torch.zeros(cells.targets.shape[1], size, dtype=torch.float64)
    for part in cells.targets.split(1 << 20):
        counts += torch.stack([torch.bincount(codes.long(), minlength=size) for codes in part.T])
    return counts


@torch.inference_mode()
def _weight_for(model: Model, tables: ContextTables, split: Split, target_rate: float) -> float:
    """Least rate weight, from the model's own up, at which clips of `split` take at most TARGET_SHARE of
    `target_rate` bits per second, level and length included."""
    indices = evenly_spaced(len(split), TUNING_CLIPS)
    frames, samples = split.num_frames[indices], split.num_samples[indices]
    columns = model.autoencoder.num_columns(frames)
    latents = model.autoencoder.latents(split.spectrograms(indices).to(model.device), frames)
    codebooks = [book.vectors.cpu().numpy() for book in model.autoencoder.quantizer.codebooks()]
    side_bits = _side_bits(tables.level_counts, split.levels[indices])
    side_bits += _side_bits(tables.column_counts, columns)
    per_column = model.autoencoder.stride[1] * model.spectrogram.config.hop_length
    side_bits += len(indices) * math.log2(per_column)
    allowed = TARGET_SHARE * target_rate * float(samples.sum()) / model.sample_rate - side_bits

    def bits(weight: float) -> float:
        codes = search(tables, latents.cpu().numpy(), columns.numpy(), codebooks, weight)
        return code_bits(tables, torch.from_numpy(codes), columns)

    return least_weight(bits, allowed, tables.rate_weight)


def _side_bits(counts: Sequence[int], values: Tensor) -> float:
    """Total bits of `values` (n,) at the probabilities given by `counts`."""
    shares = torch.tensor(counts).double() / sum(counts)
    return -float(shares[values.clamp(max=len(counts) - 1)].log2().sum())


def _share_within(model: Model, train: Split, held_out: Split, max_seconds: float) -> float:
    """Share of the clips of both splits of which one view can be encoded in what `max_seconds` leaves beside fitting.

    Estimated by TIMED_CLIPS of `train`, which are always within it.
    """
    count = TIMED_CLIPS * distributed.world_size()
    if len(train) <= count:
        return 1.0
    timed = _evenly(train, count / len(train))
    started = time.perf_counter()
    encode_split(model, train, chosen=timed)
    # Rank 0 decides, so that all ranks encode the same clips.
    seconds, _ = distributed.sync_clock(time.perf_counter() - started)
    # Clips of a batch are padded to the longest, and batches of all clips are sorted by length.
    frames = len(timed) * int(train.num_frames[timed].max())
    frames_of_all = int(train.num_frames.sum() + held_out.num_frames.sum())
    needed = seconds * frames_of_all / frames * (2 if train.planes > 1 else 1)
    left = (1 - FITTING_SHARE) * max_seconds - seconds
    return 1.0 if needed <= left else max(left / needed, count / len(train))


def _evenly(split: Split, share: float) -> Tensor:
    """Indices of a share of the clips of `split`, at least one, at equal distances."""
    count = max(1, math.floor(share * len(split)))
    return torch.arange(count) * len(split) // count


def _with_moved(
    model: Model, split: Split, chosen: Tensor, cells: _Cells, task: str = ""
) -> _Cells:
    """The cells of the clips `chosen` × views of `split`; of stereo, followed by those of as many clips elsewhere.

    A table that has never seen a sound in the middle would take three times the bits for it.
    """
    if split.planes == 1:
        return cells
    views = len(cells.columns) // len(chosen)
    moved = _cells(model, split, chosen, views, moves=True, task=task and f"{task} once more")
    return _Cells(
        *(torch.cat([getattr(cells, f.name), getattr(moved, f.name)]) for f in fields(_Cells))
    )


def _cells(
    model: Model,
    split: Split,
    chosen: Tensor,
    views: int = 1,
    max_seconds: float = math.inf,
    *,
    moves: bool = False,
    task: str = "",
) -> _Cells:
    """The cells of the clips `chosen` × views; the view during which `max_seconds` pass is the last. `moves` and `task` as in
    `encode_split`."""
    tokens, *_ = encode_split(
        model, split, views, max_seconds, chosen=chosen, moves=moves, task=task
    )
    vocabulary, quantizers = model.vocabulary, model.vocabulary.num_quantizers
    parts = tokens.split(PART)
    columns, levels = (
        torch.cat(values)
        for values in zip(*(vocabulary.codes(part)[1:] for part in parts), strict=True)
    )
    count = int(columns.sum()) * vocabulary.rows
    contexts = scratch(count, (len(NEIGHBOURS) + 1) * quantizers - 1, dtype=tokens.dtype)
    targets = scratch(count, quantizers, dtype=tokens.dtype)
    rows = scratch(count, dtype=tokens.dtype)
    begin = 0
    for part in parts:
        codes, num_columns, _ = vocabulary.codes(part)
        extracted = context_cells(codes, num_columns, vocabulary.codebook_size)
        end = begin + len(extracted[2])
        for whole, piece in zip((contexts, targets, rows), extracted, strict=True):
            whole[begin:end] = piece
        begin = end
    return _Cells(contexts, targets, rows, columns, levels)


@torch.inference_mode()
def _bits(network: ContextModel, cells: _Cells) -> float:
    """Mean bits per cell, summed over quantizers."""
    device = network.codebooks.device
    total = 0.0
    for indices in torch.arange(len(cells)).split(1 << 14):
        total += float(network.loss(*(x.long().to(device) for x in cells.at(indices)))) * len(
            indices
        )
    return total / len(cells)


@torch.inference_mode()
def _distortion(model: Model, split: Split) -> float:
    """Mean squared distance between latents and their code vectors, over about DISTORTION_CLIPS clips."""
    autoencoder = model.autoencoder
    squared, count = 0.0, 0
    for indices in evenly_spaced(len(split), DISTORTION_CLIPS).split(32):
        images, frames = split.spectrograms(indices).to(model.device), split.num_frames[indices]
        latents = autoencoder.latents(images, frames).permute(0, 2, 3, 1)
        codes = autoencoder.encode(images, frames).permute(0, 2, 3, 1)
        decoded = autoencoder.quantizer.decode(codes.flatten(0, 2)).view_as(latents)
        columns = torch.arange(latents.shape[2])
        mask = (columns < autoencoder.num_columns(frames)[:, None]).to(model.device)
        distances = (latents - decoded).square().sum(dim=3) * mask[:, None]
        squared += float(distances.sum())
        count += int(mask.sum()) * autoencoder.rows
    return squared / count
