"""A shard: recordings of one split → one array of clips and one manifest that lists them.

It is made from a `ShardJob`, which is small and can be sent to another machine. A shard that was not finished
does not exist: its manifest is written last, atomically.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from audiovq.audio import reading
from audiovq.audio.resampling import resample_all
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.config.errors import AudiovqError
from audiovq.dataset.manifest import Clip, Skipped, json_line, write_shard_header
from audiovq.preprocessing.catalog import Recording, stamp_of
from audiovq.preprocessing.slicing import (
    CHANGED,
    Divide,
    Plan,
    Slicing,
    plan,
    plan_waveform,
    read_clips,
    undivided,
)
from audiovq.preprocessing.splits import GAP_SECONDS, Stretch, stretches
from audiovq.runtime.files import atomic, sha256, write_text
from audiovq.spectral.numpy_spectrogram import Analysis, Piece

GROUP_SAMPLES = 1 << 20
"""Samples of short recordings, before or after resampling, that are read and resampled together."""
HEAP = 1 << 24
"""Bytes of an array up to which the system's allocator reuses its memory: clearing new pages takes longer than
the work on them."""


@dataclass(frozen=True)
class ShardJob:
    """Everything that one shard is made from; small and picklable."""

    name: str
    """SPLIT-NUMBER, the stem of its two files."""
    source: Path
    """Folder of the recordings."""
    target: Path
    """Folder that the shard is written to."""
    recordings: tuple[Recording, ...]
    slicing: Slicing
    shares: Mapping[str, float] = field(default_factory=dict)
    """Shares of validation and test, for recordings that are split in time."""

    @property
    def split(self) -> str:
        """The split that all its clips are in."""
        return self.name.rpartition("-")[0]

    def divide(self, recording: Recording) -> Divide:
        """The stretches of a recording that belong to this job's split."""
        if recording.transposed:
            return self._without_rest
        if len(recording.splits) <= 1:
            return undivided
        return functools.partial(self._stretches, recording.splits)

    def _without_rest(self, num_samples: int) -> list[Stretch]:
        """All of a recording but the rest after its last whole clip: a longer copy would have clips that begin
        elsewhere."""
        clip = self.slicing.clip_samples
        return [(0, num_samples if num_samples < clip else num_samples - num_samples % clip)]

    def _stretches(self, splits: tuple[str, ...], num_samples: int) -> list[Stretch]:
        shares = {split: self.shares[split] for split in splits if split != "train"}
        return stretches_at(self.slicing, num_samples, shares)[self.split]


def stretches_at(
    slicing: Slicing, num_samples: int, shares: Mapping[str, float]
) -> dict[str, list[Stretch]]:
    """`splits.stretches` of a recording of `num_samples` trimmed samples, by settings."""
    gap = round(GAP_SECONDS * slicing.spectrogram.sample_rate)
    window = slicing.spectrogram.n_fft
    return stretches(num_samples, slicing.clip_samples, window, gap, shares)


def make_shard(job: ShardJob) -> int:
    """Write one shard: NAME.npy, then NAME.jsonl, which marks it as finished. Returns the files read.

    Neither a long recording nor the array is ever whole in memory: clips are written as they are read.
    """
    np.empty(HEAP, np.uint8)  # freed at once, so that the system's allocator keeps freed memory
    rows: list[dict[str, Any]] = []
    levels: list[int] = []
    spectrogram, clip_frames = job.slicing.spectrogram, job.slicing.clip_frames
    shape = spectrogram.stored_rows, clip_frames
    with atomic(job.target / f"{job.name}.npy") as temporary, open(temporary, "wb") as file:
        write_shard_header(file, (0, *shape))
        analysis = Analysis(spectrogram)
        for images, batch_levels in analysis.batches(_pieces(job, rows), clip_frames):
            file.write(images.data)
            levels += batch_levels
        file.seek(0)
        write_shard_header(file, (len(levels), *shape))
    for row, level in zip((row for row in rows if "level" in row), levels, strict=True):
        row["level"] = level
    write_text(job.target / f"{job.name}.jsonl", "".join(json_line(row) for row in rows))
    return len(job.recordings)


