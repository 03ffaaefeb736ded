"""Clips of codes with holes: how holes are made to learn from, and in which order they are filled."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from audiovq.graphs import sent

CROPPED = 0.2
"""How often in training a clip's beginning is cut off, and how often its end."""
KINDS = (0.5, 0.65, 0.8, 0.9)
"""Of masks in training, the shares, added up, that hide whole columns as sampling does, whole columns
anywhere, those of a span of time, and codes in a band of rows; the rest hide codes anywhere."""


@dataclass(frozen=True)
class Canvas:
    """Clips of unequal lengths with holes, and what is known about them."""

    codes: Tensor
    """(batch, quantizers, rows, columns); what stands where `hidden` only codes above it in its column are
    told, in training."""
    hidden: Tensor
    """The same shape, bool: the holes."""
    num_columns: Tensor
    """(batch,) at most the vocabulary's; columns beyond are padding."""
    levels: Tensor
    """(batch,)"""
    labels: Tensor
    """(batch, labels), one past the last value where it is left open."""
    whole: Tensor
    """(batch, 2) bool: whether the clip begins with the first column, and ends with its last one;
    else it was cut from something longer."""

    @property
    def inside(self) -> Tensor:
        """(batch, columns) bool: what is no padding."""
        columns = torch.arange(self.codes.shape[3], device=self.codes.device)
        return columns < self.num_columns[:, None]

    def repeat(self, times: int) -> Canvas:
        """All clips, so many times over."""
        parts = (getattr(self, field.name) for field in fields(self))
        return Canvas(*(x.repeat(times, *[1] * (x.ndim - 1)) for x in parts))

    def to(self, device: torch.device) -> Canvas:
        """The same on `device`."""
        return Canvas(*(sent(getattr(self, field.name), device) for field in fields(self)))


def masked_at_random(
    codes: Tensor,
    num_columns: Tensor,
    levels: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    complete: Tensor | None = None,
) -> Canvas:
    """Clips (batch, quantizers, rows, columns) with holes to learn from, some of them cut short.

    `complete` (batch, 2) says which begin and end as their recordings do (None: all); the others were
    cut before.
    The share that is hidden is cos(π u / 2), u even from 0 to 1, of what KINDS says, and all where that
    is nothing. Everything on the CPU, `generator` too.
    """
    batch, _, rows, columns = codes.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator)

    cut, keep = uniform(2) < CROPPED, uniform(2)
    begin = ((num_columns - 1) * cut[:, 0] * keep[:, 0]).long()
    end = num_columns - ((num_columns - 1 - begin) * cut[:, 1] * keep[:, 1]).long()
    places = (torch.arange(columns) + begin[:, None]).clamp(max=columns - 1)
    codes = codes.gather(3, places[:, None, None].expand_as(codes))
    count = end - begin
    kind, share = uniform(1), torch.cos(uniform(1) * math.pi / 2)
    first, last = (uniform(2) * count[:, None]).sort(dim=1).values.T
    low, high = (uniform(2) * rows).sort(dim=1).values.T
    column, row = torch.arange(columns), torch.arange(rows)
    span = (column >= first.floor()[:, None]) & (column <= last[:, None])
    band = (row >= low.floor()[:, None]) & (row <= high[:, None])
    rank = torch.stack([nn.functional.pad(ranks_of(int(n)), (0, columns - int(n))) for n in count])
    late = rank >= ((1 - share) * count[:, None]).floor()
    some = uniform(columns) < share
    columns_hidden = torch.where(kind < KINDS[0], late, some & (span | (kind < KINDS[1])))
    single = (uniform(*codes.shape[1:]) < share[:, None, None]) & (
        band[:, None, :, None] | (kind >= KINDS[3])[:, None, None]
    )
    hidden = torch.where(
        (kind < KINDS[2])[:, None, None], columns_hidden[:, None, None].expand_as(codes), single
    )
    inside = column < count[:, None]
    nothing = ~(hidden & inside[:, None, None]).flatten(1).any(
        dim=1
    )  # there would be none to learn
    whole = ~cut if complete is None else ~cut & complete
    return Canvas(codes, hidden | nothing[:, None, None, None], count, levels, labels, whole)


@functools.lru_cache(4096)
def ranks_of(columns: int) -> Tensor:
    """(columns,) when each is drawn: the middle one first, then the middles of what lies on both its
    sides, and so on, so that none is drawn in a row with the one beside it."""
    ranks, spans = torch.zeros(columns, dtype=torch.long), [(0, columns)]
    for rank in range(columns):
        begin, end = spans.pop(0)
        middle = (begin + end) // 2
        ranks[middle] = rank
        spans += [span for span in ((begin, middle), (middle + 1, end)) if span[0] < span[1]]
    return ranks


def turns(holes: Tensor, steps: int) -> Tensor:
    """(batch, columns) bool, on the CPU → the step at which each column with holes is drawn, -1 for
    the others. What is left after each step goes as the cosine (Chang et al. 2022, section 3.2)."""
    turn = torch.full(holes.shape, -1)
    for row, clip in zip(turn, holes, strict=True):
        count = int(clip.sum())
        shares = 1 - torch.cos(math.pi / 2 * torch.arange(1, steps + 1) / steps)
        drawn = (shares * count).ceil().long()
        drawn[-1] = count
        row[clip] = torch.searchsorted(drawn, ranks_of(count), right=True)
    return turn
