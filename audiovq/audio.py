"""Recordings: find, read, resample, trim, write. NumPy in, NumPy out; mono float32 in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from audiovq.config import AudiovqError
from audiovq.files import atomic

Waveform = npt.NDArray[np.float32]
_Float = TypeVar("_Float", np.float32, np.float64)

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"})


class AudioError(AudiovqError):
    """A recording that cannot be used; its text is the reason."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says."""

    sample_rate: int
    channels: int
    num_samples: int

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate


def find(folder: Path) -> tuple[list[Path], list[Path]]:
    """All files below `folder`, hidden ones left out: (recordings, others), each sorted.

    Raises AudiovqError where `folder` is not a folder.
    """
    if not folder.is_dir():
        raise AudiovqError(f"{folder}: no such folder")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    recordings = [path for path in found if path.suffix.lower() in SUFFIXES]
    return recordings, [path for path in found if path.suffix.lower() not in SUFFIXES]


def info(path: Path) -> AudioInfo:
    """The header of a recording. Raises AudioError with the reason where it cannot be used."""
    import soundfile

    try:
        header: Any = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError, UnicodeError) as error:
        raise AudioError(_reason(path, error)) from error
    if header.frames == 0:
        raise AudioError("holds no samples")
    return AudioInfo(header.samplerate, header.channels, header.frames)


def read(path: Path, sample_rate: int | None = None) -> tuple[Waveform, int]:
    """A recording as (mono waveform (samples,), rate in Hz), channels averaged.

    With `sample_rate` the waveform is resampled to it. What goes beyond full scale is brought down
    to it as a whole. Raises AudioError with the reason where the file cannot be used.
    """
    import soundfile

    try:
        samples, native_rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, UnicodeError) as error:
        raise AudioError(_reason(path, error)) from error
    if not len(samples):
        raise AudioError("holds no samples")
    if not np.isfinite(samples).all():
        raise AudioError("holds samples that are not numbers (NaN or infinity)")
    waveform = _within_full_scale(samples.mean(axis=1, dtype=np.float64)).astype(np.float32)
    if sample_rate is not None:  # steep edges ring beyond full scale when resampled
        waveform = _within_full_scale(resample(waveform, native_rate, sample_rate))
    return waveform, sample_rate or native_rate


def _within_full_scale(waveform: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """`waveform`, brought down as a whole where its peak lies beyond 1."""
    peak = np.abs(waveform).max(initial=0)
    return waveform / peak if peak > 1 else waveform


def _reason(path: Path, error: Exception) -> str:
    """libsndfile's and the system's errors in words a musician understands."""
    if isinstance(error, UnicodeError):
        return "has a name that is not UTF-8; rename it"
    try:
        if path.stat().st_size == 0:
            return "is empty (0 bytes)"
        with open(path, "rb"):
            pass
    except OSError as system:
        return f"cannot be opened ({system.strerror})"
    return f"is broken or not a sound file ({getattr(error, 'error_string', error)})".replace(
        ".)", ")"
    )


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """(samples,) at one rate → (round(samples * to / from),) at another, by soxr's high quality."""
    if from_rate == to_rate:
        return waveform
    import soxr

    resampled: Waveform = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    return resampled


def trim(waveform: Waveform, sample_rate: int, trim_db: float) -> tuple[int, int]:
    """Where the sound begins and ends, in samples: (start, end), end exclusive.

    Silence is every 20 ms window (10 ms apart) whose power lies `trim_db` below the loudest one's;
    10 ms are kept on each side. Silence throughout gives (0, 0).
    """
    step = max(1, sample_rate // 100)
    padded = np.zeros(-(-len(waveform) // step) * step, np.float64)
    padded[: len(waveform)] = waveform
    power = np.square(padded).reshape(-1, step).sum(axis=1)
    power = power + np.append(power[1:], 0)  # 20 ms windows, 10 ms apart
    if power.max(initial=0) <= 0:
        return 0, 0
    loud = np.flatnonzero(power > power.max() * 10 ** (-trim_db / 10))
    start, end = (int(loud[0]) - 1) * step, (int(loud[-1]) + 3) * step
    return max(0, start), min(len(waveform), end)


def write(path: Path, waveform: Waveform, sample_rate: int) -> bool:
    """Write (samples,) as a 16-bit WAV, atomically.

    Returns True where the waveform went beyond full scale and was brought down to it as a whole
    (a clipped one would crackle).
    """
    import soundfile

    peak = float(np.abs(waveform).max(initial=0))
    limit = 32767 / 32768
    limited = peak > limit
    if limited:
        waveform = waveform * np.float32(limit / peak)
    samples = np.rint(waveform * 32768).astype(np.int16)  # libsndfile would round down
    with atomic(path) as temporary, open(temporary, "wb") as file:
        soundfile.write(file, samples, sample_rate, subtype="PCM_16", format="WAV")
    return limited
