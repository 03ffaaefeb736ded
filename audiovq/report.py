"""One HTML page about a trained model: what it sounds like, how it learned, how it was made.

Takes plain data and knows nothing of models. The page stands alone: pictures, sounds, style and
script are inside it, it loads nothing, and its content policy lets nothing else load or run.
Labels and names come from strangers' files, so every string is escaped where it enters the HTML.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from audiovq import embedded
from audiovq.files import write_text


@dataclass(frozen=True)
class Picture:
    """One sound on the page."""

    title: str
    waveform: npt.NDArray[np.float32]
    """(samples,) in [-1, 1]; a louder one is brought down as a whole."""
    spectrogram: npt.NDArray[np.float32]
    """(bins, frames) in [0, 1], row 0 the lowest frequency."""


@dataclass(frozen=True)
class Report:
    """All that a page shows; a part that is empty is left out."""

    title: str
    sample_rate: int
    generated: list[Picture]
    pairs: list[tuple[Picture, Picture]]
    """Originals with their reconstructions."""
    metrics: list[dict[str, Any]]
    """Rows of metrics.jsonl; `uniform_bits` and `unigram_bits` in a row are drawn as baselines."""
    code_counts: npt.NDArray[np.int64]
    """(quantizers, codebook_size): how often the training clips use each code."""
    figures: list[tuple[str, str, str]]
    """Name, value, and a sentence on what it means."""
    settings: dict[str, Any]
    """Nested dicts of plain values."""
    commands: list[str]


def write(path: Path, report: Report) -> None:
    """Write the page as one file, atomically."""
    commands = "\n".join(map(escape, report.commands))
    settings = _table(_flat(report.settings))
    parts = {
        "New sounds": _new_sounds(report),
        "Originals and reconstructions": _pairs(report),
        "Figures": _table(report.figures, ("Figure", "Value", "Meaning")),
        "Codebook": _grid(_usage(report.code_counts) + _curves(report.metrics, CURVES[:1])),
        "Curves": _grid(_curves(report.metrics, CURVES[1:])),
        "Settings": settings and f"<details><summary>All settings</summary>{settings}</details>",
        "Commands": commands and f"<pre><code>{commands}</code></pre>",
    }
    shown = [(title.split()[0].lower(), title, part) for title, part in parts.items() if part]
    page = PAGE.substitute(
        title=escape(report.title),
        summary=_summary(report),
        links=" ".join(f'<a href="#{name}">{title}</a>' for name, title, _ in shown),
        sections="\n".join(
            f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{part}\n</section>'
            for name, title, part in shown
        ),
        style=STYLE,
        script=SCRIPT,
        script_hash=base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode(),
    )
    # A file name that is not UTF-8 arrives with lone surrogates, which no file can hold.
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def _summary(report: Report) -> str:
    """What there is, in a line."""
    sounds, (quantizers, size) = len(report.generated), report.code_counts.shape
    seconds = {row["stage"]: row.get("seconds") or 0.0 for row in report.metrics}
    words = [
        sounds and f"{sounds} new sound{'s' * (sounds > 1)}",
        f"{report.sample_rate / 1000:g} kHz",
        quantizers and f"{quantizers} × {size} codes".removeprefix("1 × "),
        seconds and f"trained in {sum(seconds.values()) / 60:.3g} min",
    ]
    return " · ".join(str(word) for word in words if word)


# --- Sounds -----------------------------------------------------------------------------------


def _new_sounds(report: Report) -> str:
    longest = max((p.spectrogram.shape[1] for p in report.generated), default=0)
    cards = "\n".join(_card(p, report.sample_rate, longest) for p in report.generated)
    return cards and (
        "<p>None of these was recorded: the model made them up. In each picture time runs from left"
        " to right, low tones are at the bottom, and bright is loud; all have one time scale.</p>\n"
        f'<div class="grid cards">\n{cards}\n</div>'
    )


def _pairs(report: Report) -> str:
    longest = max((p.spectrogram.shape[1] for pair in report.pairs for p in pair), default=0)
    pairs = "\n".join(
        f'<div class="pair">\n{_card(original, report.sample_rate, longest, "Original")}\n'
        f"{_card(again, report.sample_rate, longest, 'Reconstruction')}\n</div>"
        for original, again in report.pairs
    )
    return pairs and (
        "<p>A recording, and what is left of it after it went through the codes. New sounds are made"
        f" of the same codes, so they can be no clearer.</p>\n{_grid(pairs)}"
    )


def _card(picture: Picture, sample_rate: int, longest: int, role: str = "") -> str:
    """A sound's picture, name and player; its picture's width is its share of the longest."""
    title = escape(picture.title)
    name = f"{role}: {title}" if role else title
    share = picture.spectrogram.shape[1] / max(1, longest)
    return (
        f'<figure class="card"><div class="screen"><div class="sound" style="width:{share:.2%}">'
        f'<img src="{embedded.png(picture.spectrogram)}" alt="Spectrogram of {name}"></div></div>'
        f"<figcaption><small>{role}</small><b>{title}</b>"
        f" <small>{len(picture.waveform) / sample_rate:.2f}\u202fs</small></figcaption>"
        f'<audio controls preload="metadata" aria-label="{name}"'
        f' src="{embedded.wav(picture.waveform, sample_rate)}"></audio></figure>'
    )


# --- Charts and tables ------------------------------------------------------------------------

CURVES = [
    ("autoencoder", "Perplexity while it learned", "codes", "validation_perplexity"),
    ("autoencoder", "Autoencoder: loss", "loss", "loss squared_error validation_score"),
    ("autoencoder", "Autoencoder: error", "decibels", "validation_error_db"),
    ("prior", "Prior", "bits per code", "loss validation_bits_per_code unigram_bits uniform_bits"),
    ("masked", "Masked prior", "bits per hidden code", "validation_bits_per_code"),
]
"""Stage, title, unit, and the columns of the metrics to draw. The first goes to the codebook."""
NAMES = {  # of columns; the others are of unseen clips
    "loss": "training",
    "squared_error": "training, spectrograms alone",
    "unigram_bits": "guess by frequency",
    "uniform_bits": "blind guess",
}

Lines = dict[str, tuple[str, list[tuple[float, float]]]]  # style → name, points


def _grid(content: str) -> str:
    return content and f'<div class="grid wide">\n{content}\n</div>'


def _usage(code_counts: npt.NDArray[np.int64]) -> str:
    """How often each code is used, the commonest first, and what that amounts to in words."""
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


def _curves(metrics: list[dict[str, Any]], charts: list[tuple[str, str, str, str]]) -> str:
    """The charts for which there are numbers."""
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
                lines[f"line line{number}"] = (NAMES.get(column, "unseen clips"), line)
        if lines:
            drawn += _chart(title, "step", unit, lines)
    return drawn


def _chart(title: str, x_unit: str, y_unit: str, lines: Lines, words: str = "") -> str:
    """An SVG picture with axes; below it the words, or else the lines' names and last values."""
    from matplotlib.ticker import MaxNLocator

    points = np.array([point for _, line in lines.values() for point in line])
    x_high = points[:, 0].max() or 1
    locator = MaxNLocator(5, steps=[1, 2, 5, 10])
    y_ticks = locator.tick_values(points[:, 1].min(), points[:, 1].max())

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
    return (
        f'<figure class="card chart"><h3>{title}</h3>\n'
        f'<svg viewBox="0 0 400 230" role="img" aria-label="{title}: {y_unit} over {x_unit}">'
        f"{drawn}</svg>\n<figcaption>{words or f'<ul>{legend}</ul>'}</figcaption></figure>\n"
    )


