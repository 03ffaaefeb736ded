"""The contents of manifest.json: how a run made its sounds, a row for each, and a note on near copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from audiovq import __version__
from audiovq.audio.ends import FADE_SECONDS
from audiovq.config.output import OutputConfig
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation.generate import MAX_TRIES
from audiovq.generation.sound import Sound, of_new_sounds, settled
from audiovq.models.checkpoint import KNOWN
from audiovq.models.model import Model
from audiovq.runtime.threads import fixed_threads

MANIFEST = "manifest.json"


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
    if sampling is not None:
        sampling = settled(model, sampling)
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


def row_of(
    model: Model, name: str, sound: Sound, limited: bool, sample_rate: int
) -> dict[str, Any]:
    """A sound's entry in manifest.json."""
    row = {
        "file": name,
        "labels": sound.labels,
        "seconds": round(sound.waveform.shape[-1] / sample_rate, 4),
        "level_db": float(model.spectrogram.level_db(torch.tensor(sound.encoded.level))),
        "peak_limited": limited,
    }
    if sound.kept is not None:
        rate = model.sample_rate
        row["new_seconds"] = [[round(i / rate, 4) for i in span] for span in sound.kept.spans]
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


def changed_note(made_with: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """One line that says which part of a recording `repaint --time` has changed; "" for other commands."""
    if not made_with.get("time") or not rows or not rows[0].get("new_seconds"):
        return ""
    spans, seconds = rows[0]["new_seconds"], rows[0]["seconds"]
    # As `join` cross-fades: a change at the recording's end has no fade after it.
    parts = ", ".join(
        f"{max(0.0, begin - FADE_SECONDS):.3f} to {min(seconds, end + FADE_SECONDS):.3f} s"
        for begin, end in spans
    )
    ends = "; the recording ends there" if spans[-1][1] >= seconds - 0.001 else ""
    return f"changed: {parts}: whole columns of codes, with cross-fades{ends}"


def _is_copy(row: Mapping[str, Any]) -> bool:
    return bool(row.get("nearest_training_clip", {}).get("is_copy"))
