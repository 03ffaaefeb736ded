"""Batches of clips of like length, and random views of them: shifted and changed in speed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from audiovq.config.checks import derived_seed
from audiovq.dataset.dataset import Split
from audiovq.runtime.device import to_device_async

POOL = 24
"""Batches per pool of clips that is sorted by length before it is cut into batches, to pad little."""


def batches(lengths: Tensor, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """One epoch of batches, as index tensors in random order, with clips of similar length together.

    `lengths` (clips,) are jittered by 5 %, so that batches differ in every epoch.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
    shuffled = torch.randperm(len(lengths), generator=generator)
    pools = torch.split(shuffled, batch_size * POOL)
    jittered = lengths * (0.95 + 0.1 * torch.rand(len(lengths), generator=generator))
    by_length = (pool[jittered[pool].argsort(stable=True)] for pool in pools)
    cut = [batch for pool in by_length for batch in torch.split(pool, batch_size)]
    return [cut[i] for i in torch.randperm(len(cut), generator=generator)]


ASIDE = 1
"""Pixels that an image is moved, at most."""


def random_views(
    split: Split,
    indices: Tensor,
    generator: torch.Generator,
    stride: int,
    speed: float = 0.0,
    part: slice = slice(None),
    width: Callable[[int], int] = int,
) -> tuple[Tensor, Tensor]:
    """Clips begun up to a code's `stride` of frames later, and changed in speed by up to `speed`: see
    `shift_and_stretch`.

    Images are moved by up to ASIDE. Returns (batch, 1, bins, frames) and the clips' (batch,) frames;
    with `part`, only those of the clips, as wide as with all, which `width` may make wider.
    """
    if split.images:
        offsets = torch.randint(-ASIDE, ASIDE + 1, (len(indices), 2), generator=generator)
        frames = split.num_frames[indices]
        images = split.spectrograms(indices[part])
        whole = nn.functional.pad(images, (0, width(int(frames.max())) - images.shape[3]))
        return shift_images(whole, offsets[part]), frames[part]
    shift = torch.randint(stride, indices.shape, generator=generator)
    faster = None
    if speed:
        faster = 1 + speed * (2 * torch.rand(indices.shape, generator=generator) - 1)
    return shift_and_stretch(split, indices, shift, faster, part, width)


def shift_images(images: Tensor, offsets: Tensor) -> Tensor:
    """(batch, 1, bins, frames) moved by (batch, 2) bins and frames; zeros come in."""
    _, _, bins, frames = images.shape
    offsets = to_device_async(offsets, images.device)
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


def shift_and_stretch(
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
        columns = to_device_async(columns[:, None, None], images.device)
        return images.gather(3, columns.expand(-1, 1, images.shape[2], -1))

    before = places.floor().clamp(0, last).long()
    taken = take(before)
    if speed is not None:
        share = to_device_async((places - before)[:, None, None], images.device)
        taken = torch.lerp(taken, take((before + 1).clamp(max=last)), share)
    inside = (places >= 0) & (places <= (frames[part, None] - 1))
    return taken * to_device_async(inside[:, None, None], images.device), new_frames[part]
