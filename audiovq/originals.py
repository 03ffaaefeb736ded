"""A dataset's own recordings as waveforms, where they are still there: a bounded part at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from audiovq import audio
from audiovq.audio import Waveform
from audiovq.config import AudiovqError
from audiovq.dataset import Dataset, Split
from audiovq.manifest import Clip
from audiovq.shard import ShardJob, excerpts

SECONDS = 10.0
"""Of one recording that are measured: its beginning;"""
TOTAL_SECONDS = 300.0
"""of all of them together: what goes beyond is not read."""
RECORDINGS = 400
"""That are measured, at most."""


def beginnings(dataset: Dataset, split: Split) -> Iterator[Waveform]:
    """The first SECONDS of a split's recordings (samples,), at the dataset's rate, one at a time.

    In an order drawn with a fixed seed, RECORDINGS and TOTAL_SECONDS in all at most. Raises AudioError
    where one is gone or broken.
    """
    paths = sorted({clip.path for clip in split.clips})
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))
    rate = dataset.spectrogram.sample_rate
    seconds = 0.0
    for place in order[:RECORDINGS].tolist():
        if seconds >= TOTAL_SECONDS:
            return
        waveform = _beginning(_source(dataset) / paths[place], rate)
        seconds += len(waveform) / rate
        yield waveform


def _beginning(path: Path, sample_rate: int) -> Waveform:
    """The first SECONDS of a recording, read no further; raises AudioError."""
    parts: list[Waveform] = []
    wanted = max(1, round(SECONDS * sample_rate))
    for block in audio.blocks(path, sample_rate):
        parts.append(block[:wanted])
        wanted -= len(parts[-1])
        if wanted <= 0:
            break
    waveform = np.concatenate(parts)
    peak = np.float32(max(1.0, audio.peak_of(waveform)))
    made: Waveform = waveform / peak
    return made


def clip_waveforms(dataset: Dataset, clips: Sequence[Clip]) -> Iterator[Waveform | None]:
    """The very samples of each clip, in order; None where its recording is gone, or is another now.

    Clips of one recording that follow each other are read in one pass.
    """
    job = _job(dataset)
    for path, group in itertools.groupby(clips, key=lambda clip: clip.path):
        own = list(group)
        waveforms = excerpts(job, path, [clip.offset for clip in own])
        for clip in own:
            try:
                waveform = next(waveforms, None)
            except AudiovqError:
                waveform = None
            if waveform is not None and len(waveform) != clip.num_samples:
                waveform = None
            yield waveform


def _source(dataset: Dataset) -> Path:
    """The folder that the dataset was made from."""
    return Path(str(dataset.header.get("source", "")))


def _job(dataset: Dataset) -> ShardJob:
    """How the dataset's recordings were cut into clips."""
    settings = dataset.preprocess
    return ShardJob(
        "",
        _source(dataset),
        dataset.folder,
        (),
        dataset.spectrogram,
        dataset.clip_frames,
        settings.trim_db if settings.trim else None,
    )
