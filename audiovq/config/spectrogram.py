"""Settings of preprocessing and of the spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from audiovq.config.checks import require, require_choices
from audiovq.config.serialize import OMIT_DEFAULT

WIDE_ABOVE = 24_000
"""Hz. Speech is recorded up to this sample rate, other sounds above it: there the choice of windows and bands, the
order of sampling and the onsets are as is best for hits, notes and textures."""
STEREO_BANDS = 16
"""Bands of balance and coherence: one per row of codes, at the default sizes."""
STEREO_FLOOR_DB = 70.0
"""Decibels below a clip's loudest cell at which balance and coherence are half way to their neutral values."""

SHORTEST_CLIP, LONGEST_CLIP = 0.02, 600
"""Seconds that may be asked for as the longest clip."""


@dataclass(frozen=True)
class PreprocessConfig:
    """Settings of preprocessing, from a folder of recordings to a dataset. None: chosen from the recordings."""

    sample_rate: int | None = None
    """Sample rate in Hz to resample to; None: the most common rate of the files."""
    clip_seconds: float | None = None
    """Longest clip in seconds; None: the longest file if it is at most 2.5 s, else long enough for 99 % of
    the files, at most about 2 s (rounded up to 16 frames)."""
    n_fft: int | None = None
    """Window length in samples; None: the next power of two of at least 32 ms, half of it for hits."""
    hop_length: int | None = None
    """Samples between frames; None: n_fft / 4."""
    n_mels: int | None = None
    """Number of mel bands; 0: linear bins; None: 64 up to 8 kHz, 80 up to 16, 96 up to 24, 128 above, 256
    for tones."""
    range_db: float = 80.0
    """Decibels from a clip's loudest cell down to the floor."""
    trim: bool = True
    """Trim silence at both ends of a file."""
    trim_db: float = 50.0
    """Silence is this many decibels below the loudest 20 ms of the file."""
    labels: str | None = None
    """Source of labels: `folder`, `none`, a CSV file, or a regular expression with named groups for the path."""
    test: str | None = None
    """Regular expression that selects the test files; None: --test-share of them, by a hash of the path."""
    test_share: float = 0.1
    """Share of the files set aside as the test set, unless --test is given; 0: no test set."""
    validation_share: float = 0.1
    """Share of the other files set aside for validation, by a hash of the path; 0: no validation."""
    channels: Literal["auto", "mono", "stereo"] = field(default="auto", metadata=OMIT_DEFAULT)
    """mono: channels are averaged. stereo: left and right, coded as loudness, balance and coherence.
    auto: stereo where a tenth of the files truly are."""
    stereo_floor_db: float | None = field(default=None, metadata=OMIT_DEFAULT)
    """Decibels below a clip's loudest cell at which balance and coherence are half way to neutral, in stereo; None: 70."""

    def __post_init__(self) -> None:
        require_choices(self)
        require(
            self.sample_rate is None or 1000 <= self.sample_rate <= 384_000,
            f"sample_rate {self.sample_rate}: give a rate in Hz from 1000 to 384000",
        )
        require(
            self.clip_seconds is None or SHORTEST_CLIP <= self.clip_seconds <= LONGEST_CLIP,
            f"clip_seconds {self.clip_seconds}: give seconds from {SHORTEST_CLIP} to {LONGEST_CLIP}",
        )
        for name in ("test_share", "validation_share"):
            share = getattr(self, name)
            require(0 <= share < 0.9, f"{name} {share}: give a share from 0 to below 0.9")
        require(
            0 < self.trim_db <= 200, f"trim_db {self.trim_db}: give decibels above 0, up to 200"
        )
        require(
            20 <= self.range_db <= 120, f"range_db {self.range_db}: give decibels from 20 to 120"
        )
        require(
            self.n_fft is None or (16 <= self.n_fft <= 32_768 and self.n_fft % 2 == 0),
            f"n_fft {self.n_fft}: give an even number from 16 to 32768",
        )
        require(
            self.hop_length is None or 1 <= self.hop_length <= (self.n_fft or 32_768) // 2,
            f"hop_length {self.hop_length}: give 1 to n_fft / 2",
        )
        require(
            self.n_mels is None or 0 <= self.n_mels <= 512,
            f"n_mels {self.n_mels}: give 0 (linear bins) to 512",
        )
        _require_floor(self.stereo_floor_db)

    def like(self, model: SpectrogramConfig, name: str) -> PreprocessConfig:
        """These settings with the sample rate and spectrograms of a model, `name` in messages.

        Raises AudiovqError where the model is one of images, or one of these settings is given and differs.
        """
        require(not model.images, f"--like {name}: is a model of images; give one of sounds")
        default = PreprocessConfig()
        common = {f.name for f in fields(self)} & {f.name for f in fields(model)}
        taken = {setting: getattr(model, setting) for setting in common}
        taken["channels"] = "mono" if model.channels == 1 else "stereo"
        if model.channels == 1:
            del taken["stereo_floor_db"]
        for setting, wanted in sorted(taken.items()):
            given = getattr(self, setting)
            require(
                given in (getattr(default, setting), wanted),
                f"--{setting.replace('_', '-')} {given}: {name} has {wanted}; leave it out, or leave out --like",
            )
        return replace(self, **taken)


