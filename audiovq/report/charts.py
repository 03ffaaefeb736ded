"""Charts of the HTML page as coordinates: use of the codes, map of the codebook, training curves.

`templates/charts.html` draws them as SVG of 400 × 230 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from audiovq.dataset.measured import clips_of
from audiovq.runtime.progress import percent

Point = tuple[float, float]


class Text(NamedTuple):
    """A word or a number in a chart; `style` is its CSS class."""

    x: float
    y: float
    text: str
    style: str = ""


class Dot(NamedTuple):
    """A circle in a chart."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Line:
    """A line of a chart; `style` is its CSS class. Lines with a name have dots and a legend entry."""

    style: str
    name: str
    points: list[Point]
    """In the chart's units as data, in pixels as part of a `Chart`."""
    last: float
    """The last value, for the legend."""


@dataclass(frozen=True)
class Chart:
    """A chart, all coordinates in pixels."""

    title: str
    description: str
    """For screen readers."""
    caption: str = ""
    """If empty, a legend of the lines is shown."""
    texts: Sequence[Text] = ()
    rules: Sequence[float] = ()
    """Heights of the horizontal grid lines."""
    lines: Sequence[Line] = ()
    dots: Sequence[Dot] = ()


class Curves(NamedTuple):
    """Columns of metrics.jsonl that share a chart."""

    stage: str
    title: str
    unit: str
    columns: tuple[str, ...]


CODEBOOK_CURVES = [
    Curves("autoencoder", "Perplexity during training", "codes", ("validation_perplexity",))
]
TRAINING_CURVES = [
    Curves(
        "autoencoder",
        "Autoencoder: loss",
        "loss",
        ("loss", "squared_error", "validation_score"),
    ),
    Curves("autoencoder", "Autoencoder: error", "decibels", ("validation_error_db",)),
    Curves(
        "vivid",
        "Vivid decoder: error",
        "decibels",
        ("validation_error_db", "validation_faithful_error_db"),
    ),
    Curves(
        "prior",
        "Prior",
        "bits per code",
        ("loss", "validation_bits_per_code", "unigram_bits", "uniform_bits"),
    ),
    Curves("masked", "Masked prior", "bits per masked code", ("validation_bits_per_code",)),
]
NAMES = {
    "loss": "training",
    "squared_error": "training, spectrogram error only",
    "validation_faithful_error_db": "the faithful decoder on the same clips",
    "unigram_bits": "baseline: code frequencies",
    "uniform_bits": "baseline: uniform",
}
"""Names of columns; all others are named after the clips that they were measured on."""
MAX_BARS = 256
"""Maximum number of steps in the chart of code use."""
LEAST_RANGE = 0.2
"""Height of a chart, at least, as a share of its largest value."""
MAX_POINTS = 2048
"""Maximum number of codes on the map; the most frequent are shown."""


def usage(code_counts: npt.NDArray[np.int64]) -> list[Chart]:
    """A chart for each quantizer: how often each code is used, (quantizers, codes), most frequent first."""
    charts = []
    for number, counts in enumerate(code_counts, 1):
        size, shares = len(counts), np.sort(counts)[::-1] / max(1, counts.sum())
        used = shares[shares > 0]
        perplexity = np.exp(-(used * np.log(used)).sum()) if len(used) else 0
        caption = (
            f"{len(used)} of {size} codes in use ({percent(len(used) / size)}), effectively"
            f" {perplexity:.0f} (perplexity)."
        )
        edges = np.unique(np.linspace(0, size, min(size, MAX_BARS) + 1).astype(int))
        across, up = np.repeat(edges, 2).tolist(), np.repeat(100 * shares[edges[:-1]], 2).tolist()
        outline = Line("area", "", list(zip(across, [0.0, *up, 0.0], strict=True)), 0.0)
        title = f"Codebook {number}" if len(code_counts) > 1 else "How often each code is used"
        charts.append(_chart(title, "codes, most frequent first", "% of uses", [outline], caption))
    return charts


