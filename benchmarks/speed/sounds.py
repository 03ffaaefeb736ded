"""Synthetic recordings at 44.1 kHz: hits, of tone and noise that decay."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

RATE = 44_100
LONGEST = 1.0
"""Seconds of the longest hit; the shortest is .4."""


def hits(count: int, channels: int) -> Iterator[npt.NDArray[np.float32]]:
    """`count` hits (samples, channels), always the same ones. Channels share the tone, not the noise."""
    random = np.random.default_rng(0)
    for _ in range(count):
        time = np.arange(int(random.uniform(0.4, LONGEST) * RATE)) / RATE
        tone = np.sin(2 * math.pi * random.uniform(60, 4000) * time)[:, None]
        noise = random.normal(0, 0.3, (len(time), channels))
        decay = np.exp(-time / random.uniform(0.05, 0.3))[:, None]
        yield (0.4 * (tone + noise) * decay).astype(np.float32)


def write_hits(folder: Path, count: int, channels: int) -> None:
    """Write `hits` as 16-bit WAVs to `folder`, in two sub-folders, which are labels."""
    for number, hit in enumerate(hits(count, channels)):
        label = folder / ("low", "high")[number % 2]
        label.mkdir(parents=True, exist_ok=True)
        soundfile.write(label / f"{number:04d}.wav", np.clip(hit, -1, 1), RATE)
