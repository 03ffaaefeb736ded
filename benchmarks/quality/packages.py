"""Judges that come as packages with their weights inside: ViSQOL for quality, swift-f0 for pitch.

The extra `bench` installs both.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import torch

from audiovq.audio.resampling import resample
from audiovq.audio.waveform import Waveform
from audiovq.config.errors import AudiovqError

VISQOL_RATE = 48_000
VISQOL_PAUSE = 0.5
"""Seconds of silence at both ends of what ViSQOL compares: it needs a second, and hits are shorter."""
SURE = 0.5
"""Confidence from which swift-f0 calls a frame voiced."""
QUIETEST_DB = 30.0
"""Frames more than this below a sound's loudest frame have no effect on its pitch."""
PITCH_RANGE = 50.0, 2_000.0
"""Hz that swift-f0 finds."""


def visqol(original: Waveform, other: Waveform, sample_rate: int) -> float:
    """ViSQOL v3 in its audio mode (Chinen et al. 2020): 1 to 4.73 (identical), for (samples,) of equal length.

    Resampled to 48 kHz, with VISQOL_PAUSE of silence at both ends. Raises AudiovqError without the package.
    """
    sides = []
    for waveform in (original, other):
        at_48k = resample(waveform, sample_rate, VISQOL_RATE)
        sides.append(np.pad(at_48k, int(VISQOL_PAUSE * VISQOL_RATE)).astype(np.float64))
    threads = torch.get_num_threads()
    score = float(_visqol().measure_from_arrays(*sides, VISQOL_RATE).moslqo)
    torch.set_num_threads(threads)  # the package changes it
    return score


def pitch(waveform: Waveform, sample_rate: int) -> float | None:
    """Median pitch in Hz of the voiced frames within QUIETEST_DB of the loudest; None without such a frame.

    By swift-f0, from 50 to 2,000 Hz. Raises AudiovqError without the package.
    """
    found = _swift_f0().detect(waveform, sample_rate)
    if not len(found.confidence):
        return None
    loud = found.loudness_db > found.loudness_db.max() - QUIETEST_DB
    voiced = found.pitch_hz[loud & (found.confidence >= SURE)]
    return float(np.median(voiced)) if len(voiced) else None


@functools.cache
def _visqol() -> Any:
    try:
        from visqol import VisqolApi
    except ImportError as error:
        raise AudiovqError("ViSQOL is not installed: pip install -e '.[bench]'") from error
    logging.getLogger("visqol").setLevel(logging.ERROR)
    api = VisqolApi()
    api.create(mode="audio")
    return api


@functools.cache
def _swift_f0() -> Any:
    try:
        from swift_f0 import SwiftF0
    except ImportError as error:
        raise AudiovqError("swift-f0 is not installed: pip install -e '.[bench]'") from error
    return SwiftF0()
