"""Statistics of one recording: rate, length, silence, clipping, bandwidth."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiovq.audio import reading
from audiovq.audio.silence import SilenceDetector
from audiovq.audio.waveform import Waveform
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.manifest import Skipped
from audiovq.inspection.describe import Description

WINDOW = 1024
"""Samples of a spectrum by which bandwidth is told."""
REACH_DB = 60
"""What lies further below a recording's strongest frequency is not counted as its sound."""


@dataclass(frozen=True)
class RecordingStats:
    """One recording, listened to at its own rate from end to end."""

    peak: float
    """Of its absolute values."""
    silent: float
    """Share of its 20 ms windows."""
    clipped: float
    """Share of its samples at its very peak, or lowest point, that do not leave it at once."""
    reaches: float
    """Hz up to which it has sound."""
    sha256: str
    """Of its samples and its rate, in whatever kind of file."""
    notes: tuple[str, ...] = ()
    """What its user should know, as `audio.blocks` tells it."""


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; of plain values, so that it can become JSON."""

    source: str
    found: int
    usable: int
    seconds: float
    """Of all usable recordings."""
    rates: dict[int, int]
    """Hz → recordings."""
    lengths: list[float]
    """Seconds of each usable recording, rising."""
    silent: float
    """Share of all that is silence."""
    reaches: list[float]
    """Hz up to which each usable recording has sound, rising."""
    clipped: dict[str, float]
    """Those that are, with the share of their samples, the worst first."""
    duplicates: list[list[str]]
    """Groups of recordings whose samples are the same."""
    skipped: list[Skipped]
    """With the reasons, as `preprocess` gives them."""
    labels: dict[str, list[str]]
    notes: list[str]
    """What the user should know."""
    settings: SpectrogramConfig
    clip_seconds: float
    clips: int
    """That the recordings become."""
    preset: str
    reasons: list[str]
    """For the settings, a sentence each."""
    commands: list[str]
    """That make a dataset with these settings, and a model."""
    ceiling: dict[str, float]
    """`fidelity.waveform_scores` of a few clips after their true spectrograms were inverted: no
    model on these settings can exceed them."""
    inverted: dict[str, float]
    """Those clips' recordings, with their spectral convergence."""
    descriptions: dict[str, Description]
    """The same clips' pitch, onsets, tempo, timbre and loudness."""


def measure(path: Path, trim_db: float) -> RecordingStats:
    """Listen to a recording, block by block. Raises AudioError where it cannot be read.

    Sound that was clipped and then made softer, or stored with loss, is not told from other sound.
    """
    rate = reading.info(path).sample_rate
    extent = SilenceDetector(rate)
    digest = hashlib.sha256(str(rate).encode())
    power, held = np.zeros(WINDOW // 2 + 1), Counter[float]()
    notes: list[str] = []
    for block in reading.blocks(path, note=notes.append):
        extent.add(block)
        digest.update(block.tobytes())
        power += _power(block)
        stays = block[1:][block[1:] == block[:-1]]
        for extreme in (float(block.max()), float(block.min())) if len(stays) else ():
            held[extreme] += int((stays == extreme).sum())
    still = sum(n for value, n in held.items() if abs(value) > 0.9 * extent.peak)
    strong = np.flatnonzero(power > power.max() * 10 ** (-REACH_DB / 10))
    loud = extent.loud(trim_db)
    return RecordingStats(
        peak=extent.peak,
        silent=1 - float(loud.mean()),
        clipped=still / extent.num_samples,
        reaches=min(rate / 2, (int(strong[-1]) + 1) * rate / WINDOW) if len(strong) else 0.0,
        sha256=digest.hexdigest(),
        notes=tuple(notes),
    )


def _power(block: Waveform) -> npt.NDArray[np.float64]:
    """(samples,) → (WINDOW / 2 + 1,): the power of each frequency, summed over windows."""
    whole = max(1, len(block) // WINDOW) * WINDOW
    padded = np.pad(block[:whole], (0, max(0, whole - len(block)))).reshape(-1, WINDOW)
    spectra = np.fft.rfft((padded - padded.mean(axis=1, keepdims=True)) * np.blackman(WINDOW))
    power: npt.NDArray[np.float64] = (np.abs(spectra) ** 2).sum(axis=0)
    return power
