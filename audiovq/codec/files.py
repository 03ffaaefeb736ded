"""Files in, files out: recordings → archive, archive → recordings, and both at once."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import math
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from audiovq.audio import finding, reading, writing
from audiovq.audio.finding import no_recording
from audiovq.audio.waveform import AudioError, Waveform, peak_of
from audiovq.codec import archive, codec, windows
from audiovq.codec.names import plain, wav_names
from audiovq.codec.probabilities import Coder
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion
from audiovq.models.entropy.rate_search import LARGEST_WEIGHT
from audiovq.models.model import Model
from audiovq.runtime.checksums import escapes_folder
from audiovq.runtime.files import (
    UNFINISHED,
    WRITTEN,
    atomic,
    read_bytes,
    require_apart,
    require_new,
)
from audiovq.runtime.outputs import writing_into
from audiovq.runtime.progress import Say, progress
from audiovq.spectral import inversion

FILES = 64
"""Recordings that are in memory at a time, long ones left out; their codes are small."""
RATE_FILES = 128
"""Recordings, drawn at random, by which the weight of bits is first chosen for a rate,"""
RATE_FRAMES = 1 << 16
"""and frames of them in all: where they are long, their beginnings."""
LISTED = 10
"""Lines of one kind that are said; the others are counted."""
BAD_NAME = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ, errno.ELOOP}
)
"""Errors of the system that are of one file's name: others can still be written."""


def encode_files(
    model: Model,
    source: Path | str,
    target: Path | str,
    *,
    coder: Coder | None = None,
    rate: float | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, float]:
    """A recording, or all below a folder → one archive `target`, in which they keep their names.

    With `rate`, codes are chosen so that the archive takes at most so many bits per second. Returns
    figures: see `archive.rates`. What is not coded is said, file by file, with the reason. Raises
    AudiovqError where nothing can be coded, where the rate cannot be met (it says the least that
    can), or where `target` is one of the recordings.
    """
    source, target = Path(source), Path(target)
    if rate is not None and not 0 < rate < math.inf:
        raise AudiovqError(f"rate {rate:g}: give bits per second above 0")
    require_new(target, overwrite)
    if target.is_dir():
        raise AudiovqError(f"{target}: is a folder; name the archive, such as sounds.avq")
    recordings, others = _recordings(source)
    unnamed = []
    for name in [name for name in recordings if not _stays_inside(name)]:
        reason = f"{recordings.pop(name)}: no archive holds such a name; rename it"
        if not recordings:
            raise AudiovqError(reason)
        unnamed.append(f"left out: {reason}")
    require_apart(target, *recordings.values())
    _say_some(others, say)
    _say_some(unnamed, say)
    _say_names(wav_names(recordings), say, "note: decode will write")
    if rate is None:
        sounds = _encoded(model, recordings, say)
        data = archive.pack(model, sounds, coder)
    else:
        sounds, data = _within(model, recordings, rate, coder, say)
    with atomic(target) as temporary:
        temporary.write_bytes(data)
    return archive.rates(model, sounds, data)


