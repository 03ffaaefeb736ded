"""Embeddings of labels, for both kinds of priors: a vector for each word, a curve for numbers; and label dropout."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

OCTAVES = 7
"""Cosines and sines of a number over its range, the first of half a period, each of twice as many as the one before."""
INIT_STD = 0.02
"""Standard deviation of an embedding at first, as of words."""
Ends = tuple[int, int]
"""Indices of the lowest and the highest value of a number."""


class NumberEmbedding(nn.Module):
    """A smooth curve of vectors (…, dim) over the indices of a number, and one vector for a missing number.

    An MLP of Fourier features (Tancik et al. 2020), whose amplitudes fall with their frequencies: what lies between
    the numbers of training clips gets vectors between theirs.
    """

    def __init__(self, size: int, ends: Ends, dim: int) -> None:
        """`size`: number of indices; the index `size` means that the number is missing."""
        super().__init__()
        self.size, self.ends = size, ends
        features = 2 * OCTAVES + 1
        self.inner = nn.Parameter(torch.randn(dim, features))
        self.bias = nn.Parameter(torch.rand(dim) * 2 - 1)
        self.outer = nn.Parameter(torch.randn(dim, dim) * (INIT_STD / math.sqrt(dim)))
        self.missing = nn.Parameter(torch.randn(dim) * INIT_STD)

    def forward(self, indices: Tensor) -> Tensor:
        """indices (batch,) → (batch, dim)."""
        low, high = self.ends
        position = (indices.float() - low) / (high - low)
        features = [2 * position - 1]
        for octave in range(OCTAVES):
            angle = position * (math.pi * 2**octave)
            features += [angle.cos() * 2 ** (-octave / 3), angle.sin() * 2 ** (-octave / 3)]
        hidden = nn.functional.gelu(
            nn.functional.linear(torch.stack(features, dim=-1), self.inner, self.bias)
        )
        embedded = nn.functional.linear(hidden, self.outer)
        return torch.where((indices == self.size)[:, None], self.missing.to(embedded), embedded)


def label_embeddings(
    sizes: tuple[int, ...], numbers: Mapping[int, Ends], dim: int
) -> nn.ModuleList:
    """An embedding for each label of `sizes` values; the index after the last means that the label is missing.

    `numbers` are those labels that are numbers, by their index.
    """
    return nn.ModuleList(
        NumberEmbedding(size, numbers[index], dim)
        if index in numbers
        else nn.Embedding(size + 1, dim)
        for index, size in enumerate(sizes)
    )


def drop_labels(
    labels: Tensor, sizes: tuple[int, ...], rate: float, generator: torch.Generator
) -> Tensor:
    """Label dropout for classifier-free guidance: labels (batch, labels) → the same with null labels.

    All labels of a clip are dropped with probability `rate`, else each one with `rate` / 2.
    """
    uniform = torch.rand(len(labels), labels.shape[1] + 1, generator=generator)
    dropped = (uniform[:, 1:] < rate / 2) | (uniform[:, :1] < rate)
    # Labels may be on the CPU while the weights are on a GPU.
    null = labels.new_tensor(sizes).expand_as(labels)
    return torch.where(dropped.to(labels.device), null, labels)
