"""Onsets of inverted sounds: inversion spreads them over the time before, and here they are sharpened."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiovq.config.spectrogram import WIDE_ABOVE

STEPS_PER_SECOND = 1000
"""Loudness is measured in steps of a millisecond."""
QUIET_DB = -15.0
"""A step quieter than this, relative to the loudest one in the half window after it, may be before an onset."""
EXPANSION = 4.0
"""A step before an onset, x dB below QUIET_DB, becomes EXPANSION times x dB below it."""


def sharpen_onsets(waveform: Tensor, n_fft: int, sample_rate: int) -> Tensor:
    """Waveforms (batch, samples) with less of the sound before each onset; the same at rates up to WIDE_ABOVE.

    A window that reaches beyond an onset does not tell when within it the sound begins, so that inversion spreads the
    onset over up to half a window before it (pre-echo). Recorded hits rise within a few milliseconds. A step is before
    an onset if the loudest step in the half window after it exceeds it, and each step in the half window before it, by
    -QUIET_DB: so decays count as little as the zeros of a low tone do. The gain of a clip is the same in any batch.
    """
    if sample_rate <= WIDE_ABOVE:  # of speech, sharpening costs intelligibility: ESTOI .002
        return waveform
    step = max(1, sample_rate // STEPS_PER_SECOND)
    reach = max(1, n_fft // 2 // step)
    samples = waveform.shape[1]
    steps = -(-samples // step)
    padded = nn.functional.pad(waveform, (0, steps * step - samples))
    power = padded.view(len(waveform), steps, step).square().mean(dim=2)
    before, after = (
        nn.functional.max_pool1d(nn.functional.pad(power, sides), reach + 1, 1)
        for sides in ((reach, 0), (0, reach))
    )
    quiet = 10 ** (QUIET_DB / 10)
    ratio = before / (quiet * after).clamp_min(torch.finfo(power.dtype).tiny)
    reduction = 1 - ratio.clamp_max(1) ** ((EXPANSION - 1) / 2)  # exactly 0 between zeros
    reduction = nn.functional.interpolate(
        reduction[:, None], scale_factor=float(step), mode="linear"
    )
    return waveform * (1 - reduction[:, 0, :samples])
