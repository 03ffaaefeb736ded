"""What stands between encoder and decoder: nothing, codebooks, a fixed grid of codes, a Gaussian."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from audiovq import ranks
from audiovq.config import AudiovqError, AutoencoderConfig

CHUNK_CELLS = 1 << 19
"""Distances held at a time, so that memory does not grow with latents × codes, and a CPU's caches
hold them: most of the time would go into memory otherwise."""
GPU_CHUNK_CELLS = 1 << 26
"""The same on a GPU, which wants much to do at once."""
DEAD_SHARE = 0.05
"""A code used less than this share of the average is dead."""
APART = 2.0
"""Standard deviation of the means of labels at the start."""
FSQ_MARGIN = 1e-3
"""How far a latent can go beyond the outermost codes of a fixed grid, as a share: it can reach them."""
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
    kl: Tensor | None = None
    """Scalar without its weight, where there is one: nats per cell of the spectrogram."""


class NoBottleneck(nn.Module):
    """Passes latents through: the control without which no codebook can be judged."""

    num_quantizers = 0

    def forward(self, latents: Tensor, weights: Tensor | None = None) -> Bottleneck:
        """(vectors, dim) → the same."""
        codes = torch.empty(len(latents), 0, dtype=torch.long, device=latents.device)
        return Bottleneck(latents, codes, latents.new_zeros(()))


class Gaussian(nn.Module):
    """The variational autoencoder's (Kingma and Welling 2014): each latent is a distribution.

    In training latents are drawn as mean + exp(log variance / 2) · noise (section 2.4); in eval they
    are the mean. The loss is `kl_weight` times the KL divergence to the prior (appendix B), N(0, 1):
    -(1 + log variance - mean² - variance) / 2, summed over dimensions, per cell of the spectrogram.
    With `label_sizes` the prior's mean is the sum of a learnt vector for each label's value (a learnt
    conditional prior: Sohn, Lee, Yan 2015, equation 4); one past the last value is no label, and 0.
    """

    num_quantizers = 0
    warmth: Tensor
    """Share of `kl_weight` that training puts on; in eval it weighs in full."""

    def __init__(
        self, config: AutoencoderConfig, dim: int, cells: int, label_sizes: tuple[int, ...]
    ) -> None:
        """`cells` of the spectrogram are what one latent of `dim` dimensions stands for."""
        super().__init__()
        if config.conditional and not label_sizes:
            raise AudiovqError(
                "conditional: the recordings have no labels; preprocess them with --labels"
            )
        sizes = label_sizes if config.conditional else ()
        self.dim, self.cells, self.kl_weight = dim, cells, config.kl_weight
        self.means = nn.ModuleList(nn.Embedding(size + 1, dim, padding_idx=size) for size in sizes)
        for embedding in self.means.parameters():
            with torch.no_grad():  # apart from the start: together, they would stay so for long
                embedding[:-1].normal_(std=APART)
        self.register_buffer("warmth", torch.ones(()), persistent=False)

    def prior_mean(self, labels: Tensor | None) -> Tensor | float:
        """labels (vectors, labels) → (vectors, dim); 0 without labels."""
        if not len(self.means) or labels is None:
            return 0.0
        return torch.stack([mean(labels[:, i]) for i, mean in enumerate(self.means)]).sum(dim=0)

    def forward(
        self, latents: Tensor, labels: Tensor | None = None, weights: Tensor | None = None
    ) -> Bottleneck:
        """(vectors, 2 · dim) means and log variances, (vectors, labels) → (vectors, dim), KL loss.

        Vectors of weight 0, if there are `weights` (vectors,), count in no loss.
        """
        with torch.autocast(latents.device.type, enabled=False):
            mean, log_variance = latents.float().chunk(2, dim=1)
            away = mean - self.prior_mean(labels)
            nats = (away.square() + log_variance.exp() - log_variance - 1).sum(dim=1) / 2
            kl = ranks.part_of_mean(nats, weights) / self.cells
            drawn = mean
            if self.training:
                vectors, before = ranks.placed(len(mean))
                noise = torch.randn(vectors, self.dim, device=mean.device)
                drawn = mean + (log_variance / 2).exp() * noise[before : before + len(mean)]
            codes = torch.empty(len(latents), 0, dtype=torch.long, device=latents.device)
            weight = self.kl_weight * (self.warmth if self.training else 1.0)
            return Bottleneck(drawn, codes, weight * kl, kl.detach())


class Codebook(nn.Module):
    """One codebook: nearest vector, and how the vectors learn.

    `gradient` is van den Oord, Vinyals, Kavukcuoglu 2017 (equation 3): codebook loss plus
    commitment loss. `ema` replaces the former by moving averages (their appendix A.1), starts from
    k-means, and moves dead codes to latents of the batch: embedding, count and sum together, or
    the averages would undo it. With `cosine` latents and codes have length 1, so that the nearest is
    that of the greatest cosine (Yu et al. 2022, ViT-VQGAN, section 3.2).
    """

    embedding: Tensor
    count: Tensor
    total: Tensor
    updates: Tensor
    started: Tensor
    uses: Tensor
    restart: Tensor
    """Whether dead codes are moved, as long as `config.restart` says so."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        size, dim = config.codebook_size, config.latent_dim
        start = torch.empty(size, dim).uniform_(-1 / size, 1 / size)
        self.register_buffer("restart", torch.tensor(config.restart), persistent=False)
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

    @property
    def vectors(self) -> Tensor:
        """(codebook_size, dim): what the codes stand for."""
        return nn.functional.normalize(self.embedding) if self.config.cosine else self.embedding

    def nearest(self, latents: Tensor) -> Tensor:
        """(vectors, dim) → (vectors,) the code of least squared distance, in float32."""
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            vectors = self.vectors.float()
            half_norm = vectors.square().sum(dim=1) / 2
            if torch.compiler.is_exporting():  # a loop would be traced for one number of latents
                return (half_norm - latents.float() @ vectors.T).argmin(dim=1)
            most = CHUNK_CELLS if latents.device.type == "cpu" else GPU_CHUNK_CELLS
            count = max(1, most // len(vectors))
            nearest = torch.empty(len(latents), dtype=torch.long, device=latents.device)
            room = vectors.new_empty(min(count, len(latents)), len(vectors))
            for chunk, found in zip(
                latents.float().split(count), nearest.split(count), strict=True
            ):
                distances = room[: len(chunk)]
                torch.addmm(half_norm, chunk, vectors.T, alpha=-1, out=distances)
                torch.argmin(distances, dim=1, out=found)
            return nearest

    def forward(
        self, latents: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(vectors, dim) float32 → quantized (vectors, dim), codes (vectors,), loss scalar.

        `quantized` carries no gradient. In training the codebook learns from the batch, but for vectors
        of weight 0, if there are `weights` (vectors,).
        """
        if self.training and self._may_start:
            self._start(latents.detach() if weights is None else latents.detach()[weights > 0])
        codes = self.nearest(latents)
        quantized = nn.functional.embedding(codes, self.vectors)
        loss = self.config.commitment * ranks.part_of_squared_error(
            latents, quantized.detach(), weights
        )
        if self.config.update == "gradient":
            loss = loss + ranks.part_of_squared_error(quantized, latents.detach(), weights)
        if self.training:
            self._learn(latents.detach(), codes, weights)
        return quantized.detach(), codes, loss

    @torch.no_grad()
    def _learn(self, latents: Tensor, codes: Tensor, weights: Tensor | None) -> None:
        size = len(self.embedding)
        inside = latents.new_ones(len(latents)) if weights is None else weights
        # Not bincount: a GPU would be waited for.
        counts = ranks.total(latents.new_zeros(size).index_add_(0, codes, inside))
        self.uses += counts
        if self.config.update == "gradient":
            return
        seen = latents if weights is None else latents * weights[:, None]
        sums = ranks.total(torch.zeros_like(self.total).index_add_(0, codes, seen))
        # Short averages at first: the encoder moves fast then, and codes that lag behind it die.
        self.updates += 1
        share = (9 / (9 + self.updates)).clamp_min(1 - self.config.decay)
        self.count.lerp_(counts, share)
        self.total.lerp_(sums, share)
        average = self.count.mean()
        if self.config.restart:
            dead = (self.count < DEAD_SHARE * average) & self.restart
            places = self._picked(latents, weights)
            self.total.copy_(torch.where(dead[:, None], places * average, self.total))
            self.count.copy_(torch.where(dead, average, self.count))
        # What has faded away says nothing any more: its code stays where it is.
        known = (self.count > FADED)[:, None]
        means = self.total / self.count.clamp_min(FADED)[:, None]
        self.embedding.copy_(torch.where(known, means, self.embedding))

    def _picked(self, latents: Tensor, weights: Tensor | None) -> Tensor:
        """(codebook_size, dim) latents at random, of those with a weight."""
        chance = torch.rand(len(self.embedding), device=latents.device)
        if weights is None:
            vectors, before = ranks.placed(len(latents))
            return ranks.picked(latents, (chance * vectors).long(), before)
        picks = (chance * weights.sum()).long()
        return latents[weights.argsort(descending=True, stable=True)[picks]]

    @torch.no_grad()
    def _start(self, latents: Tensor) -> None:
        """k-means over the first batch of latents."""
        self._may_start = False
        if bool(self.started):
            return
        latents, size = ranks.gathered(latents), len(self.embedding)
        if len(latents) >= size:
            picks = torch.randperm(len(latents), device=latents.device)[:size]
        else:
            picks = torch.randint(len(latents), (size,), device=latents.device)
        spread = latents.std(dim=0, correction=0).mean()
        centres = latents[picks] + 1e-3 * spread * torch.randn_like(self.embedding)
        self.embedding.copy_(centres)
        for _ in range(10):
            codes = self.nearest(latents)
            counts = torch.bincount(codes, minlength=size).to(latents.dtype)
            sums = torch.zeros_like(centres).index_add_(0, codes, latents)
            used = (counts > 0)[:, None]
            means = sums / counts.clamp_min(1)[:, None]
            self.embedding.copy_(torch.where(used, means, self.embedding))
        ranks.same(counts, self.embedding)  # a GPU sums in no fixed order
        if self.config.update == "ema":
            self.count.copy_(counts.clamp_min(DEAD_SHARE * counts.mean()))
            self.total.copy_(self.embedding * self.count[:, None])
        self.started.fill_(True)


class FixedGrid(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023): codes are the points of a grid.

    Each dimension of a latent, brought between -1 and 1 by `Placed`, takes the nearest of its
    `levels` values (equation 1). The first dimension counts fastest in a code's number. Nothing is
    learnt, so that no code can die, and no loss is needed.
    """

    halves: Tensor
    basis: Tensor
    vectors: Tensor
    """(codebook_size, dim): what the codes stand for."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        levels = config.levels
        values = [[digit / (n // 2) - 1 for digit in range(n)] for n in levels]
        points = [point[::-1] for point in itertools.product(*reversed(values))]
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("halves", torch.tensor([n // 2 for n in levels]), persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)
        self.register_buffer("vectors", torch.tensor(points), persistent=False)

    def nearest(self, latents: Tensor) -> Tensor:
        """(vectors, dim) → (vectors,) the code of least distance in each dimension."""
        digits = (latents.float() * self.halves).round().long() + self.halves
        return (digits * self.basis).sum(dim=1)

    def forward(
        self, latents: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(vectors, dim) → quantized (vectors, dim) without gradient, codes (vectors,), loss 0."""
        codes = self.nearest(latents)
        return self.vectors[codes], codes, latents.new_zeros(())


class Placed(nn.Module):
    """Brings what an encoder gives to where codes can lie.

    To the unit sphere (`cosine`); between the outermost points of the grid (`fsq`: equation 1 of
    Mentzer et al. 2023, in float32, with their appendix's shift for even numbers of levels); else it
    stays as it is. Zeros stay zeros, but for rounding.
    """

    levels: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        """(batch, dim, rows, columns) → the same shape."""
        if self.config.cosine:
            return nn.functional.normalize(latents.float(), dim=1)
        if self.config.bottleneck != "fsq":
            return latents
        levels = self.levels[:, None, None]
        reach = (levels - 1) * (1 + FSQ_MARGIN) / 2
        offset = (levels % 2 == 0) / 2
        within = (latents.float() + (offset / reach).atanh()).tanh() * reach - offset
        return within / (levels // 2)


def rotated(latents: Tensor, quantized: Tensor) -> Tensor:
    """(vectors, dim) latents, turned and stretched to `quantized` by a map that counts as constant.

    The rotation trick (Fifty et al. 2024, section 4.2): |q| / |e| · (I - 2 r rᵀ + 2 q̂ êᵀ) e with r the
    unit vector halfway between ê and q̂; gradients keep their angle to the code.
    """
    e, q = nn.functional.normalize(latents.detach()), nn.functional.normalize(quantized)
    r = nn.functional.normalize(e + q)
    along_r = (latents * r).sum(dim=1, keepdim=True)
    along_e = (latents * e).sum(dim=1, keepdim=True)
    stretch: Tensor = quantized.norm(dim=1, keepdim=True) / latents.detach().norm(
        dim=1, keepdim=True
    )
    return stretch.nan_to_num(1.0, 1.0) * (latents - 2 * along_r * r + 2 * along_e * q)


class _Through(torch.autograd.Function):
    """What is quantized, with the gradient of what it stands for: no arithmetic either way."""

    @staticmethod
    def forward(ctx: Any, way: Tensor, quantized: Tensor) -> Tensor:
        return quantized.view_as(quantized)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class Quantizer(nn.Module):
    """One codebook, or several of which each codes what those before it left (residual).

    Zeghidour et al. 2021 (SoundStream), algorithm 1. Latents come as `Placed` gives them. The
    gradient goes straight through to them, d quantized / d latents = 1, or as by `rotated`.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.num_quantizers = config.num_quantizers
        self.gradient_through = config.gradient_through
        kind = FixedGrid if config.bottleneck == "fsq" else Codebook
        self.books = nn.ModuleList(kind(config) for _ in range(config.num_quantizers))

    def codebooks(self) -> list[Codebook | FixedGrid]:
        """The codebooks, coarse to fine."""
        return [book for book in self.books if isinstance(book, Codebook | FixedGrid)]

    def forward(self, latents: Tensor, weights: Tensor | None = None) -> Bottleneck:
        """(vectors, dim) → quantized latents, codes (vectors, quantizers), commitment loss.

        Vectors of weight 0, if there are `weights` (vectors,), count in no loss, and no codebook learns
        from them.
        """
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            first, *others = self.codebooks()
            quantized, part_codes, loss = first(latents, weights)
            residual, codes, part = latents, [part_codes], quantized
            for book in others:
                residual = residual - part
                part, part_codes, part_loss = book(residual, weights)
                quantized, loss = quantized + part, loss + part_loss
                codes.append(part_codes)
            way = rotated(latents, quantized) if self.gradient_through == "rotation" else latents
            return Bottleneck(_Through.apply(way, quantized), torch.stack(codes, dim=1), loss)

    def encode(self, latents: Tensor) -> Tensor:
        """(vectors, dim) → codes (vectors, quantizers)."""
        residual, codes = latents.float(), []
        for book in self.codebooks():
            codes.append(book.nearest(residual))
            residual = residual - book.vectors[codes[-1]]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """The inverse of `encode`: codes (vectors, quantizers) → latents (vectors, dim)."""
        parts = [book.vectors[codes[:, i]] for i, book in enumerate(self.codebooks())]
        return torch.stack(parts).sum(dim=0)
