"""Actions of the app: each changes what it names only, and can be undone."""

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import tiny_model

from audiovq.app import actions, view
from audiovq.app import desk as moves
from audiovq.app.desk import Desk, Item
from audiovq.app.pack import zipped
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig
from audiovq.generation import edit
from audiovq.generation import morph as morphing
from audiovq.models.model import Model

HOW: tuple[dict[str, str], SamplingConfig, int] = ({}, SamplingConfig(temperature=1), 0)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(scope="module")
def full(model: Model) -> Desk:
    """With three new sounds of digit 1."""
    desk = Desk()
    for seed in range(3):
        desk = moves.make(model, desk, {"digit": "1"}, SamplingConfig(temperature=1), seed)
    return Desk(desk.shelf, desk.key)


def codes(desk: Desk) -> torch.Tensor:
    return desk.selected.sound.encoded.codes


def test_new_sounds_are_on_the_shelf_and_the_latest_is_selected(full: Desk) -> None:
    assert [item.sound.labels["digit"] for item in full.shelf] == ["1", "1", "1"]
    assert full.selected is full.shelf[0]


def test_no_two_takes_have_one_name_though_some_are_discarded(model: Model, full: Desk) -> None:
    plain = SamplingConfig(temperature=1)
    first = full.key

    def redrawn(desk: Desk) -> Desk:
        return moves.redraw(model, moves.take(desk, first), [(0, 0)], plain, 0)

    desk = redrawn(redrawn(full))
    desk = redrawn(moves.discard(desk, desk.shelf[1].key))
    takes = [item.name for item in desk.shelf if item.original is not None]
    assert takes == [f"{full.selected.name}, take {number}" for number in (4, 3)]


def test_no_two_new_sounds_without_labels_have_one_name_though_some_are_discarded() -> None:
    nameless, desk = tiny_model(labels={}), Desk()
    for _ in range(2):
        desk = moves.make(nameless, desk, *HOW)
    desk = moves.make(nameless, moves.discard(desk, desk.shelf[-1].key), *HOW)
    assert [item.name for item in desk.shelf] == ["sound 3", "sound 2"]


def test_takes_know_the_new_name_of_their_original(model: Model, full: Desk) -> None:
    desk = moves.redraw(model, full, [(0, 0)], SamplingConfig(temperature=1), 0)
    desk = moves.rename(desk, full.key, "kick")
    assert desk.selected.original is desk.find(full.key)
    again = moves.redraw(model, desk, [(0, 1)], SamplingConfig(temperature=1), 0)
    assert again.selected.name == "kick, take 2"


def test_a_new_sound_has_the_length_given(model: Model) -> None:
    desk = moves.make(model, Desk(), *HOW, 0.25)
    assert len(desk.selected.sound.waveform) == 2000


def test_a_recording_is_on_the_shelf_beside_its_reconstruction(
    model: Model, recordings: Path, full: Desk
) -> None:
    path = recordings / "jan" / "0_jan_0.wav"
    desk = moves.record(model, full, path, "zero.wav")
    original, again = desk.shelf[:2]
    assert desk.selected is original
    assert again.original is original
    assert (original.name, again.name) == ("zero", "zero, decoded")
    assert original.note == "8,000 Hz mono, as the model's"
    assert np.array_equal(original.sound.waveform, soundfile.read(path, dtype="float32")[0])
    assert len(again.sound.waveform) == len(original.sound.waveform)
    assert desk.shelf[2:] == full.shelf


