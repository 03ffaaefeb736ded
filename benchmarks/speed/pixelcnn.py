"""PixelCNN sampling: with caches, against running the whole network for every code.

Both give the same probabilities up to rounding (`tests/models/priors/test_pixelcnn.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from audiovq.config.sampling import SamplingConfig
from audiovq.config.settings import PriorConfig
from audiovq.models.priors.base import Prior
from audiovq.models.priors.pixelcnn import PixelCNN, PixelCNNCache
from audiovq.models.priors.sampling import sample
from audiovq.models.priors.tokens import Vocabulary
from benchmarks.speed.comparison import ALONE, Peer, Row, Run, compare

HEIGHT, WIDTH, CLIPS = 8, 24, 8
"""Rows and columns of a grid, and clips at once."""


class Uncached(PixelCNN):
    """A PixelCNN that runs its whole network for every code."""

    labels: Tensor
    """(batch, labels): condition of the samples."""

    def step(
        self, tokens: Tensor, position: int, condition: Tensor, caches: PixelCNNCache
    ) -> Tensor:
        logits: Tensor = self(tokens, self.labels)[:, position]
        return logits


def pair(vocabulary: Vocabulary, config: PriorConfig, batch: int) -> tuple[PixelCNN, Uncached]:
    """A network with and without caches, with equal random weights. END is never sampled."""
    torch.manual_seed(0)
    cached = PixelCNN(config, vocabulary, (10,)).eval()
    with torch.no_grad():
        cached.head.bias[vocabulary.end] = -1e4
    uncached = Uncached(config, vocabulary, (10,)).eval()
    uncached.load_state_dict(cached.state_dict())
    uncached.labels = torch.arange(batch)[:, None] % 10
    return cached, uncached


def sampler(prior: Prior, batch: int) -> Run:
    """A function that samples tokens with seed 0."""
    sampling, labels = SamplingConfig(guidance=0), torch.arange(batch)[:, None] % 10
    return lambda: sample(prior, labels, sampling, torch.Generator().manual_seed(0))


def rows(sounds: Path | None = None) -> Iterator[Row]:
    """On the CPU."""
    vocabulary = Vocabulary(512, 1, HEIGHT, num_levels=64, max_columns=WIDTH)
    config = PriorConfig(kind="pixelcnn")
    cached, uncached = (sampler(prior, CLIPS) for prior in pair(vocabulary, config, CLIPS))
    peer = Peer("the whole network for every code", uncached, once=True)
    name = f"PixelCNN, {HEIGHT}×{WIDTH} codes, {CLIPS} at once"
    yield from compare(name, cached, peer, under=[ALONE])
