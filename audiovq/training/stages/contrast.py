"""Contrast and sharpness of a decoder, fitted to recordings: after encoding and decoding they are as loud, and bins as
different, as before.

A decoder returns means, which are flatter than recordings, and the inversion of a spectrogram that no waveform has
fills its quiet cells. Both shift all quiet cells by about the same amount, and one number
takes it back. The mean of all decibels is kept, by which speech has the highest PESQ, and a vivid decoder the
lowest Fréchet distances. Above 24 kHz, the autoencoder's own decoder keeps the power over small areas instead: where a sound
fluctuates and its decoder does not, the mean of decibels is below the decibels of the mean power, so that decays would be too quiet,
which lowers ViSQOL.

Up to 24 kHz the differences between neighbouring bins, smoothed by the mean over all sounds of a code, get the energy that
they have in recordings: formants stand out as they did, as by the postfilter of a speech codec (J.-H. Chen and A. Gersho,
"Adaptive postfiltering for quality enhancement of coded speech", 1995). PESQ of the presets rate-… rises, and that of
small stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.batches import evenly_spaced
from audiovq.dataset.dataset import Split
from audiovq.models.autoencoder.autoencoder import detail
from audiovq.models.autoencoder.vivid import VividDecoder
from audiovq.models.model import Model
from audiovq.runtime.progress import progress
from audiovq.spectral.scale import level_db

CLIPS = 32
"""Clips that the contrast is fitted to, evenly spaced in their split;"""
SECONDS = 64.0
"""fewer where they last longer than this, but at least"""
FEWEST = 16
"""of them. With fewer validation clips, training clips make up the number: the contrast of 4 clips deviates by .06 from that of
55, where training clips are off by .02 to .04."""
LOWEST, HIGHEST = 0.95, 1.5
SILENCE = 0.025
"""Decoded loudness up to this is silence, above 24 kHz: nine tenths of the cells that are silent in recordings are decoded as
less. At 0, noise sounds where recordings are silent."""
AREA = 4, 9
"""Bins and frames that power is averaged over."""
DEPTH_DB = 60.0
"""Areas of less power, and cells, relative to a clip's loudest cell, do not count."""
SHARPEST = 1.5
"""Largest sharpness that is fitted."""
STEPS = 6
"""Of the search, at most,"""
TOLERANCE = 0.001
"""which ends where a step is smaller: after three or four, as the mean depends on the contrast nearly in a line."""
BATCH = 8
"""Clips that are inverted at a time, in order of length, as all become as long as the longest."""


@dataclass(frozen=True)
class _Clips:
    """Recorded clips and what a decoder makes of them, a batch of similar lengths."""

    images: Tensor
    """(clips, planes, bins, frames): their spectrograms."""
    values: Tensor
    """The same shape: `Autoencoder.decode_values`."""
    cells: Tensor
    """(clips, 1, 1, frames), 1 inside the clips."""
    levels: Tensor
    """(clips,), as datasets have them."""
    num_samples: Tensor
    """(clips,)"""


def _decoded(
    model: Model, split: Split, decoder: VividDecoder | None, also: Split | None
) -> list[_Clips]:
    """Clips of `split`, with clips of `also` where these are fewer than FEWEST, encoded and decoded."""
    count = min(CLIPS, max(FEWEST, int(SECONDS / _mean_seconds(model, split))))
    chosen = [(split, i) for i in evenly_spaced(len(split), count)[:count].tolist()]
    if also is not None and also is not split and len(split) < FEWEST:
        most = FEWEST - len(split)
        chosen += [(also, i) for i in evenly_spaced(len(also), most)[:most].tolist()]
    chosen.sort(key=lambda one: int(one[0].num_frames[one[1]]))
    return [
        _decoded_batch(model, chosen[first : first + BATCH], decoder)
        for first in range(0, len(chosen), BATCH)
    ]


def _mean_seconds(model: Model, split: Split) -> float:
    """Mean duration of the clips of a split; at least a sample's."""
    return max(1.0, float(split.num_samples.float().mean())) / model.sample_rate


def _decoded_batch(
    model: Model, chosen: list[tuple[Split, int]], decoder: VividDecoder | None
) -> _Clips:
    """Clips, each of its split, encoded and decoded."""
    rows = [split.spectrograms(torch.tensor([i]))[0] for split, i in chosen]
    longest = max(row.shape[2] for row in rows)
    images = torch.stack([nn.functional.pad(row, (0, longest - row.shape[2])) for row in rows])
    frames, levels, num_samples = (
        torch.stack(values)
        for values in zip(
            *((split.num_frames[i], split.levels[i], split.num_samples[i]) for split, i in chosen),
            strict=True,
        )
    )
    images = images.to(model.device)
    codes, columns = model.autoencoder.encode(images, frames), model.autoencoder.num_columns(frames)
    values = model.autoencoder.decode_values(codes, columns, decoder)
    return _Clips(
        images,
        values[..., : images.shape[3]],
        (torch.arange(images.shape[3]) < frames[:, None])[:, None, None].to(images),
        levels.to(model.device),
        num_samples.to(model.device),
    )


