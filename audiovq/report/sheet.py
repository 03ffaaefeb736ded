"""A page of sound files beside it: each a picture that plays when clicked, in groups."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from audiovq.audio.waveform import Waveform
from audiovq.report.axes import hertz_ticks
from audiovq.report.sections import PACKAGE, CardGroup, Picture, card
from audiovq.runtime.files import write_text
from audiovq.runtime.templates import asset, render
from audiovq.spectral.spectrogram import Spectrogram, waveform_images

MAX_SECONDS = 10.0
"""Beginning of a sound that its picture shows."""


@dataclass(frozen=True)
class Entry:
    """A sound file beside the page."""

    title: str
    file: str
    """Path relative to the page, with forward slashes."""
    waveform: Waveform
    """(samples,) or (2, samples) at the spectrogram's rate."""


def write_sheet(
    path: Path,
    spectrogram: Spectrogram,
    title: str,
    words: str,
    groups: Mapping[str, Sequence[Entry]],
) -> None:
    """Write a page of sounds in groups, by the groups' titles, atomically; the page refers to the files."""
    entries = [entry for group in groups.values() for entry in group]
    rate = spectrogram.config.sample_rate
    most = round(MAX_SECONDS * rate)
    images = waveform_images(spectrogram, [entry.waveform[..., :most] for entry in entries])
    ticks = hertz_ticks(spectrogram)
    cards = iter(
        card(
            Picture(entry.title, entry.waveform[..., :most], image[0].numpy(), ticks),
            rate,
            quote(entry.file),
        )
        for entry, image in zip(entries, images, strict=True)
    )
    script = asset(PACKAGE, "report.js")
    html = render(
        PACKAGE,
        "sheet.html",
        title=title,
        words=words,
        groups=[CardGroup(name, [next(cards) for _ in group]) for name, group in groups.items()],
        style=asset(PACKAGE, "report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))
