"""A causal transformer over columns of codes, and a small network that draws each column's codes.

What attention tells of all columns before, and the codes just before one in frequency and in time, go
into a network that each code passes by itself (`cells.py`). So attention is asked once a column, not
once a code, and a column's codes still depend on each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from audiovq.attention import Layer, all_told, initialize
from audiovq.cells import Cells, forgotten
from audiovq.config import PriorConfig
from audiovq.places import Place, read
from audiovq.prior import Prior, Vocabulary

MOST_SLOTS = 16
"""Of a group: a column of more is several groups, each of which attention is asked for anew."""

LEAST_BELOW = 3
"""Tokens that a code sees by itself, just before it, where its group is of fewer."""


@dataclass
class Caches:
    """What a transformer keeps from place to place."""

    kept: Tensor
    """(layers, 2, batch, heads, groups, dim / heads): keys and values of the groups before."""
    told: list[tuple[Tensor, ...]] = field(default_factory=list)
    """What the labels tell each layer: the same everywhere."""
    cells_told: tuple[Tensor, ...] = ()
    """What they tell the cells, (batch, cell) each."""
    biases: tuple[Tensor, ...] = ()
    """(size,) for each slot: the head's, -inf for what may not stand there."""
    context: tuple[Tensor, ...] = ()
    """(batch, cell) for each cell of the group at hand: what is known of it from the groups before."""


