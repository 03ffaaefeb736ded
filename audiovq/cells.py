"""Codes of a column from what is known of the column, one after another: what stands between a
transformer over columns and single codes.

Attention over single codes would spend most of a transformer's time on codes right beside each other.
So attention goes over columns, and a small network without any draws a column's codes, each knowing
those below it (after the depth transformer of Lee et al. 2022, RQ-Transformer).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from audiovq import ranks
from audiovq.attention import Linear, normed

BLOCKS = 2
"""Of residual MLPs that a cell passes; labels scale and shift what enters each."""
TOKEN_DROPOUT = 0.2
"""Share of the tokens beside a code that it does not see in training."""


def forgotten(tokens: Tensor, nothing: int) -> Tensor:
    """Tokens (batch, …) with a share of TOKEN_DROPOUT become `nothing` (Bowman et al. 2016), in training:
    else what lies right beside a code is all that it listens to."""
    chance = ranks.drawn(
        len(tokens), lambda n: torch.rand(n, *tokens.shape[1:], device=tokens.device)
    )
    return tokens.masked_fill(chance < TOKEN_DROPOUT, nothing)


class Cells(nn.Module):
    """A column's tokens → a vector for it, and such a vector → what is known of each of its cells."""

    def __init__(
        self, dim: int, cell: int, tokens: int, slots: int, around: int, below: int
    ) -> None:
        """`dim` of a column's vector, `cell` of a cell's features; so many different `tokens`, `slots`
        a column, and tokens that a cell sees by itself: `around` its column, and just `below` it."""
        super().__init__()
        self.gather = Table(slots, tokens, dim)
        self.spread = Linear(dim, slots * cell)
        self.around = Table(around, tokens, cell)
        self.below = Table(below, tokens, cell)
        self.modulation = nn.Linear(dim, 2 * BLOCKS * cell)
        self.into = nn.ModuleList(Linear(cell, 4 * cell) for _ in range(BLOCKS))
        self.out = nn.ModuleList(Linear(4 * cell, cell) for _ in range(BLOCKS))

    def start(self) -> None:
        """First weights (call after `initialize`)."""
        nn.init.zeros_(self.modulation.weight)
        for out in self.out:
            nn.init.zeros_(torch.as_tensor(out.weight))

    @torch.no_grad()
    def start_from(self, other: Cells, codes: int, around: Mapping[int, int]) -> None:
        """Begin as `other`, where the first `codes` tokens mean the same; `around` says which of the
        tokens around a cell is which of the other's. All others begin as nothing."""
        for own, theirs, places in (
            (self.gather, other.gather, {i: i for i in range(len(self.gather.first))}),
            (self.below, other.below, {i: i for i in range(len(self.below.first))}),
            (self.around, other.around, around),
        ):
            own.start_from(theirs, codes, places)
        for name in ("spread", "modulation", "into", "out"):
            getattr(self, name).load_state_dict(getattr(other, name).state_dict())

    def columns(self, tokens: Tensor) -> Tensor:
        """(…, slots) tokens → (…, dim)."""
        gathered: Tensor = self.gather(tokens)
        return gathered

    def context(self, x: Tensor, around: Tensor) -> Tensor:
        """x (…, dim), around (…, slots, tokens) → (…, slots, cell), what a cell can know before any
        of its column is drawn."""
        known: Tensor = self.around(around)
        told: Tensor = self.spread(normed(x))
        return known + told.view(known.shape)

    def told(self, condition: Tensor) -> tuple[Tensor, ...]:
        """condition (…, dim) → what labels shift and scale by, in turns, for each block: (…, cell) each."""
        parts = self.modulation(normed(condition)).chunk(2 * BLOCKS, dim=-1)
        return tuple(part + i % 2 for i, part in enumerate(parts))

    def forward(self, context: Tensor, below: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        """context (…, cell), below (…, tokens), the nearest last, and what `told` gives → features
        (…, cell), normalized."""
        x: Tensor = context + self.below(below)
        for into, out, shift, scale in zip(self.into, self.out, told[::2], told[1::2], strict=True):
            x = x + out(nn.functional.silu(into(torch.addcmul(shift, normed(x), scale))))
        return normed(x)


class Table(nn.Module):
    """The sum of what tokens at some places say, each place with vectors of its own.

    Vectors that all places shared, each with a matrix of its own, learnt more slowly.
    """

    first: Tensor
    """(places,) the row of each place's first token."""

    def __init__(self, places: int, tokens: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(places * tokens, dim)
        self.register_buffer("first", torch.arange(0, places * tokens, tokens), persistent=False)

    @torch.no_grad()
    def start_from(self, other: Table, codes: int, places: Mapping[int, int]) -> None:
        """Take over what the first `codes` tokens say at some places; all else says nothing."""
        own, theirs = (t.embedding.weight.unflatten(0, (len(t.first), -1)) for t in (self, other))
        own.zero_()
        for place, place_there in places.items():
            own[place, :codes] = theirs[place_there, :codes]

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, places) → (…, dim)."""
        rows = tokens + self.first
        if rows.is_cuda:  # gradients of an embedding would be sorted there, which takes longer
            found = self.embedding.weight.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        else:
            found = self.embedding(rows)
        summed: Tensor = found.sum(dim=-2)
        return summed
