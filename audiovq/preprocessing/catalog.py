"""The recordings in a folder, with what their headers and paths say and checksums of their bytes."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from audiovq.audio import finding, reading
from audiovq.audio.finding import no_recording
from audiovq.audio.reading import AudioInfo
from audiovq.audio.waveform import AudioError
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.manifest import Skipped
from audiovq.preprocessing.labels import labels_of
from audiovq.preprocessing.similar import near_copies
from audiovq.runtime.files import atomic, sha256

FILES_PER_TASK = 64
PLAIN_BYTES = 1 << 20
"""Bytes of a plain WAV up to which it is read at once."""
UNCOMPRESSED = frozenset({".wav", ".aif", ".aiff"})
Result = TypeVar("Result")
Fields = tuple[int, int, int]
"""Those of an AudioInfo."""
Stamp = tuple[int, int, int]
"""A file's size in bytes, and the times in ns at which it and its metadata were last changed. A file whose stamp
is unchanged is not read again for its checksum."""


class Content(NamedTuple):
    """Checksums of a recording."""

    sha256: str
    """Of its bytes."""
    stamp: Stamp
    """Taken before the bytes were read."""
    sound: str = ""
    """SHA-256 of its sample rate and samples, of both channels where there are two, if another file of other bytes may
    hold the same sound."""


@dataclass(frozen=True, slots=True)  # there may be millions
class Recording:
    """A usable file."""

    path: str
    """Relative to the source folder, with forward slashes."""
    info: AudioInfo
    labels: dict[str, str]
    splits: tuple[str, ...]
    """Its split; several if it is split in time."""
    content: Content
    transposed: float = 0.0
    """Semitones by which it is played faster."""


@dataclass(frozen=True)
class Catalog:
    """All files below a folder: of the recordings, by path, headers, labels and checksums; and skipped files."""

    headers: dict[str, AudioInfo]
    labels: dict[str, dict[str, str]]
    contents: dict[str, Content]
    skipped: list[Skipped]
    notes: list[str]
    """Notes for the user on the labels."""
    similar: dict[str, str] = field(default_factory=dict)
    """For near copies, the identifier of the first sound of their group, by their own: see `with_near_copies`."""

    @property
    def found(self) -> int:
        """Number of files."""
        return len(self.headers) + len(self.skipped)

    @property
    def samples(self) -> dict[str, str]:
        """An identifier of each recording's samples, the same for equal ones."""
        return {path: content.sound or content.sha256 for path, content in self.contents.items()}

    @property
    def sounds(self) -> dict[str, str]:
        """`samples`, the same for near copies, too, if they are known."""
        return {path: self.similar.get(sound, sound) for path, sound in self.samples.items()}

    def recordings(self, splits: Mapping[str, tuple[str, ...]]) -> list[Recording]:
        """All recordings, with their `splits`."""
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
    """Catalog of the files below `source`, except those below `target`.

    `known` are checksums from an earlier run, used for files whose stamp is unchanged; all other files
    are read. Raises AudiovqError if there is no usable recording, or no recording gets a label.
    """
    names, others = _recordings(source, target)
    headers, contents, broken = _headers_and_contents(source, names, known or {}, executor)
    if not headers:
        raise AudiovqError(
            f"{source}: none of {len(broken)} recordings can be used: {broken[0].path} {broken[0].reason}"
        )
    labels, notes = labels_of(source, list(headers), config.labels)
    return Catalog(headers, labels, contents, others + broken, notes)


def with_near_copies(files: Catalog, source: Path, executor: Executor) -> Catalog:
    """The catalog with the recordings that are near copies of each other: see `similar.near_copies`."""
    first = {sound: path for path, sound in reversed(files.sounds.items())}
    groups = near_copies(source, sorted(first.values()), executor)
    sounds = files.sounds
    return replace(files, similar={sounds[path]: sounds[top] for path, top in groups.items()})


def scan(
    source: Path, target: Path | None, executor: Executor
) -> tuple[dict[str, AudioInfo], list[Skipped], list[Skipped]]:
    """Read all headers below `source`: (headers by path, other files, broken recordings).

    Files below `target` are left out. Raises AudiovqError if there are no recordings, not even broken ones.
    """
    names, others = _recordings(source, target)
    tasks = list(_tasks(names))
    results = executor.map(_read_headers, _repeated(source, tasks), tasks)
    headers, broken = _usable(names, itertools.chain.from_iterable(results))
    return headers, others, broken


