"""Settings of the files that hold new sounds: format, bits and levels; and `Bars`, the length of a loop in bars.

Imports no torch, so that the command line can show every flag without loading it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from audiovq.config.checks import require, require_choices

Bits = Literal["16", "24", "32f"]


@dataclass(frozen=True)
class OutputConfig:
    """How new sounds are written."""

    format: Literal["wav", "flac"] = "wav"
    """wav: with chunks that samplers and audio workstations read. flac: smaller, lossless, with comments."""
    bits: Literal["auto", "16", "24", "32f"] = "auto"
    """Bits per sample; 32f: floating point (WAV only). auto: 16, or those of the recording that `vary`, `continue` and
    `repaint` change."""
    loudness: float | None = None
    """Loudness of each sound in LUFS (ITU-R BS.1770), such as -14; by default its natural level."""
    peak: float = -1.0
    """Highest peak in dBFS: louder sounds are turned down. Kept parts of a recording keep their level, up to full scale
    (with 32f, above it)."""
    bext: bool = False
    """Add a chunk `bext` (broadcast WAV; not in FLAC) with a description and the loudness."""

    def __post_init__(self) -> None:
        require_choices(self)
        require(
            (self.format, self.bits) != ("flac", "32f"),
            "format flac: has no floating-point samples; give --bits 16 or 24",
        )
        require(
            not (self.bext and self.format == "flac"),
            "bext: is a chunk of WAVs, which FLAC has not; give --format wav, or leave it out",
        )
        require(
            self.loudness is None or -70 <= self.loudness <= 0,
            f"loudness {self.loudness}: give LUFS from -70 to 0, such as -14",
        )
        require(-60 <= self.peak <= 0, f"peak {self.peak}: give dBFS from -60 to 0")

    @property
    def highest_peak(self) -> float:
        """The highest peak as a share of full scale."""
        return float(10 ** (self.peak / 20))


LOWEST_TEMPO, HIGHEST_TEMPO = 20.0, 400.0
"""Beats per minute."""
MOST_BARS = 256
MOST_BEATS_PER_BAR = 32


@dataclass(frozen=True)
class Bars:
    """The length of a loop: `bars` bars of `beats_per_bar` beats at `tempo` beats per minute."""

    tempo: float
    bars: float
    """Also halves and quarters, of whole beats."""
    beats_per_bar: int = 4

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.tempo) and LOWEST_TEMPO <= self.tempo <= HIGHEST_TEMPO,
            f"bpm {self.tempo:g}: give beats per minute from {LOWEST_TEMPO:g} to {HIGHEST_TEMPO:g}",
        )
        require(
            1 <= self.beats_per_bar <= MOST_BEATS_PER_BAR,
            f"beats-per-bar {self.beats_per_bar}: give 1 to {MOST_BEATS_PER_BAR}",
        )
        require(
            math.isfinite(self.bars) and 0 < self.bars <= MOST_BARS,
            f"bars {self.bars:g}: give a number above 0, up to {MOST_BARS}",
        )
        whole = self.bars * self.beats_per_bar
        require(
            whole == round(whole),
            f"bars {self.bars:g}: a loop of {whole:g} beats; give whole beats, such as {1 / self.beats_per_bar:g}"
            " for one",
        )

    @property
    def beats(self) -> int:
        """Number of beats."""
        return round(self.bars * self.beats_per_bar)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.beats * 60 / self.tempo
