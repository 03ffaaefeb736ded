"""Generated sounds as WAV files with a manifest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiovq import __version__
from audiovq.audio import writing
from audiovq.audio.reading import read_recording
from audiovq.audio.waveform import Waveform
from audiovq.config.checks import require_count, require_seed
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation.edit import (
    Span,
    extend,
    repaint,
    require_strength,
    split_batches,
    vary,
)
from audiovq.generation.generate import MAX_TRIES, Batches, generate_images
from audiovq.generation.inpaint import CANDIDATES
from audiovq.generation.labels import Labels
from audiovq.generation.long import require_samples
from audiovq.generation.morph import morph
from audiovq.generation.sound import Sound, of_new_sounds
from audiovq.models.checkpoint import KNOWN
from audiovq.models.model import Model
from audiovq.runtime.files import name_of, sha256, write_json
from audiovq.runtime.outputs import OutputFolder, writing_into
from audiovq.runtime.progress import Say, progress
from audiovq.runtime.threads import fixed_threads
from audiovq.spectral.picture import write_images


@dataclass(frozen=True)
class Batch:
    """Sounds that are made and written together."""

    labels: Sequence[Mapping[str, str]]
    """Of each sound; known before the sounds are made, because they are part of the files' names."""
    make: Callable[[], list[Sound]]


