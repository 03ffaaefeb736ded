"""Autoregressive prior: a causal transformer over columns of codes, and a column decoder (`column_decoder.py`).

The transformer runs once per column, not once per code. The column decoder predicts each code from the
transformer's output and from the codes just before it in frequency and in time, so that the codes of a
column still depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from audiovq.config.settings import PriorConfig
from audiovq.models.priors.attention import TransformerBlock, compute_modulations, init_weights
from audiovq.models.priors.base import Prior
from audiovq.models.priors.column_decoder import ColumnDecoder, drop_tokens
from audiovq.models.priors.labels import Ends, label_embeddings
from audiovq.models.priors.tokens import Vocabulary
from audiovq.runtime.cuda_graphs import Position, read_at

MAX_GROUP = 16
"""Maximum tokens per group; longer columns are split into several groups, one transformer step each."""
MIN_PREFIX = 3
"""Minimum number of preceding tokens that a code sees directly, however small its group."""


@dataclass
class TransformerCache:
    """KV cache of a transformer prior, and values computed once per clip or group."""

    kv_cache: Tensor
    """(layers, 2, batch, heads, groups, dim / heads): keys and values of earlier groups."""
    modulations: list[tuple[Tensor, ...]] = field(default_factory=list)
    """Scale and shift of each transformer block from the labels: the same at all positions."""
    cell_modulation: tuple[Tensor, ...] = ()
    """Shift and scale of the column decoder's blocks, (batch, cell) each."""
    head_biases: tuple[Tensor, ...] = ()
    """The head's bias (size,) for each slot, -inf for tokens not allowed in it."""
    cell_inputs: tuple[Tensor, ...] = ()
    """(batch, cell) for each cell of the current group: its inputs from earlier groups."""


