"""Encode recordings by path: files that cannot be read are left out, and a bit rate can be met."""

from __future__ import annotations

import contextlib
import functools
import math
import random
from collections.abc import Mapping
from pathlib import Path

from audiovq.audio import reading
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.codec import archive, codec
from audiovq.codec.probabilities import Coder
from audiovq.codec.windows import Encoded, Limits, encode_blocks
from audiovq.config.errors import AudiovqError
from audiovq.models.entropy.rate_search import LARGEST_WEIGHT
from audiovq.models.model import Model
from audiovq.runtime.progress import Say, progress

FILES = 64
"""Recordings that are in memory at a time, besides long ones."""
RATE_FRAMES = 1 << 16
"""Frames of all excerpts on which the weight of bits is first chosen for a rate."""


def encode_within_rate(
    model: Model,
    recordings: Mapping[str, Path],
    rate: float,
    coder: Coder | None,
    say: Say,
    limits: Limits = Limits(),
) -> tuple[dict[str, Encoded], bytes]:
    """Encode recordings by name to an archive of at most `rate` bit/s. Returns the codes and the archive.

    The weight of bits is chosen on excerpts. If all recordings take more than the excerpts, it is chosen
    again for a lower rate, until the archive fits. Raises AudiovqError with the lowest possible rate if
    that is above `rate`.
    """
    excerpts = _excerpts(model, recordings, limits)
    aim = rate
    weight = archive.weight_within(model, excerpts, rate, coder) if excerpts else 0.0
    while True:
        sounds = encode_recordings(model, recordings, say, weight, limits)
        data = archive.pack(model, sounds, coder)
        reached = archive.rates(model, sounds, data)["stored_bits_per_second"]
        if reached <= rate:
            return sounds, data
        if weight >= LARGEST_WEIGHT:
            raise AudiovqError(
                f"rate {rate:g}: these recordings take at least {math.ceil(reached)} bit/s with this"
                " model; give a higher rate, or train a model with a smaller codebook"
            )
        recordings = {name: recordings[name] for name in sounds}  # report unreadable files once
        aim *= rate / reached
        higher = archive.weight_within(model, excerpts, aim, coder)
        weight = min(LARGEST_WEIGHT, max(higher, 1.1 * weight, 0.01))


def encode_recordings(
    model: Model,
    recordings: Mapping[str, Path],
    say: Say,
    rate_weight: float | None = None,
    limits: Limits = Limits(),
) -> dict[str, Encoded]:
    """Encode recordings by name. Files that cannot be read are named with the reason and left out.

    For `rate_weight` see `codec.encode`. Raises AudiovqError if no file can be read.
    """
    sounds: dict[str, Encoded] = {}
    names, reason = list(recordings), ""
    with progress("encode", len(names), "files") as step:
        for begin in range(0, len(names), FILES):
            waveforms: dict[str, Waveform] = {}
            for name in names[begin : begin + FILES]:
                path = recordings[name]
                try:
                    if _is_long(model, path, limits):
                        sounds[name] = _encode_long(model, path, rate_weight, limits)
                    else:
                        waveform = reading.read(path, model.sample_rate, channels=model.channels)[0]
                        if not waveform.size:
                            rate = model.sample_rate
                            raise AudioError(f"is shorter than one sample at {rate} Hz")
                        waveforms[name] = waveform
                except AudioError as error:
                    reason = f"{path}: {error}"
                    if len(names) > 1:
                        say(f"left out: {reason}")
                step(1)
            encoded = codec.encode(
                model, list(waveforms.values()), rate_weight=rate_weight, limits=limits
            )
            sounds |= zip(waveforms, encoded, strict=True)
    if not sounds:
        raise AudiovqError(reason)
    return {name: sounds[name] for name in names if name in sounds}


def _is_long(model: Model, path: Path, limits: Limits) -> bool:
    """Whether a recording should not be in memory as a whole."""
    samples = reading.info(path).seconds * model.sample_rate
    return samples > limits.batch_frames * model.spectrogram.config.hop_length


def _encode_long(model: Model, path: Path, rate_weight: float | None, limits: Limits) -> Encoded:
    """Encode a recording block by block."""
    blocks = functools.partial(
        reading.blocks,
        path,
        model.sample_rate,
        block_samples=limits.block_samples,
        channels=model.channels,
    )
    return encode_blocks(model, blocks, rate_weight=rate_weight, limits=limits)


def _excerpts(model: Model, recordings: Mapping[str, Path], limits: Limits) -> list[Waveform]:
    """The beginnings of up to `limits.rate_files` recordings, sampled at random, as order may mean kind."""
    paths = list(recordings.values())
    most = min(limits.rate_files, len(paths))
    longest = RATE_FRAMES // most * model.spectrogram.config.hop_length
    waveforms: list[Waveform] = []
    for path in paths if most == len(paths) else random.Random(0).sample(paths, len(paths)):
        with contextlib.suppress(AudioError):  # `encode_recordings` reports it
            blocks = reading.blocks(path, model.sample_rate, channels=model.channels)
            first = next(blocks)[..., :longest]
            waveforms += [first] if first.size else []
        if len(waveforms) == most:
            break
    return waveforms
