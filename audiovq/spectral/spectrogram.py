"""Transform between waveforms and normalized log-spectrograms, in both directions.

A clip's loudest cell is mapped to 1, and everything from `range_db` below it to 0. The loudness of that
cell is the clip's *level*, a small integer, which `inverse` applies again. So all clips have the same
loudness for a network, nothing depends on statistics of a dataset, and silence is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiovq.audio.waveform import Waveform
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.spectral import scale
from audiovq.spectral.bands import FIT_STEPS, START_STEPS, Bands, Stereo
from audiovq.spectral.griffin_lim import MOMENTUM, grain, griffin_lim, random_phase
from audiovq.spectral.onsets import sharpen_onsets
from audiovq.spectral.pghi import pghi
from audiovq.spectral.scale import LOUDEST_DB as LOUDEST_DB
from audiovq.spectral.scale import num_frames
from audiovq.spectral.stft import stft

MOMENTUM_OF_HITS = 1.05
"""Momentum of Griffin-Lim with the short windows of hits. Noise that is inverted with MOMENTUM beats at the rate of the
frames there and sounds like metal, with this hardly more than recorded noise. With other windows it changes nothing for
the better, and spoken digits lose by it."""


class Analysed(NamedTuple):
    """What `Spectrogram.analyse` measures of a batch of waveforms, before it is normalized."""

    decibels: Tensor
    """(batch, bins, frames) relative to a full-scale sine, at least -240."""
    powers: Tensor | None
    """Of stereo, (batch, 3, stereo bands, frames): of left, of right, and cross, relative to a full-scale sine."""

    def turned_down(self, gain_db: float) -> Analysed:
        """The same of waveforms that are quieter by `gain_db`."""
        powers = None if self.powers is None else self.powers * 10 ** (-gain_db / 10)
        return Analysed(self.decibels - gain_db, powers)


class Spectrogram(nn.Module):
    """Log-magnitude spectrogram in [0, 1] over mel bands or linear bins, and its inverse.

    Mel bands are of the magnitude, on Slaney's scale with triangles as in librosa, each row summing to
    one. Linear bins omit the Nyquist bin, for an even grid; `inverse` restores it as zeros.

    Stereo (`config.channels` 2) has three planes: the loudness of both channels, by the root of their mean power,
    then `scale.balance` and `scale.coherence`.
    """

    def __init__(self, config: SpectrogramConfig) -> None:
        """Raises AudiovqError if a mel band covers no bin."""
        super().__init__()
        self.config = config
        self.bands = Bands(scale.mel_filters(config)) if config.n_mels else None
        self.stereo = Stereo(config) if config.channels > 1 else None

    @property
    def mel(self) -> Tensor | None:
        """Mel filter bank (n_mels, n_fft / 2 + 1); None: linear bins."""
        return self.bands.filters if self.bands is not None else None

    def forward(self, waveform: Tensor, num_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Waveform (batch, samples) in [-1, 1] → spectrogram (batch, planes, bins, frames), level (batch,).

        A stereo waveform is (batch, 2, samples); of a stereo spectrogram, a mono one is in the middle.
        `num_samples` (batch,) are the clips' lengths; later frames are 0. There are
        1 + samples // hop_length frames. Levels are integers from 0 (3 dB above a full-scale sine) to
        num_levels - 1 (silence or nearly so), in steps of level_step_db.
        """
        if num_samples is None:
            num_samples = torch.full((len(waveform),), waveform.shape[-1], device=waveform.device)
        analysed = self.analyse(waveform, num_samples)
        level = self.level(analysed.decibels.amax(dim=(1, 2)))
        return self.normalized(analysed.decibels, level, analysed.powers), level

    def decibels(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        """`Analysed.decibels` of `analyse`."""
        return self.analyse(waveform, num_samples).decibels

    def analyse(self, waveform: Tensor, num_samples: Tensor) -> Analysed:
        """Magnitudes and powers of a waveform (batch, samples), or of stereo (batch, 2, samples).

        `num_samples` (batch,) are the clips' lengths; frames after a clip are -240 dB.
        """
        config = self.config
        self.require_sound()
        mask = torch.arange(waveform.shape[-1], device=waveform.device) < num_samples[:, None]
        powers = None
        if self.stereo is None:
            spectrum = stft(waveform * mask, config.n_fft, config.hop_length)
            # torch's complex abs() takes four times as long.
            magnitude = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag).sqrt_()
        else:
            if waveform.ndim == 2:
                waveform = waveform[:, None].expand(-1, 2, -1)
            both = (waveform * mask[:, None]).flatten(0, 1)
            spectrum = stft(both, config.n_fft, config.hop_length)
            magnitude, powers = self.stereo.analyse(spectrum.unflatten(0, (-1, 2)))
        magnitude = magnitude[:, :-1] if self.bands is None else self.bands.filters @ magnitude
        frames = torch.arange(magnitude.shape[2], device=waveform.device)
        mask = frames < num_frames(num_samples, config.hop_length)[:, None]
        if powers is not None:
            powers = scale.smoothed(powers * mask[:, None, None])
        return Analysed(scale.decibels(magnitude * mask[:, None], config), powers)

    def level(self, loudest: Tensor) -> Tensor:
        """Levels (batch,) of clips whose loudest cells are `loudest` (batch,) dB."""
        return scale.level(torch, loudest, self.config).long()

    def normalized(self, decibels: Tensor, level: Tensor, powers: Tensor | None = None) -> Tensor:
        """Spectrogram (batch, planes, bins, frames) of the output of `analyse` and levels (batch,)."""
        loudest = self.level_db(level)[:, None, None]
        loudness = scale.normalized(decibels, loudest, self.config)[:, None]
        if self.stereo is None or powers is None:
            return loudness
        return torch.cat([loudness, self.stereo.planes(powers, loudest[..., None])], dim=1)

    def inverse(
        self,
        spectrogram: Tensor,
        level: Tensor,
        num_samples: Tensor,
        *,
        inversion: Inversion = Inversion(),
        generator: torch.Generator | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Waveform (batch, max samples) of a spectrogram (batch, planes, bins, frames); of stereo (batch, 2, max
        samples).

        `level` and `num_samples` are (batch,): each clip has its exact length, zeros after it, and its
        loudness, and the same result in any batch. `inversion` says how the phase is reconstructed; `known`
        (batch, n_fft / 2 + 1, first frames) is a given spectrum as from `stft`, to be continued.

        Raises ValueError where there are too few frames for `num_samples`.
        """
        waveform = self.inverse_of_loudness(
            spectrogram, level, num_samples, inversion=inversion, generator=generator, known=known
        )
        return self.widened(waveform, spectrogram, level, num_samples)

    def widened(
        self, waveform: Tensor, spectrogram: Tensor, level: Tensor, num_samples: Tensor
    ) -> Tensor:
        """The waveform (batch, max samples) of `inverse_of_loudness`, in stereo where the spectrogram is: see
        `Stereo.widen`."""
        if self.stereo is None:
            return waveform
        return self.stereo.widen(waveform, spectrogram, num_samples, self.level_db(level))

    def inverse_of_loudness(
        self,
        spectrogram: Tensor,
        level: Tensor,
        num_samples: Tensor,
        *,
        inversion: Inversion = Inversion(),
        generator: torch.Generator | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """`inverse` of the first plane alone: (batch, max samples), which `widened` makes stereo."""
        config = self.config
        self.require_sound()
        frames, needed = spectrogram.shape[3], int(num_frames(num_samples, config.hop_length).max())
        if frames < needed:
            raise ValueError(f"{frames} frames are too few: num_samples needs {needed}")
        wanted = self.linear(spectrogram)
        magnitude = self._bins(wanted, START_STEPS)
        random = random_phase(magnitude, generator)
        gain = 10 ** (self.level_db(level) / 20).to(magnitude)[:, None] * (config.n_fft / 4)
        first = slice(0, 0 if known is None else known.shape[2])
        if inversion.phase == "pghi":
            known_phase = None if known is None else known.angle()
            grid = config.n_fft, config.hop_length
            phase = pghi(magnitude, *grid, num_samples, random=random, known=known_phase)
        else:
            phase = random.clone()
            if known is not None:
                phase[:, :, first] = known.angle()
        if self.bands is not None:
            # The fit is smooth within a band. Smooth magnitudes with orderly phases sound like metal.
            magnitude = magnitude * grain(random[:1]) ** self.bands.roughness()[:, None]
            if known is not None:
                magnitude[:, :, first] = known.abs() / gain[:, None]
        waveform = griffin_lim(
            magnitude,
            config.n_fft,
            config.hop_length,
            num_samples,
            n_iter=inversion.iterations(config.n_mels > 0),
            momentum=MOMENTUM_OF_HITS if config.is_of_hits else MOMENTUM,
            phase=phase,
            bands=self.bands,
            wanted=None if self.bands is None else wanted,
        )
        return sharpen_onsets(waveform, config.n_fft, config.sample_rate) * gain

    def magnitude(self, spectrogram: Tensor) -> Tensor:
        """Linear magnitude (batch, n_fft / 2 + 1, frames), peak near 1, of (batch, 1, bins, frames).

        Of mel bands, smooth magnitudes by `Bands.fit`. The floor becomes exact zeros.
        """
        return self._bins(self.linear(spectrogram))

    def linear(self, spectrogram: Tensor) -> Tensor:
        """Linear magnitude (batch, bins, frames), in bands or bins, peak near 1, of (batch, 1, bins, frames)."""
        normalized = spectrogram[:, 0].float().clamp(0, 1)
        magnitude: Tensor = 10 ** ((normalized - 1) * (self.config.range_db / 20))
        return magnitude * (normalized > 0)

    def _bins(self, linear: Tensor, steps: int = FIT_STEPS) -> Tensor:
        """Magnitude (batch, n_fft / 2 + 1, frames) of the output of `linear`, of bands by `steps` of `Bands.fit`."""
        if self.bands is None:
            return nn.functional.pad(linear, (0, 0, 0, 1))
        return self.bands.fit(linear.transpose(1, 2), steps).transpose(1, 2)

    def require_sound(self) -> None:
        """Raise AudiovqError where the model is one of images."""
        if self.config.images:
            raise AudiovqError("the model is one of images; it neither reads nor makes sound")

    def level_db(self, level: Tensor) -> Tensor:
        """Level in dB: a clip's loudest cell, relative to a full-scale sine."""
        return scale.level_db(level, self.config)


def waveform_images(spectrogram: Spectrogram, waveforms: Sequence[Waveform]) -> list[Tensor]:
    """Waveforms (samples,) or (2, samples) → spectrograms (planes, bins, frames) on the CPU, as in a dataset."""
    with torch.inference_mode():
        device = next(spectrogram.buffers(), torch.zeros(())).device
        return [spectrogram(torch.from_numpy(w)[None].to(device))[0][0].cpu() for w in waveforms]
