"""Phase gradient heap integration (PGHI): phase from STFT magnitudes, without iterations."""

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiovq.runtime.threads import max_threads
from audiovq.spectral.griffin_lim import random_phase
from audiovq.spectral.stft import (
    check_batch,
    check_grid,
    check_magnitude,
    check_spectrum,
    groups,
    num_frames,
)

GROUP_FRAMES = 512
"""Frames of clips that are integrated together; their arrays should fit the caches."""


def pghi(
    magnitude: Tensor,
    n_fft: int,
    hop_length: int,
    num_samples: Tensor | None = None,
    tolerance: float = 1e-6,
    generator: torch.Generator | None = None,
    known: Tensor | None = None,
    random: Tensor | None = None,
) -> Tensor:
    """Phase of STFT magnitudes, by phase gradient heap integration.

    Z. Prusa, P. Balazs, P. L. Soendergaard, "A Noniterative Method for Reconstruction of Phase
    from STFT Magnitude", IEEE/ACM TASLP 2017. For a Gaussian window, the phase gradient follows from
    the gradient of the log magnitude with its axes exchanged; a Hann window is close enough. Starting
    at the loudest cell, the gradient is integrated along the loudest path to each cell.

    Args:
        magnitude: (batch, n_fft // 2 + 1, frames), linear, finite, at least 0, any scale.
        n_fft, hop_length: as in `stft`.
        num_samples: (batch,), integers, lengths of the clips; by default clips have all frames.
        tolerance: cells below this fraction of the clip's maximum get a random phase.
        generator: for the random phases; default: a fixed seed. As in `griffin_lim`, a clip gets the
            same phase in any batch and alone.
        known: (batch, n_fft // 2 + 1, at most frames), radians: phase of the first frames, to continue.
        random: a `random_phase`, where there is one already.

    Returns:
        (batch, n_fft // 2 + 1, frames), float32, radians from -pi to pi; 0 in frames after a
        clip's last. Computed on the CPU, several clips in `max_threads()` threads, and
        returned on the magnitude's device.

    Raises:
        ValueError: an argument outside these ranges or shapes.
    """
    lengths = _checked_lengths(magnitude, n_fft, hop_length, num_samples)
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be at least 0 and below 1, not {tolerance}")
    if known is None:
        known = magnitude[:, :, :0]
    elif known.shape[:2] != magnitude.shape[:2] or known.shape[2] > magnitude.shape[2]:
        raise ValueError(
            f"known must be {tuple(magnitude.shape)} or of fewer frames, not {tuple(known.shape)}"
        )

    # Frames first, so that a clip's frames are contiguous, and so are its random numbers.
    levels = magnitude.detach().float().cpu().transpose(1, 2).contiguous().numpy()
    random = random_phase(magnitude, generator) if random is None else random
    phase = random.cpu().transpose(1, 2).clone(memory_format=torch.contiguous_format).numpy()
    phase[:, : known.shape[2]] = known.detach().float().cpu().transpose(1, 2).numpy()
    _heap_kernel()  # compiled before threads start

    # Several clips at once, which is faster; with known frames one by one, as `_integrate` requires.
    max_frames = 0 if known.shape[2] else GROUP_FRAMES

    def fill(clips: slice) -> None:
        ends = lengths[clips]
        _integrate(levels[clips], phase[clips], ends, n_fft, hop_length, tolerance, known.shape[2])
        for clip, end in zip(phase[clips], ends, strict=True):
            clip[end:] = 0.0

    _in_threads(fill, list(groups(torch.tensor(lengths), max_frames)))
    return torch.from_numpy(phase).transpose(1, 2).to(magnitude.device)


def _checked_lengths(
    magnitude: Tensor, n_fft: int, hop_length: int, num_samples: Tensor | None
) -> list[int]:
    """Number of frames of each clip. Raises ValueError as `pghi`."""
    if num_samples is None:
        check_grid(n_fft, hop_length)
        check_spectrum(magnitude, n_fft)
        lengths = [magnitude.shape[-1]] * len(magnitude)
    else:
        num_samples = check_batch(magnitude, n_fft, hop_length, num_samples)
        lengths = num_frames(num_samples, hop_length).tolist()
    check_magnitude(magnitude)
    return lengths