def generate_files(
    model: Model,
    folder: Path | str,
    n: int = 16,
    labels: Labels | None = None,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    seed: int = 0,
    best_of: int = 1,
    seconds: float | None = None,
    loop: bool = False,
    keep_copies: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write `n` new sounds as WAVs, and `manifest.json`, which records how they were made.

    Files are named by number and label values, such as 0007_7_george.wav, and written batch by batch: the
    same call resumes a stopped run. A model of images writes PNGs and no manifest. Returns the files'
    paths. Raises AudiovqError as `Batches` does, before anything is written.
    """
    folder = Path(folder)
    made_with = {"n": n, "labels": dict(labels or {}), "best_of": best_of}
    if model.spectrogram.config.images:
        made_with = _made_with(model, "generate", seed, made_with, sampling)
        with (
            writing_into(folder, overwrite, made_with) as filled,
            progress("generate", n, "images") as step,
        ):
            images, rows = generate_images(
                model, n, labels, sampling=sampling, best_of=best_of, seed=seed, progress=step
            )
            return _write_images(filled, images, rows)
    batches = Batches(
        model,
        n,
        labels,
        sampling=sampling,
        inversion=inversion,
        best_of=best_of,
        seconds=seconds,
        loop=loop,
        seed=seed,
        keep_copies=keep_copies,
    )
    made_with |= {"seconds": seconds, "loop": loop, "keep_copies": keep_copies}
    made_with = _made_with(model, "generate", seed, made_with, sampling, inversion)
    with (
        writing_into(folder, overwrite, made_with) as filled,
        progress("generate", n, "sounds") as step,
    ):
        parts = (
            Batch(batches.labels(number), functools.partial(batches.make, number))
            for number in range(len(batches))
        )
        paths = _write_batches(model, filled, parts, made_with, say, step)
    if model.known is None and model.prior is not None:
        say("not checked for copies: this model comes without the codes of its training clips")
    return paths


def _write_images(
    filled: OutputFolder, images: Tensor, rows: Sequence[Mapping[str, str]]
) -> list[Path]:
    """Write images (n, 1, bins, frames) as PNGs named by their labels; returns their paths."""
    names = [name_of(i, row.values()) for i, row in enumerate(rows)]
    filled.expect(*(f"{name}.png" for name in names))
    return write_images(filled.folder, images, names)


def vary_files(
    model: Model,
    source: Path | str,
    folder: Path | str,
    n: int = 8,
    strength: float = 0.5,
    labels: Labels | None = None,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    seed: int = 0,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write `n` variations of a recording: see `edit.vary`. Files and errors as for `generate_files`; also
    raises AudiovqError where the recording cannot be read."""

    def make(waveform: Waveform, count: int, batch_seed: int) -> list[Sound]:
        return vary(
            model,
            waveform,
            count,
            strength,
            labels,
            sampling=sampling,
            inversion=inversion,
            seed=batch_seed,
        )

    require_strength(strength)
    edit = _Edit(model, Path(source), n, labels, make, masked=True)
    made_with = edit.made_with("vary", {"strength": strength}, sampling, inversion, seed)
    return edit.write(Path(folder), made_with, seed, overwrite, say)


def repaint_files(
    model: Model,
    source: Path | str,
    folder: Path | str,
    time: Span | None = None,
    band: Span | None = None,
    n: int = 8,
    labels: Labels | None = None,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    seed: int = 0,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write `n` versions of a recording with a region resampled: see `edit.repaint`. Files and errors as
    for `vary_files`."""

    def make(waveform: Waveform, count: int, batch_seed: int) -> list[Sound]:
        return repaint(
            model,
            waveform,
            time,
            band,
            labels,
            count,
            sampling=sampling,
            inversion=inversion,
            seed=batch_seed,
        )

    edit = _Edit(model, Path(source), n, labels, make, masked=True)
    region = {"time": time, "band": band}
    made_with = edit.made_with("repaint", region, sampling, inversion, seed)
    return edit.write(Path(folder), made_with, seed, overwrite, say)


def extend_files(
    model: Model,
    source: Path | str,
    folder: Path | str,
    seconds: float | None = None,
    n: int = 8,
    labels: Labels | None = None,
    *,
    sampling: SamplingConfig = SamplingConfig(),
    inversion: Inversion = Inversion(),
    seed: int = 0,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write `n` continuations of a recording: see `edit.extend`. Files and errors as for `vary_files`."""

    def make(waveform: Waveform, count: int, batch_seed: int) -> list[Sound]:
        return extend(
            model,
            waveform,
            seconds,
            labels,
            count,
            sampling=sampling,
            inversion=inversion,
            seed=batch_seed,
        )

    num_samples = 0 if seconds is None else require_samples(model, seconds)
    edit = _Edit(model, Path(source), n, labels, make, num_samples=num_samples)
    made_with = edit.made_with("continue", {"seconds": seconds}, sampling, inversion, seed)
    return edit.write(Path(folder), made_with, seed, overwrite, say)


def morph_files(
    model: Model,
    first: Path | str,
    second: Path | str,
    folder: Path | str,
    steps: int = 8,
    *,
    inversion: Inversion = Inversion(),
    seed: int = 0,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write `steps` sounds from one recording to another: see `morph.morph`. Files and errors as for
    `vary_files`."""
    require_seed(seed)
    sources = [Path(first), Path(second)]
    start, end = (read_recording(path, model.sample_rate) for path in sources)
    require_count(steps, "steps", 2)
    settings = {"sources": [path.name for path in sources], "steps": steps}
    made_with = _made_with(model, "morph", seed, settings, inversion=inversion)
    make = functools.partial(morph, model, start, end, steps, inversion=inversion, seed=seed)
    command = made_with | {"bytes": [sha256(path) for path in sources]}
    with writing_into(Path(folder), overwrite, command, sources) as filled:
        return _write_batches(model, filled, [Batch([{}] * steps, make)], made_with, say)


def write_sounds(
    model: Model,
    folder: Path,
    sounds: Sequence[Sound],
    sampling: SamplingConfig,
    seed: int,
    say: Say = print,
    overwrite: bool = False,
) -> list[Path]:
    """Write `sounds` as WAVs, and manifest.json, into `folder`; returns the WAVs' paths."""
    made_with = _made_with(model, "generate", seed, {}, sampling)
    command = {
        "verb": "write",
        "sounds": [hashlib.sha256(s.waveform.tobytes()).hexdigest() for s in sounds],
    }
    with writing_into(folder, overwrite, command) as filled:
        batch = Batch([sound.labels for sound in sounds], lambda: list(sounds))
        return _write_batches(model, filled, [batch], made_with, say)


@dataclass(frozen=True)
class _Edit:
    """`n` edits of one recording, made in batches by `make(waveform, size, seed)`."""

    model: Model
    source: Path
    n: int
    labels: Labels | None
    make: Callable[[Waveform, int, int], list[Sound]]
    num_samples: int = 0
    """Length of an edited sound where it exceeds the recording's."""
    masked: bool = False
    """Whether the masked prior suits the edit best."""

    def made_with(
        self,
        verb: str,
        settings: Mapping[str, Any],
        sampling: SamplingConfig,
        inversion: Inversion,
        seed: int,
    ) -> dict[str, Any]:
        """The manifest's record of how the sounds were made."""
        common = {"sources": [self.source.name], "n": self.n, "labels": dict(self.labels or {})}
        return _made_with(self.model, verb, seed, common | dict(settings), sampling, inversion)

    def write(
        self, folder: Path, made_with: Mapping[str, Any], seed: int, overwrite: bool, say: Say
    ) -> list[Path]:
        """Write the sounds into `folder`; returns the WAVs' paths."""
        waveform = read_recording(self.source, self.model.sample_rate)
        sizes = split_batches(self.model, self.n, max(len(waveform), self.num_samples), seed)
        if self.masked and self.model.masked is None:
            say(
                "note: the model has no masked prior; the autoregressive one resamples, keeping the best"
                f" of {CANDIDATES} samples"
            )
        labels = dict(self.labels or {})
        batches = [
            Batch([labels] * count, functools.partial(self.make, waveform, count, batch_seed))
            for count, batch_seed in sizes
        ]
        command = dict(made_with) | {"bytes": sha256(self.source)}
        with writing_into(folder, overwrite, command, [self.source]) as filled:
            return _write_batches(self.model, filled, batches, made_with, say)


def _made_with(
    model: Model,
    verb: str,
    seed: int,
    settings: Mapping[str, Any],
    sampling: SamplingConfig | None = None,
    inversion: Inversion | None = None,
) -> dict[str, Any]:
    """The manifest's record of how sounds were made. It holds no paths, so that it can be shared."""
    if inversion is not None:
        inversion = of_new_sounds(model, inversion)
    configs = [config for config in (sampling, inversion) if config is not None]
    parts = [
        part for part in ("autoencoder", "vivid", "prior", "masked", KNOWN) if part in model.header
    ]
    made_with: dict[str, Any] = {
        "version": __version__,
        "verb": verb,
        "seed": seed,
        "threads": fixed_threads(),
        **settings,
    }
    for config in configs:
        made_with |= dataclasses.asdict(config)
    return made_with | {part: model.header[part]["sha256"] for part in parts}


def _write_batches(
    model: Model,
    filled: OutputFolder,
    batches: Iterable[Batch],
    made_with: Mapping[str, Any],
    say: Say,
    step: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Write WAVs batch by batch, then manifest.json; sounds that a stopped run wrote are not made again.

    Returns the WAVs' paths.
    """
    names: list[str] = []
    for batch in batches:
        new = [f"{name_of(len(names) + i, r.values())}.wav" for i, r in enumerate(batch.labels)]
        names += new
        if any(filled.row(name) is None for name in new):
            sounds = batch.make()
            filled.expect(*new)
            for name, sound in zip(new, sounds, strict=True):
                if filled.row(name) is None:
                    limited = writing.write(filled.folder / name, sound.waveform, model.sample_rate)
                    filled.done(name, _row(model, name, sound, limited))
        step(len(new))
    rows = [filled.row(name) or {} for name in names]
    filled.expect("manifest.json")
    write_json(filled.folder / "manifest.json", {"made_with": made_with, "sounds": rows})
    if note := writing.limited_note(sum(bool(row.get("peak_limited")) for row in rows), len(rows)):
        say(note)
    if note := copies_note(rows):
        say(note)
    return [filled.folder / name for name in names]


def _row(model: Model, name: str, sound: Sound, limited: bool) -> dict[str, Any]:
    """A sound's entry in manifest.json."""
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
    """One line that counts the near copies of training clips in a manifest's rows, and those that were
    sampled again; "" where there are none."""
    count, again = sum(map(_is_copy, rows)), sum(row.get("tries", 1) > 1 for row in rows)
    are = "is a near copy" if count == 1 else "are near copies"
    if not again:
        note = f"{count} of {len(rows)} sounds {are} of training clips: see manifest.json"
        return note if count else ""
    were = (
        "was a near copy of a training clip" if again == 1 else "were near copies of training clips"
    )
    left = f"{count} still {are}, see manifest.json" if count else "no copies are left"
    return (
        f"{again} of {len(rows)} sounds {were}; sampled again, up to {MAX_TRIES} times each: {left}"
    )


def _is_copy(row: Mapping[str, Any]) -> bool:
    return bool(row.get("nearest_training_clip", {}).get("is_copy"))
