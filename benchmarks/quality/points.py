"""Results of `quality.py`: points of rate and quality, as JSON, as a table and as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import from_json, to_json
from audiovq.runtime.files import atomic, read_json, write_json
from benchmarks.quality.scores import Scores

OURS = "audiovq"
UNSEEN = "audiovq, unseen speakers"
UNSEEN_WORDS = "audiovq, unseen words"
SAME_WORDS = "audiovq, the same words learnt"
CEILING = "true spectrograms inverted"
"""Families of points; the other families are names of codecs."""


@dataclass(frozen=True)
class Point:
    """One codec at one rate, and its scores."""

    name: str
    family: str
    bits_per_second: float | None
    """None: not coded."""
    scores: Scores
    speaker: str | None = None
    """The only speaker scored, held out of training; None: all six."""
    minutes: float | None = None
    """Time limit of training; None: not a model, trained without one, or unknown."""
    recordings_bits_per_second: float | None = None
    """The payload over the seconds of the recordings, without the stream's pauses; None: the codec has a
    constant rate, or `bits_per_second` already excludes pauses."""
    files: int | None = None
    """Test files scored; None: all."""
    machine: str = ""
    date: str = ""
    """ISO 8601."""
    commit: str = ""
    """Of the measured code."""


@dataclass(frozen=True)
class Skipped:
    """A codec that was not measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Results:
    """All points on one set of test files."""

    data: str
    files: int
    seconds: float
    """Duration of the test files, without pauses."""
    points: tuple[Point, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def plus(self, *found: Point | Skipped) -> Results:
        """These results with new ones, which replace older ones of the same name and speaker."""
        later = [f for f in found if isinstance(f, Point)]
        points = {(p.name, p.speaker): p for p in (*self.points, *later)}
        reasons = (*self.skipped, *(f for f in found if isinstance(f, Skipped)))
        measured = {name for name, _ in points}
        skipped = {s.name: s for s in reasons if s.name not in measured}
        return dataclasses.replace(
            self, points=tuple(points.values()), skipped=tuple(skipped.values())
        )


def read(path: Path) -> Results:
    """The inverse of `write`. Raises AudiovqError if the file is missing or not one of results."""
    return from_json(Results, read_json(path, "a folder of results"), str(path))


def require_same_files(path: Path, results: Results) -> None:
    """Raise AudiovqError where the results already in a file, if there is one, are of other test files."""
    if path.exists():
        before = read(path)
        if (before.files, before.seconds) != (results.files, results.seconds):
            raise AudiovqError(
                f"{path}: has results of {before.files} test files, {before.seconds} s; these are"
                f" {results.files}, {results.seconds} s: give another file with --out"
            )


def write(path: Path, results: Results) -> Results:
    """Write as JSON, merged with the results already in the file; returns all of them. Raises AudiovqError where those
    are of other test files."""
    require_same_files(path, results)
    if path.exists():
        results = read(path).plus(*results.points, *results.skipped)
    write_json(path, to_json(results))
    return results


def averaged(points: Sequence[Point]) -> list[Point]:
    """Points by rising rate; points of single speakers are replaced by one mean for each name."""
    rows = [point for point in points if point.speaker is None]
    single = [point for point in points if point.speaker is not None]
    for name in sorted({point.name for point in single}):
        same = [point for point in single if point.name == name]
        rate = sum(point.bits_per_second or 0 for point in same) / len(same)
        scores = Scores.mean([point.scores for point in same])
        label = f"{name}, speaker unseen (mean of {len(same)})"
        rows.append(Point(label, UNSEEN, rate, scores, minutes=same[0].minutes))
    return sorted(rows, key=lambda point: point.bits_per_second or float("inf"))


def table(results: Results) -> str:
    """A Markdown table by rising rate, with the skipped codecs and the reasons at the end."""
    lines = ["| | bit/s | PESQ | STOI | ESTOI | LSD dB |", "|---|---|---|---|---|---|"]
    for point in averaged(results.points):
        rate = "" if point.bits_per_second is None else f"{point.bits_per_second:,.0f}"
        s = point.scores
        lines.append(
            f"| {point.name} | {rate} | {s.pesq:.2f} | {s.stoi:.3f} | {s.estoi:.3f}"
            f" | {s.lsd_db:.1f} |"
        )
    lines += [f"| {s.name} | skipped: {s.reason} | | | | |" for s in results.skipped]
    return "\n".join(lines)


STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "#c0392b", "marker": "o", "linewidth": 2.2, "zorder": 5},
    UNSEEN: {"color": "#c0392b", "marker": "o", "markerfacecolor": "white", "linestyle": "--"},
    UNSEEN_WORDS: {"color": "#c0392b", "marker": "D", "markerfacecolor": "white"},
    "Codec 2": {"color": "#2471a3", "marker": "s"},
    "Speex": {"color": "#7d6608", "marker": "^"},
    "AMR-NB": {"color": "#6c3483", "marker": "D"},
    "Opus": {"color": "#117a65", "marker": "v"},
    "Opus VBR": {"color": "#117a65", "marker": "v", "markerfacecolor": "white", "linestyle": "--"},
}
"""Colour and marker of each family."""
LABELS: dict[str, tuple[str, int, tuple[int, int], str]] = {
    OURS: (OURS, 0, (-6, 5), "right"),
    UNSEEN: ("unseen speakers", 0, (8, -12), "left"),
    UNSEEN_WORDS: ("unseen words", 0, (8, 0), "left"),
    "Codec 2": ("Codec 2", 1, (8, -12), "left"),
    "Speex": ("Speex", -1, (8, -4), "left"),
    "AMR-NB": ("AMR-NB", 0, (-7, -12), "right"),
    "Opus": ("Opus", -1, (8, -4), "left"),
    "Opus VBR": ("VBR", 1, (-6, 4), "right"),
}
"""Label of each family's line: the text, the index of the point beside it, its offset (right, up) in
typographic points, and its horizontal alignment."""
TICKS = {500: "500", 1000: "1k", 2000: "2k", 4000: "4k", 8000: "8k", 12000: "12k"}


def plot(results: Results, path: Path) -> None:
    """Plot PESQ and ESTOI over the rate, one line per family, as a PNG of 1000 × 440 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = averaged(results.points)
    figure = Figure(figsize=(10, 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = zip(figure.subplots(1, 2), ("pesq", "estoi"), strict=True)
    for axes, measure in panels:
        axes.set_xscale("log")
        for family, style in STYLES.items():
            line = [
                (point.bits_per_second, getattr(point.scores, measure))
                for point in points
                if point.family == family
            ]
            if not line:
                continue
            axes.plot(*zip(*line, strict=True), **{"linewidth": 1.2, "markersize": 5, **style})
            text, index, offset, alignment = LABELS[family]
            axes.annotate(
                text,
                line[min(index, len(line) - 1)],
                xytext=offset,
                textcoords="offset points",
                ha=alignment,
                color=style["color"],
                fontweight="bold" if family == OURS else "normal",
            )
        if best := [getattr(p.scores, measure) for p in points if p.family == CEILING]:
            axes.axhline(max(best), color="0.5", linewidth=1, linestyle=":")
            left = (420, max(best))
            axes.annotate(CEILING, left, (0, -13), textcoords="offset points", color="0.4")
        axes.set_xlim(400, 22_000)
        axes.set_xticks(list(TICKS), list(TICKS.values()))
        axes.minorticks_off()
        axes.set_xlabel("bit/s")
        axes.set_title(measure.upper(), loc="left", fontweight="bold")
        axes.grid(color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")
