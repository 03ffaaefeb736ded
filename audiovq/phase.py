"""From magnitudes back to sound: STFT, its inverse, and two ways to find the phase that was lost.

`pghi` reads the phase off the slopes of the log magnitude, in one pass; `griffin_lim` refines any
phase step by step. Best and quickest is both: `griffin_lim(..., n_iter=8, phase=pghi(...))`.

Conventions, the same in every function: a periodic Hann window; frame t is centred on sample
t * hop_length, with zeros on both sides of the clip (as `librosa.stft(pad_mode="constant")`, and
as `torch.stft(center=True, pad_mode="constant")`, whose phase counts from the frame's first
sample); frequency bins 0 to n_fft // 2. A batch holds clips of different lengths, padded at the
end; `num_samples` tells them apart, and each clip gets what it would get alone.
"""

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

RUN_FRAMES = 512
"""Frames of several clips whose phases are integrated together: caches hold what they take."""
_IntOrTensor = TypeVar("_IntOrTensor", int, Tensor)


def num_frames(num_samples: _IntOrTensor, hop_length: int) -> _IntOrTensor:
    """How many STFT frames a clip of `num_samples` samples has: 1 + num_samples // hop_length.

    Takes and returns an int, or an integer tensor of any shape.
    """
    return 1 + num_samples // hop_length


