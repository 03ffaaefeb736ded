"""Transformer block with label-conditioned scale and shift (adaLN), of both transformer priors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from audiovq.config.settings import MaskedConfig, PriorConfig
from audiovq.runtime import distributed
from audiovq.runtime.cuda_graphs import Position, write_at

SMALL_BATCH = 128
"""Batch size up to which `Linear` computes (W xᵀ)ᵀ on a CPU."""
SDPA_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Kernels that attention may use on a GPU."""
LAYER_SCALE_INIT = 0.1
"""Initial value of the LayerScale parameters."""


class Linear(nn.Linear):
    """nn.Linear that computes small batches on a CPU as (W xᵀ)ᵀ, so that the cores share the weights
    evenly: a fifth faster."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2 and x.shape[0] <= SMALL_BATCH and not x.is_cuda:
            return torch.addmm(self.bias.unsqueeze(1), self.weight, x.t()).t()
        return super().forward(x)


class TransformerBlock(nn.Module):
    """Attention and MLP; the labels scale and shift the input of both (adaLN, Peebles and Xie 2023).

    The outputs of both are normalized again (Ding et al. 2021, CogView, "Sandwich-LN") and scaled per
    channel (Touvron et al. 2021, LayerScale). Without these, activations grew a thousandfold and
    gradients ten-thousandfold from layer to layer, and a model that started from such weights learnt
    little.
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
        self.attn_scale = nn.Parameter(torch.full((dim,), LAYER_SCALE_INIT))
        self.mlp_scale = nn.Parameter(torch.full((dim,), LAYER_SCALE_INIT))

    def zero_init(self) -> None:
        """Zero the modulation weights: no effect of labels at first (call after `init_weights`)."""
        nn.init.zeros_(self.modulation.weight)

    def compute_modulation(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Label condition (batch, dim) → scale, shift (attention), scale, shift (MLP), each (batch, dim)."""
        modulation = self.modulation(layer_norm(condition))
        scale_1, shift_1, scale_2, shift_2 = modulation.chunk(4, dim=-1)
        return 1 + scale_1, shift_1, 1 + scale_2, shift_2

    def forward(
        self,
        x: Tensor,
        modulation: tuple[Tensor, ...],
        key_mask: Tensor | None = None,
        num_queries: int | None = None,
    ) -> Tensor:
        """x (batch, length, dim), `modulation` from `compute_modulation` → (batch, length, dim).

        Attention is causal, or, with `key_mask` bool (batch, 1, 1, length), bidirectional over the
        positions that are True. With `num_queries`, only the first `num_queries` positions are computed
        and returned.
        """
        scale_1, shift_1, scale_2, shift_2 = (each[:, None] for each in modulation)
        attn_in = torch.addcmul(shift_1, layer_norm(x), scale_1)
        if num_queries is None:
            q, k, v = self._split_heads(self.qkv(attn_in), 3)
        else:
            x, linear, dim = x[:, :num_queries], nn.functional.linear, x.shape[2]
            weight, bias = self.qkv.weight, self.qkv.bias
            (q,) = self._split_heads(linear(attn_in[:, :num_queries], weight[:dim], bias[:dim]), 1)
            k, v = self._split_heads(linear(attn_in, weight[dim:], bias[dim:]), 2)
        attn_out = attend(q, k, v, causal=key_mask is None, key_mask=key_mask)
        out = self.out(attn_out.transpose(1, 2).reshape(x.shape))
        x = x + self._channel_dropout(layer_norm(out, self.attn_scale))
        hidden = self.mlp_in(torch.addcmul(shift_2, layer_norm(x), scale_2))
        out = self.mlp_out(nn.functional.gelu(hidden))
        return x + self._channel_dropout(layer_norm(out, self.mlp_scale))

    def step(
        self, x: Tensor, modulation: tuple[Tensor, ...], kv_cache: Tensor, position: Position
    ) -> Tensor:
        """Causal `forward` of one position: x (batch, dim) → (batch, dim).

        `kv_cache` (2, batch, heads, length, dim / heads) holds the keys and values of earlier
        positions; those of `position` are written into it.
        """
        scale_1, shift_1, scale_2, shift_2 = modulation
        attn_in = torch.addcmul(shift_1, layer_norm(x), scale_1)
        qkv = self.qkv(attn_in).unflatten(1, (3, self.heads, -1))
        write_at(kv_cache, 3, position, qkv[:, 1:].transpose(0, 1))
        q, key_mask = qkv[:, 0, :, None], None
        if isinstance(position, int):
            kv_cache = kv_cache.narrow(3, 0, position + 1)
        else:  # a CUDA graph has fixed shapes: attend over the whole cache, and mask later positions
            key_mask = (torch.arange(kv_cache.shape[3], device=x.device) <= position)[
                None, None, None
            ]
        k, v = kv_cache.to(q.dtype)
        attn_out = attend(q, k, v, causal=False, key_mask=key_mask)
        out = self.out(attn_out.flatten(1))
        x = x + layer_norm(out, self.attn_scale)
        hidden = self.mlp_in(torch.addcmul(shift_2, layer_norm(x), scale_2))
        out = self.mlp_out(nn.functional.gelu(hidden))
        return x + layer_norm(out, self.mlp_scale)

    def _split_heads(self, x: Tensor, parts: int) -> Tensor:
        """(batch, length, parts × dim) → (parts, batch, heads, length, dim / heads)."""
        split: Tensor = x.unflatten(2, (parts, self.heads, -1))
        return split.permute(2, 0, 3, 1, 4)

    def _channel_dropout(self, x: Tensor) -> Tensor:
        """Dropout of whole channels of a clip (Gal and Ghahramani 2016). Its mask (batch, 1, dim) costs
        next to nothing; one per element took a sixth of a training step."""
        if not self.training or self.dropout == 0:
            return x
        clips, _, dim = x.shape
        uniform = distributed.draw_for_global_batch(
            clips, lambda n: torch.rand(n, 1, dim, device=x.device)
        )
        return x * ((uniform >= self.dropout) / (1 - self.dropout)).to(x.dtype)


def compute_modulations(blocks: nn.ModuleList, condition: Tensor) -> list[tuple[Tensor, ...]]:
    """Label condition (batch, dim) → the scale and shift of each block, see `compute_modulation`."""
    return [
        block.compute_modulation(condition)
        for block in blocks
        if isinstance(block, TransformerBlock)
    ]


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, key_mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, softmax(q kᵀ / √dim) v (Vaswani et al. 2017).

    q, k, v and the result are (batch, heads, length, dim). `key_mask`, bool (batch, 1, 1, length), is
    True for keys to attend to; None: all of them, or, if `causal`, those up to each query.
    """
    sdpa = nn.functional.scaled_dot_product_attention
    if q.is_cuda:
        # Not cuDNN: its gradients are NaN for some masks (torch 2.11, H200), and planning a kernel for
        # each new shape takes longer than it saves.
        with sdpa_kernel(SDPA_BACKENDS):
            return sdpa(q, k, v, attn_mask=key_mask, is_causal=causal)
    if not causal and key_mask is None:
        return sdpa(q, k, v)
    # On a CPU, in bfloat16 and at these lengths, training with the fused kernel is three times slower.
    with torch.autocast(q.device.type, enabled=False):
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(2, 3)
        if key_mask is None:
            key_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        return scores.masked_fill(~key_mask, -torch.inf).softmax(dim=-1) @ v


def layer_norm(x: Tensor, scale: Tensor | None = None) -> Tensor:
    """Layer norm of x (…, dim) without a bias (Ba, Kiros and Hinton 2016), times `scale` (dim,)."""
    return torch.layer_norm(x, x.shape[-1:], scale)


def init_weights(module: nn.Module) -> None:
    """Initialize linear and embedding weights from N(0, 0.02²), biases with 0 (Radford et al. 2018)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
