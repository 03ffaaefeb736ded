"""Spectrogram settings and clip length, chosen from the recordings."""

from __future__ import annotations

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiovq.audio import reading
from audiovq.audio.channels import is_stereo
from audiovq.audio.reading import AudioInfo
from audiovq.audio.silence import SILENT
from audiovq.audio.waveform import AudioError, peak_of
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import (
    STEREO_FLOOR_DB,
    WIDE_ABOVE,
    PreprocessConfig,
    SpectrogramConfig,
    most_bands,
)
from audiovq.preprocessing.character import HIT, TONE, Character, evenly_spaced
from audiovq.preprocessing.slicing import Slicing, is_used

FRAMES_MULTIPLE = 16
"""Clip lengths are multiples of this many frames, which the stride of every network divides."""
CLIP_SECONDS = 2.0
"""Length of the clips that longer recordings are cut into."""
Listen = Callable[[int], Character | None]
"""Measures the character of the recordings at a sample rate."""
STEREO_FILES = 100
"""Files that are read to learn whether recordings are stereo, evenly spaced."""
STEREO_BLOCK = 1 << 18
"""Samples of these files that are read at a time, both channels together."""
STEREO_BLOCKS = 8
"""Most of these blocks with sound in which both channels may be equal, before a file is taken to be mono."""
STEREO_SHARE = 0.1
"""Share of the files that must be stereo, for a dataset in stereo."""
WHOLE_SECONDS = 2.5
"""If no recording is longer than this, each is one clip."""


def choose_settings(
    config: PreprocessConfig, infos: list[AudioInfo], listen: Listen | None = None
) -> tuple[SpectrogramConfig, int, list[str]]:
    """Choose what `config` leaves open: (spectrogram settings, frames per clip, notes for the user).

    `infos` are the recordings to choose by: see `voters`. `listen` measures their character, which decides
    windows and bands above WIDE_ABOVE, unless `config` gives one of them; None: it does not.
    Raises AudiovqError if settings are impossible.
    """
    rates = Counter(info.sample_rate for info in infos)
    rate = config.sample_rate or min(rates, key=lambda r: (-rates[r], r))
    given = config.n_fft, config.hop_length, config.n_mels
    settings = SpectrogramConfig.for_rate(rate, *given, config.range_db)
    warnings = []
    if listen and rate > WIDE_ABOVE and given == (None, None, None):
        settings, reason = _by_character(settings, listen(rate))
        warnings += [reason] if reason else []
    if lower := sum(n for r, n in rates.items() if r < rate):
        warnings.append(
            f"{lower} of {len(infos)} files {'has' if lower == 1 else 'have'} a lower sample rate than {rate:,} Hz;"
            " upsampling adds nothing to their sound (--sample-rate sets another rate)"
        )
    seconds = config.clip_seconds
    if seconds is None:
        lengths = [info.seconds for info in infos]
        longest = max(lengths)
        seconds = min(CLIP_SECONDS, float(np.quantile(lengths, 0.99)))
        if longest <= WHOLE_SECONDS:
            seconds = longest + 1 / rate  # n frames hold at most n * hop_length - 1 samples
    frames = math.ceil(seconds * rate / settings.hop_length / FRAMES_MULTIPLE) * FRAMES_MULTIPLE
    return settings, frames, warnings


def choose_channels(
    config: PreprocessConfig,
    settings: SpectrogramConfig,
    source: Path,
    infos: Mapping[str, AudioInfo],
) -> tuple[SpectrogramConfig, list[str]]:
    """The settings in mono or stereo, as `config` says, and notes for the user.

    auto: in stereo if STEREO_SHARE of the recordings (path below `source` → info) are: see `channels.is_stereo`.
    If any has more than one channel, up to STEREO_FILES are read; those without sound do not count.
    """
    stereo = replace(
        settings,
        channels=2,
        stereo_floor_db=config.stereo_floor_db or STEREO_FLOOR_DB,
    )
    if config.channels != "auto":
        return (stereo if config.channels == "stereo" else settings), []
    if all(info.channels == 1 for info in infos.values()):
        return settings, []
    paths = evenly_spaced(list(infos), STEREO_FILES)
    votes = [vote for path in paths if (vote := _is_stereo(source / path)) is not None]
    found = sum(votes)
    if found < STEREO_SHARE * len(votes) or not found:
        return settings, []
    read = "" if len(votes) == len(infos) else " that were read"
    are = "is" if found == 1 else "are"
    note = f"{found} of {len(votes)} sound files{read} {are} stereo, and so is the dataset (--channels mono averages them)"
    return stereo, [note]