def test_new_sounds_stay_below_the_peak_of_generate_and_recordings_as_they_are(
    model: Model, full: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = replace(full.selected.sound, waveform=np.linspace(-1.5, 1.5, 900, dtype=np.float32))
    for module, name, count in (
        (moves, "generate", 1),
        (edit, "vary", 1),
        (morphing, "morph", 2),
        (moves, "decode_sounds", 1),
    ):
        made = [loud] * count
        monkeypatch.setattr(module, name, lambda *_, made=made, **__: made)
    soundfile.write(tmp_path / "full.wav", np.array([0.5, -1, 0.25] * 300), 8000, "PCM_16")
    recorded = moves.record(model, full, tmp_path / "full.wav", "full.wav")
    assert soundfile.read(io.BytesIO(view.wav(model, recorded.selected)))[0].min() == -1
    items = [
        moves.make(model, full, *HOW).selected,
        moves.vary(model, full, 0.5, *HOW).selected,
        moves.morph(model, full, full.shelf[1].key, 2).selected,
        recorded.shelf[1],
    ]
    for item in items:
        peak = np.abs(soundfile.read(io.BytesIO(view.wav(model, item)))[0]).max()
        assert peak == pytest.approx(10 ** (-1 / 20), abs=1e-3)


def test_a_pack_has_no_silence_and_a_decoded_recording_on_a_key_of_its_own(
    model: Model, recordings: Path, full: Desk
) -> None:
    path = recordings / "jan" / "0_jan_0.wav"
    desk = moves.record(model, full, path, "zero.wav")
    recording = replace(desk.shelf[0].sound, labels={})
    quiet = replace(desk.shelf[2].sound, waveform=np.zeros(900, np.float32))
    shelf = (replace(desk.shelf[0], sound=recording), desk.shelf[1], Item("quiet", quiet))
    with zipfile.ZipFile(io.BytesIO(zipped(model, "my-sounds", replace(desk, shelf=shelf)))) as z:
        sfz = z.read("my-sounds/my-sounds.sfz").decode()
        assert {name.rpartition(".")[2] for name in z.namelist()} >= {"wav", "sfz", "xml"}
    keys = re.findall(r"<region> key=(\d+) loop_mode=one_shot sample=(.*)", sfz)
    assert {file for _, file in keys} == {"zero.wav", "zero-decoded.wav"}
    assert len({key for key, _ in keys}) == 2
    with pytest.raises(AudiovqError, match="silence"):
        zipped(model, "model", Desk(shelf[2:], shelf[2].key))


def test_a_recording_that_is_too_long_is_refused_by_name(model: Model, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 11), 8000)
    with pytest.raises(AudiovqError, match=r"long\.wav: lasts 11\.0 s; give .* 10 s at most"):
        moves.record(model, Desk(), tmp_path / "long.wav", "long.wav")
    flac = tmp_path / "streamed.flac"
    soundfile.write(flac, 0.1 * np.sin(np.arange(4000)), 8000)
    data = bytearray(flac.read_bytes())
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])  # its length is not known
    flac.write_bytes(data)
    assert len(moves.record(model, Desk(), flac, "a.flac").shelf[0].sound.waveform) == 4000
    (tmp_path / "text.wav").write_text("words")
    with pytest.raises(AudiovqError, match=r"text\.wav: is broken"):
        moves.record(model, Desk(), tmp_path / "text.wav", "text.wav")


def test_codes_are_written_in_the_given_cells_only(model: Model, full: Desk) -> None:
    before = codes(full).clone()
    desk = moves.write_codes(model, full, [[0, 1], [1, 0]], [5])
    assert desk.selected.original is full.selected
    changed = codes(desk) != before
    assert codes(desk)[0, 0, 1] == codes(desk)[0, 1, 0] == 5
    changed[0, 0, 1] = changed[0, 1, 0] = False
    assert not changed.any()
    assert torch.equal(codes(full), before), "a desk never changes"
    different = desk.selected.sound.waveform != full.selected.sound.waveform
    assert different.any()


def test_a_redraw_is_a_take_of_its_own_with_other_codes_in_the_given_cells_only(
    model: Model, full: Desk
) -> None:
    cells = [[0, 0], [1, 0], [1, 1]]
    desks = [
        moves.redraw(model, full, cells, SamplingConfig(temperature=1), seed) for seed in range(4)
    ]
    for desk in desks:
        assert desk.shelf[1:] == full.shelf
        assert desk.selected.original is full.selected
        assert desk.selected.name == f"{full.selected.name}, take 2"
        changed = codes(desk) != codes(full)
        changed[0, [0, 1, 1], [0, 0, 1]] = False
        assert not changed.any()
    assert any(not torch.equal(codes(desk), codes(desks[0])) for desk in desks[1:])
    again = moves.redraw(model, desks[0], cells, *HOW[1:])
    assert again.selected.original is full.selected, "not the take before"
    assert again.selected.name == f"{full.selected.name}, take 3"


def test_a_continuation_has_the_length_given(model: Model, full: Desk) -> None:
    desk = moves.extend(model, full, 0.3, *HOW)
    assert len(desk.selected.sound.waveform) == 2400


def test_a_morph_leads_from_the_selected_sound_to_the_given_one(model: Model, full: Desk) -> None:
    desk = moves.morph(model, full, full.shelf[2].key, 4)
    for made, end in ((desk.shelf[0], full.shelf[0]), (desk.shelf[3], full.shelf[2])):
        again = edit.encode_nearest(model, end.sound.waveform)
        assert torch.equal(made.sound.encoded.codes, again.codes)
    assert not torch.equal(desk.shelf[0].sound.encoded.codes, desk.shelf[3].sound.encoded.codes)
    assert len(desk.shelf) == 7


def test_variations_of_strength_0_equal_the_decoded_codes(model: Model, full: Desk) -> None:
    desk = moves.vary(model, full, 0, *HOW)
    again = moves.vary(model, moves.take(desk, full.key), 0, *HOW)
    first, second, *rest = again.shelf
    assert np.array_equal(first.sound.waveform, second.sound.waveform)
    assert rest == list(full.shelf)