@torch.inference_mode()
def fitted_sharpness(model: Model, split: Split, also: Split | None = None) -> float:
    """Sharpness, 1 to SHARPEST, at which the `detail` of decoded clips of `split` has the energy that it has in recordings.

    Cells within DEPTH_DB of a clip's loudest one count. 1 above 24 kHz, where ViSQOL rather falls. Clips as for
    `fitted_contrast`.
    """
    config = model.spectrogram.config
    if config.is_wide:
        return 1.0
    wanted = found = 0.0
    for clips in _decoded(model, split, None, also):
        loud = clips.cells * (clips.images[:, :1] > 1 - DEPTH_DB / config.range_db)
        recorded, decoded = (
            float((detail(one[:, :1]).square() * loud).sum())
            for one in (clips.images, clips.values)
        )
        wanted, found = wanted + recorded, found + decoded
    if found == 0:
        return 1.0
    return round(min(SHARPEST, max(1.0, math.sqrt(wanted / found))), 2)


@torch.inference_mode()
def fitted_contrast(
    model: Model,
    split: Split,
    decoder: VividDecoder | None = None,
    also: Split | None = None,
    *,
    task: str = "",
) -> float:
    """Contrast, LOWEST to HIGHEST, at which clips of `split` have the mean, or power, that they had as recordings.

    The mean is over all cells of the normalized spectrograms of the decoded waveforms; the power, in decibels, over
    areas. `decoder`: None is the autoencoder's own. `also`: clips that are added where `split` has fewer than FEWEST. Found by regula falsi and
    rounded, so that it does not depend on the last bits. `task`: name under which progress is shown.
    """
    batches = _decoded(model, split, decoder, also)
    autoencoder = model.autoencoder
    silence = silence_of(model) if decoder is None else 0.0
    values = [
        autoencoder.sharpen(clips.values) if decoder is None else clips.values for clips in batches
    ]
    by_power = decoder is None and model.spectrogram.config.is_wide
    with progress(task and f"{task}, contrast", (2 + STEPS) * len(batches), "batches") as done:

        def excess(contrast: float) -> float:
            """Mean or power of the cells after a decoder with `contrast`, less that of the recordings."""
            found = 0.0
            for clips, each in zip(batches, values, strict=True):
                decoded = autoencoder.apply_contrast(each, contrast, silence)
                found += _excess(model, clips, decoded, by_power=by_power)
                done(1)
            return found

        return round(_root(excess), 3)


def _root(excess: Callable[[float], float]) -> float:
    """Where a rising or falling function, positive at LOWEST and negative at HIGHEST, is 0: the nearer end where it is not."""
    low, high = LOWEST, HIGHEST
    at_low, at_high = excess(low), excess(high)
    if at_low <= 0 or at_high >= 0:
        return low if at_low <= 0 else high
    root = low
    for _ in range(STEPS):
        before, root = root, low + (high - low) * at_low / (at_low - at_high)
        if abs(root - before) < TOLERANCE:
            break
        found = excess(root)
        if found > 0:
            low, at_low = root, found
        else:
            high, at_high = root, found
    return root


def _excess(model: Model, clips: _Clips, decoded: Tensor, *, by_power: bool) -> float:
    """Sum over the cells of decoded clips, inverted and analysed again, less that of the recordings."""
    waveforms = model.spectrogram.inverse(decoded, clips.levels, clips.num_samples)
    again, levels_again = model.spectrogram(waveforms, clips.num_samples)
    again = nn.functional.pad(again, (0, clips.images.shape[3] - again.shape[3]))
    if not by_power:
        return float(((again - clips.images)[:, :1] * clips.cells).sum())
    config = model.spectrogram.config
    pairs = (again, levels_again), (clips.images, clips.levels)
    found, wanted = (_power_db(one[:, :1], level, clips.cells, config) for one, level in pairs)
    loud = wanted > level_db(clips.levels, config)[:, None, None, None] - DEPTH_DB
    return float(((found - wanted) * loud).sum())


def silence_of(model: Model) -> float:
    """The silence of the autoencoder's own decoder: that of its settings, or SILENCE above 24 kHz, else 0."""
    given = model.autoencoder.config.silence
    return given if given is not None else SILENCE * model.spectrogram.config.is_wide


def _power_db(
    spectrogram: Tensor, levels: Tensor, cells: Tensor, config: SpectrogramConfig
) -> Tensor:
    """Power in dB (batch, 1, areas, times) of spectrograms (batch, 1, bins, frames) with levels (batch,), averaged over AREA."""
    top = level_db(levels.to(spectrogram), config)[:, None, None, None]
    missing = max(0, AREA[1] - spectrogram.shape[3])
    spectrogram, cells = (nn.functional.pad(x, (0, missing)) for x in (spectrogram, cells))
    power = 10 ** ((spectrogram - 1) * (config.range_db / 10)) * (spectrogram > 0) * cells
    shares = nn.functional.avg_pool2d(cells.expand_as(power), AREA).clamp_min(1e-6)
    mean = nn.functional.avg_pool2d(power, AREA) / shares
    return top + 10 * mean.clamp_min(10 ** (-config.range_db / 10)).log10()