def _in_threads(function: Callable[[slice], None], slices: list[slice]) -> None:
    """Call `function` with each slice, in `max_threads()` threads at most."""
    workers = min(max_threads(), len(slices))
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(function, slices))
    else:
        for part in slices:
            function(part)


def _integrate(
    levels: "np.ndarray[Any, Any]",
    phases: "np.ndarray[Any, Any]",
    lengths: list[int],
    n_fft: int,
    hop_length: int,
    tolerance: float,
    known: int,
) -> None:
    """Overwrite `phases` (clips, frames, bins) where `levels`, of the same shape, exceed the tolerance.

    Only in the first `lengths` frames of each clip, and not in its first `known` frames, which only a
    single clip may have. Clips are concatenated with a silent frame between them, which no path crosses.
    """
    bins = levels.shape[2]
    starts = np.cumsum([0, *(length + 1 for length in lengths)])
    level = np.zeros((starts[-1], bins), np.float32)
    floors = np.zeros((starts[-1], 1), np.float32)
    for start, length, clip in zip(starts, lengths, levels, strict=False):
        level[start : start + length] = clip[:length]
        floors[start : start + length] = tolerance * clip[:length].max()
    loud = level > floors
    if not loud.any():
        return
    log_level = np.log(np.maximum(level, np.finfo(np.float32).tiny))
    # The Gaussian exp(-pi t^2 / gamma) closest to a Hann window of n_fft samples.
    gamma = 0.25645 * n_fft**2
    # Steps in radians to the next frame and to the next bin; -pi in the latter because the phase refers
    # to the frame's first sample and not to its centre.
    over_bins, over_time = _slope(log_level, axis=1), np.zeros_like(log_level)
    for start, length in zip(starts, lengths, strict=False):  # each clip on its own
        over_time[start : start + length] = _slope(log_level[start : start + length], axis=0)
    time_step = (
        2 * math.pi * hop_length / n_fft * np.arange(bins)
        + (hop_length * n_fft / gamma) * over_bins
    )
    bin_step = -math.pi - gamma / (hop_length * n_fft) * over_time

    # By the upper 16 bits of the floats, 0.03 dB or finer: 16-bit integers use a radix sort.
    quietness = np.uint16(0xFFFF) - (level.view(np.uint32) >> 15).astype(np.uint16)
    quietness[~loud] = 0xFFFF
    order = np.argsort(quietness, axis=None, kind="stable")
    loudest_first = order[: np.count_nonzero(loud)].astype(np.int32)
    unwrapped = np.zeros(level.size)  # float64, as it grows with the length of the clip
    known = min(known, lengths[0])
    unwrapped[: known * bins] = phases[0, :known].ravel()
    kernel = _heap_kernel()
    kernel(loudest_first, bins, time_step.ravel(), bin_step.ravel(), unwrapped, known * bins)
    wrapped = unwrapped - 2 * math.pi * np.rint(unwrapped / (2 * math.pi))
    wrapped = wrapped.reshape(level.shape)
    for start, length, phase in zip(starts, lengths, phases, strict=False):
        rows = slice(start, start + length)
        np.copyto(phase[:length], wrapped[rows], where=loud[rows], casting="same_kind")


def _slope(log_level: "np.ndarray[Any, Any]", axis: int) -> "np.ndarray[Any, Any]":
    """Gradient per cell by central differences, one-sided at the ends; 0 along an axis of length 1."""
    if log_level.shape[axis] == 1:
        return np.zeros_like(log_level)
    slope = np.empty_like(log_level)
    out, level = (slope, log_level) if axis == 0 else (slope.T, log_level.T)
    np.subtract(level[2:], level[:-2], out=out[1:-1])
    out[1:-1] *= 0.5
    out[0], out[-1] = level[1] - level[0], level[-1] - level[-2]
    return slope


