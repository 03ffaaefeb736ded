"""Actions of the app: each changes what it names only, and can be undone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import tiny_model

from audiovq.app import desk as moves
from audiovq.app.desk import Desk
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig
from audiovq.generation import edit
from audiovq.models.model import Model

HOW: tuple[dict[str, str], SamplingConfig, int] = ({}, SamplingConfig(temperature=1), 0)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(scope="module")
def full(model: Model) -> Desk:
    """With three new sounds of digit 1."""
    return moves.make(model, Desk(), 3, {"digit": "1"}, SamplingConfig(temperature=1), 7)


def codes(desk: Desk) -> torch.Tensor:
    return desk.selected.sound.encoded.codes


def test_new_sounds_are_on_the_shelf_and_the_first_is_selected(
    full: Desk,
) -> None:
    assert [item.sound.labels["digit"] for item in full.shelf] == ["1", "1", "1"]
    assert full.hand == full.shelf[0]


def test_a_recording_is_on_the_shelf_beside_its_reconstruction(
    model: Model, recordings: Path, full: Desk
) -> None:
    path = recordings / "jan" / "0_jan_0.wav"
    desk = moves.record(model, full, path)
    original, again = desk.shelf[:2]
    assert desk.hand == original
    assert np.array_equal(original.sound.waveform, soundfile.read(path, dtype="float32")[0])
    assert len(again.sound.waveform) == len(original.sound.waveform)
    assert desk.shelf[2:] == full.shelf


def test_a_recording_that_is_too_long_is_refused_by_name(model: Model, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 11), 8000)
    with pytest.raises(AudiovqError, match=r"long\.wav: lasts 11\.0 s; give .* 10 s at most"):
        moves.record(model, Desk(), tmp_path / "long.wav")
    flac = tmp_path / "streamed.flac"
    soundfile.write(flac, 0.1 * np.sin(np.arange(4000)), 8000)
    data = bytearray(flac.read_bytes())
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])  # its length is not known
    flac.write_bytes(data)
    assert len(moves.record(model, Desk(), flac).shelf[0].sound.waveform) == 4000
    (tmp_path / "text.wav").write_text("words")
    with pytest.raises(AudiovqError, match=r"text\.wav: is broken"):
        moves.record(model, Desk(), tmp_path / "text.wav")


def test_codes_are_written_in_the_given_cells_only(model: Model, full: Desk) -> None:
    before = codes(full).clone()
    desk = moves.write_codes(model, full, [[0, 1], [1, 0]], [5])
    changed = codes(desk) != before
    assert codes(desk)[0, 0, 1] == codes(desk)[0, 1, 0] == 5
    changed[0, 0, 1] = changed[0, 1, 0] = False
    assert not changed.any()
    assert torch.equal(codes(full), before), "a desk never changes"
    different = desk.selected.sound.waveform != full.selected.sound.waveform
    assert different.any()


def test_repaint_resamples_the_given_cells_only(model: Model, full: Desk) -> None:
    cells = [[0, 0], [1, 0], [1, 1]]
    desks = [
        moves.repaint(model, full, cells, {}, SamplingConfig(temperature=1), seed)
        for seed in range(4)
    ]
    for desk in desks:
        changed = codes(desk) != codes(full)
        changed[0, [0, 1, 1], [0, 0, 1]] = False
        assert not changed.any()
    assert any(not torch.equal(codes(desk), codes(desks[0])) for desk in desks[1:])


def test_a_continuation_has_the_length_given(model: Model, full: Desk) -> None:
    desk = moves.extend(model, full, 0.3, *HOW)
    assert len(desk.selected.sound.waveform) == 2400


def test_a_morph_leads_from_the_selected_sound_to_the_given_one(model: Model, full: Desk) -> None:
    desk = moves.morph(model, full, 2, 4)
    for made, end in ((desk.shelf[0], full.shelf[0]), (desk.shelf[3], full.shelf[2])):
        again = edit.encode_nearest(model, end.sound.waveform)
        assert torch.equal(made.sound.encoded.codes, again.codes)
    assert not torch.equal(desk.shelf[0].sound.encoded.codes, desk.shelf[3].sound.encoded.codes)
    assert len(desk.shelf) == 7


def test_a_variation_of_strength_0_equals_the_decoded_codes(model: Model, full: Desk) -> None:
    first, second, *rest = moves.vary(model, full, 2, 0, *HOW).shelf
    assert np.array_equal(first.sound.waveform, second.sound.waveform)
    assert rest == list(full.shelf)


def test_every_action_can_be_undone(model: Model, full: Desk) -> None:
    desk = moves.take(full, 1)
    assert torch.equal(codes(desk), full.shelf[1].sound.encoded.codes)
    desk = moves.write_codes(model, desk, [[0, 0]], [3])
    assert moves.undo(moves.undo(desk)).hand == full.hand
    with pytest.raises(AudiovqError, match="nothing to undo"):
        moves.undo(full)


def test_the_shelf_and_the_undo_history_are_bounded(model: Model, full: Desk) -> None:
    desk = full
    for _ in range(moves.MAX_UNDO + 3):
        desk = moves.take(desk, 0)
    assert len(desk.past) == moves.MAX_UNDO
    for _ in range(moves.SHELF_SIZE // moves.MAX_SOUNDS + 1):
        desk = moves.make(model, desk, moves.MAX_SOUNDS, *HOW)
    assert len(desk.shelf) == moves.SHELF_SIZE


@pytest.mark.parametrize(
    ("move", "says"),
    [
        (lambda m, d: moves.write_codes(m, d, [[2, 0]], [0]), "cell 2, 0"),
        (lambda m, d: moves.write_codes(m, d, [[0, -1]], [0]), "cell 0, -1"),
        (lambda m, d: moves.write_codes(m, d, [], [0]), "no cell is selected"),
        (lambda m, d: moves.write_codes(m, d, [[0, 0]], [16]), "code 16: give 0 to 15"),
        (lambda m, d: moves.write_codes(m, d, [[0, 0]], [1, 2]), "one for each quantizer"),
        (lambda m, d: moves.repaint(m, d, [[9, 9]], *HOW), "cell 9, 9"),
        (lambda m, d: moves.take(d, -1), "the shelf holds 3"),
        (lambda m, d: moves.morph(m, d, 3, 4), "sound 4: the shelf holds 3"),
        (lambda m, d: moves.morph(m, d, 0, 99), "steps 99"),
        (lambda m, d: moves.make(m, d, 1000, *HOW), "number 1000"),
        (lambda m, d: moves.vary(m, d, 0, 0.5, *HOW), "number 0"),
        (lambda m, d: moves.extend(m, d, 11, *HOW), "length 11"),
        (lambda m, d: moves.undo(Desk()), "nothing to undo"),
        (lambda m, d: moves.extend(m, Desk(), 1, *HOW), "no sound is selected"),
    ],
)
def test_arguments_from_the_page_are_checked(
    model: Model, full: Desk, move: Any, says: str
) -> None:
    with pytest.raises(AudiovqError, match=says):
        move(model, full)
