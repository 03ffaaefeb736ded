"""Sounds like one that is given, near-duplicates, and a map of a folder, by the features of its index."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from audiovq.audio.waveform import Waveform
from audiovq.library.features import compared
from audiovq.library.index import Index
from audiovq.preprocessing.similar import correlation

Rows = npt.NDArray[np.float32]
DUPLICATE = 0.97
"""Correlation of waveforms from which two recordings are near-duplicates: that of 97 % of drum hits with their MP3s of
128 kbit/s. Other takes of the same drum are rarely above."""
CANDIDATES = 8
"""Most similar recordings that each is compared with."""
CACHED = 256
"""Waveforms in memory."""
MOST_EMBEDDED = 5000
"""Recordings that t-SNE arranges in a minute."""
BLOCK = 1024
"""Sounds that are compared with all at a time."""


class Match(NamedTuple):
    """A recording of the folder."""

    file: str
    """Path below the folder, with forward slashes."""
    similarity: float
    """1: the same sound; 0: as different as two sounds of the folder are on average."""


def nearest(index: Index, vector: Rows, n: int = 10) -> list[Match]:
    """The `n` recordings most similar to a sound with these features (features,), the most similar first."""
    table, query = compared(index.vectors, vector[None])
    similarity = table @ query[0]
    # The same sound, also where it is the mean of all, which is 0 in the table: an only one, or equal ones.
    similarity[(index.vectors == vector).all(axis=1)] = 1
    most = min(n, len(index))
    found = np.argpartition(-similarity, most - 1)[:most]
    found = found[np.argsort(-similarity[found], kind="stable")]
    return [Match(index.names[i], round(float(similarity[i]), 4)) for i in found]


def near_duplicates(
    index: Index, waveform: Callable[[str], Waveform], threshold: float = DUPLICATE
) -> list[list[str]]:
    """Groups of recordings, two or more each, that are copies of each other but for level, silence, format and rate.

    Each is compared with the CANDIDATES most similar ones: by the largest correlation of their waveforms over all
    shifts, which must reach `threshold`. `waveform` reads the beginning (samples,) of a recording by its name.
    """
    table, _ = compared(index.vectors, index.vectors[:0])
    read = functools.lru_cache(CACHED)(waveform)
    above = list(range(len(index)))

    def top(i: int) -> int:
        while above[i] != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    for begin in range(0, len(index), BLOCK):
        similarity = table[begin : begin + BLOCK] @ table.T
        similarity[np.arange(len(similarity)), begin + np.arange(len(similarity))] = -np.inf
        most = min(CANDIDATES, len(index) - 1)
        nearest_ones = np.argsort(-similarity, axis=1)[:, :most]
        for row, others in enumerate(nearest_ones, begin):
            for other in others.tolist():
                first, second = sorted((top(row), top(other)))
                if first != second and (
                    correlation(read(index.names[row]), read(index.names[other])) >= threshold
                ):
                    above[second] = first
    groups: dict[int, list[str]] = {}
    for i, name in enumerate(index.names):
        groups.setdefault(top(i), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def positions(index: Index) -> npt.NDArray[np.float64]:
    """Positions (recordings, 2) in [0, 1], similar recordings close together.

    By t-SNE (van der Maaten and Hinton 2008) of up to MOST_EMBEDDED recordings, else by the first two principal
    components.
    """
    table, _ = compared(index.vectors, index.vectors[:0])
    centred = table - table.mean(axis=0)
    if len(index) < 4:
        found = np.stack([np.arange(len(index)), np.zeros(len(index))], 1).astype(np.float64)
    else:
        _, _, axes = np.linalg.svd(centred[:MOST_EMBEDDED], full_matrices=False)
        found = (centred @ axes[:2].T).astype(np.float64)
        if len(index) <= MOST_EMBEDDED:
            from sklearn.manifold import TSNE

            perplexity = min(30.0, (len(index) - 1) / 3)
            start = found / max(1e-9, float(found.std())) * 1e-4
            found = TSNE(init=start, perplexity=perplexity, random_state=0).fit_transform(centred)
    low, high = found.min(axis=0), found.max(axis=0)
    scaled: npt.NDArray[np.float64] = (found - low) / np.maximum(high - low, 1e-9)
    return scaled


def kind_of(name: str) -> str:
    """The folder of a recording; of one in no folder, the letters that its name begins with."""
    path = Path(name)
    if path.parent.parts:
        return path.parent.parts[0]
    letters = path.stem.lstrip("0123456789_- ")
    end = next((i for i, c in enumerate(letters) if not c.isalpha()), len(letters))
    return letters[:end].lower()
