"""`Vocabulary`: clips of codes as token sequences, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Vocabulary:
    """Mapping between codes and tokens, and the tokens allowed in each slot."""

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
        """The token that ends a clip, in the first slot of a column."""
        return self.codebook_size * self.num_quantizers

    @property
    def size(self) -> int:
        """Number of tokens: the codes of all quantizers, END, levels."""
        return self.end + 1 + self.num_levels

    @property
    def max_tokens(self) -> int:
        """Length of the longest sequence: level, all columns, END."""
        return 2 + self.slots * self.max_columns

    def tokens(self, codes: Tensor, num_columns: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (batch, quantizers, rows, columns), columns and levels (batch,) → tokens, lengths.

        Tokens are (batch, 2 + slots × columns), padded with END; lengths (batch,) include END. A clip
        of max_columns is treated as cut from a longer sound: its length excludes END.
        """
        batch, quantizers, _, columns = codes.shape
        offsets = torch.arange(quantizers, device=codes.device) * self.codebook_size
        grid = (codes + offsets[:, None, None]).permute(0, 3, 2, 1).reshape(batch, -1)
        lengths = 1 + self.slots * num_columns + (num_columns < self.max_columns)
        tokens = torch.full((batch, 2 + self.slots * columns), self.end, device=codes.device)
        tokens[:, 0] = self.end + 1 + levels
        tokens[:, 1:-1] = grid
        positions = torch.arange(tokens.shape[1], device=codes.device)
        past_end = positions > self.slots * num_columns[:, None].to(codes.device)
        return tokens.masked_fill(past_end, self.end), lengths

    def codes(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse of `tokens`: tokens (batch, 1 + slots × columns [+ 1]) → codes, columns, levels.

        With one slot a column, the END of the longest clip takes the place of a column, whose codes are 0.

        Codes and levels have the tokens' dtype; codes are 0 from END on.
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

    def slot(self, positions: Tensor) -> Tensor:
        """Positions in the sequence → 0 for the level, else 1 + slot within the column."""
        return torch.where(positions == 0, 0, 1 + (positions - 1) % self.slots)

    def allowed(self) -> Tensor:
        """Bool (1 + slots, size): the tokens allowed in each slot."""
        table = torch.zeros(1 + self.slots, self.size, dtype=torch.bool)
        table[0, self.end + 1 :] = True
        for slot in range(self.slots):
            quantizer = slot % self.num_quantizers
            begin = quantizer * self.codebook_size
            table[1 + slot, begin : begin + self.codebook_size] = True
        table[1, self.end] = True
        return table
