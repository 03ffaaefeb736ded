"""Kinds of sound named differently: they are noticed, and joined where that is asked for."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiovq.cli.main import main
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.inspection.inspect import inspect
from audiovq.preprocessing.labels import joined, labels_of, synonyms
from audiovq.preprocessing.preprocess import preprocess


def notes(*values: str, name: str = "kind") -> list[str]:
    return synonyms([{name: value} for value in values])


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    """Two kits, one of which abbreviates."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 2000))
    for number, sound in enumerate(noise):
        kind = ("kick", "snare", "BD", "SD", "tom", "Tom Tom")[number % 6]
        path = tmp_path / "kits" / kind / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound, 8000)
    return tmp_path / "kits"


@pytest.mark.parametrize(
    ("values", "words", "pairs"),
    [
        (("BD", "kick"), "BD and kick look like one kind;", "BD=kick"),
        (("Kick", "kick", "tom"), "Kick and kick look", "Kick=kick"),
        (("claps", "clap"), "clap and claps look", "clap=claps"),
        (("hi-hat", "HH", "open hat"), "HH and hi-hat look", "HH=hi-hat"),
        (
            ("BD", "kick", "bass drum", "SD", "snare"),
            "BD and kick and bass drum, SD and snare look like one kind each;",
            "BD=bass drum,kick=bass drum,SD=snare",
        ),
    ],
)
def test_names_of_one_kind_are_noticed_with_what_to_type(
    values: tuple[str, ...], words: str, pairs: str
) -> None:
    (note,) = notes(*values)
    assert note.startswith(f"label kind: {words}")
    assert note.endswith(f"; preprocess --join {shlex.quote(pairs)} makes them one")


@pytest.mark.parametrize("value", ["Kick, dry", "kick=dry", " kick dry", "-kick dry"])
def test_no_join_is_suggested_that_cannot_be_typed(value: str) -> None:
    (note,) = notes(value, f"{value}s")
    assert note.endswith(" look like one kind")


@pytest.mark.parametrize(
    "values",
    [
        ("kick", "snare", "hat", "openhat", "clap", "hand", "tom", "floor tom", "ride", "rim"),
        ("1", "10", "1s", "2"),
        ("boss", "bo"),
        ("A-1", "A1"),
        ("",),
    ],
)
def test_other_names_are_left_alone(values: tuple[str, ...]) -> None:
    assert notes(*values, name="pitch" if "A1" in values else "kind") == []


def test_numbers_are_never_one_kind() -> None:
    rows = [{"size": "1-5"}, {"size": "15"}]
    assert synonyms(rows, ["size"]) == []
    assert len(synonyms(rows)) == 1


def test_a_join_replaces_values_and_names_those_that_there_are() -> None:
    labels = {"a": {"kind": "BD", "kit": "x"}, "b": {"kind": "kick"}, "c": {}}
    assert joined(labels, {"BD": "kick"}) == {
        "a": {"kind": "kick", "kit": "x"},
        "b": {"kind": "kick"},
        "c": {},
    }
    with pytest.raises(AudiovqError, match=r"--join HH=hat: no label has the value HH; .*BD, kick"):
        joined(labels, {"HH": "hat"})
    with pytest.raises(AudiovqError, match="give a name"):
        joined(labels, {"BD": ""})


def test_inspect_and_preprocess_say_it_and_what_they_say_joins(
    kits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (said,) = (note for note in inspect(kits).notes if "one kind" in note)
    _, _, option = said.partition("preprocess ")
    words = shlex.split(option.removesuffix(" makes them one"))
    assert words == ["--join", "BD=kick,SD=snare,tom=Tom Tom"]
    assert main(["preprocess", str(kits), str(tmp_path / "apart")]) == 0
    assert f"note: {said}" in capsys.readouterr().out
    kinds = ["BD", "SD", "Tom Tom", "kick", "snare", "tom"]
    assert Dataset(tmp_path / "apart").labels == {"folder": kinds}
    assert main(["preprocess", str(kits), str(tmp_path / "one"), *words]) == 0
    assert "one kind" not in capsys.readouterr().out
    dataset = Dataset(tmp_path / "one")
    assert dataset.labels == {"folder": ["Tom Tom", "kick", "snare"]}
    assert {clip.path[:2]: clip.labels["folder"] for clip in dataset.train.clips}["BD"] == "kick"
    join = {"BD": "kick", "SD": "snare", "tom": "Tom Tom"}
    preprocess(kits, tmp_path / "one", PreprocessConfig(), join=join, say=print)
    assert "already complete" in capsys.readouterr().out
    with pytest.raises(AudiovqError, match="holds another dataset"):
        preprocess(kits, tmp_path / "one", PreprocessConfig(), say=print)


@pytest.mark.parametrize("pairs", ["BD", "=kick", "BD=kick,SD"])
def test_a_pair_that_is_none_is_refused(
    kits: Path, tmp_path: Path, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preprocess", str(kits), str(tmp_path / "out"), "--join", pairs]) == 2
    assert "give OLD=NEW" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def of_table(path: Path, text: str) -> tuple[dict[str, dict[str, str]], list[str]]:
    path.write_text(text)
    return labels_of(Path(), ["0.wav", "a/1.wav"], str(path))


def test_blanks_in_a_table_of_labels_do_not_count_nor_does_the_case_of_its_suffix(
    tmp_path: Path,
) -> None:
    found, said = of_table(tmp_path / "x.CSV", "file, kind, \n0.wav, a \n 1.wav ,a,\n0.wav,a\n")
    assert found == {"0.wav": {"kind": "a"}, "a/1.wav": {"kind": "a"}}
    assert said == []


def test_lines_of_a_table_that_contradict_each_other_or_name_no_recording_are_said(
    tmp_path: Path,
) -> None:
    with pytest.raises(AudiovqError, match="two lines with different labels for 0"):
        of_table(tmp_path / "x.csv", "file,kind\n0.wav,a\n1.wav,a\n0.wav,b\n")
    _, said = of_table(tmp_path / "x.csv", "file,kind\n0.wav,a\n1.wav,a\nb/1.wav,a\n2.wav,b\n")
    assert len(said) == 1
    assert "2 lines name no recording that can be read (such as b/1.wav)" in said[0]
