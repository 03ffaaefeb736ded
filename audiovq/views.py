"""Clips as the networks meet them in training: begun a little later, a little faster or slower; images
a little aside."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from audiovq import ranks
from audiovq.checkpoint import Model
from audiovq.dataset import Dataset, Split
from audiovq.graphs import sent

VIEWS = 12
"""Encodings of each clip that the prior learns from."""
VIEWS_SHARE = 0.2
"""Of a time limit that making them may take."""
SPEED = 0.1
"""Largest change of speed in them."""
ASIDE = 1
"""Pixels that an image is moved, at most."""


def drawn(
    split: Split,
    indices: Tensor,
    generator: torch.Generator,
    stride: int,
    speed: float = 0.0,
    part: slice = slice(None),
    width: Callable[[int], int] = int,
) -> tuple[Tensor, Tensor]:
    """Clips begun up to a code's `stride` of frames later, and changed in speed by up to `speed`: see
    `varied`.

    Images are moved by up to ASIDE. Returns (batch, 1, bins, frames) and the clips' (batch,) frames;
    with `part`, only those of the clips, as wide as with all, which `width` may make wider.
    """
    if split.images:
        offsets = torch.randint(-ASIDE, ASIDE + 1, (len(indices), 2), generator=generator)
        frames = split.num_frames[indices]
        images = split.spectrograms(indices[part])
        whole = nn.functional.pad(images, (0, width(int(frames.max())) - images.shape[3]))
        return moved(whole, offsets[part]), frames[part]
    shift = torch.randint(stride, indices.shape, generator=generator)
    faster = None
    if speed:
        faster = 1 + speed * (2 * torch.rand(indices.shape, generator=generator) - 1)
    return varied(split, indices, shift, faster, part, width)


def moved(images: Tensor, offsets: Tensor) -> Tensor:
    """(batch, 1, bins, frames) moved by (batch, 2) bins and frames; zeros come in."""
    _, _, bins, frames = images.shape
    offsets = sent(offsets, images.device)
    rows, columns = (
        torch.arange(size, device=images.device) - offsets[:, i : i + 1]
        for i, size in enumerate((bins, frames))
    )
    inside = ((rows >= 0) & (rows < bins))[:, :, None] & ((columns >= 0) & (columns < frames))[
        :, None
    ]
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    taken = images[
        batch, 0, rows.clamp(0, bins - 1)[:, :, None], columns.clamp(0, frames - 1)[:, None]
    ]
    return (taken * inside)[:, None]


def varied(
    split: Split,
    indices: Tensor,
    shift: Tensor,
    speed: Tensor | None,
    part: slice = slice(None),
    width: Callable[[int], int] = int,
) -> tuple[Tensor, Tensor]:
    """Clips begun `shift` (batch,) frames later and played at `speed` (batch,), None as they are.

    Silence goes before what begins as its recording does; of what was cut there, the first frames are left
    out, since before them there is no silence.

    Returns spectrograms (batch, 1, bins, frames), silence where there is no clip, and the clips'
    new (batch,) frames. Frames between frames are mixed linearly. With `part`, only those of the
    clips, as wide as with all, which `width` may make wider. Spectrograms lie where `split` gives
    them, all else on the CPU.
    """
    frames = split.num_frames[indices]
    played = frames if speed is None else ((frames - 1) / speed).floor().long() + 1
    shift = torch.where(split.complete[indices, 0], shift, -torch.minimum(shift, played - 1))
    new_frames = played + shift
    wide = width(int(new_frames.max()))
    images = split.spectrograms(indices[part])
    last = images.shape[3] - 1
    places = torch.arange(wide) - shift[part, None]
    if speed is not None:
        places = places * speed[part, None]

    def take(columns: Tensor) -> Tensor:
        columns = sent(columns[:, None, None], images.device)
        return images.gather(3, columns.expand(-1, 1, images.shape[2], -1))

    before = places.floor().clamp(0, last).long()
    taken = take(before)
    if speed is not None:
        share = sent((places - before)[:, None, None], images.device)
        taken = torch.lerp(taken, take((before + 1).clamp(max=last)), share)
    inside = (places >= 0) & (places <= (frames[part, None] - 1))
    return taken * sent(inside[:, None, None], images.device), new_frames[part]


def scratch(*shape: int, dtype: torch.dtype) -> Tensor:
    """Zeros on disk, memory-mapped, in a file that has no name and ends with them: what grows with the
    clips takes no memory that the system could not take back."""
    plain = torch.empty(0, dtype=dtype).numpy().dtype
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, plain, "w+", shape=shape))


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
    model: Model, dataset: Dataset, limit: float | None
) -> tuple[Encodings, Encodings]:
    """What priors learn from and what they are held against: VIEWS of the training clips, in a share of
    `limit` seconds, and the validation clips as they are, where there are any."""
    seconds = math.inf if limit is None else VIEWS_SHARE * limit
    source = encode_split(model, dataset.train, VIEWS, seconds)
    held_out = encode_split(model, dataset.validation) if len(dataset.validation) else source
    return source, held_out


def known_ends(split: Split, clip_frames: int) -> Tensor:
    """(clips, 2) bool: `split.complete`. Where no clip is complete or as long as a clip can be, nothing would
    tell how long sounds are; then all are taken as complete."""
    known = split.complete.all(dim=1) | (split.num_frames >= clip_frames)
    return split.complete if bool(known.any()) else torch.ones_like(split.complete)


def encode_split(
    model: Model, split: Split, views: int = 1, max_seconds: float = math.inf
) -> Encodings:
    """All clips × views, on the CPU; tokens are int16 where that holds them, and else int32.

    The first view is the clips as they are; each further one is `drawn`, with changes of speed by up
    to a tenth, so that a prior meets many codes for one sound. The view during which `max_seconds`
    pass is the last. Ranks each make a part of all.
    """
    started = time.perf_counter()
    vocabulary, stride = model.vocabulary, model.autoencoder.stride[1]
    dtype = torch.int16 if vocabulary.size < 1 << 15 else torch.int32
    all_tokens = scratch(len(split) * views, vocabulary.max_tokens, dtype=dtype)
    all_lengths = torch.zeros(len(all_tokens), dtype=torch.long)
    known = known_ends(split, model.clip_frames)
    all_cut = torch.zeros(len(all_tokens), dtype=torch.bool)
    order = split.num_frames.argsort(stable=True)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for view in range(views):
            for number, indices in enumerate(order.split(64)):
                own = number % ranks.world() == ranks.rank()
                part = slice(None) if own else slice(0)
                images, frames = split.spectrograms(indices[part]), split.num_frames[indices]
                if view:  # what is drawn is drawn in every rank
                    images, frames = drawn(split, indices, generator, stride, SPEED, part)
                if not own:
                    continue
                ends = known[indices, 1] & (frames <= model.clip_frames)  # longer ones are cut
                frames = frames.clamp(max=model.clip_frames)
                images = images[..., : int(frames.max())].to(model.device)
                codes = model.autoencoder.encode(images, frames).cpu()
                columns = model.autoencoder.num_columns(frames)
                tokens, lengths = vocabulary.tokens(codes, columns, split.levels[indices])
                rows = indices + view * len(split)
                all_tokens[rows] = vocabulary.end
                all_tokens[rows, : tokens.shape[1]] = tokens.to(dtype)
                all_lengths[rows] = lengths - (~ends & (columns < vocabulary.max_columns)).long()
                all_cut[rows] = ~ends
            if ranks.agreed(time.perf_counter() - started)[0] > max_seconds:
                views = view + 1
                break
    rows_made = len(split) * views
    all_tokens, all_lengths = all_tokens[:rows_made], all_lengths[:rows_made]
    for made in (all_tokens, all_lengths, all_cut := all_cut[:rows_made]):
        ranks.total(made.view(torch.uint8))  # a row is zeros in all ranks but one
    complete = known.repeat(views, 1)
    complete[:, 1] &= ~all_cut
    return Encodings(all_tokens, all_lengths, split.label_indices.repeat(views, 1), complete)
