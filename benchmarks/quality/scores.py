"""Scores of reconstructed speech against its originals, as for speech codecs: PESQ, STOI, ESTOI, LSD.

The clips of one speaker are joined with short pauses, because PESQ and STOI need more than one word.
Everything that is compared must be joined in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiovq.audio.waveform import Waveform
from audiovq.config.errors import AudiovqError
from audiovq.evaluation.fidelity import PAUSE_SECONDS, log_spectral_distance, stretch_scores

RATE = 8000
"""Sample rate in Hz of all scored waveforms."""
PAUSE = int(PAUSE_SECONDS * RATE)
"""Samples of silence between clips."""


@dataclass(frozen=True)
class Scores:
    """Mean scores of clips."""

    pesq: float
    """ITU-T P.862, narrow band, mapped by P.862.1: 1 to 4.55 (identical)."""
    stoi: float
    """Taal et al. 2011: at most 1."""
    estoi: float
    """Extended STOI, Jensen and Taal 2016: at most 1."""
    lsd_db: float
    """Log-spectral distance in dB: window 256, hop 64, floor 80 dB below the clip's peak."""

    @classmethod
    def mean(cls, scores: Sequence[Scores]) -> Scores:
        """The mean of each measure, rounded to four decimals."""
        rows = np.array([dataclasses.astuple(s) for s in scores])
        return cls(*rows.mean(axis=0).round(4).tolist())


def join(clips: Sequence[Waveform]) -> Waveform:
    """Join clips (samples,) of any lengths into one (samples,), with PAUSE zeros between them."""
    pause = np.zeros(PAUSE, np.float32)
    return np.concatenate([part for clip in clips for part in (clip, pause)][:-1])


def cut(joined: Waveform, lengths: Sequence[int]) -> list[Waveform]:
    """The inverse of `join`: cut (samples,) into clips of `lengths` samples, without the pauses."""
    begins = np.cumsum([0, *(length + PAUSE for length in lengths[:-1])])
    return [joined[b : b + n] for b, n in zip(begins, lengths, strict=True)]


def score(
    originals: Sequence[Waveform], others: Sequence[Waveform], speakers: Sequence[str]
) -> Scores:
    """Score clips (samples,) at RATE against originals of equal lengths, spoken by `speakers`.

    PESQ, STOI and ESTOI are computed on each speaker's joined clips, the log-spectral distance on each
    clip; then the speakers' means are averaged. Raises AudiovqError if pesq or pystoi is missing, or the
    joined clips are too short or silent.
    """
    scores = []
    for speaker in sorted(set(speakers)):
        indices = [i for i, s in enumerate(speakers) if s == speaker]
        a, b = ([side[i] for i in indices] for side in (originals, others))
        distances = [log_spectral_distance(*pair, 256, 64) for pair in zip(a, b, strict=True)]
        speech = stretch_scores(join(a), join(b), RATE)
        if len(speech) < 3:
            raise AudiovqError(
                f"speaker {speaker or 'unknown'}: not scored; install audiovq[eval], and check that the"
                " sound is neither silent nor shorter than a second"
            )
        scores.append(Scores(**speech, lsd_db=float(np.mean(distances))))
    return Scores.mean(scores)
