"""One HTML page about a trained model: what it sounds like, how it learned, how it was made.

Takes plain data and knows nothing of models. The page stands alone: pictures, sounds, style and
script are inside it. Labels and names come from strangers' files, so every string is escaped where it
enters the HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiovq.report import charts, embed
from audiovq.report.page import flat, page, table
from audiovq.runtime.files import write_text
from audiovq.spectral import picture as spectral_picture


@dataclass(frozen=True)
class Picture:
    """One sound on the page."""

    title: str
    waveform: npt.NDArray[np.float32]
    """(samples,) in [-1, 1]; a louder one is brought down as a whole."""
    spectrogram: npt.NDArray[np.float32]
    """(bins, frames) in [0, 1], row 0 the lowest frequency."""


@dataclass(frozen=True)
class Group:
    """Sounds to be compared, side by side; their titles tell what each is of the group's."""

    title: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Report:
    """All that a page shows; a part that is empty is left out."""

    title: str
    sample_rate: int
    generated: list[Picture]
    copies: int | None
    """Of those, how many are near copies of training clips and marked so; None: not compared."""
    data: str
    """What there was to learn from: files, recordings, clips."""
    comparisons: list[Group]
    """Recordings, the same through the codes, and from their true spectrograms."""
    compared: str
    """Which clips these are: `test clips`."""
    codes: list[Group]
    """Single codes, each beside the one that is nearest to it."""
    metrics: list[dict[str, Any]]
    """Rows of metrics.jsonl; `uniform_bits` and `unigram_bits` in a row are drawn as baselines."""
    code_counts: npt.NDArray[np.int64]
    """(quantizers, codebook_size): how often the training clips use each code."""
    code_points: npt.NDArray[np.float32]
    """(codebook_size, 2): where the codes of the first quantizer lie; (0, 2): not drawn."""
    figures: list[tuple[str, str, str]]
    """Name, value, and a sentence on what it means."""
    settings: dict[str, Any]
    """Nested dicts of plain values."""
    commands: list[str]


def write(path: Path, report: Report) -> None:
    """Write the page as one file, atomically."""
    commands = "\n".join(map(escape, report.commands))
    settings = table(flat(report.settings))
    parts = {
        "New sounds": _new_sounds(report),
        "Through the codes": _comparisons(report),
        "Codebook": _codebook(report),
        "Curves": _grid(charts.curves(report.metrics, charts.CURVES[1:])),
        "Figures": table(report.figures, ("Figure", "Value", "Meaning")),
        "Settings": settings and f"<details><summary>All settings</summary>{settings}</details>",
        "Commands": commands and f"<pre><code>{commands}</code></pre>",
    }
    shown = {title: part for title, part in parts.items() if part}
    # A file name that is not UTF-8 arrives with lone surrogates, which no file can hold.
    html = page(report.title, _summary(report), shown).encode("utf-8", "replace")
    write_text(path, html.decode("utf-8"))


def _summary(report: Report) -> str:
    """What there is, in a line."""
    sounds, (quantizers, size) = len(report.generated), report.code_counts.shape
    seconds = {row["stage"]: row.get("seconds") or 0.0 for row in report.metrics}
    words = [
        sounds and f"{sounds} new sound{'s' * (sounds > 1)}",
        f"{report.sample_rate / 1000:g} kHz",
        quantizers and f"{quantizers} × {size} codes".removeprefix("1 × "),
        seconds and f"trained in {sum(seconds.values()) / 60:.3g} min",
        report.data,
    ]
    return " · ".join(str(word) for word in words if word)


def _new_sounds(report: Report) -> str:
    longest = _longest(report.generated)
    cards = "\n".join(_card(p, report.sample_rate, longest) for p in report.generated)
    return cards and (
        f"<p>{_copies(report)} Click a picture to hear it. In each,"
        " time runs from left to right, low tones are at the bottom, and bright is loud; all have one"
        f' time scale.</p>\n<div class="grid cards">\n{cards}\n</div>'
    )


def _copies(report: Report) -> str:
    """What is known of new sounds that are no new ones, in a sentence."""
    if report.copies is None:
        return (
            "The model made these. They were not compared with its training clips, so some may be"
            " copies."
        )
    if report.copies:
        return (
            f"The model made these; {report.copies} of {len(report.generated)} came out as near copies"
            " of training clips, and say so."
        )
    return "The model made these; none is a near copy of a training clip."


def _comparisons(report: Report) -> str:
    groups = _groups(report.comparisons, report.sample_rate)
    return groups and (
        f"<p>{escape(report.compared.capitalize())}: the recording, the same after encoding and"
        " decoding, and the ceiling: the true spectrogram turned back into sound, which no codes can"
        f" exceed. New sounds are made of the same codes, so they are at best as clear.</p>\n{groups}"
    )


def _codebook(report: Report) -> str:
    drawn = charts.usage(report.code_counts) + charts.curves(report.metrics, charts.CURVES[:1])
    if len(report.code_points):
        drawn += charts.code_map(report.code_points, report.code_counts[0])
    groups = _groups(report.codes, report.sample_rate)
    heard = groups and (
        "<h3>What single codes sound like</h3><p>A loud one for each height, held for a moment, all"
        " else silent; beside it the code whose vector is nearest to its own. The more alike the two"
        f" sound, the smoother the codebook.</p>\n{groups}"
    )
    return _grid(drawn) + heard


def _groups(groups: Sequence[Group], sample_rate: int) -> str:
    """Each group's sounds in a row below its title, all on one time scale."""
    longest = _longest([picture for group in groups for picture in group.pictures])
    return _grid(
        "\n".join(
            f'<div role="group" aria-label="{escape(group.title)}" class="group">'
            f"<h3>{escape(group.title)}</h3>"
            f'<div class="row" style="--n:{len(group.pictures)}">\n'
            + "\n".join(_card(p, sample_rate, longest, group.title) for p in group.pictures)
            + "\n</div></div>"
            for group in groups
        )
    )


def _longest(pictures: Sequence[Picture]) -> int:
    return max((picture.spectrogram.shape[1] for picture in pictures), default=0)


def _card(picture: Picture, sample_rate: int, longest: int, group: str = "") -> str:
    """A sound's picture, which plays it, and its name; the picture's width is its share of the
    longest. Without the script there is the browser's own player."""
    title = escape(picture.title)
    name = f"{escape(group)}: {title}" if group else title
    seconds = "" if group else f" <small>{len(picture.waveform) / sample_rate:.2f}\u202fs</small>"
    share = picture.spectrogram.shape[1] / max(1, longest)
    return (
        f'<figure class="card"><button type="button" class="screen" aria-label="Play {name}">'
        f'<span class="sound" style="width:{share:.2%}">'
        f'<img src="{spectral_picture.png(picture.spectrogram)}" alt="Spectrogram of {name}"></span></button>'
        f"<figcaption><b>{title}</b>{seconds}</figcaption>"
        f'<audio controls preload="metadata" aria-label="{name}"'
        f' src="{embed.wav(picture.waveform, sample_rate)}"></audio></figure>'
    )


def _grid(content: str) -> str:
    return content and f'<div class="grid wide">\n{content}\n</div>'
