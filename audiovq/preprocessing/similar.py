"""Near copies among recordings: one sound at several levels, rates or formats, or behind silence of other lengths.

Candidates are found by sketches of their spectra, and confirmed by the correlation of their waveforms, of which few
have to be read again. Only the first second from the onset is compared, of waveforms half of it. Of each group that is
found, one recording is compared again, until none are joined.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiovq.audio.reading import info
from audiovq.audio.resampling import resample
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.preprocessing.character import beginning

WINDOW_SECONDS = 0.04
"""Length of the windows of a sketch, which overlap by a half."""
LOWEST_HZ, HIGHEST_HZ, BANDS = 60.0, 5000.0, 24
"""Bands of a sketch, the same at every rate: each as much higher than the one before."""
EDGES_HZ = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1)
PASSED = 0.91
"""Share of half a sample rate up to which resampling to it leaves a sound as it is. Only bands below are compared."""
TIMES, PER_TIME = 24, 2
"""Times of a sketch, and windows that are averaged for each."""
RANGE_DB = 50.0
CANDIDATES = 4
"""Recordings with the most similar sketches that each is compared with,"""
SIMILAR = 0.97
"""if their similarity is at least this,"""
SIMILAR_HEADS = 0.99
"""or that of their first time,"""
NEAR = 0.02
"""or their values differ by this root mean square at most: among copies of one sound, similarity is that of noise."""
FEW = 24
"""Up to this number of recordings, each is compared with all others: their sketches have no typical mean."""
CACHED = 64
"""Recordings kept in memory for comparison."""
COPY_SECONDS = 0.5
"""Duration from the onset of which the correlation is taken."""
COPY = 0.97
"""Correlation from which two recordings are copies: see "Features of find" in docs/experiments.md."""
MOST = 50_000
"""Of more recordings, none are compared: it would take hours."""
PER_TASK = 64
SHIFTS = np.arange(-8, 9) / 8
"""Shifts in samples around the best whole one: recordings begin at whole samples of their rates."""
TAPS = 16
"""Samples on both sides that a correlation is interpolated from, by a sinc in a Hann window."""
NEARBY = np.arange(-1 - TAPS, 2 + TAPS)
_DISTANCES = SHIFTS[:, None] - NEARBY
INTERPOLATION = np.sinc(_DISTANCES) * np.cos(np.pi / 2 * np.clip(_DISTANCES / TAPS, -1, 1)) ** 2
BETWEEN = 0.6
"""Share of COPY that a correlation must have at a whole sample, to be interpolated: in between it may be as much as
π / 2 times as high."""
BLOCK = 1024
"""Sketches that are compared with all at a time."""
Sketch = npt.NDArray[np.float32]
Pair = tuple[str, str]
"""Two recordings, in order."""


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
    tried: set[Pair] = set()
    copies: list[Pair] = []
    groups: dict[str, str] = {}
    compared = sorted(known)
    while True:
        pairs = sorted(_candidates({name: known[name] for name in compared}) - tried)
        tried.update(pairs)
        tasks_of_pairs = [pairs[i : i + PER_TASK] for i in range(0, len(pairs), PER_TASK)]
        folders = [folder] * len(tasks_of_pairs)
        are_copies = itertools.chain.from_iterable(executor.map(_confirm, folders, tasks_of_pairs))
        found = [pair for pair, is_copy in zip(pairs, are_copies, strict=True) if is_copy]
        if not found:
            return groups
        copies += found
        groups = _groups(copies)
        compared = sorted(set(groups.values()))


def sketch(waveform: Waveform, sample_rate: int) -> Sketch:
    """Power (TIMES, BANDS) of a waveform (samples,) from its beginning on, in decibels below the largest."""
    # Means of neighbouring samples are enough for frequencies below HIGHEST_HZ.
    joined = max(1, sample_rate // (4 * round(HIGHEST_HZ)))
    waveform = waveform[: len(waveform) // joined * joined].reshape(-1, joined).mean(axis=1)
    n_fft = 2 * max(8, round(WINDOW_SECONDS * sample_rate / joined / 2))
    sample_rate = round(sample_rate / joined)
    frames = TIMES * PER_TIME
    wanted = (frames + 1) * (n_fft // 2)
    padded = np.pad(waveform[:wanted], (0, max(0, wanted - len(waveform)))).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 2][:frames]
    # Windows after the end of a short sound are zeros.
    audible = windows[: min(frames, 1 + len(waveform) // (n_fft // 2))]
    spectra = np.fft.rfft(audible * np.hanning(n_fft + 1)[:-1].astype(np.float32))
    summed = np.zeros((frames, n_fft // 2 + 3), np.float32)
    power = np.square(spectra.real) + np.square(spectra.imag)
    np.cumsum(power, axis=1, out=summed[: len(power), 1:-1])
    summed[:, -1] = summed[:, -2]
    # The edges of bands lie between bins: the sums are interpolated.
    edges = EDGES_HZ * n_fft / sample_rate + 0.5
    edges = np.minimum(edges, n_fft // 2 + 1)
    low = edges.astype(int)
    below = summed[:, low]
    bands = np.diff(below + (summed[:, low + 1] - below) * (edges - low), axis=1)
    bands = bands.reshape(TIMES, PER_TIME, BANDS).mean(axis=1)
    found: Sketch = 10 * np.log10(np.maximum(bands / max(float(bands.max()), 1e-30), 1e-12))
    return found.astype(np.float32)


def scaled(sketches: Sketch) -> Sketch:
    """Sketches (recordings, TIMES, bands) from 0 to 1: RANGE_DB below the largest value of each to that value."""
    below = sketches - sketches.max(axis=(1, 2), keepdims=True)
    found: Sketch = np.maximum(0, 1 + below / RANGE_DB)
    return found


def correlation(first: Waveform, second: Waveform) -> float:
    """The largest correlation of two waveforms (samples,) over all shifts in time, from 0 to 1."""
    energy = float(np.square(first, dtype=np.float64).sum()) * float(
        np.square(second, dtype=np.float64).sum()
    )
    n_fft = 1 << (len(first) + len(second) - 1).bit_length()
    spectrum = np.fft.rfft(first, n_fft) * np.conj(np.fft.rfft(second, n_fft))
    return float(np.abs(np.fft.irfft(spectrum, n_fft)).max() / max(energy, 1e-30) ** 0.5)


def _sketches(source: str, names: Sequence[str]) -> list[Sketch | None]:
    """The sketch of each recording, (TIMES, bands) with those bands that its rate has; None if it is silent or cannot be
    read."""
    found = (_beginning(os.path.join(source, name)) for name in names)
    return [None if sound is None else sketch(*sound)[:, : _bands_at(sound[1])] for sound in found]


def _bands_at(sample_rate: int) -> int:
    """Number of bands that a sample rate has."""
    return int(np.searchsorted(EDGES_HZ[1:], PASSED * sample_rate / 2, side="right"))


def _confirm(source: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the recordings of each pair are copies of each other."""
    read = functools.lru_cache(CACHED)(_beginning)

    @functools.lru_cache(CACHED)
    def spectrum(name: str, rate: int) -> npt.NDArray[np.complex64]:
        """Of a recording at a rate, with the energy 1, zeros as long as the longest one after it."""
        waveform, from_rate = read(os.path.join(source, name)) or (np.zeros(1, np.float32), rate)
        waveform = resample(waveform[: round(COPY_SECONDS * from_rate)], from_rate, rate)
        norm = np.float32(max(float(np.linalg.norm(waveform)), 1e-15))
        return np.fft.rfft(waveform / norm, round(2 * COPY_SECONDS * rate)).astype(np.complex64)

    confirmed = []
    for pair in pairs:
        sounds = [read(os.path.join(source, name)) for name in pair]
        rate = min((sound[1] for sound in sounds if sound), default=1)
        first, second = (spectrum(name, rate) for name in pair)
        largest = _largest_correlation(first * second.conj(), round(2 * COPY_SECONDS * rate))
        confirmed.append(largest >= COPY)
    return confirmed


