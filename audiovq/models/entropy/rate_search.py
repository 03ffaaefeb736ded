"""Rate-distortion search: codes that weigh their bits against their squared error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from audiovq.models.entropy.context_model import MARGIN
from audiovq.models.entropy.context_tables import (
    SEGMENT_COLUMNS,
    CodeGrid,
    ContextTables,
    Floats,
    Integers,
)

LARGEST_WEIGHT = 4.0
"""Largest weight of a bit in `search`; beyond it almost nothing of the sound remains."""
WEIGHT_STEPS = 6
"""Bisection steps, on a log scale, of `least_weight`."""
BEAM = 4
"""Beam width of `search` over the quantizers of a cell."""


def search(
    tables: ContextTables,
    latents: Floats,
    num_columns: Integers,
    embeddings: Sequence[Floats],
    rate_weight: float,
) -> Integers:
    """Rate-distortion search: latents (sounds, dim, rows, columns) → (sounds, quantizers, rows, columns).

    In coding order, each cell takes the codes that minimize squared distance / mean distance in training
    + rate_weight · bits (entropy-constrained vector quantization: Chou, Lookabaugh, Gray 1989), by beam
    search of width BEAM over its quantizers. `embeddings` (codebook_size, dim) of each quantizer. Codes
    are 0 beyond a sound's columns. Sounds longer than a segment are cut as in an archive.
    """
    sounds, dim, rows, columns = latents.shape
    if columns > SEGMENT_COLUMNS:
        parts = -(-columns // SEGMENT_COLUMNS)
        padding = (0, 0), (0, 0), (0, 0), (0, parts * SEGMENT_COLUMNS - columns)
        cut = np.pad(latents, padding).reshape(sounds, dim, rows, parts, SEGMENT_COLUMNS)
        cut = np.moveaxis(cut, 3, 1).reshape(sounds * parts, dim, rows, SEGMENT_COLUMNS)
        begins = SEGMENT_COLUMNS * np.arange(parts)
        left = (num_columns[:, None] - begins).clip(0, SEGMENT_COLUMNS).ravel()
        found = search(tables, cut, left, embeddings, rate_weight)
        found = np.moveaxis(found.reshape(sounds, parts, -1, rows, SEGMENT_COLUMNS), 1, 3)
        joined: Integers = found.reshape(sounds, -1, rows, parts * SEGMENT_COLUMNS)[..., :columns]
        return joined
    order = np.argsort(-num_columns, kind="stable")
    grid = CodeGrid(sounds, tables.num_quantizers, rows, columns, tables.codebook_size)
    for column in range(columns):
        active = order[: int((num_columns > column).sum())]
        for row in range(rows):
            contexts = grid.contexts(active, row, column)
            codes = _search_cell(
                tables, latents[active, :, row, column], contexts, row, embeddings, rate_weight
            )
            for q in range(tables.num_quantizers):
                grid.set(active, row, column, q, codes[:, q])
    column_mask = np.arange(columns) < num_columns[:, None]
    return grid.codes[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN] * column_mask[:, None, None]


def least_weight(bits: Callable[[float], float], allowed: float, low: float) -> float:
    """Least weight in [low, LARGEST_WEIGHT] with `bits(weight)` at most `allowed`, to a few per cent.

    LARGEST_WEIGHT if there is none.
    """
    if bits(low) <= allowed:
        return low
    low, high = max(low, 0.01), LARGEST_WEIGHT
    for _ in range(WEIGHT_STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if bits(middle) <= allowed else (middle, high)
    return high


def _search_cell(
    tables: ContextTables,
    latents: Floats,
    cell_contexts: Integers,
    row: int,
    embeddings: Sequence[Floats],
    rate_weight: float,
) -> Integers:
    """Codes (sounds, quantizers) of one cell: latents (sounds, dim), contexts (sounds, slots)."""
    sounds = len(latents)
    residual = latents[:, None]  # (sounds, beams, dim), with one beam at first
    bits = np.zeros((sounds, 1))
    codes = np.zeros((sounds, 1, 0), dtype=np.int64)
    for q, embedding in enumerate(embeddings):
        beams = codes.shape[1]
        contexts = np.concatenate([np.repeat(cell_contexts[:, None], beams, axis=1), codes], axis=2)
        counts = tables.counts(contexts.reshape(sounds * beams, -1), row, q)
        counts = counts.reshape(sounds, beams, -1)
        rates = bits[:, :, None] + np.log2(counts.sum(axis=2, keepdims=True)) - np.log2(counts)
        distances = (residual**2).sum(axis=2, keepdims=True) + (embedding**2).sum(axis=1)
        distances = distances - 2 * residual @ embedding.T
        costs = (distances / tables.distortion + rate_weight * rates).reshape(sounds, -1)
        width = min(BEAM, costs.shape[1]) if q + 1 < len(embeddings) else 1
        best = np.argpartition(costs, width - 1, axis=1)[:, :width]
        beam, code = np.divmod(best, len(embedding))
        bits = np.take_along_axis(rates.reshape(sounds, -1), best, axis=1)
        residual = np.take_along_axis(residual, beam[:, :, None], axis=1) - embedding[code]
        codes = np.take_along_axis(codes, beam[:, :, None], axis=1)
        codes = np.concatenate([codes, code[:, :, None]], axis=2)
    return codes[:, 0]