def _recordings(source: Path, target: Path | None) -> tuple[list[str], list[Skipped]]:
    """`_find`, where there are recordings. Raises AudiovqError if there are none."""
    names, others = _find(source, target)
    if not names:
        raise AudiovqError(f"{source}: holds no recordings ({finding.KINDS}){_others(others)}")
    return names, others


def _others(others: list[Skipped]) -> str:
    """The number of other files, and the reason why the first audio file among them is not readable."""
    if not others:
        return ""
    convertible = [skipped for skipped in others if "convert it" in skipped.reason]
    return f"; {len(others)} other file{'s' * (len(others) > 1)}" + (
        f", such as {convertible[0].path}, which {convertible[0].reason}" if convertible else ""
    )


def _find(source: Path, target: Path | None) -> tuple[list[str], list[Skipped]]:
    """Names of the recordings below `source`, and its other files: see `names_outside`."""
    names: list[str] = []
    skipped: list[Skipped] = []
    for name in names_outside(source, target):
        if (printable := name.encode(errors="replace").decode()) != name:
            skipped.append(Skipped(printable, "has a name that is not UTF-8; rename it"))
        elif finding.is_recording(name):
            names.append(name)
        else:
            skipped.append(Skipped(name, no_recording(source / name)))
    return names, skipped


def names_outside(source: Path, target: Path | None) -> list[str]:
    """Names of the files below `source`, recordings first, without those below the dataset `target`.

    Raises AudiovqError if `target` holds `source`.
    """
    recordings, others = finding.find(source)
    names = recordings + others
    if target is None:
        return names
    if _below(source, target):
        raise AudiovqError(
            f"{target}: holds the files to read; choose another folder for the dataset"
        )
    if not _below(target, source):
        return names
    excluded = target.resolve().relative_to(source.resolve()).as_posix()
    return [name for name in names if name != excluded and not name.startswith(excluded + "/")]


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _usable(
    names: Sequence[str], results: Iterable[Fields | str]
) -> tuple[dict[str, AudioInfo], list[Skipped]]:
    """Results of `_header` → (headers by name, broken recordings)."""
    headers: dict[str, AudioInfo] = {}
    broken: list[Skipped] = []
    rates: dict[int, int] = {}
    for name, result in zip(names, results, strict=True):
        if isinstance(result, str):
            broken.append(Skipped(name, result))
        else:
            rate, channels, num_samples = result
            # Objects from another process are copies: share one object for each rate.
            headers[name] = AudioInfo(rates.setdefault(rate, rate), channels, num_samples)
    return headers, broken


def _tasks(names: Sequence[str]) -> Iterator[list[str]]:
    """Names in lists of FILES_PER_TASK."""
    for begin in range(0, len(names), FILES_PER_TASK):
        yield list(names[begin : begin + FILES_PER_TASK])


def _repeated(source: Path, tasks: Sequence[object]) -> list[str]:
    """The folder for each task; absolute, as another machine has another working folder."""
    return [str(source.absolute())] * len(tasks)


def _read_headers(source: str, names: list[str]) -> list[Fields | str]:
    """The fields of each file's AudioInfo, or the reason why it cannot be read."""
    return [_header(os.path.join(source, name)) for name in names]


def _header(path: str) -> Fields | str:
    """The fields of a file's AudioInfo, or the reason why it cannot be read."""
    try:
        return _fields(reading.info(path))
    except AudioError as error:
        return str(error)


def _fields(info: AudioInfo) -> Fields:
    return info.sample_rate, info.channels, info.num_samples


def _headers_and_contents(
    source: Path, names: list[str], known: Mapping[str, Content], executor: Executor
) -> tuple[dict[str, AudioInfo], dict[str, Content], list[Skipped]]:
    """Headers and checksums of the recordings that can be read, and the other recordings.

    The samples of recordings that may be copies in another container are read too: see `_maybe_equal`.
    """

    def run(
        task: Callable[[str, list[str], list[Content | None]], list[Result]],
        names: Sequence[str],
        before: Mapping[str, Content],
    ) -> list[Result]:
        tasks = list(_tasks(names))
        contents_before = [[before.get(name) for name in names] for names in tasks]
        results = executor.map(task, _repeated(source, tasks), tasks, contents_before)
        return list(itertools.chain.from_iterable(results))

    found = run(_read_files, names, known)
    headers, broken = _usable(names, (header for header, _ in found))
    contents: dict[str, Content] = {}
    for name, (_, content) in zip(names, found, strict=True):
        if name not in headers:
            continue
        if isinstance(content, Content):
            contents[name] = content
        else:
            broken.append(Skipped(name, content))
            del headers[name]
    # A recording whose samples cannot be read is skipped when its clips are cut.
    candidates = _maybe_equal(headers, contents)
    with_sound = zip(candidates, run(_hash_samples, candidates, contents), strict=True)
    contents |= {name: content for name, content in with_sound if isinstance(content, Content)}
    return headers, contents, broken