def stft(waveform: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Short-time Fourier transform.

    Args:
        waveform: (batch, samples), float32, any range; padding after a clip's end must be zeros.
        n_fft: window and transform length in samples, even.
        hop_length: samples from one frame to the next, at most n_fft // 2.

    Returns:
        (batch, n_fft // 2 + 1, num_frames(samples, hop_length)), complex64, unscaled: a full-scale
        sine reaches n_fft / 4. Differentiable.

    Raises:
        ValueError: an n_fft, a hop, a shape or a type other than the above.
    """
    _check_grid(n_fft, hop_length)
    if waveform.ndim != 2 or waveform.dtype != torch.float32:
        raise ValueError(
            f"waveform must be (batch, samples) of float32, "
            f"not {tuple(waveform.shape)} of {waveform.dtype}"
        )
    window = torch.hann_window(n_fft, dtype=waveform.dtype, device=waveform.device)
    return torch.stft(
        waveform, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True
    )


def istft(spectrum: Tensor, n_fft: int, hop_length: int, num_samples: Tensor) -> Tensor:
    """Inverse of `stft` by least squares (Griffin and Lim, IEEE TASSP 1984, equation 6).

    Args:
        spectrum: (batch, n_fft // 2 + 1, frames), complex64. Frames after a clip's last one,
            `num_frames(n, hop_length)`, are ignored, whatever they hold.
        n_fft, hop_length: as in `stft`.
        num_samples: (batch,), integers, each clip's true length in samples, 0 allowed.

    Returns:
        (batch, max(num_samples)), float32; 0 after a clip's end.

    Raises:
        ValueError: an n_fft, a hop, a shape or a type other than the above, or too few frames.
    """
    num_samples = _check_batch(spectrum, n_fft, hop_length, num_samples)
    if spectrum.dtype != torch.complex64:
        raise ValueError(f"spectrum must be complex64, not {spectrum.dtype}")
    # The floor only keeps rounding errors from being blown up where the window is all but zero.
    packing = _Packing(num_samples, n_fft, hop_length, envelope_floor=1e-8)
    return packing.unpack(packing.synthesise(packing.pack(spectrum)))


@torch.no_grad()
def griffin_lim(
    magnitude: Tensor,
    n_fft: int,
    hop_length: int,
    num_samples: Tensor,
    n_iter: int = 32,
    momentum: float = 0.99,
    phase: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Waveforms whose STFT has nearly this magnitude, by the fast Griffin-Lim algorithm.

    N. Perraudin, P. Balazs, P. L. Soendergaard, "A fast Griffin-Lim algorithm", WASPAA 2013;
    momentum 0 is the algorithm of D. Griffin and J. Lim, IEEE TASSP 1984.

    Args:
        magnitude: (batch, n_fft // 2 + 1, frames), linear, finite, at least 0; frames after a
            clip's last are ignored. Silence gives exact zeros.
        n_fft, hop_length, num_samples: as in `istft`.
        n_iter: rounds of inverse and forward transform; 0 inverts the start phase as it is.
        momentum: how far to go on in the direction of the last step, at least 0; much above 1 the
            sound gets worse with each iteration.
        phase: start, in radians, of the magnitude's shape, `pghi` for one. By default random.
        generator: of the random start; without one, a fixed seed. Every clip starts from the same
            table of numbers, drawn frame by frame, so that a clip gets from the same generator
            state (of a CPU generator) the same sound in any batch and alone.

    Returns:
        (batch, max(num_samples)), float32; 0 after a clip's end.

    Raises:
        ValueError: an argument other than the above.
    """
    num_samples = _check_batch(magnitude, n_fft, hop_length, num_samples)
    _check_magnitude(magnitude)
    if n_iter < 0:
        raise ValueError(f"n_iter must be at least 0, not {n_iter}")
    if not momentum >= 0:
        raise ValueError(f"momentum must be at least 0, not {momentum}")
    if phase is None:
        phase = random_phase(magnitude, generator)
    elif phase.shape != magnitude.shape:
        raise ValueError(
            f"phase must have the shape of magnitude, {tuple(magnitude.shape)}, "
            f"not {tuple(phase.shape)}"
        )
    elif not (_is_finite(phase) or bool(phase.isfinite().all())):
        raise ValueError("phase must be finite")
    shape = len(magnitude), int(num_samples.max())
    waveform = torch.zeros(shape, device=magnitude.device)
    # On a CPU the buffers of a run should stay in its caches; elsewhere everything goes at once.
    most = 2048 if magnitude.device.type == "cpu" else math.inf
    for clips in _groups(num_frames(num_samples, hop_length), most):
        # Magnitudes of no real sound would leave a click where only the last frame's fading end
        # covers a sample (hops above 0.3 n_fft); with a higher floor the sound fades instead.
        packing = _Packing(num_samples[clips], n_fft, hop_length, envelope_floor=0.1)
        target = packing.pack(magnitude[clips].float())
        spectrum = torch.polar(target, packing.pack(phase[clips].float()))
        signal = _refine(packing, target, spectrum, n_iter, momentum)
        waveform[clips, : packing.max_samples] = packing.unpack(signal)
    return waveform


def _refine(
    packing: "_Packing", target: Tensor, spectrum: Tensor, n_iter: int, momentum: float
) -> Tensor:
    """The iterations of `griffin_lim`; overwrites `spectrum`. Returns the packed signal.

    Nearly all the time goes here, into memory traffic as much as into transforms, hence the reused
    buffers; and |z| as a sum of squares, since torch's complex abs() is four times as slow.
    """
    previous = torch.zeros_like(spectrum)
    squares = torch.empty_like(torch.view_as_real(spectrum))
    scale = torch.empty_like(target)
    smallest = torch.finfo(target.dtype).tiny
    for _ in range(n_iter):
        consistent = packing.analyse(packing.synthesise(spectrum))
        # c_n + momentum * (c_n - c_{n-1}), but for a factor: only its phase is kept.
        torch.sub(consistent, previous, alpha=momentum / (1 + momentum), out=spectrum)
        previous = consistent
        parts = torch.view_as_real(spectrum)
        torch.mul(parts, parts, out=squares)
        torch.add(squares[..., 0], squares[..., 1], out=scale)
        scale.clamp_(min=smallest).rsqrt_().mul_(target)
        spectrum.mul_(scale)
    return packing.synthesise(spectrum)


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
        _check_grid(n_fft, hop_length)
        _check_spectrum(magnitude, n_fft)
        lengths = [magnitude.shape[-1]] * len(magnitude)
    else:
        num_samples = _check_batch(magnitude, n_fft, hop_length, num_samples)
        lengths = num_frames(num_samples, hop_length).tolist()
    _check_magnitude(magnitude)
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

    runs = list(_groups(torch.tensor(lengths), most))
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


class _Packing:
    """The clips of a batch laid end to end in one long signal, of blocks of `hop_length` samples.

    Row r of the packed spectrum is the frame that begins with block r. Between two clips lie the
    zeros that a frame at the end of the one and at the start of the other would be padded with,
    once for both; rows that touch two clips are kept at zero, so no clip hears another. Thus a
    batch of unequal lengths costs little more than its sounds, and needs no loop over clips.
    """

    def __init__(
        self, num_samples: Tensor, n_fft: int, hop_length: int, envelope_floor: float
    ) -> None:
        device = num_samples.device
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.overlap = math.ceil(n_fft / hop_length)
        self.window = torch.hann_window(n_fft, device=device)
        self.max_samples = int(num_samples.max())

        frames = num_frames(num_samples, hop_length)
        blocks = frames + math.ceil(n_fft / 2 / hop_length)  # n_fft / 2 zeros before the next clip
        first_block = (blocks.cumsum(0) - blocks)[:, None]
        self.num_rows = int(blocks.sum())
        frame = torch.arange(num_frames(self.max_samples, hop_length), device=device)
        self.is_frame = frame < frames[:, None]  # (batch, frames)
        self.row_of_frame = (first_block + frame)[self.is_frame]
        sample = torch.arange(self.max_samples, device=device)
        self.is_sample = sample < num_samples[:, None]  # (batch, samples)
        start = first_block * hop_length + n_fft // 2
        self.place_of_sample = (start + sample)[self.is_sample]

        # What overlap-add has to be divided by: the sum of the squared windows of the clip's own
        # frames. Zero gain outside of the clips stands for the zeros that `stft` pads with.
        windows = torch.zeros(self.num_rows, n_fft, device=device)
        windows[self.row_of_frame] = self.window
        envelope = self._overlap_add(windows)
        inside = envelope.flatten()[self.place_of_sample].clamp(min=envelope_floor)
        self.gain = torch.zeros_like(envelope)
        self.gain.view(-1)[self.place_of_sample] = inside.reciprocal()

    def pack(self, values: Tensor) -> Tensor:
        """(batch, bins, frames), frames after a clip's last ignored, to (rows, bins)."""
        values = values.transpose(1, 2)[:, : self.is_frame.shape[1]]
        rows = values.new_zeros(self.num_rows, values.shape[2])
        rows[self.row_of_frame] = values[self.is_frame]
        return rows

    def unpack(self, signal: Tensor) -> Tensor:
        """(blocks, hop_length) to (batch, max_samples), zero after a clip's end."""
        waveform = signal.new_zeros(self.is_sample.shape)
        waveform[self.is_sample] = signal.flatten()[self.place_of_sample]
        return waveform

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """(rows, bins) to the packed signal, (blocks, hop_length); 0 outside of the clips."""
        return self._overlap_add(torch.fft.irfft(spectrum, n=self.n_fft)).mul_(self.gain)

    def analyse(self, signal: Tensor) -> Tensor:
        """(blocks, hop_length) to (rows, bins)."""
        frames = signal.flatten().unfold(0, self.n_fft, self.hop_length)
        spectrum: Tensor = torch.fft.rfft(frames * self.window)
        return spectrum

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(rows, n_fft), windowed here and added up, to (blocks, hop_length)."""
        signal = frames.new_zeros(self.num_rows + self.overlap - 1, self.hop_length)
        for block in range(self.overlap):
            part = slice(block * self.hop_length, (block + 1) * self.hop_length)
            window = self.window[part]  # the last is shorter where n_fft is no multiple of the hop
            signal[block : block + self.num_rows, : len(window)].addcmul_(frames[:, part], window)
        return signal


def _groups(frames: Tensor, most: float) -> Iterator[slice]:
    """Cut a batch into runs of clips of up to `most` frames in all, which are worked on together."""
    start = total = 0
    for clip, count in enumerate(frames.tolist()):
        if total > 0 and total + count > most:
            yield slice(start, clip)
            start, total = clip, 0
        total += count
    yield slice(start, len(frames))


def random_phase(magnitude: Tensor, generator: torch.Generator | None) -> Tensor:
    """(batch, bins, frames), radians: one table for all clips, drawn frame by frame.

    So a clip's part depends neither on its neighbours nor on the padding.
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    _, bins, frames = magnitude.shape
    turns: Tensor = torch.rand(frames, bins, generator=generator, device=generator.device)
    return ((2 * turns - 1) * math.pi).T.to(magnitude.device).expand(magnitude.shape)


def _check_grid(n_fft: int, hop_length: int) -> None:
    if n_fft < 2 or n_fft % 2:
        raise ValueError(f"n_fft must be even and at least 2, not {n_fft}")
    if not 1 <= hop_length <= n_fft // 2:
        raise ValueError(
            f"hop_length must be from 1 to n_fft // 2 = {n_fft // 2}, not {hop_length}"
        )


def _check_spectrum(spectrum: Tensor, n_fft: int) -> None:
    bins = n_fft // 2 + 1
    if spectrum.ndim != 3 or spectrum.shape[1] != bins or 0 in spectrum.shape:
        raise ValueError(
            f"expected (batch, {bins} bins for n_fft {n_fft}, frames), none of them 0, "
            f"not {tuple(spectrum.shape)}"
        )


def _check_batch(spectrum: Tensor, n_fft: int, hop_length: int, num_samples: Tensor) -> Tensor:
    """Check what all inversions share; returns `num_samples` as int64 on the spectrum's device."""
    _check_grid(n_fft, hop_length)
    _check_spectrum(spectrum, n_fft)
    if num_samples.shape != spectrum.shape[:1] or num_samples.dtype not in _INTEGERS:
        raise ValueError(
            f"num_samples must be ({len(spectrum)},) integers, one a clip, "
            f"not {tuple(num_samples.shape)} of {num_samples.dtype}"
        )
    num_samples = num_samples.to(spectrum.device, torch.int64)
    shortest, longest = (int(n) for n in num_samples.aminmax())
    if shortest < 0:
        raise ValueError(f"num_samples must be at least 0, not {shortest}")
    if num_frames(longest, hop_length) > spectrum.shape[2]:
        raise ValueError(
            f"{longest} samples at hop {hop_length} have {num_frames(longest, hop_length)} "
            f"frames, but only {spectrum.shape[2]} are given"
        )
    return num_samples


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _is_finite(values: Tensor) -> bool:
    """In one pass, quicker than `isfinite`; huge values may overflow and be taken for infinite ones."""
    return bool(values.detach().sum().isfinite())


def _check_magnitude(magnitude: Tensor) -> None:
    if not magnitude.is_floating_point():
        raise ValueError(f"magnitude must be real floating point, not {magnitude.dtype}")
    if _is_finite(magnitude) and not bool((magnitude < 0).any()):  # quicker than a minimum
        return
    lowest, highest = (float(value) for value in magnitude.detach().aminmax())
    if not (lowest >= 0 and highest < math.inf):
        raise ValueError(f"magnitude must be finite and at least 0, not {lowest} to {highest}")
