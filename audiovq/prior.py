"""Priors over codes in time order learn which code follows which: what they share. `transformer.py` and
`pixelcnn.py` hold the two kinds, `sampling.py` draws from them.

A clip is a sequence of *tokens*: its level, then its codes column by column, in each column from
low to high frequency (and from coarse to fine where quantization is residual), then END. So a prior
learns how loud a clip is and where it ends, and can go on with a sound that has begun.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from audiovq import ranks
from audiovq.config import PriorConfig


@dataclass(frozen=True)
class Vocabulary:
    """Which token means what, and which may stand where."""

    codebook_size: int
    num_quantizers: int
    rows: int
    num_levels: int
    max_columns: int

    @property
    def slots(self) -> int:
        """Tokens per column."""
        return self.rows * self.num_quantizers

    @property
    def end(self) -> int:
        """The token that ends a clip; stands where a column would begin."""
        return self.codebook_size * self.num_quantizers

    @property
    def size(self) -> int:
        """Codes of every quantizer, END, levels."""
        return self.end + 1 + self.num_levels

    @property
    def max_tokens(self) -> int:
        """Level, all columns, END."""
        return 2 + self.slots * self.max_columns

    def tokens(self, codes: Tensor, num_columns: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (batch, quantizers, rows, columns), columns and level of each → tokens, lengths.

        Tokens are (batch, 2 + slots × columns), END and beyond filled with END. A clip of
        max_columns was cut from something longer, or as good as: it has no END to learn.
        """
        batch, quantizers, _, columns = codes.shape
        offsets = torch.arange(quantizers, device=codes.device) * self.codebook_size
        grid = (codes + offsets[:, None, None]).permute(0, 3, 2, 1).reshape(batch, -1)
        lengths = 1 + self.slots * num_columns + (num_columns < self.max_columns)
        tokens = torch.full((batch, 2 + self.slots * columns), self.end, device=codes.device)
        tokens[:, 0] = self.end + 1 + levels
        tokens[:, 1:-1] = grid
        places = torch.arange(tokens.shape[1], device=codes.device)
        beyond = places > self.slots * num_columns[:, None].to(codes.device)
        return tokens.masked_fill(beyond, self.end), lengths

    def codes(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inverse of `tokens`: tokens (batch, 1 + slots × columns [+ 1]) → codes, columns, levels.

        Codes and levels are of the tokens' type.
        """
        batch = len(tokens)
        columns = (tokens.shape[1] - 1) // self.slots
        grid = tokens[:, 1 : 1 + columns * self.slots].view(batch, columns, self.rows, -1)
        ended = (grid[:, :, 0, 0] == self.end).long().cumsum(dim=1) > 0
        num_columns = (~ended).sum(dim=1)
        offsets = torch.arange(self.num_quantizers, device=tokens.device) * self.codebook_size
        offsets = offsets.to(tokens.dtype)
        codes = (grid - offsets).masked_fill(ended[:, :, None, None], 0)
        return codes.permute(0, 3, 2, 1), num_columns, tokens[:, 0] - self.end - 1

    def slot(self, places: Tensor) -> Tensor:
        """Place in the sequence → 0 for the level, else 1 + slot within the column."""
        return torch.where(places == 0, 0, 1 + (places - 1) % self.slots)

    def allowed(self) -> Tensor:
        """(1 + slots, size) which tokens may stand in which slot."""
        table = torch.zeros(1 + self.slots, self.size, dtype=torch.bool)
        table[0, self.end + 1 :] = True
        for slot in range(self.slots):
            quantizer = slot % self.num_quantizers
            begin = quantizer * self.codebook_size
            table[1 + slot, begin : begin + self.codebook_size] = True
        table[1, self.end] = True
        return table


class Prior(nn.Module, ABC):
    """p(tokens | labels), a token at a time: what every kind of prior can do."""

    label_embeddings: nn.ModuleList
    head: nn.Linear
    allowed: Tensor
    step_at: Callable[..., Tensor] | None = None
    """(tokens, place, here, condition, caches) → as `step` gives, at a place `here` (1,) whose number the
    GPU alone knows, in a column like that of `place`: any but the first two are alike. None: it cannot."""

    def __init__(
        self, config: PriorConfig, vocabulary: Vocabulary, label_sizes: tuple[int, ...]
    ) -> None:
        """`label_sizes`: how many values each label has; one more stands for "left open"."""
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.label_sizes = label_sizes
        self.register_buffer("allowed", vocabulary.allowed(), persistent=False)

    @abstractmethod
    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """tokens (batch, length), labels (batch, labels) → logits (batch, length, size).

        Logits at a place depend on the tokens before it alone; what may not stand there has -inf.
        """

    @abstractmethod
    def step(self, tokens: Tensor, place: int, condition: Tensor, caches: Any) -> Tensor:
        """Logits (batch, size) at `place`, from `tokens` before it and `caches` filled so far.

        Places must be asked for in their order, from 0 on.
        """

    @abstractmethod
    def new_caches(self, batch: int, tokens: int) -> Any:
        """Room for what `step` keeps of up to so many tokens."""

    def loss(
        self, tokens: Tensor, lengths: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Nats: (mean over all tokens, with gradient; summed over codes and END; over levels)."""
        nats = self._nats(tokens, lengths, labels)
        mean = nats.sum() / ranks.mean(lengths.sum())
        return mean, nats[:, 1:].detach().sum(), nats[:, 0].detach().sum()

    def log_likelihood(self, tokens: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """tokens (batch, length), lengths (batch,), labels (batch, labels) → (batch,) log p, nats.

        The sum over a clip's tokens, level and END included, up to its length; at most 0. Divided
        by the length, it compares clips of different lengths.
        """
        return -self._nats(tokens, lengths, labels).sum(dim=1)

    def condition(self, labels: Tensor) -> Tensor:
        """labels (batch, labels) → (batch, dim)."""
        condition = self.head.weight.new_zeros(labels.shape[0], self.config.dim)
        for i, embedding in enumerate(self.label_embeddings):
            condition = condition + embedding(labels[:, i])
        return condition

    def open_labels(self, batch: int) -> Tensor:
        """(batch, labels) with every label left open."""
        sizes = torch.tensor(self.label_sizes, dtype=torch.long, device=self.head.weight.device)
        return sizes.expand(batch, -1)

    def hide_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Leave labels open at random: all of a clip's, or single ones."""
        return hide_labels(labels, self.label_sizes, self.config.label_dropout, generator)

    def _nats(self, tokens: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """(batch, length) what each token costs, 0 beyond a clip's length."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        inside = places < lengths[:, None].to(tokens.device)
        targets = tokens.masked_fill(~inside, -100)  # cross_entropy's sign for "leave out"
        logits = self(tokens, labels).flatten(0, 1)
        nats = nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
        return nats.view(tokens.shape)

    def _legal(self, logits: Tensor, slots: Tensor | int) -> Tensor:
        """logits (…, size) → the same in float32, -inf for what may not stand in those slots."""
        return logits.float().masked_fill(~self.allowed[slots], -torch.inf)


def hide_labels(
    labels: Tensor, sizes: tuple[int, ...], share: float, generator: torch.Generator
) -> Tensor:
    """labels (batch, labels) → the same, a `share` of clips with all of them left open, and half as
    large a share of single ones."""
    drawn = torch.rand(len(labels), labels.shape[1] + 1, generator=generator)
    hidden = (drawn[:, 1:] < share / 2) | (drawn[:, :1] < share)
    # Clips and their labels may still lie on the CPU while the weights do not.
    opened = labels.new_tensor(sizes).expand_as(labels)
    return torch.where(hidden.to(labels.device), opened, labels)
