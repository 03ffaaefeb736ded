"""Measured limits of the machine: memory bandwidth and matrix-product rate."""

from __future__ import annotations

import functools

import torch

from benchmarks.speed.comparison import seconds

COPIED = 1 << 26
"""Floats copied: more than the caches hold."""
SIDE = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices, by type of device."""
TRIES = 5


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


@functools.cache
def bandwidth() -> float:
    """Bytes per second, read plus written: the best of TRIES copies."""
    source = torch.ones(COPIED, device=device())
    target = torch.empty_like(source)
    return 8 * COPIED / min(seconds(lambda: target.copy_(source)) for _ in range(TRIES))


@functools.cache
def matrix_rate(dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s (a multiply-add counts as two): the best of TRIES matrix products."""
    side = SIDE[device().type]
    a = torch.ones(side, side, device=device(), dtype=dtype)
    target = torch.empty_like(a)
    return 2 * side**3 / min(seconds(lambda: torch.mm(a, a, out=target)) for _ in range(TRIES))
