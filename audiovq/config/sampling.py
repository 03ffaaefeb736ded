"""Settings of sampling and of phase reconstruction: how codes are sampled and spectrograms become sound.

Imports no torch, so that the command line can show every flag without loading it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from audiovq.config.checks import is_whole, require, require_choices

MAX_TOP_K = 1_000_000_000
MOST_SWEEPS = 100
MAX_ITERATIONS = 10_000
"""Of Griffin-Lim: far beyond the last one that changes anything."""
STEPS, STEPS_OF_PART = 8, 2
"""Sampling steps of the masked prior for whole sounds, and for parts. With two, the columns of a whole sound that are
sampled in the same step do not fit each other: spectrograms have holes."""
Phase = Literal["pghi", "griffin-lim"]
Decoder = Literal["auto", "faithful", "vivid"]


@dataclass(frozen=True)
class SamplingConfig:
    """How codes are sampled from a prior's probabilities."""

    order: Literal["auto", "time", "masked"] = "auto"
    """time: one code after another. masked: all codes in a few steps, each step conditioned on the codes
    before and after. auto: masked for `vary`, `repaint` and new sounds above 24 kHz, if the model has such a
    prior, else time."""
    steps: int | None = None
    """Sampling steps of the masked prior; None: 8 for whole sounds, 2 for parts of a sound."""
    temperature: float = 1.0
    """Below 1: more likely codes, less variety. 0: always the most likely code."""
    top_k: int = 0
    """Sample from the k most likely codes only; 0: from all."""
    top_p: float = 1.0
    """Sample from the most likely codes that together have this probability (Holtzman et al. 2020)."""
    guidance: float | None = None
    """How strictly to follow the labels (classifier-free guidance, Ho and Salimans 2022); 0: off. None: 1, and above
    24 kHz 0.5."""
    sweeps: int | None = None
    """How often codes that the masked prior has sampled are smoothed: each becomes the one whose vector is nearest to the
    mean that it expects there, given all others. Columns agree then, and what rings is even. None: as fitted after
    training, 0 or 1, and 0 at temperature 0."""

    def __post_init__(self) -> None:
        require_choices(self)
        require(
            self.steps is None or (is_whole(self.steps) and 1 <= self.steps <= 1000),
            f"steps {self.steps}: give 1 to 1000",
        )
        require(
            0 <= self.temperature <= 10,
            f"temperature {self.temperature}: give a number from 0 to 10",
        )
        require(0 <= self.top_k <= MAX_TOP_K, f"top_k {self.top_k}: give 0 (all) to {MAX_TOP_K}")
        require(0 < self.top_p <= 1, f"top_p {self.top_p}: give a probability above 0, up to 1")
        require(
            self.guidance is None or 0 <= self.guidance <= 20,
            f"guidance {self.guidance}: give a number from 0 (off) to 20",
        )
        require(
            self.sweeps is None or (is_whole(self.sweeps) and 0 <= self.sweeps <= MOST_SWEEPS),
            f"sweeps {self.sweeps}: give 0 to {MOST_SWEEPS}",
        )

    def settled(self, is_wide: bool = False, sweeps: int = 0) -> Settled:
        """The same with numbers for guidance and sweeps: where None those of sounds above 24 kHz (`is_wide`), and `sweeps`."""
        guidance = GUIDANCE_ABOVE_24_KHZ if is_wide else GUIDANCE
        sweeps = sweeps if self.temperature else 0
        return Settled(
            order=self.order,
            steps=self.steps,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            guidance=guidance if self.guidance is None else self.guidance,
            sweeps=sweeps if self.sweeps is None else self.sweeps,
        )


GUIDANCE, GUIDANCE_ABOVE_24_KHZ = 1.0, 0.5
"""Chosen on spoken digits, and on drums."""


@dataclass(frozen=True)
class Settled(SamplingConfig):
    """How codes are sampled, with numbers for guidance and sweeps."""

    guidance: float = GUIDANCE
    sweeps: int = 0


@dataclass(frozen=True)
class Inversion:
    """How codes become sound: the decoder, and how the phase of its spectrogram is reconstructed, by fast
    Griffin-Lim (Perraudin, Balazs, Søndergaard 2013) from an initial phase."""

    phase: Phase = "pghi"
    """Initial phase: phase gradient heap integration (Průša, Balazs, Søndergaard 2017), or random."""
    n_iter: int | None = None
    """Griffin-Lim iterations; None: 48 for mel bands; for linear bins 16 after pghi, else 32."""
    decoder: Decoder = "auto"
    """faithful: smallest error. vivid: textures and attacks of recordings, trained against a discriminator.
    auto: vivid for new sounds, if the model has it, and faithful for recordings."""

    def __post_init__(self) -> None:
        require_choices(self)
        require(
            self.n_iter is None or (is_whole(self.n_iter) and 0 <= self.n_iter <= MAX_ITERATIONS),
            f"n_iter {self.n_iter}: give 0 to {MAX_ITERATIONS:,}",
        )

    def iterations(self, mel: bool) -> int:
        """Griffin-Lim iterations of a spectrogram of mel bands, or of linear bins: `n_iter`, or the default."""
        if self.n_iter is not None:
            return self.n_iter
        if mel:
            return 48
        return 16 if self.phase == "pghi" else 32
