"""The HTML page about a trained model: how it sounds, how it was trained, how to make it again.

Plain data in, one self-contained file out: it embeds pictures, sounds, style and script. Labels and names
come from untrusted files; the templates escape every string.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiovq.report import charts, embed
from audiovq.runtime.files import write_text
from audiovq.runtime.templates import asset, render
from audiovq.spectral import picture as spectral_picture

PACKAGE = "audiovq.report"
"""The package of the templates and assets."""
CODE_SECONDS = 0.3
"""Duration of the sound of a single code."""


@dataclass(frozen=True)
class Picture:
    """A sound to show."""

    title: str
    waveform: npt.NDArray[np.float32]
    """(samples,) in [-1, 1]; scaled down if its peak is above 1."""
    spectrogram: npt.NDArray[np.float32]
    """(bins, frames) in [0, 1], row 0 the lowest frequency."""


@dataclass(frozen=True)
class Group:
    """Sounds side by side, for comparison; their titles name the versions."""

    title: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Report:
    """The contents of a page; empty parts are omitted."""

    title: str
    sample_rate: int
    generated: list[Picture]
    copies: int | None
    """Number of these that are near copies of training clips, and marked as such; None: not compared."""
    data: str
    """The training data in words: files, recordings, clips."""
    comparisons: list[Group]
    """Recordings, the same after encoding and decoding, and from their true spectrograms."""
    compared: str
    """The name of these clips, such as `test clips`."""
    codes: list[Group]
    """Single codes, each beside its nearest neighbour in the codebook."""
    metrics: list[dict[str, Any]]
    """Rows of metrics.jsonl; `uniform_bits` and `unigram_bits` are plotted as baselines."""
    code_counts: npt.NDArray[np.int64]
    """(quantizers, codebook_size) uses of each code in the training clips."""
    code_points: npt.NDArray[np.float32]
    """(codebook_size, 2) positions of the first quantizer's codes on the map; (0, 2): no map."""
    figures: list[tuple[str, str, str]]
    """Rows of name, value and meaning."""
    settings: dict[str, Any]
    """Nested dicts of plain values."""
    commands: list[str]


@dataclass(frozen=True)
class Card:
    """A `Picture` as the template shows it."""

    title: str
    seconds: float
    png: str
    wav: str
    """Data URIs."""
    width: float
    """Share of the width of the longest sound beside it."""


@dataclass(frozen=True)
class CardGroup:
    """A `Group` as the template shows it."""

    title: str
    cards: list[Card]


def write(path: Path, report: Report) -> None:
    """Write the page as one file, atomically."""
    script = asset(PACKAGE, "report.js")
    codebook = charts.usage(report.code_counts)
    codebook += charts.curves(report.metrics, charts.CODEBOOK_CURVES)
    if len(report.code_points):
        codebook.append(charts.code_map(report.code_points, report.code_counts[0]))
    html = render(
        PACKAGE,
        "report.html",
        report=report,
        summary=_summary(report),
        generated=_cards(report.generated, report.sample_rate, _longest(report.generated)),
        compared=_card_groups(report.comparisons, report.sample_rate),
        codes=_card_groups(report.codes, report.sample_rate),
        codebook_charts=codebook,
        code_seconds=CODE_SECONDS,
        training_charts=charts.curves(report.metrics, charts.TRAINING_CURVES),
        all_settings=list(_flat(report.settings)),
        style=asset(PACKAGE, "report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    # File names that are not UTF-8 contain lone surrogates, which cannot be encoded.
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))


def _summary(report: Report) -> str:
    """One line: number of sounds, sample rate, codes, training time, data."""
    sounds, (quantizers, size) = len(report.generated), report.code_counts.shape
    seconds = {row["stage"]: row.get("seconds") or 0.0 for row in report.metrics}
    words = [
        sounds and f"{sounds} new sound{'s' * (sounds > 1)}",
        f"{report.sample_rate / 1000:g} kHz",
        quantizers and f"{quantizers} × {size} codes".removeprefix("1 × "),
        seconds and f"trained in {max(1, round(sum(seconds.values()) / 60))} min",
        report.data,
    ]
    return " · ".join(str(word) for word in words if word)


def _cards(pictures: Sequence[Picture], sample_rate: int, longest: int) -> list[Card]:
    return [
        Card(
            picture.title,
            picture.waveform.shape[-1] / sample_rate,
            spectral_picture.png(picture.spectrogram),
            embed.wav(picture.waveform, sample_rate),
            picture.spectrogram.shape[1] / max(1, longest),
        )
        for picture in pictures
    ]


def _card_groups(groups: Sequence[Group], sample_rate: int) -> list[CardGroup]:
    longest = _longest([picture for group in groups for picture in group.pictures])
    return [
        CardGroup(group.title, _cards(group.pictures, sample_rate, longest)) for group in groups
    ]


def _longest(pictures: Sequence[Picture]) -> int:
    """Frames of the longest sound."""
    return max((picture.spectrogram.shape[1] for picture in pictures), default=0)


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as pairs (path of names, value)."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} · ")
        else:
            yield f"{prefix}{name}", str(value)
