"""Names as paths: one for each sound, on every system, whoever made the archive."""

import unicodedata
from collections.abc import Callable
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiovq.codec.names import LONGEST, plain, wav_names

# Two spellings of é and of the ligature of f and i, letters that grow when folded, and what Windows strips.
PARTS = [
    "a",
    "A",
    "b",
    "é",
    "e\u0301",
    "E\u0301",
    "ß",
    "SS",
    "ss",
    "a.",
    "a ",
    "..a",
    "(2)",
    "a (2)",
]
ENDS = ["", ".wav", ".WAV", ".flac", ".flac.wav", ".mp3", ".wav.wav", " (2).wav", ".wav ", "."]
part = st.builds(str.__add__, st.sampled_from(PARTS), st.sampled_from(ENDS)) | st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=3
).filter(lambda text: text not in (".", ".."))
name = st.builds(
    lambda parts, between, end: between.join(parts) + end,
    st.lists(part, min_size=1, max_size=3),
    st.sampled_from(["/", "//", "/./"]),
    st.sampled_from(["", "", "/"]),
)

SYSTEMS: dict[str, Callable[[str], str]] = {
    "Linux": lambda part: part,
    "macOS": lambda part: unicodedata.normalize("NFD", part).casefold(),
    "macOS, case-sensitive": lambda part: unicodedata.normalize("NFD", part),
    "Windows": lambda part: part.rstrip(". ").lower(),
    "a share of both": lambda part: unicodedata.normalize("NFC", part).lower().rstrip(". "),
}


def require_apart(paths: list[str]) -> None:
    """On no system are two paths one file, or a file and a folder."""
    for system, key in SYSTEMS.items():
        files = [tuple(map(key, PurePosixPath(path).parts)) for path in paths]
        assert len(set(files)) == len(files), system
        folders = {file[:end] for file in files for end in range(1, len(file))}
        assert folders.isdisjoint(files), system


@given(st.lists(name, unique=True, max_size=12))
def test_no_two_names_become_one_file_on_any_system(names: list[str]) -> None:
    paths = wav_names(names)
    assert list(paths) == names
    require_apart(list(paths.values()))
    for path in paths.values():
        assert path.lower().endswith(".wav")
        assert path == PurePosixPath(path).as_posix()


@pytest.mark.parametrize(
    "names",
    [
        ["a.flac", "a.flac.wav"],
        ["A.wav", "a.wav"],
        ["\u00e9.wav", "e\u0301.wav"],
        ["a//b", "a/b", "a/b/", "a/./b"],
        ["a.wav", "a.wav/b.wav"],
        ["a.flac", "a.flac.wav/b.wav"],
        ["x./a.wav", "x/a.wav", "x /A.wav"],
        ["a.flac", "a.flac.wav", "a.flac (2).wav"],
    ],
)
def test_names_that_would_be_one_file_are_numbered(names: list[str]) -> None:
    paths = wav_names(names)
    require_apart(list(paths.values()))
    kept = [name for name in names if paths[name] == plain(name)]
    assert kept, "one keeps its name"
    assert all(" (" in path for name, path in paths.items() if name not in kept)


def test_a_wav_keeps_its_name_whatever_comes_before_it() -> None:
    assert wav_names(["a.flac", "a.flac.wav"]) == {
        "a.flac": "a.flac (2).wav",
        "a.flac.wav": "a.flac.wav",
    }


@given(st.lists(st.text("aé語", min_size=60, max_size=300), unique=True, max_size=5))
def test_long_names_are_cut_to_what_file_systems_hold(stems: list[str]) -> None:
    paths = wav_names([f"{stem}{end}" for stem in stems for end in (".flac", ".flac.wav")])
    require_apart(list(paths.values()))
    for path in paths.values():
        assert len(path.encode()) <= LONGEST


def test_thousands_of_names_made_to_collide_are_told_apart() -> None:
    """Quickly: numbers are not tried from the beginning each time, nor paths joined part by part."""
    names = ["a" + "/" * n for n in range(1, 3000)]
    require_apart(list(wav_names(names).values()))
    deep = ["a/" * 20_000 + str(number) for number in range(3)]
    assert len(set(wav_names(deep).values())) == 3
