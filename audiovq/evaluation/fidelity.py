"""Fidelity of waveforms to their originals: distances of spectra; PESQ, STOI and ESTOI up to 16 kHz, where sounds
may be speech; above, distances of bands and errors of attack and loudness.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from audiovq.audio.resampling import resample
from audiovq.audio.waveform import Waveform
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.evaluation.envelopes import attack_ms
from audiovq.spectral.scale import mel_bands
from audiovq.spectral.stft import stft

PAUSE_SECONDS = 0.1
"""Silence between clips that are scored together: PESQ and STOI need more than one word."""
GROUP_SECONDS = 20.0
"""Duration of the groups of clips that are scored together."""
INAUDIBLE = 1e-6
"""Peak, 120 dB below full scale, up to which a waveform counts as silent."""
FLOOR = 1e-4
"""Lowest magnitude in log distances, relative to the original's maximum: 80 dB below it."""
SPEECH_RATE = 16_000
"""Highest sample rate in Hz whose sounds are scored as speech."""
BANDS_HZ = {"low": (0.0, 1_000.0), "middle": (1_000.0, 6_000.0), "high": (6_000.0, np.inf)}
"""Bands whose log-spectral distances are measured above SPEECH_RATE."""
MOST_ATTACK_MS = 50.0
"""Errors of attacks are clamped to this: slow sounds have no clear attack."""
MEL_WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
"""Samples, at any rate; 5 mel bands for the shortest, and twice as many for each longer one."""


def waveform_scores(
    originals: Sequence[Waveform], others: Sequence[Waveform], config: SpectrogramConfig
) -> dict[str, float]:
    """All measures of waveforms at `config`'s rate against their originals, means over clips.

    Keys are log_spectral_distance_db, mel_distance_db and spectral_convergence; up to SPEECH_RATE those of
    `speech_scores`, above it those of `sound_scores`. Silent originals are skipped; empty if all are silent.
    """
    scores = WaveformScores(config)
    for original, other in zip(originals, others, strict=True):
        scores.add(original, other)
    return scores.means()


class WaveformScores:
    """Incremental `waveform_scores`; holds about GROUP_SECONDS of sound in memory."""

    def __init__(self, config: SpectrogramConfig) -> None:
        self._config = config
        self._speech = (
            _SpeechScores(config.sample_rate) if config.sample_rate <= SPEECH_RATE else None
        )
        self._measures: dict[str, list[float]] = {}

    def add(self, original: Waveform, other: Waveform) -> None:
        """Add a pair of equal length, (samples,), or (2, samples), whose sides count as a pair each."""
        if original.ndim == 2:
            for side, other_side in zip(original, other, strict=True):
                self.add(side, other_side)
            return
        if np.abs(original).max(initial=0) <= INAUDIBLE:
            return
        grid = self._config.n_fft, self._config.hop_length
        for name, value in {
            "log_spectral_distance_db": log_spectral_distance(original, other, *grid),
            "mel_distance_db": mel_distance(original, other, self._config.sample_rate),
            "spectral_convergence": spectral_convergence(original, other, *grid),
        }.items():
            self._measures.setdefault(name, []).append(value)
        if self._speech is not None:
            self._speech.add(original, other)
            return
        for name, value in sound_scores(original, other, self._config).items():
            self._measures.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """Mean scores of all pairs; call it once, after the last pair."""
        measures = {name: float(np.mean(values)) for name, values in self._measures.items()}
        return measures if self._speech is None else self._speech.means() | measures


def sound_scores(
    original: Waveform, other: Waveform, config: SpectrogramConfig
) -> dict[str, float]:
    """Scores of one pair of waveforms (samples,), at any rate, for sounds that are not speech.

    Keys: low_distance_db, middle_distance_db and high_distance_db, as `log_spectral_distance`, of the bins
    in BANDS_HZ; attack_error_ms, the difference of `attack_ms`, at most MOST_ATTACK_MS;
    loudness_error_db, the difference of the root mean squares of the waveforms. A score that
    the pair is too short or too silent for is left out.
    """
    a, b = _decibels(*_magnitudes(original, other, config.n_fft, config.hop_length))
    squares = (a - b).square()
    hertz = torch.linspace(0, config.sample_rate / 2, len(squares))
    scores = {}
    for name, (low, high) in BANDS_HZ.items():
        rows = squares[(hertz >= low) & (hertz < high)]
        if len(rows):
            scores[f"{name}_distance_db"] = float(rows.mean(dim=0).sqrt().mean())
    attacks = [attack_ms(waveform, config.sample_rate) for waveform in (original, other)]
    if attacks[0] is not None and attacks[1] is not None:
        scores["attack_error_ms"] = min(MOST_ATTACK_MS, abs(attacks[0] - attacks[1]))
    powers = [float(np.square(waveform, dtype=np.float64).mean()) for waveform in (original, other)]
    if min(powers) > INAUDIBLE**2:
        scores["loudness_error_db"] = abs(float(10 * np.log10(powers[0] / powers[1])))
    return scores


def log_spectral_distance(
    waveform: Waveform, other: Waveform, n_fft: int, hop_length: int
) -> float:
    """dB: root mean square over bins, mean over frames, of log power, floor 80 dB below the peak.

    For clips of any length; if `waveform` is silent, the floor is relative to the peak of `other`.
    """
    a, b = _decibels(*_magnitudes(waveform, other, n_fft, hop_length))
    return float((a - b).square().mean(dim=0).sqrt().mean())


