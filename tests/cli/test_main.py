"""Verbs as a user types them: what is printed, exit codes, one line for what can be mended."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from file_modes import modes_hold
from short_judges import shorten_judges

from audiovq import __version__
from audiovq.cli import main as cli_main
from audiovq.cli.main import PIPE_CLOSED, main
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset

FEW_STEPS = [
    "--preset=tiny",
    "--autoencoder.network.channels=16",
    "--autoencoder.bottleneck.codebook-size=32",
    "--prior.dim=32",
    "--autoencoder-training.steps=20",
    "--prior-training.steps=20",
    "--device=cpu",
]


@pytest.fixture(autouse=True)
def short_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_judges(monkeypatch)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def one_line(captured: pytest.CaptureFixture[str]) -> str:
    """What stands on standard error: one line that begins with the program's name."""
    text = captured.readouterr().err
    assert text.count("\n") == 1, text
    assert text.startswith("audiovq: ")
    return text


def test_four_verbs_lead_from_recordings_to_new_sounds(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, model, out = tmp_path / "dataset", tmp_path / "model", tmp_path / "out"
    assert run("preprocess", recordings, dataset) == 0
    assert "files: 24 found, 24 used, 0 skipped" in capsys.readouterr().out
    assert run("train", dataset, model, *FEW_STEPS, "--verbose") == 0
    printed = capsys.readouterr().out
    assert "codes used" in printed
    assert f"writing {model / 'report.html'}" in printed
    assert "in short: " in printed
    *_, wrote, first, second, third, fourth = printed.splitlines()
    assert wrote == f"wrote {model}; next:"
    lines, verbs = (first, second, third, fourth), ("app", "generate", "pack", "evaluate")
    for line, verb in zip(lines, verbs, strict=True):
        assert line.startswith(f"audiovq {verb} {model}")
    assert run("generate", model, out, "-n", 2, "--label", "folder=jan") == 0
    assert sorted(p.name for p in out.iterdir()) == [
        ".written",
        "0000_jan.wav",
        "0001_jan.wav",
        "manifest.json",
    ]
    assert run("reconstruct", model, out, tmp_path / "back", "--json") == 0
    assert '"files": 2' in capsys.readouterr().out
    assert run("encode", model, out, tmp_path / "out.avq", "--coder", "prior") == 0
    assert "bit/s as stored" in capsys.readouterr().out
    assert run("decode", model, tmp_path / "out.avq", tmp_path / "decoded") == 0
    assert sorted(p.name for p in (tmp_path / "decoded").glob("[!.]*")) == [
        "0000_jan.wav",
        "0001_jan.wav",
    ]
    capsys.readouterr()
    assert run("evaluate", model, dataset, "-n", 2, "--json") == 0
    assert '"codebook"' in capsys.readouterr().out
    assert run("report", model) == 0
    assert (model / "report.html").is_file()

    assert run("generate", model, out, "-n", 2, "--best-of", 2, "--overwrite") == 0
    capsys.readouterr()
    assert run("generate", model, out) == 2
    assert "exists already" in one_line(capsys)
    assert run("decode", model, out / "0000_jan.wav", tmp_path / "not") == 2
    assert "not an archive" in one_line(capsys)
    assert run("generate", model, tmp_path / "x", "--label", "folder=jun") == 2
    assert "jan" in one_line(capsys)
    assert run("generate", model, tmp_path / "x", "--label", "mood=sad") == 2
    assert "the model has folder" in one_line(capsys)
    assert run("generate", model, tmp_path / "x", "--label", "jan") == 2
    assert "NAME=VALUE" in one_line(capsys)
    assert run("generate", model, tmp_path / "x", "-n", 0) == 2
    assert "give 1 to 1,000,000" in one_line(capsys)
    dataset.rename(tmp_path / "moved")
    assert run("report", model) == 2
    assert "name the dataset" in one_line(capsys)
    assert run("report", model, tmp_path / "moved", "--out", tmp_path / "page.html") == 0
    capsys.readouterr()
    (tmp_path / "moved").rename(dataset)
    assert run("train", dataset, model) == 2
    assert "other settings" in one_line(capsys)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("verb", ["evaluate", "preprocess"])
def test_a_line_of_a_long_task_is_in_a_redirected_output_before_the_task_ends(
    verb: str,
    dataset: Dataset,
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def task(*_: object, say: Callable[[str], None], **__: object) -> None:
        say("begun")
        seen.append((tmp_path / "output").read_text())
        raise AudiovqError("ended")

    package = "evaluation" if verb == "evaluate" else "preprocessing"
    monkeypatch.setattr(f"audiovq.{package}.{verb}.{verb}", task)
    operands = ("digits", dataset.folder) if verb == "evaluate" else (recordings, tmp_path / "new")
    with open(tmp_path / "output", "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert run(verb, *operands) == 2
    assert seen == ["begun\n"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["preprocess", "nowhere", "d"], "nowhere: no such folder"),
        (["preprocess", "empty", "d"], "empty: holds no recordings"),
        (["preprocess", "texts", "d"], "texts: holds no recordings"),
        (["preprocess", "broken", "d"], "broken: none of 1 recordings can be used"),
        (["preprocess", "broken", "d", "--sample-rate", "5"], "sample_rate 5"),
        (
            ["train", "broken", "m"],
            "broken: not a dataset (it has no dataset.json); `audiovq preprocess FOLDER DATASET` makes",
        ),
        (
            ["train", "nowhere", "m"],
            "nowhere: no such dataset; `audiovq preprocess FOLDER DATASET`",
        ),
        (
            ["generate", "broken", "o"],
            "broken: not a model (it has no model.json); `audiovq preprocess FOLDER DATASET` and",
        ),
        (["generate", "broken/a.wav", "o"], "broken/a.wav: not a model"),
        (
            ["generate", "data", "o"],
            "it is a dataset, of which `audiovq train DATASET MODEL` makes",
        ),
        (["train", "model", "m"], "model: not a dataset (it has no dataset.json); it is a model"),
        (["evaluate", "digits", "broken"], "`audiovq preprocess FOLDER DATASET` makes one of a"),
        (["generate", "nowhere", "o"], "nowhere: no such model"),
        (["reconstruct", "texts", "texts", "o"], "texts: not a model"),
        (["evaluate", "empty", "empty"], "empty: not a model"),
        (["generate", "empty", "o", "--temperature", "-1"], "temperature -1"),
        (["repaint", "empty", "a", "o"], "repaint: give --time 0.2:0.5, --band 1000:3000, or both"),
        (["repaint", "empty", "a", "o", "--time", "1"], "--time 1: give FROM:TO"),
        (["vary", "empty", "a", "o", "--label", "digit"], "--label digit: give NAME=VALUE"),
        (["vary", "digits", "texts/a.txt", "o"], "texts/a.txt: is broken"),
        (
            ["vary", "digits", "broken/a.wav", "o", "--strength", "nan"],
            "strength nan: give a number",
        ),
        (["continue", "digits", "texts/a.txt", "o"], "texts/a.txt: is broken"),
        (["generate", "digits", "o", "--order", "masked"], "the model has no masked prior; train"),
        (["generate", "digits", "o", "--length", "1e6"], "length 1e+06: give seconds from"),
        (["preprocess", "broken", "d", "--trim-db", "inf"], "trim_db inf"),
        (["preprocess", "broken", "d", "--n-fft", "0"], "n_fft 0"),
        (["preprocess", "broken", "d", "--hop-length", "0"], "hop_length 0"),
        (["train", "empty", "m", "--max-minutes", "inf"], "max_minutes inf"),
        (["train", "empty", "m", "--seed", str(2**63)], f"seed {2**63}"),
        (["encode", "digits", "texts", "o", "--rate", "nan"], "rate nan"),
        (["decode", "digits", "texts/a.txt", "o", "--n-iter", "-1"], "n_iter -1"),
        (["reconstruct", "digits", "texts", "o", "--n-iter", "-1"], "n_iter -1"),
        (["app", "digits", "--port", "0"], "port 0: give 1 to 65535"),
        (["app", "digits", "--port", "65536"], "port 65536"),
        (
            ["report", "empty", "--out", "texts/a.txt"],
            "exists already; choose another, or add --over",
        ),
        (["report", "empty", "--out", "empty"], "empty: would overwrite the input empty"),
        (["generate", "empty", "empty", "--overwrite"], "empty: would overwrite the input empty"),
        (["export", "texts", "texts", "--overwrite"], "texts: would overwrite the input texts"),
        (["encode", "texts", "broken", "texts/a.txt", "--overwrite"], "is inside the input texts"),
        (["plot", "texts", "texts/a.txt", "--overwrite"], "is inside the input texts"),
        (
            ["inspect", "texts", "--out", "texts", "--overwrite"],
            "texts: would overwrite the input texts",
        ),
        (["morph", "digits", "nowhere.wav", "broken/a.wav", "o"], "nowhere.wav: "),
    ],
)
def test_errors_that_a_user_can_fix_are_one_line_and_exit_code_2(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "texts", "broken", "data", "model"):
        Path(name).mkdir()
    Path("data/dataset.json").touch()
    Path("model/model.json").touch()
    Path("texts/a.txt").write_text("words")
    Path("broken/a.wav").write_bytes(b"RIFF....")
    assert run(*arguments) == 2
    assert says in one_line(capsys)
    assert not Path("d").exists()


def test_the_verbs_that_edit_recordings_record_how_sounds_were_made(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(recordings.rglob("*.wav"))[:2]
    quick = ["-n", 2, "--device", "cpu", "--n-iter", 1]
    for verb, sources, flags in (
        ("vary", [first], ["--strength", 0.2]),
        ("continue", [first], ["--length", 0.5, "--label", "digit=3"]),
        ("repaint", [first], ["--time", "0.05:0.1", "--band", "0:2000"]),
        ("generate", [], ["--length", 0.3, "--loop"]),
    ):
        out = tmp_path / verb
        assert run(verb, "digits", *sources, out, *flags, *quick) == 0
        said = capsys.readouterr()
        assert said.out == f"wrote 2 recordings to {out}\n"
        assert ("no masked prior" in said.err) == (verb in ("vary", "repaint"))
        made = json.loads((out / "manifest.json").read_text("utf-8"))["made_with"]
        assert made["verb"] == verb
        if verb == "repaint":
            assert made["sources"] == [first.name]
            assert made["time"] == [0.05, 0.1]
            assert made["band"] == [0, 2000]
    assert run("morph", "digits", first, second, tmp_path / "m", "--steps", 3, *quick[2:]) == 0
    assert len(list((tmp_path / "m").glob("*.wav"))) == 3


@pytest.mark.parametrize("kind", ["silent", "empty"])
def test_a_silent_file_and_one_without_samples_are_named_with_the_reason(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    import soundfile

    (tmp_path / "sounds").mkdir()
    samples = np.zeros(8000 if kind == "silent" else 0)
    soundfile.write(tmp_path / "sounds" / "a.wav", samples, 8000)
    assert run("preprocess", tmp_path / "sounds", tmp_path / "d") == 2
    line = one_line(capsys)
    assert "a.wav" in line
    assert ("is silent" if kind == "silent" else "holds no samples") in line


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], None])
def test_help_and_the_package_load_nothing_heavy(arguments: list[str] | None) -> None:
    """How long it takes is measured by benchmarks/speed/startup.py; what it takes is counted here."""
    code = f"""
import sys, audiovq
if {arguments} is not None:
    import audiovq.cli.main
    try: audiovq.cli.main.main({arguments})
    except SystemExit as end: assert not end.code
print(*sys.modules, file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert arguments is None or "--help" in ended.stdout
    modules = ended.stderr.split()
    heavy = "torch torchaudio numpy scipy librosa soundfile soxr constriction safetensors tqdm"
    heavy += " matplotlib PIL sklearn numba jinja2"
    assert {name.partition(".")[0] for name in modules}.isdisjoint(heavy.split())
    assert len(modules) < 500


@pytest.mark.parametrize("verb", ["preprocess", "inspect"])
def test_skipped_recordings_are_listed_before_other_files(
    verb: str, own_recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        (own_recordings / f"a{number:02d}.xml").touch()
    (own_recordings / "z.wav").write_text("no sound")
    assert run(verb, own_recordings, *([tmp_path / "out"] if verb == "preprocess" else [])) == 0
    said = capsys.readouterr().out
    assert said.index("z.wav: ") < said.index("a00.xml: ")


@pytest.mark.parametrize("verb", ["preprocess", "train", "generate"])
def test_scripts_are_the_verbs(verb: str) -> None:
    script = Path(__file__).parents[2] / "scripts" / f"{verb}.py"
    ended = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"audiovq {verb}" in ended.stdout


def test_bash_completes_verbs_flags_and_values(tmp_path: Path) -> None:
    if not shutil.which("bash"):
        pytest.skip("bash is not here")
    code = "from audiovq.cli.main import main; main(['completion', 'bash'])"
    script = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    (tmp_path / "script").write_text(script)
    for typed, found in (
        ("audiovq gen", "generate"),
        ("audiovq decode --ph", "--phase"),
        ("audiovq train --preset rate-1", "rate-1k"),
    ):
        words = typed.split()
        ask = (
            f"source {tmp_path}/script; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1};"
            f" COMP_LINE='{typed}'; COMP_POINT={len(typed)};"
            f" _tyro_audiovq audiovq '{words[-1]}' '{words[-2]}'; echo ${{COMPREPLY[@]}}"
        )
        ended = subprocess.run(["bash", "-c", ask], capture_output=True, text=True)
        assert found in ended.stdout.split(), (typed, ended.stdout, ended.stderr)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_with_every_verb(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from audiovq.cli.main import _verbs

    with pytest.raises(SystemExit) as end:
        run("completion", shell)
    assert not end.value.code
    said = capsys.readouterr().out
    assert all(verb in said for verb in _verbs([]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("generate", "run the same command to resume"),
        ("generate --seed 3", "run the same command to resume"),
        ("encode", "the same command starts over"),
        *(
            (
                seed,
                "to resume, run the same command with the seed that it printed in place of random",
            )
            for seed in ("vary --seed random", "vary --seed=random")
        ),
    ],
)
def test_ctrl_c_says_whether_the_same_command_resumes(
    arguments: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_main, "_parse", lambda _: stop)
    assert main(arguments.split()) == 130
    assert capsys.readouterr().err == f"audiovq: stopped; {says}\n"


@pytest.mark.parametrize("verb", ["preprocess", "train", "generate", "pack", "encode", "report"])
def test_a_full_disk_is_one_line_that_names_the_file_and_leaves_no_half_of_it(
    verb: str,
    recordings: Path,
    dataset_folder: Path,
    trained_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    arguments: dict[str, list[object]] = {
        "preprocess": [recordings, out],
        "train": [dataset_folder, out, *FEW_STEPS],
        "generate": [trained_folder, out, "-n", 1],
        "pack": [trained_folder, out, "--each", 1],
        "encode": [trained_folder, recordings, out / "sounds.avq"],
        "report": [trained_folder, dataset_folder, "--out", out / "page.html"],
    }
    monkeypatch.setattr(os, "fsync", full)
    assert run(verb, *arguments[verb]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"audiovq: {out}/"), last
    assert last.endswith("; make room on that disk, then run the same command again")
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_an_empty_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["generate", "digits", ""], ["preprocess", "", "out"]):
        assert run(*arguments) == 2
        assert "an argument is empty" in one_line(capsys)


def test_folders_made_by_other_verbs_are_not_written_into(
    dataset_folder: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = shutil.copytree(dataset_folder, tmp_path / "dataset")
    own = shutil.copytree(recordings, tmp_path / "own")
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    for arguments, reason in (
        (["generate", "digits", dataset, "-n", 1, "--overwrite"], "is a dataset"),
        (["preprocess", own, dataset / "inner"], "lies inside a dataset"),
        (["encode", "digits", own, dataset / "train.jsonl", "--overwrite"], "part of a dataset"),
        (["reconstruct", "digits", own, own / "inner"], "is inside"),
    ):
        assert run(*arguments) == 2
        assert reason in one_line(capsys)
    assert before == {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    assert not (own / "inner").exists()


def test_a_terminal_shows_a_bar_before_heavy_modules_are_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "torch", None)  # its import fails
    with pytest.raises(ImportError):
        run("generate", "digits", tmp_path / "out")
    assert "load digits:   0 %|" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["inspect", "{recordings}"]]
)
def test_a_reader_that_ends_first_is_no_error(recordings: Path, arguments: list[str]) -> None:
    """As `audiovq --help | head` does."""
    words = [word.format(recordings=recordings) for word in arguments]
    with subprocess.Popen(
        [sys.executable, "-m", "audiovq", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
    assert "Error" not in said
    assert process.returncode == PIPE_CLOSED


@pytest.mark.parametrize(
    "arguments",
    [
        ("summary", "{}"),
        ("generate", "digits", "{}"),
        ("export", "digits", "{}"),
        ("encode", "digits", "{}", "sounds.avq"),
        ("find", "digits", "{}"),
        ("reconstruct", "digits", "{}", "back.wav"),
    ],
    ids=lambda words: words[0],
)
def test_a_path_in_a_closed_folder_or_of_too_long_a_name_is_one_line(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    try:
        for path, reason in ((closed / "x", "Permission denied"), ("x" * 300, "name too long")):
            with modes_hold():
                assert run(*(word.format(path) for word in arguments)) == 2
            assert reason in one_line(capsys)
    finally:
        closed.chmod(0o755)


def test_the_help_says_where_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Start with `audiovq app digits`, or with `audiovq inspect MY-SOUNDS`" in said


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"audiovq {__version__}\n"


def test_a_dataset_like_a_model_is_trained_from_it(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("preprocess", recordings, tmp_path / "d", "--like", "digits") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"next: audiovq train {tmp_path / 'd'} MODEL --from digits")


def test_preprocess_and_inspect_end_with_what_to_type_next(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my dataset"
    assert run("preprocess", recordings, out) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"wrote {out}; next: audiovq train '{out}' MODEL"
    assert run("inspect", recordings) == 0
    *_, heading, first, second, third = capsys.readouterr().out.splitlines()
    assert heading == "What to type next"
    assert [line.split()[1] for line in (first, second, third)] == [
        "preprocess",
        "train",
        "generate",
    ]
