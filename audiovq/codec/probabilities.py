"""Entropy models of archives: uniform, context tables, or the prior."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from audiovq.config.errors import AudiovqError
from audiovq.models.entropy.context_tables import CodeGrid, ContextTables, Integers
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.runtime.threads import one_thread

Coder = Literal["context", "prior", "plain"]
CODERS: tuple[Coder, ...] = ("plain", "context", "prior")
"""plain: uniform, packed bits. context: the integer tables of `context.py`, which decode on every
machine. prior: the model's prior, the smallest; it decodes only where the network computes identical
bits, which another processor may not, and the checksum then rejects the result. It always runs with one
thread, so the number of cores makes no difference."""
Floats = npt.NDArray[np.float32]


class EntropyModel(Protocol):
    """Entropy model: probabilities of the codes of a group of segments, cell by cell in coding order."""

    def begin(self, levels: Integers, columns: int) -> None:
        """Start a group: the level of each segment's sound, and the columns of the longest segment."""

    def probabilities(self, active: Integers, row: int, column: int, quantizer: int) -> Floats:
        """Unnormalized probabilities (active, codebook_size) of one code of each segment in `active`."""

    def observe(
        self, active: Integers, row: int, column: int, quantizer: int, codes: Integers
    ) -> None:
        """Set the actual codes (active,), for later contexts."""


class _Uniform:
    """Equal probabilities for all codes."""

    def __init__(self, codebook_size: int) -> None:
        self._probabilities = np.ones((1, codebook_size), dtype=np.float32)

    def begin(self, levels: Integers, columns: int) -> None:
        pass

    def probabilities(self, active: Integers, row: int, column: int, quantizer: int) -> Floats:
        return np.repeat(self._probabilities, len(active), axis=0)

    def observe(
        self, active: Integers, row: int, column: int, quantizer: int, codes: Integers
    ) -> None:
        pass


class _Context:
    """Counts of the integer context tables."""

    def __init__(self, tables: ContextTables) -> None:
        self._tables = tables

    def begin(self, levels: Integers, columns: int) -> None:
        tables = self._tables
        self._grid = CodeGrid(
            len(levels), tables.num_quantizers, tables.rows, columns, tables.codebook_size
        )

    def probabilities(self, active: Integers, row: int, column: int, quantizer: int) -> Floats:
        contexts = self._grid.contexts(active, row, column, quantizer)
        # Counts are at most 2¹⁸, which float32 represents exactly.
        return self._tables.counts(contexts, row, quantizer).astype(np.float32)

    def observe(
        self, active: Integers, row: int, column: int, quantizer: int, codes: Integers
    ) -> None:
        self._grid.set(active, row, column, quantizer, codes)


class _Prior:
    """Probabilities of the model's prior, without labels, computed with one thread."""

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self._device = prior.head.weight.device

    @one_thread()
    @torch.inference_mode()
    def begin(self, levels: Integers, columns: int) -> None:
        prior, vocabulary = self._prior, self._prior.vocabulary
        length = 1 + vocabulary.slots * columns
        self._tokens = torch.full((len(levels), length), vocabulary.end, device=self._device)
        self._tokens[:, 0] = torch.from_numpy(levels).to(self._device) + vocabulary.end + 1
        self._caches = prior.new_caches(len(levels), length)
        self._condition = prior.condition(prior.open_labels(len(levels)))
        prior.step(self._tokens, 0, self._condition, self._caches)

    @one_thread()
    @torch.inference_mode()
    def probabilities(self, active: Integers, row: int, column: int, quantizer: int) -> Floats:
        vocabulary = self._prior.vocabulary
        position = self._position(row, column, quantizer)
        logits = self._prior.step(self._tokens, position, self._condition, self._caches)
        first = quantizer * vocabulary.codebook_size
        codes = logits[:, first : first + vocabulary.codebook_size].cpu()
        probabilities: Floats = codes.softmax(dim=1).numpy()[active]
        return probabilities

    @torch.inference_mode()
    def observe(
        self, active: Integers, row: int, column: int, quantizer: int, codes: Integers
    ) -> None:
        tokens = torch.from_numpy(codes + quantizer * self._prior.vocabulary.codebook_size)
        position = self._position(row, column, quantizer)
        self._tokens[torch.from_numpy(active).to(self._device), position] = tokens.to(self._device)

    def _position(self, row: int, column: int, quantizer: int) -> int:
        """Position of a code in the token sequence, after the level token."""
        vocabulary = self._prior.vocabulary
        return 1 + column * vocabulary.slots + row * vocabulary.num_quantizers + quantizer


def entropy_model_for(model: Model, coder: Coder) -> EntropyModel:
    """Entropy model for `coder`. Raises AudiovqError if the model lacks it."""
    if coder == "context":
        if model.context is None:
            raise AudiovqError("the model has no context tables; encode with --coder plain")
        return _Context(model.context)
    if coder == "prior":
        if model.prior is None:
            raise AudiovqError("the model has no prior; encode with --coder context")
        return _Prior(model.prior)
    return _Uniform(model.autoencoder.config.bottleneck.num_codes)
