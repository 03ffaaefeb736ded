"""Clips as the networks meet them in training: begun a little later, a little faster or slower."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from audiovq.checkpoint import Model
from audiovq.dataset import Split

VIEWS = 12
"""Encodings of each clip that the prior learns from."""
VIEWS_SHARE = 0.2
"""Of a time limit that making them may take."""
SPEED = 0.1
"""Largest change of speed in them."""


def varied(split: Split, indices: Tensor, shift: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """Clips begun `shift` (batch,) frames later and played at `speed` (batch,), 1 as they are.

    Returns spectrograms (batch, 1, bins, frames), silence where there is no clip, and the clips'
    new (batch,) frames. Frames between frames are mixed linearly.
    """
    images, frames = split.spectrograms(indices), split.num_frames[indices]
    new_frames = ((frames - 1) / speed).floor().long() + 1 + shift
    places = (torch.arange(int(new_frames.max())) - shift[:, None]) * speed[:, None]
    inside = (places >= 0) & (places <= (frames - 1)[:, None])
    before = places.floor().clamp(0, images.shape[3] - 1).long()
    after = (before + 1).clamp(max=images.shape[3] - 1)
    share = (places - before)[:, None, None]

    def take(columns: Tensor) -> Tensor:
        return images.gather(3, columns[:, None, None].expand(-1, 1, images.shape[2], -1))

    return torch.lerp(take(before), take(after), share) * inside[:, None, None], new_frames


def encode_split(
    model: Model, split: Split, views: int = 1, max_seconds: float = math.inf
) -> tuple[Tensor, Tensor, Tensor]:
    """All clips → tokens, lengths, labels (clips × views, …), on the CPU.

    The first view is the clips as they are; each further one shifts every clip by up to a column
    and changes its speed by up to a tenth, so that a prior meets many codes for one sound. The view
    during which `max_seconds` pass is the last.
    """
    started = time.perf_counter()
    vocabulary, stride = model.vocabulary, model.autoencoder.stride[1]
    all_tokens = torch.full(
        (len(split) * views, vocabulary.max_tokens), vocabulary.end, dtype=torch.int32
    )
    all_lengths = torch.zeros(len(all_tokens), dtype=torch.long)
    order = split.num_frames.argsort(stable=True)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for view in range(views):
            for indices in order.split(64):
                shift = torch.randint(stride, indices.shape, generator=generator) * (view > 0)
                speed = 1 + (view > 0) * SPEED * (
                    2 * torch.rand(indices.shape, generator=generator) - 1
                )
                images, frames = varied(split, indices, shift, speed)
                frames = frames.clamp(max=model.clip_frames)
                images = images[..., : int(frames.max())].to(model.device)
                codes = model.autoencoder.encode(images, frames).cpu()
                columns = model.autoencoder.num_columns(frames)
                tokens, lengths = vocabulary.tokens(codes, columns, split.levels[indices])
                rows = indices + view * len(split)
                all_tokens[rows, : tokens.shape[1]] = tokens.int()
                all_lengths[rows] = lengths
            if time.perf_counter() - started > max_seconds:
                views = view + 1
                break
    rows_made = len(split) * views
    return all_tokens[:rows_made], all_lengths[:rows_made], split.label_indices.repeat(views, 1)
