"""What the parser refuses is said in one line, with exit code 2."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiovq.cli.main import main
from audiovq.cli.refusals import one_line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "digits", "x", "--bits", "8"], "--bits"),
        (["generate", "digits", "x", "--seed", "foo"], "--seed 'foo': give INT or {random}"),
        (["generate", "digits", "x", "--foo", "3"], "unknown: --foo, 3; see audiovq generate"),
        (["generate", "digits", "x", "--temprature", "3"], "did you mean --temperature"),
        (["generate", "digits", "x", "--count", "2"], "unknown: --count, 2; see audiovq generate"),
        (["encode", "a", "b", "c", "--codder", "x"], "did you mean --coder?; see audiovq encode"),
        (["generate", "digits"], "Missing from audiovq generate: OUT"),
        (["generate", "digits", "x", "--temperature", "hot"], "--temperature"),
        (["generat", "digits"], "unknown: generat, digits; see audiovq --help"),
        (["generate", "digits", "x", "-n", "3", "--each", "2"], "-n 3: --each 2 sets the number"),
        (["generate", "digits", "x", "--bpm", "120", "--bars", "0.001"], "a loop of 0.004 beats"),
        (
            ["preprocess", "a", "b", "--images", "--transpose", "0"],
            "--transpose: is for",
        ),
        (
            ["preprocess", "a", "b", "--images", "--no-near-copies"],
            "--no-near-copies: is for",
        ),
        (
            ["preprocess", "a", "b", "--images", "--describe", "pitch"],
            "--describe: is for",
        ),
        (["preprocess", "a", "b", "--join", "Kick=A,Kick=B"], "Kick is to be both A and B"),
        *(
            (["preprocess", "a", "b", flag, ","], f"{flag} ,: names nothing")
            for flag in ("--join", "--describe", "--numbers")
        ),
        *(
            (["preprocess", "a", "b", "--images", *words.split()], f"{words.split()[0]}: is for")
            for words in ("--sample-rate 8000", "--channels mono", "--no-trim", "--n-mels 64")
        ),
    ],
)
def test_refusals_are_one_line_and_exit_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("audiovq: ")
    assert said.count("\n") == 1
    assert says in said


def test_a_box_without_rules_is_kept_whole() -> None:
    assert one_line("╭─ head ─╮\n│ something │\n│ else │\n", ["train"]) == (
        "something else; see audiovq train --help"
    )


def test_names_with_line_breaks_do_not_break_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.name == "nt":
        pytest.skip("no such names here")
    source = tmp_path / "sounds"
    source.mkdir()
    for number in range(4):
        time = np.arange(800) / 8000
        soundfile.write(source / f"{number}.wav", 0.1 * np.sin((200 + 90 * number) * time), 8000)
    (source / "a\nb.wav").write_bytes(b"broken")
    assert main(["preprocess", str(source), str(tmp_path / "d")]) == 0
    said = capsys.readouterr().out
    assert "  skipped a\\nb.wav: " in said
    assert main(["inspect", str(source)]) == 0
    assert "  a\\nb.wav: " in capsys.readouterr().out
    assert main(["preprocess", str(tmp_path / "no\nfolder"), str(tmp_path / "e")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_archive_of_several_sounds_is_not_decoded_to_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "sounds"
    source.mkdir()
    for number in range(2):
        wave = 0.1 * np.sin((200 + 90 * number) * np.arange(1600) / 8000)
        soundfile.write(source / f"{number}.wav", wave, 8000)
    assert main(["encode", "digits", str(source), str(tmp_path / "e.avq")]) == 0
    capsys.readouterr()
    assert main(["decode", "digits", str(tmp_path / "e.avq"), str(tmp_path / "e.wav")]) == 2
    assert "e.avq holds 2 recordings; give a folder" in capsys.readouterr().err
    assert not (tmp_path / "e.wav").exists()


def test_more_refuses_a_folder_of_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "own.wav", np.zeros(100), 8000)
    assert main(["generate", "digits", str(tmp_path), "-n", "1", "--more"]) == 2
    assert "has no manifest.json; --more adds to sounds of generate" in capsys.readouterr().err
