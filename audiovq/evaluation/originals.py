"""The recordings that a dataset was made from, where they can still be found, a bounded part at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from audiovq.audio import finding, reading
from audiovq.audio.waveform import AudioError, Waveform, peak_of
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.manifest import Clip
from audiovq.preprocessing.shard import ShardJob, excerpts
from audiovq.runtime.files import sha256
from audiovq.spectral.numpy_spectrogram import Piece

SECONDS = 10.0
"""Longest part of one recording that is measured: its beginning."""
TOTAL_SECONDS = 300.0
"""Longest total that is measured; recordings beyond it are not read."""
RECORDINGS = 400
"""Largest number of recordings that are measured."""


def beginnings(dataset: Dataset, split: Split) -> Iterator[Waveform]:
    """The first SECONDS of a split's recordings (samples,), at the dataset's rate, one at a time.

    At most RECORDINGS recordings and TOTAL_SECONDS in all, in a random order of a fixed seed. Of a
    recording that several splits share, only what belongs to `split`. Raises AudioError where a
    recording cannot be found, has changed, or is broken.
    """
    clips: dict[str, list[Clip]] = {}
    for clip in split.clips:
        clips.setdefault(clip.path, []).append(clip)
    shared = {clip.path for other in dataset.splits if other is not split for clip in other.clips}
    paths = sorted(clips)
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))
    rate = dataset.spectrogram.sample_rate
    seconds = 0.0
    for path in (paths[place] for place in order[:RECORDINGS].tolist()):
        if seconds >= TOTAL_SECONDS:
            return
        file = _file(dataset, clips[path][0])
        if path in shared:
            offset, samples = _first_stretch(clips[path])
            wanted = [(offset, min(samples, _most(rate)))]
            (piece,) = excerpts(_job(dataset), path, wanted)
            waveform = piece.own(piece.samples)
        else:
            waveform = _beginning(file, rate)
        seconds += len(waveform) / rate
        yield waveform


def clip_waveforms(dataset: Dataset, clips: Sequence[Clip]) -> Iterator[Waveform | None]:
    """The samples (samples,) of each clip, in order; None where its recording cannot be found or has
    changed.

    Clips of one recording that follow each other are read in one pass.
    """
    for _, group in itertools.groupby(clips, key=lambda clip: clip.path):
        for piece in _pieces(dataset, list(group)):
            yield None if piece is None else piece.own(piece.samples)


def recorded(dataset: Dataset, clip: Clip) -> Piece | None:
    """A clip's samples with a window of what surrounds them; None where its recording cannot be found
    or has changed."""
    return next(_pieces(dataset, [clip]))


def missing(dataset: Dataset, what: str) -> str:
    """The sentence that says that recordings cannot be found, and that `what` is left out."""
    where = f" in {dataset.recordings}" if dataset.recordings else ""
    return (
        f"the recordings of this dataset were not found{where}, or have changed;"
        f" left out: {what} (--recordings FOLDER says where they are)"
    )


def _pieces(dataset: Dataset, clips: Sequence[Clip]) -> Iterator[Piece | None]:
    """Clips of one recording, read in one pass; None for each that cannot be read as it was."""
    pieces: Iterator[Piece] = iter(())
    try:
        _file(dataset, clips[0])
        spans = [(clip.offset, clip.num_samples) for clip in clips]
        pieces = excerpts(_job(dataset), clips[0].path, spans)
    except AudioError:
        pass
    for _ in clips:
        try:
            yield next(pieces, None)
        except AudiovqError:
            yield None


def _most(sample_rate: int) -> int:
    """Samples of one recording that are measured at most."""
    return max(1, round(SECONDS * sample_rate))


def _beginning(path: Path, sample_rate: int) -> Waveform:
    """The first SECONDS of a recording, read no further. Raises AudioError."""
    parts: list[Waveform] = []
    wanted = _most(sample_rate)
    for block in reading.blocks(path, sample_rate):
        parts.append(block[:wanted])
        wanted -= len(parts[-1])
        if wanted <= 0:
            break
    waveform = np.concatenate(parts)
    peak = np.float32(max(1.0, peak_of(waveform)))
    made: Waveform = waveform / peak
    return made


def _file(dataset: Dataset, clip: Clip) -> Path:
    """The path of a clip's recording. Raises AudioError where it is not there, or has other bytes."""
    if dataset.recordings is None:
        raise AudioError(f"{dataset.folder}: does not say where its recordings are")
    path = dataset.recordings / clip.path
    try:
        finding.require_file(path)
        found = sha256(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from error
    if found != clip.sha256:
        raise AudioError(f"{path}: has changed since the dataset was made")
    return path


def _job(dataset: Dataset) -> ShardJob:
    """How the dataset's recordings were cut into clips."""
    settings = dataset.preprocess
    return ShardJob(
        "",
        dataset.recordings or dataset.folder,
        dataset.folder,
        (),
        dataset.spectrogram,
        dataset.clip_frames,
        settings.trim_db if settings.trim else None,
    )


def _first_stretch(clips: list[Clip]) -> tuple[int, int]:
    """Offset and samples of what clips of one recording cover from the first on without a gap."""
    ordered = sorted(clips, key=lambda clip: clip.offset)
    begin = ordered[0].offset
    end = begin
    for clip in ordered:
        if clip.offset > end:
            break
        end = max(end, clip.offset + clip.num_samples)
    return begin, end - begin
