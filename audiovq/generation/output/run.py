"""A run that writes new sounds: their files, with levels and tags, and manifest.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiovq import __version__
from audiovq.audio import chunks, writing
from audiovq.audio.chunks import Tags
from audiovq.audio.notes import root_of, tempo_of
from audiovq.audio.waveform import Waveform, peak_of
from audiovq.config.output import OutputConfig
from audiovq.generation.edit import (
    with_original,
)
from audiovq.generation.output.manifest import MANIFEST, changed_note, copies_note, row_of
from audiovq.generation.sound import Sound
from audiovq.models.model import Model
from audiovq.runtime.files import name_of, read_object, write_json
from audiovq.runtime.outputs import OutputFolder
from audiovq.runtime.progress import Say
from audiovq.spectral.loudness import SILENT, integrated_loudness


@dataclass(frozen=True)
class Batch:
    """Sounds that are made and written together."""

    labels: Sequence[Mapping[str, str]]
    """Of each sound; known before the sounds are made, because they are part of the files' names."""
    make: Callable[[], list[Sound]]


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
        changed = changed_note(self.made_with, rows)
        for note in (writing.limited_note(limited, len(rows)), copies_note(rows), changed):
            if note:
                self.say(note)
        return [filled.folder / name for name in names]

    def _write_one(self, name: str, sound: Sound) -> dict[str, Any]:
        """Write a sound; returns its entry in manifest.json."""
        rate, output = self.model.sample_rate, self.output
        if self.source is not None and sound.kept is not None:
            waveform, rate = with_original(sound.kept, rate, self.source)
            sound = dataclasses.replace(sound, waveform=waveform)
        gain, limited = gain_of(sound, rate, output)
        bits = "16" if output.bits == "auto" else output.bits
        tags = self._tags(name, sound, np.float32(gain) * sound.waveform, rate)
        writing.write(self.filled.folder / name, sound.waveform, rate, gain, bits, tags)
        return row_of(self.model, name, sound, limited, rate)

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

    A sound that keeps samples of a recording has a gain of 1 unless a loudness is asked for, or they exceed full scale
    and `output.bits` cannot hold that.
    """
    peak, wanted = peak_of(sound.waveform), 1.0
    if output.loudness is not None:
        loudness = integrated_loudness(sound.waveform, sample_rate)
        if loudness > SILENT:
            wanted = float(10 ** ((output.loudness - loudness) / 20))
    elif sound.kept is not None:
        clips = peak > 1 and output.bits != "32f"
        return (writing.safe_gain(peak), True) if clips else (1.0, False)
    gain = min(wanted, output.highest_peak / peak) if peak else wanted
    return gain, gain < wanted
