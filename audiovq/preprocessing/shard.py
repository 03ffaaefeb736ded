"""A shard: some recordings of a split → one array of clips, and a manifest that says which they are.

It is made on its own, from a job that is small and can be sent to another machine, and is there whole or
not at all.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audiovq.audio import reading
from audiovq.audio.reading import AudioInfo
from audiovq.audio.resampling import resample_all
from audiovq.audio.silence import SILENT, SilenceDetector
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.manifest import Clip, Skipped, json_line, write_shard_header
from audiovq.preprocessing.catalog import Recording, stamp_of
from audiovq.preprocessing.splits import GAP_SECONDS, Stretch, clips_of, stretches
from audiovq.runtime.files import atomic, sha256, write_text
from audiovq.spectral.numpy_spectrogram import Analysis, Piece

SHORTEST = 128
"""Samples of the shortest window that is recommended."""
RUN_SAMPLES = 1 << 20
"""Of short recordings, before or after resampling, that are held and resampled at a time."""
CHANGED = "changed while it was read; run preprocess again with --overwrite"
HEAP = 1 << 24
"""Bytes of an array up to which its memory is used again; to clear new pages takes longer than what we
do with them."""


@dataclass(frozen=True)
class ShardJob:
    """All that one shard is made from; small, and can be sent to another machine."""

    name: str
    source: Path
    target: Path
    recordings: tuple[Recording, ...]
    spectrogram: SpectrogramConfig
    clip_frames: int
    trim_db: float | None
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of validation and test, in recordings that are split in time."""

    @property
    def split(self) -> str:
        """That all its clips are in."""
        return self.name.rpartition("-")[0]

    @property
    def clip_samples(self) -> int:
        """Of the longest clip: as many as give just `clip_frames`."""
        return self.clip_frames * self.spectrogram.hop_length - 1


def make_shard(job: ShardJob) -> int:
    """Write one shard: NAME.npy, then NAME.jsonl, which marks it done. Returns the files read.

    Neither a recording nor the shard's array is ever whole in memory: clips go to the disk as they
    come.
    """
    np.empty(HEAP, np.uint8)  # freed at once; the system's allocator then keeps what arrays leave
    rows: list[dict[str, Any]] = []
    levels: list[int] = []
    shape = job.spectrogram.bins, job.clip_frames
    with atomic(job.target / f"{job.name}.npy") as temporary, open(temporary, "wb") as file:
        write_shard_header(file, (0, *shape))
        analysis = Analysis(job.spectrogram)
        for images, batch_levels in analysis.batches(_pieces(job, rows), job.clip_frames):
            file.write(images.data)
            levels += batch_levels
        file.seek(0)
        write_shard_header(file, (len(levels), *shape))
    for row, level in zip((row for row in rows if "level" in row), levels, strict=True):
        row["level"] = level
    write_text(job.target / f"{job.name}.jsonl", "".join(json_line(row) for row in rows))
    return len(job.recordings)


def shard_rows(job: ShardJob) -> Iterator[Clip | Skipped]:
    """What a finished shard's manifest says, clip by clip."""
    with open(job.target / f"{job.name}.jsonl", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "note" not in row:
                yield Skipped(**row) if "reason" in row else Clip(**row)


def shard_notes(job: ShardJob) -> Iterator[tuple[str, str]]:
    """What a finished shard's user should know: paths of recordings, each with a note."""
    with open(job.target / f"{job.name}.jsonl", encoding="utf-8") as file:
        for line in file:
            if '"note"' in line and "note" in (row := json.loads(line)):
                yield row["path"], row["note"]


def in_words(notes: Iterable[tuple[str, str]], files: int) -> list[str]:
    """Notes on single ones of so many files → a sentence for all that are alike."""
    paths: dict[str, dict[str, None]] = {}  # a recording that splits share has several rows
    for path, note in notes:
        paths.setdefault(note, {})[path] = None
    return [f"{len(of)} of {files} files: {note} ({next(iter(of))})" for note, of in paths.items()]


class Plan(NamedTuple):
    """What a first pass over a recording tells."""

    blocks: Iterator[Waveform]
    """All of it, for the second pass."""
    peak: float
    sound: Stretch
    """Where it begins and ends, silence at its ends left out."""
    spans: list[Stretch]
    """Each clip's start and end. They come one after another; a short rest is covered by a clip that
    ends with it."""
    notes: Sequence[str] = ()
    """What the user should know, as `audio.blocks` tells it."""


def _pieces(job: ShardJob, rows: list[dict[str, Any]]) -> Iterator[Piece]:
    """Every clip with its surroundings; its row, or the file's reason to be skipped, is added to `rows`."""
    for recording, path, found in _plans(job):
        if isinstance(found, str):
            rows.append({"path": recording.path, "reason": found})
            continue
        begin, end = found.sound
        rows += [{"path": recording.path, "note": note} for note in found.notes]
        pieces = _cut(path, found, job.spectrogram.n_fft // 2)
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
                }
            )
            yield piece
        _require_unchanged(path, recording)


