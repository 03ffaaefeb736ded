"""Every verb returns as many sounds as it got, or a line names the missing one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audiovq.audio import finding, reading
from audiovq.codec import files as codec_files
from audiovq.codec.files import decode_files, encode_files, reconstruct_files
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.generation.files import generate_files
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess

FORMATS = {
    "WAV": [".wav", ".WAV"],
    "FLAC": [".flac"],
    "OGG": [".ogg", ".oga"],
    "AIFF": [".aiff", ".aif"],
    "MP3": [".mp3"],
}
NAMES = [
    "a",
    "A",
    "b.c",
    "a.wav",
    "A.flac",
    "é",
    "e\u0301",
    "kick 01",
    "a.",
    "x..",
    "-n",
    "ß",
    "(2)",
]
LONG = ["語" * 70, "x" * 240, "a\\b", "a\nb", "a.wav/b", "in/a", "In/a", "in./a"]
stem = st.sampled_from(NAMES) | st.sampled_from(LONG)
file = st.fixed_dictionaries(
    {
        "stem": stem,
        "form": st.sampled_from(sorted(FORMATS)),
        "suffix": st.integers(0, 1),
        "samples": st.sampled_from([0, 1, 50, 255, 2047, 4000]) | st.integers(0, 20_000),
        "rate": st.sampled_from([8000, 44_100, 11_025]),
        "level": st.sampled_from([0.0, 1e-4, 0.3, 1.0, 4.0]),
    }
)
folders = st.lists(file, min_size=1, max_size=6)


@pytest.fixture(scope="module")
def digits_model() -> Model:
    """The model that ships."""
    return load("digits")


def write(folder: Path, files: list[dict[str, Any]]) -> int:
    """Write those of the files that this disk and libsndfile take; returns how many there are."""
    random, paths = np.random.default_rng(0), set[Path]()
    for one in files:
        suffixes = FORMATS[one["form"]]
        path = folder / (one["stem"] + suffixes[one["suffix"] % len(suffixes)])
        sound = one["level"] * random.standard_normal(one["samples"])
        with contextlib.suppress(OSError, soundfile.LibsndfileError):
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.clip(sound, -1, 1), one["rate"], format=one["form"])
            paths.add(path)
    (folder / "cover.jpg").write_bytes(b"\xff\xd8 not a sound")
    return 1 + sum(path.is_file() for path in folder.rglob("*") if path in paths)


@contextlib.contextmanager
def everything_listed() -> Iterator[None]:
    """However many lines there are, all are said."""
    listed, codec_files.LISTED = codec_files.LISTED, 1000
    try:
        yield
    finally:
        codec_files.LISTED = listed


def unless_usable(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Errors are due where nothing in the folder can be read and named in an archive."""
    for name in finding.find(folder)[0]:
        with contextlib.suppress(AudiovqError):
            if len(reading.read(folder / name, 8000)[0]) and "\\" not in name:
                return contextlib.nullcontext()
    return contextlib.suppress(AudiovqError)


def wavs(folder: Path) -> int:
    return sum(path.suffix.lower() == ".wav" for path in folder.rglob("*") if path.is_file())


def require_counts(model: Model, files: list[dict[str, Any]], n: int) -> None:
    """Every verb on a folder of such files: sounds out, and lines on what was left out, are all that
    went in. A verb that takes none of them says why in one line."""
    with TemporaryDirectory() as name, everything_listed():
        folder = Path(name)
        found = write(folder / "in", files)
        with contextlib.suppress(AudiovqError):  # none is of use
            config = PreprocessConfig(sample_rate=8000)
            summary = preprocess(folder / "in", folder / "set", config, say=lambda _: None)
            assert summary.found == found == summary.used + len(summary.skipped)
        said: list[str] = []
        with unless_usable(folder / "in"):
            figures = encode_files(model, folder / "in", folder / "all.avq", say=said.append)
            left = [line for line in said if line.startswith("left out: ")]
            assert figures["files"] + len(left) == found, said
            said.clear()
            paths = decode_files(model, folder / "all.avq", folder / "out", say=said.append)
            left = [line for line in said if line.startswith("left out: ")]
            assert len(paths) == wavs(folder / "out") == figures["files"] - len(left)
            assert not left, "names that encode takes can be written"
        said.clear()
        with unless_usable(folder / "in"):
            figures = reconstruct_files(model, folder / "in", folder / "back", say=said.append)
            left = [line for line in said if line.startswith("left out: ")]
            assert wavs(folder / "back") + len(left) == found, said
        paths = generate_files(
            model, folder / "new", n, seed=n, inversion=Inversion(n_iter=0), say=lambda _: None
        )
        assert len(set(paths)) == wavs(folder / "new") == n


@settings(max_examples=15)
@given(files=folders, n=st.integers(1, 2))
def test_every_sound_is_returned_or_named(
    digits_model: Model, files: list[dict[str, Any]], n: int
) -> None:
    require_counts(digits_model, files, n)


@pytest.mark.slow
@settings(max_examples=200)
@given(files=folders, n=st.integers(1, 4))
def test_in_many_folders_every_sound_is_returned_or_named(
    digits_model: Model, files: list[dict[str, Any]], n: int
) -> None:
    require_counts(digits_model, files, n)
