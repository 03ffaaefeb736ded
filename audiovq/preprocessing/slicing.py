"""How a recording is cut into clips: silence trimmed, sound divided, each clip read with its surroundings."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiovq.audio import reading
from audiovq.audio.silence import SILENT, SilenceDetector
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig
from audiovq.preprocessing.splits import Stretch, clips_of
from audiovq.spectral.numpy_spectrogram import Piece

CHANGED = "changed while it was read; run preprocess again with --overwrite"
Divide = Callable[[int], list[Stretch]]
"""Samples of a trimmed recording → the stretches of it that clips are cut from."""


@dataclass(frozen=True)
class Slicing:
    """Settings by which recordings are cut into clips."""

    spectrogram: SpectrogramConfig
    clip_frames: int
    """Frames of the longest clip."""
    trim_db: float | None
    """Silence at the ends this many dB below the loudest window is cut off; None: nothing is."""
    block_samples: int = reading.BLOCK
    """Samples of a recording that are read at a time: see `reading.blocks`."""
    transposed: float = 0.0
    """Semitones by which recordings are played faster, and so higher."""

    @classmethod
    def of(
        cls,
        config: PreprocessConfig,
        spectrogram: SpectrogramConfig,
        clip_frames: int,
        block_samples: int = reading.BLOCK,
    ) -> Slicing:
        """Slicing by `config`, with the spectrogram and clip length chosen for the recordings."""
        trim_db = config.trim_db if config.trim else None
        return cls(spectrogram, clip_frames, trim_db, block_samples)

    @property
    def clip_samples(self) -> int:
        """Samples of the longest clip: the most that have `clip_frames` frames."""
        return self.clip_frames * self.spectrogram.hop_length - 1

    @property
    def clip_seconds(self) -> float:
        """Length of `clip_frames` frames in seconds."""
        return self.clip_frames * self.spectrogram.hop_length / self.spectrogram.sample_rate

    def detector(self) -> SilenceDetector:
        """A detector of what these settings trim."""
        return SilenceDetector(self.spectrogram.sample_rate, self.trim_db is not None)

    def blocks(self, path: Path | str, note: reading.Say | None = None) -> Iterator[Waveform]:
        """Blocks of a recording at the spectrogram's sample rate: see `reading.blocks`."""
        rate = self.spectrogram.sample_rate / 2 ** (self.transposed / 12)
        return reading.blocks(
            path,
            round(rate),
            note,
            block_samples=self.block_samples,
            channels=self.spectrogram.channels,
        )


class Plan(NamedTuple):
    """Result of the first pass over a recording: where its clips are."""

    blocks: Iterator[Waveform]
    """The whole recording, for the second pass."""
    peak: float
    sound: Stretch
    """Samples at which its sound begins and ends, trimmed of silence."""
    spans: list[Stretch]
    """Start and end of each clip, in order; a short rest is covered by a clip that overlaps the one before."""
    notes: Sequence[str] = ()
    """Notes for the user, from `reading.blocks`."""


def undivided(num_samples: int) -> list[Stretch]:
    """The whole of a trimmed recording as its one stretch."""
    return [(0, num_samples)]


def plan(path: Path | str, slicing: Slicing, divide: Divide = undivided) -> Plan:
    """First pass over a recording, block by block: where its clips are.

    Clips are cut from the stretches that `divide` gives. Raises AudioError with the reason if the
    recording has no sound to cut a clip from.
    """
    detector = slicing.detector()
    notes: list[str] = []
    for block in slicing.blocks(path, notes.append):
        detector.add(block)
    has_one_block = detector.num_samples == block.shape[-1]  # then it need not be read again
    blocks = iter([block]) if has_one_block else slicing.blocks(path)
    return Plan(blocks, detector.peak, *_spans(detector, slicing, divide), notes)


def plan_waveform(waveform: Waveform, slicing: Slicing, divide: Divide = undivided) -> Plan:
    """`plan` of a recording that has been read already, at the spectrogram's sample rate."""
    detector = slicing.detector()
    detector.add(waveform)
    return Plan(iter([waveform]), detector.peak, *_spans(detector, slicing, divide))


