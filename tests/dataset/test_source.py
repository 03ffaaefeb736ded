"""Recordings that share nothing but the root with their dataset: found again on this machine, named nowhere in it."""

import json
import shutil
from pathlib import Path

import pytest
from reseal import reseal

from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset import source
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation.originals import original_piece
from audiovq.preprocessing.preprocess import preprocess


@pytest.fixture
def far(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Recordings, and a dataset of them that has only the root in common with them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(source, "relative", lambda path, folder: None)
    copy = shutil.copytree(recordings, tmp_path / "away" / "recordings")
    preprocess(copy, tmp_path / "dataset", PreprocessConfig(), say=lambda line: None)
    return copy, tmp_path / "dataset"


def test_recordings_far_from_their_dataset_are_found_and_the_dataset_does_not_name_them(
    far: tuple[Path, Path], tmp_path: Path
) -> None:
    recordings, folder = far
    dataset = Dataset(folder)
    assert dataset.header["source"] is None
    assert dataset.recordings == recordings
    assert original_piece(dataset, dataset.train.clips[0]) is not None
    for path in folder.rglob("*"):
        assert not path.is_file() or b"away" not in path.read_bytes(), path
    moved = folder.rename(tmp_path / "moved")
    assert Dataset(moved).recordings == recordings


def test_without_the_note_or_the_folder_recordings_are_unknown_as_before(
    far: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings, folder = far
    (note,) = (path for path in (tmp_path / "state").rglob("*") if path.is_file())
    text = note.read_text("utf-8")
    for damaged in ("", "relative/path", "\0", "/" + "a" * 100_000):
        note.write_text(damaged, encoding="utf-8")
        assert Dataset(folder).recordings is None
    note.write_bytes(b"\xff")
    assert Dataset(folder).recordings is None
    note.write_text(text, encoding="utf-8")
    recordings.rename(tmp_path / "gone")
    assert Dataset(folder).recordings is None
    (tmp_path / "gone").rename(recordings)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert Dataset(folder).recordings is None  # as datasets made before, or on another machine
    preprocess(recordings, folder, PreprocessConfig(), say=lambda line: None)
    assert Dataset(folder).recordings == recordings  # the same command again notes it


def test_a_dataset_is_made_where_no_note_can_be_written(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(source, "relative", lambda path, folder: None)
    preprocess(recordings, tmp_path / "dataset", PreprocessConfig(), say=lambda line: None)
    assert Dataset(tmp_path / "dataset").recordings is None


@pytest.mark.parametrize("fingerprint", ["", "../../etc/passwd", "g" * 64, "/" + "a" * 63])
def test_a_fingerprint_that_is_none_names_no_note(far: tuple[Path, Path], fingerprint: str) -> None:
    _, folder = far
    header = json.loads((folder / "dataset.json").read_text("utf-8"))
    (folder / "dataset.json").write_text(json.dumps(header | {"fingerprint": fingerprint}))
    reseal(folder)
    assert Dataset(folder).recordings is None


def test_no_note_is_written_where_a_relative_path_says_it(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    copy = shutil.copytree(recordings, tmp_path / "recordings")
    preprocess(copy, tmp_path / "dataset", PreprocessConfig(), say=lambda line: None)
    assert not (tmp_path / "state").exists()
    assert Dataset(tmp_path / "dataset").header["source"] == "../recordings"
