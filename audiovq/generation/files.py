"""Generated sounds as WAV files with a manifest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiovq import __version__
from audiovq.audio import chunks, writing
from audiovq.audio.chunks import Tags
from audiovq.audio.notes import root_of, tempo_of
from audiovq.audio.reading import bits_of, read_recording
from audiovq.audio.waveform import Waveform, peak_of
from audiovq.config.checks import derived_seed, require_count, require_seed
from audiovq.config.errors import AudiovqError
from audiovq.config.output import Bars, OutputConfig
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation.edit import (
    Span,
    extend,
    repaint,
    require_strength,
    split_batches,
    vary,
    with_original,
)
from audiovq.generation.generate import MAX_TRIES, Batches, generate_images
from audiovq.generation.inpaint import CANDIDATES
from audiovq.generation.labels import Labels
from audiovq.generation.long import require_samples
from audiovq.generation.morph import morph
from audiovq.generation.sound import Sound, of_new_sounds
from audiovq.models.checkpoint import KNOWN
from audiovq.models.model import Model
from audiovq.runtime.files import name_of, read_object, sha256, write_json
from audiovq.runtime.outputs import OutputFolder, earlier_files, writing_into
from audiovq.runtime.progress import Say, progress
from audiovq.runtime.threads import fixed_threads
from audiovq.spectral.loudness import SILENT, integrated_loudness
from audiovq.spectral.picture import write_images

MANIFEST = "manifest.json"


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
    bars: Bars | None = None,
    each: int | None = None,
    by: str | None = None,
    keep_copies: bool = False,
    output: OutputConfig = OutputConfig(),
    more: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write `n` new sounds as WAVs, and `manifest.json`, which records how they were made.

    Files are named by number and label values, such as 0007_7_george.wav, and written batch by batch: the
    same call resumes a stopped run. With `more`, other sounds are added to those of an earlier call, numbered after
    them. A model of images writes PNGs and no manifest. Returns the new files' paths. Raises AudiovqError as
    `Batches` does, before anything is written.
    """
    folder, is_images = Path(folder), model.spectrogram.config.images
    if more and (overwrite or is_images):
        reason = "images have none" if is_images else "leave out --overwrite"
        raise AudiovqError(f"more: adds to the manifest of earlier sounds; {reason}")
    settings: dict[str, Any] = {"n": n, "labels": dict(labels or {}), "best_of": best_of}
    settings |= {} if each is None else {"each": each, "by": by}
    if is_images:
        made_with = manifest_record(model, "generate", seed, settings, sampling)
        values = n, labels, sampling, best_of, each, by, seed
        return _generate_images(model, folder, made_with, overwrite, *values)
    earlier = earlier_files(folder) if more else []
    start = sum(name != MANIFEST for name in earlier)
    if start and not (folder / MANIFEST).exists():
        raise AudiovqError(f"{folder}: has no {MANIFEST}; --more adds to sounds of generate")
    batches = Batches(
        model,
        n,
        labels,
        sampling=sampling,
        inversion=inversion,
        best_of=best_of,
        seconds=seconds,
        loop=loop,
        bars=bars,
        each=each,
        by=by,
        seed=derived_seed(seed, 600_000 + start) if start else seed,
        keep_copies=keep_copies,
    )
    settings |= {"seconds": seconds, "loop": loop, "keep_copies": keep_copies}
    settings |= {} if bars is None else {"bars": dataclasses.asdict(bars)}
    settings |= {"start": start} if start else {}
    made_with = manifest_record(model, "generate", seed, settings, sampling, inversion, output)
    if start:
        _require_same_model(folder, made_with)
    paths = _write_new(model, folder, batches, made_with, output, overwrite, earlier, start, say)
    if model.known is None and model.prior is not None:
        say("not checked for copies: this model comes without the codes of its training clips")
    return paths


