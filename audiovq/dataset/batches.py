"""Batches of clips of similar length, and random views of clips: shifted, changed in speed, equalized."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from audiovq.config.checks import derived_seed
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.dataset import Split
from audiovq.runtime.device import to_device_async
from audiovq.spectral.scale import NEUTRAL, balance, coherence

POOL = 24
"""Batches in a pool of clips that is sorted by length before it is cut into batches, for little padding."""


def evenly_spaced(count: int, n: int) -> Tensor:
    """Indices of `n` to 2 n - 1 of `count` items, at equal distances from the first on; all if there are fewer."""
    return torch.arange(count)[:: max(1, count // n)]


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
"""Largest shift of an image, in pixels."""
SPEED = 0.1
"""Largest relative change of speed in `random_variations`."""
ONSET_FRAMES = 6
"""First frames of a sound, which `random_variations` leaves as they are: an onset that is interpolated, or preceded by
empty frames, is one that no waveform has, and a prior that learns it makes hits that begin late and soft."""
POSITIONS = 0.75, 0.8, 0.85, 0.95
"""Shares, summed up, of stereo clips that an autoencoder learns as they are, in the middle, on one side, anywhere,
and, of the rest, anywhere with any coherence: so that it codes sounds in places where no recording of its dataset
is."""
EQUALIZER_DB = 1.5
"""Standard deviation of each of the EQUALIZER_WAVES gains of `random_variations`."""
EQUALIZER_WAVES = 4
"""Cosines over the bands, of one half period to EQUALIZER_WAVES."""


def random_views(
    split: Split,
    indices: Tensor,
    generator: torch.Generator,
    stride: int,
    part: slice = slice(None),
    width: Callable[[int], int] = int,
) -> tuple[Tensor, Tensor]:
    """Views of clips, shifted by less than `stride` frames.

    See `shift_and_stretch`. Images are shifted by up to ASIDE instead.

    Args:
        split: of the clips.
        indices: (batch,) of the clips in the split.
        generator: random numbers are sampled for the whole batch, whatever `part` is.
        stride: frames of one column of codes.
        part: of the batch that is computed, for ranks.
        width: frames of the longest view → frames of the result, at least as many.

    Returns:
        Spectrograms (part, planes, bins, frames) and frames of each view (part,).
    """
    if split.images:
        offsets = torch.randint(-ASIDE, ASIDE + 1, (len(indices), 2), generator=generator)
        frames = split.num_frames[indices]
        images = split.spectrograms(indices[part])
        whole = nn.functional.pad(images, (0, width(int(frames.max())) - images.shape[3]))
        return shift_images(whole, offsets[part]), frames[part]
    shift = torch.randint(stride, indices.shape, generator=generator)
    return shift_and_stretch(split, indices, shift, None, part, width)


def excerpts(
    images: Tensor, frames: Tensor, chance: Tensor, stride: int, columns: int
) -> tuple[Tensor, Tensor]:
    """Excerpts of clips (batch, planes, bins, frames) of `frames` (batch,), of up to `columns` × `stride` frames.

    Half of them are the beginnings of their clips, where `chance` (batch,), 0 to 1, is below a half; the others begin
    at a multiple of `stride` that `chance` decides. Shorter clips are left as they are. Returns the excerpts and
    their frames.
    """
    longest = columns * stride
    if images.shape[3] <= longest:
        return images, frames
    choices = 1 + (frames - longest).clamp(min=0) // stride
    begin = stride * ((2 * chance - 1).clamp(min=0) * choices).long().minimum(choices - 1)
    indices = (begin[:, None] + torch.arange(longest)).clamp(max=images.shape[3] - 1)
    indices = indices[:, None, None].expand(-1, *images.shape[1:3], -1)
    return images.gather(3, indices), (frames - begin).clamp(max=longest)


def random_positions(
    images: Tensor,
    chances: Tensor,
    config: SpectrogramConfig,
    positions: Sequence[float] = POSITIONS,
) -> Tensor:
    """Stereo spectrograms (batch, 3, bins, frames), a part of them in other positions: `positions` as in POSITIONS.

    `chances` (batch, 3), 0 to 1, decide which, the position, and the coherence. A position is one of gains of left and
    right with the loudness as it is. `config`: of the spectrograms.
    """
    kept, middle, side, anywhere = positions
    which, where, coherent = chances.unbind(dim=1)
    where = torch.where(which < middle, 0.5, torch.where(which < side, where.round(), where))
    correlation = torch.where(which < anywhere, 1.0, 2 * coherent - 1)
    angle = where * (math.pi / 2)
    gains = torch.stack([angle.cos(), angle.sin(), correlation, (which < kept).float()])
    left, right, correlation, is_kept = to_device_async(gains, images.device)[
        :, :, None, None, None
    ]
    loudness = images[:, :1]
    above_floor = (loudness - 1) * (config.range_db / 10) + config.stereo_floor_db / 10
    power = 2 * 10**above_floor * (loudness > 0)
    powers = power * left.square(), power * right.square()
    cross = power * left * right * correlation
    moved = [loudness, balance(torch, *powers), coherence(torch, *powers, cross)]
    return torch.where(is_kept > 0, images, torch.cat(moved, dim=1))


def random_variations(
    split: Split,
    indices: Tensor,
    generator: torch.Generator,
    stride: int,
    range_db: float,
    part: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Views of clips as similar sounds: changed in speed by up to SPEED, and equalized by a few decibels.

    Sounds begin where their recordings do, and their first ONSET_FRAMES keep their speed; clips that were cut from
    the middle begin less than `stride` frames later. `range_db`: decibels between 0 and 1 of a spectrogram. Other
    arguments and results are those of `random_views`, which images get.
    """
    if split.images:
        return random_views(split, indices, generator, stride, part)
    shift = torch.randint(stride, indices.shape, generator=generator)
    speed = 1 + SPEED * (2 * torch.rand(indices.shape, generator=generator) - 1)
    gains = EQUALIZER_DB * torch.randn(len(indices), EQUALIZER_WAVES, generator=generator)
    shift = torch.where(split.complete[indices, 0], 0, shift)
    views, frames = shift_and_stretch(split, indices, shift, speed, part, onset=ONSET_FRAMES)
    return equalize(views, gains[part], range_db), frames


