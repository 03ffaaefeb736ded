"""Waveforms of the recordings that a dataset was made from, if they still exist, in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from audiovq.audio import finding, reading
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.manifest import Clip
from audiovq.preprocessing.slicing import Slicing, excerpts
from audiovq.runtime.files import sha256
from audiovq.spectral.numpy_spectrogram import Piece

SECONDS = 10.0
"""Maximum duration of one recording: its beginning is used."""
TOTAL_SECONDS = 300.0
"""Maximum total duration; more recordings are not read."""
RECORDINGS = 400
"""Maximum number of recordings."""


@dataclass(frozen=True)
class Beginning:
    """The beginning of a recording of a split."""

    path: str
    """Path of the recording, as in `Clip`."""
    waveform: Waveform
    """(samples,) or (2, samples) at the dataset's rate."""
    whole: bool
    """Whether it is all of the recording, so that it ends where the sound does."""


def beginnings(
    dataset: Dataset,
    split: Split,
    *,
    seconds: float = SECONDS,
    total_seconds: float = TOTAL_SECONDS,
) -> Iterator[Waveform]:
    """Waveforms of `described_beginnings`."""
    found = described_beginnings(dataset, split, seconds=seconds, total_seconds=total_seconds)
    return (beginning.waveform for beginning in found)


def described_beginnings(
    dataset: Dataset,
    split: Split,
    *,
    seconds: float = SECONDS,
    total_seconds: float = TOTAL_SECONDS,
) -> Iterator[Beginning]:
    """Beginnings of a split's recordings, up to `seconds`, one at a time.

    At most RECORDINGS recordings and about `total_seconds` in total, in a random order with a fixed seed.
    Of a recording that several splits share, only the part in `split`. Raises AudioError if a recording is
    missing, has changed, or is damaged.
    """
    clips: dict[str, list[Clip]] = {}
    for clip in split.clips:
        clips.setdefault(clip.path, []).append(clip)
    shared = {clip.path for other in dataset.splits if other is not split for clip in other.clips}
    rate = dataset.spectrogram.sample_rate
    most = max(1, round(seconds * rate))
    total = 0.0
    for path in _order(split):
        if total >= total_seconds:
            return
        file = _file(dataset, clips[path][0])
        if path in shared:
            offset, samples = _first_span(clips[path])
            span = offset, min(samples, most)
            (piece,) = excerpts(file, _slicing(dataset), [span])
            waveform = piece.cut_to_clip(piece.samples)
        else:
            waveform, _ = reading.beginning(file, seconds, rate, dataset.spectrogram.channels)
        total += waveform.shape[-1] / rate
        # One of `most` samples may be longer; one that other splits share is longer, however short its part is.
        yield Beginning(path, waveform, path not in shared and waveform.shape[-1] < most)


def _order(split: Split) -> list[str]:
    """Paths of the recordings of `described_beginnings`, in their order."""
    paths = sorted({clip.path for clip in split.clips})
    shuffled = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))
    return [paths[index] for index in shuffled[:RECORDINGS].tolist()]


def clip_waveforms(dataset: Dataset, clips: Sequence[Clip]) -> Iterator[Waveform | None]:
    """Waveform (samples,) of each clip, in order; None if its recording is missing or has changed.

    Consecutive clips of one recording are read in one pass.
    """
    for _, group in itertools.groupby(clips, key=lambda clip: (clip.path, clip.transposed)):
        for piece in _pieces(dataset, list(group)):
            yield None if piece is None else piece.cut_to_clip(piece.samples)


def whole_clips(dataset: Dataset, split: Split, most: int) -> list[Waveform]:
    """Waveforms (samples,) of up to `most` clips that were not cut, in a random order with a fixed seed;
    those of missing recordings are left out."""
    shuffled = torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).tolist()
    clips = [clip for i in shuffled if all((clip := split.clips[i]).complete)][:most]
    return [waveform for waveform in clip_waveforms(dataset, clips) if waveform is not None]


def original_piece(dataset: Dataset, clip: Clip) -> Piece | None:
    """A clip's samples with a window of context on both sides; None if its recording is missing or has
    changed."""
    return next(_pieces(dataset, [clip]))


def missing_note(dataset: Dataset, what: str) -> str:
    """Message that recordings are missing or have changed, so that `what` is left out."""
    if dataset.recordings is None:
        return (
            "the dataset names no folder of its recordings, as they lie far from it and paths are private;"
            f" left out: {what} (give it to report or evaluate with --recordings FOLDER)"
        )
    return (
        f"recordings of this dataset are missing in {dataset.recordings} or have changed; left out: {what}"
        " (give their folder with --recordings FOLDER)"
    )


def _pieces(dataset: Dataset, clips: Sequence[Clip]) -> Iterator[Piece | None]:
    """Clips of one recording, read in one pass; None for each if the recording is missing, changed or
    damaged."""
    pieces: Iterator[Piece] = iter(())
    try:
        path = _file(dataset, clips[0])
        spans = [(clip.offset, clip.num_samples) for clip in clips]
        slicing = replace(_slicing(dataset), transposed=clips[0].transposed)
        pieces = excerpts(path, slicing, spans)
    except AudioError:
        pass
    for _ in clips:
        try:
            yield next(pieces, None)
        except AudiovqError:
            yield None


def _file(dataset: Dataset, clip: Clip) -> Path:
    """Path of a clip's recording. Raises AudioError if it is missing or its checksum has changed."""
    if dataset.recordings is None:
        raise AudioError(f"{dataset.folder}: does not name the folder of its recordings")
    path = dataset.recordings / clip.path
    try:
        finding.require_file(path)
        found = sha256(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror or error})") from error
    if found != clip.sha256:
        raise AudioError(f"{path}: has changed since the dataset was made")
    return path


def _slicing(dataset: Dataset) -> Slicing:
    """The settings by which the dataset's recordings were cut into clips."""
    return Slicing.of(dataset.preprocess, dataset.spectrogram, dataset.clip_frames)


def _first_span(clips: list[Clip]) -> tuple[int, int]:
    """Offset and length of the gapless part that the first clips of one recording cover."""
    ordered = sorted(clips, key=lambda clip: clip.offset)
    begin = ordered[0].offset
    end = begin
    for clip in ordered:
        if clip.offset > end:
            break
        end = max(end, clip.offset + clip.num_samples)
    return begin, end - begin