def mel_distance(waveform: Waveform, other: Waveform, sample_rate: int) -> float:
    """dB: mean absolute difference of log mel magnitudes, averaged over MEL_WINDOWS.

    Windows, hops of a quarter and numbers of bands are those of the multi-scale mel loss of Kumar
    et al. 2023 (Descript Audio Codec, section 3.5), which is also their mel distance. They sum log10
    over the windows, above a floor of 1e-5; here it is the mean in dB, above a floor 80 dB below the
    original's peak, so that the result depends on neither loudness nor inaudible parts. Bands too narrow
    to cover a bin are omitted. For clips of any length, silent ones included.
    """
    distances = []
    for n_fft in MEL_WINDOWS:
        bands = _mel_bands(sample_rate, n_fft)
        a, b = (bands @ m for m in _magnitudes(waveform, other, n_fft, n_fft // 4))
        a, b = _decibels(a, b)
        distances.append(float((a - b).abs().mean()))
    return float(np.mean(distances))


def spectral_convergence(waveform: Waveform, other: Waveform, n_fft: int, hop_length: int) -> float:
    """Frobenius norm of the error of the magnitudes, relative to that of the original; 0 is exact.

    Of waveforms (samples,), or (2, samples), both sides together. Sturmel and Daudet 2011; Arık, Jun and Diamos 2019.
    The original must not be silent.
    """
    a, b = (
        stft(torch.from_numpy(np.atleast_2d(w)), n_fft, hop_length).abs() for w in (waveform, other)
    )
    return float((a - b).norm() / a.norm())


def _magnitudes(
    waveform: Waveform, other: Waveform, n_fft: int, hop_length: int
) -> tuple[Tensor, Tensor]:
    """Magnitudes (bins, frames) of both."""
    a, b = (stft(torch.from_numpy(w)[None], n_fft, hop_length)[0].abs() for w in (waveform, other))
    return a, b


def _decibels(original: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitudes in dB, clamped at the floor."""
    floor = max(FLOOR * (float(original.max()) or float(other.max())), 1e-30)
    a, b = (20 * m.clamp_min(floor).log10() for m in (original, other))
    return a, b


@functools.cache
def _mel_bands(sample_rate: int, n_fft: int) -> Tensor:
    """(bands, n_fft / 2 + 1), rows summing to one."""
    bands = mel_bands(sample_rate, n_fft, 5 * n_fft // 32)
    return torch.from_numpy(bands[bands.any(axis=1)])


def speech_scores(
    originals: Sequence[Waveform],
    others: Sequence[Waveform],
    sample_rate: int,
    group_seconds: float = GROUP_SECONDS,
) -> dict[str, float]:
    """PESQ (8 kHz narrow band, 16 kHz wide band), STOI and ESTOI of clips joined by short pauses.

    Consecutive clips are joined to groups of `group_seconds`; scores of groups are averaged, weighted by
    length. Waveforms are resampled to 16 kHz, or to 8 kHz if their rate is lower. Groups that are too
    short or too silent for a measure are skipped: PESQ needs 0.25 s, STOI 30 frames of sound, about 0.4 s.
    Measures without a score are omitted, and all of them without the packages `pesq` and `pystoi`
    (extra `eval`).
    """
    scores = _SpeechScores(sample_rate, group_seconds)
    for original, other in zip(originals, others, strict=True):
        scores.add(original, other)
    return scores.means()


class _SpeechScores:
    """Incremental `speech_scores`; holds one group of clips in memory."""

    def __init__(self, sample_rate: int, group_seconds: float = GROUP_SECONDS) -> None:
        self._sample_rate = sample_rate
        self._group_seconds = group_seconds
        self._rate = 16_000 if sample_rate >= 16_000 else 8_000
        self._pause = np.zeros(int(PAUSE_SECONDS * self._rate), np.float32)
        self._sides: tuple[list[Waveform], list[Waveform]] = ([], [])
        self._seconds = 0.0
        self._scores: dict[str, list[tuple[float, int]]] = {"pesq": [], "stoi": [], "estoi": []}

    def add(self, original: Waveform, other: Waveform) -> None:
        if self._seconds > self._group_seconds:
            self._score()
        for side, waveform in zip(self._sides, (original, other), strict=True):
            side += [resample(waveform, self._sample_rate, self._rate), self._pause]
        self._seconds += len(original) / self._sample_rate

    def means(self) -> dict[str, float]:
        self._score()
        return {
            name: sum(score * length for score, length in scored) / sum(n for _, n in scored)
            for name, scored in self._scores.items()
            if scored
        }

    def _score(self) -> None:
        """Score the current group, and start a new one."""
        sides, self._sides, self._seconds = self._sides, ([], []), 0.0
        if not sides[0]:
            return
        a, b = map(np.concatenate, sides)
        for name, score in stretch_scores(a, b, self._rate).items():
            self._scores[name].append((score, len(a)))


def stretch_scores(original: Waveform, other: Waveform, sample_rate: int) -> dict[str, float]:
    """pesq, stoi and estoi of one pair of waveforms (samples,) at 8 kHz (narrow band) or 16 kHz (wide band).

    A measure that the pair is too short or too silent for is left out; all are left out without the
    packages `pesq` and `pystoi` (extra `eval`).
    """
    try:
        import pesq
        import pystoi
    except ImportError:
        return {}
    if not original.any() or not other.any():
        return {}
    scores = {}
    mode = "wb" if sample_rate == 16_000 else "nb"
    with contextlib.suppress(pesq.PesqError):  # too short, or no speech found
        scores["pesq"] = float(pesq.pesq(sample_rate, original, other, mode))
    with warnings.catch_warnings(), contextlib.suppress(RuntimeWarning):
        warnings.simplefilter("ignore")
        # pystoi gives 0.00001 and a warning for waveforms that are too short: no score.
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        scores["stoi"] = float(pystoi.stoi(original, other, sample_rate))
        scores["estoi"] = float(pystoi.stoi(original, other, sample_rate, extended=True))
    return scores
