"""Packs: names, numbers, no copies, instruments and a page whose files exist."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import soundfile
from tiny_models import tiny_model, untrained

from audiovq.audio import writing
from audiovq.cli.main import main
from audiovq.config.errors import AudiovqError
from audiovq.config.output import OutputConfig
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation import generate, known
from audiovq.generation.files import generate_files
from audiovq.library.instruments import NUM_KEYS, drum_keys
from audiovq.library.pack import PackConfig, write_pack
from audiovq.models.model import Model

PLAIN = SamplingConfig(temperature=1.0, guidance=0.0, steps=3)
QUICK: dict[str, Any] = {"sampling": PLAIN, "inversion": Inversion("griffin-lim", 1)}


def pack(
    model: Model, out: Path, config: PackConfig, **options: Any
) -> tuple[list[Path], list[str]]:
    said: list[str] = []
    return write_pack(model, out, config, **QUICK, say=said.append, **options), said


def labelled(labels: dict[str, list[str]], counts: list[tuple[tuple[int, ...], int]]) -> Model:
    model = tiny_model(labels=labels, clip_frames=120)
    model.label_counts[:] = counts
    return model


def test_a_pack_has_so_many_sounds_of_each_value_named_by_it(tmp_path: Path) -> None:
    model = labelled({"kind": ["kick", "hi hat", "hi/hat"]}, [((0,), 4), ((1,), 4), ((2,), 4)])
    out = tmp_path / "My kit"
    paths, said = pack(model, out, PackConfig(each=2), output=OutputConfig(bits="24"))
    assert [path.name for path in paths] == [
        f"{word}_{i:02d}.wav" for word in ("kick", "hi-hat", "hi-hat-2") for i in (1, 2)
    ]
    assert said == []
    assert {soundfile.info(path).subtype for path in paths} == {"PCM_24"}
    files = {path.name for path in out.iterdir()} - {path.name for path in paths}
    assert files == {"manifest.json", "My kit.sfz", "drumkit.xml", "index.html", ".written"}
    rows = json.loads((out / "manifest.json").read_text("utf-8"))["sounds"]
    assert [row["labels"]["kind"] for row in rows] == ["kick"] * 2 + ["hi hat"] * 2 + ["hi/hat"] * 2
    page = (out / "index.html").read_text("utf-8")
    assert {unquote(src) for src in re.findall(r'<audio[^>]* src="([^"]+)"', page)} == {
        path.name for path in paths
    }
    assert all(path.name in (out / "My kit.sfz").read_text() for path in paths)
    assert all(path.name in (out / "drumkit.xml").read_text() for path in paths)


def test_more_kinds_than_keys_are_said_and_the_longest_folder_name_gives_an_instrument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = [f"kind {i:03d}" for i in range(NUM_KEYS + 2)]
    assert sorted(drum_keys(kinds).values()) == list(range(NUM_KEYS))
    monkeypatch.setattr("audiovq.library.pack.NUM_KEYS", 1)  # 130 kinds take seconds to sample
    model = labelled({"kind": ["kick", "hat"]}, [((0,), 4), ((1,), 4)])
    out = tmp_path / ("ß" * 127)
    _, said = pack(model, out, PackConfig(each=1))
    assert "note: the kit has 1 of the 2 kinds, one for each key; all are WAVs here" in said
    assert len(list(out.glob("*.sfz"))) == 1


def test_a_pitched_label_gives_an_sfz_of_notes_and_no_drum_kit(tmp_path: Path) -> None:
    model = labelled({"note": ["57", "60"], "velocity": ["50"]}, [((0, 0), 4), ((1, 0), 4)])
    out = tmp_path / "cello"
    pack(model, out, PackConfig(each=1, by="note"), labels={"velocity": "50"})
    text = (out / "cello.sfz").read_text()
    assert "lokey=45 hikey=58 pitch_keycenter=57" in text
    assert "lokey=59 hikey=72 pitch_keycenter=60" in text
    assert not (out / "drumkit.xml").exists()


def test_two_names_of_a_note_share_its_keys(tmp_path: Path) -> None:
    model = labelled({"note": ["C#4", "Db4"]}, [((0,), 4), ((1,), 4)])
    paths, _ = pack(model, tmp_path / "tuned", PackConfig(each=1))
    text = (tmp_path / "tuned" / "tuned.sfz").read_text()
    assert [f"sample={path.name}" in text for path in paths] == [True, True]


def test_a_pack_may_be_made_by_another_name_of_a_label(tmp_path: Path) -> None:
    model = labelled({"note": ["57"], "kind": ["pad"]}, [((0, 0), 4)])
    paths, _ = pack(model, tmp_path / "tuned", PackConfig(each=1, by="pitch"))
    assert [path.name for path in paths] == ["57_01.wav"]
    made_with = json.loads((tmp_path / "tuned" / "manifest.json").read_text())["made_with"]
    assert made_with["by"] == "note"


def test_more_sounds_are_numbered_after_those_of_a_pack(tmp_path: Path) -> None:
    model = labelled({"kind": ["kick"]}, [((0,), 4)])
    pack(model, tmp_path / "kit", PackConfig(each=2))
    (path,) = generate_files(model, tmp_path / "kit", 1, more=True, **QUICK, say=lambda _: None)
    assert path.name == "0002_kick.wav"
    found = json.loads((tmp_path / "kit" / "manifest.json").read_text())
    assert [row["file"] for row in found["sounds"]] == ["kick_01.wav", "kick_02.wav", path.name]
    assert [run["start"] for run in found["more"]] == [2]


def test_a_pack_in_the_current_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kit").mkdir()
    monkeypatch.chdir(tmp_path / "kit")
    pack(labelled({"kind": ["kick"]}, [((0,), 4)]), Path(), PackConfig(each=1))
    assert "kit.sfz" in {path.name for path in Path().iterdir()}
    assert "<name>kit</name>" in Path("drumkit.xml").read_text()


def test_near_copies_of_training_clips_and_of_each_other_are_left_out(tmp_path: Path) -> None:
    model = labelled({"kind": ["kick"]}, [((0,), 4)])
    greedy = QUICK | {"sampling": SamplingConfig(temperature=0)}  # all sounds are the same
    said: list[str] = []
    (path,) = write_pack(model, tmp_path / "one", PackConfig(each=3), **greedy, say=said.append)
    assert path.name == "kick_01.wav"
    assert said[0].startswith("note: kick: 1 of 3 sounds; the others, sampled 5 times, are near")
    (sound,) = generate.generate(model, 1, **greedy)
    model.known = known.assemble(
        model, [[sound.encoded.codes]], [("a.wav", 0)], 1, {"threshold_db": 1.0}
    )
    with pytest.raises(AudiovqError, match="every sound is a near copy of a training clip"):
        write_pack(model, tmp_path / "none", PackConfig(each=3), **greedy, say=said.append)


def test_equal_seeds_give_equal_packs(tmp_path: Path) -> None:
    model = labelled({"kind": ["kick", "snare"]}, [((0,), 4), ((1,), 4)])
    for name in ("a/kit", "b/kit"):
        pack(model, tmp_path / name, PackConfig(each=2), seed=3)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("a/kit", "b/kit")
    ]
    assert contents[0] == contents[1]
    with pytest.raises(AudiovqError, match="exists already"):
        pack(model, tmp_path / "a" / "kit", PackConfig(each=1))


def test_a_stopped_pack_becomes_that_of_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = labelled({"kind": ["kick", "snare"]}, [((0,), 4), ((1,), 4)])
    pack(model, tmp_path / "a" / "kit", PackConfig(each=2))
    plain, written = writing.write, 0

    def stopping(*arguments: Any) -> bool:
        nonlocal written
        written += 1
        if written == 4:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(writing, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        pack(model, tmp_path / "b" / "kit", PackConfig(each=2))
    monkeypatch.setattr(writing, "write", plain)
    pack(model, tmp_path / "b" / "kit", PackConfig(each=2))
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "kit").iterdir()}
        for name in "ab"
    ]
    assert contents[0] == contents[1]


def test_a_model_that_has_not_learnt_labels_makes_a_pack_without_them(tmp_path: Path) -> None:
    model = untrained(bottleneck="gaussian")
    paths = write_pack(model, tmp_path / "out", PackConfig(each=2), say=lambda _: None)
    assert [path.name for path in paths] == ["sound_01.wav", "sound_02.wav"]
    for by, labels in (("digit", {}), (None, {"digit": "1"})):
        with pytest.raises(AudiovqError, match="has not learnt labels"):
            write_pack(model, tmp_path / "other", PackConfig(by=by), labels)


def test_a_model_without_labels_makes_a_pack_of_sounds(tmp_path: Path) -> None:
    paths, _ = pack(tiny_model(labels={}), tmp_path / "out", PackConfig(each=2))
    assert [path.name for path in paths] == ["sound_01.wav", "sound_02.wav"]


def test_a_label_that_is_not_clear_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AudiovqError, match="give --by NAME, one of digit, speaker"):
        pack(tiny_model(), tmp_path / "out", PackConfig())
    with pytest.raises(AudiovqError, match="by x: give a label that is open: digit, speaker"):
        pack(tiny_model(), tmp_path / "out", PackConfig(by="x"))
    with pytest.raises(AudiovqError, match="each 0: give 1"):
        PackConfig(each=0)
    assert main(["pack", "digits", str(tmp_path / "out"), "--each", "1"]) == 2
    assert "give --by NAME" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
