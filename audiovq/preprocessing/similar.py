"""Near copies among recordings: one sound at several levels, rates or formats, or behind silence of other lengths.

Candidates are found by sketches of their spectra, and confirmed by the correlation of their waveforms. Only the first
second from the onset is compared.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiovq.audio.waveform import Waveform
from audiovq.preprocessing.character import beginning

RATE = 8000
"""Hz at which recordings are compared."""
N_FFT, HOP_LENGTH, BANDS = 512, 128, 24
RANGE_DB = 60.0
CANDIDATES = 4
"""Recordings with the most similar sketches that each is compared with."""
COPY = 0.97
"""Correlation from which two recordings are copies: see "Features of find" in docs/experiments.md."""
MOST = 50_000
"""Of more recordings, none are compared: it would take hours."""
PER_TASK = 64
BLOCK = 1024
"""Sketches that are compared with all at a time."""
Sketch = npt.NDArray[np.float32]


def near_copies(source: Path, names: Sequence[str], executor: Executor) -> dict[str, str]:
    """For each recording that is a near copy of another, the first name of its group, by its name.

    `names` are paths below `source`. Recordings that are silent or cannot be read are copies of none.
    """
    if not 2 <= len(names) <= MOST:
        return {}
    folder = str(source.absolute())  # another machine has another working folder
    tasks = [list(names[i : i + PER_TASK]) for i in range(0, len(names), PER_TASK)]
    sketches = itertools.chain.from_iterable(executor.map(_sketches, [folder] * len(tasks), tasks))
    known = {name: one for name, one in zip(names, sketches, strict=True) if one is not None}
    pairs = list(_candidates(known))
    tasks_of_pairs = [pairs[i : i + PER_TASK] for i in range(0, len(pairs), PER_TASK)]
    folders = [folder] * len(tasks_of_pairs)
    are_copies = itertools.chain.from_iterable(executor.map(_confirm, folders, tasks_of_pairs))
    return _groups(pair for pair, copies in zip(pairs, are_copies, strict=True) if copies)


def sketch(waveform: Waveform) -> Sketch:
    """Mean and deviation over time, weighted by loudness, of BANDS bands of a waveform (samples,) at RATE."""
    padded = np.pad(waveform, (N_FFT // 2, N_FFT // 2 + HOP_LENGTH))
    windows = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_LENGTH]
    taper = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(windows * taper)))
    edges = np.unique(np.geomspace(2, N_FFT // 2 + 1, BANDS + 1).round().astype(int))
    bands = np.add.reduceat(power, edges[:-1], axis=1) / np.diff(edges)
    decibels = 10 * np.log10(np.maximum(bands / max(float(bands.max()), 1e-30), 1e-12))
    cells = np.maximum(0, 1 + decibels / RANGE_DB)
    shares = cells.mean(axis=1, keepdims=True) / max(float(cells.mean(axis=1).sum()), 1e-9)
    mean = (cells * shares).sum(axis=0)
    deviation = np.sqrt((np.square(cells - mean) * shares).sum(axis=0))
    return np.concatenate([mean, deviation]).astype(np.float32)


def correlation(first: Waveform, second: Waveform) -> float:
    """The largest correlation of two waveforms (samples,) over all shifts in time, from 0 to 1."""
    energy = float(np.square(first, dtype=np.float64).sum()) * float(
        np.square(second, dtype=np.float64).sum()
    )
    n_fft = 1 << (len(first) + len(second) - 1).bit_length()
    spectrum = np.fft.rfft(first, n_fft) * np.conj(np.fft.rfft(second, n_fft))
    return float(np.abs(np.fft.irfft(spectrum, n_fft)).max() / max(energy, 1e-30) ** 0.5)


def _sketches(source: str, names: Sequence[str]) -> list[Sketch | None]:
    """The sketch of each recording; None if it is silent or cannot be read."""
    found = (beginning(Path(os.path.join(source, name)), RATE) for name in names)
    return [None if waveform is None else sketch(waveform) for waveform in found]


def _confirm(source: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the recordings of each pair are copies of each other."""
    confirmed = []
    for pair in pairs:
        first, second = (beginning(Path(os.path.join(source, name)), RATE) for name in pair)
        if first is None or second is None:
            confirmed.append(False)
        else:
            confirmed.append(correlation(first, second) >= COPY)
    return confirmed


def _candidates(sketches: Mapping[str, Sketch]) -> Iterator[tuple[str, str]]:
    """Pairs of recordings with similar sketches, each once."""
    names, table = list(sketches), np.array(list(sketches.values()))
    if len(names) < 2:
        return
    scaled = (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-6)
    unit = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
    seen: set[tuple[int, int]] = set()
    for begin in range(0, len(names), BLOCK):
        similarity = unit[begin : begin + BLOCK] @ unit.T
        similarity[np.arange(len(similarity)), begin + np.arange(len(similarity))] = -np.inf
        most = min(CANDIDATES, len(names) - 1)
        for row, others in enumerate(
            np.argpartition(-similarity, most - 1, axis=1)[:, :most], begin
        ):
            seen |= {(min(row, other), max(row, other)) for other in others.tolist()}
    yield from ((names[first], names[second]) for first, second in sorted(seen))


def _groups(pairs: Iterator[tuple[str, str]]) -> dict[str, str]:
    """The first name of its group for each name in the pairs."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            name = above[name]
        return name

    for pair in pairs:
        first, second = sorted(map(top, pair))
        above[second] = first
    return {name: top(name) for name in above}