def _read_files(
    source: str, names: list[str], known: list[Content | None]
) -> list[tuple[Fields | str, Content | str]]:
    """`_header` of each file, and the checksum of its bytes or the reason why they cannot be read."""
    return [
        _read_file(os.path.join(source, name), before)
        for name, before in zip(names, known, strict=True)
    ]


def _read_file(path: str, before: Content | None) -> tuple[Fields | str, Content | str]:
    """`_read_files` of one file; the content `before` is kept if its stamp is unchanged."""
    try:
        status = os.stat(path)
        stamp = _stamp(status)
        is_known = before is not None and before.stamp == stamp
        is_short = stat.S_ISREG(status.st_mode) and status.st_size <= PLAIN_BYTES
        if not is_known and is_short and path.lower().endswith(".wav"):
            found = _read_plain(path, stamp)
            if found:
                return found
        header = _header(path)
        if isinstance(header, str):  # perhaps a pipe, from which reading would block
            return header, header
        return header, before if before and is_known else Content(sha256(path), stamp)
    except OSError as error:
        return _header(path), f"cannot be read ({error.strerror or error})"


def _read_plain(path: str, stamp: Stamp) -> tuple[Fields, Content] | None:
    """Header and checksum of a plain WAV by a single read of its bytes; None for any other file."""
    if path.encode(errors="replace").decode() != path:
        return None  # `reading.info` says that the name is not UTF-8
    size = stamp[0]
    with open(path, "rb", buffering=0) as file:
        data = file.read(size)
    info = reading.plain_info(data, size) if len(data) == size else None
    return (_fields(info), Content(hashlib.sha256(data).hexdigest(), stamp)) if info else None


def _hash_samples(
    source: str, names: list[str], known: list[Content | None]
) -> list[Content | str]:
    """Each file's `known` content with the checksum of its samples, or the reason why it cannot be read."""
    found: list[Content | str] = []
    for name, content in zip(names, known, strict=True):
        if content is None or content.sound:
            found.append(content or "")
            continue
        path = os.path.join(source, name)
        try:
            info = reading.info(path)
            digest = hashlib.sha256(str(info.sample_rate).encode())
            for block in reading.blocks(path, channels=2 if info.channels == 2 else 1):
                digest.update(block.T.tobytes())
            found.append(content._replace(sound=digest.hexdigest()))
        except AudioError as error:
            found.append(str(error))
    return found


def _maybe_equal(headers: Mapping[str, AudioInfo], contents: Mapping[str, Content]) -> list[str]:
    """Recordings that may hold the same samples as another one in another container.

    They have the same rate, channels and length, but another file type, or, uncompressed, another size.
    """
    kinds: dict[AudioInfo, set[str | int]] = {}
    for name, info in headers.items():
        kinds.setdefault(info, set()).add(_kind(name, contents[name]))
    return [name for name, info in headers.items() if len(kinds[info]) > 1]


def _kind(name: str, content: Content) -> str | int:
    """The file type, or the size of an uncompressed file."""
    suffix = os.path.splitext(name)[1].lower()
    return content.stamp[0] if suffix in UNCOMPRESSED else suffix


def stamp_of(path: Path | str) -> Stamp:
    """The current stamp of a file. Raises OSError if it does not exist."""
    return _stamp(os.stat(path))


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def write_contents(path: Path, contents: Mapping[str, Content]) -> None:
    """Write checksums for `read_contents`."""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for name, content in contents.items():
            file.write(json.dumps([name, *content]) + "\n")


def read_contents(path: Path) -> dict[str, Content]:
    """Checksums that an earlier run wrote, by path; {} if they are missing or damaged."""
    found = {}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                name, digest, (size, modified, changed), sound = json.loads(line)
                found[str(name)] = Content(str(digest), (size, modified, changed), str(sound))
    except (OSError, ValueError, TypeError):
        return {}
    return found