class Transformer(Prior):
    """Attention over all groups before; in its own group a code sees those before it.

    A group is a column, or an even part of one, of up to MOST_SLOTS tokens. The first place of the
    sequence stands for nothing and tells the level; the second is the level and tells the first group;
    from then on each group tells the next.
    """

    def __init__(
        self, config: PriorConfig, vocabulary: Vocabulary, label_sizes: tuple[int, ...]
    ) -> None:
        super().__init__(config, vocabulary, label_sizes)
        slots, dim = vocabulary.slots, config.dim
        self.group = max(n for n in range(1, min(slots, MOST_SLOTS) + 1) if slots % n == 0)
        self.below = max(self.group - 1, LEAST_BELOW)
        """So many tokens just before a code it sees by itself,"""
        lags = {slots - 1, slots, slots + 1, 2 * slots}
        self.lags = sorted(lag for lag in lags if lag >= self.group)
        """and those so far back, in columns before."""
        self.cells = Cells(
            dim, config.cell, vocabulary.size + 1, self.group, len(self.lags), self.below
        )
        self.level_embedding = nn.Embedding(vocabulary.num_levels, dim)
        self.start = nn.Parameter(torch.zeros(dim))
        groups = vocabulary.max_columns * (slots // self.group)
        self.place_embedding = nn.Embedding(2 + groups, dim)
        self.label_embeddings = nn.ModuleList(nn.Embedding(size + 1, dim) for size in label_sizes)
        layers = [Layer(config) for _ in range(config.layers)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(config.cell, vocabulary.size)
        self.apply(initialize)
        for layer in layers:
            layer.start()
        self.cells.start()

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        (batch, length), group = tokens.shape, self.group
        condition = self.condition(labels)
        if self.training:
            rest = forgotten(tokens[:, 1:], self.vocabulary.size)
            tokens = torch.cat([tokens[:, :1], rest], dim=1)
        whole = (length - 1) // group
        grid = tokens[:, 1 : 1 + whole * group].view(batch, whole, group)
        first = self.start.expand(batch, 1, -1), self._level(tokens)
        x = torch.cat([*first, self.cells.columns(grid)], dim=1)
        x = x + self._places(torch.arange(2 + whole, device=x.device)) + condition[:, None]
        for layer, told in zip(self.layers, all_told(self.layers, condition), strict=True):
            x = layer(x, told)
        context: Tensor = self.cells.context(x, self._around(tokens, 2 + whole)).flatten(1, 2)
        # Of the first place's group the level alone is a cell.
        context = torch.cat([context[:, :1], context[:, group:]], dim=1)[:, :length]
        told = self.cells.told(condition[:, None])
        features = self.cells(context, self._below(tokens), told)
        slots = self.vocabulary.slot(torch.arange(length, device=x.device))
        return self._legal(self.head(features), slots)

    def step(self, tokens: Tensor, place: int, condition: Tensor, caches: Caches) -> Tensor:
        return Transformer.step_at(self, tokens, place, place, condition, caches)

    def step_at(
        self, tokens: Tensor, place: int, here: Place, condition: Tensor, caches: Caches
    ) -> Tensor:
        """See `Prior.step_at`."""
        cell = (place - 1) % self.group if place else 0
        if cell == 0:
            self._open_group(tokens, place, here, condition, caches)
        below = self._seen(tokens, here - self.below, self.below)
        features = self.cells(caches.context[cell], below, caches.cells_told)
        slot = 1 + (place - 1) % self.vocabulary.slots if place else 0
        return nn.functional.linear(features, self.head.weight, caches.biases[slot])

    def new_caches(self, batch: int, tokens: int) -> Caches:
        """Room for the keys and values of so many tokens."""
        config = self.config
        groups = 2 + (tokens - 1) // self.group
        shape = (config.layers, 2, batch, config.heads, groups, config.dim // config.heads)
        return Caches(torch.zeros(shape, device=self.head.weight.device))

    def _open_group(
        self, tokens: Tensor, place: int, here: Place, condition: Tensor, caches: Caches
    ) -> None:
        """Attention for the group that begins `here`, at a place like `place`, once the one before is
        known."""
        number: Place = 0 if place == 0 else 1 + (here - 1) // self.group
        if place == 0:
            caches.cells_told = self.cells.told(condition)
            caches.told = all_told(self.layers, condition)
            slots = torch.arange(len(self.allowed), device=condition.device)
            caches.biases = self._legal(self.head.bias, slots).unbind()
            x = self.start.expand(len(condition), -1)
        elif place == 1:
            x = self._level(tokens)[:, 0]
        else:
            x = self.cells.columns(read(tokens, 1, here - self.group, self.group))
        x = x + self._place(number) + condition
        for layer, told, kept in zip(self.layers, caches.told, caches.kept, strict=True):
            assert isinstance(layer, Layer)
            x = layer.step(x, told, kept, number)
        lags = [self._seen(tokens, here - lag, self.group) for lag in self.lags]
        caches.context = self.cells.context(x, torch.stack(lags, dim=2)).unbind(1)

    def _level(self, tokens: Tensor) -> Tensor:
        """tokens (batch, any) → (batch, 1, dim): the level."""
        first = tokens[:, :1] - self.vocabulary.end - 1
        level: Tensor = self.level_embedding(first.clamp(min=0))
        return level

    def _places(self, numbers: Tensor) -> Tensor:
        """(groups,) → (groups, dim)."""
        last = self.place_embedding.num_embeddings - 1
        places: Tensor = self.place_embedding(numbers.clamp(max=last))
        return places

    def _place(self, number: Place) -> Tensor:
        """(1, dim): that of one group."""
        if not isinstance(number, int):
            return self._places(number)
        last = self.place_embedding.num_embeddings - 1
        return self.place_embedding.weight.narrow(0, min(number, last), 1)

    def _around(self, tokens: Tensor, groups: int) -> Tensor:
        """(batch, length) → (batch, groups, group, lags): what each cell sees of the groups before."""
        # The first place is the level's, the one cell of its group: all of a group before it is none.
        most, short = max(self.lags) + self.group - 1, groups * self.group - tokens.shape[1]
        padded = nn.functional.pad(tokens, (most, short), value=self.vocabulary.size)
        begin = [most - self.group + 1 - lag for lag in self.lags]
        seen = [padded[:, at : at + groups * self.group] for at in begin]
        around: Tensor = torch.stack(seen, dim=2).unflatten(1, (groups, self.group))
        return around

    def _below(self, tokens: Tensor) -> Tensor:
        """(batch, length) → (batch, length, below): the tokens just before each."""
        padded = nn.functional.pad(tokens, (self.below, 0), value=self.vocabulary.size)
        return padded[:, :-1].unfold(1, self.below, 1)

    def _seen(self, tokens: Tensor, begin: Place, count: int) -> Tensor:
        """(batch, count): tokens from `begin` on, none before the first."""
        if not isinstance(begin, int):
            return read(tokens, 1, begin, count)
        if begin >= 0:
            return tokens.narrow(1, begin, count)
        seen = tokens[:, : max(0, begin + count)]
        return nn.functional.pad(seen, (count - seen.shape[1], 0), value=self.vocabulary.size)
