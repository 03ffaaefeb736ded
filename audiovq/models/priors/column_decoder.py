"""Column decoder: a small network that predicts the codes of a column one after another, given the
transformer's vector for that column.

Attention over single codes would spend most of its time on codes of the same column. So the
transformer attends over columns, and this network predicts a column's codes, each from those below it
(after the depth transformer of Lee et al. 2022, RQ-Transformer).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from audiovq.models.priors.attention import Linear, layer_norm
from audiovq.runtime import distributed

NUM_BLOCKS = 2
"""Residual MLP blocks per cell; labels scale and shift the input of each (adaLN)."""
TOKEN_DROPOUT = 0.2
"""Probability that an input token is dropped in training."""


def drop_tokens(tokens: Tensor, pad_token: int) -> Tensor:
    """Replace a share TOKEN_DROPOUT of tokens (batch, …) by `pad_token` (word dropout, Bowman et al.
    2016). Only for training: otherwise the network learns from a code's nearest neighbours alone."""
    uniform = distributed.draw_for_global_batch(
        len(tokens), lambda n: torch.rand(n, *tokens.shape[1:], device=tokens.device)
    )
    return tokens.masked_fill(uniform < TOKEN_DROPOUT, pad_token)


class ColumnDecoder(nn.Module):
    """Embeds a column's tokens for the transformer, and decodes the transformer's output into features
    of each cell of a column."""

    def __init__(
        self, dim: int, cell: int, tokens: int, slots: int, neighbours: int, prefix: int
    ) -> None:
        """`dim`: size of a column's vector; `cell`: size of a cell's features; `tokens`: vocabulary
        size; `slots`: cells per column; `neighbours`, `prefix`: number of tokens of other columns, and
        just before it, that a cell sees directly."""
        super().__init__()
        self.column_embed = EmbeddingSum(slots, tokens, dim)
        self.to_cells = Linear(dim, slots * cell)
        self.neighbour_embed = EmbeddingSum(neighbours, tokens, cell)
        self.prefix_embed = EmbeddingSum(prefix, tokens, cell)
        self.modulation = nn.Linear(dim, 2 * NUM_BLOCKS * cell)
        self.mlp_in = nn.ModuleList(Linear(cell, 4 * cell) for _ in range(NUM_BLOCKS))
        self.mlp_out = nn.ModuleList(Linear(4 * cell, cell) for _ in range(NUM_BLOCKS))

    def zero_init(self) -> None:
        """Zero the modulation and the MLPs' output weights (call after `init_weights`)."""
        nn.init.zeros_(self.modulation.weight)
        for mlp_out in self.mlp_out:
            nn.init.zeros_(torch.as_tensor(mlp_out.weight))

    @torch.no_grad()
    def init_from(self, other: ColumnDecoder, codes: int, neighbours: Mapping[int, int]) -> None:
        """Copy the weights of `other` for the first `codes` tokens, which both share; `neighbours` maps
        own neighbour indices to those of `other`. Embeddings without a counterpart become 0."""
        slots, prefix = len(self.column_embed.offsets), len(self.prefix_embed.offsets)
        for ours, theirs, indices in (
            (self.column_embed, other.column_embed, {i: i for i in range(slots)}),
            (self.prefix_embed, other.prefix_embed, {i: i for i in range(prefix)}),
            (self.neighbour_embed, other.neighbour_embed, neighbours),
        ):
            ours.init_from(theirs, codes, indices)
        for name in ("to_cells", "modulation", "mlp_in", "mlp_out"):
            getattr(self, name).load_state_dict(getattr(other, name).state_dict())

    def embed_columns(self, tokens: Tensor) -> Tensor:
        """Column tokens (…, slots) → column vectors (…, dim)."""
        vectors: Tensor = self.column_embed(tokens)
        return vectors

    def cell_inputs(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """Column vectors x (…, dim), neighbour tokens (…, slots, neighbours) → inputs (…, slots, cell) of
        the cells, independent of the codes of the column."""
        embedded: Tensor = self.neighbour_embed(neighbours)
        from_column: Tensor = self.to_cells(layer_norm(x))
        return embedded + from_column.view(embedded.shape)

    def compute_modulation(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Label condition (…, dim) → shift and scale, alternating, of each block: (…, cell) each."""
        parts = self.modulation(layer_norm(condition)).chunk(2 * NUM_BLOCKS, dim=-1)
        return tuple(part + i % 2 for i, part in enumerate(parts))

    def forward(self, inputs: Tensor, prefix: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
        """Cell inputs (…, cell), tokens before each cell (…, prefix), the nearest last, and `modulation`
        from `compute_modulation` → normalized features (…, cell)."""
        x: Tensor = inputs + self.prefix_embed(prefix)
        for mlp_in, mlp_out, shift, scale in zip(
            self.mlp_in, self.mlp_out, modulation[::2], modulation[1::2], strict=True
        ):
            x = x + mlp_out(nn.functional.silu(mlp_in(torch.addcmul(shift, layer_norm(x), scale))))
        return layer_norm(x)


class EmbeddingSum(nn.Module):
    """Sum of the embeddings of the tokens in several slots, with an embedding table per slot.

    One table shared by all slots, followed by a matrix per slot, learnt more slowly.
    """

    offsets: Tensor
    """(slots,) first row of each slot's table."""

    def __init__(self, slots: int, tokens: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(slots * tokens, dim)
        self.register_buffer("offsets", torch.arange(0, slots * tokens, tokens), persistent=False)

    @torch.no_grad()
    def init_from(self, other: EmbeddingSum, codes: int, slots: Mapping[int, int]) -> None:
        """Copy the embeddings of the first `codes` tokens; `slots` maps slots of this embedding to those of `other`.
        All other embeddings become 0."""
        ours, theirs = (
            t.embedding.weight.unflatten(0, (len(t.offsets), -1)) for t in (self, other)
        )
        ours.zero_()
        for slot, other_slot in slots.items():
            ours[slot, :codes] = theirs[other_slot, :codes]

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (…, slots) → (…, dim)."""
        rows = tokens + self.offsets
        if rows.is_cuda:  # nn.Embedding's backward sorts the indices on a GPU, which is slower
            vectors = self.embedding.weight.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        else:
            vectors = self.embedding(rows)
        summed: Tensor = vectors.sum(dim=-2)
        return summed
