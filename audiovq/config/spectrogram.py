"""Settings of preprocessing and of the spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass

from audiovq.config.checks import require


@dataclass(frozen=True)
class PreprocessConfig:
    """How a folder of recordings becomes a dataset. `None` means: chosen from the recordings."""

    sample_rate: int | None = None
    """Hz of everything after reading; None: the rate that most usable files have."""
    clip_seconds: float | None = None
    """Length of a clip; None: the longest file's up to 2.5 s, else what 99 % of the files need, at
    most 2 s."""
    n_fft: int | None = None
    """Window length in samples; None: the power of two from 32 ms upward."""
    hop_length: int | None = None
    """Samples between frames; None: n_fft / 4."""
    n_mels: int | None = None
    """Mel bands; 0: linear bins; None: 64 up to 8 kHz, 80 to 16 kHz, 96 to 24 kHz, then 128."""
    range_db: float = 80.0
    """Decibels between a clip's loudest cell and the floor."""
    trim: bool = True
    """Cut silence at both ends of a file."""
    trim_db: float = 50.0
    """What counts as silence: this far below the file's loudest 20 ms."""
    labels: str | None = None
    """`folder`, a pattern with named groups matched against the path, or a CSV file."""
    test: str | None = None
    """Regular expression that names the test files; None: --test-share of them, by the hash of the path."""
    test_share: float = 0.1
    """Share of the files kept for the test, where --test names none; 0: no test."""
    validation_share: float = 0.1
    """Share of the remaining files kept for validation, by the hash of the path; 0: no validation."""

    def __post_init__(self) -> None:
        require(
            self.sample_rate is None or 1000 <= self.sample_rate <= 384_000,
            f"sample_rate {self.sample_rate}: give a rate in Hz from 1000 to 384000",
        )
        require(
            self.clip_seconds is None or 0.02 <= self.clip_seconds <= 600,
            f"clip_seconds {self.clip_seconds}: give seconds from 0.02 to 600",
        )
        for name in ("test_share", "validation_share"):
            share = getattr(self, name)
            require(0 <= share < 0.9, f"{name} {share}: give a share from 0 to 0.9")
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


@dataclass(frozen=True)
class SpectrogramConfig:
    """The spectrogram's grid and range, all fixed: stored in dataset and model."""

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    """Mel bands, or 0 for the n_fft / 2 linear bins below Nyquist."""
    range_db: float = 80.0
    level_step_db: float = 1.5
    num_levels: int = 64
    images: bool = False
    """No sound at all: grayscale images, a column of pixels as a frame, the lowest row as the first
    bin."""

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

    @property
    def bins(self) -> int:
        """Rows of the spectrogram."""
        return self.n_mels or self.n_fft // 2

    @classmethod
    def for_images(cls, height: int) -> SpectrogramConfig:
        """Of images so many pixels high; what is in decibels for sound is in hundredths of white."""
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
        """The settings that suit a sample rate; what is given is kept."""
        n_fft = n_fft or 2 ** math.ceil(math.log2(0.032 * sample_rate))
        if n_mels is None:
            n_mels = next(
                (n for top, n in ((8e3, 64), (16e3, 80), (24e3, 96)) if sample_rate <= top), 128
            )
            n_mels = max(1, min(n_mels, n_fft // 4, _most_bands(sample_rate, n_fft)))
        return cls(sample_rate, n_fft, hop_length or n_fft // 4, n_mels, range_db)


def _most_bands(sample_rate: int, n_fft: int) -> int:
    """So many mel bands of `scale.mel_bands` cover a bin of the spectrum each: the narrowest ones, below
    1 kHz, are two steps of the scale wide, and a bin's width at least."""
    top = sample_rate / 2
    highest = 3 * top / 200 if top < 1000 else 15 + 27 * math.log(top / 1000, 6.4)
    return math.ceil(400 / 3 * highest * n_fft / sample_rate) - 2