# Longer than 60 lines: numba is imported late and compiles one function; helpers would each have to be
# compiled and cached beside it.
def _integrate_heap(
    loudest_first: "np.ndarray[Any, Any]",
    bins: int,
    time_step: "np.ndarray[Any, Any]",
    bin_step: "np.ndarray[Any, Any]",
    phase: "np.ndarray[Any, Any]",
    known: int,
) -> None:
    """Heap integration of one array of clips; plain Python, compiled by `_heap_kernel`.

    Cells are numbered frame * bins + bin. `loudest_first` lists the cells to fill; the heap holds indices
    of this list, so that its minimum is the loudest cell. It is a bitmap with one bit per index and a
    summary with one bit per word, so that the minimum is found without comparisons. Each cell enters
    the heap once, when it gets its phase; the first `known` cells have theirs and are in it from the
    start. The other cells of `phase` are overwritten.
    """
    cells = phase.size
    count = loudest_first.size
    rank = np.full(cells, -1, np.int32)  # index in `loudest_first`; -1: too quiet, or done
    for index in range(count):
        rank[loudest_first[index]] = index
    one = np.uint64(1)
    words = np.zeros((count >> 6) + 1, np.uint64)
    summary = np.zeros((words.size >> 6) + 1, np.uint64)
    for index in range(count):
        if loudest_first[index] < known:
            words[index >> 6] |= one << np.uint64(index & 63)
            summary[index >> 12] |= one << np.uint64((index >> 6) & 63)
            rank[loudest_first[index]] = -1
    for seed in range(-1, count):
        first = 0  # lower bound of the summary's first non-zero word
        if seed >= 0:
            if rank[loudest_first[seed]] < 0:
                continue
            # The loudest cell of an island that no path has reached: phase 0.
            words[seed >> 6] |= one << np.uint64(seed & 63)
            summary[seed >> 12] |= one << np.uint64((seed >> 6) & 63)
            rank[loudest_first[seed]] = -1
            first = seed >> 12
        while True:
            while first < summary.size and summary[first] == 0:
                first += 1
            if first == summary.size:
                break
            # Pop: the lowest set bit, by a De Bruijn table (Leiserson, Prokop, Randall 1998).
            bit = summary[first] & (~summary[first] + one)
            word = (first << 6) + _BIT_NUMBER[(bit * _DE_BRUIJN) >> np.uint64(58)]
            bit = words[word] & (~words[word] + one)
            cell = loudest_first[(word << 6) + _BIT_NUMBER[(bit * _DE_BRUIJN) >> np.uint64(58)]]
            words[word] &= words[word] - one
            if words[word] == 0:
                summary[first] &= summary[first] - one

            bin_index = cell % bins
            for direction in range(4):
                if direction == 0:
                    neighbour = cell + bins
                elif direction == 1:
                    neighbour = cell - bins
                elif direction == 2:
                    neighbour = cell + 1 if bin_index + 1 < bins else -1
                else:
                    neighbour = cell - 1 if bin_index > 0 else -1
                if neighbour < 0 or neighbour >= cells or rank[neighbour] < 0:
                    continue
                # Trapezoid rule: the mean gradient of both cells.
                if direction == 0:
                    step = (time_step[cell] + time_step[neighbour]) / 2
                elif direction == 1:
                    step = -(time_step[cell] + time_step[neighbour]) / 2
                elif direction == 2:
                    step = (bin_step[cell] + bin_step[neighbour]) / 2
                else:
                    step = -(bin_step[cell] + bin_step[neighbour]) / 2
                phase[neighbour] = phase[cell] + step
                index = rank[neighbour]
                rank[neighbour] = -1
                words[index >> 6] |= one << np.uint64(index & 63)
                summary[index >> 12] |= one << np.uint64((index >> 6) & 63)
                first = min(first, index >> 12)


_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT_NUMBER = np.zeros(64, np.int64)
for _bit in range(64):
    _BIT_NUMBER[(0x03F79D71B4CB0A89 << _bit) % (1 << 64) >> 58] = _bit


@functools.cache
def _heap_kernel() -> Callable[..., None]:
    """`_integrate_heap` compiled by numba, cached on disk if a folder is writable."""
    import numba  # imported late: it takes as long as the rest of the program's start

    for cache in (True, False):
        try:
            kernel: Callable[..., None] = numba.njit(cache=cache, nogil=True)(_integrate_heap)
            # Of the types that `_integrate` gives: others would be compiled, too.
            zeros, ranks, steps = np.zeros(1), np.zeros(1, np.int32), np.zeros(1, np.float32)
            kernel(ranks, 1, zeros, steps, zeros.copy(), 0)
            break
        except (RuntimeError, OSError):  # "cannot cache", of numba and of the file system
            if not cache:
                raise
    return kernel
