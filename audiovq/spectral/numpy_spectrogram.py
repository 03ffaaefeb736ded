"""Log-spectrograms in NumPy, for preprocessing: the counterpart of `Spectrogram` in torch.

A batch of clips is laid end to end in one signal, each with the samples, or zeros, that its first and last
windows cover around it. So short clips need few calls and no padding is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.fft import rfft  # several times as fast as NumPy's

from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.spectral import scale
from audiovq.spectral.scale import num_frames

Waveform = npt.NDArray[np.float32]
CHUNK_SAMPLES = 1 << 18
"""Samples of all windows of a batch, which should fit the caches."""
FRAME_MULTIPLE = 64
"""Transforms and band sums run over a multiple of this many frames, as SIMD code rounds a remainder differently."""


class Piece(NamedTuple):
    """A clip with samples of its recording on both sides."""

    samples: Waveform
    """(before + clip + after,)"""
    before: int = 0
    """Samples before the clip."""
    after: int = 0
    """Samples after the clip."""

    def cut_to_clip(self, samples: Waveform) -> Waveform:
        """Cut `samples`, which correspond to those of the piece, to the clip."""
        return samples[self.before : len(samples) - self.after]

    @property
    def num_samples(self) -> int:
        """Samples of the clip."""
        return len(self.samples) - self.before - self.after


class Analysis:
    """Log-spectrograms and levels of waveforms in [-1, 1]."""

    def __init__(self, config: SpectrogramConfig, chunk_samples: int = CHUNK_SAMPLES) -> None:
        """`chunk_samples`: samples of all windows of a batch. Raises AudiovqError if a mel band covers no bin."""
        self.config = config
        cycle = np.arange(config.n_fft) / config.n_fft
        self._window = (0.5 - 0.5 * np.cos(2 * math.pi * cycle)).astype(np.float32)
        self._rows = FRAME_MULTIPLE * max(1, chunk_samples // config.n_fft // FRAME_MULTIPLE)
        self._frames = np.empty((self._rows, config.n_fft), np.float32)
        self._bands: list[tuple[slice, npt.NDArray[np.float32]]] = []
        for weights in scale.mel_filters(config) if config.n_mels else ():
            first, last = np.flatnonzero(weights)[[0, -1]].tolist()
            self._bands.append((slice(first, last + 1), weights[first : last + 1]))

    def batches(
        self, pieces: Iterable[Piece], clip_frames: int
    ) -> Iterator[tuple[npt.NDArray[np.float16], list[int]]]:
        """Spectrograms (clips, bins, clip_frames) in [0, 1] and levels of the clips, in order, in batches.

        Clips have 1 + samples // hop_length frames, at most `clip_frames`; later frames are 0. The first and
        last windows of a clip cover up to n_fft / 2 samples around it; missing ones are zeros.
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
        """Rows of a clip in the packed signal: its frames, and frames whose windows cover two clips."""
        config = self.config
        return num_frames(num_samples, config.hop_length) - 1 - (-config.n_fft // config.hop_length)

    def _spectrograms(
        self, pieces: Sequence[Piece], clip_frames: int
    ) -> tuple[npt.NDArray[np.float16], list[int]]:
        """Spectrograms (clips, bins, clip_frames) and levels of one batch."""
        config = self.config
        blocks = [self._blocks(piece.num_samples) for piece in pieces]
        frames = [num_frames(piece.num_samples, config.hop_length) for piece in pieces]
        starts = np.cumsum([0, *blocks])
        signal = np.zeros((starts[-1] - 1) * config.hop_length + config.n_fft, np.float32)
        is_between = np.ones(starts[-1], bool)  # rows whose windows cover two clips
        for piece, start, count in zip(pieces, starts.tolist(), frames, strict=False):
            window_begin = start * config.hop_length  # of the first frame
            window_end = (
                window_begin + (count - 1) * config.hop_length + config.n_fft
            )  # of the last
            begin = window_begin + config.n_fft // 2 - piece.before
            first = max(0, window_begin - begin)
            covered = piece.samples[first : max(0, window_end - begin)]
            signal[begin + first : begin + first + len(covered)] = covered
            is_between[start : start + count] = False
        decibels = scale.decibels(np, self._magnitude(signal), config)
        loudest = decibels.max(axis=0)
        loudest[is_between] = -np.inf
        levels = scale.level(np, np.maximum.reduceat(loudest, starts[:-1]), config)
        loudest_db = np.repeat(scale.level_db(levels, config), blocks)
        halves = to_float16(scale.normalized(decibels, loudest_db, config))
        images = np.zeros((len(pieces), config.bins, clip_frames), "<f2")
        for image, start, count in zip(images, starts.tolist(), frames, strict=False):
            image[:, :count] = halves[:, start : start + count]
        return images, levels.astype(int).tolist()

    def _magnitude(self, signal: Waveform) -> npt.NDArray[np.float32]:
        """Magnitudes (bins, rows), in bands or bins, of a signal's windows, one every hop_length."""
        config = self.config
        windows = np.lib.stride_tricks.sliding_window_view(signal, config.n_fft)
        windows = windows[:: config.hop_length]
        padded = -(-len(windows) // FRAME_MULTIPLE) * FRAME_MULTIPLE
        result = np.empty((config.bins, padded), np.float32)
        for begin in range(0, len(windows), self._rows):
            part = result[:, begin : begin + self._rows]
            chunk = windows[begin : begin + self._rows]
            frames = self._frames[: part.shape[1]]
            np.multiply(chunk, self._window, out=frames[: len(chunk)])
            frames[len(chunk) :] = 0
            magnitude = np.abs(rfft(frames))[: len(chunk)]
            if not self._bands:
                part[:, : len(magnitude)] = magnitude[:, :-1].T
                continue
            # No matrix product: its threads wait for each other, and its last bits depend on their number.
            bins = np.zeros((config.n_fft // 2 + 1, part.shape[1]), np.float32)
            bins[:, : len(magnitude)] = magnitude.T
            for row, (covered, weights) in zip(part, self._bands, strict=True):
                np.einsum("f,fr->r", weights, bins[covered], out=row)
        return result[:, : len(windows)]


def to_float16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Values in [0, 1] rounded to float16, three times as fast as `astype`; ties round up.

    The exponent bias of float32 is larger by 112, its fraction longer by 13 bits.
    """
    bits = (values * np.float32(2.0**-112)).view(np.uint32)
    bits += np.uint32(1 << 12)
    bits >>= np.uint32(13)
    return bits.astype(np.uint16).view(np.float16)
