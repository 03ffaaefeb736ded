"""The quantizer in training (forward and backward), against other implementations."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from audiovq.config.autoencoder import BottleneckConfig
from audiovq.models.autoencoder.quantizers import Quantizer
from benchmarks.speed.comparison import Peer, Row, Run, compare
from benchmarks.speed.limits import device, matrix_rate
from benchmarks.speed.memory import compare_peaks

SIZES = ((4_096, 512, 64), (65_536, 1_024, 64), (262_144, 8_192, 64))
"""Sizes: vectors, codes, dimensions."""
DECAY, COMMITMENT = 0.99, 0.25
THEIRS = 5
"""Arrays of vectors × codes that vector-quantize-pytorch holds at once, at least."""

Size = tuple[int, int, int]


class Plain(nn.Module):
    """The tutorials' EMA codebook: all distances at once, and a one-hot row for each vector."""

    def __init__(self, size: Size, distances: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.distances = distances
        self.codebook = torch.randn(size[1], size[2], device=device())
        self.count, self.total = torch.ones(size[1], device=device()), self.codebook.clone()

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(vectors, dim) → quantized with a straight-through gradient, commitment loss."""
        chosen = self.distances(latents.detach(), self.codebook).argmin(dim=1)
        one_hot = nn.functional.one_hot(chosen, len(self.codebook)).to(latents.dtype)
        quantized = one_hot @ self.codebook
        with torch.no_grad():
            self.count.lerp_(one_hot.sum(dim=0), 1 - DECAY)
            self.total.lerp_(one_hot.T @ latents.detach(), 1 - DECAY)
            self.codebook = self.total / self.count.clamp_min(1e-5)[:, None]
        loss = COMMITMENT * (latents - quantized).square().mean()
        return latents + (quantized - latents).detach(), loss


def broadcast(latents: Tensor, codebook: Tensor) -> Tensor:
    """Squared distances as in the residual tutorial, by a tensor of vectors × codes × dimensions."""
    return ((latents[:, None] - codebook) ** 2).sum(dim=2)


def latents(size: Size) -> Tensor:
    """Random (vectors, dim) that requires a gradient."""
    torch.manual_seed(0)
    return torch.randn(size[0], size[2], device=device()).requires_grad_()


def step_of(latents: Tensor, quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Run:
    """A function that runs forward and backward, as a training step does."""
    gradient = torch.ones_like(latents)

    def step() -> None:
        latents.grad = None
        quantized, loss = quantize(latents)
        torch.autograd.backward((quantized, loss), (gradient, None))

    return step


def ours(size: Size) -> Run:
    """Our `Quantizer` with EMA updates."""
    config = BottleneckConfig(
        latent_dim=size[2],
        codebook_size=size[1],
        decay=DECAY,
        commitment=COMMITMENT,
        kmeans_start=False,
        restart=False,
    )
    quantizer = Quantizer(config).to(device())
    quantizer.codebooks()[0].vectors.normal_()

    def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
        made = quantizer(x)
        return made.latents, made.loss

    return step_of(latents(size), quantize)


def library(size: Size) -> Run:
    """vector-quantize-pytorch with equal settings."""
    from vector_quantize_pytorch import VectorQuantize

    quantizer = VectorQuantize(
        size[2],
        codebook_size=size[1],
        decay=DECAY,
        commitment_weight=COMMITMENT,
        rotation_trick=False,
        threshold_ema_dead_code=0,
    ).to(device())

    def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, _, loss = quantizer(x[None])
        return quantized[0], loss.sum()

    return step_of(latents(size), quantize)


def plain(size: Size, distances: Callable[[Tensor, Tensor], Tensor]) -> Run:
    """`Plain` with one way to compute distances."""
    return step_of(latents(size), Plain(size, distances))


def product(size: Size) -> Run:
    """The matrix product latents × codesᵀ alone, without gradients."""
    x, codes = latents(size).detach(), torch.randn(size[1], size[2], device=device())
    return lambda: x @ codes.T


def fits(count: float) -> bool:
    """Whether `count` bytes are less than two thirds of the free memory."""
    if torch.cuda.is_available():
        return count < torch.cuda.mem_get_info()[0] / 1.5
    return count < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1.5


def rows(sounds: Path | None = None) -> Iterator[Row]:
    """All sizes (the largest on a GPU only, as it takes minutes on a CPU), except peers that would not fit
    into memory."""
    for size in SIZES if torch.cuda.is_available() else SIZES[:-1]:
        name = "quantizer ({:,}, {:,}, {})".format(*size)
        cells, middle = 4 * size[0] * size[1], size == SIZES[1]
        peers = [matrix_rate(2 * size[0] * size[1] * size[2])]
        if fits(cells):
            peers.append(Peer("matrix product", product(size), 1 / 1.5 if middle else None))
        if fits(2 * cells * size[2]):
            wanted = 50 if size == SIZES[0] else None
            peers.append(Peer("broadcast", plain(size, broadcast), wanted, once=True))
        if fits(4 * cells):
            peers.append(Peer("torch.cdist", plain(size, torch.cdist)))
        if fits(THEIRS * cells):
            peers.append(Peer("vector-quantize-pytorch", library(size), 6 if middle else None))
        yield from compare(name, ours(size), *peers, rounds=2)
        if fits(THEIRS * cells):
            yield compare_peaks(
                f"memory of {name}",
                "vector-quantize-pytorch",
                functools.partial(ours, size),
                functools.partial(library, size),
                5 if middle else None,
            )
