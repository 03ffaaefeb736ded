"""Which code is likely where, given its neighbours: what an archive is coded by.

A small network predicts each code from the codes around it that come earlier in time order. It
learns in floating point and is then fixed as integers: sums of table rows, one product with a
matrix, one more table for the exponential. Integers give the same counts on every machine, and an
entropy coder needs no less: one differing bit, and all that follows is noise. (The products run in
float64, which carries integers below 2⁵³ exactly, whatever the order of its sums.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from audiovq.prior import Vocabulary

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

NEIGHBOURS = ((0, -1), (-1, 0), (-1, -1), (1, -1), (0, -2), (-2, 0))
"""(rows, columns) from a cell to those that it is predicted from: all before it in time order."""
MARGIN = 2
"""How far they reach."""
HIDDEN_TOP = 8.0
"""Hidden units are cut off here, so that they fit eight bits."""
VECTOR_SCALE, MAP_SCALE, HIDDEN_SCALE, WEIGHT_SCALE = 1 << 8, 1 << 10, 1 << 6, 1 << 8
"""Of codes' vectors, of the maps that they pass, of hidden units and of the last matrix: how many
steps of an integer make 1."""
LOGIT_SHIFT = 8
"""From logits in 1 / (HIDDEN_SCALE · WEIGHT_SCALE) nats to 1/64 nat: so many bits to the right."""
LARGEST_COUNT = 1 << 18
EXPONENTIAL = np.array(
    [max(1, round(LARGEST_COUNT * math.exp(-i / 64))) for i in range(64 * 13)], dtype=np.int64
)
"""Counts by how far a code's logit lies below the best, in 1/64 nat; none of the values before
rounding lies near a half, so that every machine makes the same table."""


_INT16, _INT32, _FLOATS = (torch.int16,), (torch.int32,), (torch.float32, torch.float16)
TYPES = {
    "levels": _INT32,
    "columns": _INT32,
    "distortion": _FLOATS,
    "rate_weight": _FLOATS,
    "vectors": _INT16,
    "maps": _INT16,
    "edges": _INT16,
    "rows": _INT16,
    "weights": _INT16,
    "biases": _INT32,
}
"""Of the tables in the file."""
LARGEST_TABLES = 1 << 28
"""Sums that tables may come to in memory, of eight bytes each; what asks for more is damaged."""

LARGEST_WEIGHT = 4.0
"""Of bits: beyond it next to nothing of the sound is left."""
WEIGHT_STEPS = 6
"""Halvings of the ratio between a weight that is too small and one that is not."""
SEGMENT_COLUMNS = 128
"""Columns after which a long sound is cut: its parts go in lockstep, and each begins without a past."""
BEAM = 4
"""Choices of the coarser codes of a cell that `search` follows."""


class ContextModel(nn.Module):
    """p(code | codes of NEIGHBOURS, codes of coarser quantizers in the same cell, row).

    What a neighbour says comes from its code's vector, and so does how well a code fits: codes that
    sound alike say much the same and are foretold alike. One hidden layer for each quantizer.
    """

    codebooks: Tensor

    def __init__(self, codebooks: Tensor, rows: int, hidden: int = 128) -> None:
        """`codebooks` (quantizers, codebook_size, dim): the vectors of a trained quantizer."""
        super().__init__()
        quantizers, _, dim = codebooks.shape
        self.rows = rows
        scaled = codebooks / codebooks.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(
            1e-8
        )
        self.register_buffer("codebooks", scaled.clone())
        self.places = [len(NEIGHBOURS) * quantizers + q for q in range(quantizers)]
        """Codes that each quantizer's prediction sees."""
        self.maps = nn.ParameterList(
            torch.randn(places, dim, hidden) / math.sqrt(places * dim) for places in self.places
        )
        self.edges = nn.ParameterList(torch.zeros(places, hidden) for places in self.places)
        self.row_bias = nn.ParameterList(torch.zeros(rows, hidden) + 0.5 for _ in self.places)
        self.heads = nn.ParameterList(0.02 * torch.randn(dim, hidden) for _ in self.places)
        self.weights = nn.ParameterList(
            torch.zeros(codebooks.shape[1], hidden) for _ in self.places
        )
        self.biases = nn.ParameterList(torch.zeros(codebooks.shape[1]) for _ in self.places)

    @property
    def num_quantizers(self) -> int:
        return len(self.places)

    def tables(self, quantizer: int) -> Tensor:
        """(places, codebook_size + 1, hidden): what each code says in each place; last: no code."""
        sources = torch.cat([*[self.codebooks] * len(NEIGHBOURS), self.codebooks[:quantizer]])
        said = torch.einsum("pkd,pdh->pkh", sources, self.maps[quantizer])
        return torch.cat([said, self.edges[quantizer][:, None]], dim=1)

    def forward(self, contexts: Tensor, rows: Tensor, quantizer: int) -> Tensor:
        """contexts (cells, places), rows (cells,) → logits (cells, codebook_size)."""
        tables = self.tables(quantizer)
        # Not by indexing, whose gradient is summed in no fixed order on several threads.
        hidden = nn.functional.embedding(rows, self.row_bias[quantizer])
        for place, table in enumerate(tables):
            hidden = hidden + nn.functional.embedding(contexts[:, place], table)
        hidden = hidden.clamp(0, HIDDEN_TOP)
        logits: Tensor = hidden @ self.weights_of(quantizer).T + self.biases[quantizer]
        return logits

    def weights_of(self, quantizer: int) -> Tensor:
        """(codebook_size, hidden): hidden units speak for a vector, and for each code by itself."""
        weights: Tensor = (
            self.weights[quantizer] + self.codebooks[quantizer] @ self.heads[quantizer]
        )
        return weights

    def loss(self, contexts: Tensor, codes: Tensor, rows: Tensor) -> Tensor:
        """Bits per cell, all quantizers: contexts (cells, places of the last), codes (cells, quantizers)."""
        nats = [
            nn.functional.cross_entropy(self(contexts[:, :places], rows, q), codes[:, q])
            for q, places in enumerate(self.places)
        ]
        return torch.stack(nats).sum() / math.log(2)


