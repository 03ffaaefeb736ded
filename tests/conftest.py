"""Shared fixtures: synthetic recordings, the digits that ship, the real digits where they are."""

import atexit
import importlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from fast_training import CONFIG, fit_briefly, train

from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess

ROOT = Path(__file__).resolve().parents[1]

# Where recordings are is noted (`dataset.source`) in a folder of the tests, not in the user's.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="audiovq-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

# Where Python is told to keep no compiled modules, each process that a test starts would compile the package once more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Files are tested side by side, on a core each; and the number of threads must not adapt, as it changes the last bits.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

fit_briefly()

hypothesis.settings.register_profile("audiovq", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("audiovq")

Waveform = npt.NDArray[np.float32]


def make_voice(seconds: float, pitch: float = 120.0, sample_rate: int = 8000) -> Waveform:
    """Harmonics of a gliding pitch under two formants, fading in and out; peak 0.5."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    turns = pitch * time * (1 + 0.1 * time / seconds)
    sound = np.zeros_like(time)
    for harmonic in range(1, int(0.45 * sample_rate / pitch / 1.1)):
        frequency = harmonic * pitch
        weight = sum(1 / (1 + ((frequency - formant) / 150) ** 2) for formant in (500, 1500))
        sound += weight * np.sin(2 * math.pi * harmonic * turns + harmonic**2)
    sound *= np.sin(math.pi * time / seconds) ** 0.5
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def make_recordings(folder: Path) -> Path:
    """24 files of 0.2 to 0.43 s at 8 kHz, 16 bit: `SPEAKER/DIGIT_SPEAKER_TAKE.wav`."""
    number = 0
    for speaker, pitch in (("jan", 210.0), ("sam", 110.0)):
        for digit in range(3):
            for take in range(4):
                path = folder / speaker / f"{digit}_{speaker}_{take}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                sound = make_voice(0.2 + 0.01 * number, pitch * (1 + 0.05 * digit))
                soundfile.write(path, sound, 8000, subtype="PCM_16")
                number += 1
    return folder


@pytest.fixture(scope="session")
def voice() -> Callable[..., Waveform]:
    """`voice(seconds, pitch=120, sample_rate=8000)`: a synthetic voice, (samples,), peak 0.5."""
    return make_voice


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 short synthetic recordings of two speakers in two folders. Not to be changed."""
    return make_recordings(tmp_path_factory.mktemp("shared") / "recordings")


@pytest.fixture
def own_recordings(recordings: Path, tmp_path: Path) -> Path:
    """The same, a copy that a test may change."""
    return shutil.copytree(recordings, tmp_path / "recordings")


@pytest.fixture(scope="session")
def dataset_folder(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that `recordings` become by default. Not to be changed."""
    folder = tmp_path_factory.mktemp("dataset") / "dataset"
    preprocess(recordings, folder, say=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def dataset(dataset_folder: Path) -> Dataset:
    """`dataset_folder`, opened."""
    return Dataset(dataset_folder)


@pytest.fixture(scope="session")
def trained_folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on `dataset` by all stages, in seconds. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    train(dataset, folder, CONFIG, device="cpu", say=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def folder(trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, a copy for the tests of a file."""
    return shutil.copytree(trained_folder, tmp_path_factory.mktemp("copy") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    """What `folder` holds, loaded."""
    return load(folder)


@pytest.fixture(scope="session")
def digits() -> Path:
    """The 960 synthetic spoken digits that ship with the repository."""
    folder = ROOT / "data" / "digits"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: the digits come with the repository, not the package")
    return folder


@pytest.fixture(scope="session")
def fsdd() -> Path:
    """The 3,000 recordings of the Free Spoken Digit Dataset, beside the repository."""
    folder = ROOT.parent / "shared" / "fsdd" / "recordings"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: the Free Spoken Digit Dataset is not shipped")
    return folder


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `benchmarks`, whose modules can be imported as `benchmarks.…`. Skips without it."""
    folder = ROOT / "benchmarks"
    if not folder.is_dir():
        pytest.skip("benchmarks/ is missing: it comes with the repository, not the package")
    monkeypatch.syspath_prepend(ROOT)
    return folder


@pytest.fixture(autouse=True)
def one_thread_after_each_test() -> Iterator[None]:
    """A test that leaves another number of threads would change the last bits of later tests' results."""
    yield
    assert torch.get_num_threads() == 1


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a module of scripts/ by its name."""
    if not (ROOT / "scripts").is_dir():
        pytest.skip("scripts/ is missing: it comes with the repository, not the package")
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"scripts.{name}")
