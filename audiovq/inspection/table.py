"""The findings of `inspect` as a table of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from audiovq.inspection.describe import description_lines
from audiovq.inspection.inspect import bar_sign
from audiovq.inspection.listen import Inspection

BAR = 24
"""Characters of the longest bar."""
LISTED = 12
"""So many of a long list are shown; `--json` has all."""


def inspection_table(found: Inspection) -> str:
    """An inspection as lines of text, with small histograms."""
    lines = [
        f"{found.source}: {found.usable:,} of {found.found:,} files can be used,"
        f" {_duration(found.seconds)} of sound",
        "",
        *_histogram("rate", [(f"{r:,} Hz", n) for r, n in found.rates.items()]),
        *_histogram("length", _bins(found.lengths, "s", ".2f")),
        *_histogram("sound up to", _bins(found.reaches, "Hz", ",.0f")),
        "",
        f"silence     {found.silent:.0%} of all; what is at both ends is cut off",
        f"clipped     {len(found.clipped)} files",
        *_listed([f"{path}: {share:.1%} of its samples" for path, share in found.clipped.items()]),
        f"duplicates  {sum(len(group) - 1 for group in found.duplicates)} files",
        *_listed([" = ".join(group) for group in found.duplicates]),
        f"skipped     {len(found.skipped)} files",
        *_listed([f"{one.path}: {one.reason}" for one in found.skipped]),
        f"labels      {'none' if not found.labels else ''}".rstrip(),
        *_listed([f"{name}: {_some(values)}" for name, values in found.labels.items()]),
        *(f"note: {note}" for note in found.notes),
        "",
        f"How {len(found.descriptions)} of them sound",
        *(f"  {line}" for line in description_lines(list(found.descriptions.values()))),
        "",
        "What fits",
        *(f"  {reason}" for reason in found.reasons),
        "",
        f"What no model on these settings can exceed ({len(found.inverted)} clips, from their true"
        " spectrograms)",
        f"  spectral convergence {found.ceiling['spectral_convergence']:.3f} (0 is exact)"
        + (f", PESQ {found.ceiling['pesq']:.2f} (at most 4.5)" if "pesq" in found.ceiling else ""),
        "",
        *found.commands,
    ]
    return "\n".join(lines)


def _histogram(title: str, rows: Sequence[tuple[str, int]]) -> list[str]:
    """Rows of name, number and bar, the title before the first."""
    most = max(n for _, n in rows)
    sign = bar_sign("█", "#")
    return [
        f"{title if i == 0 else '':<11} {name:>20} {n:>7,}  {sign * math.ceil(BAR * n / most)}".rstrip()
        for i, (name, n) in enumerate(rows)
    ]


def _bins(values: Sequence[float], unit: str, how: str) -> list[tuple[str, int]]:
    """Rising values → up to six ranges of one width with their numbers; the last takes the longest tail."""
    low, high = values[0], float(np.quantile(values, 0.98))
    if high - low < 1e-3 * high:
        return [(f"{low:{how}} {unit}", len(values))]
    edges = np.linspace(low, high, 7)
    edges[-1] = max(values[-1], high)
    counts = np.histogram(values, edges)[0].tolist()
    return [
        (f"{a:{how}} to {b:{how}} {unit}", n)
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _listed(lines: Sequence[str]) -> list[str]:
    more = [f"  and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
    return [f"  {line}" for line in lines[:LISTED]] + more


def _some(values: Sequence[str]) -> str:
    return f"{len(values)} values: {', '.join(values[:LISTED])}{bar_sign(', …', ', ...') * (len(values) > LISTED)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
