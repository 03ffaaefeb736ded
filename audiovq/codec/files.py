"""Encode files to an archive, decode an archive to files, or both at once."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from audiovq.audio import finding, writing
from audiovq.audio.finding import no_recording
from audiovq.audio.waveform import Waveform, peak_of
from audiovq.codec import archive, codec
from audiovq.codec.names import plain, wav_names
from audiovq.codec.probabilities import Coder
from audiovq.codec.recordings import FILES, encode_recordings, encode_within_rate
from audiovq.codec.windows import Encoded, Limits, decode_blocks
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion
from audiovq.models.model import Model
from audiovq.runtime.checksums import escapes_folder
from audiovq.runtime.files import (
    UNFINISHED,
    WRITTEN,
    atomic,
    cannot_write,
    read_bytes,
    require_apart,
    require_new,
    require_outside,
)
from audiovq.runtime.outputs import writing_into
from audiovq.runtime.progress import Say, progress

LISTED = 10
"""Lines of one kind that are printed; further ones are counted."""
BAD_NAME = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ, errno.ELOOP}
)
"""System errors caused by the name of one file; others can still be written."""


def encode_files(
    model: Model,
    source: Path | str,
    target: Path | str,
    *,
    coder: Coder | None = None,
    rate: float | None = None,
    overwrite: bool = False,
    limits: Limits = Limits(),
    say: Say = print,
) -> dict[str, float]:
    """Encode a recording, or all below a folder, to one archive `target`, which keeps their names.

    Args:
        model: with context tables or a prior, if `coder` needs them.
        source: file or folder.
        target: the archive.
        coder: see `probabilities.CODERS`; None: `context` if the model has its tables, else `plain`.
        rate: bit/s that the archive may take at most.
        overwrite: replace `target`.
        limits: sizes that bound the memory.
        say: is called with every line for the user; each file that is left out is named with the reason.

    Returns:
        Rates: see `archive.rates`.

    Raises:
        AudiovqError: the model is one of images, nothing can be encoded, the rate cannot be met (with the lowest
            possible one), or `target` is one of the recordings.
    """
    model.spectrogram.require_sound()
    source, target = Path(source), Path(target)
    if rate is not None and not 0 < rate < math.inf:
        raise AudiovqError(f"rate {rate:g}: give bits per second above 0")
    require_new(target, overwrite)
    if target.is_dir():
        raise AudiovqError(f"{target}: is a folder; give a file name such as sounds.avq")
    recordings, others = _recordings(source)
    unnamed = []
    for name in [name for name in recordings if not _is_safe(name)]:
        reason = (
            f"{recordings.pop(name)}: this name cannot be stored in an archive; rename the file"
        )
        if not recordings:
            raise AudiovqError(reason)
        unnamed.append(f"left out: {reason}")
    require_apart(target, *recordings.values())
    _say_some(others, say)
    _say_some(unnamed, say)
    _say_names(wav_names(recordings), say, "note: decode will write")
    if rate is None:
        sounds = encode_recordings(model, recordings, say, limits=limits)
        data = archive.pack(model, sounds, coder)
    else:
        sounds, data = encode_within_rate(model, recordings, rate, coder, say, limits)
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
    limits: Limits = Limits(),
    say: Say = print,
) -> list[Path]:
    """Decode an archive to WAVs in the folder `target`, under the names that it holds.

    If the archive holds one sound and `target` ends in .wav, the sound is written to `target` itself. The
    sounds keep their relative levels: see `_write`. Names that would be the same file on some system are
    numbered, with a note. Returns the paths. Raises AudiovqError if the archive is damaged or of another
    model.
    """
    source, target = Path(source), Path(target)
    data = read_bytes(source)
    try:
        sounds = archive.unpack(model, data)
        for name in sounds:
            if not _is_safe(name):
                raise AudiovqError(
                    f"contains the file name {name!r:.80}, which points outside the folder"
                )
            if PurePosixPath(name).parts[0].casefold() in (UNFINISHED, WRITTEN):
                raise AudiovqError(f"contains the file name {name!r:.80}, which audiovq reserves")
    except AudiovqError as error:
        raise AudiovqError(f"{source}: {error}") from error
    paths = wav_names(sounds)
    _require_wav(target)
    is_file = target.suffix.lower() == ".wav" and not target.is_dir()
    if is_file and len(paths) > 1:
        raise AudiovqError(f"{target}: {source} holds {len(paths)} recordings; give a folder")
    single = is_file and len(paths) == 1
    if single:
        paths = dict.fromkeys(paths, target.name)
    by_path = {paths[name]: sound for name, sound in sounds.items()}
    command = _command(model, "decode", inversion)
    command["archive"] = hashlib.sha256(data).hexdigest()
    with _into(target, single, overwrite, command, [source]) as (folder, expect):
        if not single:
            _say_names(paths, say, "note: writing")
        return _write(model, by_path, folder, expect, inversion, limits, say)


def reconstruct_files(
    model: Model,
    source: Path | str,
    target: Path | str,
    *,
    inversion: Inversion = Inversion(),
    overwrite: bool = False,
    limits: Limits = Limits(),
    say: Say = print,
) -> dict[str, float]:
    """Encode and decode a recording, or all below a folder, to WAVs of the same names at the model's rate.

    The sounds keep their relative levels, and names are numbered as in `decode_files`. Returns rates: see
    `archive.rates`. Files that cannot be read are named and left out. Raises AudiovqError if none can be
    read, if `target` is, or holds, one of the recordings, or if the model is one of images.
    """
    model.spectrogram.require_sound()
    source, target = Path(source), Path(target)
    recordings, others = _recordings(source)
    _require_wav(target)
    if single := not source.is_dir():
        if target.suffix.lower() != ".wav" or target.is_dir():  # a folder, perhaps a new one
            target /= wav_names(recordings)[source.name]
        paths = dict.fromkeys(recordings, target.name)
    else:
        paths = wav_names(recordings)
    command = _command(model, "reconstruct", inversion)
    command["recordings"] = [[name, *_state(path)] for name, path in recordings.items()]
    inputs = [source, *recordings.values()]
    with _into(target, single, overwrite, command, inputs) as (folder, expect):
        _say_some(others, say)
        if not single:
            _say_names(paths, say, "note: writing")
        sounds = encode_recordings(model, recordings, say, limits=limits)
        by_path = {paths[name]: sound for name, sound in sounds.items()}
        _write(model, by_path, folder, expect, inversion, limits, say)
    return archive.rates(model, sounds, archive.pack(model, sounds))


def _require_wav(target: Path) -> None:
    """Raise AudiovqError where `target` is named as a recording of another format than WAV."""
    is_other = finding.is_recording(target.name) and target.suffix.lower() != ".wav"
    if is_other and not target.is_dir():
        raise AudiovqError(f"{target}: sounds are written as WAVs; give a .wav, or a folder")


def _command(model: Model, verb: str, inversion: Inversion) -> dict[str, Any]:
    """The settings that determine the output, apart from the inputs: see `outputs.writing_into`."""
    parts = ["autoencoder", *(["vivid"] if inversion.decoder == "vivid" else [])]
    weights = {part: model.header.get(part, {}).get("sha256") for part in parts}
    return {"verb": verb, **weights, **dataclasses.asdict(inversion)}


def _state(path: Path) -> tuple[int, int]:
    """Size and modification time of a file, to see whether it changed; zeros if they cannot be read."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _into(
    target: Path, is_file: bool, overwrite: bool, command: Mapping[str, Any], inputs: Sequence[Path]
) -> Iterator[tuple[Path, Callable[..., None]]]:
    """Prepare `target`, a file or a folder, for being written in the block.

    Yields the folder to write into, and a function to call with the names below it before they are
    written. Raises AudiovqError if `target` exists, unless `overwrite`, or is or holds one of `inputs`.
    """
    require_apart(target, *inputs)
    require_outside(target, *inputs)
    if is_file:
        require_new(target, overwrite)
        yield target.parent, lambda *names: None
    else:
        with writing_into(target, overwrite, command, inputs) as filled:
            yield target, filled.expect


