"""The context network: p(code | neighbouring codes), in floats, as it is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NEIGHBOURS = ((0, -1), (-1, 0), (-1, -1), (1, -1), (0, -2), (-2, 0))
"""Offsets (rows, columns) of the cells that a cell is predicted from: all earlier in time order."""
MARGIN = 2
"""Largest offset in NEIGHBOURS, in cells."""
HIDDEN = 128
"""Hidden units of each quantizer's network."""
HIDDEN_TOP = 8.0
"""Upper clamp of hidden units, which bounds their integers."""


class ContextModel(nn.Module):
    """Network p(code | codes of NEIGHBOURS, codes of coarser quantizers in the same cell, row).

    Inputs and outputs are embedded by code vectors, so that codes that sound similar have similar
    effects and similar probabilities. One hidden layer for each quantizer.
    """

    codebooks: Tensor

    def __init__(self, codebooks: Tensor, rows: int, hidden: int = HIDDEN) -> None:
        """`codebooks` (quantizers, codebook_size, dim): code vectors of a trained quantizer."""
        super().__init__()
        quantizers, _, dim = codebooks.shape
        self.rows = rows
        scaled = codebooks / codebooks.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(
            1e-8
        )
        self.register_buffer("codebooks", scaled.clone())
        self.slots = [len(NEIGHBOURS) * quantizers + q for q in range(quantizers)]
        """Number of context slots, one code each, for every quantizer."""
        self.maps = nn.ParameterList(
            torch.randn(slots, dim, hidden) / math.sqrt(slots * dim) for slots in self.slots
        )
        self.edges = nn.ParameterList(torch.zeros(slots, hidden) for slots in self.slots)
        self.row_bias = nn.ParameterList(torch.zeros(rows, hidden) + 0.5 for _ in self.slots)
        self.heads = nn.ParameterList(0.02 * torch.randn(dim, hidden) for _ in self.slots)
        self.weights = nn.ParameterList(torch.zeros(codebooks.shape[1], hidden) for _ in self.slots)
        self.biases = nn.ParameterList(torch.zeros(codebooks.shape[1]) for _ in self.slots)

    @property
    def num_quantizers(self) -> int:
        return len(self.slots)

    def tables(self, quantizer: int) -> Tensor:
        """Effect of each code in each slot (slots, codebook_size + 1, hidden); the last: no code."""
        sources = torch.cat([*[self.codebooks] * len(NEIGHBOURS), self.codebooks[:quantizer]])
        embedded = torch.einsum("pkd,pdh->pkh", sources, self.maps[quantizer])
        return torch.cat([embedded, self.edges[quantizer][:, None]], dim=1)

    def forward(self, contexts: Tensor, rows: Tensor, quantizer: int) -> Tensor:
        """Logits (cells, codebook_size) of contexts (cells, slots) in rows (cells,)."""
        tables = self.tables(quantizer)
        # Not by indexing, whose gradient is not deterministic on several threads.
        hidden = nn.functional.embedding(rows, self.row_bias[quantizer])
        for slot, table in enumerate(tables):
            hidden = hidden + nn.functional.embedding(contexts[:, slot], table)
        hidden = hidden.clamp(0, HIDDEN_TOP)
        logits: Tensor = hidden @ self.weights_of(quantizer).T + self.biases[quantizer]
        return logits

    def weights_of(self, quantizer: int) -> Tensor:
        """Output weights (codebook_size, hidden): a part by code vector plus a part per code."""
        weights: Tensor = (
            self.weights[quantizer] + self.codebooks[quantizer] @ self.heads[quantizer]
        )
        return weights

    def loss(self, contexts: Tensor, codes: Tensor, rows: Tensor) -> Tensor:
        """Mean bits per cell, summed over quantizers.

        contexts (cells, slots of the last quantizer), codes (cells, quantizers), rows (cells,).
        """
        nats = [
            nn.functional.cross_entropy(self(contexts[:, :slots], rows, q), codes[:, q])
            for q, slots in enumerate(self.slots)
        ]
        return torch.stack(nats).sum() / math.log(2)


def context_cells(
    codes: Tensor, num_columns: Tensor, codebook_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Contexts, codes and rows of all cells inside clips, for codes (batch, quantizers, rows, columns).

    Contexts (cells, slots) are those of the last quantizer, of which the other quantizers use the first
    slots; codebook_size means no code. Codes are (cells, quantizers), rows (cells,). All have the dtype
    of the codes.
    """
    batch, quantizers, rows, columns = codes.shape
    column_mask = torch.arange(columns) < num_columns[:, None]
    grid = codes.masked_fill(~column_mask[:, None, None], codebook_size)
    grid = nn.functional.pad(grid, (MARGIN,) * 4, value=codebook_size)
    parts = [
        grid[:, q, MARGIN + r : MARGIN + r + rows, MARGIN + c : MARGIN + c + columns]
        for r, c in NEIGHBOURS
        for q in range(quantizers)
    ]
    parts += [codes[:, q] for q in range(quantizers - 1)]
    selected = column_mask[:, None].expand(-1, rows, -1)
    row_numbers = torch.arange(rows, dtype=codes.dtype)[:, None].expand(batch, -1, columns)
    return (
        torch.stack(parts, dim=-1)[selected],
        codes.permute(0, 2, 3, 1)[selected],
        row_numbers[selected],
    )