def shard_rows(job: ShardJob) -> Iterator[Clip | Skipped]:
    """The clips and the skipped files in the manifest of a finished shard, in order."""
    with open(job.target / f"{job.name}.jsonl", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "note" not in row:
                yield Skipped(**row) if "reason" in row else Clip(**row)


def shard_notes(job: ShardJob) -> Iterator[tuple[str, str]]:
    """The notes for the user in the manifest of a finished shard: (path of a recording, note)."""
    with open(job.target / f"{job.name}.jsonl", encoding="utf-8") as file:
        for line in file:
            if '"note"' in line and "note" in (row := json.loads(line)):
                yield row["path"], row["note"]


def in_words(notes: Iterable[tuple[str, str]], files: int) -> list[str]:
    """Notes (path, note) on some of `files` recordings → one sentence for each different note."""
    paths: dict[str, dict[str, None]] = {}  # a recording that splits share has several rows
    for path, note in notes:
        paths.setdefault(note, {})[path] = None
    return [
        f"{len(noted)} of {files} files: {note} ({next(iter(noted))})"
        for note, noted in paths.items()
    ]


def _pieces(job: ShardJob, rows: list[dict[str, Any]]) -> Iterator[Piece]:
    """Every clip with its surroundings. Adds to `rows` the clip's row, or why its recording is skipped."""
    for recording, path, found in _plans(job):
        if isinstance(found, str):
            rows.append({"path": recording.path, "reason": found})
            continue
        begin, end = found.sound
        rows += [{"path": recording.path, "note": note} for note in found.notes]
        pieces = read_clips(path, found, job.slicing.spectrogram.n_fft // 2)
        for span, piece in zip(found.spans, pieces, strict=True):
            rows.append(
                {
                    "path": recording.path,
                    "offset": span[0] - begin,
                    "num_samples": span[1] - span[0],
                    "sample_rate": recording.info.sample_rate,
                    "level": 0,
                    "labels": recording.labels,
                    "sha256": recording.content.sha256,
                    "complete": (span[0] == begin, span[1] == end),
                    **({"transposed": recording.transposed} if recording.transposed else {}),
                }
            )
            yield piece
        _require_unchanged(path, recording)


def _require_unchanged(path: str, recording: Recording) -> None:
    """Raise AudiovqError if a file has changed since the run began."""
    content = recording.content
    try:
        if stamp_of(path) == content.stamp or sha256(path) == content.sha256:
            return
    except OSError:
        pass  # it is gone
    raise AudiovqError(f"{path}: {CHANGED}")


def _plans(job: ShardJob) -> Iterator[tuple[Recording, str, Plan | str]]:
    """Each recording with its path and its plan, or the reason why it is skipped.

    Consecutive short recordings are read once, and resampled together. Raises AudiovqError if a file
    has changed since the run began.
    """
    rate = job.slicing.spectrogram.sample_rate
    for group in _groups(job):
        paths = [os.path.join(job.source, recording.path) for recording in group]
        notes: list[list[str]] = [[] for _ in group]
        found = [
            _read_short(job, recording, path, file_notes)
            for recording, path, file_notes in zip(group, paths, notes, strict=True)
        ]
        by_rate: dict[int, list[Waveform]] = {}
        for sound in found:
            if isinstance(sound, tuple):
                by_rate.setdefault(sound[1], []).append(sound[0])
        resampled = {
            original_rate: iter(resample_all(waveforms, original_rate, rate))
            for original_rate, waveforms in by_rate.items()
        }
        for recording, path, sound, file_notes in zip(group, paths, found, notes, strict=True):
            planned: Plan | str
            try:
                if sound is None:
                    slicing = replace(job.slicing, transposed=recording.transposed)
                    planned = plan(path, slicing, job.divide(recording))
                elif isinstance(sound, str):
                    planned = sound
                else:
                    waveform = next(resampled[sound[1]])
                    planned = plan_waveform(waveform, job.slicing, job.divide(recording))
                    planned = planned._replace(notes=file_notes)
            except (AudioError, OSError) as error:
                planned = _reason(error)
            if isinstance(planned, str):  # possibly because the file has changed
                _require_unchanged(path, recording)
            yield recording, path, planned


def _read_short(
    job: ShardJob, recording: Recording, path: str, notes: list[str]
) -> tuple[Waveform, int] | str | None:
    """`reading.short` of a recording that would be a single block, or the reason why it cannot be read.

    None for one that is transposed: hardly two of these share a filter."""
    if recording.transposed:
        return None
    rate = job.slicing.spectrogram.sample_rate
    most = reading.block_frames(recording.info, rate, job.slicing.block_samples)
    try:
        return reading.short(path, most, notes.append, job.slicing.spectrogram.channels)
    except (AudioError, OSError) as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", str(error))


def _groups(job: ShardJob) -> Iterator[list[Recording]]:
    """The recordings of a shard in order: short ones in groups of up to GROUP_SAMPLES, long ones alone."""
    group: list[Recording] = []
    room = GROUP_SAMPLES
    rate = job.slicing.spectrogram.sample_rate
    for recording in job.recordings:
        info = recording.info
        size = math.ceil(info.num_samples * max(1, rate / info.sample_rate))
        if group and size > room:
            yield group
            group, room = [], GROUP_SAMPLES
        group.append(recording)
        room -= size
    if group:
        yield group