def _recordings(source: Path) -> tuple[dict[str, Path], list[str]]:
    """Name in an archive → path of a recording, or of all below a folder; and a line on each other file."""
    if not source.is_dir():
        if not source.exists():
            raise AudiovqError(f"{source}: no such file or folder")
        return {source.name: source}, []
    names, others = finding.find(source)
    if not names:
        raise AudiovqError(
            f"{source}: holds no recordings ({finding.KINDS})"
            + (f"; {len(others)} other file{'s' * (len(others) != 1)}" if others else "")
        )
    left = [f"left out: {source / name}: {no_recording(source / name)}" for name in others]
    return {name: source / name for name in names}, left


def _say_some(lines: list[str], say: Say) -> None:
    """Say the first LISTED lines and the number of the others."""
    for line in lines[:LISTED]:
        say(line)
    if len(lines) > LISTED:
        say(f"{lines[0].partition(':')[0]}: {len(lines) - LISTED} more files")


def _say_names(paths: Mapping[str, str], say: Say, words: str) -> None:
    """Say which of `wav_names` were changed, because the plain name was taken or too long."""
    changed = {name: path for name, path in paths.items() if path != plain(name)}
    _say_some([f"{words} {name} as {path}" for name, path in changed.items()], say)


def _write(
    model: Model,
    sounds: Mapping[str, Encoded],
    folder: Path,
    expect: Callable[..., None],
    inversion: Inversion,
    limits: Limits,
    say: Say,
) -> list[Path]:
    """Decode sounds (path below `folder` → codes) and write them as WAVs. Returns the paths.

    If one would clip, all are turned down by the same gain, which keeps their relative levels. Until the
    loudest is known, samples are kept in an unnamed temporary file in `folder`; so a run that is killed
    leaves only finished WAVs. Paths that the system rejects are named and left out; raises AudiovqError
    if it rejects all.
    """
    begins, peak, failed = [0], 0.0, None
    # Seconds of sound, as one long recording takes longer than many short ones.
    total, rate = sum(sound.num_samples for sound in sounds.values()), model.sample_rate
    done = 0
    written: list[Path] = []
    with _spool(folder) as spool, progress("decode", total // rate, "s of sound") as step:
        for blocks in _decoded(model, list(sounds.values()), inversion, limits):
            for block in blocks:
                peak = max(peak, peak_of(block))
                spool.write(writing.interleaved(block))
                before, done = done, done + block.shape[-1]
                step(done // rate - before // rate)
            begins.append(spool.tell())
        gain = writing.safe_gain(peak)
        expect(*sounds)
        for name, begin, end in zip(sounds, begins[:-1], begins[1:], strict=True):
            path = folder / name
            try:
                blocks = _read(spool, begin, end, limits.block_samples, model.channels)
                writing.write_blocks(path, blocks, model.sample_rate, gain)
                written.append(path)
            except AudiovqError as error:
                if getattr(error.__cause__, "errno", None) not in BAD_NAME or len(sounds) == 1:
                    raise
                say(f"left out: {error}")
                failed = error
    if not written and failed:
        raise failed
    if gain < 1:
        subject = "the sound was" if len(written) == 1 else f"all {len(written)} sounds were"
        say(f"note: {subject} turned down by {-20 * math.log10(gain):.2f} dB to prevent clipping")
    return written


def _decoded(
    model: Model, sounds: list[Encoded], inversion: Inversion, limits: Limits
) -> Iterator[Iterable[Waveform]]:
    """The waveform of each sound, in order, as blocks (samples,) or (2, samples)."""
    longest = limits.window_frames * model.spectrogram.config.hop_length
    for begin in range(0, len(sounds), FILES):
        part = sounds[begin : begin + FILES]
        short = [index for index, sound in enumerate(part) if sound.num_samples < longest]
        batch = [part[index] for index in short]
        waveforms = codec.decode(model, batch, inversion=inversion, limits=limits)
        decoded = dict(zip(short, waveforms, strict=True))
        for index, sound in enumerate(part):
            if index in decoded:
                yield [decoded[index]]
            else:
                yield decode_blocks(model, sound, inversion=inversion, limits=limits)


@contextlib.contextmanager
def _spool(folder: Path) -> Iterator[IO[bytes]]:
    """An unnamed temporary file in `folder`, kept in memory while it is short."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.SpooledTemporaryFile(writing.SPOOLED, "w+b", dir=str(folder)) as spool:
            yield spool
    except OSError as error:
        raise cannot_write(folder, error) from error


def _read(
    spool: IO[bytes], begin: int, end: int, block_samples: int, channels: int
) -> Iterator[Waveform]:
    """The samples in bytes `begin` to `end` of a file, block by block, as `writing.interleaved` made them."""
    step = 4 * channels * block_samples
    for offset in range(begin, end, step):
        spool.seek(offset)
        samples = np.frombuffer(spool.read(min(step, end - offset)), "<f4")
        yield samples if channels == 1 else samples.reshape(-1, channels).T


def _is_safe(name: str) -> bool:
    """Whether a name in an archive is a path that stays in its folder on every system."""
    return bool(PurePosixPath(name).parts) and "\\" not in name and not escapes_folder(name)