def decode_files(
    model: Model,
    source: Path | str,
    target: Path | str,
    *,
    inversion: Inversion = Inversion(),
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """An archive → WAVs of the names that it holds, in the folder `target`.

    The sound of an archive that holds one goes into `target` itself where that ends in .wav. All
    keep their levels to each other: see `_write`. Names that some system takes for one are numbered
    apart, and said. Returns the paths. Raises AudiovqError where the archive is damaged or of another
    model.
    """
    source, target = Path(source), Path(target)
    data = read_bytes(source)
    try:
        sounds = archive.unpack(model, data)
        for name in sounds:
            if not _stays_inside(name):
                raise AudiovqError(
                    f"holds a sound named {name!r:.80}, which leads out of the folder"
                )
            if PurePosixPath(name).parts[0].casefold() in (UNFINISHED, WRITTEN):
                raise AudiovqError(f"holds a sound named {name!r:.80}, a name that audiovq uses")
    except AudiovqError as error:
        raise AudiovqError(f"{source}: {error}") from error
    places = wav_names(sounds)
    single = target.suffix.lower() == ".wav" and len(places) == 1
    if single:
        places = dict.fromkeys(places, target.name)
    decoded = {places[name]: sound for name, sound in sounds.items()}
    command = _command(model, "decode", inversion)
    command["archive"] = hashlib.sha256(data).hexdigest()
    with _into(target, single, overwrite, command, [source]) as (folder, expect):
        if not single:
            _say_names(places, say, "note: writing")
        return _write(model, decoded, folder, expect, inversion, say)


def reconstruct_files(
    model: Model,
    source: Path | str,
    target: Path | str,
    *,
    inversion: Inversion = Inversion(),
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, float]:
    """A recording, or all below a folder → codes → WAVs of the same names at the model's rate.

    All keep their levels to each other, and no two become one file: see `decode_files`. Returns
    figures: see `archive.rates`. What cannot be read is said and left out; raises AudiovqError where
    nothing can, or where `target` is, or holds, one of the recordings.
    """
    source, target = Path(source), Path(target)
    recordings, others = _recordings(source)
    if single := not source.is_dir():
        if target.is_dir():
            target /= wav_names(recordings)[source.name]
        places = dict.fromkeys(recordings, target.name)
    else:
        places = wav_names(recordings)
    command = _command(model, "reconstruct", inversion)
    command["recordings"] = [[name, *_state(path)] for name, path in recordings.items()]
    inputs = [source, *recordings.values()]
    with _into(target, single, overwrite, command, inputs) as (folder, expect):
        _say_some(others, say)
        if not single:
            _say_names(places, say, "note: writing")
        sounds = _encoded(model, recordings, say)
        coded = {places[name]: sound for name, sound in sounds.items()}
        _write(model, coded, folder, expect, inversion, say)
    return archive.rates(model, sounds, archive.pack(model, sounds))


def _command(model: Model, verb: str, inversion: Inversion) -> dict[str, Any]:
    """What decides on what is written, short of what is read: see `files.filling`."""
    weights = model.header.get("autoencoder", {}).get("sha256")
    return {"verb": verb, "autoencoder": weights, **dataclasses.asdict(inversion)}


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file: equal where it was not written to. Zeros where it cannot be asked."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _into(
    target: Path, is_file: bool, overwrite: bool, command: Mapping[str, Any], inputs: Sequence[Path]
) -> Iterator[tuple[Path, Callable[..., None]]]:
    """The block may write `target`, a file or a folder.

    Gives the folder that it writes into, and what must be told the names below it before they are
    written. Raises AudiovqError where `target` is there already, unless `overwrite`, or is or holds one
    of `inputs`.
    """
    require_apart(target, *inputs)
    for folder in inputs:
        if folder.is_dir() and folder.resolve() in target.resolve().parents:
            raise AudiovqError(
                f"{target}: lies inside {folder}, which is read; name another folder"
            )
    if is_file:
        require_new(target, overwrite)
        yield target.parent, lambda *names: None
    else:
        with writing_into(target, overwrite, command, inputs) as filled:
            yield target, filled.expect


def _recordings(source: Path) -> tuple[dict[str, Path], list[str]]:
    """Name in an archive → path, of one recording or of all below a folder; a line on each other file."""
    if not source.is_dir():
        if not source.exists():
            raise AudiovqError(f"{source}: no such file or folder")
        return {source.name: source}, []
    names, others = finding.find(source)
    if not names:
        raise AudiovqError(
            f"{source}: holds no recordings ({', '.join(sorted(finding.SUFFIXES))})"
            + (f"; {len(others)} other files" if others else "")
        )
    left = [f"left out: {source / name}: {no_recording(source / name)}" for name in others]
    return {name: source / name for name in names}, left


