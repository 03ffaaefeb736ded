"""Bottlenecks of the autoencoder: vector quantizers (VQ, residual VQ, FSQ), Gaussian, identity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audiovq.config.autoencoder import BottleneckConfig
from audiovq.models.autoencoder.gaussian import Bottleneck
from audiovq.runtime import distributed

CHUNK_CELLS = 1 << 19
"""Distances computed at a time on a CPU, so that memory does not grow with latents × codes and the
chunk fits the caches: memory traffic would dominate otherwise."""
GPU_CHUNK_CELLS = 1 << 26
"""The same on a GPU, which needs large kernels."""
BEAM = 8
"""Beam width of `Quantizer.encode`: sums of code vectors that are kept from one codebook to the next."""
DEAD_SHARE = 0.05
"""A code used less often than this share of the mean usage is dead."""
FSQ_MARGIN = 1e-3
"""Share by which FSQ latents may exceed the outermost levels, so that tanh can reach these."""
MIN_CLUSTER_SIZE = 1e-5
"""Cluster size below which the EMA mean is a quotient of two tiny numbers and is not used."""


class Codebook(nn.Module):
    """Vector quantizer with one codebook, learnt by gradient or by moving averages (EMA).

    `gradient`: van den Oord, Vinyals, Kavukcuoglu 2017 (equation 3), codebook loss plus commitment
    loss. `ema`: moving averages in place of the codebook loss (their appendix A.1); dead codes are
    restarted at latents of the batch: embedding, cluster size and sum together, or the averages would
    undo it. With `cosine`, latents and codes have length 1, so that the nearest code is the one of the
    greatest cosine similarity (Yu et al. 2022, ViT-VQGAN, section 3.2).
    """

    embedding: Tensor
    cluster_size: Tensor
    embedding_sum: Tensor
    num_updates: Tensor
    initialized: Tensor
    usage: Tensor
    restart: Tensor
    """Whether dead codes are restarted now; has an effect only with `config.restart`."""

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        self.config = config
        size, dim = config.num_codes, config.dim
        start = torch.empty(size, dim).uniform_(-1 / size, 1 / size)
        self.register_buffer("restart", torch.tensor(config.restart), persistent=False)
        if config.update == "gradient":
            self.embedding = nn.Parameter(start)
        else:
            self.register_buffer("embedding", start)
            self.register_buffer("cluster_size", torch.ones(size))
            self.register_buffer("embedding_sum", start.clone())
            self.register_buffer("num_updates", torch.zeros(()))
        self.register_buffer("initialized", torch.tensor(not config.kmeans_start))
        self.register_buffer("usage", torch.zeros(size), persistent=False)
        self.pending = config.kmeans_start
        """Whether `start` is still to be called, in the first training step."""

    @property
    def vectors(self) -> Tensor:
        """Code vectors (codebook_size, dim)."""
        return nn.functional.normalize(self.embedding) if self.config.cosine else self.embedding

    def nearest(self, latents: Tensor) -> Tensor:
        """Codes (vectors,) of least squared distance to latents (vectors, dim), in float32."""
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            vectors = self.vectors.float()
            half_norm = vectors.square().sum(dim=1) / 2
            if torch.compiler.is_exporting():  # tracing would fix the loop to one number of latents
                return (half_norm - latents.float() @ vectors.T).argmin(dim=1)
            chunk_cells = CHUNK_CELLS if latents.device.type == "cpu" else GPU_CHUNK_CELLS
            count = max(1, chunk_cells // len(vectors))
            nearest = torch.empty(len(latents), dtype=torch.long, device=latents.device)
            buffer = vectors.new_empty(min(count, len(latents)), len(vectors))
            for chunk, found in zip(
                latents.float().split(count), nearest.split(count), strict=True
            ):
                distances = buffer[: len(chunk)]
                torch.addmm(half_norm, chunk, vectors.T, alpha=-1, out=distances)
                torch.argmin(distances, dim=1, out=found)
            return nearest

    def forward(
        self, latents: Tensor, codes: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(vectors, dim) float32 and their codes (vectors,) → quantized (vectors, dim), loss scalar.

        `quantized` carries no gradient. In training the codebook is updated from the batch. `weights`
        (vectors,), 0 or 1, excludes vectors from the loss and the update.
        """
        quantized = nn.functional.embedding(codes, self.vectors)
        loss = self.config.commitment * distributed.local_squared_error_term(
            latents, quantized.detach(), weights
        )
        if self.config.update == "gradient":
            loss = loss + distributed.local_squared_error_term(quantized, latents.detach(), weights)
        if self.training:
            self._update(latents.detach(), codes, weights)
        return quantized.detach(), loss

    @torch.no_grad()
    def _update(self, latents: Tensor, codes: Tensor, weights: Tensor | None) -> None:
        """Count usage; with `ema`, update the averages and restart dead codes."""
        size = len(self.embedding)
        ones = latents.new_ones(len(latents)) if weights is None else weights
        # Not bincount, which synchronises with a GPU.
        counts = distributed.all_reduce_sum(latents.new_zeros(size).index_add_(0, codes, ones))
        self.usage += counts
        if self.config.update == "gradient":
            return
        counted = latents if weights is None else latents * weights[:, None]
        sums = distributed.all_reduce_sum(
            torch.zeros_like(self.embedding_sum).index_add_(0, codes, counted)
        )
        # Fast averages at first: the encoder changes quickly then, and codes that lag behind it die.
        self.num_updates += 1
        share = (9 / (9 + self.num_updates)).clamp_min(1 - self.config.decay)
        self.cluster_size.lerp_(counts, share)
        self.embedding_sum.lerp_(sums, share)
        mean_size = self.cluster_size.mean()
        if self.config.restart:
            dead = (self.cluster_size < DEAD_SHARE * mean_size) & self.restart
            restarted = self._random_latents(latents, weights) * mean_size
            self.embedding_sum.copy_(torch.where(dead[:, None], restarted, self.embedding_sum))
            self.cluster_size.copy_(torch.where(dead, mean_size, self.cluster_size))
        # A code whose average has faded to nothing keeps its vector.
        live = (self.cluster_size > MIN_CLUSTER_SIZE)[:, None]
        means = self.embedding_sum / self.cluster_size.clamp_min(MIN_CLUSTER_SIZE)[:, None]
        self.embedding.copy_(torch.where(live, means, self.embedding))

    def _random_latents(self, latents: Tensor, weights: Tensor | None) -> Tensor:
        """Random latents (codebook_size, dim) of the batch of all ranks, of those with weight 1."""
        chance = torch.rand(len(self.embedding), device=latents.device)
        if weights is None:
            vectors, before = distributed.row_offset(len(latents))
            return distributed.gather_rows(latents, (chance * vectors).long(), before)
        picks = (chance * weights.sum()).long()
        return latents[weights.argsort(descending=True, stable=True)[picks]]

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Initialise the codebook by k-means over the first batch of latents (vectors, dim), unless it is trained."""
        self.pending = False
        if bool(self.initialized):
            return
        latents, size = distributed.all_gather_rows(latents), len(self.embedding)
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
        distributed.broadcast(counts, self.embedding)  # sums on a GPU are not deterministic
        if self.config.update == "ema":
            self.cluster_size.copy_(counts.clamp_min(DEAD_SHARE * counts.mean()))
            self.embedding_sum.copy_(self.embedding * self.cluster_size[:, None])
        self.initialized.fill_(True)


class FiniteScalarQuantizer(nn.Module):
    """Finite scalar quantizer, FSQ (Mentzer et al. 2023): codes are the points of a fixed grid.

    Each dimension of a latent, bounded to [-1, 1] by `LatentProjection`, is rounded to the nearest of
    its `levels` values (equation 1). The first dimension varies fastest in a code's index. Nothing is
    learnt, so no code can die and no loss is needed.
    """

    half_levels: Tensor
    last_digits: Tensor
    basis: Tensor
    vectors: Tensor
    """Code vectors (codebook_size, dim)."""
    pending = False

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        levels = config.levels
        values = [[digit / (n // 2) - 1 for digit in range(n)] for n in levels]
        points = [point[::-1] for point in itertools.product(*reversed(values))]
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer(
            "half_levels", torch.tensor([n // 2 for n in levels]), persistent=False
        )
        self.register_buffer("last_digits", torch.tensor([n - 1 for n in levels]), persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)
        self.register_buffer("vectors", torch.tensor(points), persistent=False)

    def nearest(self, latents: Tensor) -> Tensor:
        """Codes (vectors,) nearest to latents (vectors, dim) in each dimension."""
        digits = (latents.float() * self.half_levels).round().long() + self.half_levels
        # With many levels, FSQ_MARGIN is more than half a level.
        digits = digits.clamp_min(0).minimum(self.last_digits)
        return (digits * self.basis).sum(dim=1)

    def forward(
        self, latents: Tensor, codes: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(vectors, dim) and their codes (vectors,) → quantized (vectors, dim) without gradient, loss 0."""
        return self.vectors[codes], latents.new_zeros(())


