"""Gated PixelCNN: an autoregressive prior of causal convolutions over the grid of codes.

After van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", rotated by 90°:
their *vertical stack*, over all rows above, is here over all past columns; their *horizontal stack*,
over the pixels to the left, is here over the rows below in the same column. Instead of masking
filters, the input is shifted by one column or row and padded on the past side only, which costs nothing
and has no blind spot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from audiovq.config.settings import PriorConfig
from audiovq.models.priors.base import Prior
from audiovq.models.priors.labels import Ends, label_embeddings
from audiovq.models.priors.tokens import Vocabulary
from audiovq.runtime import distributed


class Vertical(nn.Module):
    """Layer of the vertical stack; the condition shifts the gates of both stacks (their eq. 4)."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        dim, back = config.dim, config.kernel // 2
        self.dropout = config.dropout
        self.conv = nn.Conv2d(dim, 2 * dim, (back + 1, config.kernel), padding=(0, back))
        self.to_horizontal = nn.Conv2d(2 * dim, 2 * dim, 1)
        self.modulation = nn.Linear(dim, 4 * dim)

    def forward(self, v: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """v (batch, dim, back + columns, rows), condition (batch, dim) → input of the next layer
        (batch, dim, columns, rows), and of the horizontal stack (batch, 2 × dim, columns, rows)."""
        shifts = self.modulation(_rms_norm(condition))[:, :, None, None]
        vertical_shift, horizontal_shift = shifts.chunk(2, dim=1)
        out = self.conv(_rms_norm(v)) + vertical_shift
        return _gated(out, self.dropout, self.training), self.to_horizontal(out) + horizontal_shift


class Horizontal(nn.Module):
    """Residual layer of the horizontal stack."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        dim, self.back = config.dim, config.kernel // 2
        self.dropout = config.dropout
        self.conv = nn.Conv2d(dim, 2 * dim, (1, self.back + 1))
        self.out = nn.Conv2d(dim, dim, 1)

    def forward(self, h: Tensor, from_vertical: Tensor) -> Tensor:
        """h (batch, dim, columns, back + rows), from_vertical (batch, 2 × dim, columns, rows) → (batch,
        dim, columns, rows)."""
        out = self.conv(_rms_norm(h)) + from_vertical
        new: Tensor = h[..., self.back :] + self.out(_gated(out, self.dropout, self.training))
        return new


def _gated(x: Tensor, dropout: float, training: bool) -> Tensor:
    """Gated activation tanh · sigmoid: x (batch, 2 × dim, …) → (batch, dim, …).

    Dropout drops whole channels of a clip, as in the transformer.
    """
    values, gates = x.chunk(2, dim=1)
    gated = values.tanh() * gates.sigmoid()
    if not training or dropout == 0:
        return gated
    ones = gated.new_ones(1, gated.shape[1], 1, 1)
    return gated * distributed.draw_for_global_batch(
        len(gated), lambda n: nn.functional.dropout2d(ones.repeat(n, 1, 1, 1), dropout)
    )


def _rms_norm(x: Tensor) -> Tensor:
    """RMS norm of x (batch, dim, …) over dim; zeros stay zeros."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt()


@dataclass
class PixelCNNCache:
    """Activations of earlier columns and rows in each layer; zeros before the first."""

    v: Tensor
    """(layers, batch, dim, back + 1, rows): inputs of the vertical layers, a ring buffer of columns."""
    from_vertical: Tensor
    """(layers, batch, 2 × dim, 1, rows): outputs of the vertical layers to the horizontal ones, in the
    current column."""
    h: Tensor
    """(layers + 1, batch, dim, 1, back + rows): inputs of the horizontal layers in the current column,
    after `back` rows of zeros, and the output of the last layer."""


class PixelCNN(Prior):
    """Gated convolutions over earlier codes.

    With `back` = kernel // 2, the receptive field of a code is: the 1 + layers × back columns before
    it, up to layers × back rows higher or lower; the 1 + layers × back rows below it; and the coarser
    quantizers of its cell. It also depends on the clip's labels and level, and on its row and
    column. The level is predicted from the labels alone, and END in the first slot of a column.
    """

    def __init__(
        self,
        config: PriorConfig,
        vocabulary: Vocabulary,
        label_sizes: tuple[int, ...],
        numbers: Mapping[int, Ends] = MappingProxyType({}),
    ) -> None:
        super().__init__(config, vocabulary, label_sizes, numbers)
        dim, self.back = config.dim, config.kernel // 2
        self.token_embedding = nn.Embedding(vocabulary.size, dim)
        self.row_embedding = nn.Embedding(vocabulary.rows, dim)
        self.column_embedding = nn.Embedding(1 + vocabulary.max_columns, dim)
        self.label_embeddings = label_embeddings(label_sizes, numbers, dim)
        self.vertical = nn.ModuleList(Vertical(config) for _ in range(config.layers))
        self.horizontal = nn.ModuleList(Horizontal(config) for _ in range(config.layers))
        self.mix = nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, vocabulary.size)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        vocabulary, (batch, length) = self.vocabulary, tokens.shape
        columns = max(1, -(-(length - 1) // vocabulary.slots))
        positions = torch.arange(1 + columns * vocabulary.slots, device=tokens.device)
        embedded = self.token_embedding(nn.functional.pad(tokens, (0, len(positions) - length)))
        shape = batch, columns, vocabulary.rows, vocabulary.num_quantizers, embedded.shape[2]
        grid = embedded[:, 1:].view(shape)
        cells = grid.sum(dim=3).permute(0, 3, 1, 2)
        position = self._embed_columns(torch.arange(columns, device=tokens.device))
        v = nn.functional.pad(cells, (0, 0, 1, -1)) + position
        h = nn.functional.pad(cells, (1, -1)) + position
        condition = self.condition(labels)
        for vertical, horizontal in zip(self.vertical, self.horizontal, strict=True):
            past = nn.functional.pad(v, (0, 0, self.back, 0))
            v, from_vertical = vertical(past, condition + embedded[:, 0])
            h = horizontal(nn.functional.pad(h, (self.back, 0)), from_vertical)
        x = h.flatten(2).transpose(1, 2).repeat_interleave(vocabulary.num_quantizers, dim=1)
        x = torch.cat([condition[:, None], x], dim=1)
        coarser = nn.functional.pad(grid, (0, 0, 1, -1)).cumsum(dim=3).flatten(1, 3)
        return self._logits(x, nn.functional.pad(coarser, (0, 0, 1, 0)), positions)[:, :length]

    def step(
        self, tokens: Tensor, position: int, condition: Tensor, caches: PixelCNNCache
    ) -> Tensor:
        positions = torch.arange(position, position + 1, device=tokens.device)
        if position == 0:
            level = condition[:, None]
            return self._logits(level, torch.zeros_like(level), positions)[:, 0]
        column, slot = divmod(position - 1, self.vocabulary.slots)
        row, quantizer = divmod(slot, self.vocabulary.num_quantizers)
        if slot == 0:
            self._start_column(tokens, column, condition, caches)
        if quantizer == 0:
            self._start_cell(tokens, column, row, caches)
        coarser = self.token_embedding(tokens[:, position - quantizer : position]).sum(dim=1)
        x = caches.h[-1, :, :, 0, self.back + row]
        return self._logits(x[:, None], coarser[:, None], positions)[:, 0]

    def new_caches(self, batch: int, tokens: int) -> PixelCNNCache:
        """Empty caches for a batch; their size does not depend on the number of tokens."""
        layers, dim, back = self.config.layers, self.config.dim, self.back
        rows, new = self.vocabulary.rows, self.head.weight.new_zeros
        return PixelCNNCache(
            v=new(layers, batch, dim, back + 1, rows),
            from_vertical=new(layers, batch, 2 * dim, 1, rows),
            h=new(layers + 1, batch, dim, 1, back + rows),
        )

    def _start_column(
        self, tokens: Tensor, column: int, condition: Tensor, caches: PixelCNNCache
    ) -> None:
        """Run the vertical stack for `column`; all tokens of earlier columns must be known."""
        slots, columns = self.vocabulary.slots, self.back + 1
        v = self._embed_columns(torch.arange(column, column + 1, device=tokens.device))
        if column > 0:
            before = self.token_embedding(tokens[:, 1 + (column - 1) * slots : 1 + column * slots])
            cells = before.unflatten(1, (self.vocabulary.rows, -1)).sum(dim=2)
            v = v + cells.transpose(1, 2)[:, :, None]
        ring = [(column + 1 + i) % columns for i in range(columns)]  # the oldest first
        condition = condition + self.token_embedding(tokens[:, 0])
        for vertical, cache, from_vertical in zip(
            self.vertical, caches.v, caches.from_vertical, strict=True
        ):
            cache[:, :, ring[-1] : ring[-1] + 1] = v
            past = torch.stack([cache[:, :, i] for i in ring], dim=2)
            v, from_vertical[:] = vertical(past, condition)

    def _start_cell(self, tokens: Tensor, column: int, row: int, caches: PixelCNNCache) -> None:
        """Run the horizontal stack for the cell at `row`; the tokens below it must be known."""
        columns = torch.arange(column, column + 1, device=tokens.device)
        h = self._embed_columns(columns)[..., row : row + 1]
        if row > 0:
            quantizers = self.vocabulary.num_quantizers
            end = 1 + column * self.vocabulary.slots + row * quantizers
            lower = self.token_embedding(tokens[:, end - quantizers : end])
            h = h + lower.sum(dim=1)[:, :, None, None]
        index = self.back + row
        caches.h[0, ..., index : index + 1] = h
        for i, horizontal in enumerate(self.horizontal):
            from_vertical = caches.from_vertical[i, ..., row : row + 1]
            h = horizontal(caches.h[i, ..., row : index + 1], from_vertical)
            caches.h[i + 1, ..., index : index + 1] = h

    def _embed_columns(self, columns: Tensor) -> Tensor:
        """Column indices (columns,) → column plus row embeddings (1, dim, columns, rows)."""
        clamped = columns.clamp(max=self.vocabulary.max_columns)
        both: Tensor = self.column_embedding(clamped)[:, None] + self.row_embedding.weight
        return both.permute(2, 0, 1)[None]

    def _logits(self, x: Tensor, coarser: Tensor, positions: Tensor) -> Tensor:
        """Output of the convolutions x and summed embeddings of the cell's coarser quantizers, (batch,
        positions, dim) each → logits (batch, positions, size)."""
        both = torch.cat([nn.functional.rms_norm(x, x.shape[-1:]), coarser], dim=-1)
        logits = self.head(nn.functional.gelu(self.mix(both)))
        return self._mask_disallowed(logits, self.vocabulary.slot(positions))
