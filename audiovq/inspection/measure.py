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
"""Samples of the spectra that bandwidth is measured by."""
BANDWIDTH_DB = 60
"""Frequencies further below the strongest one do not count towards the bandwidth."""


@dataclass(frozen=True)
class RecordingStats:
    """Statistics of one whole recording at its original rate."""

    peak: float
    """Maximum absolute value."""
    silent: float
    """Share of 20 ms windows that are silent."""
    clipped: float
    """Share of samples that equal both the previous one and the recording's maximum or minimum."""
    bandwidth_hz: float
    """Highest frequency with sound."""
    sha256: str
    """Of samples and rate, independent of the file format."""
    notes: tuple[str, ...] = ()
    """Messages for the user by `reading.blocks`."""


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`, plain values only, as `--json` prints them."""

    source: str
    found: int
    usable: int
    seconds: float
    """Total duration of the usable recordings."""
    rates: dict[int, int]
    """Number of recordings by sample rate."""
    lengths: list[float]
    """Seconds of each usable recording, ascending."""
    silent: float
    """Share of the total duration that is silent."""
    reaches: list[float]
    """Bandwidth in Hz of each usable recording, ascending."""
    clipped: dict[str, float]
    """Share of clipped samples of the clipped recordings, the worst first."""
    duplicates: list[list[str]]
    """Groups of recordings with identical samples."""
    near_copies: list[list[str]]
    """Groups of other recordings that are copies but for level, format, rate, or silence before them."""
    skipped: list[Skipped]
    """Unusable files with the reasons, the same as in `preprocess`."""
    labels: dict[str, list[str]]
    notes: list[str]
    """Messages for the user."""
    settings: SpectrogramConfig
    clip_seconds: float
    clips: int
    """Number of clips that the recordings are cut into."""
    preset: str
    reasons: list[str]
    """Reasons for the settings, a sentence each."""
    commands: list[str]
    """Command lines that make a dataset with these settings, and a model."""
    ceiling: dict[str, float]
    """`fidelity.waveform_scores` of a few clips made from their true spectrograms: the best that a model
    with these settings can reach."""
    inverted: dict[str, float]
    """Spectral convergence of each of these clips, by path of its recording."""
    expected: list[str]
    """What to expect from these clips, and what would help most: sentences of `enough.expectation_lines`."""
    descriptions: dict[str, Description]
    """Pitch, onsets, tempo, timbre and loudness of the same clips."""


def measure(path: Path, trim_db: float, *, block_samples: int = reading.BLOCK) -> RecordingStats:
    """Measure a recording, block by block. Raises AudioError if it cannot be read.

    Clipping is not found if the sound was scaled down afterwards, or compressed with loss.
    """
    rate = reading.info(path).sample_rate
    detector = SilenceDetector(rate)
    digest = hashlib.sha256(str(rate).encode())
    power, repeats = np.zeros(WINDOW // 2 + 1), Counter[float]()
    notes: list[str] = []
    for block in reading.blocks(path, note=notes.append, block_samples=block_samples):
        detector.add(block)
        digest.update(block.tobytes())
        power += _power(block)
        repeated = block[1:][block[1:] == block[:-1]]
        for extreme in (float(block.max()), float(block.min())) if len(repeated) else ():
            repeats[extreme] += int((repeated == extreme).sum())
    clipped = sum(n for value, n in repeats.items() if abs(value) > 0.9 * detector.peak)
    strong = np.flatnonzero(power > power.max() * 10 ** (-BANDWIDTH_DB / 10))
    loud = detector.loud(trim_db)
    return RecordingStats(
        peak=detector.peak,
        silent=1 - float(loud.mean()),
        clipped=clipped / detector.num_samples,
        bandwidth_hz=min(rate / 2, (int(strong[-1]) + 1) * rate / WINDOW) if len(strong) else 0.0,
        sha256=digest.hexdigest(),
        notes=tuple(notes),
    )


def _power(block: Waveform) -> npt.NDArray[np.float64]:
    """Power spectrum (WINDOW / 2 + 1,) of a block (samples,), summed over windows."""
    whole = max(1, len(block) // WINDOW) * WINDOW
    padded = np.pad(block[:whole], (0, max(0, whole - len(block)))).reshape(-1, WINDOW)
    spectra = np.fft.rfft((padded - padded.mean(axis=1, keepdims=True)) * np.blackman(WINDOW))
    power: npt.NDArray[np.float64] = (np.abs(spectra) ** 2).sum(axis=0)
    return power
