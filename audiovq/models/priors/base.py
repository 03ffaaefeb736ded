"""Autoregressive priors over codes: the vocabulary and the base class of `transformer.py` and
`pixelcnn.py`. `sampling.py` samples from them.

A clip is a sequence of *tokens*: its level, then its codes column by column, in each column from
low to high frequency (and from coarse to fine where quantization is residual), then END. So a prior
learns how loud a clip is and where it ends, and can continue a given sound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from audiovq.config.settings import PriorConfig
from audiovq.models.priors.labels import Ends, drop_labels
from audiovq.models.priors.tokens import Vocabulary
from audiovq.runtime import distributed


class Prior(nn.Module, ABC):
    """Base class of autoregressive priors: p(tokens | labels), one token at a time."""

    label_embeddings: nn.ModuleList
    head: nn.Linear
    allowed: Tensor
    step_at: Callable[..., Tensor] | None = None
    """`step` at a position that may be a tensor (1,) on the GPU, for CUDA graphs; None: not supported.

    Arguments: (tokens, template, position, condition, caches). `template` is an int position in the same
    slot, which decides what runs; it may be of another column, as all but the first two run the same.
    """

    def __init__(
        self,
        config: PriorConfig,
        vocabulary: Vocabulary,
        label_sizes: tuple[int, ...],
        numbers: Mapping[int, Ends] = MappingProxyType({}),
    ) -> None:
        """`label_sizes`: number of values of each label; the index after the last is the null label. `numbers`: the
        ends of the range of each label that is a number, by its index."""
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.label_sizes = label_sizes
        self.register_buffer("allowed", vocabulary.allowed(), persistent=False)

    @abstractmethod
    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """tokens (batch, length), labels (batch, labels) → logits (batch, length, size).

        Logits at a position depend on earlier tokens only; tokens not allowed there have -inf.
        """

    @abstractmethod
    def step(self, tokens: Tensor, position: int, condition: Tensor, caches: Any) -> Tensor:
        """Logits (batch, size) at `position`, from earlier `tokens` and the caches, which it updates.

        Must be called for each position in order, from 0 on.
        """

    @abstractmethod
    def new_caches(self, batch: int, tokens: int) -> Any:
        """Empty caches for `step`, for a batch of sequences of up to `tokens` tokens."""

    def loss(
        self,
        tokens: Tensor,
        lengths: Tensor,
        labels: Tensor,
        levels_count: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Negative log-likelihood in nats: (mean per token, with gradient; sum over codes and END,
        detached; sum over levels, detached).

        `levels_count` (batch,), bool: whether a clip's level is to be predicted, or only given; None: all are.
        """
        nats = self._nats(tokens, lengths, labels)
        if levels_count is not None:
            nats = torch.cat([nats[:, :1] * levels_count[:, None], nats[:, 1:]], dim=1)
        mean = nats.sum() / distributed.all_reduce_mean(lengths.sum())
        return mean, nats[:, 1:].detach().sum(), nats[:, 0].detach().sum()

    def log_likelihood(
        self, tokens: Tensor, lengths: Tensor, labels: Tensor, batch_size: int = 16
    ) -> Tensor:
        """Log-likelihood (clips,) of tokens (clips, length) with lengths (clips,), in nats.

        The sum over a clip's tokens up to its length, level and END included; at most 0. Divide by the
        length to compare clips of different lengths. `batch_size` clips are computed at a time: all
        tokens of a clip at once take more memory than sampling does.
        """
        batches = zip(*(x.split(batch_size) for x in (tokens, lengths, labels)), strict=True)
        return torch.cat([-self._nats(*batch).sum(dim=1) for batch in batches])

    def condition(self, labels: Tensor) -> Tensor:
        """Sum of the label embeddings: labels (batch, labels) → (batch, dim)."""
        condition = self.head.weight.new_zeros(labels.shape[0], self.config.dim)
        for i, embedding in enumerate(self.label_embeddings):
            condition = condition + embedding(labels[:, i])
        return condition

    def open_labels(self, batch: int) -> Tensor:
        """Null labels (batch, labels), for unconditional sampling."""
        sizes = torch.tensor(self.label_sizes, dtype=torch.long, device=self.head.weight.device)
        return sizes.expand(batch, -1)

    def hide_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Label dropout: see `drop_labels`, at the configured rate."""
        return drop_labels(labels, self.label_sizes, self.config.label_dropout, generator)

    def _nats(self, tokens: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Negative log-likelihood (batch, length) of each token in nats, 0 beyond a clip's length."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        valid = positions < lengths[:, None].to(tokens.device)
        targets = tokens.masked_fill(~valid, -100)  # cross_entropy's ignore_index
        logits = self(tokens, labels).flatten(0, 1)
        nats = nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
        return nats.view(tokens.shape)

    def _mask_disallowed(self, logits: Tensor, slots: Tensor | int) -> Tensor:
        """logits (…, size) → float32, -inf for tokens not allowed in `slots` (…)."""
        return logits.float().masked_fill(~self.allowed[slots], -torch.inf)