def _require_same_model(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Raise AudiovqError if the sounds in `folder` were made by another model, perhaps at another sample rate."""
    before = read_object(folder / MANIFEST, "a folder of generated sounds").get("made_with")
    parts = [part for part in ("autoencoder", "prior") if part in made_with]
    if not isinstance(before, dict) or any(before.get(part) != made_with[part] for part in parts):
        raise AudiovqError(f"{folder}: its sounds are of another model; give --more another folder")


def _write_new(
    model: Model,
    folder: Path,
    batches: Batches,
    made_with: Mapping[str, Any],
    output: OutputConfig,
    overwrite: bool,
    earlier: Sequence[str],
    start: int,
    say: Say,
) -> list[Path]:
    """Write new sounds beside the `start` sounds among `earlier` files; returns their paths."""
    total = sum(len(batches.labels(number)) for number in range(len(batches)))
    with (
        writing_into(folder, overwrite, made_with, kept=earlier) as filled,
        progress("generate", total, "sounds") as step,
    ):
        parts = (
            Batch(batches.labels(number), functools.partial(batches.make, number))
            for number in range(len(batches))
        )
        return Run(model, filled, made_with, output, say, start).write(parts, step)


def _generate_images(
    model: Model,
    folder: Path,
    made_with: Mapping[str, Any],
    overwrite: bool,
    n: int,
    labels: Labels | None,
    sampling: SamplingConfig,
    best_of: int,
    each: int | None,
    by: str | None,
    seed: int,
) -> list[Path]:
    """`generate_files` for a model of images."""
    with (
        writing_into(folder, overwrite, made_with) as filled,
        progress("generate", n, "images") as step,
    ):
        images, rows = generate_images(
            model,
            n,
            labels,
            sampling=sampling,
            best_of=best_of,
            each=each,
            by=by,
            seed=seed,
            progress=step,
        )
        return _write_images(filled, images, rows)


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
    output: OutputConfig = OutputConfig(),
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
    made_with = edit.made_with("vary", {"strength": strength}, sampling, inversion, seed, output)
    return edit.write(Path(folder), made_with, seed, output, overwrite, say)


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
    output: OutputConfig = OutputConfig(),
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
    made_with = edit.made_with("repaint", region, sampling, inversion, seed, output)
    return edit.write(Path(folder), made_with, seed, output, overwrite, say)


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
    output: OutputConfig = OutputConfig(),
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
    made_with = edit.made_with("continue", {"seconds": seconds}, sampling, inversion, seed, output)
    return edit.write(Path(folder), made_with, seed, output, overwrite, say)


def morph_files(
    model: Model,
    first: Path | str,
    second: Path | str,
    folder: Path | str,
    steps: int = 8,
    *,
    inversion: Inversion = Inversion(),
    seed: int = 0,
    output: OutputConfig = OutputConfig(),
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write `steps` sounds from one recording to another: see `morph.morph`. Files and errors as for
    `vary_files`."""
    require_seed(seed)
    sources = [Path(first), Path(second)]
    start, end = (read_recording(path, model.sample_rate, model.channels) for path in sources)
    require_count(steps, "steps", 2)
    settings = {"sources": [path.name for path in sources], "steps": steps}
    made_with = manifest_record(model, "morph", seed, settings, inversion=inversion, output=output)
    make = functools.partial(morph, model, start, end, steps, inversion=inversion, seed=seed)
    command = made_with | {"bytes": [sha256(path) for path in sources]}
    with writing_into(Path(folder), overwrite, command, sources) as filled:
        return Run(model, filled, made_with, output, say).write([Batch([{}] * steps, make)])


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
    made_with = manifest_record(model, "generate", seed, {}, sampling)
    command = {
        "verb": "write",
        "sounds": [hashlib.sha256(s.waveform.tobytes()).hexdigest() for s in sounds],
    }
    with writing_into(folder, overwrite, command) as filled:
        batch = Batch([sound.labels for sound in sounds], lambda: list(sounds))
        return Run(model, filled, made_with, OutputConfig(), say).write([batch])


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
        output: OutputConfig,
    ) -> dict[str, Any]:
        """The manifest's record of how the sounds were made."""
        settings = {
            "sources": [self.source.name],
            "n": self.n,
            "labels": dict(self.labels or {}),
            **settings,
        }
        return manifest_record(self.model, verb, seed, settings, sampling, inversion, output)

    def write(
        self,
        folder: Path,
        made_with: Mapping[str, Any],
        seed: int,
        output: OutputConfig,
        overwrite: bool,
        say: Say,
    ) -> list[Path]:
        """Write the sounds into `folder`; returns the WAVs' paths."""
        waveform = read_recording(self.source, self.model.sample_rate, self.model.channels)
        sizes = split_batches(self.model, self.n, max(waveform.shape[-1], self.num_samples), seed)
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
        if output.bits == "auto":
            bits = bits_of(self.source)
            bits = "24" if (output.format, bits) == ("flac", "32f") else bits
            output = dataclasses.replace(output, bits=bits)
        with writing_into(folder, overwrite, command, [self.source]) as filled:
            keeps_length = made_with["verb"] == "repaint"
            run = Run(self.model, filled, made_with, output, say, 0, self.source, keeps_length)
            return run.write(batches)


def manifest_record(
    model: Model,
    verb: str,
    seed: int,
    settings: Mapping[str, Any],
    sampling: SamplingConfig | None = None,
    inversion: Inversion | None = None,
    output: OutputConfig = OutputConfig(),
) -> dict[str, Any]:
    """The manifest's record of how sounds were made. It holds no paths, so that it can be shared."""
    if inversion is not None:
        inversion = of_new_sounds(model, inversion)
    configs = [config for config in (sampling, inversion, output) if config is not None]
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


