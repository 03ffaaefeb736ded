"""Musical description of a recording by librosa and torchaudio: pitch, onsets, tempo, timbre, loudness."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from audiovq.audio.resampling import resample
from audiovq.audio.waveform import Waveform
from audiovq.runtime.files import take_turns
from audiovq.spectral.loudness import integrated_loudness

LONGEST_SECONDS = 10.0
"""Only the beginning of a recording is described: pitch tracking takes about as long as the sound."""
HIGHEST_RATE = 22_050
"""Hz. Recordings above are resampled to it: no pitch searched for lies above 2,093 Hz (C7)."""
LOWEST_HZ, HIGHEST_HZ = 65.406, 2093.0
"""C2 to C7, the range of the pitch search."""
PITCH_STEP = 0.2
"""Semitones between the pitches that are searched for; half of that, librosa's default, takes four times as long."""
VOICED = 0.5
"""Share of loud frames that must have a pitch for the recording to have one."""
TEMPO_SECONDS, TEMPO_ONSETS = 4.0, 4
"""The shortest recording, and the fewest onsets, that a tempo is estimated for."""


@dataclass(frozen=True)
class Description:
    """Musical properties of one recording."""

    pitch_hz: float | None
    """Median fundamental frequency, in steps of PITCH_STEP; None if most frames have no pitch."""
    onsets: int
    tempo_bpm: float | None
    """Beats per minute; None if the recording is too short or has too few onsets."""
    centroid_hz: float
    """Mean spectral centroid, weighted by power: brightness."""
    flatness: float
    """Mean spectral flatness, weighted by power: from 0 (tone) to 1 (white noise)."""
    loudness_lufs: float
    """Integrated loudness by ITU-R BS.1770-4, at least -70 (silence)."""


@functools.cache
def load_librosa() -> ModuleType:
    """librosa, loaded and compiled by one process at a time; on first use late, as it takes two seconds.

    numba compiles parts of librosa when they are first imported, half a minute of work, and keeps the result
    beside librosa. If two processes compile at once, they may keep a mixture, with which each later process
    crashes: its index of compiled functions is read and written without a lock.
    """
    import librosa

    with take_turns(Path(librosa.__file__)):
        librosa.pyin(np.zeros(2048, np.float32), sr=8000, fmin=LOWEST_HZ, fmax=HIGHEST_HZ)
        librosa.onset.onset_detect(onset_envelope=np.zeros(16, np.float32))
    return librosa


def describe(waveform: Waveform, sample_rate: int, pitch: bool = True) -> Description:
    """Describe a mono waveform (samples,) at `sample_rate` Hz; without `pitch`, which takes most of the time, if it is
    False.

    Pitch by pYIN (Mauch and Dixon 2014), onsets by spectral flux, tempo by autocorrelation of the onset
    strength, loudness after ITU-R BS.1770-4.
    """
    librosa = load_librosa()
    waveform = waveform[: round(LONGEST_SECONDS * sample_rate)]
    loudness = integrated_loudness(waveform, sample_rate)
    if sample_rate > HIGHEST_RATE:
        waveform, sample_rate = resample(waveform, sample_rate, HIGHEST_RATE), HIGHEST_RATE
    hop_length = max(1, round(sample_rate / 100))
    n_fft = 1 << math.ceil(math.log2(4 * sample_rate / LOWEST_HZ))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from librosa, for sounds shorter than a window
        f0, voiced = np.zeros(0), np.zeros(0, bool)
        if pitch:
            f0, voiced, _ = librosa.pyin(
                waveform,
                sr=sample_rate,
                fmin=LOWEST_HZ,
                fmax=min(HIGHEST_HZ, 0.45 * sample_rate),
                frame_length=n_fft,
                hop_length=hop_length,
                resolution=PITCH_STEP,
            )
        magnitude = np.abs(librosa.stft(waveform, n_fft=n_fft, hop_length=hop_length))
        centroid = librosa.feature.spectral_centroid(S=magnitude, sr=sample_rate)[0]
        flatness = librosa.feature.spectral_flatness(S=magnitude)[0]
        strength = librosa.onset.onset_strength(
            y=waveform, sr=sample_rate, hop_length=hop_length, n_fft=min(n_fft, 2048)
        )
        onsets = len(
            librosa.onset.onset_detect(
                onset_envelope=strength, sr=sample_rate, hop_length=hop_length
            )
        )
        tempo = None
        if len(waveform) >= TEMPO_SECONDS * sample_rate and onsets >= TEMPO_ONSETS:
            found = librosa.feature.tempo(
                onset_envelope=strength, sr=sample_rate, hop_length=hop_length
            )
            tempo = float(found[0])
    power = (magnitude**2).sum(axis=0)
    loud = power > 1e-3 * power.max(initial=0)
    pitched = voiced[: len(loud)] & loud[: len(voiced)]
    has_pitch = pitched.sum() >= VOICED * max(1, loud.sum())
    weights = power / max(float(power.sum()), 1e-20)
    return Description(
        pitch_hz=float(np.median(f0[: len(pitched)][pitched])) if has_pitch else None,
        onsets=onsets,
        tempo_bpm=tempo,
        centroid_hz=float((centroid * weights).sum()),
        flatness=float((flatness * weights).sum()),
        loudness_lufs=loudness,
    )


def description_lines(descriptions: Sequence[Description]) -> list[str]:
    """One line per property for the table of `inspect`: ranges and medians over recordings."""
    if not descriptions:
        return []
    pitches = sorted(d.pitch_hz for d in descriptions if d.pitch_hz is not None)
    tempos = [d.tempo_bpm for d in descriptions if d.tempo_bpm is not None]
    lines = [f"pitched     {len(pitches)} of {len(descriptions)}"]
    if pitches:
        lines[0] += f", {note_name(pitches[0])} to {note_name(pitches[-1])}"
    if tempos:
        lines.append(f"tempo       {np.median(tempos):.0f} bpm (median of {len(tempos)})")
    medians = [
        float(np.median([getattr(d, name) for d in descriptions]))
        for name in ("centroid_hz", "flatness", "loudness_lufs")
    ]
    lines += [
        f"brightness  {medians[0]:,.0f} Hz (median spectral centroid)",
        f"noisiness   {medians[1]:.2f} (median spectral flatness; 0: tone, 1: white noise)",
        f"loudness    {medians[2]:.0f} LUFS (median)",
    ]
    return lines


def note_name(hertz: float) -> str:
    """The nearest note of the equal temperament at A4 = 440 Hz, such as `A3` or `C#4`."""
    return str(load_librosa().hz_to_note(hertz, unicode=False))
