"""Waveform ↔ normalized log-spectrogram, in one class.

A clip's loudest cell becomes 1, everything `range_db` below it and less becomes 0; how loud that
cell was is kept apart as the *level*, a small integer, and given back by `inverse`. So every clip
looks alike to a network, nothing depends on statistics of a data set, and silence is legal.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from audiovq import scale
from audiovq.config import AudiovqError, SpectrogramConfig
from audiovq.pghi import pghi
from audiovq.phase import griffin_lim, random_phase
from audiovq.scale import LOUDEST_DB as LOUDEST_DB
from audiovq.scale import num_frames
from audiovq.stft import stft

Phase = Literal["pghi", "griffin-lim"]

NNLS_STEPS = 30


class Spectrogram(nn.Module):
    """Log magnitude over mel bands or linear bins, in [0, 1], and its inverse.

    Mel bands have Slaney's scale and triangles as in librosa, each row summing to one, over the
    magnitude. Linear bins leave out the one at Nyquist, for an even grid; `inverse` restores it.
    """

    mel: Tensor | None

    def __init__(self, config: SpectrogramConfig) -> None:
        """Raises AudiovqError where there are so many mel bands that some cover no bin."""
        super().__init__()
        self.config = config
        mel = torch.tensor(scale.mel_filters(config)) if config.n_mels else None
        self.register_buffer("mel", mel, persistent=False)

    def forward(self, waveform: Tensor, num_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(batch, samples) in [-1, 1] → spectrogram (batch, 1, bins, frames) and level (batch,).

        `num_samples` (batch,) gives each clip's own length; frames beyond it are 0. Frames are
        1 + samples // hop_length. The level is an integer from 0 (3 dB over a full-scale sine) to
        num_levels - 1 (silence, or as good as), in steps of level_step_db.
        """
        if num_samples is None:
            num_samples = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        decibels = self.decibels(waveform, num_samples)
        level = self.level(decibels.amax(dim=(1, 2)))
        return self.normalized(decibels, level), level

    def decibels(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        """(batch, samples), (batch,) → (batch, bins, frames), relative to a full-scale sine.

        At least -240, which stands for frames beyond a clip's length too.
        """
        config = self.config
        self._require_sound()
        inside = torch.arange(waveform.shape[1], device=waveform.device) < num_samples[:, None]
        spectrum = stft(waveform * inside, config.n_fft, config.hop_length)
        # By hand: torch's complex abs() takes four times as long.
        magnitude = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag).sqrt_()
        magnitude = magnitude[:, :-1] if self.mel is None else self.mel @ magnitude
        columns = torch.arange(magnitude.shape[2], device=waveform.device)
        inside = columns < num_frames(num_samples, config.hop_length)[:, None]
        return scale.decibels(torch, magnitude * inside[:, None], config)

    def level(self, loudest: Tensor) -> Tensor:
        """dB of each clip's loudest cell (batch,) → its level (batch,)."""
        return scale.level(torch, loudest, self.config).long()

    def normalized(self, decibels: Tensor, level: Tensor) -> Tensor:
        """What `decibels` gave, and levels (batch,) → spectrogram (batch, 1, bins, frames)."""
        loudest = self.level_db(level)[:, None, None]
        return scale.normalized(decibels, loudest, self.config)[:, None]

    def inverse(
        self,
        spectrogram: Tensor,
        level: Tensor,
        num_samples: Tensor,
        *,
        phase: Phase = "pghi",
        n_iter: int | None = None,
        generator: torch.Generator | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """(batch, 1, bins, frames), level (batch,), num_samples (batch,) → (batch, max samples).

        Each clip comes back with its exact length, zeros after it, and its level; any batch gives
        what its clips give alone. `phase` names the start of fast Griffin-Lim (Perraudin, Balazs,
        Søndergaard 2013): `pghi`, phase gradient heap integration (Průša, Balazs, Søndergaard
        2017), with 16 iterations unless `n_iter` says otherwise, or `griffin-lim`, random, with 32.
        `known` (batch, n_fft / 2 + 1, first frames) are phases in radians to go on from.
        """
        config = self.config
        self._require_sound()
        magnitude = self.magnitude(spectrogram)
        if magnitude.shape[2] < (needed := int(num_frames(num_samples, config.hop_length).max())):
            raise ValueError(f"{magnitude.shape[2]} frames are too few: num_samples needs {needed}")
        start = None
        if phase == "pghi":
            start = pghi(
                magnitude,
                config.n_fft,
                config.hop_length,
                num_samples,
                generator=generator,
                known=known,
            )
        elif known is not None:
            start = random_phase(magnitude, generator).clone()
            start[:, :, : known.shape[2]] = known
        waveform = griffin_lim(
            magnitude,
            config.n_fft,
            config.hop_length,
            num_samples,
            n_iter=n_iter if n_iter is not None else (16 if phase == "pghi" else 32),
            phase=start,
            generator=generator,
        )
        gain = 10 ** (self.level_db(level) / 20) * (config.n_fft / 4)
        return waveform * gain[:, None].to(waveform)

    def magnitude(self, spectrogram: Tensor) -> Tensor:
        """(batch, 1, bins, frames) → linear magnitude (batch, n_fft / 2 + 1, frames), peak near 1.

        Mel bands go back to bins by non-negative least squares with multiplicative steps (Lee and
        Seung 2001), which suit every level alike. The floor becomes exact silence.
        """
        normalized = spectrogram[:, 0].float().clamp(0, 1)
        magnitude = 10 ** ((normalized - 1) * (self.config.range_db / 20)) * (normalized > 0)
        if self.mel is None:
            return nn.functional.pad(magnitude, (0, 0, 0, 1))
        bins = back = self.mel.T @ magnitude
        square = self.mel.T @ self.mel
        for _ in range(NNLS_STEPS):
            bins = bins * back / (square @ bins).clamp_min(1e-12)
        return bins

    def _require_sound(self) -> None:
        if self.config.images:
            raise AudiovqError("the model is one of images, so it neither takes nor makes sound")

    def level_db(self, level: Tensor) -> Tensor:
        """Level → dB of a clip's loudest cell, relative to a full-scale sine."""
        return scale.level_db(level, self.config)