def cells(codes: Tensor, num_columns: Tensor, codebook_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (batch, quantizers, rows, columns) → contexts, codes, rows of all cells inside clips.

    Contexts are (cells, places): the codes that the last quantizer's prediction sees, those of the
    others being the first of them; codebook_size stands where there is no code. All are of the
    codes' type.
    """
    batch, quantizers, rows, columns = codes.shape
    inside = torch.arange(columns) < num_columns[:, None]
    grid = codes.masked_fill(~inside[:, None, None], codebook_size)
    grid = nn.functional.pad(grid, (MARGIN,) * 4, value=codebook_size)
    parts = [
        grid[:, q, MARGIN + r : MARGIN + r + rows, MARGIN + c : MARGIN + c + columns]
        for r, c in NEIGHBOURS
        for q in range(quantizers)
    ]
    parts += [codes[:, q] for q in range(quantizers - 1)]
    chosen = inside[:, None].expand(-1, rows, -1)
    row_numbers = torch.arange(rows, dtype=codes.dtype)[:, None].expand(batch, -1, columns)
    return (
        torch.stack(parts, dim=-1)[chosen],
        codes.permute(0, 2, 3, 1)[chosen],
        row_numbers[chosen],
    )


class ContextTables:
    """A ContextModel in integers: the same counts on every machine."""

    def __init__(self, integers: Mapping[str, Tensor]) -> None:
        """`integers`: what `integers_of` made. Raises KeyError or ValueError where it is not that."""
        self.integers = dict(integers)
        vectors = integers["vectors"].long()
        self.num_quantizers, self.codebook_size, dim = vectors.shape
        self.rows, hidden = integers["rows.0"].shape
        levels, columns = integers["levels"].numel(), integers["columns"].numel()
        shapes: dict[str, tuple[int, ...]] = {
            "levels": (levels,),
            "columns": (columns,),
            "distortion": (),
            "rate_weight": (),
            "vectors": (self.num_quantizers, self.codebook_size, dim),
        }
        room = 0
        for q in range(self.num_quantizers):
            places = len(NEIGHBOURS) * self.num_quantizers + q
            room += places * (self.codebook_size + 1) * hidden
            shapes |= {
                f"maps.{q}": (places, dim, hidden),
                f"edges.{q}": (places, hidden),
                f"rows.{q}": (self.rows, hidden),
                f"weights.{q}": (hidden, self.codebook_size),
                f"biases.{q}": (self.codebook_size,),
            }
        for name, shape in shapes.items():
            found, types = integers[name], TYPES[name.partition(".")[0]]
            if tuple(found.shape) != shape or found.dtype not in types:
                raise ValueError(f"context table {name} is not {shape} {types[0]}")
        if room > LARGEST_TABLES:
            raise ValueError(f"context tables: {room} sums are more than {LARGEST_TABLES}")
        if min(levels, columns) < 2 or min(integers["levels"].min(), integers["columns"].min()) < 1:
            raise ValueError("context tables: counts from 1 upward are meant")
        if not all(0 <= integers[name] < math.inf for name in ("distortion", "rate_weight")):
            raise ValueError("context tables: distortion and rate_weight from 0 upward are meant")
        self.level_counts: list[int] = integers["levels"].tolist()
        """How common each level is in training."""
        self.column_counts: list[int] = integers["columns"].tolist()
        """The same of numbers of columns; place 0: of any number beyond the list."""
        self.distortion = float(integers["distortion"])
        """Mean squared distance in training between a latent and its nearest code: the unit in
        which `search` weighs distances against bits."""
        self.rate_weight = float(integers["rate_weight"])
        """How much a bit weighs in it, unless a caller says otherwise."""
        self._tables: list[Integers] = []
        self._row_sums: list[Integers] = []
        self._weights: list[npt.NDArray[np.float64]] = []
        self._biases: list[npt.NDArray[np.float64]] = []
        for q in range(self.num_quantizers):
            sources = [s for _ in NEIGHBOURS for s in range(self.num_quantizers)] + list(range(q))
            said = vectors[sources].double() @ integers[f"maps.{q}"].double()
            # From units of 1 / (VECTOR_SCALE · MAP_SCALE) to HIDDEN_UNIT, halves upward.
            shift = VECTOR_SCALE * MAP_SCALE // HIDDEN_SCALE
            sums = (said + shift // 2).div(shift, rounding_mode="floor")
            table = torch.cat([sums, integers[f"edges.{q}"][:, None].double()], dim=1)
            self._tables.append(table.long().numpy())
            self._row_sums.append(integers[f"rows.{q}"].long().numpy())
            self._weights.append(integers[f"weights.{q}"].double().numpy())
            self._biases.append(integers[f"biases.{q}"].double().numpy())

    def counts(self, contexts: Integers, row: int, quantizer: int) -> Integers:
        """contexts (cells, places), all in one row → (cells, codebook_size) counts, each at least 1.

        Places beyond those that `quantizer` sees are left out of account.
        """
        hidden = self._row_sums[quantizer][row][None]
        for place, table in enumerate(self._tables[quantizer]):
            hidden = hidden + table[contexts[:, place]]
        hidden = hidden.clip(0, int(HIDDEN_TOP * HIDDEN_SCALE)).astype(np.float64)
        logits = (hidden @ self._weights[quantizer] + self._biases[quantizer]).astype(np.int64)
        below = (logits.max(axis=1, keepdims=True) - logits) >> LOGIT_SHIFT
        counts: Integers = EXPONENTIAL[np.minimum(below, len(EXPONENTIAL) - 1)]
        return counts

    def fits(self, vocabulary: Vocabulary) -> bool:
        """Whether the tables are of codes such as these."""
        ours = self.num_quantizers, self.codebook_size, self.rows, len(self.level_counts)
        return ours == (
            vocabulary.num_quantizers,
            vocabulary.codebook_size,
            vocabulary.rows,
            vocabulary.num_levels,
        )


def integers_of(
    model: ContextModel,
    levels: Tensor,
    num_columns: Tensor,
    distortion: float,
    rate_weight: float,
) -> dict[str, Tensor]:
    """A trained ContextModel → what ContextTables stands on, by name: integers but for the last two.

    `levels` and `num_columns` are counts: how common each level and number of columns is.
    """

    def rounded(x: Tensor, scale: int, dtype: torch.dtype) -> Tensor:
        limits = torch.iinfo(dtype)
        return (x.detach().cpu().double() * scale).round().clamp(limits.min, limits.max).to(dtype)

    integers = {
        "levels": levels.int(),
        "columns": num_columns.int(),
        "distortion": torch.tensor(distortion),
        "rate_weight": torch.tensor(rate_weight),
        "vectors": rounded(model.codebooks, VECTOR_SCALE, torch.int16),
    }
    for q in range(model.num_quantizers):
        integers |= {
            f"maps.{q}": rounded(model.maps[q], MAP_SCALE, torch.int16),
            f"edges.{q}": rounded(model.edges[q], HIDDEN_SCALE, torch.int16),
            f"rows.{q}": rounded(model.row_bias[q], HIDDEN_SCALE, torch.int16),
            f"weights.{q}": rounded(model.weights_of(q).T, WEIGHT_SCALE, torch.int16),
            f"biases.{q}": rounded(model.biases[q], HIDDEN_SCALE * WEIGHT_SCALE, torch.int32),
        }
    return integers


def code_bits(tables: ContextTables, codes: Tensor, num_columns: Tensor) -> float:
    """Bits that the codes (sounds, quantizers, rows, columns) take in all, by the tables."""
    contexts, targets, rows = cells(codes, num_columns, tables.codebook_size)
    bits = 0.0
    for row in range(tables.rows):
        chosen = rows == row
        around, right = contexts[chosen].numpy(), targets[chosen].numpy()
        for q in range(tables.num_quantizers):
            counts = tables.counts(around, row, q)
            taken = np.take_along_axis(counts, right[:, q : q + 1], axis=1)[:, 0]
            bits += float(np.log2(counts.sum(axis=1)).sum() - np.log2(taken).sum())
    return bits


class Grid:
    """Codes of many sounds as they come to be known, and the contexts that they give.

    Walked column by column, in each from row 0 up, in each cell from coarse to fine: the order in
    which an archive is written and read.
    """

    def __init__(self, sounds: int, quantizers: int, rows: int, columns: int, size: int) -> None:
        self.codes = np.full(
            (sounds, quantizers, rows + 2 * MARGIN, columns + 2 * MARGIN), size, dtype=np.int64
        )

    def contexts(self, sounds: Integers, row: int, column: int, quantizer: int = 0) -> Integers:
        """What the prediction of one cell of each of `sounds` sees: (sounds, places)."""
        row, column = row + MARGIN, column + MARGIN
        around = [self.codes[sounds, :, row + r, column + c] for r, c in NEIGHBOURS]
        return np.concatenate([*around, self.codes[sounds, :quantizer, row, column]], axis=1)

    def set(self, sounds: Integers, row: int, column: int, quantizer: int, codes: Integers) -> None:
        """Make known the codes of one cell of each of `sounds`."""
        self.codes[sounds, quantizer, row + MARGIN, column + MARGIN] = codes


def search(
    tables: ContextTables,
    latents: Floats,
    num_columns: Integers,
    embeddings: Sequence[Floats],
    rate_weight: float,
) -> Integers:
    """Codes that weigh their bits: latents (sounds, dim, rows, columns) → (sounds, quantizers, rows, columns).

    In the order of coding, each cell takes the codes of least squared distance / mean distance in
    training + rate_weight · bits (entropy-constrained vector quantization: Chou, Lookabaugh, Gray
    1989); of those of the coarser quantizers, the best BEAM are followed to the last. `embeddings`
    (codebook_size, dim) of each quantizer. 0 beyond a sound's columns. Sounds longer than a segment
    are cut as an archive cuts them.
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
        whole: Integers = found.reshape(sounds, -1, rows, parts * SEGMENT_COLUMNS)[..., :columns]
        return whole
    order = np.argsort(-num_columns, kind="stable")
    grid = Grid(sounds, tables.num_quantizers, rows, columns, tables.codebook_size)
    for column in range(columns):
        active = order[: int((num_columns > column).sum())]
        for row in range(rows):
            around = grid.contexts(active, row, column)
            codes = _search_cell(
                tables, latents[active, :, row, column], around, row, embeddings, rate_weight
            )
            for q in range(tables.num_quantizers):
                grid.set(active, row, column, q, codes[:, q])
    inside = np.arange(columns) < num_columns[:, None]
    return grid.codes[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN] * inside[:, None, None]


def least_weight(bits: Callable[[float], float], allowed: float, low: float) -> float:
    """The least weight, from `low` up to LARGEST_WEIGHT, whose `bits(weight)` are at most `allowed`.

    To within a few per cent; LARGEST_WEIGHT where none does.
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
    around: Integers,
    row: int,
    embeddings: Sequence[Floats],
    rate_weight: float,
) -> Integers:
    """One cell of many sounds: latents (sounds, dim), contexts (sounds, places) → (sounds, quantizers)."""
    sounds = len(latents)
    residual = latents[:, None]  # (sounds, beams, dim), beams being 1 at first
    bits = np.zeros((sounds, 1))
    codes = np.zeros((sounds, 1, 0), dtype=np.int64)
    for q, embedding in enumerate(embeddings):
        beams = codes.shape[1]
        contexts = np.concatenate([np.repeat(around[:, None], beams, axis=1), codes], axis=2)
        counts = tables.counts(contexts.reshape(sounds * beams, -1), row, q)
        counts = counts.reshape(sounds, beams, -1)
        taken = bits[:, :, None] + np.log2(counts.sum(axis=2, keepdims=True)) - np.log2(counts)
        distances = (residual**2).sum(axis=2, keepdims=True) + (embedding**2).sum(axis=1)
        distances = distances - 2 * residual @ embedding.T
        costs = (distances / tables.distortion + rate_weight * taken).reshape(sounds, -1)
        kept = min(BEAM, costs.shape[1]) if q + 1 < len(embeddings) else 1
        best = np.argpartition(costs, kept - 1, axis=1)[:, :kept]
        beam, code = np.divmod(best, len(embedding))
        bits = np.take_along_axis(taken.reshape(sounds, -1), best, axis=1)
        residual = np.take_along_axis(residual, beam[:, :, None], axis=1) - embedding[code]
        codes = np.take_along_axis(codes, beam[:, :, None], axis=1)
        codes = np.concatenate([codes, code[:, :, None]], axis=2)
    return codes[:, 0]
