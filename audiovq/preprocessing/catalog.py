"""Which recordings a folder holds, what their paths and headers tell, and what their bytes are."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from audiovq.audio import finding, reading
from audiovq.audio.finding import no_recording
from audiovq.audio.reading import AudioInfo
from audiovq.audio.waveform import AudioError
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.manifest import Skipped
from audiovq.preprocessing.labels import labels_of
from audiovq.runtime.files import atomic, sha256

PART = 64
"""Headers that are read by one task."""
UNCOMPRESSED = frozenset({".wav", ".aif", ".aiff"})
Stamp = tuple[int, int, int]
"""A file's size in bytes, and when it and its entry were last changed, in ns: where these are the same, its
bytes are taken to be."""


class Content(NamedTuple):
    """What a recording's bytes are."""

    sha256: str
    stamp: Stamp
    """Taken before they were read."""
    sound: str = ""
    """SHA-256 of its samples and its rate, where it may be equal to another file of other bytes."""


@dataclass(frozen=True, slots=True)  # there may be millions
class Recording:
    """A file to be used, as its header, its path and its bytes tell."""

    path: str
    info: AudioInfo
    labels: dict[str, str]
    splits: tuple[str, ...]
    """Several where each takes its stretches of it."""
    content: Content


@dataclass(frozen=True)
class Catalog:
    """All files below a folder. What belongs to recordings is by their paths."""

    headers: dict[str, AudioInfo]
    labels: dict[str, dict[str, str]]
    contents: dict[str, Content]
    skipped: list[Skipped]
    notes: list[str]
    """What the user should know of the labels."""

    @property
    def found(self) -> int:
        """Files in all."""
        return len(self.headers) + len(self.skipped)

    @property
    def sounds(self) -> dict[str, str]:
        """A name of what each recording holds: the same one where it is equal."""
        return {path: content.sound or content.sha256 for path, content in self.contents.items()}

    def recordings(self, splits: Mapping[str, tuple[str, ...]]) -> list[Recording]:
        """All recordings, each in its `splits`."""
        return [
            Recording(path, info, self.labels[path], splits[path], self.contents[path])
            for path, info in self.headers.items()
        ]


def catalog(
    source: Path,
    target: Path,
    config: PreprocessConfig,
    executor: Executor,
    known: Mapping[str, Content] | None = None,
) -> Catalog:
    """The recordings below `source`; `target` is left out. What is `known` of a file's bytes from a run
    before is taken over where its stamp is the same; all others are read.

    Raises AudiovqError where there are none, or labels fit none.
    """
    headers, others, broken = scan(source, target, executor)
    contents, gone = _contents(source, headers, known or {}, executor)
    broken += gone
    headers = {path: info for path, info in headers.items() if path in contents}
    if not headers:
        raise AudiovqError(
            f"{source}: none of {len(broken)} recordings can be used: {broken[0].path} {broken[0].reason}"
        )
    labels, notes = labels_of(source, list(headers), config.labels)
    return Catalog(headers, labels, contents, others + broken, notes)


def scan(
    source: Path, target: Path | None, executor: Executor
) -> tuple[dict[str, AudioInfo], list[Skipped], list[Skipped]]:
    """Every header that can be read, by path below `source`; other files; recordings that are broken.

    Raises AudiovqError where there is not even a broken one.
    """
    names, others = _find(source, target)
    if not names:
        raise AudiovqError(f"{source}: holds no recordings ({finding.KINDS}){_others(others)}")
    headers, broken = _headers(source, names, executor)
    return headers, others, broken


def _others(others: list[Skipped]) -> str:
    """How many files are left out, and why the first that its user may take for a recording is."""
    if not others:
        return ""
    sounds = [one for one in others if "convert it" in one.reason]
    return f"; {len(others)} other files" + (
        f", such as {sounds[0].path}, which {sounds[0].reason}" if sounds else ""
    )


def _find(source: Path, target: Path | None) -> tuple[list[str], list[Skipped]]:
    """The names of the recordings below `source`, and its other files with the reason; `target` is no part."""
    recordings, others = finding.find(source)
    own = None
    if target is not None:
        if _below(source, target):
            raise AudiovqError(
                f"{target}: holds the recordings; name another folder for the dataset"
            )
        if _below(target, source):
            own = target.resolve().relative_to(source.resolve()).as_posix()
    names: list[str] = []
    skipped: list[Skipped] = []
    for name in itertools.chain(recordings, others):
        if own is not None and (name == own or name.startswith(own + "/")):
            continue
        if (plain := name.encode(errors="replace").decode()) != name:
            skipped.append(Skipped(plain, "has a name that is not UTF-8; rename it"))
        elif finding.is_recording(name):
            names.append(name)
        else:
            skipped.append(Skipped(name, no_recording(source / name)))
    return names, skipped


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _headers(
    source: Path, names: list[str], executor: Executor
) -> tuple[dict[str, AudioInfo], list[Skipped]]:
    """Every header: those that can be read, by name, and the others with the reason."""
    headers: dict[str, AudioInfo] = {}
    broken: list[Skipped] = []
    parts = [names[begin : begin + PART] for begin in range(0, len(names), PART)]
    folder = [str(source.absolute())] * len(parts)  # another machine has another working folder
    told = itertools.chain.from_iterable(executor.map(_told, folder, parts))
    rates: dict[int, int] = {}
    for name, found in zip(names, told, strict=True):
        if isinstance(found, str):
            broken.append(Skipped(name, found))
        else:
            rate, channels, num_samples = found
            # What a process sends is a copy, each time: here one number of a kind is kept.
            headers[name] = AudioInfo(rates.setdefault(rate, rate), channels, num_samples)
    return headers, broken


