"""Generated sounds as WAV files with a manifest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from audiovq import __version__
from audiovq.audio import writing
from audiovq.audio.reading import read_recording
from audiovq.config.checks import require_count, require_seed
from audiovq.config.settings import SamplingConfig
from audiovq.generation.edit import parts as play_parts
from audiovq.generation.edit import repaint, variations
from audiovq.generation.generate import TRIES, Batches, draw
from audiovq.generation.sound import Sound
from audiovq.models.checkpoint import KNOWN
from audiovq.models.model import Model
from audiovq.runtime.files import name_of, sha256, write_json
from audiovq.runtime.outputs import OutputFolder, writing_into
from audiovq.runtime.progress import Say, progress
from audiovq.spectral.picture import write_images
from audiovq.spectral.spectrogram import Phase


def generate_files(
    model: Model,
    folder: Path | str,
    n: int = 16,
    labels: Mapping[str, str] | None = None,
    *,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    phase: Phase = "pghi",
    n_iter: int | None = None,
    best_of: int = 1,
    seconds: float | None = None,
    loop: bool = False,
    keep_copies: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write `n` new recordings and `manifest.json`, which tells what each was made with.

    Files are named by number and label values, as 0007_7_george.wav, and written batch by batch: the
    same call after a stop resumes. A model of images writes PNGs, and no manifest. Returns their
    paths. Raises AudiovqError as `Batches` does, before anything is written.
    """
    folder, sampling = Path(folder), sampling or SamplingConfig()
    if model.spectrogram.config.images:
        made_with = _made_with(model, sampling, seed, {"n": n, "labels": dict(labels or {})})
        with (
            writing_into(
                folder, overwrite, {"verb": "generate", "best_of": best_of, **made_with}
            ) as filled,
            progress("generate", n, "images") as step,
        ):
            images, named = draw(
                model, n, labels, sampling=sampling, best_of=best_of, seed=seed, progress=step
            )
            names = [name_of(i, row.values()) for i, row in enumerate(named)]
            filled.expect(*(f"{name}.png" for name in names))
            return write_images(folder, images, names)
    settings: dict[str, Any] = {
        "best_of": best_of,
        "seconds": seconds,
        "loop": loop,
        "phase": phase,
        "n_iter": n_iter,
        "keep_copies": keep_copies,
    }
    batches = Batches(model, n, labels, sampling=sampling, seed=seed, **settings)
    made_with = _made_with(model, sampling, seed, {"labels": dict(labels or {}), **settings})
    with (
        writing_into(folder, overwrite, {"verb": "generate", "n": n, **made_with}) as filled,
        progress("generate", n, "sounds") as step,
    ):
        parts = (
            (batches.labels(number), functools.partial(batches.make, number))
            for number in range(len(batches))
        )
        paths = _write_parts(model, filled, parts, made_with, say, step)
    if model.known is None and model.prior is not None:
        say("not checked for copies: this model comes without the codes of its training clips")
    return paths


def play_files(
    model: Model,
    sources: Sequence[Path],
    folder: Path | str,
    play: Callable[..., list[Sound]],
    *,
    n: int | None = None,
    labels: Mapping[str, str] | None = None,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = print,
    **asked: Any,
) -> list[Path]:
    """Write what a function of `audiovq.play` makes of recordings, and manifest.json.

    `asked` are its other arguments; `n`, where it takes a number of sounds, and `labels` are as its
    own. Sounds are written batch by batch: the same call after a stop resumes. Says so where a prior
    in time order stands in for a masked one, which the model lacks. Returns the WAVs' paths. Raises
    AudiovqError where a recording cannot be read, or an argument is out of its range.
    """
    folder, sampling = Path(folder), sampling or SamplingConfig()
    require_seed(seed)
    waveforms = [read_recording(path, model.sample_rate) for path in sources]
    if play in (repaint, variations) and model.masked is None:
        say("the model has no masked prior: the one in time order paints, the best of a few tries")
    settings = {"play": play.__name__, "sources": [path.name for path in sources], **asked}
    call = functools.partial(play, model, *waveforms, **asked)
    parts: list[Part]
    if n is None:
        require_count(asked["steps"], "steps", 2)
        parts = [([{}] * asked["steps"], functools.partial(call, seed=seed))]
    else:
        settings |= {"n": n, "labels": dict(labels or {})}
        chunks = play_parts(model, n, len(waveforms[0]), asked.get("seconds"), seed)
        parts = [
            (
                [dict(labels or {})] * count,
                functools.partial(call, n=count, labels=labels, sampling=sampling, seed=own),
            )
            for count, own in chunks
        ]
    made_with = _made_with(model, sampling, seed, settings)
    command = {"verb": "play", "bytes": [sha256(path) for path in sources], **made_with}
    with writing_into(folder, overwrite, command, sources) as filled:
        return _write_parts(model, filled, parts, made_with, say)