def _require_unchanged(path: str, recording: Recording, checksum: str = "") -> None:
    """Raise AudiovqError where a file's bytes, with this SHA-256 where it is known, are no longer those
    that the run began with."""
    content = recording.content
    try:
        if not checksum and stamp_of(path) != content.stamp:
            checksum = sha256(path)
    except OSError:
        checksum = "gone"
    if checksum and checksum != content.sha256:
        raise AudiovqError(f"{path}: {CHANGED}")


def _plans(job: ShardJob) -> Iterator[tuple[Recording, str, Plan | str]]:
    """Each recording, its path and its plan, or the reason why it is left out.

    Short ones that follow each other are read once, and resampled together. Raises AudiovqError where one
    has changed since the run began.
    """
    rate = job.spectrogram.sample_rate
    for run in _runs(job):
        paths = [os.path.join(job.source, recording.path) for recording in run]
        found: list[tuple[Waveform, int, str] | str | None] = []
        notes: list[list[str]] = [[] for _ in run]
        for recording, path, told in zip(run, paths, notes, strict=True):
            try:
                found.append(reading.short(path, _most(recording.info, rate), told.append))
            except (AudioError, OSError) as error:
                found.append(_reason(error))
        sounds = [sound for sound in found if isinstance(sound, tuple)]
        resampled = {}
        for own in {sound[1] for sound in sounds}:
            alike = [sound[0] for sound in sounds if sound[1] == own]
            resampled[own] = iter(resample_all(alike, own, rate))
        for recording, path, sound, told in zip(run, paths, found, notes, strict=True):
            planned: Plan | str
            try:
                if sound is None:
                    planned = plan(path, job, recording.splits)
                elif isinstance(sound, str):
                    planned = sound
                else:
                    _, own, checksum = sound
                    _require_unchanged(path, recording, checksum)
                    planned = _planned(next(resampled[own]), job, recording.splits)
                    planned = planned._replace(notes=told)
            except (AudioError, OSError) as error:
                planned = _reason(error)
            if isinstance(planned, str):  # which may be so because it has changed
                _require_unchanged(path, recording)
            yield recording, path, planned


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", str(error))


def _runs(job: ShardJob) -> Iterator[list[Recording]]:
    """A shard's recordings in order: short ones together, up to RUN_SAMPLES, long ones alone."""
    run: list[Recording] = []
    room = RUN_SAMPLES
    for recording in job.recordings:
        info = recording.info
        size = math.ceil(info.num_samples * max(1, job.spectrogram.sample_rate / info.sample_rate))
        if run and size > room:
            yield run
            run, room = [], RUN_SAMPLES
        run.append(recording)
        room -= size
    if run:
        yield run


def _most(info: AudioInfo, rate: int) -> int:
    """Samples up to which a recording is short: its blocks, at either rate, would be one."""
    return max(1, int(reading.BLOCK / info.channels * min(1, info.sample_rate / rate)))


def plan(path: Path | str, job: ShardJob, splits: tuple[str, ...] = ()) -> Plan:
    """A first pass over a file, in blocks. Where several `splits` share it, the clips are those of the
    job's own. Raises AudioError with the reason where it is left out."""
    rate = job.spectrogram.sample_rate
    extent = SilenceDetector(rate, job.trim_db is not None)
    notes: list[str] = []
    for block in reading.blocks(path, rate, notes.append):
        extent.add(block)
    short = extent.num_samples == len(block)  # and so need not be read again
    blocks = iter([block]) if short else reading.blocks(path, rate)
    return Plan(blocks, extent.peak, *_spans(extent, job, splits), notes)