def test_every_move_is_undone_and_redone(model: Model, full: Desk) -> None:
    key = full.shelf[1].key
    states = [full]
    for move in (
        lambda d: moves.write_codes(model, d, [[0, 0]], [3]),
        lambda d: moves.rename(d, key, "  my   kick "),
        lambda d: moves.keep(d, key, True),
        lambda d: moves.discard(d, d.key),
        lambda d: moves.make(model, d, *HOW),
    ):
        states.append(move(states[-1]))
    assert states[2].find(key).name == "my kick"
    assert states[3].find(key).is_kept
    desk = states[-1]
    for state in reversed(states[:-1]):
        desk = moves.undo(desk)
        assert (desk.shelf, desk.key) == (state.shelf, state.key)
    with pytest.raises(AudiovqError, match="nothing to undo"):
        moves.undo(desk)
    for state in states[1:]:
        desk = moves.redo(desk)
        assert (desk.shelf, desk.key) == (state.shelf, state.key)
    with pytest.raises(AudiovqError, match="nothing to redo"):
        moves.redo(desk)


def test_a_new_move_ends_what_can_be_redone(full: Desk) -> None:
    desk = moves.undo(moves.keep(full, full.key, True))
    assert desk.future
    assert not moves.rename(desk, full.key, "other").future


def test_the_neighbour_of_a_discarded_sound_is_selected(full: Desk) -> None:
    first, second, third = full.shelf
    assert moves.discard(full, first.key).selected is second
    assert moves.discard(moves.take(full, third.key), third.key).selected is second
    assert moves.discard(full, second.key).selected is first
    desk = full
    for item in full.shelf:
        desk = moves.discard(desk, item.key)
    assert desk.shelf == ()


def test_shelf_and_history_are_bounded_and_kept_sounds_stay(model: Model, full: Desk) -> None:
    oldest = full.shelf[-1].key
    desk = moves.keep(full, oldest, True)
    for _ in range(moves.MAX_UNDO + 3):
        desk = moves.rename(desk, oldest, "oldest")
    assert len(desk.past) == moves.MAX_UNDO
    for _ in range(6):
        desk = moves.morph(model, desk, oldest, moves.MAX_SOUNDS)
    assert len(desk.shelf) == moves.SHELF_SIZE
    assert desk.find(oldest).is_kept
    for item in desk.shelf:
        desk = moves.keep(desk, item.key, True)
    with pytest.raises(AudiovqError, match="full of kept sounds"):
        moves.write_codes(model, desk, [[0, 0]], [3])


def test_the_first_desk_has_sounds_that_cannot_be_undone(model: Model) -> None:
    desk = actions.first_desk(model)
    assert len(desk.shelf) == actions.FIRST_SOUNDS
    assert not desk.past


def test_a_model_without_prior_begins_with_a_sweep(model: Model) -> None:
    desk = actions.first_desk(replace(model, prior=None, masked=None))
    assert desk.selected.name == "sweep"
    assert len(desk.selected.sound.waveform) == 8000


def test_a_move_is_made_on_the_sound_that_the_page_showed(model: Model, full: Desk) -> None:
    other = full.shelf[-1]
    assert other.key != full.key
    asked = {"move": "write", "cells": [[0, 0]], "codes": [0]}
    for key in (full.key, other.key):
        after = actions.act(model, full, asked | {"from": key})
        assert (after.selected.original or after.selected).key == key
    assert actions.act(model, full, asked).selected.original.key == full.key
    with pytest.raises(AudiovqError, match="not on the shelf any more"):
        actions.act(model, full, asked | {"from": "x"})


@pytest.mark.parametrize(
    ("move", "says"),
    [
        (lambda m, d: moves.write_codes(m, d, [[2, 0]], [0]), "cell 2, 0"),
        (lambda m, d: moves.write_codes(m, d, [[0, -1]], [0]), "cell 0, -1"),
        (lambda m, d: moves.write_codes(m, d, [], [0]), "no cell is selected"),
        (lambda m, d: moves.write_codes(m, d, [[0, 0]], [16]), "code 16: give 0 to 15"),
        (lambda m, d: moves.write_codes(m, d, [[0, 0]], [1, 2]), "one for each quantizer"),
        (lambda m, d: moves.redraw(m, d, [[9, 9]], *HOW[1:]), "cell 9, 9"),
        (lambda m, d: moves.take(d, "x"), "not on the shelf any more"),
        (lambda m, d: moves.rename(d, d.key, " "), "the name is empty"),
        (lambda m, d: moves.morph(m, d, "x", 4), "not on the shelf any more"),
        (lambda m, d: moves.morph(m, d, d.key, 4), "cannot morph to itself"),
        (lambda m, d: moves.morph(m, d, d.shelf[1].key, 99), "steps 99"),
        (lambda m, d: moves.make(m, d, *HOW, 11), "length 11"),
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
