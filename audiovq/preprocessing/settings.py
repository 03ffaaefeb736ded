"""Spectrogram settings and clip length chosen from the recordings."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from audiovq.audio.reading import AudioInfo
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.preprocessing.shard import ShardJob, is_used

FRAMES_MULTIPLE = 16
"""Clips are whole multiples of so many frames, which every network's stride divides."""
CLIP_SECONDS = 2.0
"""Of a clip that longer recordings are cut into."""
WHOLE_SECONDS = 2.5
"""Up to so long, the longest recording is one clip."""


def choose_settings(
    config: PreprocessConfig, infos: list[AudioInfo]
) -> tuple[SpectrogramConfig, int, list[str]]:
    """The spectrogram's settings, frames per clip, and what the user should know of the choice."""
    rates = Counter(info.sample_rate for info in infos)
    rate = config.sample_rate or min(rates, key=lambda r: (-rates[r], r))
    settings = SpectrogramConfig.for_rate(
        rate, config.n_fft, config.hop_length, config.n_mels, config.range_db
    )
    warnings = []
    if lower := sum(n for r, n in rates.items() if r < rate):
        warnings.append(
            f"{lower} of {len(infos)} files have a lower rate than {rate} Hz;"
            " bringing them up adds nothing to their sound (--sample-rate sets another)"
        )
    seconds = config.clip_seconds
    if seconds is None:
        lengths = [info.seconds for info in infos]
        longest = max(lengths)
        seconds = min(CLIP_SECONDS, float(np.quantile(lengths, 0.99)))
        if longest <= WHOLE_SECONDS:
            seconds = longest + 1 / rate  # a clip of n frames ends one sample before n hops
    frames = math.ceil(seconds * rate / settings.hop_length / FRAMES_MULTIPLE) * FRAMES_MULTIPLE
    if longer := sum(info.seconds * rate >= frames * settings.hop_length for info in infos):
        warnings.append(
            f"{longer} of {len(infos)} files are longer than a clip of"
            f" {frames * settings.hop_length / rate:.2f} s and are cut into several"
        )
    return settings, frames, warnings


def voters(
    source: Path, infos: Mapping[str, AudioInfo], config: PreprocessConfig
) -> dict[str, AudioInfo]:
    """Those of some recordings, by their paths below `source`, that `choose_settings` is to go by.

    What will be left out (too short, silent, broken) has no say in it. All lengths are looked at, but
    only so many files are read as it takes to be sure: a few where all have one rate. Where none can
    be used, all have a say.
    """
    trim_db = config.trim_db if config.trim else None

    @functools.cache
    def settings(rate: int) -> SpectrogramConfig:
        return SpectrogramConfig.for_rate(rate, config.n_fft)

    def is_long_enough(path: str) -> bool:
        one = settings(config.sample_rate or infos[path].sample_rate)
        return infos[path].seconds >= one.n_fft / one.sample_rate

    def can_be_used(path: str) -> bool:
        one = settings(config.sample_rate or infos[path].sample_rate)
        return is_used(source / path, ShardJob("", source, source, (), one, 0, trim_db))

    try:
        left = {path: infos[path] for path in infos if is_long_enough(path)}
        if config.sample_rate is None:
            _agree_on_rate(left, can_be_used)
        if config.clip_seconds is None:
            _agree_on_length(left, can_be_used)
    except AudiovqError:  # settings that cannot be; `choose_settings` says why
        left = {}
    return left or dict(infos)


def _agree_on_rate(left: dict[str, AudioInfo], can_be_used: Callable[[str], bool]) -> None:
    """Take files that cannot be used out of `left` until the rate that most have is sure."""
    untried: dict[int, list[str]] = {}
    for path, info in left.items():
        untried.setdefault(info.sample_rate, []).append(path)
    most = {rate: len(paths) for rate, paths in untried.items()}
    while most:
        first, *others = sorted(most, key=lambda rate: (-most[rate], rate))
        sure = most[first] - len(untried[first])
        if not untried[first] or sure > max((most[rate] for rate in others), default=-1):
            return
        path = untried[first].pop()
        if not can_be_used(path):
            del left[path]
            most[first] -= 1


def _agree_on_length(left: dict[str, AudioInfo], can_be_used: Callable[[str], bool]) -> None:
    """Take files that cannot be used out of `left` until it is sure which is the longest, or that one
    is too long for a clip."""
    rising = sorted(left, key=lambda path: left[path].seconds)
    long = [path for path in rising if left[path].seconds > WHOLE_SECONDS]
    short = rising[: len(rising) - len(long)]
    for path in (*long, *reversed(short)):
        if can_be_used(path):
            return
        del left[path]
