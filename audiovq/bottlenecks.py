"""What stands between encoder and decoder: nothing, or codebooks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

from audiovq.config import AutoencoderConfig

CHUNK_CELLS = 1 << 24
"""Distances held at a time, so that memory does not grow with latents × codes."""
DEAD_SHARE = 0.05
"""A code used less than this share of the average is dead."""
FADED = 1e-5
"""Below this count, a moving average is a quotient of two numbers next to nothing."""


@dataclass(frozen=True)
class Bottleneck:
    """What a bottleneck makes of latents."""

    latents: Tensor
    """(vectors, dim), with gradients to the encoder."""
    codes: Tensor
    """(vectors, quantizers), integers; no columns where nothing is quantized."""
    loss: Tensor
    """Scalar to be added to the reconstruction loss."""


class NoBottleneck(nn.Module):
    """Passes latents through: the control without which no codebook can be judged."""

    num_quantizers = 0

    def forward(self, latents: Tensor) -> Bottleneck:
        """(vectors, dim) → the same."""
        codes = torch.empty(len(latents), 0, dtype=torch.long, device=latents.device)
        return Bottleneck(latents, codes, latents.new_zeros(()))


class Codebook(nn.Module):
    """One codebook: nearest vector, and how the vectors learn.

    `gradient` is van den Oord, Vinyals, Kavukcuoglu 2017 (equation 3): codebook loss plus
    commitment loss. `ema` replaces the former by moving averages (their appendix A.1), starts from
    k-means, and moves dead codes to latents of the batch: embedding, count and sum together, or
    the averages would undo it.
    """

    embedding: Tensor
    count: Tensor
    total: Tensor
    updates: Tensor
    started: Tensor
    uses: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        size, dim = config.codebook_size, config.latent_dim
        start = torch.empty(size, dim).uniform_(-1 / size, 1 / size)
        self.restart = config.restart
        if config.update == "gradient":
            self.embedding = nn.Parameter(start)
        else:
            self.register_buffer("embedding", start)
            self.register_buffer("count", torch.ones(size))
            self.register_buffer("total", start.clone())
            self.register_buffer("updates", torch.zeros(()))
        self.register_buffer("started", torch.tensor(not config.kmeans_start))
        self.register_buffer("uses", torch.zeros(size), persistent=False)
        self._may_start = config.kmeans_start

    def nearest(self, latents: Tensor) -> Tensor:
        """(vectors, dim) → (vectors,) the code of least squared distance, in float32."""
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            embedding = self.embedding.float()
            half_norm = embedding.square().sum(dim=1) / 2
            chunks = torch.split(latents.float(), max(1, CHUNK_CELLS // len(embedding)))
            nearest = [(half_norm - chunk @ embedding.T).argmin(dim=1) for chunk in chunks]
            return torch.cat(nearest) if nearest else latents.new_empty(0, dtype=torch.long)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(vectors, dim) float32 → quantized (vectors, dim), codes (vectors,), loss scalar.

        `quantized` carries no gradient. In training the codebook learns from the batch.
        """
        if self.training and self._may_start:
            self._start(latents.detach())
        codes = self.nearest(latents)
        quantized = self.embedding[codes]
        loss = self.config.commitment * (latents - quantized.detach()).square().mean()
        if self.config.update == "gradient":
            loss = loss + (quantized - latents.detach()).square().mean()
        if self.training:
            self._learn(latents.detach(), codes)
        return quantized.detach(), codes, loss

    @torch.no_grad()
    def _learn(self, latents: Tensor, codes: Tensor) -> None:
        size = len(self.embedding)
        counts = torch.bincount(codes, minlength=size).to(latents.dtype)
        self.uses += counts
        if self.config.update == "gradient":
            return
        sums = torch.zeros_like(self.total).index_add_(0, codes, latents)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(sums)
        # Short averages at first: the encoder moves fast then, and codes that lag behind it die.
        self.updates += 1
        share = (9 / (9 + self.updates)).clamp_min(1 - self.config.decay)
        self.count.lerp_(counts, share)
        self.total.lerp_(sums, share)
        average = self.count.mean()
        if self.restart:
            dead = (self.count < DEAD_SHARE * average)[:, None]
            places = latents[torch.randint(len(latents), (size,), device=latents.device)]
            if torch.distributed.is_initialized():
                torch.distributed.broadcast(places, 0)
            self.total.copy_(torch.where(dead, places * average, self.total))
            self.count.copy_(torch.where(dead[:, 0], average, self.count))
        # What has faded away says nothing any more: its code stays where it is.
        known = (self.count > FADED)[:, None]
        means = self.total / self.count.clamp_min(FADED)[:, None]
        self.embedding.copy_(torch.where(known, means, self.embedding))

    @torch.no_grad()
    def _start(self, latents: Tensor) -> None:
        """k-means over the first batch of latents."""
        self._may_start = False
        if bool(self.started):
            return
        size = len(self.embedding)
        if len(latents) >= size:
            picks = torch.randperm(len(latents), device=latents.device)[:size]
        else:
            picks = torch.randint(len(latents), (size,), device=latents.device)
        spread = latents.std(dim=0, correction=0).mean()
        centres = latents[picks] + 1e-3 * spread * torch.randn_like(self.embedding)
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(centres, 0)
        self.embedding.copy_(centres)
        for _ in range(10):
            codes = self.nearest(latents)
            counts = torch.bincount(codes, minlength=size).to(latents.dtype)
            sums = torch.zeros_like(centres).index_add_(0, codes, latents)
            if torch.distributed.is_initialized():
                torch.distributed.all_reduce(counts)
                torch.distributed.all_reduce(sums)
            used = (counts > 0)[:, None]
            means = sums / counts.clamp_min(1)[:, None]
            self.embedding.copy_(torch.where(used, means, self.embedding))
        if self.config.update == "ema":
            self.count.copy_(counts.clamp_min(DEAD_SHARE * counts.mean()))
            self.total.copy_(self.embedding * self.count[:, None])
        self.started.fill_(True)


class Quantizer(nn.Module):
    """One codebook, or several of which each codes what those before it left (residual).

    Zeghidour et al. 2021 (SoundStream), algorithm 1. The gradient goes straight through to the
    latents: d quantized / d latents = 1.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.num_quantizers = config.num_quantizers
        self.books = nn.ModuleList(Codebook(config) for _ in range(config.num_quantizers))

    def codebooks(self) -> list[Codebook]:
        """The codebooks, coarse to fine."""
        return [book for book in self.books if isinstance(book, Codebook)]

    def forward(self, latents: Tensor) -> Bottleneck:
        """(vectors, dim) → quantized latents, codes (vectors, quantizers), commitment loss."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            residual, quantized = latents, torch.zeros_like(latents)
            loss, codes = latents.new_zeros(()), []
            for book in self.codebooks():
                part, part_codes, part_loss = book(residual)
                residual, quantized = residual - part, quantized + part
                loss = loss + part_loss
                codes.append(part_codes)
            straight_through = latents + (quantized - latents).detach()
            return Bottleneck(straight_through, torch.stack(codes, dim=1), loss)

    def encode(self, latents: Tensor) -> Tensor:
        """(vectors, dim) → codes (vectors, quantizers)."""
        residual, codes = latents.float(), []
        for book in self.codebooks():
            codes.append(book.nearest(residual))
            residual = residual - book.embedding[codes[-1]]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """The inverse of `encode`: codes (vectors, quantizers) → latents (vectors, dim)."""
        parts = [book.embedding[codes[:, i]] for i, book in enumerate(self.codebooks())]
        return torch.stack(parts).sum(dim=0)
