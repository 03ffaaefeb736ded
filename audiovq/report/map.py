"""A page that shows sound files as points, similar ones close together; one plays what one points at."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from audiovq.report.sections import PACKAGE
from audiovq.runtime.files import write_text
from audiovq.runtime.templates import asset, render

WIDTH, HEIGHT, MARGIN = 1000, 640, 12
"""Pixels of the map."""


@dataclass(frozen=True)
class Point:
    """A sound file on the map."""

    title: str
    file: str
    """Path relative to the page, with forward slashes."""
    position: tuple[float, float]
    """In [0, 1]."""
    kind: str
    """Files of one kind have one colour."""


def write_map(path: Path, title: str, points: Sequence[Point]) -> None:
    """Write the page, atomically; it refers to the files."""
    kinds = sorted({point.kind for point in points})
    hue = {kind: round(360 * i / len(kinds)) for i, kind in enumerate(kinds)}
    script = asset(PACKAGE, "map.js")
    html = render(
        PACKAGE,
        "map.html",
        title=title,
        width=WIDTH,
        height=HEIGHT,
        points=[
            {
                "x": round(MARGIN + point.position[0] * (WIDTH - 2 * MARGIN), 1),
                "y": round(MARGIN + point.position[1] * (HEIGHT - 2 * MARGIN), 1),
                "title": point.title,
                "source": quote(point.file),
                "hue": hue[point.kind],
            }
            for point in points
        ],
        kinds=[(kind, hue[kind]) for kind in kinds if kind],
        style=asset(PACKAGE, "report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))
