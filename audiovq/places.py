"""Positions in a sequence that are either Python ints or, inside CUDA graphs, tensors on the GPU."""

from __future__ import annotations

import torch
from torch import Tensor

Position = int | Tensor
"""An int, or a tensor (1,) on the GPU, so that one CUDA graph serves all positions."""


def read_at(x: Tensor, dim: int, begin: Position, count: int) -> Tensor:
    """`count` slices of x along `dim`, from `begin` on."""
    if isinstance(begin, int):
        return x.narrow(dim, begin, count)
    return x.index_select(dim, begin + torch.arange(count, device=x.device))


def write_at(x: Tensor, dim: int, position: Position, value: Tensor) -> None:
    """Write `value`, broadcast if needed, into the slice of x at `position` along `dim`."""
    if isinstance(position, int):
        x.select(dim, position).copy_(value)
    else:
        x.index_copy_(dim, position, value.expand_as(x.select(dim, 0)).unsqueeze(dim))
