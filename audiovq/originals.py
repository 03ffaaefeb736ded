"""The recordings that a dataset was made from, where they can still be found: what figures and reports
compare with."""

from __future__ import annotations

from pathlib import Path

from audiovq import audio
from audiovq.analysis import Piece
from audiovq.config import AudiovqError
from audiovq.dataset import Dataset, Split
from audiovq.files import sha256
from audiovq.manifest import Clip
from audiovq.shard import ShardJob, excerpts


def original_waveforms(dataset: Dataset, split: Split, most: int) -> list[audio.Waveform]:
    """Up to `most` of a split's recordings at the dataset's rate, each (samples,); none where one cannot be
    found or has changed.

    Of a recording that is split in time, only the stretches of this split.
    """
    clips: dict[str, list[Clip]] = {}
    for clip in split.clips:
        clips.setdefault(clip.path, []).append(clip)
    paths = sorted(clips)
    paths = paths[:: max(1, -(-len(paths) // most))]
    others = {clip.path for other in dataset.splits if other is not split for clip in other.clips}
    found: list[audio.Waveform] = []
    try:
        for path in paths:
            file = _file(dataset, clips[path][0])
            if path in others:
                spans = _stretches(clips[path])
                pieces = excerpts(_job(dataset), path, spans)
                found += [piece.own(piece.samples) for piece in pieces]
            else:
                found.append(audio.read(file, dataset.spectrogram.sample_rate)[0])
    except (AudiovqError, OSError):
        return []
    return found[:most]


def recorded(dataset: Dataset, clip: Clip) -> Piece | None:
    """A clip's very samples, with a window of what surrounds them; None where its recording cannot be found
    or has changed."""
    try:
        _file(dataset, clip)
        (piece,) = excerpts(_job(dataset), clip.path, [(clip.offset, clip.num_samples)])
    except (AudiovqError, OSError):
        return None
    return piece


def missing(dataset: Dataset, what: str) -> str:
    """The sentence that says that recordings cannot be found, and `what` is left out for that."""
    where = f" in {dataset.recordings}" if dataset.recordings else ""
    return (
        f"note: the recordings of this dataset were not found{where}, or have changed;"
        f" left out: {what} (--recordings FOLDER says where they are)"
    )


def _file(dataset: Dataset, clip: Clip) -> Path:
    """The path of a clip's recording. Raises AudiovqError or OSError where it is not there, or is
    another one."""
    if dataset.recordings is None:
        raise AudiovqError(f"{dataset.folder}: does not say where its recordings are")
    path = dataset.recordings / clip.path
    audio.require_file(path)
    if sha256(path) != clip.sha256:
        raise AudiovqError(f"{path}: has changed since the dataset was made")
    return path


def _job(dataset: Dataset) -> ShardJob:
    """By which clips are cut as they were."""
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


def _stretches(clips: list[Clip]) -> list[tuple[int, int]]:
    """Clips of a recording → offset and samples of what they cover without a gap."""
    found: list[tuple[int, int]] = []
    for clip in sorted(clips, key=lambda clip: clip.offset):
        end = clip.offset + clip.num_samples
        if found and clip.offset <= sum(found[-1]):
            begin = found[-1][0]
            found[-1] = begin, max(end, sum(found[-1])) - begin
        else:
            found.append((clip.offset, clip.num_samples))
    return found
