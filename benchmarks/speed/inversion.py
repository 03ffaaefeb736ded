"""Phase reconstruction: Griffin-Lim, alone and after phase gradient heap integration (PGHI).

The input is spoken digits, joined and cut into clips of one second. Quality is measured by PESQ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import torch
from torch import Tensor

from audiovq.audio import finding, reading
from audiovq.spectral.griffin_lim import griffin_lim
from audiovq.spectral.pghi import pghi
from audiovq.spectral.stft import num_frames, stft
from benchmarks.quality.scores import RATE, score
from benchmarks.speed.comparison import Row, Run, against, compare
from benchmarks.speed.limits import bandwidth, device

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ROOT.parent / "shared" / "fsdd" / "recordings", ROOT / "data" / "digits"
"""Folders of recordings; the first that exists is used."""
CLIPS, SAMPLES = 64, RATE
N_FFT, HOP, MOMENTUM, ITERATIONS = 256, 64, 0.99, 32


def speech() -> Tensor:
    """Speech (CLIPS, SAMPLES) at RATE."""
    folder = next(folder for folder in FOLDERS if folder.is_dir())
    joined = np.zeros(0, np.float32)
    for name in finding.find(folder)[0][::5]:
        joined = np.append(joined, reading.read(folder / name, RATE)[0])
        if len(joined) >= CLIPS * SAMPLES:
            break
    return torch.from_numpy(joined[: CLIPS * SAMPLES]).view(CLIPS, SAMPLES).to(device())


def ours(magnitude: Tensor, iterations: int, start: bool) -> Tensor:
    """Invert (CLIPS, bins, frames) → (CLIPS, SAMPLES); with `start`, from the phases of PGHI."""
    lengths = torch.full((CLIPS,), SAMPLES)
    phase = pghi(magnitude, N_FFT, HOP, lengths) if start else None
    return griffin_lim(magnitude, N_FFT, HOP, lengths, iterations, MOMENTUM, phase)


def librosas(magnitude: Tensor) -> Tensor:
    """`librosa.griffinlim` of all clips in one call."""
    made = librosa.griffinlim(
        magnitude.cpu().numpy(),
        n_iter=ITERATIONS,
        hop_length=HOP,
        n_fft=N_FFT,
        momentum=MOMENTUM,
        pad_mode="constant",
        length=SAMPLES,
        random_state=0,
    )
    return torch.from_numpy(made)


def torchaudios(magnitude: Tensor) -> Run:
    """torchaudio's `GriffinLim`."""
    from torchaudio.transforms import GriffinLim

    transform = GriffinLim(
        N_FFT, ITERATIONS, hop_length=HOP, power=1.0, momentum=MOMENTUM, length=SAMPLES
    ).to(device())
    return lambda: transform(magnitude)


def pesq(waveforms: Tensor, others: Tensor) -> float:
    """PESQ of (CLIPS, SAMPLES) each, 1 to 4.5."""
    original, other = (list(side.cpu().numpy()) for side in (waveforms, others))
    return score(original, other, [""] * CLIPS).pesq


def iterations_for(waveforms: Tensor, magnitude: Tensor, wanted: float) -> int:
    """The fewest iterations after PGHI that reach the PESQ `wanted`."""
    return next(n for n in range(ITERATIONS) if pesq(waveforms, ours(magnitude, n, True)) >= wanted)


def rows() -> Iterator[Row]:
    """At equal iterations, then at equal PESQ."""
    waveforms = speech()
    magnitude = stft(waveforms, N_FFT, HOP).abs()
    name = f"Griffin-Lim, {ITERATIONS} iterations, {CLIPS} × 1 s"

    def alone() -> Tensor:
        return ours(magnitude, ITERATIONS, False)

    yield compare(name, "librosa.griffinlim", alone, lambda: librosas(magnitude), 3)
    yield compare(name, "torchaudio", alone, torchaudios(magnitude))
    # The least memory traffic of an iteration, if all steps between two transforms were fused: each
    # transform reads and writes the spectrum; the previous spectrum and the magnitude are read.
    cells = CLIPS * num_frames(SAMPLES, HOP) * (N_FFT // 2 + 1)
    limit = ITERATIONS * cells * (5 * 8 + 4) / bandwidth()
    yield against(name, "memory bandwidth", limit, alone)
    reached = pesq(waveforms, librosas(magnitude))
    needed = iterations_for(waveforms, magnitude, reached)
    yield compare(
        f"PGHI and {needed} iterations (PESQ {reached:.2f})",
        f"librosa.griffinlim, {ITERATIONS}",
        lambda: ours(magnitude, needed, True),
        lambda: librosas(magnitude),
        6,
    )
