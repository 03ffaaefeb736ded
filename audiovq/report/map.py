"""A page that shows sound files as points, similar ones close together; one plays what one points at."""

from __future__ import annotations

import base64
import cmath
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from audiovq.report.sections import PACKAGE
from audiovq.runtime.files import write_text
from audiovq.runtime.templates import asset, render

WIDTH, HEIGHT, MARGIN = 1000, 640, 12
"""Pixels of the map."""
GOLDEN = math.pi * (3 - math.sqrt(5))
"""Angle between neighbours of a spiral of evenly spaced points."""
APART = 4.0
"""Pixels between points of sounds at the same place, so that the mouse reaches each."""


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
    pixels = _apart([point.position for point in points])
    html = render(
        PACKAGE,
        "map.html",
        title=title,
        width=WIDTH,
        height=HEIGHT,
        points=[
            {
                "x": round(x, 1),
                "y": round(y, 1),
                "title": point.title,
                "source": quote(point.file),
                "hue": hue[point.kind],
            }
            for point, (x, y) in zip(points, pixels, strict=True)
        ],
        kinds=[(kind, hue[kind]) for kind in kinds if kind],
        style=asset(PACKAGE, "report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))


def _apart(positions: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Pixels of positions in [0, 1]; those at the same pixel as an earlier one go around it, in a spiral."""
    met: Counter[tuple[int, int]] = Counter()
    pixels = []
    for position in positions:
        x, y = (
            MARGIN + share * (size - 2 * MARGIN)
            for share, size in zip(position, (WIDTH, HEIGHT), strict=True)
        )
        # One more turn of the golden angle each, and the root of their number away: evenly spaced.
        away = cmath.rect(
            APART * math.sqrt(met[round(x), round(y)]), GOLDEN * met[round(x), round(y)]
        )
        met[round(x), round(y)] += 1
        pixels.append((min(max(x + away.real, 0.0), WIDTH), min(max(y + away.imag, 0.0), HEIGHT)))
    return pixels
