"""What to expect from a number of clips: read off measured curves."""

import json
from pathlib import Path

import pytest

from audiovq.inspection import enough
from audiovq.inspection.enough import expectation_lines, expected, similar_set

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def row(clips: int, named: float) -> dict[str, object]:
    return {
        "set": "drums",
        "clips": clips,
        "error_db": 10 / clips,
        "bits_per_code": 3.0,
        "named": named,
        "copies": 0.5 - named / 2,
    }


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(100, 0.5), row(10, 0.1), row(1000, 0.6)]
    monkeypatch.setattr(enough, "measured", lambda: {"minutes": 1.0, "rows": rows})


@pytest.mark.usefixtures("curves")
def test_figures_are_those_measured_and_between_them_by_the_logarithm() -> None:
    for clips, named in ((10, 0.1), (100, 0.5), (1000, 0.6), (1, 0.1), (10**6, 0.6)):
        assert expected("drums", clips)["named"] == pytest.approx(named)
    between = expected("drums", 10**1.5)
    assert between["named"] == pytest.approx(0.3)
    assert between["copies"] == pytest.approx(0.35)


@pytest.mark.usefixtures("curves")
@pytest.mark.parametrize(
    ("clips", "counts", "says"),
    [
        (40, {"kind": {"kick": 36, "tom": 4}}, "more recordings of kind tom (4)"),
        (40, {"kind": {"kick": 20, "tom": 20}}, "four times as many name 18 % more sounds"),
        (40, {"take": {str(i): 1 for i in range(40)}}, "four times as many"),
        (900, {}, "longer training"),
    ],
)
def test_the_advice_names_what_helps_most(
    clips: int, counts: dict[str, dict[str, int]], says: str
) -> None:
    lines = expectation_lines(
        clips, {name: list(of) for name, of in counts.items()}, counts, "hits", 44_100
    )
    assert lines[0] == "as with drum hits, preset tiny, 1 minute of one core:"
    assert says in lines[-1]
    assert ("have their label" in lines[1]) == bool(counts)
    assert ("(not measured beyond 1,000)" in lines[2]) == (4 * clips > 1000)
    beyond = expectation_lines(1200, {}, {}, "hits", 44_100)
    assert len(beyond) == len(lines) - 1


@pytest.mark.usefixtures("curves")
def test_no_figure_is_given_of_fewer_clips_than_were_measured() -> None:
    labels = {"kind": ["kick"]}
    one = expectation_lines(1, labels, {"kind": {"kick": 1}}, "hits", 44_100)
    assert one[1] == "1 clip: not measured below 10"
    assert one[2:] == ["what helps most: more recordings: several hundred make fewer near copies"]
    five = expectation_lines(5, labels, {"kind": {"kick": 5}}, "hits", 44_100)
    assert five[1] == "5 clips: not measured below 10"
    assert five[2].startswith("with four times as many: error ")
    assert len(five) == 4


@pytest.mark.usefixtures("curves")
def test_without_labels_no_advice_speaks_of_names() -> None:
    assert "name" not in expectation_lines(40, {}, {}, "hits", 44_100)[-1]


def test_where_nothing_is_a_copy_none_is_promised_to_become_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{**row(clips, 0.5), "copies": 0.001} for clips in (10, 1000)]
    monkeypatch.setattr(enough, "measured", lambda: {"minutes": 1.0, "rows": rows})
    lines = expectation_lines(40, {}, {}, "hits", 44_100)
    assert lines[-1] == "what helps most: more recordings: several hundred make better models"


def test_four_times_as_many_clips_are_never_said_to_be_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [row(100, 0.5), {**row(1000, 0.6), "error_db": 0.5, "copies": 0.4}]
    monkeypatch.setattr(enough, "measured", lambda: {"minutes": 1.0, "rows": rows})
    later = expectation_lines(100, {"kind": ["kick"]}, {}, "hits", 44_100)[2]
    assert later.startswith("with four times as many: error 0.1 dB, ")
    assert later.endswith("have their label, 25 % are near copies")
    flat = [{**row(clips, 0.5), "error_db": 0.1} for clips in (100, 1000)]
    monkeypatch.setattr(enough, "measured", lambda: {"minutes": 1.0, "rows": flat})
    later = expectation_lines(900, {}, {}, "hits", 44_100)[2]
    assert later == "with four times as many (not measured beyond 1,000): about the same"


def test_sounds_are_compared_with_the_set_of_their_character() -> None:
    assert similar_set("hits", 44_100) == "drums"
    assert similar_set("tones", 44_100) == "notes"
    assert similar_set("mixed", 22_050) == similar_set(None, 48_000) == "foley"
    assert similar_set("hits", 8_000) == "fsdd"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="benchmarks/ comes with the repository")
def test_the_curves_are_those_of_the_newest_results() -> None:
    newest = max(RESULTS.glob("*-enough.json"))
    results = json.loads(newest.read_text())
    assert enough.measured() == {key: results[key] for key in ("minutes", "rows")}
    for name in enough.SETS:
        assert sum(one["set"] == name for one in results["rows"]) >= 2
