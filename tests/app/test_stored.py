"""Desks on disk: what is loaded is what was saved, and damage is no error."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_model

from audiovq.app import desk as moves
from audiovq.app import stored
from audiovq.app.desk import Desk, Item
from audiovq.config.sampling import SamplingConfig
from audiovq.models.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(scope="module")
def desk(model: Model) -> Desk:
    """Two sounds, the first a take of the second, which is renamed and kept."""
    plain = SamplingConfig(temperature=1)
    desk = moves.make(model, Desk(), {"digit": "1"}, plain, 0)
    desk = moves.keep(moves.rename(desk, desk.key, "ä kick"), desk.key, True)
    return moves.redraw(model, desk, [(0, 0), (1, 0)], plain, 1)


def is_same(one: Item | None, other: Item | None) -> bool:
    if one is None or other is None:
        return one is other
    a, b = one.sound, other.sound
    words = [
        (i.key, i.name, i.note, i.is_kept, i.sound.labels, i.sound.encoded.level)
        for i in (one, other)
    ]
    return (
        words[0] == words[1]
        and np.array_equal(a.waveform, b.waveform)
        and a.encoded.num_samples == b.encoded.num_samples
        and bool((a.encoded.codes == b.encoded.codes).all())
        and is_same(one.original, other.original)
    )


def test_a_loaded_desk_is_the_saved_one_without_its_past(
    model: Model, desk: Desk, tmp_path: Path
) -> None:
    stored.save(tmp_path, "browser", desk)
    found = stored.load(tmp_path, "browser")
    assert found is not None
    assert len(found.shelf) == 2
    assert all(is_same(a, b) for a, b in zip(found.shelf, desk.shelf, strict=True))
    assert found.key == desk.key
    assert found.past == found.future == ()
    after = moves.redraw(model, found, [(0, 1)], SamplingConfig(temperature=1), 2)
    assert after.selected.name == "ä kick, take 3"
    assert stored.load(tmp_path, "another") is None


def test_a_recording_keeps_its_name_and_star_behind_its_reconstruction(
    model: Model, recordings: Path, tmp_path: Path
) -> None:
    desk = moves.record(model, Desk(), recordings / "jan" / "0_jan_0.wav", "0_jan_0.wav")
    recording = desk.selected
    desk = moves.keep(moves.rename(desk, recording.key, "my voice"), recording.key, True)
    for shelf in (desk.shelf, desk.shelf[::-1]):
        stored.save(tmp_path, "browser", replace(desk, shelf=shelf))
        found = stored.load(tmp_path, "browser")
        assert found is not None
        loaded = found.find(recording.key)
        assert (loaded.name, loaded.is_kept) == ("my voice", True)


def test_a_sound_on_the_shelf_is_saved_as_it_is_there_not_as_a_take_remembers_it(
    desk: Desk, tmp_path: Path
) -> None:
    take, plain = desk.shelf
    remembered = replace(take, original=replace(plain, name="former name", is_kept=False))
    stored.save(tmp_path, "browser", replace(desk, shelf=(remembered, plain)))
    found = stored.load(tmp_path, "browser")
    assert found is not None
    assert [(item.name, item.is_kept) for item in found.shelf] == [
        (take.name, False),
        ("ä kick", True),
    ]


def test_each_sound_is_written_once_and_deleted_with_its_last_use(
    desk: Desk, tmp_path: Path
) -> None:
    stored.save(tmp_path, "browser", desk)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(files) == 2
    stored.save(tmp_path, "browser", moves.discard(desk, desk.shelf[1].key))
    assert {path: path.stat().st_mtime_ns for path in files} == files  # the take's original
    stored.save(tmp_path, "browser", moves.discard(desk, desk.shelf[0].key))
    assert [path.stem for path in tmp_path.rglob("*.safetensors")] == [desk.shelf[1].key]


def test_neither_names_nor_files_tell_the_cookie_and_others_may_not_read_them(
    desk: Desk, tmp_path: Path
) -> None:
    stored.save(tmp_path, "secret-cookie", desk)
    (own,) = tmp_path.iterdir()
    assert own.stat().st_mode & 0o077 == 0
    for path in own.iterdir():
        assert "secret" not in str(path)
        assert b"secret" not in path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        "{}",
        '{"sounds": [], "shelf": ["a"], "open": "a"}',
        '{"sounds": {}, "shelf": [], "open": "a"}',
        '{"sounds": {"../a": {}}, "shelf": ["../a"], "open": "../a"}',
        '{"sounds": {"a": 3}, "shelf": ["a"], "open": "a"}',
        '{"sounds": 3, "shelf": 4, "open": "a"}',
    ],
)
def test_a_damaged_list_is_no_desk(desk: Desk, damage: str, tmp_path: Path) -> None:
    stored.save(tmp_path, "browser", desk)
    (path,) = tmp_path.rglob(stored.LIST)
    path.write_text(damage)
    assert stored.load(tmp_path, "browser") is None


def test_a_damaged_or_missing_sound_is_no_desk(desk: Desk, tmp_path: Path) -> None:
    for cut in (True, False):
        stored.save(tmp_path, "browser", desk)
        path = next(tmp_path.rglob("*.safetensors"))
        if cut:
            path.write_bytes(path.read_bytes()[:-1])
        else:
            path.unlink()
        assert stored.load(tmp_path, "browser") is None
        path.unlink(missing_ok=True)


def test_a_list_that_lacks_a_value_is_no_desk(desk: Desk, tmp_path: Path) -> None:
    stored.save(tmp_path, "browser", desk)
    (path,) = tmp_path.rglob(stored.LIST)
    whole = json.loads(path.read_text())
    for key in list(whole["sounds"][desk.key]):
        listed = json.loads(json.dumps(whole))
        del listed["sounds"][desk.key][key]
        path.write_text(json.dumps(listed))
        assert stored.load(tmp_path, "browser") is None, key


def test_desks_on_disk_are_bounded_and_the_oldest_go(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "MAX_DESKS", 2)
    for number in range(4):
        stored.save(tmp_path, f"browser{number}", desk)
        for path in tmp_path.rglob(stored.LIST):  # as if it were longer ago
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))
    found = [n for n in range(4) if stored.load(tmp_path, f"browser{n}")]
    assert found == [2, 3]


def test_work_goes_on_where_nothing_can_be_written(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    stored.save(tmp_path / "file", "browser", desk)
    assert stored.load(tmp_path / "file", "browser") is None


def test_each_model_has_desks_of_its_own(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert stored.folder_of(model) is None  # it is in no folder
    other = replace(model, header={"autoencoder": {"sha256": "ab" * 32}})
    assert stored.folder_of(other) == tmp_path / "audiovq" / "app" / ("ab" * 8)
