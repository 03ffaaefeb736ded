"""A picture of spectrograms: rows of sounds, such as real, reconstructed and generated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiovq.audio.waveform import Waveform
from audiovq.runtime.files import atomic
from audiovq.spectral.scale import mel_bands
from audiovq.spectral.stft import stft

WINDOW_SECONDS = 0.02
"""At least; short enough to show onsets and what sounds before them."""
RANGE_DB = 80.0
SECONDS = 2.0
"""Longest part of a sound that is shown, from its beginning, and no more than twice the median length."""
BANDS = 96


def plot(
    rows: Mapping[str, Sequence[Waveform]],
    titles: Sequence[str],
    sample_rate: int,
    path: Path,
) -> None:
    """Plot named rows of waveforms (samples,), one column for each of `titles`, as a PNG.

    Mel bands upward, time to the right, the same scale of time in all; each 80 dB from its loudest cell down.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lengths = [len(w) / sample_rate for waveforms in rows.values() for w in waveforms]
    seconds = min(SECONDS, max(lengths), 2 * float(np.median(lengths)))
    figure = Figure(figsize=(1.35 * len(titles), 1.6 * len(rows)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes, (name, waveforms) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(name, fontsize=9)
        for one, waveform in zip(axes, waveforms, strict=False):
            image = _image(waveform[: int(seconds * sample_rate)], sample_rate)
            extent = (0, min(seconds, len(waveform) / sample_rate), 0, BANDS)
            one.imshow(
                image, origin="lower", aspect="auto", cmap="magma", extent=extent, vmin=0, vmax=1
            )
        for one in axes:
            one.set(xlim=(0, seconds), ylim=(0, BANDS), xticks=[], yticks=[], facecolor="black")
    for one, title in zip(grid[0], titles, strict=True):
        one.set_title(title, fontsize=7)
    figure.supxlabel(
        f"{seconds:.2f} s; {RANGE_DB:.0f} dB; up to {sample_rate / 2000:g} kHz", fontsize=8
    )
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")


def _image(waveform: Waveform, sample_rate: int) -> npt.NDArray[Any]:
    """(BANDS, frames) in [0, 1]: decibels above RANGE_DB below the loudest cell."""
    n_fft = 1 << int(np.ceil(np.log2(WINDOW_SECONDS * sample_rate)))
    magnitudes = stft(torch.from_numpy(waveform)[None], n_fft, n_fft // 4)[0].abs().numpy()
    mel = mel_bands(sample_rate, n_fft, BANDS) @ magnitudes
    decibels = 20 * np.log10(np.maximum(mel, 1e-9))
    image: npt.NDArray[Any] = np.clip(1 + (decibels - decibels.max()) / RANGE_DB, 0, 1)
    return image
