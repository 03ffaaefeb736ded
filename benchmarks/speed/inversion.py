"""Phase reconstruction: Griffin-Lim, alone and after phase gradient heap integration (PGHI).

At 8 kHz the input is spoken digits, joined and cut into clips of one second, and quality is measured by PESQ. At 44.1 kHz
it is synthetic hits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import torch
from torch import Tensor

from audiovq.audio import finding, reading
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.spectral.griffin_lim import griffin_lim
from audiovq.spectral.pghi import pghi
from audiovq.spectral.stft import num_frames, stft
from benchmarks.quality.scores import RATE, score
from benchmarks.speed.comparison import Peer, Row, Run, compare
from benchmarks.speed.limits import bandwidth, device
from benchmarks.speed.sounds import RATE as HIGH_RATE
from benchmarks.speed.sounds import hits

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ROOT.parent / "shared" / "fsdd" / "recordings", ROOT / "data" / "digits"
"""Folders of recordings; the first that exists is used."""
CLIPS = {RATE: 64, HIGH_RATE: 16}
"""Clips of one second, by sample rate."""
MOMENTUM, ITERATIONS = 0.99, 32


class Batch:
    """The magnitudes of clips of one second, and their inversion by ours and by peers."""

    def __init__(self, waveforms: Tensor) -> None:
        """(clips, samples of one second)"""
        self.waveforms = waveforms.to(device())
        self.clips, self.samples = waveforms.shape
        config = SpectrogramConfig.for_rate(self.samples)
        self.n_fft, self.hop = config.n_fft, config.hop_length
        self.magnitude = stft(self.waveforms, self.n_fft, self.hop).abs()

    def ours(self, iterations: int, start: bool) -> Tensor:
        """The waveforms; with `start`, from the phases of PGHI."""
        lengths = torch.full((self.clips,), self.samples)
        phase = pghi(self.magnitude, self.n_fft, self.hop, lengths) if start else None
        return griffin_lim(
            self.magnitude, self.n_fft, self.hop, lengths, iterations, MOMENTUM, phase
        )

    def librosas(self) -> Tensor:
        """`librosa.griffinlim` of all clips in one call."""
        made = librosa.griffinlim(
            self.magnitude.cpu().numpy(),
            n_iter=ITERATIONS,
            hop_length=self.hop,
            n_fft=self.n_fft,
            momentum=MOMENTUM,
            pad_mode="constant",
            length=self.samples,
            random_state=0,
        )
        return torch.from_numpy(made)

    def torchaudios(self) -> Run:
        """torchaudio's `GriffinLim`."""
        from torchaudio.transforms import GriffinLim

        how = {"hop_length": self.hop, "power": 1.0, "momentum": MOMENTUM, "length": self.samples}
        transform = GriffinLim(self.n_fft, ITERATIONS, **how).to(device())
        return lambda: transform(self.magnitude)

    def pesq(self, others: Tensor) -> float:
        """PESQ of other waveforms, 1 to 4.5."""
        original, other = (list(side.cpu().numpy()) for side in (self.waveforms, others))
        return score(original, other, [""] * self.clips).pesq

    def traffic(self) -> float:
        """Bytes that all iterations read and write at least, if all steps between two transforms were fused: each
        transform reads and writes the spectrum; the previous spectrum and the magnitude are read."""
        cells = self.clips * num_frames(self.samples, self.hop) * (self.n_fft // 2 + 1)
        return ITERATIONS * cells * (5 * 8 + 4)


def speech() -> Tensor:
    """Speech (clips, RATE) at RATE."""
    folder = next(folder for folder in FOLDERS if folder.is_dir())
    joined = np.zeros(0, np.float32)
    for name in finding.find(folder)[0][::5]:
        joined = np.append(joined, reading.read(folder / name, RATE)[0])
        if len(joined) >= CLIPS[RATE] * RATE:
            break
    return torch.from_numpy(joined[: CLIPS[RATE] * RATE]).view(-1, RATE)


def drums() -> Tensor:
    """Hits (clips, HIGH_RATE) at HIGH_RATE."""
    clips = torch.zeros(CLIPS[HIGH_RATE], HIGH_RATE)
    for clip, hit in zip(clips, hits(len(clips), 1), strict=True):
        clip[: len(hit)] = torch.from_numpy(hit[:, 0])
    return clips


def rows(sounds: Path | None = None) -> Iterator[Row]:
    """At equal iterations at both rates, then at equal PESQ at 8 kHz."""
    for waveforms in (speech(), drums()):
        batch = Batch(waveforms)
        wanted = 3 if batch.samples == RATE else None
        yield from compare(
            f"Griffin-Lim, {ITERATIONS} iterations, {batch.clips} × 1 s at {batch.samples:,} Hz",
            functools.partial(batch.ours, ITERATIONS, False),
            Peer("librosa.griffinlim", batch.librosas, wanted, threads=(1,)),
            Peer("torchaudio", batch.torchaudios()),
            bandwidth(batch.traffic()),
        )
    batch = Batch(speech())
    reached = batch.pesq(batch.librosas())
    needed = next(n for n in range(ITERATIONS) if batch.pesq(batch.ours(n, True)) >= reached)
    yield from compare(
        f"PGHI and {needed} iterations (PESQ {reached:.2f})",
        lambda: batch.ours(needed, True),
        Peer(f"librosa.griffinlim, {ITERATIONS}", batch.librosas, 6, threads=(1,)),
    )