def _is_stereo(path: Path) -> bool | None:
    """Whether the channels of a recording differ in one of its first STEREO_BLOCKS blocks with sound; None if there is
    none, or none can be read."""
    votes: list[bool] = []
    with contextlib.suppress(AudioError):
        for block in reading.blocks(path, block_samples=STEREO_BLOCK, channels=2):
            if peak_of(block) >= SILENT:
                votes.append(is_stereo(block))
                if votes[-1] or len(votes) == STEREO_BLOCKS:
                    break
    return any(votes) if votes else None


def _by_character(
    default: SpectrogramConfig, character: Character | None
) -> tuple[SpectrogramConfig, str | None]:
    """Settings for recordings of a character, and the reason where they are not the default."""
    kind = character.kind if character else "mixed"
    if character and kind == "hits":
        shorter = SpectrogramConfig.for_rate(
            default.sample_rate, default.n_fft // 2, range_db=default.range_db
        )
        return shorter, (
            f"windows of {shorter.n_fft} samples, hop {shorter.hop_length}: the recordings are hits, with"
            f" {100 * character.early:.0f} % of their energy in the first 60 ms ({100 * HIT:.0f} % or more)"
        )
    if character and kind == "tones":
        bands = min(2 * default.n_mels, most_bands(default.sample_rate, default.n_fft))
        return replace(default, n_mels=bands), (
            f"{bands} mel bands: the recordings are tones, which windows of half the length blur by"
            f" {character.ringing:.2f} octaves ({TONE} or more)"
        )
    return default, None


def voters(
    source: Path, infos: Mapping[str, AudioInfo], config: PreprocessConfig
) -> dict[str, AudioInfo]:
    """The recordings (path below `source` → info) that `choose_settings` should consider.

    Recordings that will be skipped (silent, broken) are left out, or none if all would be. Only as
    many files are read as can decide the outcome.
    """

    @functools.cache
    def settings(rate: int) -> SpectrogramConfig:
        return SpectrogramConfig.for_rate(rate, config.n_fft)

    def can_be_used(path: str) -> bool:
        spectrogram = settings(config.sample_rate or infos[path].sample_rate)
        return is_used(source / path, Slicing.of(config, spectrogram, clip_frames=0))

    left = dict(infos)
    try:
        if config.sample_rate is None:
            _agree_on_rate(left, can_be_used)
        if config.clip_seconds is None:
            _agree_on_length(left, can_be_used)
    except AudiovqError:  # impossible settings; `choose_settings` says why
        left = {}
    return left or dict(infos)


def _agree_on_rate(left: dict[str, AudioInfo], can_be_used: Callable[[str], bool]) -> None:
    """Remove unusable files from `left` until the most frequent sample rate is certain."""
    untried: dict[int, list[str]] = {}
    for path, info in left.items():
        untried.setdefault(info.sample_rate, []).append(path)
    most = {rate: len(paths) for rate, paths in untried.items()}
    while most:
        first, *others = sorted(most, key=lambda rate: (-most[rate], rate))
        usable = most[first] - len(untried[first])
        if not untried[first] or usable > max((most[rate] for rate in others), default=-1):
            return
        path = untried[first].pop()
        if not can_be_used(path):
            del left[path]
            most[first] -= 1


def _agree_on_length(left: dict[str, AudioInfo], can_be_used: Callable[[str], bool]) -> None:
    """Remove unusable files from `left` until it is certain which is the longest, or that one exceeds
    WHOLE_SECONDS."""
    by_length = sorted(left, key=lambda path: left[path].seconds)
    long = [path for path in by_length if left[path].seconds > WHOLE_SECONDS]
    short = by_length[: len(by_length) - len(long)]
    for path in (*long, *reversed(short)):
        if can_be_used(path):
            return
        del left[path]
