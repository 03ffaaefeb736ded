"""The verdict on a model: each rule applies where it should, and says what would help."""

import re
from typing import Any

import pytest
from tiny_models import tiny_model, untrained

from audiovq.evaluation.verdict import Facts, copies_in_words, copies_of, facts_of, verdict
from audiovq.evaluation.wording import describe_figures
from audiovq.runtime.progress import percent

GOOD: dict[str, Any] = {
    "reconstruction": {"error_db": 3.4},
    "codebook": {"usage": 0.9},
    "generation": {
        "sounds": 20,
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
        (Facts(1, {}, 0.9), GOOD, (0, 20), "help most: it has 1 training clip."),
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


@pytest.mark.parametrize(
    ("generation", "says"),
    [
        ({}, "(only 9 test clips)"),
        ({"accuracy": {}}, "(only 9 test clips)"),
        ({"real_clips": 1}, "(only 1 comparable of 9 test clips)"),
    ],
)
def test_new_sounds_are_not_judged_where_test_clips_are_too_few_to_test_the_judges(
    generation: dict[str, Any], says: str
) -> None:
    few = GOOD | {"measured_on": "test", "clips": 9, "generation": GOOD["generation"] | generation}
    found = verdict(FACTS, few, (0, 20))
    assert found.startswith(
        f"Recordings are reproduced recognizably, new sounds are not judged {says}, no copies;"
    )
    rows = {name: meaning for name, _, meaning in describe_figures(few | {"codebook": {}})}
    assert rows["Fréchet distance"].endswith(f"; unreliable: {says[1:-1]}"), "the same words"
    enough = GOOD | {"measured_on": "test", "clips": 40}
    assert verdict(FACTS, enough, (0, 20)).startswith("92 % recognizable, no copies;")


@pytest.mark.parametrize(
    ("real", "says"),
    [
        (0.736, "92 % recognizable where 74 % of real clips are, no copies;"),
        (0.9, "92 % recognizable, no copies;"),
    ],
)
def test_of_a_judge_that_knows_few_real_clips_it_is_said(real: float, says: str) -> None:
    kind = {"generated": 0.916, "real": real}
    figures = GOOD | {
        "generation": {"accuracy": {"kind": kind, "speaker": {"generated": 0.95, "real": 0.2}}}
    }
    assert verdict(FACTS, figures, (0, 20)).startswith(says)


@pytest.mark.parametrize(
    ("untested", "says"),
    [
        (["kick"], "kick"),
        (["hat", "kick", "snare"], "hat, kick and snare"),
        (["clap", "hat", "kick", "snare"], "clap, hat and others"),
    ],
)
def test_values_that_no_test_clip_has_are_named_as_untested_in_sentence_and_table(
    untested: list[str], says: str
) -> None:
    kind = {"generated": 0.916, "real": 0.97, "sounds": 31, "untested": untested}
    speaker = {"generated": None, "real": 0.0, "sounds": 0, "untested": ["ada"]}
    figures = {
        "measured_on": "test",
        "clips": 40,
        "generation": {"sounds": 40, "accuracy": {"kind": kind, "speaker": speaker}},
    }
    expected = f"92 % recognizable ({says} untested), no copies;"
    assert verdict(FACTS, figures, (0, 20)).startswith(expected)
    rows = {name: (value, meaning) for name, value, meaning in describe_figures(figures)}
    value, meaning = rows["kind recognised"]
    assert value == "91.6 %"
    assert meaning.startswith("of 31 new sounds, by a classifier that is 97.0 % correct on test")
    assert meaning.endswith(f"on test clips; untested: {says}")
    assert rows["speaker recognised"] == ("", "untested: ada")


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
    assert facts_of(untrained(bottleneck="gaussian")).generates
    assert not facts_of(untrained(bottleneck="none")).generates


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
