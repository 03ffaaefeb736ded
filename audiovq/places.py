"""Places in a sequence: numbers, or, in what is recorded for all of them, tensors on the GPU."""

from __future__ import annotations

import torch
from torch import Tensor

Place = int | Tensor
"""A number, or a tensor (1,) of one, whose number Python does not know."""


def read(x: Tensor, dim: int, begin: Place, count: int) -> Tensor:
    """`count` slices of x along `dim`, from `begin` on."""
    if isinstance(begin, int):
        return x.narrow(dim, begin, count)
    return x.index_select(dim, begin + torch.arange(count, device=x.device))


def write(x: Tensor, dim: int, place: Place, value: Tensor) -> None:
    """Make `value`, or what it becomes when expanded, the slice of x at `place` along `dim`."""
    if isinstance(place, int):
        x.select(dim, place).copy_(value)
    else:
        x.index_copy_(dim, place, value.expand_as(x.select(dim, 0)).unsqueeze(dim))
