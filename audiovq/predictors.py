"""What an archive takes the probabilities of codes from: nothing, context tables, or the prior."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from audiovq.checkpoint import Model
from audiovq.config import AudiovqError
from audiovq.context import ContextTables, Grid, Integers
from audiovq.prior import Prior

Coder = Literal["context", "prior", "plain"]
CODERS: tuple[Coder, ...] = ("plain", "context", "prior")
"""plain: every code alike, as packed bits. context: by the integers of `context.py`, which decode
on every machine. prior: by the model's prior, the smallest; it decodes where the network computes the
very same bits, which another processor or thread count may not: the check then refuses."""
Floats = npt.NDArray[np.float32]


class Predictor(Protocol):
    """Tells the chances of each code of a group of segments, cell by cell."""

    def begin(self, levels: Integers, columns: int) -> None:
        """Start on a group: the level of each segment's sound, and the columns of the longest."""

    def chances(self, active: Integers, row: int, column: int, quantizer: int) -> Floats:
        """(active, codebook_size), in proportion to the probabilities, for segments `active`."""

    def learn(
        self, active: Integers, row: int, column: int, quantizer: int, codes: Integers
    ) -> None:
        """What the codes are."""


class _Plain:
    def __init__(self, codebook_size: int) -> None:
        self._chances = np.ones((1, codebook_size), dtype=np.float32)

    def begin(self, levels: Integers, columns: int) -> None:
        pass

    def chances(self, active: Integers, row: int, column: int, quantizer: int) -> Floats:
        return np.repeat(self._chances, len(active), axis=0)

    def learn(
        self, active: Integers, row: int, column: int, quantizer: int, codes: Integers
    ) -> None:
        pass


class _Context:
    def __init__(self, tables: ContextTables) -> None:
        self._tables = tables

    def begin(self, levels: Integers, columns: int) -> None:
        tables = self._tables
        self._grid = Grid(
            len(levels), tables.num_quantizers, tables.rows, columns, tables.codebook_size
        )

    def chances(self, active: Integers, row: int, column: int, quantizer: int) -> Floats:
        contexts = self._grid.contexts(active, row, column, quantizer)
        # Counts stay below 2¹⁸: float32 carries them exactly.
        return self._tables.counts(contexts, row, quantizer).astype(np.float32)

    def learn(
        self, active: Integers, row: int, column: int, quantizer: int, codes: Integers
    ) -> None:
        self._grid.set(active, row, column, quantizer, codes)


class _Prior:
    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self._device = prior.head.weight.device

    @torch.inference_mode()
    def begin(self, levels: Integers, columns: int) -> None:
        prior, vocabulary = self._prior, self._prior.vocabulary
        length = 1 + vocabulary.slots * columns
        self._tokens = torch.full((len(levels), length), vocabulary.end, device=self._device)
        self._tokens[:, 0] = torch.from_numpy(levels).to(self._device) + vocabulary.end + 1
        self._caches = prior.new_caches(len(levels), length)
        self._condition = prior.condition(prior.open_labels(len(levels)))
        prior.step(self._tokens, 0, self._condition, self._caches)

    @torch.inference_mode()
    def chances(self, active: Integers, row: int, column: int, quantizer: int) -> Floats:
        vocabulary = self._prior.vocabulary
        place = self._place(row, column, quantizer)
        logits = self._prior.step(self._tokens, place, self._condition, self._caches)
        first = quantizer * vocabulary.codebook_size
        codes = logits[:, first : first + vocabulary.codebook_size].cpu()
        chances: Floats = codes.softmax(dim=1).numpy()[active]
        return chances

    @torch.inference_mode()
    def learn(
        self, active: Integers, row: int, column: int, quantizer: int, codes: Integers
    ) -> None:
        tokens = torch.from_numpy(codes + quantizer * self._prior.vocabulary.codebook_size)
        place = self._place(row, column, quantizer)
        self._tokens[torch.from_numpy(active).to(self._device), place] = tokens.to(self._device)

    def _place(self, row: int, column: int, quantizer: int) -> int:
        vocabulary = self._prior.vocabulary
        return 1 + column * vocabulary.slots + row * vocabulary.num_quantizers + quantizer


def predictor_for(model: Model, coder: Coder) -> Predictor:
    """What tells chances for `coder`. Raises AudiovqError where the model lacks it."""
    if coder == "context":
        if model.context is None:
            raise AudiovqError("the model has no context tables; encode with --coder plain")
        return _Context(model.context)
    if coder == "prior":
        if model.prior is None:
            raise AudiovqError("the model has no prior; encode with --coder context")
        return _Prior(model.prior)
    return _Plain(model.autoencoder.config.codebook_size)
