"""Masked clips of codes: random masks for training, and the schedule for unmasking in sampling."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from audiovq.runtime.device import to_device_async

CROP_PROBABILITY = 0.2
"""Probability that a training clip's beginning is cut off, and, independently, its end."""
MASK_KINDS = (0.5, 0.65, 0.8, 0.9)
"""Cumulative probabilities of the training mask kinds: columns in sampling order, random columns, random
columns of a time span, random codes of a frequency band; else random codes."""

MOST_REPLACED = 0.3
"""Share of the visible codes of a training clip that are replaced, at most."""


@dataclass(frozen=True)
class MaskedClips:
    """A batch of partly masked clips of different lengths, with their levels and labels."""

    codes: Tensor
    """(batch, quantizers, rows, columns). Masked codes are the training targets; only the codes above
    them in their column are predicted from them."""
    hidden: Tensor
    """(batch, quantizers, rows, columns) bool: True for masked codes."""
    num_columns: Tensor
    """(batch,) length of each clip, at most the vocabulary's max_columns; later columns are padding."""
    levels: Tensor
    """(batch,)"""
    labels: Tensor
    """(batch, labels), the null label where unknown."""
    whole: Tensor
    """(batch, 2) bool: whether the clip includes the beginning of the sound, and its end; False where it
    was cropped."""

    @property
    def valid(self) -> Tensor:
        """(batch, columns) bool: False for padding."""
        columns = torch.arange(self.codes.shape[3], device=self.codes.device)
        return columns < self.num_columns[:, None]

    def repeat(self, times: int) -> MaskedClips:
        """The batch repeated `times` times."""
        parts = (getattr(self, field.name) for field in fields(self))
        return MaskedClips(*(x.repeat(times, *[1] * (x.ndim - 1)) for x in parts))

    def to(self, device: torch.device) -> MaskedClips:
        """A copy on `device`."""
        return MaskedClips(
            *(to_device_async(getattr(self, field.name), device) for field in fields(self))
        )


def training_masks(
    codes: Tensor,
    num_columns: Tensor,
    levels: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    complete: Tensor | None = None,
) -> MaskedClips:
    """Mask clips (batch, quantizers, rows, columns) at random for training, and crop some of them.

    A share cos(π u / 2) of the codes that MASK_KINDS selects is masked, u uniform in [0, 1); a clip with
    no masked code is masked completely. `complete` (batch, 2), bool: whether each clip begins and ends
    with its recording; None: all do. All tensors, and `generator`, must be on the CPU.
    """
    batch, _, rows, columns = codes.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator)

    cut, amount = uniform(2) < CROP_PROBABILITY, uniform(2)
    begin = ((num_columns - 1) * cut[:, 0] * amount[:, 0]).long()
    end = num_columns - ((num_columns - 1 - begin) * cut[:, 1] * amount[:, 1]).long()
    source = (torch.arange(columns) + begin[:, None]).clamp(max=columns - 1)
    codes = codes.gather(3, source[:, None, None].expand_as(codes))
    count = end - begin
    kind, share = uniform(1), torch.cos(uniform(1) * math.pi / 2)
    first, last = (uniform(2) * count[:, None]).sort(dim=1).values.T
    low, high = (uniform(2) * rows).sort(dim=1).values.T
    column, row = torch.arange(columns), torch.arange(rows)
    span = (column >= first.floor()[:, None]) & (column <= last[:, None])
    band = (row >= low.floor()[:, None]) & (row <= high[:, None])
    rank = torch.stack(
        [nn.functional.pad(bisection_order(int(n)), (0, columns - int(n))) for n in count]
    )
    scheduled = rank >= ((1 - share) * count[:, None]).floor()
    random = uniform(columns) < share
    by_column = torch.where(
        kind < MASK_KINDS[0], scheduled, random & (span | (kind < MASK_KINDS[1]))
    )
    by_code = (uniform(*codes.shape[1:]) < share[:, None, None]) & (
        band[:, None, :, None] | (kind >= MASK_KINDS[3])[:, None, None]
    )
    mask = torch.where(
        (kind < MASK_KINDS[2])[:, None, None], by_column[:, None, None].expand_as(codes), by_code
    )
    valid = column < count[:, None]
    unmasked = ~(mask & valid[:, None, None]).flatten(1).any(dim=1)  # no target to learn from
    whole = ~cut if complete is None else ~cut & complete
    return MaskedClips(codes, mask | unmasked[:, None, None, None], count, levels, labels, whole)


def replace_visible(clips: MaskedClips, generator: torch.Generator) -> MaskedClips:
    """The clips with some of their visible codes replaced by those of the clip before in the batch, in the same place.

    The share is random, up to MOST_REPLACED. Only for training, as some of BERT's tokens are (Devlin et al. 2019,
    section 3.1): when a sound is sampled, the visible codes are the prior's own, and not all of them fit. All
    tensors, and `generator`, must be on the CPU.
    """
    codes = clips.codes
    share = MOST_REPLACED * torch.rand(len(codes), 1, 1, 1, generator=generator)
    chosen = torch.rand(codes.shape, generator=generator) < share
    both_valid = (clips.valid & clips.valid.roll(1, 0))[:, None, None]
    chosen &= ~clips.hidden & both_valid
    return replace(clips, codes=torch.where(chosen, codes.roll(1, 0), codes))


@functools.lru_cache(4096)
def bisection_order(columns: int) -> Tensor:
    """Rank (columns,) of each column in the sampling order: the first, which has a sound's onset, then the middle of the
    rest, then the middles of both halves, and so on breadth-first, so that few columns of a step are adjacent."""
    ranks, spans = torch.zeros(columns, dtype=torch.long), [(1, columns)]
    for rank in range(1, columns):
        begin, end = spans.pop(0)
        middle = (begin + end) // 2
        ranks[middle] = rank
        spans += [span for span in ((begin, middle), (middle + 1, end)) if span[0] < span[1]]
    return ranks


def unmask_schedule(masked: Tensor, steps: int) -> Tensor:
    """Sampling step of each `masked` column, bool (batch, columns) on the CPU; -1 for the others.

    The share still masked after each step follows a cosine (Chang et al. 2022, section 3.2).
    """
    schedule = torch.full(masked.shape, -1)
    for row, clip in zip(schedule, masked, strict=True):
        count = int(clip.sum())
        shares = 1 - torch.cos(math.pi / 2 * torch.arange(1, steps + 1) / steps)
        unmasked = (shares * count).ceil().long()
        unmasked[-1] = count
        row[clip] = torch.searchsorted(unmasked, bisection_order(count), right=True)
    return schedule
