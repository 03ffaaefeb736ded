"""Sounds asked for by numbers: what lies between the values of training clips, and a little beyond."""

import pytest
import torch
from tiny_models import AUTOENCODER, PRIOR, SPECTROGRAM, shake

from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.output import Bars
from audiovq.dataset.numbers import Numbers
from audiovq.generation.generate import Batches, generate
from audiovq.generation.labels import (
    infer_labels,
    label_indices,
    label_names,
    learnt_values,
    sample_each,
    sample_labels,
)
from audiovq.models.model import Model, new_model

NOTE, TEMPO = Numbers.of("note", 40, 64), Numbers.of("bpm", 80, 160)
LABELS = {"bpm": TEMPO, "kind": ["low", "high"], "note": NOTE}


def row(kind: int, note: float, tempo: float = 120) -> tuple[int, ...]:
    return TEMPO.index(str(tempo)), kind, NOTE.index(str(note))


@pytest.fixture(scope="module")
def model() -> Model:
    """Low sounds have the notes 40 to 48 but every third, high ones those above."""
    torch.manual_seed(0)
    counts = [(row(int(n > 48), n), 2) for n in range(40, 65) if n % 3 != 1]
    found = new_model(SPECTROGRAM, AUTOENCODER, LABELS, counts, 30)
    found.prior = found.new_prior(PRIOR)
    for part in (found.autoencoder, found.prior):
        shake(part)
        part.eval()
    return found


def test_a_note_between_those_learnt_has_the_other_labels_of_its_neighbours(model: Model) -> None:
    for note, kind in (("46", "low"), ("E4", "high"), ("44.5", "low"), ("39", "low")):
        rows = sample_labels(model, 8, {"note": note}, 0)
        names = [label_names(model, one) for one in rows.tolist()]
        assert {name["kind"] for name in names} == {kind}
        assert {name["note"] for name in names} == {NOTE[NOTE.index(note)]}
        assert {name["bpm"] for name in names} == {"120"}


def test_labels_far_from_each_other_leave_the_rest_open(model: Model) -> None:
    (names,) = [
        label_names(model, one)
        for one in sample_labels(model, 1, {"note": "60", "kind": "low"}, 0).tolist()
    ]
    assert names == {"note": "C4", "kind": "low"}


@pytest.mark.parametrize("name", ["pitch", "note", "midi"])
def test_a_note_is_found_by_each_of_its_names(model: Model, name: str) -> None:
    assert label_indices(model, {name: "A3"}) == {2: NOTE.index("57")}
    assert label_indices(model, {"tempo": "100"}) == {0: TEMPO.index("100")}


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"note": "A9"}, r"label note: A9 is far outside .* give .* \(learnt: E2 to E4\)"),
        ({"note": "loud"}, r"label note: 'loud' is not a note such as A3"),
        ({"bpm": "300"}, r"label bpm: 300 is far outside .* give 72 to 168 \(learnt: 80 to 160\)"),
        ({"bpm": "A3"}, r"label bpm: 'A3' is not a number; learnt: 80 to 160"),
        ({"pich": "A3"}, r"unknown label 'pich'"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_the_range(
    model: Model, labels: dict[str, str], says: str
) -> None:
    with pytest.raises(AudiovqError, match=says):
        generate(model, 1, labels)


def test_each_is_each_note_of_the_range_of_those_labels(model: Model) -> None:
    rows = sample_each(model, 1, "note", {"kind": "low"}, 0)
    notes = [label_names(model, one)["note"] for one in rows.tolist()]
    assert notes == learnt_values(model, "note", {"kind": "low"})
    assert notes[:3] == ["F2", "F#2", "G2"]
    assert len(sample_each(model, 2, "bpm", {}, 0)) == 2  # one tempo only was learnt
    with pytest.raises(AudiovqError, match="several labels are open"):
        sample_each(model, 1, None, {}, 0)


def test_labels_of_a_recording_are_inferred_among_the_values_listed(model: Model) -> None:
    codes = torch.randint(16, (1, 2, 5), generator=torch.Generator().manual_seed(0))
    encoded = Encoded(codes, level=3, num_samples=5 * 32)
    names = label_names(model, infer_labels(model, encoded).tolist())
    assert names["note"] in learnt_values(model, "note")
    kept = label_names(model, infer_labels(model, encoded, {"pitch": "44.5"}).tolist())
    assert kept["note"] == "44.5"


def test_bars_set_a_tempo_that_is_a_number(model: Model) -> None:
    batches = Batches(model, 2, bars=Bars(tempo=97, bars=0.25))
    assert [labels["bpm"] for labels in batches.labels(0)] == ["97", "97"]


def test_sounds_are_named_by_notes(model: Model) -> None:
    sounds = generate(model, 2, {"note": "57"})
    assert [sound.labels["note"] for sound in sounds] == ["A3", "A3"]