def curves(metrics: Sequence[dict[str, Any]], wanted: Sequence[Curves]) -> list[Chart]:
    """The charts in `wanted` for which rows of metrics.jsonl hold finite numbers."""
    charts = []
    for stage, title, unit, columns in wanted:
        rows = _in_sequence([row for row in metrics if row["stage"] == stage])
        lines = [
            Line(
                f"line line{number}",
                NAMES.get(column) or clips_of(rows[-1].get("measured_on")),
                points,
                points[-1][1],
            )
            for number, column in enumerate(columns)
            if (points := _curve(rows, stage, column))
        ]
        if lines:
            charts.append(_chart(title, "step", unit, lines))
    return charts


def _in_sequence(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a stage with their steps counted over all trainings: a further one begins at 0 again."""
    counted: list[dict[str, Any]] = []
    before = 0
    for row in rows:
        if counted and row["step"] + before < counted[-1]["step"]:
            before = counted[-1]["step"]
        counted.append(row | {"step": row["step"] + before})
    return counted


def _curve(rows: Sequence[dict[str, Any]], stage: str, column: str) -> list[Point]:
    """(step, value) of the rows with a finite number in `column`; of a baseline, two points."""
    found = [row for row in rows if isinstance(row.get(column), int | float)]
    points = [(row["step"], row[column]) for row in found if math.isfinite(row[column])]
    if (stage, column) == ("prior", "loss"):
        return [(step, nats / math.log(2)) for step, nats in points]
    if column in ("unigram_bits", "uniform_bits"):
        return [(step, y) for _, y in points[-1:] for step in (0, rows[-1]["step"])]
    return points


def code_map(points: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> Chart:
    """Positions (codes, 2) of the codes in use; areas of dots are proportional to counts (codes,)."""
    order = np.argsort(-counts, kind="stable")[: min(MAX_POINTS, int((counts > 0).sum()))]
    order = np.sort(order)
    points, radii = points[order], 6 * np.sqrt(counts[order] / max(1, counts.max()))
    low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
    unit = (points - low) / np.maximum(high - low, 1e-9)
    return Chart(
        "Map of the codebook",
        "a dot for each code in use, similar codes close together",
        "The code vectors, projected to two dimensions: codes close together sound similar. The larger a"
        " dot, the more often its code is used.",
        dots=[
            Dot(round(14 + 372 * x, 1), round(212 - 196 * y, 1), round(max(radius, 0.8), 1))
            for (x, y), radius in zip(unit.tolist(), radii.tolist(), strict=True)
        ],
    )


def _chart(title: str, x_unit: str, y_unit: str, lines: Sequence[Line], caption: str = "") -> Chart:
    """A chart with axes; `lines` in units of the data. Values that are almost equal do not fill its height."""
    from matplotlib.ticker import MaxNLocator

    points = np.array([point for line in lines for point in line.points])
    x_high = points[:, 0].max() or 1
    locator = MaxNLocator(5, steps=[1, 2, 5, 10])
    low, high = points[:, 1].min(), points[:, 1].max()
    least = LEAST_RANGE * (max(abs(low), abs(high)) or 1)
    if high - low < least:  # a single point, or a level line
        low, high = (low + high - least) / 2, (low + high + least) / 2
    y_ticks = locator.tick_values(low, high)
    x_ticks = [x for x in locator.tick_values(0, x_high) if x <= x_high]

    def pixels(x: float, y: float) -> Point:
        height = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(46 + 332 * x / x_high, 1), round(192 - 168 * height, 1)

    rules = [pixels(0, tick)[1] for tick in y_ticks]
    return Chart(
        title,
        f"{y_unit} over {x_unit}",
        caption,
        texts=[
            Text(0, 11, y_unit),
            Text(400, 226, x_unit, "end"),
            *(
                Text(39, y + 4, f"{tick:,.6g}", "end")
                for tick, y in zip(y_ticks, rules, strict=True)
            ),
            *(Text(pixels(x, 0)[0], 209, f"{x:,.8g}", "mid") for x in x_ticks),
        ],
        rules=rules,
        lines=[
            Line(line.style, line.name, [pixels(x, y) for x, y in line.points], line.last)
            for line in lines
        ],
    )
