"""Short-time Fourier transform of batches of clips of different lengths, and its inverse.

Conventions, the same in every function: a periodic Hann window; frame t is centred on sample
t * hop_length, with zeros on both sides of the clip (as `librosa.stft(pad_mode="constant")`, and
as `torch.stft(center=True, pad_mode="constant")`, whose phase counts from the frame's first
sample); frequency bins 0 to n_fft // 2. A batch holds clips of different lengths, padded at the
end; `num_samples` holds their lengths, and each clip gets the result that it would get alone.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from audiovq.spectral.scale import num_frames as num_frames

ENVELOPE_FLOOR = 0.1
"""Inconsistent magnitudes would leave a click where only the fading end of the last frame's window covers a sample
(hops above 0.3 n_fft); with a higher floor the sound fades instead."""


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
    check_grid(n_fft, hop_length)
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

    Exact but for rounding, which grows where only the fading end of the last window covers a sample:
    at hop_length n_fft / 2, the last sample of a clip of k * hop_length - 1 samples has an error of
    about 1e-7 * (n_fft / pi) ** 2.

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
    num_samples = check_batch(spectrum, n_fft, hop_length, num_samples)
    if spectrum.dtype != torch.complex64:
        raise ValueError(f"spectrum must be complex64, not {spectrum.dtype}")
    # Below this, rounding is larger than what it is added to.
    packing = Packing(num_samples, n_fft, hop_length, envelope_floor=1e-13)
    return packing.unpack(packing.synthesise(packing.pack(spectrum)))


class Packing:
    """The clips of a batch laid end to end in one long signal, of blocks of `hop_length` samples.

    Row r of the packed spectrum is the frame that begins with block r. Between two clips lie the
    zeros that a frame at the end of the one and at the start of the other would be padded with,
    once for both; rows that touch two clips stay zero, so clips do not affect each other. Thus a
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
        self.index_of_sample = (start + sample)[self.is_sample]

        # Overlap-add is divided by its envelope, the sum of the squared windows of the clip's own
        # frames. The gain is zero between clips, like the zeros that `stft` pads with.
        windows = torch.zeros(self.num_rows, n_fft, device=device)
        windows[self.row_of_frame] = self.window
        envelope = self._overlap_add(windows)
        of_samples = envelope.flatten()[self.index_of_sample].clamp(min=envelope_floor)
        self.gain = torch.zeros_like(envelope)
        self.gain.view(-1)[self.index_of_sample] = of_samples.reciprocal()

    def pack(self, values: Tensor) -> Tensor:
        """(batch, bins, frames), frames after a clip's last ignored, to (rows, bins)."""
        values = values.transpose(1, 2)[:, : self.is_frame.shape[1]]
        rows = values.new_zeros(self.num_rows, values.shape[2])
        rows[self.row_of_frame] = values[self.is_frame]
        return rows

    def unpack(self, signal: Tensor) -> Tensor:
        """(blocks, hop_length) to (batch, max_samples), zero after a clip's end."""
        waveform = signal.new_zeros(self.is_sample.shape)
        waveform[self.is_sample] = signal.flatten()[self.index_of_sample]
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


def groups(frames: Tensor, most: float) -> Iterator[slice]:
    """Cut a batch of clips with these frames into slices of at most `most` frames, or one clip."""
    start = total = 0
    for clip, count in enumerate(frames.tolist()):
        if total > 0 and total + count > most:
            yield slice(start, clip)
            start, total = clip, 0
        total += count
    yield slice(start, len(frames))


def check_grid(n_fft: int, hop_length: int) -> None:
    """Raise ValueError if n_fft is odd or the hop is above half of it."""
    if n_fft < 2 or n_fft % 2:
        raise ValueError(f"n_fft must be even and at least 2, not {n_fft}")
    if not 1 <= hop_length <= n_fft // 2:
        raise ValueError(
            f"hop_length must be from 1 to n_fft // 2 = {n_fft // 2}, not {hop_length}"
        )


def check_spectrum(spectrum: Tensor, n_fft: int) -> None:
    """Raise ValueError if a spectrum is not (batch, n_fft // 2 + 1, frames), or empty."""
    bins = n_fft // 2 + 1
    if spectrum.ndim != 3 or spectrum.shape[1] != bins or 0 in spectrum.shape:
        raise ValueError(
            f"expected (batch, {bins} bins for n_fft {n_fft}, frames), none of them 0, "
            f"not {tuple(spectrum.shape)}"
        )


def check_batch(spectrum: Tensor, n_fft: int, hop_length: int, num_samples: Tensor) -> Tensor:
    """Check the arguments that all inversions share; returns `num_samples` as int64 on the spectrum's device."""
    check_grid(n_fft, hop_length)
    check_spectrum(spectrum, n_fft)
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


def is_finite(values: Tensor) -> bool:
    """Whether all values are finite, faster than `isfinite`; False also if their sum overflows."""
    return bool(values.detach().sum().isfinite())


def check_magnitude(magnitude: Tensor) -> None:
    """Raise ValueError if a magnitude is not real, finite and at least 0."""
    if not magnitude.is_floating_point():
        raise ValueError(f"magnitude must be real floating point, not {magnitude.dtype}")
    if is_finite(magnitude) and not bool((magnitude < 0).any()):  # faster than a minimum
        return
    lowest, highest = (float(value) for value in magnitude.detach().aminmax())
    if not (lowest >= 0 and highest < math.inf):
        raise ValueError(f"magnitude must be finite and at least 0, not {lowest} to {highest}")