class LatentProjection(nn.Module):
    """Projection of the encoder's output to the set in which code vectors lie.

    `cosine`: the unit sphere. `fsq`: between the outermost points of the grid (equation 1 of Mentzer et
    al. 2023, in float32, with their appendix's shift for even numbers of levels). Otherwise the
    identity. Zeros stay zeros up to rounding.
    """

    levels: Tensor

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        """(batch, dim, rows, columns) → the same shape."""
        if self.config.cosine:
            return nn.functional.normalize(latents.float(), dim=1)
        if self.config.kind != "fsq":
            return latents
        levels = self.levels[:, None, None]
        bound = (levels - 1) * (1 + FSQ_MARGIN) / 2
        offset = (levels % 2 == 0) / 2
        bounded = (latents.float() + (offset / bound).atanh()).tanh() * bound - offset
        return bounded / (levels // 2)


def rotation_trick(latents: Tensor, quantized: Tensor) -> Tensor:
    """Rotation trick: latents (vectors, dim) mapped to `quantized` by a rotation and scaling held constant.

    Fifty et al. 2024, section 4.2: |q| / |e| · (I - 2 r rᵀ + 2 q̂ êᵀ) e, r being the unit vector halfway
    between ê and q̂. Gradients keep their angle to the code.
    """
    e, q = nn.functional.normalize(latents.detach()), nn.functional.normalize(quantized)
    r = nn.functional.normalize(e + q)
    along_r = (latents * r).sum(dim=1, keepdim=True)
    along_e = (latents * e).sum(dim=1, keepdim=True)
    scale: Tensor = quantized.norm(dim=1, keepdim=True) / latents.detach().norm(dim=1, keepdim=True)
    return scale.nan_to_num(1.0, 1.0) * (latents - 2 * along_r * r + 2 * along_e * q)


class _StraightThrough(torch.autograd.Function):
    """Straight-through estimator: value of `quantized`, gradient of `latents`, both without arithmetic."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, quantized: Tensor) -> Tensor:
        return quantized.view_as(quantized)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class Quantizer(nn.Module):
    """Vector quantizer with one codebook or several, each coding the residual of those before (RVQ).

    Zeghidour et al. 2021 (SoundStream), algorithm 1. Latents are those of `LatentProjection`. Gradients
    pass by the straight-through estimator, d quantized / d latents = 1, or by the rotation trick.
    """

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        self.num_quantizers = config.num_quantizers
        self.gradient_through = config.gradient_through
        kind = FiniteScalarQuantizer if config.kind == "fsq" else Codebook
        self.quantizers = nn.ModuleList(kind(config) for _ in range(config.num_quantizers))

    def codebooks(self) -> list[Codebook | FiniteScalarQuantizer]:
        """The codebooks, from coarse to fine."""
        return [one for one in self.quantizers if isinstance(one, Codebook | FiniteScalarQuantizer)]

    def forward(self, latents: Tensor, weights: Tensor | None = None) -> Bottleneck:
        """(vectors, dim) → quantized latents, codes (vectors, quantizers), commitment loss.

        `weights` (vectors,), 0 or 1, excludes vectors from the loss and from codebook updates.
        """
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            books = self.codebooks()
            if self.training and any(book.pending for book in books):
                self._start(latents.detach(), weights)
            # A wider beam in training takes time and makes no better codebooks.
            codes = self.encode(latents.detach(), 1 if self.training else BEAM)
            residual, quantized, losses = latents, torch.zeros_like(latents), []
            for codebook, part_codes in zip(books, codes.unbind(dim=1), strict=True):
                part, loss = codebook(residual, part_codes, weights)
                residual, quantized = residual - part, quantized + part
                losses.append(loss)
            if self.gradient_through == "rotation":
                latents = rotation_trick(latents, quantized)
            quantized = _StraightThrough.apply(latents, quantized)
            return Bottleneck(quantized, codes, torch.stack(losses).sum())

    def _start(self, latents: Tensor, weights: Tensor | None) -> None:
        """Initialise each codebook that is new on what those before it leave of the first batch's latents (vectors, dim)."""
        residual = latents if weights is None else latents[weights > 0]
        for codebook in self.codebooks():
            if isinstance(codebook, Codebook):
                codebook.start(residual)
                residual = residual - codebook.vectors[codebook.nearest(residual)]

    @torch.no_grad()
    def encode(self, latents: Tensor, beam: int = BEAM) -> Tensor:
        """Codes (vectors, quantizers) of latents (vectors, dim), whose sums of code vectors are nearest.

        By beam search: of all sums up to a codebook, the `beam` nearest ones are kept for the next. With a width of 1 each
        codebook takes the code nearest to what those before it leave (SoundStream).
        """
        books, latents = self.codebooks(), latents.float()
        if beam == 1 or len(books) == 1:
            residual, codes = latents, list[Tensor]()
            for codebook in books:
                codes.append(codebook.nearest(residual))
                residual = residual - codebook.vectors[codes[-1]]
            return torch.stack(codes, dim=1)
        vectors = [codebook.vectors.float() for codebook in books]
        with torch.autocast(latents.device.type, enabled=False):
            if torch.compiler.is_exporting():  # as in `Codebook.nearest`
                return _nearest_sums(latents, vectors, beam)
            chunk_cells = CHUNK_CELLS if latents.device.type == "cpu" else GPU_CHUNK_CELLS
            count = max(1, chunk_cells // (beam * len(vectors[0])))
            return torch.cat([_nearest_sums(part, vectors, beam) for part in latents.split(count)])

    def decode(self, codes: Tensor) -> Tensor:
        """Inverse of `encode`: codes (vectors, quantizers) → sums of code vectors (vectors, dim)."""
        parts = [each.vectors[codes[:, i]] for i, each in enumerate(self.codebooks())]
        return torch.stack(parts).sum(dim=0)


def _nearest_sums(latents: Tensor, codebooks: Sequence[Tensor], beam: int) -> Tensor:
    """`Quantizer.encode` of latents (vectors, dim) with codebooks (codebook_size, dim) at once."""
    residuals = latents[:, None]  # (vectors, beams, dim), with one beam at first
    # Not len(latents), which an exported program would take for a constant.
    distances = latents.new_zeros(latents.shape[0], 1)  # half of the squared ones, up to a constant
    codes = torch.zeros(latents.shape[0], 1, 0, dtype=torch.long, device=latents.device)
    for position, book in enumerate(codebooks):
        width = beam if position + 1 < len(codebooks) else 1
        products = residuals @ book.T
        costs = distances[:, :, None] + (book.square().sum(dim=1) / 2 - products)
        width = min(width, costs.shape[1] * len(book))
        distances, best = costs.flatten(1).topk(width, dim=1, largest=False)
        rows, code = best // len(book), best % len(book)
        residuals = residuals.gather(1, rows[:, :, None].expand(-1, -1, book.shape[1])) - book[code]
        codes = codes.gather(1, rows[:, :, None].expand(-1, -1, position))
        codes = torch.cat([codes, code[:, :, None]], dim=2)
    return codes[:, 0]
