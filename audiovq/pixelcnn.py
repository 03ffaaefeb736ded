"""A gated PixelCNN over codes in time order: learns which code follows which from those nearby.

After van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", turned by a
right angle: what their *vertical stack* reads, all rows above, is here all columns of the past; what
their *horizontal stack* reads, the pixels to the left, is here the rows below in the same column.
Where they mask filters, the input is shifted by one column or row and padded on the side of the
past alone, which costs nothing and has no blind spot.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiovq import ranks
from audiovq.config import PriorConfig
from audiovq.prior import Prior, Vocabulary


class Vertical(nn.Module):
    """A layer of the vertical stack; the condition moves the gates of both stacks (their eq. 4)."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        dim, back = config.dim, config.kernel // 2
        self.dropout = config.dropout
        self.conv = nn.Conv2d(dim, 2 * dim, (back + 1, config.kernel), padding=(0, back))
        self.link = nn.Conv2d(2 * dim, 2 * dim, 1)
        self.modulation = nn.Linear(dim, 4 * dim)

    def forward(self, v: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """v (batch, dim, back + columns, rows), condition (batch, dim) → what the next layer gets,
        (batch, dim, columns, rows), and what the horizontal stack is told, of 2 × dim."""
        own, other = self.modulation(_norm(condition))[:, :, None, None].chunk(2, dim=1)
        read = self.conv(_norm(v)) + own
        return _gated(read, self.dropout, self.training), self.link(read) + other


class Horizontal(nn.Module):
    """A layer of the horizontal stack, residual."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        dim, self.back = config.dim, config.kernel // 2
        self.dropout = config.dropout
        self.conv = nn.Conv2d(dim, 2 * dim, (1, self.back + 1))
        self.out = nn.Conv2d(dim, dim, 1)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        """h (batch, dim, columns, back + rows), told (batch, 2 × dim, columns, rows) → (batch, dim,
        columns, rows)."""
        read = self.conv(_norm(h)) + told
        new: Tensor = h[..., self.back :] + self.out(_gated(read, self.dropout, self.training))
        return new


def _gated(x: Tensor, dropout: float, training: bool) -> Tensor:
    """x (batch, 2 × dim, …) → (batch, dim, …); dropout of a clip's whole channels, as the
    transformer's."""
    values, gates = x.chunk(2, dim=1)
    gated = values.tanh() * gates.sigmoid()
    if not training or dropout == 0:
        return gated
    kept = gated.new_ones(1, gated.shape[1], 1, 1)
    return gated * ranks.drawn(
        len(gated), lambda n: nn.functional.dropout2d(kept.repeat(n, 1, 1, 1), dropout)
    )


def _norm(x: Tensor) -> Tensor:
    """x (batch, dim, …) with a root mean square of 1 over dim; zeros stay zeros."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt()


@dataclass
class Caches:
    """What was computed for the columns and rows before, per layer; zeros where there are none."""

    v: Tensor
    """(layers, batch, dim, back + 1, rows): what it gets of the last columns, which take turns."""
    told: Tensor
    """(layers, batch, 2 × dim, 1, rows): what its vertical stack tells in the newest column."""
    h: Tensor
    """(layers + 1, batch, dim, 1, back + rows): what it gets in the newest column, below which lie
    `back` rows of zeros; and what the last one gives."""


class PixelCNN(Prior):
    """Convolutions over the codes before, as far as `layers` of them reach.

    With `back` = kernel // 2, a code is told of those in the 1 + layers × back columns before it, up
    to layers × back rows higher or lower, of the 1 + layers × back rows below it, and of the coarser
    quantizers in its own cell; of the clip's labels and level, its own row and column. The level
    comes from the labels alone, and END stands where a column's first code would.
    """

    def __init__(
        self, config: PriorConfig, vocabulary: Vocabulary, label_sizes: tuple[int, ...]
    ) -> None:
        super().__init__(config, vocabulary, label_sizes)
        dim, self.back = config.dim, config.kernel // 2
        self.token_embedding = nn.Embedding(vocabulary.size, dim)
        self.row_embedding = nn.Embedding(vocabulary.rows, dim)
        self.column_embedding = nn.Embedding(1 + vocabulary.max_columns, dim)
        self.label_embeddings = nn.ModuleList(nn.Embedding(size + 1, dim) for size in label_sizes)
        self.vertical = nn.ModuleList(Vertical(config) for _ in range(config.layers))
        self.horizontal = nn.ModuleList(Horizontal(config) for _ in range(config.layers))
        self.mix = nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, vocabulary.size)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        vocabulary, (batch, length) = self.vocabulary, tokens.shape
        columns = max(1, -(-(length - 1) // vocabulary.slots))
        places = torch.arange(1 + columns * vocabulary.slots, device=tokens.device)
        embedded = self.token_embedding(nn.functional.pad(tokens, (0, len(places) - length)))
        shape = batch, columns, vocabulary.rows, vocabulary.num_quantizers, embedded.shape[2]
        grid = embedded[:, 1:].view(shape)
        cells = grid.sum(dim=3).permute(0, 3, 1, 2)
        position = self._position(torch.arange(columns, device=tokens.device))
        v = nn.functional.pad(cells, (0, 0, 1, -1)) + position
        h = nn.functional.pad(cells, (1, -1)) + position
        condition = self.condition(labels)
        for vertical, horizontal in zip(self.vertical, self.horizontal, strict=True):
            past = nn.functional.pad(v, (0, 0, self.back, 0))
            v, told = vertical(past, condition + embedded[:, 0])
            h = horizontal(nn.functional.pad(h, (self.back, 0)), told)
        x = h.flatten(2).transpose(1, 2).repeat_interleave(vocabulary.num_quantizers, dim=1)
        x = torch.cat([condition[:, None], x], dim=1)
        coarser = nn.functional.pad(grid, (0, 0, 1, -1)).cumsum(dim=3).flatten(1, 3)
        return self._logits(x, nn.functional.pad(coarser, (0, 0, 1, 0)), places)[:, :length]

    def step(self, tokens: Tensor, place: int, condition: Tensor, caches: Caches) -> Tensor:
        here = torch.arange(place, place + 1, device=tokens.device)
        if place == 0:
            level = condition[:, None]
            return self._logits(level, torch.zeros_like(level), here)[:, 0]
        column, slot = divmod(place - 1, self.vocabulary.slots)
        row, quantizer = divmod(slot, self.vocabulary.num_quantizers)
        if slot == 0:
            self._open_column(tokens, column, condition, caches)
        if quantizer == 0:
            self._open_cell(tokens, column, row, caches)
        coarser = self.token_embedding(tokens[:, place - quantizer : place]).sum(dim=1)
        x = caches.h[-1, :, :, 0, self.back + row]
        return self._logits(x[:, None], coarser[:, None], here)[:, 0]

    def new_caches(self, batch: int, tokens: int) -> Caches:
        """Room for a batch; it takes the same for any number of tokens."""
        layers, dim, back = self.config.layers, self.config.dim, self.back
        rows, new = self.vocabulary.rows, self.head.weight.new_zeros
        return Caches(
            v=new(layers, batch, dim, back + 1, rows),
            told=new(layers, batch, 2 * dim, 1, rows),
            h=new(layers + 1, batch, dim, 1, back + rows),
        )

    def _open_column(self, tokens: Tensor, column: int, condition: Tensor, caches: Caches) -> None:
        """The vertical stack in a new column, once the one before it is known."""
        slots, columns = self.vocabulary.slots, self.back + 1
        v = self._position(torch.arange(column, column + 1, device=tokens.device))
        if column > 0:
            before = self.token_embedding(tokens[:, 1 + (column - 1) * slots : 1 + column * slots])
            cells = before.unflatten(1, (self.vocabulary.rows, -1)).sum(dim=2)
            v = v + cells.transpose(1, 2)[:, :, None]
        turns = [(column + 1 + i) % columns for i in range(columns)]  # the oldest first
        condition = condition + self.token_embedding(tokens[:, 0])
        for vertical, kept, told in zip(self.vertical, caches.v, caches.told, strict=True):
            kept[:, :, turns[-1] : turns[-1] + 1] = v
            v, told[:] = vertical(torch.stack([kept[:, :, i] for i in turns], dim=2), condition)

    def _open_cell(self, tokens: Tensor, column: int, row: int, caches: Caches) -> None:
        """The horizontal stack in a new cell, once the one below it is known."""
        here = torch.arange(column, column + 1, device=tokens.device)
        h = self._position(here)[..., row : row + 1]
        if row > 0:
            quantizers = self.vocabulary.num_quantizers
            end = 1 + column * self.vocabulary.slots + row * quantizers
            lower = self.token_embedding(tokens[:, end - quantizers : end])
            h = h + lower.sum(dim=1)[:, :, None, None]
        place = self.back + row
        caches.h[0, ..., place : place + 1] = h
        for i, horizontal in enumerate(self.horizontal):
            h = horizontal(caches.h[i, ..., row : place + 1], caches.told[i, ..., row : row + 1])
            caches.h[i + 1, ..., place : place + 1] = h

    def _position(self, columns: Tensor) -> Tensor:
        """(columns,) numbers → (1, dim, columns, rows)."""
        known = columns.clamp(max=self.vocabulary.max_columns)
        both: Tensor = self.column_embedding(known)[:, None] + self.row_embedding.weight
        return both.permute(2, 0, 1)[None]

    def _logits(self, x: Tensor, coarser: Tensor, places: Tensor) -> Tensor:
        """What convolutions give, and the coarser quantizers of the cell, (batch, places, dim) each
        → (batch, places, size)."""
        both = torch.cat([nn.functional.rms_norm(x, x.shape[-1:]), coarser], dim=-1)
        logits = self.head(nn.functional.gelu(self.mix(both)))
        return self._legal(logits, self.vocabulary.slot(places))
