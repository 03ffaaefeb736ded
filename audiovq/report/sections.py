"""The HTML page about a trained model: a verdict, how it sounds, and for experts how it was trained.

Plain data in, one self-contained file out: it embeds pictures, sounds, style and script. Labels and names
come from untrusted files; the templates escape every string.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiovq.audio.waveform import Waveform
from audiovq.codec.single import HELD_SECONDS
from audiovq.report import charts, embed
from audiovq.report.axes import Tick, second_ticks
from audiovq.runtime.files import write_text
from audiovq.runtime.templates import asset, render
from audiovq.spectral import picture as spectral_picture

PACKAGE = "audiovq.report"
"""The package of the templates and assets."""
SILENT_POWER = 1e-8
"""Power below which a sound is nowhere."""
BALANCE_POINTS = 40
"""Points of the line of a stereo sound's balance."""


@dataclass(frozen=True)
class Picture:
    """A sound to show."""

    title: str
    waveform: npt.NDArray[np.float32]
    """(samples,) or (2, samples) in [-1, 1]; scaled down if its peak is above 1."""
    spectrogram: npt.NDArray[np.float32]
    """(bins, frames) in [0, 1], row 0 the lowest frequency."""
    hertz: Sequence[Tick] = ()
    """Ticks of its axis of frequency."""
    num_samples: int = 0
    """Samples of the whole sound, where `waveform` is only its beginning."""


@dataclass(frozen=True)
class Group:
    """Sounds side by side, for comparison; their titles name the versions."""

    title: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Report:
    """The contents of a page; empty parts are omitted."""

    title: str
    verdict: str
    """How good the model is and what would help, in one sentence."""
    sample_rate: int
    channels: int
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
    """Those that made the dataset and the model."""
    next_steps: list[str]
    """Command lines to type next."""
    same_decoder: bool = False
    """Whether there are new sounds, and decoded as the reconstructions are."""


@dataclass(frozen=True)
class Card:
    """A `Picture` as the template shows it."""

    title: str
    seconds: float
    png: str
    wav: str
    """Data URIs."""
    hertz: Sequence[Tick]
    seconds_ticks: Sequence[Tick]
    balance: Sequence[tuple[float, float]] = ()
    """Of a stereo sound: points (x, y) of a line over the picture in percent, left at the top; of a mono one none."""
    whole_seconds: float = 0.0
    """Duration of the whole sound where this is its beginning, else 0."""

    @property
    def file_name(self) -> str:
        """A name to save it by."""
        name = re.sub(r"[^\w.-]+", "-", self.title).strip("-.") or "sound"
        return name + "-beginning" * bool(self.whole_seconds) + ".wav"


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
        generated=_cards(report.generated, report.sample_rate),
        compared=_card_groups(report.comparisons, report.sample_rate),
        codes=_card_groups(report.codes, report.sample_rate),
        codebook_charts=codebook,
        code_seconds=HELD_SECONDS,
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
    seconds = _training_seconds(report.metrics)
    words = [
        sounds and f"{sounds} new sound{'s' * (sounds > 1)}",
        f"{report.sample_rate / 1000:g} kHz" + " stereo" * (report.channels == 2),
        quantizers and f"{quantizers} × {size} codes".removeprefix("1 × "),
        seconds and f"trained in {max(1, round(seconds / 60))} min",
        report.data,
    ]
    return " · ".join(str(word) for word in words if word)


def _training_seconds(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of all stages and trainings: a further training counts from 0 again."""
    total, last = 0.0, dict[str, float]()
    for row in metrics:
        seconds = row.get("seconds") or 0.0
        before = last.get(row["stage"], 0.0)
        total += seconds - before if seconds >= before else seconds
        last[row["stage"]] = seconds
    return total


def _cards(pictures: Sequence[Picture], sample_rate: int) -> list[Card]:
    return [card(p, sample_rate, embed.wav(p.waveform, sample_rate)) for p in pictures]


def card(picture: Picture, sample_rate: int, source: str) -> Card:
    """A sound as templates show it, on an axis of its length; `source`: its data URI or address."""
    seconds = picture.waveform.shape[-1] / sample_rate
    return Card(
        picture.title,
        seconds,
        spectral_picture.png(picture.spectrogram),
        source,
        picture.hertz,
        second_ticks(seconds, 3) if seconds else (),
        balance(picture.waveform),
        picture.num_samples / sample_rate
        if picture.num_samples > picture.waveform.shape[-1]
        else 0.0,
    )


def balance(waveform: Waveform) -> list[tuple[float, float]]:
    """Where a stereo sound (2, samples) is over time: points (x, y) in percent, y 0 for left and 100 for right."""
    if waveform.ndim == 1 or waveform.shape[1] < BALANCE_POINTS:
        return []
    parts = np.array_split(np.square(waveform.astype(np.float64)), BALANCE_POINTS, axis=1)
    left, right = np.array([part.mean(axis=1) for part in parts]).T
    total = left + right
    share = np.divide(right, total, out=np.full_like(total, 0.5), where=total > SILENT_POWER)
    points = enumerate(share.tolist())
    return [(round(100 * (i + 0.5) / BALANCE_POINTS, 1), round(100 * y, 1)) for i, y in points]


def _card_groups(groups: Sequence[Group], sample_rate: int) -> list[CardGroup]:
    return [CardGroup(group.title, _cards(group.pictures, sample_rate)) for group in groups]


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as pairs (path of names, value)."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} · ")
        else:
            yield f"{prefix}{name}", str(value)
