"""Griffin-Lim: waveforms from magnitudes, by iterative refinement of the phase.

Initialising with the phase of `pghi` is both best and fastest:
`griffin_lim(..., n_iter=8, phase=pghi(...))`. Where only sums of magnitudes in bands are known, as in a mel
spectrogram, the iterations hold these and leave open what lies inside a band. Conventions are those of `stft`.
"""

import math

import torch
from torch import Tensor

from audiovq.runtime.threads import tuned
from audiovq.spectral.bands import Bands
from audiovq.spectral.stft import (
    ENVELOPE_FLOOR,
    Packing,
    check_batch,
    check_magnitude,
    groups,
    is_finite,
    num_frames,
)

MOMENTUM = 0.99
"""As in Perraudin et al. 2013."""
MAX_CELLS = 1 << 18
"""Cells of a group of clips that are refined together on a CPU: 2 MiB of complex numbers. Four times as many take
half as long again at 44.1 kHz."""


@torch.no_grad()
def griffin_lim(
    magnitude: Tensor,
    n_fft: int,
    hop_length: int,
    num_samples: Tensor,
    n_iter: int = 32,
    momentum: float = MOMENTUM,
    phase: Tensor | None = None,
    generator: torch.Generator | None = None,
    bands: Bands | None = None,
    wanted: Tensor | None = None,
) -> Tensor:
    """Waveforms whose STFT has approximately this magnitude, by the fast Griffin-Lim algorithm.

    N. Perraudin, P. Balazs, P. L. Soendergaard, "A fast Griffin-Lim algorithm", WASPAA 2013;
    momentum 0 is the algorithm of D. Griffin and J. Lim, IEEE TASSP 1984.

    Args:
        magnitude: (batch, n_fft // 2 + 1, frames), linear, finite, at least 0; frames after a
            clip's last are ignored. Zero magnitudes give exact zeros.
        n_fft, hop_length, num_samples: as in `istft`.
        n_iter: iterations of inverse and forward transform; 0 inverts the initial phase as it is.
        momentum: extrapolation in the direction of the last step, at least 0; above 1 the magnitudes get less
            exact, much above it with each iteration.
        phase: initial phase in radians, of the magnitude's shape, such as from `pghi`. Default: random.
        generator: for the random phase; default: a fixed seed. All clips share one table of random
            numbers, sampled frame by frame, so that the same state of a CPU generator gives a clip the
            same sound in any batch and alone.
        bands: the sums of the STFT's magnitude in these bands shall be `wanted`, while `magnitude` is
            that of the first estimate alone.
        wanted: (batch, bands, frames), at least 0, if `bands` are given.

    Returns:
        (batch, max(num_samples)), float32; 0 after a clip's end.

    Raises:
        ValueError: an argument outside these ranges or shapes.
    """
    num_samples = check_batch(magnitude, n_fft, hop_length, num_samples)
    check_magnitude(magnitude)
    if wanted is not None:
        check_magnitude(wanted)
    _check_bands(bands, wanted, magnitude)
    if n_iter < 0:
        raise ValueError(f"n_iter must be at least 0, not {n_iter}")
    if not momentum >= 0:
        raise ValueError(f"momentum must be at least 0, not {momentum}")
    if phase is None:
        phase = random_phase(magnitude, generator)
    else:
        _check_phase(phase, magnitude)
    shape = len(magnitude), int(num_samples.max())
    waveform = torch.zeros(shape, device=magnitude.device)
    # On a CPU the buffers of a group should fit its caches; elsewhere all clips run at once.
    max_frames = MAX_CELLS / magnitude.shape[1] if magnitude.device.type == "cpu" else math.inf
    for clips in groups(num_frames(num_samples, hop_length), max_frames):
        packing = Packing(num_samples[clips], n_fft, hop_length, ENVELOPE_FLOOR)
        target = packing.pack(magnitude[clips].float())
        spectrum = torch.polar(target, packing.pack(phase[clips].float()))
        if wanted is not None:
            target = packing.pack(wanted[clips].float())
        signal = _refine(packing, target, spectrum, n_iter, momentum, bands)
        waveform[clips, : packing.max_samples] = packing.unpack(signal)
    return waveform


def _check_bands(bands: Bands | None, wanted: Tensor | None, magnitude: Tensor) -> None:
    """Raise ValueError if wanted bands are not those of a filter bank, with the magnitude's frames."""
    if bands is None and wanted is None:
        return
    if bands is None or wanted is None:
        raise ValueError("bands and wanted must be given together")
    shape = len(magnitude), len(bands.filters), magnitude.shape[2]
    if wanted.shape != shape:
        raise ValueError(f"wanted must be {shape}, not {tuple(wanted.shape)}")


def _check_phase(phase: Tensor, magnitude: Tensor) -> None:
    """Raise ValueError if an initial phase has not the shape of the magnitude, or is not finite."""
    if phase.shape != magnitude.shape:
        raise ValueError(
            f"phase must have the shape of magnitude, {tuple(magnitude.shape)}, "
            f"not {tuple(phase.shape)}"
        )
    if not (is_finite(phase) or bool(phase.isfinite().all())):
        raise ValueError("phase must be finite")


def _refine(
    packing: Packing,
    target: Tensor,
    spectrum: Tensor,
    n_iter: int,
    momentum: float,
    bands: Bands | None,
) -> Tensor:
    """Iterations of `griffin_lim` on packed clips; overwrites `spectrum`, returns the packed signal.

    `target` are magnitudes (rows, bins), or with `bands` their sums (rows, bands). Nearly all the time is spent
    here, in memory traffic as much as in transforms, hence the reused buffers, and |z| from squares, as torch's
    complex abs() is four times as slow.
    """
    previous = torch.zeros_like(spectrum)
    squares = torch.empty_like(torch.view_as_real(spectrum))
    scale = torch.empty_like(squares[..., 0])
    smallest = torch.finfo(target.dtype).tiny
    on_cpu = target.device.type == "cpu"
    for _ in tuned("griffin-lim", range(n_iter), scale.numel(), enabled=on_cpu):
        consistent = packing.analyse(packing.synthesise(spectrum))
        # c_n + momentum * (c_n - c_{n-1}) up to a factor, which the scale below takes away.
        torch.sub(consistent, previous, alpha=momentum / (1 + momentum), out=spectrum)
        previous = consistent
        parts = torch.view_as_real(spectrum)
        torch.mul(parts, parts, out=squares)
        torch.add(squares[..., 0], squares[..., 1], out=scale)
        if bands is None:
            spectrum.mul_(scale.clamp_(min=smallest).rsqrt_().mul_(target))
        else:
            spectrum.mul_(bands.gain(scale.sqrt_(), target))
    return packing.synthesise(spectrum)


def random_phase(magnitude: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random phase (batch, bins, frames) in radians: one table for all clips, sampled frame by frame.

    So a clip's phase depends neither on the other clips nor on the padding.
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    _, bins, frames = magnitude.shape
    turns: Tensor = torch.rand(frames, bins, generator=generator, device=generator.device)
    return ((2 * turns - 1) * math.pi).T.to(magnitude.device).expand(magnitude.shape)


def grain(phase: Tensor) -> Tensor:
    """Magnitudes of white noise, mean 1, of the shape of a `random_phase` and by its random numbers."""
    # From the other end of the spectrum, so that a cell's magnitude does not depend on its own phase.
    uniform = (phase.flip(1) / (2 * math.pi) + 0.5).clamp(1e-7, 1)
    return (-uniform.log()).sqrt() / (math.sqrt(math.pi) / 2)