@dataclass(frozen=True)
class Run:
    """A run of a verb that writes sounds into a folder, and what its files share."""

    model: Model
    filled: OutputFolder
    made_with: Mapping[str, Any]
    output: OutputConfig
    say: Say
    start: int = 0
    """Number of sounds of earlier runs, which it adds to."""
    source: Path | None = None
    """The recording that sounds keep samples of."""
    keeps_length: bool = False
    """Whether they are as long as the recording, so that they have its loop, tempo and root note, too."""

    def write(
        self, batches: Iterable[Batch], step: Callable[[int], object] = lambda _: None
    ) -> list[Path]:
        """Write sounds batch by batch, then manifest.json; sounds that a stopped run wrote are not made again.

        Returns the sounds' paths.
        """
        names: list[str] = []
        for batch in batches:
            first = self.start + len(names)
            stems = [name_of(first + i, row.values()) for i, row in enumerate(batch.labels)]
            new = [f"{stem}.{self.output.format}" for stem in stems]
            names += new
            if any(self.filled.row(name) is None for name in new):
                sounds = batch.make()
                self.write_sounds(new, sounds)
            step(len(new))
        return self.finish(names)

    def write_sounds(self, names: Sequence[str], sounds: Sequence[Sound]) -> None:
        """Write those of the sounds that are not written yet, under these names."""
        self.filled.expect(*names)
        for name, sound in zip(names, sounds, strict=True):
            if self.filled.row(name) is None:
                self.filled.done(name, self._write_one(name, sound))

    def finish(self, names: Sequence[str]) -> list[Path]:
        """Write manifest.json about the written sounds of these names; returns their paths."""
        filled = self.filled
        rows = [filled.row(name) or {} for name in names]
        filled.expect(MANIFEST)
        write_json(filled.folder / MANIFEST, self._manifest(rows))
        limited = sum(bool(row.get("peak_limited")) for row in rows)
        for note in (writing.limited_note(limited, len(rows)), copies_note(rows)):
            if note:
                self.say(note)
        return [filled.folder / name for name in names]

    def _write_one(self, name: str, sound: Sound) -> dict[str, Any]:
        """Write a sound; returns its entry in manifest.json."""
        rate, output = self.model.sample_rate, self.output
        if self.source is not None and sound.kept is not None:
            waveform, rate = with_original(sound.kept, sound.waveform, rate, self.source)
            sound = dataclasses.replace(sound, waveform=waveform)
        gain, limited = gain_of(sound, rate, output)
        bits = "16" if output.bits == "auto" else output.bits
        tags = self._tags(name, sound, np.float32(gain) * sound.waveform, rate)
        writing.write(self.filled.folder / name, sound.waveform, rate, gain, bits, tags)
        return _row(self.model, name, sound, limited, rate)

    def _tags(self, name: str, sound: Sound, waveform: Waveform, sample_rate: int) -> Tags:
        """What the file of a waveform states about its sound: its tags, root and tempo of its labels, and how it was
        made."""
        part = "prior" if "prior" in self.made_with else "autoencoder"
        words = [
            f"model {str(self.made_with.get(part, ''))[:8]}",
            f"seed {self.made_with['seed']}",
            *(f"{label} {value}" for label, value in sound.labels.items()),
        ]
        info = {"ISFT": f"audiovq {__version__}", "ICMT": ", ".join(words)}
        tags = sound.tags
        if self.source is not None and sound.kept is not None and self.keeps_length:
            known = chunks.read(self.source)
            tags = dataclasses.replace(known, bext=None, loudness=None)
        if tags.root is None:
            tags = dataclasses.replace(tags, root=root_of(sound.labels))
        if tags.tempo is None and tags.loop is None:
            tags = dataclasses.replace(tags, tempo=tempo_of(sound.labels))
        if self.output.bext:
            loudness = integrated_loudness(waveform, sample_rate)
            tags = dataclasses.replace(
                tags, bext=", ".join([Path(name).stem, *words]), loudness=loudness
            )
        return dataclasses.replace(tags, info=info)

    def _manifest(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The contents of manifest.json, those of earlier runs included."""
        if not self.start:
            return {"made_with": self.made_with, "sounds": rows}
        before = read_object(self.filled.folder / MANIFEST, "a folder of generated sounds")
        added = [run for run in before.get("more", []) if run.get("start") != self.start]
        sounds = before.get("sounds", [])[: self.start]
        return {**before, "more": [*added, self.made_with], "sounds": [*sounds, *rows]}


def gain_of(sound: Sound, sample_rate: int, output: OutputConfig) -> tuple[float, bool]:
    """Gain that brings a sound to the loudness and below the peak that are asked for, and whether the peak decided.

    A sound that keeps samples of a recording has a gain of 1 unless a loudness is asked for.
    """
    peak, wanted = peak_of(sound.waveform), 1.0
    if output.loudness is not None:
        loudness = integrated_loudness(sound.waveform, sample_rate)
        if loudness > SILENT:
            wanted = float(10 ** ((output.loudness - loudness) / 20))
    elif sound.kept is not None:
        return 1.0, False
    gain = min(wanted, output.highest_peak / peak) if peak else wanted
    return gain, gain < wanted


def _row(model: Model, name: str, sound: Sound, limited: bool, sample_rate: int) -> dict[str, Any]:
    """A sound's entry in manifest.json."""
    row = {
        "file": name,
        "labels": sound.labels,
        "seconds": round(sound.waveform.shape[-1] / sample_rate, 4),
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