def _told(source: str, names: list[str]) -> list[tuple[int, int, int] | str]:
    """What each header says, in the order of AudioInfo, or what is wrong with it."""
    return [_header(os.path.join(source, name)) for name in names]


def _header(path: str) -> tuple[int, int, int] | str:
    try:
        info = reading.info(path)
    except AudioError as error:
        return str(error)
    return info.sample_rate, info.channels, info.num_samples


def _contents(
    source: Path,
    headers: Mapping[str, AudioInfo],
    known: Mapping[str, Content],
    executor: Executor,
) -> tuple[dict[str, Content], list[Skipped]]:
    """What each recording's bytes are, and those that can no longer be read, with the reason.

    Copies in another container are found as well, where they are as long: these files' samples are
    read too.
    """
    folder = str(source.absolute())

    def told(
        task: Callable[[str, list[str], list[Content | None]], list[Content | str]],
        names: Sequence[str],
        before: Mapping[str, Content],
    ) -> dict[str, Content | str]:
        parts = [list(names[begin : begin + PART]) for begin in range(0, len(names), PART)]
        seen = [[before.get(name) for name in part] for part in parts]
        found = executor.map(task, [folder] * len(parts), parts, seen)
        return dict(zip(names, itertools.chain.from_iterable(found), strict=True))

    found = told(_hashed, list(headers), known)
    contents = {name: one for name, one in found.items() if isinstance(one, Content)}
    alike = _maybe_equal({name: headers[name] for name in contents}, contents)
    heard = told(_heard, alike, contents)  # what cannot be is left out later, with the reason
    contents |= {name: one for name, one in heard.items() if isinstance(one, Content)}
    return contents, [Skipped(name, one) for name, one in found.items() if isinstance(one, str)]


def _hashed(source: str, names: list[str], known: list[Content | None]) -> list[Content | str]:
    found: list[Content | str] = []
    for name, before in zip(names, known, strict=True):
        path = os.path.join(source, name)
        try:
            stamp = stamp_of(path)
            same = before is not None and before.stamp == stamp
            found.append(before if before and same else Content(sha256(path), stamp))
        except OSError as error:
            found.append(f"cannot be read ({error.strerror or error})")
    return found


def _heard(source: str, names: list[str], known: list[Content | None]) -> list[Content | str]:
    found: list[Content | str] = []
    for name, content in zip(names, known, strict=True):
        if content is None or content.sound:
            found.append(content or "")
            continue
        path = os.path.join(source, name)
        try:
            digest = hashlib.sha256(str(reading.info(path).sample_rate).encode())
            for block in reading.blocks(path):
                digest.update(block.tobytes())
            found.append(content._replace(sound=digest.hexdigest()))
        except AudioError as error:
            found.append(str(error))
    return found


def _maybe_equal(headers: Mapping[str, AudioInfo], contents: Mapping[str, Content]) -> list[str]:
    """The recordings that may hold the samples of another one in another container: of the same rate and
    length, but of another kind of file, or uncompressed and of another size."""
    kinds: dict[AudioInfo, set[str | int]] = {}
    for name, info in headers.items():
        kinds.setdefault(info, set()).add(_kind(name, contents[name]))
    return [name for name, info in headers.items() if len(kinds[info]) > 1]


def _kind(name: str, content: Content) -> str | int:
    suffix = os.path.splitext(name)[1].lower()
    return content.stamp[0] if suffix in UNCOMPRESSED else suffix


def stamp_of(path: Path | str) -> Stamp:
    """A file's stamp as it is now. Raises OSError where there is no file."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def write_contents(path: Path, contents: Mapping[str, Content]) -> None:
    """Write what `read_contents` reads."""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for name, content in contents.items():
            file.write(json.dumps([name, *content]) + "\n")


def read_contents(path: Path) -> dict[str, Content]:
    """What a run before found of the recordings' bytes; nothing where it left nothing that can be read."""
    found = {}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                name, digest, (size, modified, changed), sound = json.loads(line)
                found[str(name)] = Content(str(digest), (size, modified, changed), str(sound))
    except (OSError, ValueError, TypeError):
        return {}
    return found
