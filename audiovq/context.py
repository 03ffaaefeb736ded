"""Integer context model p(code | neighbours): the default entropy model of archives.

A small network predicts each code from neighbouring codes that precede it in time order. It is trained
in floating point and then quantized to integers: sums of table rows, one matrix product, and a table
for the exponential. Integers give the same counts on every machine, which an entropy coder requires:
one differing bit, and everything after it decodes to noise. (The products run in float64, which is
exact for integers below 2⁵³, whatever the order of its sums.)
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
"""Offsets (rows, columns) of the cells that a cell is predicted from: all earlier in time order."""
MARGIN = 2
"""Largest offset in NEIGHBOURS, in cells."""
HIDDEN_TOP = 8.0
"""Upper clamp of hidden units, which bounds their integers."""
VECTOR_SCALE, MAP_SCALE, HIDDEN_SCALE, WEIGHT_SCALE = 1 << 8, 1 << 10, 1 << 6, 1 << 8
"""Fixed-point scales (integer steps per 1) of code vectors, maps, hidden units and output weights."""
LOGIT_SHIFT = 8
"""Right shift, in bits, of logits from 1 / (HIDDEN_SCALE · WEIGHT_SCALE) nat to 1/64 nat."""
LARGEST_COUNT = 1 << 18
EXPONENTIAL = np.array(
    [max(1, round(LARGEST_COUNT * math.exp(-i / 64))) for i in range(64 * 13)], dtype=np.int64
)
"""Count of a code by the distance of its logit below the largest, in 1/64 nat. No value is near a half
before rounding, so that every machine computes the same table."""


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
"""Accepted dtypes of the tables in the file, by name."""
LARGEST_TABLES = 1 << 28
"""Upper bound for table entries in memory, of 8 bytes each; larger files are taken as corrupt."""

LARGEST_WEIGHT = 4.0
"""Largest weight of a bit in `search`; beyond it almost nothing of the sound remains."""
WEIGHT_STEPS = 6
"""Bisection steps, on a log scale, of `least_weight`."""
SEGMENT_COLUMNS = 128
"""Columns per segment of a long sound; segments are coded in lockstep, each without earlier context."""
BEAM = 4
"""Beam width of `search` over the quantizers of a cell."""


class ContextModel(nn.Module):
    """Network p(code | codes of NEIGHBOURS, codes of coarser quantizers in the same cell, row).

    Inputs and outputs are embedded by code vectors, so that codes that sound similar have similar
    effects and similar probabilities. One hidden layer for each quantizer.
    """

    codebooks: Tensor

    def __init__(self, codebooks: Tensor, rows: int, hidden: int = 128) -> None:
        """`codebooks` (quantizers, codebook_size, dim): code vectors of a trained quantizer."""
        super().__init__()
        quantizers, _, dim = codebooks.shape
        self.rows = rows
        scaled = codebooks / codebooks.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(
            1e-8
        )
        self.register_buffer("codebooks", scaled.clone())
        self.slots = [len(NEIGHBOURS) * quantizers + q for q in range(quantizers)]
        """Number of context slots, one code each, for every quantizer."""
        self.maps = nn.ParameterList(
            torch.randn(slots, dim, hidden) / math.sqrt(slots * dim) for slots in self.slots
        )
        self.edges = nn.ParameterList(torch.zeros(slots, hidden) for slots in self.slots)
        self.row_bias = nn.ParameterList(torch.zeros(rows, hidden) + 0.5 for _ in self.slots)
        self.heads = nn.ParameterList(0.02 * torch.randn(dim, hidden) for _ in self.slots)
        self.weights = nn.ParameterList(torch.zeros(codebooks.shape[1], hidden) for _ in self.slots)
        self.biases = nn.ParameterList(torch.zeros(codebooks.shape[1]) for _ in self.slots)

    @property
    def num_quantizers(self) -> int:
        return len(self.slots)

    def tables(self, quantizer: int) -> Tensor:
        """Effect of each code in each slot (slots, codebook_size + 1, hidden); the last: no code."""
        sources = torch.cat([*[self.codebooks] * len(NEIGHBOURS), self.codebooks[:quantizer]])
        embedded = torch.einsum("pkd,pdh->pkh", sources, self.maps[quantizer])
        return torch.cat([embedded, self.edges[quantizer][:, None]], dim=1)

    def forward(self, contexts: Tensor, rows: Tensor, quantizer: int) -> Tensor:
        """Logits (cells, codebook_size) of contexts (cells, slots) in rows (cells,)."""
        tables = self.tables(quantizer)
        # Not by indexing, whose gradient is not deterministic on several threads.
        hidden = nn.functional.embedding(rows, self.row_bias[quantizer])
        for slot, table in enumerate(tables):
            hidden = hidden + nn.functional.embedding(contexts[:, slot], table)
        hidden = hidden.clamp(0, HIDDEN_TOP)
        logits: Tensor = hidden @ self.weights_of(quantizer).T + self.biases[quantizer]
        return logits

    def weights_of(self, quantizer: int) -> Tensor:
        """Output weights (codebook_size, hidden): a part by code vector plus a part per code."""
        weights: Tensor = (
            self.weights[quantizer] + self.codebooks[quantizer] @ self.heads[quantizer]
        )
        return weights

    def loss(self, contexts: Tensor, codes: Tensor, rows: Tensor) -> Tensor:
        """Mean bits per cell, summed over quantizers.

        contexts (cells, slots of the last quantizer), codes (cells, quantizers), rows (cells,).
        """
        nats = [
            nn.functional.cross_entropy(self(contexts[:, :slots], rows, q), codes[:, q])
            for q, slots in enumerate(self.slots)
        ]
        return torch.stack(nats).sum() / math.log(2)


def cells(codes: Tensor, num_columns: Tensor, codebook_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Contexts, codes and rows of all cells inside clips, for codes (batch, quantizers, rows, columns).

    Contexts (cells, slots) are those of the last quantizer, of which the other quantizers use the first
    slots; codebook_size means no code. Codes are (cells, quantizers), rows (cells,). All have the dtype
    of the codes.
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
    selected = inside[:, None].expand(-1, rows, -1)
    row_numbers = torch.arange(rows, dtype=codes.dtype)[:, None].expand(batch, -1, columns)
    return (
        torch.stack(parts, dim=-1)[selected],
        codes.permute(0, 2, 3, 1)[selected],
        row_numbers[selected],
    )


class ContextTables:
    """Context model in integers, with the same counts on every machine; made by `integers_of`."""

    def __init__(self, integers: Mapping[str, Tensor]) -> None:
        """`integers`: output of `integers_of`. Raises KeyError or ValueError for anything else."""
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
        size = 0
        for q in range(self.num_quantizers):
            slots = len(NEIGHBOURS) * self.num_quantizers + q
            size += slots * (self.codebook_size + 1) * hidden
            shapes |= {
                f"maps.{q}": (slots, dim, hidden),
                f"edges.{q}": (slots, hidden),
                f"rows.{q}": (self.rows, hidden),
                f"weights.{q}": (hidden, self.codebook_size),
                f"biases.{q}": (self.codebook_size,),
            }
        for name, shape in shapes.items():
            found, types = integers[name], TYPES[name.partition(".")[0]]
            if tuple(found.shape) != shape or found.dtype not in types:
                raise ValueError(f"context table {name} is not {shape} {types[0]}")
        if size > LARGEST_TABLES:
            raise ValueError(f"context tables: {size} entries are more than {LARGEST_TABLES}")
        if min(levels, columns) < 2 or min(integers["levels"].min(), integers["columns"].min()) < 1:
            raise ValueError("context tables: expected counts of at least 1")
        if not all(0 <= integers[name] < math.inf for name in ("distortion", "rate_weight")):
            raise ValueError("context tables: expected distortion and rate_weight of at least 0")
        self.level_counts: list[int] = integers["levels"].tolist()
        """Frequency of each level in training, plus 1."""
        self.column_counts: list[int] = integers["columns"].tolist()
        """Frequency of each number of columns, plus 1; index 0: all numbers beyond the list."""
        self.distortion = float(integers["distortion"])
        """Mean squared distance in training between a latent and its nearest code: the unit of
        distances in `search`."""
        self.rate_weight = float(integers["rate_weight"])
        """Default weight of a bit in `search`."""
        self._tables: list[Integers] = []
        self._row_sums: list[Integers] = []
        self._weights: list[npt.NDArray[np.float64]] = []
        self._biases: list[npt.NDArray[np.float64]] = []
        for q in range(self.num_quantizers):
            sources = [s for _ in NEIGHBOURS for s in range(self.num_quantizers)] + list(range(q))
            embedded = vectors[sources].double() @ integers[f"maps.{q}"].double()
            # From units of 1 / (VECTOR_SCALE · MAP_SCALE) to 1 / HIDDEN_SCALE, halves rounded up.
            shift = VECTOR_SCALE * MAP_SCALE // HIDDEN_SCALE
            sums = (embedded + shift // 2).div(shift, rounding_mode="floor")
            table = torch.cat([sums, integers[f"edges.{q}"][:, None].double()], dim=1)
            self._tables.append(table.long().numpy())
            self._row_sums.append(integers[f"rows.{q}"].long().numpy())
            self._weights.append(integers[f"weights.{q}"].double().numpy())
            self._biases.append(integers[f"biases.{q}"].double().numpy())

    def counts(self, contexts: Integers, row: int, quantizer: int) -> Integers:
        """Counts (cells, codebook_size), each at least 1, in proportion to the probabilities.

        Takes contexts (cells, slots), all in one row; slots beyond those of `quantizer` are ignored.
        """
        hidden = self._row_sums[quantizer][row][None]
        for slot, table in enumerate(self._tables[quantizer]):
            hidden = hidden + table[contexts[:, slot]]
        hidden = hidden.clip(0, int(HIDDEN_TOP * HIDDEN_SCALE)).astype(np.float64)
        logits = (hidden @ self._weights[quantizer] + self._biases[quantizer]).astype(np.int64)
        below = (logits.max(axis=1, keepdims=True) - logits) >> LOGIT_SHIFT
        counts: Integers = EXPONENTIAL[np.minimum(below, len(EXPONENTIAL) - 1)]
        return counts

    def fits(self, vocabulary: Vocabulary) -> bool:
        """Whether the tables have the sizes of `vocabulary`."""
        sizes = self.num_quantizers, self.codebook_size, self.rows, len(self.level_counts)
        return sizes == (
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
    """Tensors of ContextTables, by name, from a trained ContextModel; all are integers but the last two.

    `levels` and `num_columns` are the counts of each level and of each number of columns in training.
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
    """Total bits of codes (sounds, quantizers, rows, columns) under the tables."""
    contexts, targets, rows = cells(codes, num_columns, tables.codebook_size)
    bits = 0.0
    for row in range(tables.rows):
        selected = rows == row
        context, target = contexts[selected].numpy(), targets[selected].numpy()
        for q in range(tables.num_quantizers):
            counts = tables.counts(context, row, q)
            count = np.take_along_axis(counts, target[:, q : q + 1], axis=1)[:, 0]
            bits += float(np.log2(counts.sum(axis=1)).sum() - np.log2(count).sum())
    return bits