def _say_some(lines: list[str], say: Say) -> None:
    """Say up to LISTED lines, and how many more there are."""
    for line in lines[:LISTED]:
        say(line)
    if len(lines) > LISTED:
        say(f"{lines[0].partition(':')[0]}: {len(lines) - LISTED} files more")


def _say_names(paths: Mapping[str, str], say: Say, words: str) -> None:
    """Say which of `wav_names` are not the plain ones, since those are taken or too long."""
    changed = {name: path for name, path in paths.items() if path != plain(name)}
    _say_some([f"{words} {name} as {path}" for name, path in changed.items()], say)


def _within(
    model: Model, recordings: Mapping[str, Path], rate: float, coder: Coder | None, say: Say
) -> tuple[dict[str, Encoded], bytes]:
    """Recordings → their codes and the archive of them, which takes at most `rate` bit/s.

    The weight of bits is chosen on excerpts. Where the whole takes more than they do, it is chosen
    again for a rate as much lower, until the whole fits. Raises AudiovqError with the least rate that
    is possible where it never does.
    """
    excerpts = _excerpts(model, recordings)
    aim = rate
    weight = archive.weight_within(model, excerpts, rate, coder) if excerpts else 0.0
    while True:
        sounds = _encoded(model, recordings, say, weight)
        data = archive.pack(model, sounds, coder)
        reached = archive.rates(model, sounds, data)["stored_bits_per_second"]
        if reached <= rate:
            return sounds, data
        if weight >= LARGEST_WEIGHT:
            raise AudiovqError(
                f"rate {rate:g}: these recordings take at least {math.ceil(reached)} bit/s with this"
                " model; give a higher one, or train a model with a smaller codebook"
            )
        recordings = {name: recordings[name] for name in sounds}  # what cannot be read is said once
        aim *= rate / reached
        higher = archive.weight_within(model, excerpts, aim, coder)
        weight = min(LARGEST_WEIGHT, max(higher, 1.1 * weight, 0.01))


def _encoded(
    model: Model, recordings: Mapping[str, Path], say: Say, rate_weight: float | None = None
) -> dict[str, Encoded]:
    """Recordings by name → their codes; those that cannot be read are said and left out."""
    sounds: dict[str, Encoded] = {}
    names, reason = list(recordings), ""
    with progress("encode", len(names), "files") as step:
        for begin in range(0, len(names), FILES):
            waveforms: dict[str, Waveform] = {}
            for name in names[begin : begin + FILES]:
                path = recordings[name]
                try:
                    if _is_long(model, path):
                        blocks = functools.partial(reading.blocks, path, model.sample_rate)
                        sounds[name] = windows.encode_blocks(model, blocks, rate_weight=rate_weight)
                    else:
                        waveform = reading.read(path, model.sample_rate)[0]
                        if not len(waveform):
                            rate = model.sample_rate
                            raise AudioError(f"is shorter than one sample at {rate} Hz")
                        waveforms[name] = waveform
                except AudioError as error:
                    reason = f"{path}: {error}"
                    if len(names) > 1:
                        say(f"left out: {reason}")
                step(1)
            encoded = codec.encode(model, list(waveforms.values()), rate_weight=rate_weight)
            sounds |= zip(waveforms, encoded, strict=True)
    if not sounds:
        raise AudiovqError(reason)
    return {name: sounds[name] for name in names if name in sounds}


def _is_long(model: Model, path: Path) -> bool:
    """Whether a recording is better not held in memory as a whole."""
    info = reading.info(path)
    samples = info.seconds * model.sample_rate
    return samples > inversion.BATCH_FRAMES * model.spectrogram.config.hop_length


