"""Integer context model p(code | neighbours): the default entropy model of archives.

A small network predicts each code from neighbouring codes that precede it in time order. It is trained
in floating point and then quantized to integers: sums of table rows, one matrix product, and a table
for the exponential. Integers give the same counts on every machine, which an entropy coder requires:
one differing bit, and everything after it decodes to noise. (The products run in float64, which is
exact for integers below 2⁵³, whatever the order of its sums.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiovq.models.entropy.context_model import (
    HIDDEN,
    HIDDEN_TOP,
    MARGIN,
    NEIGHBOURS,
    ContextModel,
    context_cells,
)
from audiovq.models.priors.tokens import Vocabulary

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
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
SMALLEST_DISTORTION = 2.0**-24
"""Smallest positive number of float16: smaller distortions may be 0 in a model that was exported."""
LARGEST_TABLES = 1 << 28
"""Upper bound for table entries in memory, of 8 bytes each; larger files are taken as corrupt."""
SEGMENT_COLUMNS = 128
"""Columns per segment of a long sound; segments are coded in lockstep, each without earlier context."""


def table_entries(num_quantizers: int, codebook_size: int, hidden: int = HIDDEN) -> int:
    """Entries of the tables in memory of a context model for these codebooks."""
    slots = sum(len(NEIGHBOURS) * num_quantizers + q for q in range(num_quantizers))
    return slots * (codebook_size + 1) * hidden


class ContextTables:
    """Context model in integers, with the same counts on every machine; made by `to_integers`."""

    def __init__(self, integers: Mapping[str, Tensor]) -> None:
        """`integers`: output of `to_integers`. Raises KeyError or ValueError for anything else."""
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
        for q in range(self.num_quantizers):
            slots = len(NEIGHBOURS) * self.num_quantizers + q
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
        size = table_entries(self.num_quantizers, self.codebook_size, hidden)
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
        self.distortion = max(SMALLEST_DISTORTION, float(integers["distortion"]))
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


def to_integers(
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


def to_network(tables: ContextTables, codebooks: Tensor) -> ContextModel:
    """A ContextModel that computes what the tables do, up to their rounding: inverse of `to_integers`.

    `codebooks` (quantizers, codebook_size, dim) as in ContextModel, of the sizes of the tables. It is on the CPU.
    """
    integers = tables.integers
    network = ContextModel(codebooks.cpu(), tables.rows, integers["rows.0"].shape[1])
    with torch.no_grad():
        for q in range(tables.num_quantizers):
            for weights, name, scale in (
                (network.maps[q], "maps", MAP_SCALE),
                (network.edges[q], "edges", HIDDEN_SCALE),
                (network.row_bias[q], "rows", HIDDEN_SCALE),
                (network.biases[q], "biases", HIDDEN_SCALE * WEIGHT_SCALE),
            ):
                weights.copy_(integers[f"{name}.{q}"].float() / scale)
            network.weights[q].copy_(integers[f"weights.{q}"].T.float() / WEIGHT_SCALE)
            network.heads[q].zero_()  # their part is in the weights
    return network


def code_bits(tables: ContextTables, codes: Tensor, num_columns: Tensor) -> float:
    """Total bits of codes (sounds, quantizers, rows, columns) under the tables."""
    contexts, targets, rows = context_cells(codes, num_columns, tables.codebook_size)
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
