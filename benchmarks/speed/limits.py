"""What the machine can do at most: the bytes it moves and the products it multiplies a second."""

from __future__ import annotations

import functools

import torch

from benchmarks.speed.comparison import seconds

COPIED = 1 << 26
"""Floats that are copied: more than caches hold."""
SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices that are multiplied."""
TRIES = 5


def device() -> torch.device:
    """The GPU, where there is one."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


@functools.cache
def bandwidth() -> float:
    """Bytes a second, read and written, of the best of some copies."""
    source = torch.ones(COPIED, device=device())
    target = torch.empty_like(source)
    return 8 * COPIED / min(seconds(lambda: target.copy_(source)) for _ in range(TRIES))


@functools.cache
def matrix_rate(dtype: torch.dtype = torch.float32) -> float:
    """Operations a second, a product and a sum being two, of the best of some matrix products."""
    side = SIDE[device().type]
    a = torch.ones(side, side, device=device(), dtype=dtype)
    target = torch.empty_like(a)
    return 2 * side**3 / min(seconds(lambda: torch.mm(a, a, out=target)) for _ in range(TRIES))
