"""The result of `inspect` as text."""

from __future__ import annotations

import bisect
import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from audiovq.audio.finding import is_recording
from audiovq.inspection.describe import description_lines
from audiovq.inspection.measure import Inspection
from audiovq.preprocessing.similar import MOST
from audiovq.runtime.progress import in_one_line, percent

BAR = 24
"""Characters of the longest bar."""
LISTED = 12
"""Maximum number of lines of a list; `--json` prints all."""


def inspection_table(found: Inspection) -> str:
    """The inspection as lines of text, with small histograms."""
    recordings_first = sorted(found.skipped, key=lambda file: not is_recording(file.path))
    lines = [
        f"{found.source}: {found.usable:,} of {found.found:,} files usable,"
        f" {_duration(found.seconds)} of sound",
        "",
        *_histogram("rate", [(f"{r:,} Hz", n) for r, n in found.rates.items()]),
        *_histogram("length", _bins(found.lengths, "s", ".2f")),
        *_histogram("sound up to", _bins(found.reaches, "Hz", ",.0f")),
        "",
        f"silence     {percent(found.silent)} of the duration; trimmed at both ends by default",
        f"clipped     {_files(len(found.clipped))}",
        *_listed(
            [f"{path}: {percent(share, 1)} of the samples" for path, share in found.clipped.items()]
        ),
        f"duplicates  {_files(sum(len(group) - 1 for group in found.duplicates))}",
        *_listed([_group(group, " = ") for group in found.duplicates]),
        f"near copies {_near_copies(found.near_copies)}",
        *_listed([_group(group, " ~ ") for group in found.near_copies or ()]),
        f"skipped     {_files(len(found.skipped))}",
        *_listed([f"{file.path}: {file.reason}" for file in recordings_first]),
        f"labels      {'none' if not found.labels else ''}".rstrip(),
        *_listed([f"{name}: {_sample(values)}" for name, values in found.labels.items()]),
        *(f"note: {note}" for note in found.notes),
        "",
        f"Sound of {len(found.descriptions):,} of {_files(found.usable)}, evenly spaced",
        *(f"  {line}" for line in description_lines(list(found.descriptions.values()))),
        "",
        "What to expect of this number of clips",
        *(f"  {line}" for line in found.expected),
        "",
        "Suggested settings",
        *(f"  {reason}" for reason in found.reasons),
        "",
        f"Best quality these settings allow (measured on {len(found.inverted)} of the clips)",
        f"  {_ceiling(found.ceiling)}",
        "",
        "What to type next",
        *found.commands,
    ]
    return "\n".join(map(in_one_line, lines))


def _near_copies(groups: Sequence[Sequence[str]] | None) -> str:
    """The number of near copies, or that they are not looked for."""
    if groups is None:
        return f"not looked for among more than {MOST:,} recordings"
    kept = ", each kept in one split with what it is like" * bool(groups)
    return _files(sum(len(group) - 1 for group in groups)) + kept


def _ceiling(scores: Mapping[str, float]) -> str:
    """Scores of inverted spectrograms in words."""
    if "spectral_convergence" not in scores:
        return "not measured: these clips are silent"
    error = percent(scores["spectral_convergence"])
    pesq = f", PESQ {scores['pesq']:.2f} (at most 4.5)" if "pesq" in scores else ""
    return f"relative error of the magnitudes {error} (0 is exact){pesq}"


def _histogram(title: str, rows: Sequence[tuple[str, int]]) -> list[str]:
    """Lines of name, number and bar; the title precedes the first."""
    most = max(n for _, n in rows)
    sign = _printable("█", "#")
    return [
        f"{title if i == 0 else '':<11} {name:>20} {n:>7,}  {sign * math.ceil(BAR * n / most)}".rstrip()
        for i, (name, n) in enumerate(rows)
    ]


def _bins(values: Sequence[float], unit: str, spec: str) -> list[tuple[str, int]]:
    """Histogram of ascending values in up to six ranges of equal width; the last includes the long tail. Where nearly all
    are equal, the tail is a separate range.

    `spec`: format of the limits.
    """
    low, high = values[0], float(np.quantile(values, 0.98))
    if high - low <= 1e-3 * high:
        same = len(values) if values[-1] - low <= 1e-3 * high else bisect.bisect(values, high)
        bins = [(f"{low:{spec}} {unit}", same)]
        if tail := values[same:]:
            ends = dict.fromkeys([f"{tail[0]:{spec}}", f"{tail[-1]:{spec}}"])
            bins.append((f"{' to '.join(ends)} {unit}", len(tail)))
        return bins
    edges = np.linspace(low, high, 7)
    edges[-1] = max(values[-1], high)
    counts = np.histogram(values, edges)[0].tolist()
    return [
        (f"{a:{spec}} to {b:{spec}} {unit}", n)
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _listed(lines: Sequence[str]) -> list[str]:
    """Up to LISTED lines, indented, and the number of others."""
    more = [f"  and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
    return [f"  {line}" for line in lines[:LISTED]] + more


def _group(paths: Sequence[str], sign: str) -> str:
    """The first two of a group of files, and the number of others."""
    return sign.join(paths[:2]) + (f" and {len(paths) - 2} more" if len(paths) > 2 else "")


def _sample(values: Sequence[str]) -> str:
    return f"{len(values)} values: {', '.join(values[:LISTED])}{_printable(', …', ', ...') * (len(values) > LISTED)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _files(n: int) -> str:
    return f"{n:,} file{'s' * (n != 1)}"


def _printable(wanted: str, plain: str) -> str:
    """`wanted`, or `plain` if standard output cannot encode it."""
    try:
        wanted.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return plain
    return wanted
