"""How much faster a PixelCNN draws codes with its caches than by its whole network for every code.

    python benchmarks/pixelcnn.py

Both draw by the same probabilities but for rounding (`tests/test_pixelcnn.py`).
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from audiovq.config import PriorConfig, SamplingConfig
from audiovq.pixelcnn import Caches, PixelCNN
from audiovq.prior import Prior, Vocabulary, sample

GRIDS = ((8, 24), (16, 16), (16, 32))
"""Rows and columns."""


class Uncached(PixelCNN):
    """The same, but its whole network runs for every code."""

    labels: Tensor
    """(batch, labels), those that are sampled with."""

    def step(self, tokens: Tensor, place: int, condition: Tensor, caches: Caches) -> Tensor:
        logits: Tensor = self(tokens, self.labels)[:, place]
        return logits


def pair(vocabulary: Vocabulary, config: PriorConfig, batch: int) -> tuple[PixelCNN, Uncached]:
    """A network with and without caches, of the same random weights; no clip of theirs ends early."""
    torch.manual_seed(0)
    cached = PixelCNN(config, vocabulary, (10,)).eval()
    with torch.no_grad():
        cached.head.bias[vocabulary.end] = -1e4
    uncached = Uncached(config, vocabulary, (10,)).eval()
    uncached.load_state_dict(cached.state_dict())
    uncached.labels = torch.arange(batch)[:, None] % 10
    return cached, uncached


def drawn(prior: Prior, batch: int) -> tuple[Tensor, float]:
    """Tokens (batch, 1 + slots × columns) of seed 0, and the seconds of processor time they took."""
    sampling, generator = SamplingConfig(guidance=0), torch.Generator().manual_seed(0)
    begin = time.process_time()
    tokens = sample(prior, torch.arange(batch)[:, None] % 10, sampling, generator)
    return tokens, time.process_time() - begin


def main() -> None:
    """One line per grid and batch."""
    config = PriorConfig(kind="pixelcnn")
    for rows, columns in GRIDS:
        for batch in (1, 8):
            vocabulary = Vocabulary(512, 1, rows, num_levels=64, max_columns=columns)
            cached, uncached = pair(vocabulary, config, batch)
            quick, slow = drawn(cached, batch)[1], drawn(uncached, batch)[1]
            print(
                f"{rows}×{columns} codes, {batch} at once: {slow:.2f} s by the whole network,"
                f" {quick:.2f} s with caches: {slow / quick:.0f} times faster",
                flush=True,
            )


if __name__ == "__main__":
    main()
