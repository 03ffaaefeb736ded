"""Phase gradient heap integration: the phase that was lost, read off the magnitudes in one pass."""

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiovq.phase import random_phase
from audiovq.stft import (
    check_batch,
    check_grid,
    check_magnitude,
    check_spectrum,
    groups,
    num_frames,
)

RUN_FRAMES = 512
"""Frames of several clips whose phases are integrated together: caches hold what they take."""


def pghi(
    magnitude: Tensor,
    n_fft: int,
    hop_length: int,
    num_samples: Tensor | None = None,
    tolerance: float = 1e-6,
    generator: torch.Generator | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Phase from magnitude alone, by phase gradient heap integration.

    Z. Prusa, P. Balazs, P. L. Soendergaard, "A Noniterative Method for Reconstruction of Phase
    from STFT Magnitude", IEEE/ACM TASLP 2017. For a Gaussian window, the slopes of the phase are
    those of the log magnitude, exchanged; a Hann window is near enough to one. From the loudest
    cell on, the slopes are summed up along the loudest way to each cell.

    Args:
        magnitude: (batch, n_fft // 2 + 1, frames), linear, finite, at least 0, any scale.
        n_fft, hop_length: as in `stft`.
        num_samples: (batch,), integers, each clip's true length in samples; by default all frames
            are the clip's own.
        tolerance: cells below this part of the clip's maximum get a random phase.
        generator: of the random phases; without one, a fixed seed. As in `griffin_lim`, a clip
            gets the same in any batch and alone.
        known: (batch, n_fft // 2 + 1, up to frames), radians: the phase of the first frames, which
            is kept, and gone on from.

    Returns:
        (batch, n_fft // 2 + 1, frames), float32, radians from -pi to pi; 0 in frames after a
        clip's last. It is worked out on the CPU and returned on the magnitude's device; several
        clips go over `torch.get_num_threads()` threads.

    Raises:
        ValueError: an argument other than the above.
    """
    if num_samples is None:
        check_grid(n_fft, hop_length)
        check_spectrum(magnitude, n_fft)
        lengths = [magnitude.shape[-1]] * len(magnitude)
    else:
        num_samples = check_batch(magnitude, n_fft, hop_length, num_samples)
        lengths = num_frames(num_samples, hop_length).tolist()
    check_magnitude(magnitude)
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be at least 0 and below 1, not {tolerance}")
    if known is None:
        known = magnitude[:, :, :0]
    elif known.shape[:2] != magnitude.shape[:2] or known.shape[2] > magnitude.shape[2]:
        raise ValueError(
            f"known must be {tuple(magnitude.shape)} or of fewer frames, not {tuple(known.shape)}"
        )

    # Frames first: then a clip's frames are one block of memory, and so are its random numbers.
    levels = magnitude.detach().float().cpu().transpose(1, 2).contiguous().numpy()
    phase = random_phase(magnitude, generator).cpu().transpose(1, 2).contiguous().numpy()
    phase[:, : known.shape[2]] = known.detach().float().cpu().transpose(1, 2).numpy()
    _heap_kernel()  # compiled here, before there are threads

    # Runs of clips as one, which is quicker than one by one; what is known begins the first of them.
    most = 0 if known.shape[2] else RUN_FRAMES

    def fill(clips: slice) -> None:
        ends = lengths[clips]
        _integrate(levels[clips], phase[clips], ends, n_fft, hop_length, tolerance, known.shape[2])
        for clip, end in zip(phase[clips], ends, strict=True):
            clip[end:] = 0.0

    runs = list(groups(torch.tensor(lengths), most))
    workers = min(torch.get_num_threads(), len(runs))
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill, runs))
    else:
        for run in runs:
            fill(run)
    return torch.from_numpy(phase).transpose(1, 2).to(magnitude.device)


def _integrate(
    levels: "np.ndarray[Any, Any]",
    phases: "np.ndarray[Any, Any]",
    lengths: list[int],
    n_fft: int,
    hop_length: int,
    tolerance: float,
    known: int,
) -> None:
    """Overwrite `phases`, (clips, frames, bins), wherever `levels`, of the same shape, is loud enough.

    Only in the first `lengths` frames of each clip, and not in the first `known` ones, of which
    only a clip that is alone may have some. Clips are laid end to end with a silent frame between
    them, which no way leads across.
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
    # The Gaussian exp(-pi t^2 / gamma) that is nearest to a Hann window of n_fft samples.
    gamma = 0.25645 * n_fft**2
    # Both in radians per cell: to the next frame, and to the next bin, where -pi is there because
    # the phase counts from the frame's first sample and not from its centre.
    over_bins, over_time = _slope(log_level, axis=1), np.zeros_like(log_level)
    for start, length in zip(starts, lengths, strict=False):  # as if each clip were alone
        over_time[start : start + length] = _slope(log_level[start : start + length], axis=0)
    time_step = (
        2 * math.pi * hop_length / n_fft * np.arange(bins)
        + (hop_length * n_fft / gamma) * over_bins
    )
    bin_step = -math.pi - gamma / (hop_length * n_fft) * over_time

    # By the upper half of the floats' bits, .03 dB or less apart: short integers sort in one pass.
    quietness = np.uint16(0xFFFF) - (level.view(np.uint32) >> 15).astype(np.uint16)
    quietness[~loud] = 0xFFFF
    order = np.argsort(quietness, axis=None, kind="stable")
    loudest_first = order[: np.count_nonzero(loud)].astype(np.int32)
    total = np.zeros(level.size)  # float64, as it grows with the length of the clip
    known = min(known, lengths[0])
    total[: known * bins] = phases[0, :known].ravel()
    _heap_kernel()(loudest_first, bins, time_step.ravel(), bin_step.ravel(), total, known * bins)
    wrapped = (total - 2 * math.pi * np.rint(total / (2 * math.pi))).reshape(level.shape)
    for start, length, phase in zip(starts, lengths, phases, strict=False):
        inside = slice(start, start + length)
        np.copyto(phase[:length], wrapped[inside], where=loud[inside], casting="same_kind")


def _slope(log_level: "np.ndarray[Any, Any]", axis: int) -> "np.ndarray[Any, Any]":
    """Central differences per cell, one-sided at the ends; 0 along an axis of one cell."""
    if log_level.shape[axis] == 1:
        return np.zeros_like(log_level)
    slope = np.empty_like(log_level)
    out, level = (slope, log_level) if axis == 0 else (slope.T, log_level.T)
    np.subtract(level[2:], level[:-2], out=out[1:-1])
    out[1:-1] *= 0.5
    out[0], out[-1] = level[1] - level[0], level[-1] - level[-2]
    return slope


def _sum_up_steps(
    loudest_first: "np.ndarray[Any, Any]",
    bins: int,
    time_step: "np.ndarray[Any, Any]",
    bin_step: "np.ndarray[Any, Any]",
    phase: "np.ndarray[Any, Any]",
    known: int,
) -> None:
    """The heap integration of one clip; plain Python, compiled by `_heap_kernel`.

    Cells are numbered frame * bins + bin. `loudest_first` lists those to fill, and the heap holds
    places in that list, the first of which is the loudest. It is one bit for each place, and one
    for each word of those: to find the first takes no comparisons. Each cell enters the heap once,
    when it gets its phase; the first `known` cells have theirs, and are in it from the start. The
    others of `phase` are overwritten.
    """
    cells = phase.size
    count = loudest_first.size
    rank = np.full(cells, -1, np.int32)  # -1: too quiet, or done
    for place in range(count):
        rank[loudest_first[place]] = place
    one = np.uint64(1)
    words = np.zeros((count >> 6) + 1, np.uint64)
    summary = np.zeros((words.size >> 6) + 1, np.uint64)
    for place in range(count):
        if loudest_first[place] < known:
            words[place >> 6] |= one << np.uint64(place & 63)
            summary[place >> 12] |= one << np.uint64((place >> 6) & 63)
            rank[loudest_first[place]] = -1
    for seed in range(-1, count):
        first = 0  # word of the summary below which there is none
        if seed >= 0:
            if rank[loudest_first[seed]] < 0:
                continue
            # The loudest cell of an island that no path of loud cells has reached: phase 0.
            words[seed >> 6] |= one << np.uint64(seed & 63)
            summary[seed >> 12] |= one << np.uint64((seed >> 6) & 63)
            rank[loudest_first[seed]] = -1
            first = seed >> 12
        while True:
            while first < summary.size and summary[first] == 0:
                first += 1
            if first == summary.size:
                break
            # Pop: the lowest bit of a word, by a table (Leiserson, Prokop, Randall 1998).
            bit = summary[first] & (~summary[first] + one)
            word = (first << 6) + _BIT_NUMBER[(bit * _DE_BRUIJN) >> np.uint64(58)]
            bit = words[word] & (~words[word] + one)
            cell = loudest_first[(word << 6) + _BIT_NUMBER[(bit * _DE_BRUIJN) >> np.uint64(58)]]
            words[word] &= words[word] - one
            if words[word] == 0:
                summary[first] &= summary[first] - one

            column = cell % bins
            for direction in range(4):
                if direction == 0:
                    neighbour = cell + bins
                elif direction == 1:
                    neighbour = cell - bins
                elif direction == 2:
                    neighbour = cell + 1 if column + 1 < bins else -1
                else:
                    neighbour = cell - 1 if column > 0 else -1
                if neighbour < 0 or neighbour >= cells or rank[neighbour] < 0:
                    continue
                # Trapezoid rule: the mean of the slopes at both ends.
                if direction == 0:
                    step = (time_step[cell] + time_step[neighbour]) / 2
                elif direction == 1:
                    step = -(time_step[cell] + time_step[neighbour]) / 2
                elif direction == 2:
                    step = (bin_step[cell] + bin_step[neighbour]) / 2
                else:
                    step = -(bin_step[cell] + bin_step[neighbour]) / 2
                phase[neighbour] = phase[cell] + step
                place = rank[neighbour]
                rank[neighbour] = -1
                words[place >> 6] |= one << np.uint64(place & 63)
                summary[place >> 12] |= one << np.uint64((place >> 6) & 63)
                first = min(first, place >> 12)


_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT_NUMBER = np.zeros(64, np.int64)
for _bit in range(64):
    _BIT_NUMBER[(0x03F79D71B4CB0A89 << _bit) % (1 << 64) >> 58] = _bit


@functools.cache
def _heap_kernel() -> Callable[..., None]:
    """`_sum_up_steps` as machine code, kept on disk if some folder can be written to."""
    import numba  # here, as importing it takes as long as the rest of the program's start

    for cache in (True, False):
        try:
            kernel: Callable[..., None] = numba.njit(cache=cache, nogil=True)(_sum_up_steps)
            nothing = np.zeros(1)
            kernel(np.zeros(1, np.int32), 1, nothing, nothing, nothing.copy(), 0)
            break
        except (RuntimeError, OSError):  # numba's, and the file system's, "cannot cache"
            if not cache:
                raise
    return kernel
