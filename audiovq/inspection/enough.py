"""What to expect from a number of clips, by curves measured on sets of drums, notes, field recordings and digits."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

FIGURES = Path(__file__).parent / "assets" / "enough.json"
"""Made by `docs/make_enough.py` of what `benchmarks/quality/enough.py` measured."""
SPEECH_RATE = 16_000
"""Hz up to which recordings are taken for speech."""
SETS = {
    "drums": "drum hits",
    "notes": "notes of instruments",
    "foley": "field recordings",
    "fsdd": "spoken digits",
}
FEW = 10
"""Clips of a label's value below which more of them help most."""
STEEP = 0.05
"""Gain of the share of named sounds by four times the clips, from which more clips help most."""
MORE = 4
Kind = Literal["hits", "tones", "mixed"]
Row = Mapping[str, Any]


@functools.cache
def measured() -> dict[str, Any]:
    """The figures: `minutes` of each training, and `rows`, one for each set and number of recordings."""
    figures: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return figures


def similar_set(kind: Kind | None, sample_rate: int) -> str:
    """The set that recordings of this character and rate are compared with."""
    if sample_rate <= SPEECH_RATE:
        return "fsdd"
    return {"hits": "drums", "tones": "notes"}.get(kind or "mixed", "foley")


def expected(name: str, clips: float) -> dict[str, float]:
    """Error in dB, bits per code, shares of named sounds and near copies that a set's curves have at `clips`.

    Between the numbers of clips that were measured, figures are interpolated on their logarithm; beyond, they are
    those of the last.
    """
    rows = sorted((row for row in measured()["rows"] if row["set"] == name), key=_clips)
    position = math.log(max(1.0, clips))
    found = {}
    for figure in ("error_db", "bits_per_code", "named", "copies"):
        before = rows[0]
        found[figure] = float(rows[-1][figure])
        for row in rows:
            if _clips(row) >= clips:
                low, high = math.log(_clips(before)), math.log(_clips(row))
                share = 1.0 if row is before else (position - low) / (high - low)
                found[figure] = before[figure] + share * (row[figure] - before[figure])
                break
            before = row
    return found


def expectation_lines(
    clips: int,
    labels: Mapping[str, Sequence[str]],
    counts: Mapping[str, Mapping[str, int]],
    kind: Kind | None,
    sample_rate: int,
) -> list[str]:
    """Lines for `inspect`: figures at this number of clips and at four times as many, and what would help most.

    `counts`: clips of each value of each label. `kind`: the character of the recordings.
    """
    name = similar_set(kind, sample_rate)
    now = expected(name, clips)
    later = _no_worse(expected(name, MORE * clips), now)
    numbers = [_clips(row) for row in measured()["rows"] if row["set"] == name]
    fewest, most = min(numbers), max(numbers)
    beyond = f" (not measured beyond {most:,})" if MORE * clips > most else ""
    in_words, more = (_in_words(figures, bool(labels)) for figures in (now, later))
    unknown = f"not measured below {fewest:,}"
    lines = [
        f"as with {SETS[name]}, preset tiny, {_minutes()} of one core:",
        f"{clips:,} clip{'s' * (clips != 1)}: {in_words if clips >= fewest else unknown}",
    ]
    if fewest <= MORE * clips and clips < most:
        more = "about the same" if more == in_words else more
        lines.append(f"with four times as many{beyond}: {more}")
    known = later if clips >= fewest else None
    return [*lines, f"what helps most: {_advice(clips, counts, now, known)}"]


def _no_worse(later: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """The better of each figure: the same minutes over more clips measure a little worse by chance."""
    return {name: (max if name == "named" else min)(later[name], now[name]) for name in now}


def _minutes() -> str:
    minutes = measured()["minutes"]
    return f"{minutes:g} minute{'s' * (minutes != 1)}"


def _clips(row: Row) -> int:
    return int(row["clips"])


def _in_words(figures: Mapping[str, float], labelled: bool) -> str:
    named = f"{100 * figures['named']:.0f} % of new sounds have their label, " if labelled else ""
    return (
        f"error {figures['error_db']:.1f} dB, {figures['bits_per_code']:.1f} bits per code, {named}"
        f"{100 * figures['copies']:.0f} % are near copies"
    )


def _advice(
    clips: int,
    counts: Mapping[str, Mapping[str, int]],
    now: Mapping[str, float],
    later: Mapping[str, float] | None,
) -> str:
    """What would help most: more of a rare value, more clips, or longer training.

    `now`, `later`: the figures with these and with more clips; `later` is None where fewer were never measured.
    """
    rare = sorted(
        (count, label, value)
        for label, values in counts.items()
        if 2 <= len(values) <= clips / 4
        for value, count in values.items()
        if count < FEW
    )
    if rare:
        some = ", ".join(f"{label} {value} ({count})" for count, label, value in rare[:3])
        more = f" and {len(rare) - 3} other values" if len(rare) > 3 else ""
        return f"more recordings of {some}{more}"
    if later is not None and counts:
        gain = later["named"] - now["named"]
        if gain >= STEEP:
            return f"more recordings: four times as many name {100 * gain:.0f} % more sounds"
    if clips < 200:
        copies = round(100 * now["copies"]) > 0
        return f"more recordings: several hundred make {'fewer near copies' if copies else 'better models'}"
    return "longer training, as by the preset below; more recordings change little"
