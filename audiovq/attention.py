"""A layer of attention and MLP over a sequence, told by labels: what both transformers are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from audiovq import ranks
from audiovq.config import MaskedConfig, PriorConfig
from audiovq.places import Place, write

FEW_ROWS = 128
"""Up to so many a Linear multiplies the other way round."""

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""For attention on a GPU."""

GAIN = 0.1
"""Of what a layer adds, at first."""


class Linear(nn.Linear):
    """nn.Linear, but a few rows on a CPU are multiplied weights first, the rows turned: cores then share
    the weights evenly, which takes a fifth less time."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2 and x.shape[0] <= FEW_ROWS and not x.is_cuda:
            return torch.addmm(self.bias.unsqueeze(1), self.weight, x.t()).t()
        return super().forward(x)


class Layer(nn.Module):
    """Attention and MLP; the labels scale and shift what enters both (Peebles and Xie 2023).

    What both give is normalized again (Ding et al. 2021, CogView, "Sandwich-LN") and scaled channel by
    channel (Touvron et al. 2021, LayerScale). Without that, sums grew a thousandfold from layer to
    layer, gradients ten-thousandfold, and whatever began with such weights learnt little.
    """

    def __init__(self, config: PriorConfig | MaskedConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = Linear(dim, 3 * dim)
        self.out = Linear(dim, dim)
        self.mlp_in = Linear(dim, 4 * dim)
        self.mlp_out = Linear(4 * dim, dim)
        self.modulation = nn.Linear(dim, 4 * dim)
        self.attended_gain = nn.Parameter(torch.full((dim,), GAIN))
        self.mlp_gain = nn.Parameter(torch.full((dim,), GAIN))

    def start(self) -> None:
        """First weights: labels have no say yet (call after `initialize`)."""
        nn.init.zeros_(self.modulation.weight)

    def told(self, condition: Tensor) -> tuple[Tensor, ...]:
        """condition (batch, dim) → what the labels scale and shift by, four times (batch, dim)."""
        told = self.modulation(normed(condition))
        scale_1, shift_1, scale_2, shift_2 = told.chunk(4, dim=-1)
        return 1 + scale_1, shift_1, 1 + scale_2, shift_2

    def forward(
        self,
        x: Tensor,
        told: tuple[Tensor, ...],
        inside: Tensor | None = None,
        asked: int | None = None,
    ) -> Tensor:
        """x (batch, places, dim) and what `told` gives → the same shape as x, or of the first so many
        places that are `asked` for.

        The places are a whole sequence, of which each sees those up to itself, or, with `inside`
        (batch, 1, 1, places), all that are.
        """
        scale_1, shift_1, scale_2, shift_2 = (each[:, None] for each in told)
        entering = torch.addcmul(shift_1, normed(x), scale_1)
        if asked is None:
            q, k, v = self._split(self.qkv(entering), 3)
        else:
            x, linear, dim = x[:, :asked], nn.functional.linear, x.shape[2]
            weight, bias = self.qkv.weight, self.qkv.bias
            (q,) = self._split(linear(entering[:, :asked], weight[:dim], bias[:dim]), 1)
            k, v = self._split(linear(entering, weight[dim:], bias[dim:]), 2)
        attended = attend(q, k, v, causal=inside is None, inside=inside)
        out = self.out(attended.transpose(1, 2).reshape(x.shape))
        x = x + self._drop(normed(out, self.attended_gain))
        hidden = self.mlp_in(torch.addcmul(shift_2, normed(x), scale_2))
        out = self.mlp_out(nn.functional.gelu(hidden))
        return x + self._drop(normed(out, self.mlp_gain))

    def step(self, x: Tensor, told: tuple[Tensor, ...], kept: Tensor, place: Place) -> Tensor:
        """x (batch, dim), the place of that number → the same as `forward` at it, which saw those before.

        `kept` (2, batch, heads, places, dim / heads) are keys and values: those before are read there,
        its own are written.
        """
        scale_1, shift_1, scale_2, shift_2 = told
        entering = torch.addcmul(shift_1, normed(x), scale_1)
        qkv = self.qkv(entering).unflatten(1, (3, self.heads, -1))
        write(kept, 3, place, qkv[:, 1:].transpose(0, 1))
        q, inside = qkv[:, 0, :, None], None
        if isinstance(place, int):
            kept = kept.narrow(3, 0, place + 1)
        else:  # all places that there are, as their number must stay the same
            inside = (torch.arange(kept.shape[3], device=x.device) <= place)[None, None, None]
        k, v = kept.to(q.dtype)
        attended = attend(q, k, v, causal=False, inside=inside)
        out = self.out(attended.flatten(1))
        x = x + normed(out, self.attended_gain)
        hidden = self.mlp_in(torch.addcmul(shift_2, normed(x), scale_2))
        out = self.mlp_out(nn.functional.gelu(hidden))
        return x + normed(out, self.mlp_gain)

    def _split(self, x: Tensor, parts: int) -> Tensor:
        """(batch, places, parts × dim) → (parts, batch, heads, places, dim / heads)."""
        split: Tensor = x.unflatten(2, (parts, self.heads, -1))
        return split.permute(2, 0, 3, 1, 4)

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
    fused = nn.functional.scaled_dot_product_attention
    if q.is_cuda:
        # Not cuDNN's, which gives gradients that are no numbers for some masks (torch 2.11, H200), and
        # whose plans for each shape take longer than it saves.
        with sdpa_kernel(KERNELS):
            return fused(q, k, v, attn_mask=inside, is_causal=causal)
    if not causal and inside is None:
        return fused(q, k, v)
    # On a CPU, in bfloat16 and at these lengths, the fused kernel trains at a third of this speed.
    with torch.autocast(q.device.type, enabled=False):
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(2, 3)
        if inside is None:
            inside = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        return scores.masked_fill(~inside, -torch.inf).softmax(dim=-1) @ v


def normed(x: Tensor, gain: Tensor | None = None) -> Tensor:
    """x (…, dim) → the same, of mean 0 and variance 1 (Ba, Kiros and Hinton 2016), times `gain` (dim,)."""
    return torch.layer_norm(x, x.shape[-1:], gain)


def initialize(module: nn.Module) -> None:
    """Weights of a standard deviation of 0.02, no biases (Radford et al. 2018)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
