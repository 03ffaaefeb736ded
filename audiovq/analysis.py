"""Waveforms → spectrograms as a dataset stores them, in NumPy: what `Spectrogram` is in torch.

Clips lie end to end in one signal, each with the samples around it, or zeros, that its first and last frames
hear, as many at a time as caches hold; so short ones cost few calls, and padding nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from audiovq import scale
from audiovq.config import SpectrogramConfig
from audiovq.scale import num_frames

Waveform = npt.NDArray[np.float32]
VALUES = 1 << 18
"""Samples of windows that are transformed at a time, or more."""
LANES = 64
"""Frames are in bands in whole multiples of so many: what is left over would be rounded otherwise."""


class Piece(NamedTuple):
    """A clip with what surrounds it in its recording."""

    samples: Waveform
    """Of the surroundings too."""
    before: int = 0
    """Samples before the clip."""
    after: int = 0

    def own(self, samples: Waveform) -> Waveform:
        """What of `samples`, as many as the piece has, is the clip's."""
        return samples[self.before : len(samples) - self.after]

    @property
    def num_samples(self) -> int:
        """Of the clip."""
        return len(self.samples) - self.before - self.after


class Analysis:
    """Log-spectrograms of waveforms in [-1, 1], with the levels of the loudest cells."""

    def __init__(self, config: SpectrogramConfig) -> None:
        """Raises AudiovqError where there are so many mel bands that some cover no bin."""
        self.config = config
        turns = np.arange(config.n_fft) / config.n_fft
        self._window = (0.5 - 0.5 * np.cos(2 * math.pi * turns)).astype(np.float32)
        self._rows = LANES * max(1, VALUES // config.n_fft // LANES)
        self._bands: list[tuple[slice, npt.NDArray[np.float32]]] = []
        for weights in scale.mel_filters(config) if config.n_mels else ():
            first, last = np.flatnonzero(weights)[[0, -1]].tolist()
            self._bands.append((slice(first, last + 1), weights[first : last + 1]))

    def batches(
        self, pieces: Iterable[Piece], clip_frames: int
    ) -> Iterator[tuple[npt.NDArray[np.float16], list[int]]]:
        """Clips, in order → (clips, bins, clip_frames) in [0, 1], and each one's level.

        Frames beyond a clip's own, 1 + samples // hop_length, which may be no more than
        `clip_frames`, are 0. Half a window of what surrounds a clip is heard; zeros where there is less.
        """
        batch: list[Piece] = []
        rows = 0
        for piece in pieces:
            more = self._blocks(piece.num_samples)
            if batch and rows + more > self._rows:
                yield self._spectrograms(batch, clip_frames)
                batch, rows = [], 0
            batch.append(piece)
            rows += more
        if batch:
            yield self._spectrograms(batch, clip_frames)

    def _blocks(self, num_samples: int) -> int:
        """Rows that a clip takes in the packed signal: its frames, and those that touch two clips."""
        config = self.config
        return num_frames(num_samples, config.hop_length) - 1 - (-config.n_fft // config.hop_length)

    def _spectrograms(
        self, pieces: Sequence[Piece], clip_frames: int
    ) -> tuple[npt.NDArray[np.float16], list[int]]:
        """A batch's spectrograms (clips, bins, clip_frames), and levels."""
        config = self.config
        blocks = [self._blocks(piece.num_samples) for piece in pieces]
        frames = [num_frames(piece.num_samples, config.hop_length) for piece in pieces]
        starts = np.cumsum([0, *blocks])
        signal = np.zeros((starts[-1] - 1) * config.hop_length + config.n_fft, np.float32)
        outside = np.ones(starts[-1], bool)
        for piece, start, count in zip(pieces, starts.tolist(), frames, strict=False):
            begin = (
                start * config.hop_length
            )  # of the first frame's window, as end is the last one's
            end = begin + (count - 1) * config.hop_length + config.n_fft
            begin += config.n_fft // 2 - piece.before
            first = max(0, start * config.hop_length - begin)
            heard = piece.samples[first : max(0, end - begin)]
            signal[begin + first : begin + first + len(heard)] = heard
            outside[start : start + count] = False
        decibels = scale.decibels(np, self._magnitude(signal), config)
        loudest = decibels.max(axis=0)
        loudest[outside] = -np.inf
        levels = scale.level(np, np.maximum.reduceat(loudest, starts[:-1]), config)
        tops = np.repeat(scale.level_db(levels, config), blocks)
        halves = half(scale.normalized(decibels, tops, config))
        images = np.zeros((len(pieces), config.bins, clip_frames), "<f2")
        for image, start, count in zip(images, starts.tolist(), frames, strict=False):
            image[:, :count] = halves[:, start : start + count]
        return images, levels.astype(int).tolist()

    def _magnitude(self, signal: Waveform) -> npt.NDArray[np.float32]:
        """(samples,) → (bins, rows): magnitudes of windows, one every hop_length, in bands or bins."""
        config = self.config
        windows = np.lib.stride_tricks.sliding_window_view(signal, config.n_fft)
        windows = windows[:: config.hop_length]
        found = np.empty((config.bins, -(-len(windows) // LANES) * LANES), np.float32)
        for begin in range(0, len(windows), self._rows):
            spectrum = np.fft.rfft(windows[begin : begin + self._rows] * self._window)
            magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2)
            part = found[:, begin : begin + self._rows]
            if not self._bands:
                part[:, : len(magnitude)] = magnitude[:, :-1].T
                continue
            # No matrix product: its threads wait for each other, and its last bits depend on them.
            bins = np.zeros((config.n_fft // 2 + 1, part.shape[1]), np.float32)
            bins[:, : len(magnitude)] = magnitude.T
            for row, (covered, weights) in zip(part, self._bands, strict=True):
                np.einsum("f,fr->r", weights, bins[covered], out=row)
        return found[:, : len(windows)]


def half(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Numbers from 0 to 1, to the nearest float16, in a fraction of the time that `astype` takes.

    In the middle of two, the larger one. float32's exponent begins 112 lower, and its fraction is 13 bits
    longer.
    """
    bits = (values * np.float32(2.0**-112)).view(np.uint32)
    bits += np.uint32(1 << 12)
    bits >>= np.uint32(13)
    return bits.astype(np.uint16).view(np.float16)
