"""Killed processes, full disks, read-only folders: existing files are complete, and the next run resumes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_models import tiny_model

from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import save

HERE = Path(__file__).parents[1] / "helpers"


def python(*arguments: object, given: str = "") -> str:
    """Output of a Python process of its own, with one thread."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        input=given,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_and_resumed_preprocess_gives_the_bytes_of_an_uninterrupted_one(
    kills: int, recordings: Path, tmp_path: Path
) -> None:
    said = python(HERE / "kill_runs.py", "preprocess", recordings, tmp_path, kills)
    assert said.startswith(f"{kills} kills")


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_and_resumed_training_gives_the_bytes_of_an_uninterrupted_one(
    kills: int, dataset: Dataset, tmp_path: Path
) -> None:
    said = python(HERE / "kill_runs.py", "train", dataset.folder, tmp_path, kills)
    assert said.startswith(f"{kills} kills")


# --- Disks that are full or closed ------------------------------------------------------------


@pytest.fixture
def commands(recordings: Path, dataset: Dataset) -> Iterator[tuple[Path, dict[str, list[str]]]]:
    """A folder `out` that is not there yet, and what writes into it: verb → arguments."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are for their owner alone
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(recordings, folder / "recordings")
        shutil.copytree(dataset.folder, folder / "dataset")
        model = tiny_model()
        save(folder / "model", model, "autoencoder", {})
        save(folder / "model", model, "prior", {})
        source, data, model_in, out = (
            str(folder / name) for name in ("recordings", "dataset", "model", "out")
        )
        few = "--autoencoder-training.validate-every"
        yield (
            folder / "out",
            {
                "preprocess": ["preprocess", source, f"{out}/dataset"],
                "train": ["train", data, f"{out}/model", few, "2", "--device", "cpu"],
                "generate": ["generate", model_in, f"{out}/sounds", "-n", "2"],
                "encode": ["encode", model_in, source, f"{out}/sounds.avq"],
            },
        )


def require_refusals(commands: list[tuple[int, list[str]]]) -> None:
    """Each verb must end with exit code 2 and one line that names where it could not write."""
    said = python(HERE / "run_verbs.py", given=json.dumps(commands))
    for (_, arguments), (status, text) in zip(commands, json.loads(said), strict=True):
        assert status == 2, (arguments, text)
        assert text.startswith("audiovq: "), (arguments, text)
        assert text.count("\n") == 1, (arguments, text)
        assert "/out/" in text, (arguments, text)


def test_a_full_disk_gives_one_line_and_no_partial_files(
    commands: tuple[Path, dict[str, list[str]]],
) -> None:
    out, verbs = commands
    limits = {"preprocess": 5_000, "train": 10_000, "generate": 300, "encode": 100}
    require_refusals([(limits[verb], arguments) for verb, arguments in verbs.items()])
    left = {path.relative_to(out).parts for path in out.rglob("*") if path.is_file()}
    work = {("dataset", "work", name) for name in ("plan.json", "contents.txt")}
    assert left == work | {("model", "training", "settings.json")}


def test_a_read_only_folder_gives_one_line_and_stays_empty(
    commands: tuple[Path, dict[str, list[str]]],
) -> None:
    out, verbs = commands
    out.mkdir(mode=0o555)
    require_refusals([(0, arguments) for arguments in verbs.values()])
    assert not list(out.iterdir())


# --- Memory -----------------------------------------------------------------------------------

MEASURE = """
import re, resource, sys
from pathlib import Path
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.preprocessing.preprocess import preprocess
config = PreprocessConfig(sample_rate=int(sys.argv[3]))
summary = preprocess(Path(sys.argv[1]), Path(sys.argv[2]), config, say=lambda line: None)
# The largest of the processes at work, in KiB. Its own ru_maxrss would be that of the one it came from.
own = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(round(summary.seconds), max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no /proc")
@pytest.mark.parametrize("rate", [8000, 44_100])
def test_an_hour_of_stereo_takes_less_than_a_gibibyte(rate: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (10 * 44_100, 2)).astype(np.float32)
    with soundfile.SoundFile(tmp_path / "in" / "hour.wav", "w", 44_100, 2) as file:
        for _ in range(360):
            file.write(noise)
    said = python("-c", MEASURE, tmp_path / "in", tmp_path / "out", rate)
    shutil.rmtree(tmp_path / "in")
    seconds, kibibytes = map(int, said.split())
    assert 0.97 * 3600 <= seconds < 3600  # all but the gaps between the splits, of a second each
    assert kibibytes < 1 << 20
