"""A dataset's clips as tokens, the training data of priors and entropy tables."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import torch
from torch import Tensor

from audiovq.dataset.batches import random_positions, random_variations
from audiovq.dataset.dataset import Dataset, Split, known_ends
from audiovq.models.model import Model
from audiovq.runtime import distributed
from audiovq.runtime.progress import progress
from audiovq.runtime.tensors import scratch

VIEWS = 12
"""Encodings of each clip that the prior learns from."""
MOVES = 0.0, 0.5, 0.7, 0.9
"""Shares of the positions of moved clips, summed up: see `batches.POSITIONS`."""
VIEWS_SHARE = 0.2
"""Of a time limit that making them may take."""


class Encodings(NamedTuple):
    """Clips as the priors learn them, a row each."""

    tokens: Tensor
    """(clips, max_tokens), END from a clip's end on."""
    lengths: Tensor
    """(clips,) of the tokens to be learnt: END is not among them where it is not known that a clip ends."""
    labels: Tensor
    """(clips, labels)"""
    complete: Tensor
    """(clips, 2) bool: whether each begins and ends as its recording does."""


def encode_views(
    model: Model, dataset: Dataset, limit: float | None, task: str = ""
) -> tuple[Encodings, Encodings]:
    """What priors learn from and what they are held against: VIEWS of the training clips, in a share of
    `limit` seconds, and the validation clips as they are, where there are any. `task` as in `encode_split`."""
    seconds = math.inf if limit is None else VIEWS_SHARE * limit
    source = encode_split(model, dataset.train, VIEWS, seconds, task=task)
    held_out = encode_split(model, dataset.validation) if len(dataset.validation) else source
    return source, held_out


def encode_split(
    model: Model,
    split: Split,
    views: int = 1,
    max_seconds: float = math.inf,
    *,
    chosen: Tensor | None = None,
    moves: bool = False,
    task: str = "",
) -> Encodings:
    """All clips, or those at the indices `chosen` (clips,), × views, on the CPU; tokens are int16 where that holds them, and else int32.

    The first view is the clips as they are; each further one is `random_variations`, so that a prior meets many
    codes for one sound. The view during which `max_seconds` pass is the last. Ranks each make a part of all.
    `moves`: of stereo, every clip is moved, half of them to the middle, by `random_positions`. `task`: name under
    which progress is shown.
    """
    started = time.perf_counter()
    vocabulary, stride = model.vocabulary, model.autoencoder.stride[1]
    config = model.spectrogram.config
    dtype = torch.int16 if vocabulary.size < 1 << 15 else torch.int32
    chosen = torch.arange(len(split)) if chosen is None else chosen
    row_of = torch.zeros(len(split), dtype=torch.long)
    row_of[chosen] = torch.arange(len(chosen))
    all_tokens = scratch(len(chosen) * views, vocabulary.max_tokens, dtype=dtype)
    all_lengths = torch.zeros(len(all_tokens), dtype=torch.long)
    known = known_ends(split, model.clip_frames)
    all_cut = torch.zeros(len(all_tokens), dtype=torch.bool)
    order = chosen[split.num_frames[chosen].argsort(stable=True)]
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(), progress(task, views * len(chosen), "clips") as done:
        for view in range(views):
            for number, indices in enumerate(order.split(64)):
                is_ours = number % distributed.world_size() == distributed.rank()
                part = slice(None) if is_ours else slice(0)
                images, frames = split.spectrograms(indices[part]), split.num_frames[indices]
                if view:  # every rank samples the same random numbers
                    images, frames = random_variations(
                        split, indices, generator, stride, config.range_db, part
                    )
                chances = torch.rand(len(indices) if moves else 0, 3, generator=generator)
                if not is_ours:
                    done(len(indices))
                    continue
                if moves:
                    images = random_positions(images, chances, config, MOVES)
                ends = known[indices, 1] & (frames <= model.clip_frames)  # longer ones are cut
                frames = frames.clamp(max=model.clip_frames)
                images = images[..., : int(frames.max())].to(model.device)
                codes = model.autoencoder.encode(images, frames).cpu()
                columns = model.autoencoder.num_columns(frames)
                tokens, lengths = vocabulary.tokens(codes, columns, split.levels[indices])
                rows = row_of[indices] + view * len(chosen)
                all_tokens[rows] = vocabulary.end
                all_tokens[rows, : tokens.shape[1]] = tokens.to(dtype)
                all_lengths[rows] = lengths - (~ends & (columns < vocabulary.max_columns)).long()
                all_cut[rows] = ~ends
                done(len(indices))
            if distributed.sync_clock(time.perf_counter() - started)[0] > max_seconds:
                views = view + 1
                break
    rows_made = len(chosen) * views
    all_tokens, all_lengths = all_tokens[:rows_made], all_lengths[:rows_made]
    for made in (all_tokens, all_lengths, all_cut := all_cut[:rows_made]):
        distributed.all_reduce_sum(made.view(torch.uint8))  # a row is zeros in all ranks but one
    complete = known[chosen].repeat(views, 1)
    complete[:, 1] &= ~all_cut
    labels = split.label_indices[chosen].repeat(views, 1)
    return Encodings(all_tokens, all_lengths, labels, complete)


def code_counts(model: Model, split: Split) -> Tensor:
    """(quantizers, codebook_size) number of occurrences of each code in a split's clips."""
    if not model.autoencoder.config.quantizes:
        return torch.zeros(0, 0, dtype=torch.long)
    vocabulary = model.vocabulary
    counts = torch.zeros(vocabulary.end, dtype=torch.long)
    for tokens in encode_split(model, split)[0].split(4096):
        codes = tokens[tokens < vocabulary.end].long()
        counts += torch.bincount(codes, minlength=vocabulary.end)
    return counts.view(vocabulary.num_quantizers, -1)