class Transformer(Prior):
    """Causal attention over groups; within its group a code sees the codes before it.

    A group is a column, or an equal part of one, of up to MAX_GROUP tokens. The transformer's sequence
    is: a learnt start embedding, which predicts the level; the level, which predicts the first group;
    then the groups, each of which predicts the next.
    """

    def __init__(
        self,
        config: PriorConfig,
        vocabulary: Vocabulary,
        label_sizes: tuple[int, ...],
        numbers: Mapping[int, Ends] = MappingProxyType({}),
    ) -> None:
        super().__init__(config, vocabulary, label_sizes, numbers)
        slots, dim = vocabulary.slots, config.dim
        self.group = max(n for n in range(1, min(slots, MAX_GROUP) + 1) if slots % n == 0)
        """Tokens per group."""
        self.prefix = max(self.group - 1, MIN_PREFIX)
        """Number of preceding tokens that a code sees directly."""
        lags = {slots - 1, slots, slots + 1, 2 * slots}
        self.lags = sorted(lag for lag in lags if lag >= self.group)
        """Lags, in tokens, of its neighbours in earlier columns, which it also sees directly."""
        self.column_decoder = ColumnDecoder(
            dim, config.cell, vocabulary.size + 1, self.group, len(self.lags), self.prefix
        )
        self.level_embedding = nn.Embedding(vocabulary.num_levels, dim)
        self.start_embedding = nn.Parameter(torch.zeros(dim))
        groups = vocabulary.max_columns * (slots // self.group)
        self.position_embedding = nn.Embedding(2 + groups, dim)
        self.label_embeddings = label_embeddings(label_sizes, numbers, dim)
        layers = [TransformerBlock(config) for _ in range(config.layers)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(config.cell, vocabulary.size)
        self.apply(init_weights)
        for layer in layers:
            layer.zero_init()
        self.column_decoder.zero_init()

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        (batch, length), group = tokens.shape, self.group
        condition = self.condition(labels)
        if self.training:
            rest = drop_tokens(tokens[:, 1:], self.vocabulary.size)
            tokens = torch.cat([tokens[:, :1], rest], dim=1)
        groups = (length - 1) // group  # complete ones
        grid = tokens[:, 1 : 1 + groups * group].view(batch, groups, group)
        first = self.start_embedding.expand(batch, 1, -1), self._embed_level(tokens)
        x = torch.cat([*first, self.column_decoder.embed_columns(grid)], dim=1)
        x = (
            x
            + self._embed_positions(torch.arange(2 + groups, device=x.device))
            + condition[:, None]
        )
        modulations = compute_modulations(self.layers, condition)
        for layer, modulation in zip(self.layers, modulations, strict=True):
            x = layer(x, modulation)
        neighbours = self._neighbours(tokens, 2 + groups)
        inputs: Tensor = self.column_decoder.cell_inputs(x, neighbours).flatten(1, 2)
        # The first group has a single cell, the level's.
        inputs = torch.cat([inputs[:, :1], inputs[:, group:]], dim=1)[:, :length]
        modulation = self.column_decoder.compute_modulation(condition[:, None])
        features = self.column_decoder(inputs, self._prefixes(tokens), modulation)
        slots = self.vocabulary.slot(torch.arange(length, device=x.device))
        return self._mask_disallowed(self.head(features), slots)

    def step(
        self, tokens: Tensor, position: int, condition: Tensor, caches: TransformerCache
    ) -> Tensor:
        return Transformer.step_at(self, tokens, position, position, condition, caches)

    def step_at(
        self,
        tokens: Tensor,
        template: int,
        position: Position,
        condition: Tensor,
        caches: TransformerCache,
    ) -> Tensor:
        """See `Prior.step_at`."""
        cell = (template - 1) % self.group if template else 0
        if cell == 0:
            self._start_group(tokens, template, position, condition, caches)
        prefix = self._slice_tokens(tokens, position - self.prefix, self.prefix)
        features = self.column_decoder(caches.cell_inputs[cell], prefix, caches.cell_modulation)
        slot = 1 + (template - 1) % self.vocabulary.slots if template else 0
        return nn.functional.linear(features, self.head.weight, caches.head_biases[slot])

    def new_caches(self, batch: int, tokens: int) -> TransformerCache:
        """An empty KV cache for sequences of up to `tokens` tokens."""
        config = self.config
        groups = 2 + (tokens - 1) // self.group
        shape = (config.layers, 2, batch, config.heads, groups, config.dim // config.heads)
        return TransformerCache(torch.zeros(shape, device=self.head.weight.device))

    def _start_group(
        self,
        tokens: Tensor,
        template: int,
        position: Position,
        condition: Tensor,
        caches: TransformerCache,
    ) -> None:
        """Run the transformer for the group that begins at `position` and store its cells' inputs.

        All tokens of earlier groups must be known. `template`: see `Prior.step_at`.
        """
        index: Position = 0 if template == 0 else 1 + (position - 1) // self.group
        if template == 0:
            caches.cell_modulation = self.column_decoder.compute_modulation(condition)
            caches.modulations = compute_modulations(self.layers, condition)
            slots = torch.arange(len(self.allowed), device=condition.device)
            caches.head_biases = self._mask_disallowed(self.head.bias, slots).unbind()
            x = self.start_embedding.expand(len(condition), -1)
        elif template == 1:
            x = self._embed_level(tokens)[:, 0]
        else:
            previous = read_at(tokens, 1, position - self.group, self.group)
            x = self.column_decoder.embed_columns(previous)
        x = x + self._embed_position(index) + condition
        for layer, modulation, kv_cache in zip(
            self.layers, caches.modulations, caches.kv_cache, strict=True
        ):
            assert isinstance(layer, TransformerBlock)
            x = layer.step(x, modulation, kv_cache, index)
        lagged = [self._slice_tokens(tokens, position - lag, self.group) for lag in self.lags]
        neighbours = torch.stack(lagged, dim=2)
        caches.cell_inputs = self.column_decoder.cell_inputs(x, neighbours).unbind(1)

    def _embed_level(self, tokens: Tensor) -> Tensor:
        """Embedding (batch, 1, dim) of the level, the first of the tokens (batch, length)."""
        level = tokens[:, :1] - self.vocabulary.end - 1
        embedded: Tensor = self.level_embedding(level.clamp(min=0))
        return embedded

    def _embed_positions(self, groups: Tensor) -> Tensor:
        """Group indices (groups,) → position embeddings (groups, dim); the last one repeats."""
        last = self.position_embedding.num_embeddings - 1
        embedded: Tensor = self.position_embedding(groups.clamp(max=last))
        return embedded

    def _embed_position(self, group: Position) -> Tensor:
        """Position embedding (1, dim) of one group."""
        if not isinstance(group, int):
            return self._embed_positions(group)
        last = self.position_embedding.num_embeddings - 1
        return self.position_embedding.weight.narrow(0, min(group, last), 1)

    def _neighbours(self, tokens: Tensor, groups: int) -> Tensor:
        """Tokens (batch, length) → those `self.lags` before each cell (batch, groups, group, lags)."""
        # Position 0, the level, is the only cell of the first group; all its neighbours are padding.
        most, short = max(self.lags) + self.group - 1, groups * self.group - tokens.shape[1]
        padded = nn.functional.pad(tokens, (most, short), value=self.vocabulary.size)
        begins = [most - self.group + 1 - lag for lag in self.lags]
        lagged = [padded[:, begin : begin + groups * self.group] for begin in begins]
        neighbours: Tensor = torch.stack(lagged, dim=2).unflatten(1, (groups, self.group))
        return neighbours

    def _prefixes(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, length) → the `self.prefix` tokens before each: (batch, length, prefix)."""
        padded = nn.functional.pad(tokens, (self.prefix, 0), value=self.vocabulary.size)
        return padded[:, :-1].unfold(1, self.prefix, 1)

    def _slice_tokens(self, tokens: Tensor, begin: Position, count: int) -> Tensor:
        """`count` tokens (batch, count) from `begin` on, with padding before position 0."""
        if not isinstance(begin, int):
            return read_at(tokens, 1, begin, count)
        if begin >= 0:
            return tokens.narrow(1, begin, count)
        found = tokens[:, : max(0, begin + count)]
        return nn.functional.pad(found, (count - found.shape[1], 0), value=self.vocabulary.size)