class CodeGrid:
    """Codes of several sounds, filled in coding order, and the contexts of the next cell.

    Coding order is column by column, from row 0 up in each, from coarse to fine in each cell: the order
    in which an archive is written and read.
    """

    def __init__(self, sounds: int, quantizers: int, rows: int, columns: int, size: int) -> None:
        self.codes = np.full(
            (sounds, quantizers, rows + 2 * MARGIN, columns + 2 * MARGIN), size, dtype=np.int64
        )

    def contexts(self, sounds: Integers, row: int, column: int, quantizer: int = 0) -> Integers:
        """Contexts (sounds, slots) for one cell of each of `sounds`."""
        row, column = row + MARGIN, column + MARGIN
        neighbours = [self.codes[sounds, :, row + r, column + c] for r, c in NEIGHBOURS]
        return np.concatenate([*neighbours, self.codes[sounds, :quantizer, row, column]], axis=1)

    def set(self, sounds: Integers, row: int, column: int, quantizer: int, codes: Integers) -> None:
        """Set the codes (sounds,) of one cell of each of `sounds`."""
        self.codes[sounds, quantizer, row + MARGIN, column + MARGIN] = codes


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
    inside = np.arange(columns) < num_columns[:, None]
    return grid.codes[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN] * inside[:, None, None]


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