def _table(rows: Iterable[tuple[str, ...]], head: tuple[str, ...] = ()) -> str:
    """A table of plain strings, the first of each row its heading; empty without rows."""
    body = ""
    for name, *cells in rows:
        body += f'<tr><th scope="row">{escape(name)}</th>'
        body += "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>\n"
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    top = top and f"<thead><tr>{top}</tr></thead>"
    return body and f"<table>{top}<tbody>\n{body}</tbody></table>"


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (path of names, value)."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} · ")
        else:
            yield f"{prefix}{name}", str(value)


# --- The page's frame -------------------------------------------------------------------------

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 media-src data:; style-src 'unsafe-inline'; script-src 'sha256-$script_hash'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>$title</title>
<style>$style</style></head><body>
<header><h1>$title</h1><p>$summary</p><nav aria-label="Parts of this page">$links</nav></header>
<main>$sections</main>
<script>$script</script></body></html>
""")

STYLE = """
:root { color-scheme: light dark; --page: #faf9f7; --card: #fff; --text: #211d26; --soft: #655f6d;
  --edge: #e3dfe6; --first: #7b2382; --second: #d9582b; --third: #16808f; }
@media (prefers-color-scheme: dark) { :root { --page: #141218; --card: #1e1b24; --text: #ece8f0;
  --soft: #a49dae; --edge: #36313f; --first: #cf86dc; --second: #f79862; --third: #50bccb; } }
* { box-sizing: border-box; } :focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
body { max-width: 1240px; margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 2.5rem) 4rem;
  background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { margin: 0; font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.2; letter-spacing: -.02em; }
h2 { margin: 3rem 0 .5rem; font-size: 1.35rem; } h3 { margin: 0 0 .8rem; font-size: 1rem; }
p, figcaption, thead th, details th { color: var(--soft); font-weight: 400; }
p { margin: .4rem 0 1.1rem; max-width: 46rem; }
a, summary { margin-right: 1.2rem; color: var(--first); text-underline-offset: .2em; }
.grid, .pair { display: grid; gap: 1rem; }
.cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, 10.4rem), 1fr)); }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.pair { grid-template-columns: 1fr 1fr; gap: .5rem; }
.card, pre { margin: 0; min-width: 0; overflow: hidden; background: var(--card);
  border: 1px solid var(--edge); border-radius: 10px; }
