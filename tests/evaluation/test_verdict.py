"""The verdict on a model: each rule applies where it should, and says what would help."""

import re
from typing import Any

import pytest
from tiny_models import tiny_model

from audiovq.evaluation.verdict import Facts, copies_in_words, copies_of, facts_of, verdict
from audiovq.runtime.progress import percent

GOOD: dict[str, Any] = {
    "reconstruction": {"error_db": 3.4},
    "codebook": {"usage": 0.9},
    "generation": {
        "accuracy": {
            "kind": {"generated": 0.916, "real": 0.97},
            "speaker": {"generated": 0.99, "real": 1.0},
            "unlearnt": {"generated": None, "real": None},
        },
        "frechet_distance": {"generated": 5.0, "training_clips": 4.0},
    },
}
FACTS = Facts(800, {"kind": {"clap": 200, "kick": 300, "snare": 300}}, 0.9)
KINDS = {"clap": 12, "kick": 300, "snare": 300}


def test_the_verdict_names_quality_copies_and_what_would_help() -> None:
    found = verdict(Facts(800, {"kind": KINDS}, 0.9), GOOD, (0, 20))
    assert found == (
        "92 % recognizable, no copies; more recordings of clap would help most: it has 12 of 800 clips."
    )


@pytest.mark.parametrize(
    ("facts", "figures", "copies", "says"),
    [
        (FACTS, GOOD, (5, 20), "5 of 20 are near copies; more, and more varied, recordings"),
        (FACTS, GOOD, None, "92 % recognizable, not compared with the recordings;"),
        (Facts(46, {}, 0.9), GOOD, (0, 20), "more recordings would help most: it has 46 training"),
        (
            FACTS,
            GOOD | {"codebook": {"usage": 0.2}},
            (0, 20),
            "codebook thin (20 % of codes in use)",
        ),
        (Facts(800, {}, 0.2), {}, (0, 20), "few kinds of sound, or too few minutes"),
        (
            Facts(800, {}, 0.9, {"prior": 0.25}),
            GOOD,
            (0, 20),
            "after 25 % of its steps (train --more",
        ),
        (
            Facts(800, {"kind": KINDS}, 0.9, {"autoencoder": 0.04}),
            GOOD,
            (0, 20),
            "more minutes would help most: the time limit ended training after 4 %",
        ),
        (
            Facts(800, {}, 0.9, patient=True),
            GOOD,
            (0, 20),
            "more recordings would help most: it lea",
        ),
        (FACTS, {}, (0, 20), "Not measured yet, no copies; run audiovq evaluate to"),
        (
            FACTS,
            {"reconstruction": {"error_db": 2.0}},
            (0, 9),
            "are reproduced clearly, new sounds are not measured yet, no copies; run audiovq evaluate to measure them",
        ),
        (
            Facts(800, {}, 0.9, {"prior": 0.4}),
            {"reconstruction": {"error_db": 2.0}},
            (0, 9),
            "not measured yet (audiovq evaluate does it), no copies; more minutes would help most",
        ),
        (
            Facts(800, {}, 0.9, {"prior": 0.04}),
            {"reconstruction": {"error_db": 2.0}},
            (0, 9),
            "Too early to judge, no copies; more minutes would help most",
        ),
        (FACTS, {"reconstruction": {"error_db": 4.0}}, (0, 9), "reproduced recognizably"),
        (FACTS, {"reconstruction": {"error_db": 9.0}}, (0, 9), "reproduced roughly"),
        (FACTS, GOOD, (0, 20), "more minutes or more recordings may still help"),
        (Facts(800, generates=False), {"reconstruction": {"error_db": 2.0}}, None, "clearly; more"),
    ],
)
def test_each_rule(facts: Facts, figures: Any, copies: Any, says: str) -> None:
    found = verdict(facts, figures, copies)
    assert says in found
    assert re.fullmatch(r"[A-Z0-9][^.]*(\.\d[^.]*)*\.", found)


@pytest.mark.parametrize(
    ("ratio", "says"), [(1.2, "as near to real"), (1.8, "near to them"), (4.0, "far from real")]
)
def test_without_labels_the_distance_decides(ratio: float, says: str) -> None:
    distance = {"generated": 4 * ratio, "training_clips": 4.0}
    figures = {"generation": {"accuracy": {}, "frechet_distance": distance}}
    assert says in verdict(FACTS, figures, (0, 20))


def test_copies_are_those_of_new_sounds_where_any_could_be_compared() -> None:
    name = "codes_shared_with_a_training_clip"
    assert copies_of({}) is None
    assert copies_of({"generation": {"sounds": 9}}) is None
    assert copies_of({"generation": {"sounds": 9, name: {"real": {"copies": 1}}}}) is None
    assert copies_of({"generation": {"sounds": 9, name: {"generated": {"copies": 2}}}}) == (2, 9)


def test_facts_are_those_of_the_model() -> None:
    facts = facts_of(tiny_model())
    assert facts.generates
    assert facts.clips == sum(facts.values["digit"].values())


def test_percent_have_a_space() -> None:
    assert (percent(0.916), percent(0.0012, 2)) == ("92 %", "0.12 %")


@pytest.mark.parametrize(
    ("copies", "says"),
    [
        (None, "not compared with the recordings"),
        ((0, 50), "no copies"),
        ((1, 50), "1 of 50 is a near copy"),
        ((2, 50), "2 of 50 are near copies"),
    ],
)
def test_copies_in_words(copies: tuple[int, int] | None, says: str) -> None:
    assert copies_in_words(copies) == says
