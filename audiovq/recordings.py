"""Files in, files out: recordings → archive, archive → recordings, and both at once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from audiovq import archive, audio, codec
from audiovq.audio import Waveform
from audiovq.checkpoint import Model
from audiovq.codec import Encoded
from audiovq.config import AudiovqError, require_phase
from audiovq.files import atomic, filling, require_new
from audiovq.header import leads_out
from audiovq.predictors import Coder
from audiovq.progress import progress
from audiovq.spectrogram import Phase

Say = Callable[[str], None]
FILES = 64
"""Recordings that are in memory at a time, long ones left out; their codes are small."""
RATE_FILES = 128
"""Recordings, evenly spread, by which the weight of bits is chosen for a rate,"""
RATE_FRAMES = 1 << 16
"""and frames of them in all: where they are long, their beginnings."""


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

    With `rate`, codes are chosen so that it takes about so many bits per second at most, judged by
    the beginnings of up to RATE_FILES recordings. Returns figures: see `archive.rates`. What cannot be read is
    said and left out; raises AudiovqError where nothing can, or where the rate cannot be met.
    """
    source, target = Path(source), Path(target)
    require_new(target, overwrite)
    if target.is_dir():
        raise AudiovqError(f"{target}: is a folder; name the archive, such as sounds.avq")
    recordings = _recordings(source)
    for name in [name for name in recordings if not _stays_inside(name)]:
        reason = f"{recordings.pop(name)}: no archive holds such a name; rename it"
        if not recordings:
            raise AudiovqError(reason)
        say(f"left out: {reason}")
    weight = None
    if rate is not None:
        excerpts = _excerpts(model, recordings)
        weight = archive.weight_within(model, excerpts, rate, coder) if excerpts else None
    sounds = _encoded(model, recordings, say, weight)
    data = archive.pack(model, sounds, coder)
    with atomic(target) as temporary:
        temporary.write_bytes(data)
    return archive.rates(model, sounds, data)


def decode_files(
    model: Model,
    source: Path | str,
    target: Path | str,
    *,
    phase: Phase = "pghi",
    n_iter: int | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """An archive → WAVs of the names that it holds, in the folder `target`.

    The sound of an archive that holds one goes into `target` itself where that ends in .wav.
    Returns the paths. Raises AudiovqError where the archive is damaged or of another model.
    """
    require_phase(phase, n_iter)
    source, target = Path(source), Path(target)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise AudiovqError(f"{source}: cannot be read ({error.strerror})") from error
    try:
        sounds = archive.unpack(model, data)
        paths = [_inside(target, name) for name in sounds]
    except AudiovqError as error:
        raise AudiovqError(f"{source}: {error}") from error
    if target.suffix.lower() == ".wav" and len(paths) == 1:
        paths = [target]
    decoded = dict(zip(paths, sounds.values(), strict=True))
    with _into(target, overwrite, is_file=paths == [target]):
        _write(model, decoded, phase, n_iter, say)
    return paths


def reconstruct_files(
    model: Model,
    source: Path | str,
    target: Path | str,
    *,
    phase: Phase = "pghi",
    n_iter: int | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, float]:
    """A recording, or all below a folder → codes → WAVs of the same names at the model's rate.

    Returns figures: see `archive.rates`. What cannot be read is said and left out; raises AudiovqError
    where nothing can.
    """
    require_phase(phase, n_iter)
    source, target = Path(source), Path(target)
    recordings = _recordings(source)
    if source.is_dir() or target.is_dir():
        places = {name: target / _wav_name(name) for name in recordings}
    else:
        places = dict.fromkeys(recordings, target)
    single = None if source.is_dir() else next(iter(places.values()))
    with _into(single or target, overwrite, is_file=single is not None):
        sounds = _encoded(model, recordings, say)
        _write(model, {places[name]: sound for name, sound in sounds.items()}, phase, n_iter, say)
    return archive.rates(model, sounds, archive.pack(model, sounds))


@contextlib.contextmanager
def _into(target: Path, overwrite: bool, is_file: bool) -> Iterator[None]:
    """The block may write `target`, a file or a folder."""
    if is_file:
        require_new(target, overwrite)
        yield
    else:
        with filling(target, overwrite):
            yield


def _recordings(source: Path) -> dict[str, Path]:
    """Name in an archive → path: of one recording, or of all below a folder."""
    if source.is_dir():
        names = audio.find(source)[0]
        if not names:
            raise AudiovqError(
                f"{source}: holds no recordings ({', '.join(sorted(audio.SUFFIXES))})"
            )
        return {name: source / name for name in names}
    if not source.exists():
        raise AudiovqError(f"{source}: no such file or folder")
    return {source.name: source}


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
                        blocks = functools.partial(audio.blocks, path, model.sample_rate)
                        sounds[name] = codec.encode_blocks(model, blocks, rate_weight=rate_weight)
                    else:
                        waveforms[name] = audio.read(path, model.sample_rate)[0]
                except audio.AudioError as error:
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
    info = audio.info(path)
    samples = info.seconds * model.sample_rate
    return samples > codec.BATCH_FRAMES * model.spectrogram.config.hop_length


def _excerpts(model: Model, recordings: Mapping[str, Path]) -> list[Waveform]:
    """The beginnings of up to RATE_FILES recordings, evenly spread."""
    paths = list(recordings.values())[:: -(-len(recordings) // RATE_FILES)]
    longest = RATE_FRAMES // len(paths) * model.spectrogram.config.hop_length
    waveforms = []
    for path in paths:
        with contextlib.suppress(audio.AudioError):  # said when its turn comes
            waveforms.append(next(audio.blocks(path, model.sample_rate))[:longest])
    return waveforms


def _write(
    model: Model, sounds: Mapping[Path, Encoded], phase: Phase, n_iter: int | None, say: Say
) -> None:
    """Codes by path → WAVs."""
    paths, limited = list(sounds), 0
    longest = codec.WINDOW_FRAMES * model.spectrogram.config.hop_length
    with progress("decode", len(paths), "files") as step:
        for begin in range(0, len(paths), FILES):
            part = paths[begin : begin + FILES]
            short = [path for path in part if sounds[path].num_samples < longest]
            decoded = codec.decode(model, [sounds[p] for p in short], phase=phase, n_iter=n_iter)
            blocks = {path: [waveform] for path, waveform in zip(short, decoded, strict=True)}
            for path in part:
                whole = blocks.get(path)
                long = codec.decode_blocks(model, sounds[path], phase=phase, n_iter=n_iter)
                limited += audio.write_blocks(path, whole or long, model.sample_rate)
                step(1)
    if note := audio.limited_note(limited, len(paths)):
        say(note)


def _wav_name(name: str) -> str:
    """a.wav stays; a.flac becomes a.flac.wav, so that both can lie in one folder."""
    return name if PurePosixPath(name).suffix.lower() == ".wav" else name + ".wav"


def _inside(folder: Path, name: str) -> Path:
    """The path of a name in an archive; raises AudiovqError where it leads out of the folder."""
    if not _stays_inside(name):
        raise AudiovqError(f"holds a sound named {name!r}, which leads out of the folder")
    return folder / _wav_name(name)


def _stays_inside(name: str) -> bool:
    """Whether a name in an archive leads to a file below any folder, on every system."""
    return bool(PurePosixPath(name).parts) and "\\" not in name and not leads_out(name)