.screen { height: 7.5rem; background: #000004; color: #fff; }
.sound { position: relative; height: 100%; } .sound img { width: 100%; height: 100%; }
.playing::after { content: ""; position: absolute; inset: 0 auto 0 var(--at); border: 1px solid; }
figcaption { padding: .5rem .7rem .1rem; font-size: .9rem; line-height: 1.4; }
figcaption b { color: var(--text); } small { white-space: nowrap; } small:first-child { display: block; }
audio::-webkit-media-controls-current-time-display,
audio::-webkit-media-controls-time-remaining-display { display: none; }
audio { display: block; width: calc(100% - .8rem); height: 36px; margin: .3rem .4rem .4rem; }
.chart { padding: 1rem; } .chart figcaption { padding: .6rem 0 0; }
text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.end { text-anchor: end; } .mid { text-anchor: middle; } path { stroke: var(--edge); }
.area, .line { --color: var(--first); fill: var(--color); }
.line1 { --color: var(--second); } .line2 { --color: var(--third); } .line3 { --color: var(--soft); }
polyline.line { fill: none; stroke: var(--color); stroke-width: 2; }
ul { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: 0; padding: 0; list-style: none; }
i { display: inline-block; width: 1.4em; margin: 0 .4em .25em 0; border-top: 3px solid var(--color); }
table { border-collapse: collapse; font-size: .95rem; } tr { border-bottom: 1px solid var(--edge); }
th, td { padding: .4rem 1.2rem .4rem 0; text-align: left; vertical-align: top; }
td:nth-last-child(2) { white-space: nowrap; }
@media (max-width: 40rem) {
  thead { display: none; } tbody tr { display: grid; grid-template-columns: minmax(8rem, 1fr) auto; }
  td:nth-child(3) { grid-column: 1 / -1; padding-top: 0; color: var(--soft); } }
pre { padding: 1rem; font: .88rem/1.6 ui-monospace, monospace; white-space: pre-wrap; }
"""

SCRIPT = """
const sounds = [...document.querySelectorAll("audio")];
for (const sound of sounds) {
  const picture = sound.parentElement.querySelector(".sound");
  const follow = () => {
    picture.classList.toggle("playing", !sound.paused);
    picture.style.setProperty("--at", 100 * sound.currentTime / sound.duration + "%");
    if (!sound.paused) requestAnimationFrame(follow);
  };
  sound.onplay = () => { sounds.forEach(other => other === sound || other.pause()); follow(); };
}
"""
