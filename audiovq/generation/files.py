"""The verbs that make sounds, each from a model to files in a folder."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor

from audiovq.audio import writing
from audiovq.audio.reading import bits_of, info, read_recording
from audiovq.audio.waveform import Waveform
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
)
from audiovq.generation.generate import Batches, generate_images, label_rows
from audiovq.generation.inpaint import CANDIDATES, AnyPrior
from audiovq.generation.labels import Labels
from audiovq.generation.long import require_samples
from audiovq.generation.morph import morph
from audiovq.generation.output.manifest import MANIFEST, manifest_record
from audiovq.generation.output.run import Batch, Run
from audiovq.generation.sound import Sound, pick_prior, prior_or_none
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.runtime.files import UNFINISHED, is_blank, name_of, read_object, sha256
from audiovq.runtime.outputs import OutputFolder, earlier_files, writing_into
from audiovq.runtime.progress import Say, progress
from audiovq.spectral.picture import write_images

EDITS = "vary", "continue", "repaint", "morph"
"""Verbs whose sounds `generate --more` adds none to."""


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
    if model.autoencoder.config.bottleneck.kind == "gaussian" and (
        best_of > 1 or sampling != SamplingConfig()
    ):
        raise AudiovqError(
            "sampling: its settings, and best_of, are for codes, and this model samples latents; leave them out"
        )
    settings: dict[str, Any] = {"n": n, "labels": dict(labels or {}), "best_of": best_of}
    settings |= {} if each is None else {"each": each, "by": by}
    if is_images:
        if seconds is not None or loop or bars is not None:
            raise AudiovqError("length, loop, bars: are of sounds, and this model generates images")
        if (inversion, output) != (Inversion(), OutputConfig()):
            raise AudiovqError(
                "phase, decoder, format and loudness: are of sounds, and this model generates images"
            )
        made_with = manifest_record(model, "generate", seed, settings, sampling)
        values = n, labels, sampling, best_of, each, by, seed
        return _generate_images(model, folder, made_with, overwrite, *values)
    earlier = earlier_files(folder) if more else []
    start = _first_free(folder, earlier)
    is_foreign = start > 0 or not (is_blank(folder) or (folder / UNFINISHED).exists())
    if more and is_foreign and not (folder / MANIFEST).exists():
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
    _say_without_effect(model, sampling, prior_or_none(model, sampling), say)
    paths = _write_new(model, folder, batches, made_with, output, overwrite, earlier, start, say)
    if model.known is None and (model.prior or model.masked):
        say("not checked for copies: this model comes without the codes of its training clips")
    return paths


def _first_free(folder: Path, earlier: Sequence[str]) -> int:
    """Number for a new sound beside those among `earlier` files, which of a pack are also instruments and a page.

    It is the number of sounds in the manifest, or the one after the highest of a file, as some may have been taken out of
    it. Raises AudiovqError where the manifest is damaged.
    """
    if MANIFEST not in earlier or not (folder / MANIFEST).exists():
        return 0
    manifest = read_object(folder / MANIFEST, "a folder of generated sounds")
    try:
        rows = [row for row in manifest.get("sounds", []) if row["file"] in earlier]
        _ = [run.get("start") for run in manifest.get("more", [])]
    except (TypeError, LookupError, AttributeError) as error:
        raise AudiovqError(
            f"{folder / MANIFEST}: damaged ({error!r:.200}); give --more another folder"
        ) from error
    names = (PurePath(name).name for name in earlier)
    numbers = [int(found[1]) for found in map(re.compile(r"(\d{4,})[_.]").match, names) if found]
    return max([len(rows), *(number + 1 for number in numbers)])


def _say_without_effect(
    model: Model, sampling: SamplingConfig, prior: AnyPrior | None, say: Say
) -> None:
    """Name the settings of the masked prior that are given where the autoregressive one samples."""
    given = [name for name in ("steps", "sweeps") if getattr(sampling, name)]
    if given and isinstance(prior, Prior):
        say(
            f"note: {' and '.join(given)}: without effect, as codes are sampled in the order of time"
            + (" (--order masked: in steps)" if model.masked is not None else "")
        )


def _require_same_model(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Raise AudiovqError if the sounds in `folder` were made by another verb, or another model, perhaps at another sample
    rate."""
    before = read_object(folder / MANIFEST, "a folder of generated sounds").get("made_with")
    parts = [part for part in ("autoencoder", "prior", "masked") if part in made_with]
    verb = before.get("verb") if isinstance(before, dict) else None
    if verb in EDITS:
        raise AudiovqError(f"{folder}: its sounds are of {verb}; --more adds to sounds of generate")
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
        progress(
            "generate", len(label_rows(model, n, labels or {}, seed, each, by)), "images"
        ) as step,
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
    return edit.write(Path(folder), made_with, sampling, seed, output, overwrite, say)


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
    return edit.write(Path(folder), made_with, sampling, seed, output, overwrite, say)


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
    return edit.write(Path(folder), made_with, sampling, seed, output, overwrite, say)


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
        sampling: SamplingConfig,
        seed: int,
        output: OutputConfig,
        overwrite: bool,
        say: Say,
    ) -> list[Path]:
        """Write the sounds into `folder`; returns the WAVs' paths."""
        waveform = read_recording(self.source, self.model.sample_rate, self.model.channels)
        if output.format == "flac" and made_with["verb"] != "vary":  # the others keep its channels
            header = info(self.source)
            writing.require_flac(self.source, header.channels, header.sample_rate)
        sizes = split_batches(self.model, self.n, max(waveform.shape[-1], self.num_samples), seed)
        # A model that cannot edit is refused before anything is noted.
        prior = pick_prior(self.model, sampling, "masked" if self.masked else "time")
        if self.masked and self.model.masked is None:
            say(
                "note: the model has no masked prior; the autoregressive one resamples, keeping the best"
                f" of {CANDIDATES} samples"
            )
        _say_without_effect(self.model, sampling, prior, say)
        labels = dict(self.labels or {})
        batches = [
            Batch([labels] * count, functools.partial(self.make, waveform, count, batch_seed))
            for count, batch_seed in sizes
        ]
        command = dict(made_with) | {"bytes": sha256(self.source)}
        if output.bits == "auto":
            bits = bits_of(self.source, made_with["verb"] != "vary")
            bits = "24" if (output.format, bits) == ("flac", "32f") else bits
            output = dataclasses.replace(output, bits=bits)
        with writing_into(folder, overwrite, command, [self.source]) as filled:
            keeps_length = made_with["verb"] == "repaint"
            run = Run(self.model, filled, made_with, output, say, 0, self.source, keeps_length)
            return run.write(batches)
