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
DB_PER_NEPER = 20 / math.log(10)
"""Decibels of a magnitude for each unit of its natural logarithm."""
FRAME_MULTIPLE = 64
"""Transforms and band sums run over a multiple of this many frames, as SIMD code rounds a remainder differently."""


class Piece(NamedTuple):
    """A clip with samples of its recording on both sides."""

    samples: Waveform
    """(before + clip + after,), of stereo (2, before + clip + after)"""
    before: int = 0
    """Samples before the clip."""
    after: int = 0
    """Samples after the clip."""

    def cut_to_clip(self, samples: Waveform) -> Waveform:
        """Cut `samples`, which correspond to those of the piece, to the clip."""
        return samples[..., self.before : samples.shape[-1] - self.after]

    @property
    def num_samples(self) -> int:
        """Samples of the clip."""
        return int(self.samples.shape[-1]) - self.before - self.after


class Analysis:
    """Log-spectrograms and levels of waveforms in [-1, 1], mono or stereo as the settings say."""

    def __init__(self, config: SpectrogramConfig, chunk_samples: int = CHUNK_SAMPLES) -> None:
        """`chunk_samples`: samples of all windows of a batch. Raises AudiovqError if a mel band covers no bin."""
        self.config = config
        cycle = np.arange(config.n_fft) / config.n_fft
        hann = 0.5 - 0.5 * np.cos(2 * math.pi * cycle)
        # Magnitudes are relative to a full-scale sine.
        self._window = (hann / (config.n_fft / 4)).astype(np.float32)
        self._rows = FRAME_MULTIPLE * max(1, chunk_samples // config.n_fft // FRAME_MULTIPLE)
        self._frames = np.empty((self._rows, config.n_fft), np.float32)
        self._bands = _narrow(scale.mel_filters(config)) if config.n_mels else []
        self._stereo_bands: list[tuple[slice, npt.NDArray[np.float32]]] = []
        if config.channels > 1:
            self._stereo_bands = _narrow(np.repeat(scale.stereo_filters(config), 2, axis=1))
            size = 3, self._rows, 2 * (config.n_fft // 2 + 1)
            self._products = np.empty(size, np.float32)

    def batches(
        self, pieces: Iterable[Piece], clip_frames: int
    ) -> Iterator[tuple[npt.NDArray[np.float16], list[int]]]:
        """Spectrograms (clips, stored_rows, clip_frames) in [0, 1] and levels of the clips, in order, in batches.

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
        """Spectrograms (clips, stored_rows, clip_frames) and levels of one batch."""
        config = self.config
        blocks = [self._blocks(piece.num_samples) for piece in pieces]
        frames = [num_frames(piece.num_samples, config.hop_length) for piece in pieces]
        starts = np.cumsum([0, *blocks])
        length = (starts[-1] - 1) * config.hop_length + config.n_fft
        signal = np.zeros((config.channels, length), np.float32)
        is_between = np.ones(starts[-1], bool)  # rows whose windows cover two clips
        for piece, start, count in zip(pieces, starts.tolist(), frames, strict=False):
            window_begin = start * config.hop_length  # of the first frame
            window_end = (
                window_begin + (count - 1) * config.hop_length + config.n_fft
            )  # of the last
            begin = window_begin + config.n_fft // 2 - piece.before
            first = max(0, window_begin - begin)
            covered = piece.samples[..., first : max(0, window_end - begin)]
            signal[:, begin + first : begin + first + covered.shape[-1]] = covered
            is_between[start : start + count] = False
        magnitude, powers = self._magnitude(signal)
        nepers = _log(magnitude)
        loudest = nepers.max(axis=0) * np.float32(DB_PER_NEPER)
        loudest[is_between] = -np.inf
        levels = scale.level(np, np.maximum.reduceat(loudest, starts[:-1]), config)
        loudest_db = np.repeat(scale.level_db(levels, config), blocks)
        # As `scale.normalized`, in place.
        values = np.multiply(nepers, np.float32(DB_PER_NEPER / config.range_db), out=nepers)
        values += 1 - loudest_db / np.float32(config.range_db)
        halves = to_float16(values.clip(0, 1, out=values))
        images = np.zeros((len(pieces), config.stored_rows, clip_frames), "<f2")
        for image, start, count in zip(images, starts.tolist(), frames, strict=False):
            image[: config.bins, :count] = halves[:, start : start + count]
        if powers is not None:
            floors = scale.floor_power(scale.level_db(levels, config), config)
            for image, start, count, floor in zip(
                images, starts.tolist(), frames, floors.tolist(), strict=False
            ):
                found = scale.smoothed(powers[..., start : start + count]) / np.float32(floor)
                image[config.bins :, :count] = np.concatenate(
                    [scale.balance(np, *found[:2]), scale.coherence(np, *found)]
                )
        return images, levels.astype(int).tolist()

    def _magnitude(
        self, signal: Waveform
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Magnitudes (bins, rows), in bands or bins, of the windows of a signal (channels, samples), one every
        hop_length; of stereo also powers (3, stereo_bands, rows): left, right, and cross. All are relative to a
        full-scale sine."""
        config = self.config
        windows = np.lib.stride_tricks.sliding_window_view(signal, config.n_fft, axis=1)
        windows = windows[:, :: config.hop_length]
        count = windows.shape[1]
        padded = -(-count // FRAME_MULTIPLE) * FRAME_MULTIPLE
        result = np.empty((config.bins, padded), np.float32)
        powers = np.empty((3, len(self._stereo_bands), padded), np.float32)
        for begin in range(0, count, self._rows):
            part = result[:, begin : begin + self._rows]
            chunk = windows[:, begin : begin + self._rows]
            if config.channels == 1:
                magnitude = np.abs(self._spectrum(chunk[0], part.shape[1]))
            else:
                magnitude, parts = self._of_stereo(chunk, part.shape[1])
                powers[..., begin : begin + self._rows] = parts
            if not self._bands:
                part[:, : len(magnitude)] = magnitude[:, :-1].T
                continue
            # No matrix product: its threads wait for each other, and its last bits depend on their number.
            bins = _bins_first(magnitude, part.shape[1])
            for row, (covered, weights) in zip(part, self._bands, strict=True):
                np.einsum("f,fr->r", weights, bins[covered], out=row)
        return result[:, :count], powers[..., :count] if self._stereo_bands else None

    def _spectrum(self, windows: Waveform, padded: int) -> npt.NDArray[np.complex64]:
        """Spectrum (windows, n_fft / 2 + 1) of windows (windows, n_fft), transformed in a batch of `padded`."""
        frames = self._frames[:padded]
        np.multiply(windows, self._window, out=frames[: len(windows)])
        frames[len(windows) :] = 0
        spectrum: npt.NDArray[np.complex64] = rfft(frames)[: len(windows)]
        return spectrum

    def _of_stereo(
        self, windows: Waveform, padded: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Windows (2, windows, n_fft) → root mean square magnitudes of both channels (windows, n_fft / 2 + 1), and
        powers (3, stereo_bands, padded)."""
        left, right = (self._spectrum(channel, padded).view(np.float32) for channel in windows)
        count = len(left)
        # Real and imaginary parts apart, which the weights of a band sum up: strided parts take twice as long.
        products = self._products[:, :count]
        for product, (a, b) in zip(
            products, ((left, left), (right, right), (left, right)), strict=True
        ):
            np.multiply(a, b, out=product)
        sums = np.zeros((3, len(self._stereo_bands), padded), np.float32)
        for band, (covered, weights) in enumerate(self._stereo_bands):
            sums[:, band, :count] = np.einsum("cwf,f->cw", products[..., covered], weights)
        both = np.add(products[0], products[1], out=products[0])
        mean = (both[:, ::2] + both[:, 1::2]) * np.float32(0.5)
        return np.sqrt(mean, out=mean), sums


def _log(magnitude: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Natural logarithm of magnitudes, at least that of SILENCE, in their place.

    NumPy's log10 of float32 takes four times as long on processors without AVX-512.
    """
    np.maximum(magnitude, np.float32(scale.SILENCE), out=magnitude)
    return np.log(magnitude, out=magnitude)


def _narrow(
    filters: npt.NDArray[np.float32],
) -> list[tuple[slice, npt.NDArray[np.float32]]]:
    """The bins that each band of a filter bank (bands, bins) covers, and their weights."""
    narrow = []
    for weights in filters:
        first, last = np.flatnonzero(weights)[[0, -1]].tolist()
        narrow.append((slice(first, last + 1), weights[first : last + 1]))
    return narrow


def _bins_first(values: npt.NDArray[np.float32], padded: int) -> npt.NDArray[np.float32]:
    """Values (windows, bins) as (bins, padded), followed by zeros."""
    bins = np.zeros((values.shape[1], padded), np.float32)
    bins[:, : len(values)] = values.T
    return bins


def to_float16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Values in [0, 1] rounded to float16, three times as fast as `astype`; ties round up.

    The exponent bias of float32 is larger by 112, its fraction longer by 13 bits.
    """
    bits = (values * np.float32(2.0**-112)).view(np.uint32)
    bits += np.uint32(1 << 12)
    bits >>= np.uint32(13)
    return bits.astype(np.uint16).view(np.float16)
