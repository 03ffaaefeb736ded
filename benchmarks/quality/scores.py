"""How near reconstructed speech comes to its originals, scored as speech codecs are.

Clips of one speaker are joined with short pauses, because PESQ and STOI need more than a word; so
everything that is compared must be joined in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pesq import pesq
from pystoi import stoi

from audiovq.audio.waveform import Waveform
from audiovq.evaluation.fidelity import log_spectral_distance

RATE = 8000
"""Hz of all that is scored."""
PAUSE = RATE // 10
"""Samples of silence between clips."""


@dataclass(frozen=True)
class Scores:
    """What `score` finds."""

    pesq: float
    """ITU-T P.862, narrow band, mapped by P.862.1: 1 to 4.55, the same again."""
    stoi: float
    """Taal et al. 2011: up to 1."""
    estoi: float
    """Extended STOI, Jensen and Taal 2016: up to 1."""
    lsd_db: float
    """Log-spectral distance in dB: window 256, hop 64, floor 80 dB below the clip's peak."""

    @classmethod
    def mean(cls, scores: Sequence[Scores]) -> Scores:
        """Each measure's own mean, to four decimals."""
        rows = np.array([dataclasses.astuple(s) for s in scores])
        return cls(*rows.mean(axis=0).round(4).tolist())


def join(clips: Sequence[Waveform]) -> Waveform:
    """Clips (samples,), each of any length → one (samples,), PAUSE zeros between any two."""
    pause = np.zeros(PAUSE, np.float32)
    return np.concatenate([part for clip in clips for part in (clip, pause)][:-1])


def cut(joined: Waveform, lengths: Sequence[int]) -> list[Waveform]:
    """The inverse of `join`: one (samples,) → clips of `lengths` samples; the pauses are dropped."""
    begins = np.cumsum([0, *(length + PAUSE for length in lengths[:-1])])
    return [joined[b : b + n] for b, n in zip(begins, lengths, strict=True)]


def score(
    originals: Sequence[Waveform], others: Sequence[Waveform], speakers: Sequence[str]
) -> Scores:
    """Clips (samples,) at RATE, others as long as their originals, and who speaks → one score.

    PESQ and both STOI are taken of each speaker's joined clips, the distance of each clip; then the
    speakers' means are averaged.
    """
    scores = []
    for speaker in sorted(set(speakers)):
        places = [i for i, s in enumerate(speakers) if s == speaker]
        a, b = ([side[i] for i in places] for side in (originals, others))
        distances = [log_spectral_distance(*pair, 256, 64) for pair in zip(a, b, strict=True)]
        joined = join(a), join(b)
        scores.append(
            Scores(
                pesq=float(pesq(RATE, *joined, "nb")),
                stoi=float(stoi(*joined, RATE)),
                estoi=float(stoi(*joined, RATE, extended=True)),
                lsd_db=float(np.mean(distances)),
            )
        )
    return Scores.mean(scores)
