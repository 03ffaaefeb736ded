"""Sounds made by formula, for the model `sounds` and its demo: hits, notes and textures. No recording is in them; CC0.

Each take varies pitch, decay, colour and position at random, from a seed, so that the same takes come out again.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from audiovq.runtime.files import atomic

Samples = npt.NDArray[np.float64]
Generator = np.random.Generator
RATE = 44_100
PEAK = 0.7
FADE = RATE // 200
"""Samples over which each sound fades out at its end."""


def take(kind: str, number: int) -> npt.NDArray[np.float32]:
    """Take `number` of a kind of KINDS: (samples, 2) float32, peak PEAK."""
    generator = np.random.default_rng([zlib.crc32(kind.encode()), number])
    sound = KINDS[kind](generator)
    if sound.ndim == 1:
        left = np.pi / 4 * (1 + generator.uniform(-0.4, 0.4))
        sound = sound[:, None] * np.array([np.cos(left), np.sin(left)])
    sound[-FADE:] *= np.linspace(1, 0, FADE)[:, None]
    return np.asarray(PEAK * sound / np.abs(sound).max(), dtype=np.float32)


def write_takes(folder: Path, kinds: Sequence[str], numbers: Sequence[int]) -> dict[Path, str]:
    """Write takes of each kind as `folder`/KIND/synthesis-NUMBER.wav, 16 bit, unless they exist; returns their kinds."""
    files = {}
    for kind in kinds:
        for number in numbers:
            path = folder / kind / f"synthesis-{number:03d}.wav"
            files[path] = kind
            if not path.exists():
                wav = io.BytesIO()  # libsndfile does not report a full disk
                soundfile.write(wav, take(kind, number), RATE, format="WAV", subtype="PCM_16")
                with atomic(path) as temporary:
                    temporary.write_bytes(wav.getvalue())
    return files


def kick(generator: Generator) -> Samples:
    """A sine that falls in pitch, and a click."""
    time = _time(generator.uniform(0.25, 0.7))
    low, high = generator.uniform(38, 65), generator.uniform(120, 400)
    body = _sine(low + (high - low) * _decay(time, generator.uniform(0.01, 0.05)))
    click = _band(generator.standard_normal(len(time)), 800, 6_000) * _decay(time, 0.004)
    return body * _decay(time, generator.uniform(0.08, 0.25)) + generator.uniform(0, 0.5) * click


def snare(generator: Generator) -> Samples:
    """Two modes of a skin, and the noise of its wires."""
    time = _time(generator.uniform(0.2, 0.5))
    pitch = generator.uniform(160, 260)
    skin = _sum(_sine(np.full(len(time), pitch * mode)) / mode for mode in (1.0, 1.6))
    wires = _band(generator.standard_normal(len(time)), generator.uniform(800, 2_500), 12_000)
    wires *= _decay(time, generator.uniform(0.04, 0.15))
    return skin * _decay(time, generator.uniform(0.03, 0.09)) + generator.uniform(0.5, 1.5) * wires


def hat(generator: Generator) -> Samples:
    """Noise above some kilohertz, short or long, with a few high tones."""
    time = _time(generator.choice([0.12, 0.8]))
    noise = _band(generator.standard_normal(len(time)), generator.uniform(4_000, 8_000), 18_000)
    tones = _sum(_sine(np.full(len(time), generator.uniform(3e3, 12e3))) for _ in range(6))
    return (noise + 0.1 * tones) * _decay(time, time[-1] * generator.uniform(0.15, 0.35))


def clap(generator: Generator) -> Samples:
    """Three or four bursts of noise and a tail."""
    time = _time(generator.uniform(0.2, 0.4))
    noise = _band(generator.standard_normal(len(time)), 700, generator.uniform(3_000, 7_000))
    starts = np.cumsum(generator.uniform(0.006, 0.014, generator.integers(3, 5))) - 0.006
    bursts = _sum((time >= s) * _decay(np.maximum(time - s, 0), 0.005) for s in starts)
    tail = (time >= starts[-1]) * _decay(np.maximum(time - starts[-1], 0), 0.06)
    return np.asarray(noise * (bursts + 0.6 * tail))


def tom(generator: Generator) -> Samples:
    """A skin whose pitch falls a little."""
    time = _time(generator.uniform(0.4, 0.9))
    pitch = generator.uniform(80, 220)
    fall = pitch * (1 + generator.uniform(0.1, 0.5) * _decay(time, 0.04))
    tones = _sine(fall) + 0.4 * _sine(1.6 * fall) * _decay(time, 0.08)
    return tones * _decay(time, generator.uniform(0.1, 0.25))


def bell(generator: Generator) -> Samples:
    """Inharmonic partials, the higher the shorter."""
    time = _time(generator.uniform(0.8, 1.9))
    pitch, ring = generator.uniform(300, 1_800), generator.uniform(0.2, 0.6)
    partials = (1.0, 2.0, 2.4, 3.0, 4.5, 5.3, 6.7)
    weights = generator.uniform(0.2, 1, len(partials))
    pairs = zip(partials, weights, strict=True)
    return _sum(
        weight * _sine(np.full(len(time), pitch * p)) * _decay(time, ring / p**0.7)
        for p, weight in pairs
        if pitch * p < RATE / 2
    )


def pluck(generator: Generator) -> Samples:
    """A plucked string: noise in a delay line that loses its high frequencies (Karplus and Strong 1983)."""
    length = int(generator.uniform(0.8, 1.9) * RATE)
    period = round(RATE / _pitch(generator, 40, 76))
    line = _band(generator.standard_normal(period), 0, generator.uniform(3_000, 16_000))
    loss = generator.uniform(0.985, 0.999)
    sound = np.empty(-(-length // period) * period)
    for begin in range(0, len(sound), period):
        sound[begin : begin + period] = line
        line = loss * (line + np.roll(line, 1)) / 2
    return sound[:length]


def organ(generator: Generator) -> Samples:
    """Harmonics of equal length, with an even onset."""
    time = _time(generator.uniform(0.5, 1.8))
    pitch = _pitch(generator, 40, 80)
    harmonics = [h for h in (1, 2, 3, 4, 6, 8) if h * pitch < RATE / 2]
    tones = _sum(
        generator.uniform(0.1, 1) * _sine(np.full(len(time), pitch * h)) for h in harmonics
    )
    ends = np.minimum(1, time / 0.02) * np.minimum(1, (time[-1] - time) / 0.08)
    return np.asarray(tones * ends)


def bass(generator: Generator) -> Samples:
    """A saw-tooth whose filter closes."""
    time = _time(generator.uniform(0.4, 1.4))
    pitch, bright = _pitch(generator, 26, 46), generator.uniform(4, 30)
    harmonics = range(1, min(40, int(8_000 / pitch)))
    tones = _sum(
        _sine(np.full(len(time), pitch * h)) / h * np.exp(-h / bright * (1 + 3 * time))
        for h in harmonics
    )
    onset = np.minimum(1, time / 0.004)
    return np.asarray(tones * _decay(time, generator.uniform(0.3, 1.0)) * onset)


def wind(generator: Generator) -> Samples:
    """Bands of noise whose loudness wanders, apart on both sides."""
    length = 2 * RATE
    low = generator.uniform(100, 600)
    bands = [(low, 2 * low), (2 * low, 5 * low), (5 * low, 10 * low)]
    sides = [
        _sum(
            _band(generator.standard_normal(length), *band) * _slow(generator, length)
            for band in bands
        )
        for _ in range(2)
    ]
    return np.stack(sides, axis=1)


def drops(generator: Generator) -> Samples:
    """Rain: many short drops at random times and on both sides, over noise."""
    length = 2 * RATE
    sound = 0.05 * _band(generator.standard_normal((length, 2)), 1_000, 14_000)
    time = _time(0.03)
    for _ in range(int(generator.uniform(60, 400))):
        drop = _sine(np.full(len(time), generator.uniform(1_200, 7_000))) * _decay(time, 0.004)
        begin = generator.integers(0, length - len(time))
        sides = generator.uniform(0, 1, 2) * generator.uniform(0.05, 1)
        sound[begin : begin + len(time)] += drop[:, None] * sides
    return sound


KINDS: dict[str, Callable[[Generator], Samples]] = {
    "kick": kick,
    "snare": snare,
    "hat": hat,
    "clap": clap,
    "tom": tom,
    "bell": bell,
    "pluck": pluck,
    "organ": organ,
    "bass": bass,
    "wind": wind,
    "rain": drops,
}
"""Makers by kind."""


def _time(seconds: float) -> Samples:
    """Seconds of each sample."""
    return np.arange(int(seconds * RATE)) / RATE


def _decay(time: Samples, seconds: float) -> Samples:
    """Exponential decay to 1/e in `seconds`."""
    return np.asarray(np.exp(-time / seconds))


def _sine(frequency: Samples) -> Samples:
    """A sine of a frequency in Hz at each sample."""
    return np.asarray(np.sin(2 * np.pi * np.cumsum(frequency) / RATE))


def _sum(parts: Iterable[Samples]) -> Samples:
    """Sum of sounds of one length."""
    return np.asarray(np.sum(list(parts), axis=0))


def _pitch(generator: Generator, low: int, high: int) -> float:
    """Frequency in Hz of a random note between two MIDI notes."""
    return float(440 * 2 ** ((generator.integers(low, high + 1) - 69) / 12))


def _band(sound: Samples, low: float, high: float) -> Samples:
    """A sound (samples, …) between two frequencies in Hz, with edges of half an octave; standard deviation 1."""
    frequencies = np.fft.rfftfreq(len(sound), 1 / RATE)
    with np.errstate(divide="ignore"):
        octaves = np.log2(frequencies)
    gain = np.clip((octaves - np.log2(max(low, 1e-3))) * 2 + 1, 0, 1)
    gain *= np.clip((np.log2(high) - octaves) * 2 + 1, 0, 1)
    gain = gain.reshape(-1, *[1] * (sound.ndim - 1))
    filtered = np.fft.irfft(np.fft.rfft(sound, axis=0) * gain, len(sound), axis=0)
    return np.asarray(filtered / max(1e-9, float(filtered.std())))


def _slow(generator: Generator, length: int) -> Samples:
    """A gain of 0 to 1 that wanders in about half a second."""
    points = generator.uniform(0, 1, 2 + length * 2 // RATE)
    return np.interp(np.linspace(0, len(points) - 1, length), np.arange(len(points)), points)
