"""Statistics of one recording: rate, length, silence, clipping, bandwidth."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiovq.audio import reading
from audiovq.audio.channels import Mixer
from audiovq.audio.silence import SilenceDetector
from audiovq.audio.waveform import Waveform
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.manifest import Skipped
from audiovq.inspection.describe import Description

WINDOW = 1024
"""Samples of the spectra that bandwidth is measured by."""
FLAT = 0.5
"""Share of the peak that the maximum and the minimum must exceed where samples that equal them count as clipped: the
minimum of a sound on one side of zero is silence."""
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
    """Share of samples that equal both the previous one and the maximum or minimum, if that is beyond FLAT of the peak,
    of the channel with most."""
    bandwidth_hz: float
    """Highest frequency with sound."""
    sha256: str
    """Of rate and samples, of both channels where there are two; independent of the file format."""
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
    near_copies: list[list[str]] | None
    """Groups of other recordings that are copies but for level, format, rate, or silence before them; None: they are not
    looked for among more than `similar.MOST`."""
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
    """Measure a recording, block by block: two channels as they are, more mixed to mono.

    Clipping is not found if the sound was scaled down afterwards, or compressed with loss. Raises AudioError if the
    recording cannot be read.
    """
    info = reading.info(path)
    rate, channels = info.sample_rate, 2 if info.channels == 2 else 1
    detector, mixer = SilenceDetector(rate), Mixer(rate)
    digest = hashlib.sha256(str(rate).encode())
    power, sides = np.zeros(WINDOW // 2 + 1), [_Clipping() for _ in range(channels)]
    notes: list[str] = []
    for block in reading.blocks(
        path, note=notes.append, block_samples=block_samples, channels=channels
    ):
        detector.add(block)
        digest.update(block.T.tobytes())
        for samples, clipping in zip(np.atleast_2d(block), sides, strict=True):
            power += _power(samples)
            clipping.add(samples)
        if channels == 2:
            mixer.mix(block.T)
    notes += [mixer.note] if mixer.note else []
    strong = np.flatnonzero(power > power.max() * 10 ** (-BANDWIDTH_DB / 10))
    loud = detector.loud(trim_db)
    return RecordingStats(
        peak=detector.peak,
        silent=1 - float(loud.mean()),
        clipped=max(clipping.count for clipping in sides) / detector.num_samples,
        bandwidth_hz=min(rate / 2, (int(strong[-1]) + 1) * rate / WINDOW) if len(strong) else 0.0,
        sha256=digest.hexdigest(),
        notes=tuple(notes),
    )


class _Clipping:
    """Counts the clipped samples of one channel, block by block."""

    def __init__(self) -> None:
        self._highest, self._lowest = (0.0, 0), (0.0, 0)
        """The maximum and the minus minimum so far, and the samples that equal it and the previous one."""
        self._last: float | None = None

    def add(self, samples: Waveform) -> None:
        """Add the next block (samples,), which may be empty where a header states more samples than there are."""
        if not len(samples):
            return
        repeated = samples[1:][samples[1:] == samples[:-1]]
        if samples[0] == self._last:
            repeated = np.append(repeated, samples[0])
        self._last = float(samples[-1])
        self._highest = _extreme(self._highest, float(samples.max()), repeated)
        self._lowest = _extreme(self._lowest, -float(samples.min()), -repeated)

    @property
    def count(self) -> int:
        """Samples that equal both the previous one and the maximum or minimum of all, if that exceeds FLAT of the
        peak."""
        peak = max(self._highest[0], self._lowest[0])
        return sum(n for value, n in (self._highest, self._lowest) if value > FLAT * peak)


def _extreme(before: tuple[float, int], highest: float, repeated: Waveform) -> tuple[float, int]:
    """The maximum up to and with a block, and how many of its samples and of the ones `before` are `repeated` ones."""
    value, count = before
    if highest < value:
        return before
    return highest, int((repeated == highest).sum()) + (count if highest == value else 0)


def _power(block: Waveform) -> npt.NDArray[np.float64]:
    """Power spectrum (WINDOW / 2 + 1,) of a block (samples,), summed over windows, of which the last one overlaps the
    one before where there is a rest."""
    windows = block[: len(block) // WINDOW * WINDOW].reshape(-1, WINDOW)
    if len(block) % WINDOW:
        last = np.pad(block[-WINDOW:], (0, max(0, WINDOW - len(block))))
        windows = np.concatenate([windows, last[None]])
    spectra = np.fft.rfft((windows - windows.mean(axis=1, keepdims=True)) * np.blackman(WINDOW))
    power: npt.NDArray[np.float64] = (np.abs(spectra) ** 2).sum(axis=0)
    return power
