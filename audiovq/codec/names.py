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
    places: dict[str, tuple[int, PurePosixPath]] = {}
    for name in names:
        path, folder = PurePosixPath(plain(name)), 0
        for part in path.parts[:-1]:
            folder = folders.setdefault((folder, _key(part)), len(folders) + 1)
        places[name] = folder, path
    taken: set[tuple[int, str]] = set()
    given: dict[str, str] = {}

    def take(name: str, number: str) -> bool:
        """Give `name` its path, with `number` in it, unless that is taken."""
        folder, path = places[name]
        leaf = _cut(path.name, number)
        place = folder, _key(leaf)
        if place in folders or place in taken:
            return False
        taken.add(place)
        given[name] = (path.parent / leaf).as_posix()
        return True

    # First those that are WAVs by name: they keep it.
    collided = [
        name for name in sorted(places, key=lambda name: not _is_wav(name)) if not take(name, "")
    ]
    numbers: dict[tuple[int, str], int] = {}
    for name in collided:
        folder, path = places[name]
        place = folder, _key(path.name)
        numbers.setdefault(place, 2)
        while not take(name, f" ({numbers[place]})"):
            numbers[place] += 1
    return {name: given[name] for name in places}


def plain(name: str) -> str:
    """The path of a sound's WAV where no other is in the way: a//b.wav → a/b.wav, a.flac → a.flac.wav."""
    path = PurePosixPath(name).as_posix()
    return path if _is_wav(path) else path + ".wav"


def _is_wav(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() == ".wav"


def _cut(name: str, number: str) -> str:
    """A file's name with `number` before its suffix; what is too long loses the end of its stem."""
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
