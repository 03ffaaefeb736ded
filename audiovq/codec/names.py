"""Names of sounds as paths of WAVs below a folder, no two of which any system takes for one file."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

LONGEST = 255
"""Bytes of a file's name that file systems hold."""


def wav_names(names: Iterable[str]) -> dict[str, str]:
    """Each name → the path of its WAV below a folder, with forward slashes, in the same order.

    a.wav stays, a.flac becomes a.flac.wav. Paths that differ only in case, in how Unicode composes a
    letter, or in dots and spaces at the end of a part are one file on some systems, and no file has the
    name of a folder. Of sounds that would collide, one keeps its name and the others are numbered:
    `a.flac (2).wav`. A name longer than file systems hold is cut.
    """
    folders: dict[tuple[int, str], int] = {}  # (folder around it, key) → number of the folder
    paths: dict[str, tuple[int, PurePosixPath]] = {}
    for name in names:
        path, folder = PurePosixPath(plain(name)), 0
        for part in path.parts[:-1]:
            folder = folders.setdefault((folder, _key(part)), len(folders) + 1)
        paths[name] = folder, path
    taken: set[tuple[int, str]] = set()
    given: dict[str, str] = {}

    def take(name: str, number: str) -> bool:
        """Give `name` its path, with `number` in it, unless that is taken."""
        folder, path = paths[name]
        leaf = _cut(path.name, number)
        key = folder, _key(leaf)
        if key in folders or key in taken:
            return False
        taken.add(key)
        given[name] = (path.parent / leaf).as_posix()
        return True

    # First those that are WAVs by name: they keep it.
    collided = [
        name for name in sorted(paths, key=lambda name: not _is_wav(name)) if not take(name, "")
    ]
    numbers: dict[tuple[int, str], int] = {}
    for name in collided:
        folder, path = paths[name]
        key = folder, _key(path.name)
        numbers.setdefault(key, 2)
        while not take(name, f" ({numbers[key]})"):
            numbers[key] += 1
    return {name: given[name] for name in paths}


def plain(name: str) -> str:
    """The path of a sound's WAV where no other is in the way: a//b.wav → a/b.wav, a.flac → a.flac.wav."""
    path = PurePosixPath(name).as_posix()
    return path if _is_wav(path) else path + ".wav"


def _is_wav(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() == ".wav"


def _cut(name: str, number: str) -> str:
    """A file's name with `number` before its suffix; names that are too long lose the end of their stem."""
    stem, dot, suffix = name.rpartition(".")
    end = number + dot + suffix
    room = LONGEST - len(end.encode("utf-8", "surrogateescape"))
    stem = stem[:room]
    while len(stem.encode("utf-8", "surrogateescape")) > room:
        stem = stem[:-1]
    return stem + end


def _key(part: str) -> str:
    """Equal for names that some system takes for one."""
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", part).casefold())
    return folded.rstrip(". ") or part