def equalize(images: Tensor, gains: Tensor, range_db: float) -> Tensor:
    """Spectrograms (batch, planes, bins, frames) with smooth gains over the bins, their loudest cells 1 as before.

    `gains` (batch, waves) in dB are those of cosines of one half period, two, … over the bins. Zeros stay zeros.
    Of stereo, only the loudness changes.
    """
    if images.shape[1] > 1:
        loudness = equalize(images[:, :1], gains, range_db)
        return torch.cat([loudness, images[:, 1:]], dim=1)
    bins = images.shape[2]
    centres = (torch.arange(bins) + 0.5) / bins
    waves = torch.cos(math.pi * torch.arange(1, gains.shape[1] + 1)[:, None] * centres)
    summed = (gains[:, :, None] * waves).sum(dim=1)  # a matrix product rounds by its number of rows
    curve = to_device_async((summed / range_db)[:, None, :, None], images.device)
    louder = images + curve
    louder = louder + images.amax(dim=(2, 3), keepdim=True) - louder.amax(dim=(2, 3), keepdim=True)
    return louder.clamp(0, 1) * (images > 0)


def shift_images(images: Tensor, offsets: Tensor) -> Tensor:
    """Shift images (batch, 1, bins, frames) by `offsets` (batch, 2), bins and frames; the margin is zeros."""
    _, _, bins, frames = images.shape
    offsets = to_device_async(offsets, images.device)
    rows, columns = (
        torch.arange(size, device=images.device) - offsets[:, i : i + 1]
        for i, size in enumerate((bins, frames))
    )
    row_mask, column_mask = (rows >= 0) & (rows < bins), (columns >= 0) & (columns < frames)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    shifted = images[
        batch, 0, rows.clamp(0, bins - 1)[:, :, None], columns.clamp(0, frames - 1)[:, None]
    ]
    return (shifted * (row_mask[:, :, None] & column_mask[:, None]))[:, None]


def shift_and_stretch(
    split: Split,
    indices: Tensor,
    shift: Tensor,
    speed: Tensor | None,
    part: slice = slice(None),
    width: Callable[[int], int] = int,
    onset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Clips shifted by `shift` (batch,) frames and played at `speed` (batch,); None: unchanged.

    A clip that begins at the start of its recording is preceded by silence; one that was cut from the
    middle loses its first frames instead, as no silence precedes it. Frames are interpolated linearly.

    Args:
        split, indices, part, width: as in `random_views`.
        shift: (batch,) frames.
        speed: (batch,) relative speed, or None.
        onset: first frames that keep their speed.

    Returns:
        Spectrograms (part, planes, bins, frames) on the device of `split`, padded with silence, and the new
        frames (part,) on the CPU.
    """
    frames = split.num_frames[indices]
    played = frames
    if speed is not None:
        stretched = ((frames - 1 - onset) / speed).floor().long() + onset + 1
        played = torch.where(frames - 1 > onset, stretched, frames)
    shift = torch.where(split.complete[indices, 0], shift, -torch.minimum(shift, played - 1))
    new_frames = played + shift
    images = split.spectrograms(indices[part])
    last = images.shape[3] - 1
    # The position in the clip, in frames, of each frame of the result.
    positions = torch.arange(width(int(new_frames.max()))) - shift[part, None]
    if speed is not None:
        later = onset + (positions - onset) * speed[part, None]
        positions = torch.where(positions > onset, later, positions.to(later))

    def gather(columns: Tensor) -> Tensor:
        columns = to_device_async(columns[:, None, None], images.device)
        return images.gather(3, columns.expand(-1, *images.shape[1:3], -1))

    before = positions.floor().clamp(0, last).long()
    views = gather(before)
    if speed is not None:
        fraction = to_device_async((positions - before)[:, None, None], images.device)
        views = torch.lerp(views, gather((before + 1).clamp(max=last)), fraction)
    mask = (positions >= 0) & (positions <= (frames[part, None] - 1))
    mask = to_device_async(mask[:, None, None], images.device)
    if images.shape[1] == 1:
        return views * mask, new_frames[part]
    neutral = to_device_async(torch.tensor(NEUTRAL).view(-1, 1, 1), images.device)
    return torch.where(mask, views, neutral), new_frames[part]