def is_used(path: Path | str, slicing: Slicing) -> bool:
    """Whether a recording has enough sound for a clip. It is read only until that is known."""
    detector = slicing.detector()
    with contextlib.suppress(AudioError):
        for block in slicing.blocks(path):
            detector.add(block)
            with contextlib.suppress(AudioError):
                return bool(_sound(detector, slicing))
    return False


def sound_samples(path: Path | str, slicing: Slicing) -> int:
    """Samples of a recording trimmed of silence, at the spectrogram's rate; 0 if it has no sound or cannot be read."""
    try:
        begin, end = plan(path, slicing).sound
    except (AudioError, OSError):
        return 0
    return end - begin


def _sound(detector: SilenceDetector, slicing: Slicing) -> Stretch:
    """Samples at which the sound of a recording begins and ends, one sample apart or more.

    Raises AudioError if it is silent, or has no sample at the spectrogram's rate.
    """
    if not detector.num_samples:
        raise AudioError(f"is shorter than one sample at {slicing.spectrogram.sample_rate} Hz")
    if detector.peak == 0:
        raise AudioError("is silent throughout")
    if detector.peak < SILENT:
        decibels = 20 * math.log10(detector.peak)
        raise AudioError(f"is silent (its peak is {decibels:.0f} dBFS, noise below -80 dBFS)")
    start, end = 0, detector.num_samples
    if slicing.trim_db is not None:
        start, end = detector.trim(slicing.trim_db)
    if start == end:
        raise AudioError("is silent (all samples are equal)")
    return start, end


def _spans(
    detector: SilenceDetector, slicing: Slicing, divide: Divide
) -> tuple[Stretch, list[Stretch]]:
    """Samples of a recording's sound and of each clip. Raises AudioError as `_sound`."""
    start, end = _sound(detector, slicing)
    clips = [
        span
        for first, last in divide(end - start)
        for span in clips_of(start + first, start + last, slicing.clip_samples)
    ]
    return (start, end), clips


def excerpts(path: Path, slicing: Slicing, spans: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    """Read parts of a recording, each with one window of its surroundings on both sides.

    `spans` are (offset, samples) as in `Clip`, with rising offsets. Raises AudioError if the recording
    cannot be used or is shorter than a span.
    """
    found = plan(path, slicing)
    begin, end = found.sound
    wanted = [(begin + offset, begin + offset + samples) for offset, samples in spans]
    for start, stop in wanted:
        if not begin <= start < stop <= end:
            raise AudioError(f"has no clip at {start - begin}")
    yield from read_clips(path, found._replace(spans=wanted), slicing.spectrogram.n_fft)


def first_clip(path: Path, slicing: Slicing) -> Piece:
    """Read the first clip of a recording, with one window of what follows it. Raises AudioError as `plan`."""
    found = plan(path, slicing)
    first = found._replace(spans=found.spans[:1])
    return next(read_clips(path, first, slicing.spectrogram.n_fft))


def read_clips(path: Path | str, plan: Plan, margin: int) -> Iterator[Piece]:
    """Second pass: read each clip of a plan with up to `margin` samples of sound on both sides.

    A recording that exceeds full scale is scaled down to it. Raises AudiovqError if the file has changed
    since the first pass.
    """
    blocks, (first, last) = plan.blocks, plan.sound
    buffer: Waveform = np.zeros(0, np.float32)
    offset = 0  # the sample of the recording that the buffer begins with
    try:
        for start, end in plan.spans:
            begin, stop = max(first, start - margin), min(last, end + margin)
            while offset + buffer.shape[-1] < stop:
                done = min(begin - offset, buffer.shape[-1])
                block, kept = next(blocks), buffer[..., done:]
                buffer = np.concatenate([kept, block], axis=-1) if kept.size else block
                offset += done
            samples = buffer[..., begin - offset : stop - offset]
            if plan.peak > 1:
                samples = samples / np.float32(plan.peak)
            yield Piece(samples, start - begin, stop - end)
    except (AudioError, StopIteration) as error:
        raise AudiovqError(f"{path}: {CHANGED}") from error
