"""A layer of attention and MLP over a sequence, told by labels: what both transformers are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from audiovq import ranks
from audiovq.config import MaskedConfig, PriorConfig


class Layer(nn.Module):
    """Attention and MLP; the labels scale and shift what enters both (Peebles and Xie 2023)."""

    def __init__(self, config: PriorConfig | MaskedConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.mlp_in = nn.Linear(dim, 4 * dim)
        self.mlp_out = nn.Linear(4 * dim, dim)
        self.modulation = nn.Linear(dim, 4 * dim)

    def start(self, layers: int) -> None:
        """First weights, for one of so many layers; labels have no say yet (call after `initialize`)."""
        for linear in (self.out, self.mlp_out):
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * layers))
        nn.init.zeros_(self.modulation.weight)

    def told(self, condition: Tensor) -> tuple[Tensor, ...]:
        """condition (batch, dim) → what the labels scale and shift by, four times (batch, 1, dim)."""
        modulation: Tensor = self.modulation(normed(condition))
        return modulation[:, None].chunk(4, dim=-1)

    def forward(
        self,
        x: Tensor,
        told: tuple[Tensor, ...],
        cache: Tensor | None = None,
        place: int = 0,
        inside: Tensor | None = None,
    ) -> Tensor:
        """x (batch, places, dim) and what `told` gives → the same shape as x.

        Without a `cache` the places are a whole sequence, of which each sees those up to itself, or, with
        `inside` (batch, 1, 1, places), all that are. With a cache, (2, batch, heads, max_places,
        dim / heads), x is the place of that number; its keys and values are written there.
        """
        scale_1, shift_1, scale_2, shift_2 = told
        batch, places, dim = x.shape
        q, k, v = (
            self.qkv(torch.addcmul(shift_1, normed(x), 1 + scale_1))
            .view(batch, places, 3, self.heads, dim // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        if cache is not None:
            cache[0, :, :, place : place + places] = k
            cache[1, :, :, place : place + places] = v
            k, v = cache[:, :, :, : place + places].to(q.dtype)
        attended = attend(q, k, v, causal=cache is None and inside is None, inside=inside)
        x = x + self._drop(self.out(attended.transpose(1, 2).reshape(batch, places, dim)))
        hidden = self.mlp_in(torch.addcmul(shift_2, normed(x), 1 + scale_2))
        return x + self._drop(self.mlp_out(nn.functional.gelu(hidden)))

    def _drop(self, x: Tensor) -> Tensor:
        """Dropout of whole channels of a clip (Gal and Ghahramani 2016): a mask of (batch, 1, dim)
        costs next to nothing, where one of every cell was a sixth of a training step."""
        if not self.training or self.dropout == 0:
            return x
        clips, _, dim = x.shape
        chance = ranks.drawn(clips, lambda n: torch.rand(n, 1, dim, device=x.device))
        return x * ((chance >= self.dropout) / (1 - self.dropout)).to(x.dtype)


def all_told(layers: nn.ModuleList, condition: Tensor) -> list[tuple[Tensor, ...]]:
    """condition (batch, dim) → what the labels tell each of the layers."""
    return [layer.told(condition) for layer in layers if isinstance(layer, Layer)]


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, inside: Tensor | None = None) -> Tensor:
    """(batch, heads, places, dim) each → the same: softmax(q kᵀ / √dim) v (Vaswani et al. 2017).

    Over all places, those up to each (`causal`), or those `inside`, bool (batch, 1, 1, places).
    """
    if q.is_cuda or (not causal and inside is None):
        return nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=inside, is_causal=causal
        )
    # On a CPU, in bfloat16 and at these lengths, the fused kernel trains at a third of this speed.
    with torch.autocast(q.device.type, enabled=False):
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(2, 3)
        if inside is None:
            inside = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        return scores.masked_fill(~inside, -torch.inf).softmax(dim=-1) @ v


def normed(x: Tensor) -> Tensor:
    """x (…, dim) → the same, of mean 0 and variance 1 (Ba, Kiros and Hinton 2016)."""
    return nn.functional.layer_norm(x, (x.shape[-1],))


def initialize(module: nn.Module) -> None:
    """Weights of a standard deviation of 0.02, no biases (Radford et al. 2018)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