def is_used(path: Path | str, job: ShardJob) -> bool:
    """Whether a file has enough sound for a clip; it is read up to there."""
    extent = SilenceDetector(job.spectrogram.sample_rate, job.trim_db is not None)
    with contextlib.suppress(AudioError):
        for block in reading.blocks(path, job.spectrogram.sample_rate):
            extent.add(block)
            with contextlib.suppress(AudioError):
                return bool(_sounding(extent, job))
    return False


def _planned(waveform: Waveform, job: ShardJob, splits: tuple[str, ...]) -> Plan:
    """The plan of a recording that is there already. Raises as `plan` does."""
    extent = SilenceDetector(job.spectrogram.sample_rate, job.trim_db is not None)
    extent.add(waveform)
    return Plan(iter([waveform]), extent.peak, *_spans(extent, job, splits))


def _sounding(extent: SilenceDetector, job: ShardJob) -> Stretch:
    """Where the sound of a recording begins and ends. Raises AudioError where it is too little."""
    rate = job.spectrogram.sample_rate
    if extent.peak == 0:
        raise AudioError("is silent throughout")
    if extent.peak < SILENT:
        decibels = 20 * math.log10(extent.peak)
        raise AudioError(f"is silent (its peak is {decibels:.0f} dBFS, noise below -80 dBFS)")
    start, end = 0, extent.num_samples
    if job.trim_db is not None:
        start, end = extent.trim(job.trim_db)
    if end - start < job.spectrogram.n_fft:
        n_fft = 2 ** int(math.log2(max(2, end - start)))
        way_out = f"; --n-fft {n_fft} takes it" if n_fft >= SHORTEST else ""
        raise AudioError(
            f"is shorter than one window ({1000 * (end - start) / rate:.0f} ms of sound,"
            f" a window is {1000 * job.spectrogram.n_fft / rate:.0f} ms{way_out})"
        )
    return start, end


def _spans(
    extent: SilenceDetector, job: ShardJob, splits: tuple[str, ...]
) -> tuple[Stretch, list[Stretch]]:
    """Where the sound of a recording lies, and where its clips do. Raises AudioError where it has none."""
    rate = job.spectrogram.sample_rate
    start, end = _sounding(extent, job)
    own = [(0, end - start)]
    if len(splits) > 1:
        gap = round(GAP_SECONDS * rate)
        shares = {split: job.shares[split] for split in splits if split != "train"}
        found = stretches(end - start, job.clip_samples, job.spectrogram.n_fft, gap, shares)
        own = found[job.split]
    clips = [
        span
        for begin, stop in own
        for span in clips_of(start + begin, start + stop, job.clip_samples)
    ]
    return (start, end), clips


def excerpts(job: ShardJob, path: str, spans: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    """Stretches of a recording, given by offset and samples as in `Clip`, each with a window of what surrounds
    it on both sides; offsets only rise.

    Raises AudioError where the recording cannot be used, or has no such stretch.
    """
    found = plan(job.source / path, job)
    begin, end = found.sound
    wanted = [(begin + offset, begin + offset + samples) for offset, samples in spans]
    for offset, stop in wanted:
        if not begin <= offset < stop <= end:
            raise AudioError(f"has no clip at {offset - begin}")
    yield from _cut(job.source / path, found._replace(spans=wanted), job.spectrogram.n_fft)


def first_clip(job: ShardJob, path: str) -> Piece:
    """A recording's first clip, with a window of what follows it. Raises AudioError where the recording cannot
    be used."""
    found = plan(job.source / path, job)
    only = found._replace(spans=found.spans[:1])
    return next(_cut(job.source / path, only, job.spectrogram.n_fft))


def _cut(path: Path | str, found: Plan, margin: int) -> Iterator[Piece]:
    """Each clip of a plan with up to `margin` samples of the sound before and after it."""
    blocks, (first, last) = found.blocks, found.sound
    held, at = np.zeros(0, np.float32), 0
    try:
        for start, end in found.spans:
            begin, stop = max(first, start - margin), min(last, end + margin)
            while at + len(held) < stop:
                passed = min(begin - at, len(held))
                held, at = np.concatenate([held[passed:], next(blocks)]), at + passed
            samples = held[begin - at : stop - at]
            if found.peak > 1:
                samples = samples / np.float32(found.peak)
            yield Piece(samples, start - begin, stop - end)
    except (AudioError, StopIteration) as error:
        raise AudiovqError(f"{path}: {CHANGED}") from error
