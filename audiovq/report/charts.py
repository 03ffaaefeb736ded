"""SVG charts for the HTML page: how codes are used and lie, and how training went."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from audiovq.dataset.measured import clips_of

CURVES = [
    ("autoencoder", "Perplexity while it learned", "codes", "validation_perplexity"),
    ("autoencoder", "Autoencoder: loss", "loss", "loss squared_error validation_score"),
    ("autoencoder", "Autoencoder: error", "decibels", "validation_error_db"),
    ("prior", "Prior", "bits per code", "loss validation_bits_per_code unigram_bits uniform_bits"),
    ("masked", "Masked prior", "bits per hidden code", "validation_bits_per_code"),
]
"""Stage, title, unit, and the columns of the metrics to draw. The first goes to the codebook."""
NAMES = {  # of columns; the others are of the clips that rows say they were measured on
    "loss": "training",
    "squared_error": "training, spectrograms alone",
    "unigram_bits": "guess by frequency",
    "uniform_bits": "blind guess",
}
Lines = dict[str, tuple[str, list[tuple[float, float]]]]  # style → name, points


def usage(code_counts: npt.NDArray[np.int64]) -> str:
    """Cards: how often each code is used (quantizers, codes), the commonest first, and in words."""
    charts = ""
    for number, counts in enumerate(code_counts, 1):
        size, shares = len(counts), np.sort(counts)[::-1] / max(1, counts.sum())
        used = shares[shares > 0]
        perplexity = np.exp(-(used * np.log(used)).sum()) if len(used) else 0
        words = (
            f"{len(used)} of {size} codes in use ({len(used) / size:.0%}). They are as rich as"
            f" {perplexity:.0f} codes used evenly: that is their perplexity."
        )
        edges = np.unique(np.linspace(0, size, min(size, 256) + 1).astype(int))
        across, up = np.repeat(edges, 2).tolist(), np.repeat(100 * shares[edges[:-1]], 2).tolist()
        steps: Lines = {"area": ("", list(zip(across, [0.0, *up, 0.0], strict=True)))}
        title = f"Codebook {number}" if len(code_counts) > 1 else "How often each code is used"
        charts += _chart(title, "codes, the commonest first", "% of uses", steps, words)
    return charts


def curves(metrics: list[dict[str, Any]], charts: list[tuple[str, str, str, str]]) -> str:
    """Those of `charts`, as cards, for which rows of metrics.jsonl hold numbers."""
    drawn = ""
    for stage, title, unit, columns in charts:
        rows = [row for row in metrics if row["stage"] == stage]
        lines: Lines = {}
        for number, column in enumerate(columns.split()):
            found = [row for row in rows if isinstance(row.get(column), int | float)]
            line = [(row["step"], row[column]) for row in found if math.isfinite(row[column])]
            if (stage, column) == ("prior", "loss"):
                line = [(step, nats / math.log(2)) for step, nats in line]
            elif column in ("unigram_bits", "uniform_bits"):
                line = [(step, y) for _, y in line[-1:] for step in (0, rows[-1]["step"])]
            if line:
                lines[f"line line{number}"] = (
                    NAMES.get(column) or clips_of(rows[-1].get("measured_on")),
                    line,
                )
        if lines:
            drawn += _chart(title, "step", unit, lines)
    return drawn


MOST_POINTS = 2048
"""Codes on the map, the commonest."""


def code_map(points: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> str:
    """Where the codes in use lie, (codes, 2), the larger the more often, (codes,); as a card."""
    order = np.argsort(-counts, kind="stable")[: min(MOST_POINTS, int((counts > 0).sum()))]
    order = np.sort(order)
    points, radii = points[order], 6 * np.sqrt(counts[order] / max(1, counts.max()))
    low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
    places = (points - low) / np.maximum(high - low, 1e-9)
    drawn = "".join(
        f'<circle class="code" cx="{14 + 372 * x:.1f}" cy="{212 - 196 * y:.1f}" r="{max(r, 0.8):.1f}"/>'
        for (x, y), r in zip(places.tolist(), radii.tolist(), strict=True)
    )
    return _card(
        "Where codes lie",
        "a point for each code in use, those that are alike close together",
        drawn,
        "A flat view of the codes' vectors: those close together sound alike. The larger a point, the"
        " more often the code is used.",
    )


def _chart(title: str, x_unit: str, y_unit: str, lines: Lines, words: str = "") -> str:
    """An SVG picture with axes; below it the words, or else the lines' names and last values."""
    from matplotlib.ticker import MaxNLocator

    points = np.array([point for _, line in lines.values() for point in line])
    x_high = points[:, 0].max() or 1
    locator = MaxNLocator(5, steps=[1, 2, 5, 10])
    low, high = points[:, 1].min(), points[:, 1].max()
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # a single point, or a level line
        low, high = low - 0.1 * (abs(low) or 1), high + 0.1 * (abs(high) or 1)
    y_ticks = locator.tick_values(low, high)

    def place(x: float, y: float) -> tuple[float, float]:
        height = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(46 + 332 * x / x_high, 1), round(192 - 168 * height, 1)

    drawn = f'<text x="0" y="11">{y_unit}</text><text x="400" y="226" class="end">{x_unit}</text>'
    for tick in y_ticks:
        y = place(0, tick)[1]
        drawn += f'<path d="M46 {y}H378"/><text x="39" y="{y + 4}" class="end">{tick:,.6g}</text>'
    for x in locator.tick_values(0, x_high):
        if x <= x_high:
            drawn += f'<text x="{place(x, 0)[0]}" y="209" class="mid">{x:,.8g}</text>'
    legend = ""
    for style, (name, line) in lines.items():
        places = [place(x, y) for x, y in line]
        drawn += f'<polyline class="{style}" points="{" ".join(f"{x},{y}" for x, y in places)}"/>'
        if name:
            for x, y in places:
                drawn += f'<circle class="{style}" cx="{x}" cy="{y}" r="2"/>'
            legend += f'<li class="{style}"><i></i>{name} <b>{line[-1][1]:.3g}</b></li>'
    return _card(title, f"{y_unit} over {x_unit}", drawn, words or f"<ul>{legend}</ul>")


def _card(title: str, what: str, drawn: str, words: str) -> str:
    return (
        f'<figure class="card chart"><h3>{title}</h3>\n'
        f'<svg viewBox="0 0 400 230" role="img" aria-label="{title}: {what}">'
        f"{drawn}</svg>\n<figcaption>{words}</figcaption></figure>\n"
    )