def _excerpts(model: Model, recordings: Mapping[str, Path]) -> list[Waveform]:
    """The beginnings of up to RATE_FILES recordings, drawn at random: files in turn may be of two kinds."""
    paths = list(recordings.values())
    most = min(RATE_FILES, len(paths))
    longest = RATE_FRAMES // most * model.spectrogram.config.hop_length
    waveforms: list[Waveform] = []
    for path in paths if most == len(paths) else random.Random(0).sample(paths, len(paths)):
        with contextlib.suppress(AudioError):  # said when its turn comes
            first = next(reading.blocks(path, model.sample_rate))[:longest]
            waveforms += [first] if len(first) else []
        if len(waveforms) == most:
            break
    return waveforms


def _write(
    model: Model,
    sounds: Mapping[str, Encoded],
    folder: Path,
    expect: Callable[..., None],
    inversion: Inversion,
    say: Say,
) -> list[Path]:
    """Codes by the path of their WAV below `folder` → WAVs; returns their paths.

    Where one would go beyond full scale, all are turned down alike, so that their levels to each other
    stay. Until the loudest is known, samples wait in a file without a name in `folder`, which goes
    with the process; so a run that is killed leaves none of its WAVs, or some that are as they will
    be. A path that the system does not take is said and left out; raises AudiovqError where it takes
    none.
    """
    begins, peak, failed = [0], 0.0, None
    written: list[Path] = []
    with _spool(folder) as spool, progress("decode", len(sounds), "files") as step:
        for blocks in _decoded(model, list(sounds.values()), inversion):
            for block in blocks:
                peak = max(peak, peak_of(block))
                spool.write(block.astype("<f4").tobytes())
            begins.append(spool.tell())
            step(1)
        gain = writing.safe_gain(peak)
        expect(*sounds)
        for name, begin, end in zip(sounds, begins[:-1], begins[1:], strict=True):
            path = folder / name
            try:
                writing.write_blocks(path, _read(spool, begin, end), model.sample_rate, gain)
                written.append(path)
            except AudiovqError as error:
                if getattr(error.__cause__, "errno", None) not in BAD_NAME or len(sounds) == 1:
                    raise
                say(f"left out: {error}")
                failed = error
    if not written and failed:
        raise failed
    if gain < 1:
        who = "the sound was" if len(written) == 1 else f"all {len(written)} sounds were"
        say(
            f"note: {who} turned down by {-20 * math.log10(gain):.2f} dB, or the loudest would clip"
        )
    return written


def _decoded(
    model: Model, sounds: list[Encoded], inversion: Inversion
) -> Iterator[Iterable[Waveform]]:
    """The blocks of each sound's waveform, in order."""
    longest = windows.WINDOW_FRAMES * model.spectrogram.config.hop_length
    for begin in range(0, len(sounds), FILES):
        part = sounds[begin : begin + FILES]
        short = [number for number, sound in enumerate(part) if sound.num_samples < longest]
        decoded = codec.decode(model, [part[i] for i in short], inversion=inversion)
        whole = dict(zip(short, decoded, strict=True))
        for number, sound in enumerate(part):
            if number in whole:
                yield [whole[number]]
            else:
                yield windows.decode_blocks(model, sound, inversion=inversion)


@contextlib.contextmanager
def _spool(folder: Path) -> Iterator[IO[bytes]]:
    """A file in `folder` that has no name, and lies in memory while it is short."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.SpooledTemporaryFile(writing.SPOOLED, "w+b", dir=str(folder)) as spool:
            yield spool
    except OSError as error:
        raise AudiovqError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _read(spool: IO[bytes], begin: int, end: int) -> Iterator[Waveform]:
    """The samples in a part of a file, block by block."""
    for place in range(begin, end, 4 * reading.BLOCK):
        spool.seek(place)
        yield np.frombuffer(spool.read(min(4 * reading.BLOCK, end - place)), "<f4")


def _stays_inside(name: str) -> bool:
    """Whether a name in an archive leads to a file below any folder, on every system."""
    return bool(PurePosixPath(name).parts) and "\\" not in name and not escapes_folder(name)