@dataclass(frozen=True)
class SpectrogramConfig:
    """Size and range of spectrograms; stored in dataset and model."""

    sample_rate: int
    """In Hz."""
    n_fft: int
    """Window length in samples."""
    hop_length: int
    """Samples between frames."""
    n_mels: int
    """Number of mel bands, or 0 for the n_fft / 2 linear bins below Nyquist."""
    range_db: float = 80.0
    """Decibels from a clip's loudest cell down to the floor."""
    level_step_db: float = 1.5
    """Decibels from one level to the next."""
    num_levels: int = 64
    images: bool = False
    """Grayscale images in place of spectrograms: a frame is a column of pixels, bin 0 the bottom row."""
    channels: int = field(default=1, metadata=OMIT_DEFAULT)
    """1: mono, a spectrogram of one plane, the loudness. 2: stereo, of three: loudness, balance, coherence."""
    stereo_floor_db: float = field(default=60.0, metadata=OMIT_DEFAULT)
    """Decibels below a clip's loudest cell at which balance and coherence are half way to their neutral values."""

    def __post_init__(self) -> None:
        require(
            0 < self.sample_rate <= 384_000,
            f"sample_rate {self.sample_rate}: give a rate in Hz above 0, up to 384000",
        )
        require(
            16 <= self.n_fft <= 32_768 and self.n_fft % 2 == 0,
            f"n_fft {self.n_fft}: give an even number from 16 to 32768",
        )
        require(
            0 < self.hop_length <= self.n_fft // 2,
            f"hop_length {self.hop_length}: give 1 to n_fft / 2 = {self.n_fft // 2}",
        )
        most = min(512, self.n_fft // 2)
        require(0 <= self.n_mels <= most, f"n_mels {self.n_mels}: give 0 (linear bins) to {most}")
        require(
            20 <= self.range_db <= 120, f"range_db {self.range_db}: give decibels from 20 to 120"
        )
        require(
            0 < self.level_step_db <= 20,
            f"level_step_db {self.level_step_db}: give decibels above 0, up to 20",
        )
        require(2 <= self.num_levels <= 1024, f"num_levels {self.num_levels}: give 2 to 1024")
        most_channels = 1 if self.images else 2
        require(
            self.channels in (1, most_channels),
            f"channels {self.channels}: give 1 to {most_channels}",
        )
        _require_floor(self.stereo_floor_db)

    @property
    def bins(self) -> int:
        """Number of rows of the spectrogram."""
        return self.n_mels or self.n_fft // 2

    @property
    def is_wide(self) -> bool:
        """Whether they are of sounds above WIDE_ABOVE."""
        return self.sample_rate > WIDE_ABOVE and not self.images

    @property
    def is_of_hits(self) -> bool:
        """Whether they are wide with frames at most half as far apart as by default, as is chosen for hits."""
        if not self.is_wide:
            return False
        return 2 * self.hop_length <= SpectrogramConfig.for_rate(self.sample_rate).hop_length

    @property
    def planes(self) -> int:
        """Planes of the spectrogram: 1, or of stereo 3."""
        return 1 if self.channels == 1 else 3

    @property
    def stereo_bands(self) -> int:
        """Bands of balance, and as many of coherence; 0 of mono."""
        return 0 if self.channels == 1 else min(STEREO_BANDS, self.bins)

    @property
    def stored_rows(self) -> int:
        """Rows of a clip in a shard: its bins, then the bands of balance, then those of coherence."""
        return self.bins + 2 * self.stereo_bands

    @classmethod
    def for_images(cls, height: int) -> SpectrogramConfig:
        """Settings for images `height` pixels high; decibels stand for hundredths of white."""
        return cls(1, 2 * height, 1, 0, range_db=100.0, num_levels=2, images=True)

    @classmethod
    def for_rate(
        cls,
        sample_rate: int,
        n_fft: int | None = None,
        hop_length: int | None = None,
        n_mels: int | None = None,
        range_db: float = 80.0,
    ) -> SpectrogramConfig:
        """Default settings for a sample rate; arguments that are given are not changed."""
        n_fft = n_fft or 2 ** math.ceil(math.log2(0.032 * sample_rate))
        if n_mels is None:
            n_mels = next(
                (n for top, n in ((8e3, 64), (16e3, 80), (24e3, 96)) if sample_rate <= top), 128
            )
            n_mels = max(1, min(n_mels, n_fft // 4, most_bands(sample_rate, n_fft)))
        return cls(sample_rate, n_fft, hop_length or n_fft // 4, n_mels, range_db)


def _require_floor(floor_db: float | None) -> None:
    """Raise AudiovqError where the floor of balance and coherence is out of range."""
    require(
        floor_db is None or 20 <= floor_db <= 120,
        f"stereo_floor_db {floor_db}: give decibels from 20 to 120",
    )


def is_table(labels: str | None) -> bool:
    """Whether a source of labels is a CSV file."""
    return labels is not None and labels.lower().endswith(".csv")


def most_bands(sample_rate: int, n_fft: int) -> int:
    """A number of mel bands of `scale.mel_bands` that each cover at least one bin of the spectrum: the most, or one less.

    The narrowest bands, below 1 kHz, are two steps of the mel scale wide.
    """
    top = sample_rate / 2
    highest = 3 * top / 200 if top < 1000 else 15 + 27 * math.log(top / 1000, 6.4)
    return math.ceil(400 / 3 * highest * n_fft / sample_rate) - 2