def write_sounds(
    model: Model,
    folder: Path,
    sounds: Sequence[Sound],
    sampling: SamplingConfig,
    seed: int,
    say: Say = print,
    overwrite: bool = False,
) -> list[Path]:
    """Sounds → WAVs and manifest.json in `folder`; returns the WAVs' paths."""
    made_with = _made_with(model, sampling, seed, {})
    command = {
        "verb": "write",
        "sounds": [hashlib.sha256(s.waveform.tobytes()).hexdigest() for s in sounds],
    }
    with writing_into(folder, overwrite, command) as filled:
        part = [sound.labels for sound in sounds], lambda: list(sounds)
        return _write_parts(model, filled, [part], made_with, say)


def _made_with(
    model: Model, sampling: SamplingConfig, seed: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What a manifest tells of how sounds were made: no paths, so that it can be shared."""
    return {
        "version": __version__,
        "seed": seed,
        **dataclasses.asdict(sampling),
        **settings,
        **{
            part: model.header[part]["sha256"]
            for part in ("autoencoder", "prior", "masked", KNOWN)
            if part in model.header
        },
    }


Part = tuple[Sequence[Mapping[str, str]], Callable[[], list[Sound]]]
"""The labels of some sounds, and what makes them."""


def _write_parts(
    model: Model,
    filled: OutputFolder,
    parts: Iterable[Part],
    made_with: Mapping[str, Any],
    say: Say,
    step: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Sounds → WAVs and manifest.json, part by part; those that a stopped run wrote are not made again.

    Returns the WAVs' paths.
    """
    names: list[str] = []
    for labels, make in parts:
        own = [f"{name_of(len(names) + i, r.values())}.wav" for i, r in enumerate(labels)]
        names += own
        if any(filled.row(name) is None for name in own):
            sounds = make()
            filled.expect(*own)
            for name, sound in zip(own, sounds, strict=True):
                if filled.row(name) is None:
                    limited = writing.write(filled.folder / name, sound.waveform, model.sample_rate)
                    filled.done(name, _row(model, name, sound, limited))
        step(len(own))
    rows = [filled.row(name) or {} for name in names]
    filled.expect("manifest.json")
    write_json(filled.folder / "manifest.json", {"made_with": made_with, "sounds": rows})
    if note := writing.limited_note(sum(bool(row.get("peak_limited")) for row in rows), len(rows)):
        say(note)
    if note := copies_note(rows):
        say(note)
    return [filled.folder / name for name in names]


def _row(model: Model, name: str, sound: Sound, limited: bool) -> dict[str, Any]:
    """What manifest.json tells of a sound."""
    row = {
        "file": name,
        "labels": sound.labels,
        "seconds": round(len(sound.waveform) / model.sample_rate, 4),
        "level_db": float(model.spectrogram.level_db(torch.tensor(sound.encoded.level))),
        "peak_limited": limited,
    }
    if sound.nearest is not None:
        row["nearest_training_clip"] = {
            "file": sound.nearest.path,
            "seconds": round(sound.nearest.offset / model.sample_rate, 4),
            "codes_shared": round(sound.nearest.share, 4),
            "db": round(sound.nearest.db, 2),
            "is_copy": sound.nearest.is_copy,
        }
    if sound.tries > 1:
        row["tries"] = sound.tries
    return row


def copies_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of the sounds in a manifest's rows are near copies of training clips, or were before they
    were drawn again, in a line; "" where none are."""
    count, again = sum(map(_is_copy, rows)), sum(row.get("tries", 1) > 1 for row in rows)
    are = "is a near copy" if count == 1 else "are near copies"
    if not again:
        note = f"{count} of {len(rows)} sounds {are} of training clips: see manifest.json"
        return note if count else ""
    were = "was a near copy" if again == 1 else "were near copies"
    left = f"{count} still {are}, see manifest.json" if count else "none is any more"
    return f"{again} of {len(rows)} sounds {were} of training clips; drawn again up to {TRIES} times, {left}"


def _is_copy(row: Mapping[str, Any]) -> bool:
    return bool(row.get("nearest_training_clip", {}).get("is_copy"))