def _largest_correlation(spectrum: npt.NDArray[np.complexfloating], n_fft: int) -> float:
    """The largest absolute value of the correlation with this spectrum (bins,), over all shifts, by parts of a sample,
    too."""
    correlation = np.fft.irfft(spectrum, n_fft)
    largest = float(np.abs(correlation).max())
    if BETWEEN * COPY <= largest < COPY:
        # Of a high tone, a whole sample far from the best shift may be the best one; the envelope does not oscillate.
        best = int(np.abs(np.fft.ifft(spectrum, n_fft)).argmax())
        nearby = np.take(correlation, best + NEARBY, mode="wrap")
        largest = max(largest, float(np.abs(INTERPOLATION @ nearby).max()))
    return largest


def _beginning(path: str) -> tuple[Waveform, int] | None:
    """`character.beginning` at the recording's own rate, which it returns, too."""
    try:
        rate = info(path).sample_rate
    except AudioError:
        return None
    waveform = beginning(Path(path), rate)
    return None if waveform is None else (waveform, rate)


def _candidates(sketches: Mapping[str, Sketch]) -> set[Pair]:
    """Pairs of recordings with similar sketches, in the bands that both have; of FEW, all pairs."""
    if len(sketches) <= FEW:
        return set(itertools.combinations(sketches, 2))
    pairs: set[Pair] = set()
    for bands in {one.shape[1] for one in sketches.values()}:
        names = [name for name, one in sketches.items() if one.shape[1] >= bands]
        rows = [row for row, name in enumerate(names) if sketches[name].shape[1] == bands]
        table = scaled(np.array([sketches[name][:, :bands] for name in names]))
        # The first time finds hits that are cut off.
        for part, least in ((table.reshape(len(table), -1), SIMILAR), (table[:, 0], SIMILAR_HEADS)):
            pairs |= {(names[first], names[second]) for first, second in _close(part, rows, least)}
    return pairs


def _close(table: Sketch, rows: Sequence[int], least: float) -> set[tuple[int, int]]:
    """Each of the `rows` of a table (recordings, values) with the nearest others, in order, where their similarity is at
    least `least`."""
    centred = table - table.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    most = min(CANDIDATES, len(table) - 1)
    seen: set[tuple[int, int]] = set()
    for begin in range(0, len(rows) if most else 0, BLOCK):
        block = rows[begin : begin + BLOCK]
        similarity = unit[block] @ unit.T
        similarity[np.arange(len(block)), block] = -np.inf
        nearest = np.argpartition(-similarity, most - 1, axis=1)[:, :most]
        for row, others, values in zip(block, nearest, similarity, strict=True):
            differences = np.square(table[others] - table[row]).mean(axis=1)
            close = others[(values[others] >= least) | (differences <= NEAR**2)]
            seen |= {(min(row, other), max(row, other)) for other in close.tolist()}
    return seen


def _groups(pairs: Iterable[Pair]) -> dict[str, str]:
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
