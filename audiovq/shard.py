"""A shard: some recordings of a split → one array of clips, and a manifest that says which they are.

It is made on its own, from a job that is small and can be sent to another machine, and is there whole or
not at all.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audiovq import audio
from audiovq.analysis import Analysis
from audiovq.catalog import Recording, Skipped
from audiovq.config import AudiovqError, SpectrogramConfig
from audiovq.extent import Extent
from audiovq.files import atomic, sha256, write_text
from audiovq.manifest import Clip, json_line, write_shard_header

RUN_SAMPLES = 1 << 20
"""Of short recordings, before or after resampling, that are held and resampled at a time."""
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
            yield Skipped(**row) if "reason" in row else Clip(**row)


class Plan(NamedTuple):
    """What a first pass over a recording tells."""

    blocks: Iterator[audio.Waveform]
    """All of it, for the second pass."""
    peak: float
    spans: list[tuple[int, int]]
    """Each clip's start and end. They come one after another; a short rest is covered by a clip that
    ends with it."""


def _pieces(job: ShardJob, rows: list[dict[str, Any]]) -> Iterator[audio.Waveform]:
    """The samples of every clip; its row, or the file's reason to be skipped, is added to `rows`."""
    for recording, path, checksum, found in _plans(job):
        if isinstance(found, str):
            rows.append({"path": recording.path, "reason": found})
            continue
        blocks, peak, spans = found
        for (start, end), piece in zip(spans, _cut(path, blocks, spans), strict=True):
            rows.append(
                {
                    "path": recording.path,
                    "offset": start - spans[0][0],
                    "num_samples": end - start,
                    "sample_rate": recording.info.sample_rate,
                    "level": 0,
                    "labels": recording.labels,
                    "sha256": checksum,
                }
            )
            yield piece / np.float32(peak) if peak > 1 else piece


def _plans(job: ShardJob) -> Iterator[tuple[Recording, str, str, Plan | str]]:
    """Each recording, its path, its SHA-256 and its plan, or the reason why it is left out.

    Short ones that follow each other are read once, and resampled together.
    """
    rate = job.spectrogram.sample_rate
    for run in _runs(job):
        paths = [os.path.join(job.source, recording.path) for recording in run]
        found: list[tuple[audio.Waveform, int, str] | str | None] = []
        for recording, path in zip(run, paths, strict=True):
            try:
                found.append(audio.short(path, _most(recording.info, rate)))
            except (audio.AudioError, OSError) as error:
                found.append(_reason(error))
        sounds = [sound for sound in found if isinstance(sound, tuple)]
        resampled = {}
        for own in {sound[1] for sound in sounds}:
            alike = [sound[0] for sound in sounds if sound[1] == own]
            resampled[own] = iter(audio.resample_all(alike, own, rate))
        for recording, path, sound in zip(run, paths, found, strict=True):
            checksum = ""
            planned: Plan | str
            try:
                if sound is None:
                    checksum, planned = sha256(path), plan(path, job)
                elif isinstance(sound, str):
                    planned = sound
                else:
                    _, own, checksum = sound
                    planned = _planned(next(resampled[own]), job)
            except (audio.AudioError, OSError) as error:
                planned = _reason(error)
            yield recording, path, checksum, planned


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


def _most(info: audio.AudioInfo, rate: int) -> int:
    """Samples up to which a recording is short: its blocks, at either rate, would be one."""
    return max(1, int(audio.BLOCK / info.channels * min(1, info.sample_rate / rate)))


def plan(path: Path | str, job: ShardJob) -> Plan:
    """A first pass over a file, in blocks. Raises AudioError with the reason where it is left out."""
    rate = job.spectrogram.sample_rate
    extent = Extent(rate, job.trim_db is not None)
    for block in audio.blocks(path, rate):
        extent.add(block)
    short = extent.num_samples == len(block)  # and so need not be read again
    blocks = iter([block]) if short else audio.blocks(path, rate)
    return Plan(blocks, extent.peak, _spans(extent, job))


def _planned(waveform: audio.Waveform, job: ShardJob) -> Plan:
    """The plan of a recording that is there already. Raises as `plan` does."""
    extent = Extent(job.spectrogram.sample_rate, job.trim_db is not None)
    extent.add(waveform)
    return Plan(iter([waveform]), extent.peak, _spans(extent, job))


def _spans(extent: Extent, job: ShardJob) -> list[tuple[int, int]]:
    """Where the clips of a recording lie. Raises AudioError where it has none."""
    rate = job.spectrogram.sample_rate
    if extent.peak == 0:
        raise audio.AudioError("is silent throughout")
    start, end = 0, extent.num_samples
    if job.trim_db is not None:
        start, end = extent.trim(job.trim_db)
    if end - start < job.spectrogram.n_fft:
        raise audio.AudioError(
            f"is shorter than one window ({1000 * (end - start) / rate:.0f} ms of sound,"
            f" a window is {1000 * job.spectrogram.n_fft / rate:.0f} ms)"
        )
    starts = list(range(start, end, job.clip_samples))
    if len(starts) > 1 and end - starts[-1] < job.clip_samples // 4:
        starts[-1] = end - job.clip_samples
    return [(at, min(at + job.clip_samples, end)) for at in starts]


def excerpt(job: ShardJob, path: str, offset: int = 0) -> audio.Waveform:
    """The samples (samples,) of the clip of a recording that begins at `offset`, as `Clip` counts it.

    Raises AudioError where the recording cannot be used, or has no such clip.
    """
    return next(excerpts(job, path, [offset]))


def excerpts(job: ShardJob, path: str, offsets: Sequence[int]) -> Iterator[audio.Waveform]:
    """The samples (samples,) of those clips of a recording that begin at `offsets`, which only rise.

    Raises AudioError where the recording cannot be used, or lacks one of the clips.
    """
    blocks, peak, spans = plan(job.source / path, job)
    by_offset = {start - spans[0][0]: (start, end) for start, end in spans}
    if missing := [offset for offset in offsets if offset not in by_offset]:
        raise audio.AudioError(f"has no clip at {missing[0]}")
    for waveform in _cut(job.source / path, blocks, [by_offset[offset] for offset in offsets]):
        yield waveform / np.float32(max(1, peak))


def _cut(
    path: Path | str, blocks: Iterator[audio.Waveform], spans: list[tuple[int, int]]
) -> Iterator[audio.Waveform]:
    """The samples from each start to its end, out of blocks; starts only rise."""
    held, at = np.zeros(0, np.float32), 0
    try:
        for start, end in spans:
            while at + len(held) < end:
                passed = min(start - at, len(held))
                held, at = np.concatenate([held[passed:], next(blocks)]), at + passed
            yield held[start - at : end - at]
    except (audio.AudioError, StopIteration) as error:
        raise AudiovqError(f"{path}: changed while it was read; run preprocess again") from error
