"""Limits of the machine as peers: memory bandwidth and the rate of matrix products."""

from __future__ import annotations

import torch

from benchmarks.speed.comparison import Peer

COPIED = {"cpu": 1 << 24, "cuda": 1 << 26}
"""Floats copied, more than the caches hold, by type of device."""
SIDE = {"cpu": 1024, "cuda": 8192}
"""Side of the square matrices, by type of device."""


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def bandwidth(count: float) -> Peer:
    """The time in which a copy reads and writes `count` bytes."""
    source = torch.ones(COPIED[device().type], device=device())
    target = torch.empty_like(source)
    return Peer(
        "memory bandwidth", lambda: target.copy_(source), times=count / (8 * source.numel())
    )


def matrix_rate(
    count: float, dtype: torch.dtype = torch.float32, wanted: float | None = None
) -> Peer:
    """The time of square matrix products of `count` FLOPs (a multiply-add counts as two)."""
    side = SIDE[device().type]
    a = torch.ones(side, side, device=device(), dtype=dtype)
    target = torch.empty_like(a)
    return Peer(
        "peak matrix-product rate",
        lambda: torch.mm(a, a, out=target),
        wanted,
        times=count / (2 * side**3),
    )
