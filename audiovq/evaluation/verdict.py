"""What figures say of a model in one sentence, and what would help most: for the page and the end of training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from audiovq.dataset.measured import counted
from audiovq.dataset.numbers import Numbers
from audiovq.evaluation.wording import few_clips, untested_in_words
from audiovq.models.model import Model
from audiovq.runtime.progress import percent
from audiovq.training.stages.plain import ENOUGH, THIN, share_of, thin

Figures = Mapping[str, Any]
FEW_CLIPS = 100
"""Training clips below which more recordings help first."""
FEW_OF_VALUE = 30
"""Training clips of a label value below which it is rare,"""
RARE = 1 / 3
"""if it also has less than this share of the value in the middle."""
MANY_COPIES = 0.1
"""Share of new sounds that are near copies, above which a model repeats its recordings."""
HURRIED = 0.2
"""Share of the planned steps of a stage below which it is too early to judge, and minutes help before recordings do."""
CLOSE, NEAR = 1.3, 2.0
"""Fréchet distance of new sounds as a multiple of training clips' that is close, or near."""
CLEAR_DB, FAIR_DB = 3.0, 5.0
"""Error of reconstructions, in dB, that is small, or fair."""
SURE = 0.9
"""Share of real clips that a judge recognizes below which it is said: it is no expert."""
EVALUATE = "audiovq evaluate"


@dataclass(frozen=True)
class Facts:
    """A model without measurements: its training clips, codes in use, and how its training ended."""

    clips: int
    """Training clips."""
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Training clips of each value of each label."""
    usage: float | None = None
    """Share of the codes in use."""
    steps: Mapping[str, float] = field(default_factory=dict)
    """Share of the planned steps of each stage that a time limit ended."""
    patient: bool = False
    """Whether the prior's training ended because nothing improved."""
    generates: bool = True
    """Whether it makes new sounds."""


def facts_of(model: Model) -> Facts:
    """The facts that a model's folder records."""
    header = model.header
    summaries = {
        s: header.get(s, {}).get("summary", {}) for s in ("autoencoder", "prior", "masked")
    }
    values: dict[str, Counter[str]] = {}
    for index, (label, names) in enumerate(model.labels.items()):
        if isinstance(names, Numbers):  # nearly every clip has another one
            continue
        counts: Counter[str] = Counter()
        for row, count in model.label_counts:
            if row[index] < len(names):
                counts[names[row[index]]] += count
        values[label] = counts
    return Facts(
        sum(count for _, count in model.label_counts),
        values,
        summaries["autoencoder"].get("validation_usage"),
        {
            stage: found["step"] / found["steps_planned"]
            for stage, found in summaries.items()
            if found.get("ended_by") == "time" and found.get("steps_planned")
        },
        summaries["prior"].get("ended_by") == "patience",
        model.generates and not model.spectrogram.config.images,
    )


def verdict(facts: Facts, figures: Figures, copies: tuple[int, int] | None = None) -> str:
    """One sentence: how good the sounds are, whether they are copies, what would help most.

    `figures` are those of `evaluate`, or of training; `copies`: near copies among a number of new sounds.
    """
    how_good, would_help = quality(figures), advice(facts, figures, copies)
    if facts.generates and not figures.get("generation"):
        if min(facts.steps.values(), default=1.0) < HURRIED:
            how_good = "too early to judge"
        elif figures.get("reconstruction"):
            how_good += ", new sounds are not measured yet"
            how_good += "" if EVALUATE in would_help else f" ({EVALUATE} does it)"
    parts = [how_good, *([copies_in_words(copies)] if facts.generates else [])]
    text = ", ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}; {would_help}."


def copies_of(figures: Figures) -> tuple[int, int] | None:
    """Near copies among the sounds that `evaluate` made; None where they were not compared."""
    generation = figures.get("generation", {})
    found = generation.get("codes_shared_with_a_training_clip", {}).get("generated")
    return None if found is None else (found["copies"], generation["sounds"])


def quality(figures: Figures) -> str:
    """How good the sounds are, by the best figure that was measured.

    Where real clips were too few to test the judges, new sounds are said to be not judged; label values that no real
    clip has are named.
    """
    generation = figures.get("generation", {})
    shares = [
        found
        for found in generation.get("accuracy", {}).values()
        if found["generated"] is not None and found["real"] is not None
    ]
    if "accuracy" in generation and (few := few_clips(figures)):
        return f"{reproduced(figures)}, new sounds are not judged ({few})"
    if shares:
        untested = dict.fromkeys(filter(None, map(untested_in_words, shares)))
        caveat = f" ({', '.join(untested)} untested)" if untested else ""
        worst = min(shares, key=lambda found: float(found["generated"]))
        of_real = f" where {percent(worst['real'])} of real clips are"
        recognized = f"{percent(worst['generated'])} recognizable"
        return f"{recognized}{of_real if worst['real'] < SURE else ''}{caveat}"
    distance = generation.get("frechet_distance", {})
    if distance.get("training_clips"):
        ratio = distance["generated"] / distance["training_clips"]
        words = {CLOSE: "as near to real recordings as these to each other", NEAR: "near to them"}
        found = next((text for most, text in words.items() if ratio <= most), "")
        return f"new sounds are {found or 'far from real recordings'}"
    return reproduced(figures)


def reproduced(figures: Figures) -> str:
    """How well recordings are reproduced."""
    error = figures.get("reconstruction", {}).get("error_db")
    if error is None:
        return "not measured yet"
    words = {CLEAR_DB: "clearly", FAIR_DB: "recognizably"}
    how = next((text for most, text in words.items() if error <= most), "roughly")
    return f"recordings are reproduced {how}"


def copies_in_words(copies: tuple[int, int] | None) -> str:
    """Near copies among new sounds, as words."""
    if copies is None:
        return "not compared with the recordings"
    if not copies[0]:
        return "no copies"
    return f"{copies[0]} of {copies[1]} {'is a near copy' if copies[0] == 1 else 'are near copies'}"


def advice(facts: Facts, figures: Figures, copies: tuple[int, int] | None) -> str:
    """What would help most, by the first rule that applies."""
    usage = figures.get("codebook", {}).get("usage", facts.usage)
    shortest = min(facts.steps.values(), default=1.0)
    if copies and copies[0] > MANY_COPIES * copies[1]:
        return "more, and more varied, recordings would help most: it repeats those it has"
    if facts.clips < FEW_CLIPS:
        return f"more recordings would help most: it has {counted(facts.clips, 'train')}"
    minutes = (
        "more minutes would help most: the time limit ended training after"
        f" {share_of(shortest)} of its steps (train --more 20)"
    )
    if shortest < HURRIED:
        return minutes
    if rare := rare_values(facts):
        value, count = rare[0]
        return (
            f"more recordings of {value} would help most: it has {count} of {facts.clips:,} clips"
        )
    if usage is not None and usage < THIN:
        return thin(usage)
    if shortest < ENOUGH:
        return minutes
    if facts.patient:
        return "more recordings would help most: it learnt what these have"
    if not figures.get("generation") and facts.generates:
        return f"run {EVALUATE} to measure them"
    return "more minutes or more recordings may still help"


def rare_values(facts: Facts) -> list[tuple[str, int]]:
    """Label values with few training clips beside the others, the rarest first."""
    found = []
    for counts in facts.values.values():
        most = min(FEW_OF_VALUE, RARE * median(counts.values())) if len(counts) > 1 else 0
        found += [(value, count) for value, count in counts.items() if count < most]
    return sorted(found, key=lambda pair: pair[1])
