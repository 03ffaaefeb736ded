"""Loudness of a sound after ITU-R BS.1770-4, by torchaudio."""

from __future__ import annotations

import math

import numpy as np
import torch

from audiovq.audio.channels import StereoMixer
from audiovq.audio.waveform import Waveform

BLOCK_SECONDS = 0.4
"""The gating block of ITU-R BS.1770; shorter recordings are padded with silence to it."""
SILENT = -70.0
"""LUFS of silence, the lowest loudness."""


def integrated_loudness(waveform: Waveform, sample_rate: int) -> float:
    """Integrated loudness in LUFS of a waveform (samples,) or (channels, samples), at least SILENT.

    Of six channels (5.1) the fourth, of low frequency effects, is left out, as BS.1770 has it; more are mixed to stereo.
    """
    from torchaudio.functional import loudness  # here, as few commands need it

    waveform = waveform.reshape(-1, waveform.shape[-1])
    if len(waveform) == 6:
        waveform = np.delete(waveform, 3, axis=0)
    elif len(waveform) > 6:  # the algorithm has weights for five channels
        waveform = StereoMixer(len(waveform), None).mix(waveform.T).astype(np.float32)
    channels = torch.from_numpy(waveform)
    missing = max(0, math.ceil(BLOCK_SECONDS * sample_rate) - channels.shape[1])
    padded = torch.nn.functional.pad(channels, (0, missing))
    # torchaudio's filters clip at full scale, which the first of them exceeds by 4 dB, at low rates by more.
    scale = min(1.0, 0.2 / max(float(padded.abs().max()), 1e-9))
    found = float(loudness(padded * scale, sample_rate)) - 20 * math.log10(scale)
    return max(SILENT, found) if math.isfinite(found) else SILENT
