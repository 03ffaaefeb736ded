"""The program as a process: what it loads to generate sounds, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiovq.dataset.dataset import Dataset

FOR_OTHER_VERBS = """
audiovq.training audiovq.evaluation audiovq.preprocessing audiovq.report audiovq.inspection audiovq.app
torchaudio librosa matplotlib PIL sklearn jinja2 pesq pystoi constriction
sympy torch._dynamo torch._inductor torch.onnx torch.utils.tensorboard scipy.signal
"""


def test_generate_loads_no_module_that_only_other_verbs_need(tmp_path: Path) -> None:
    """How long it takes is measured by benchmarks; what it takes is listed here."""
    code = f"""
import sys
from audiovq.cli.main import main
assert main(["generate", "digits", {str(tmp_path / "out")!r}, "-n", "1"]) == 0
print(*sys.modules, file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stderr.split("\n")[-2].split())
    assert "audiovq.generation.files" in loaded
    assert loaded.isdisjoint(FOR_OTHER_VERBS.split())


ENDING = """
import atexit, sys
from audiovq.cli import main
class Slow:  # freed by Python's own end only
    def __del__(self): print("freed")
kept = Slow()
main.main = lambda: (atexit.register(print, "handler"), print("ran"), {end})[-1]
sys.exit(main.program())
"""


@pytest.mark.parametrize("code", [0, 2, 130])
def test_the_process_ends_with_its_output_and_its_handlers_but_frees_nothing(code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDING.format(end=code)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "ran\nhandler\n", "")


PRINTING = """
import os, sys
from audiovq.cli import main
main.main = lambda: (print("{}"), os.write(1, b"of libsndfile"), 0)[-1]
sys.argv = ["audiovq", "inspect", "--json"]
sys.exit(main.program())
"""


def test_with_json_standard_output_holds_what_python_prints_alone() -> None:
    ended = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "{}\n", "of libsndfile")


def test_json_is_printed_where_standard_error_is_closed() -> None:
    words = [sys.executable, "-c", PRINTING]
    closing = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words]
    ended = subprocess.run(closing, capture_output=True, text=True)
    assert ended.returncode == 0
    assert "{}\n" in ended.stdout


def test_an_exception_ends_the_process_as_in_any_program() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDING.format(end="1 / 0")], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert ended.stdout == "ran\nhandler\nfreed\n"
    assert "ZeroDivisionError" in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that cannot be written")
def test_output_that_cannot_be_written_is_reported() -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-c", ENDING.format(end=0)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            words, env=buffered, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 120  # Python's own code for output that it cannot write
    assert "No space left" in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that cannot be written")
@pytest.mark.parametrize("buffering", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_output_into_a_file_on_a_full_disk_ends_in_one_line(buffering: dict[str, str]) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-m", "audiovq", "summary", "digits"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            words, env=plain | buffering, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 2
    assert ended.stderr == (
        "audiovq: the output, or a temporary file: cannot be written (No space left on device);"
        " make room on that disk, then run the same command again\n"
    )


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_a_dataset_is_made_with_closed_standard_streams(
    closed: str, recordings: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "audiovq", "preprocess", str(recordings), str(tmp_path / "data")]
    ended = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], capture_output=True)
    assert ended.returncode == 0
    assert len(Dataset(tmp_path / "data").train.clips) > 0


def test_help_and_refusals_need_no_open_stream() -> None:
    for word, code in (("--help", 0), ("bogus", 2)):
        command = ["sh", "-c", 'exec "$@" 1>&- ', "sh", sys.executable, "-m", "audiovq", word]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == code
        assert "Traceback" not in ended.stderr


def test_ctrl_c_while_the_program_loads_is_one_line() -> None:
    code = """
import runpy, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "audiovq.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
runpy.run_module("audiovq", run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "audiovq: stopped before it began\n")
