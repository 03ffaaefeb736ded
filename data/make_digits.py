"""Make the spoken-digit recordings in ``data/digits`` from nothing.

Twelve voices of the eSpeak NG synthesiser each say ten digits eight times. Every take has its
own pitch, speed, size of the vocal tract and level, sampled from a generator that is seeded by voice
and digit, so the same versions of eSpeak NG and soxr give the same bytes again. A draw too near
an earlier one is thrown away: no take is a copy, or nearly one, of another.

Usage: ``python data/make_digits.py [--out FOLDER]``. Needs ``espeak-ng`` on the path, and numpy
and soxr.
"""

import argparse
import re
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

Samples = npt.NDArray[np.float64]

SEED = 20240
RATE = 8000
TAKES = 8
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

PITCH_SPREAD = 0.12  # of the voice's own pitch
SPEED_SPREAD = 0.20  # of the voice's own speed
TRACT_SPREAD = 0.025  # all frequencies, the formants among them, move by up to this share
LEVEL_SPREAD_DB = 2.5
APART = 0.8  # least distance of two takes in pitch, speed and tract, each scaled to -1 to 1

TRIM_DB = -46.0  # silence is what lies this far below the loudest frame
TRIM_FRAME = RATE // 200  # 5 ms
TRIM_KEEP = RATE // 100  # 10 ms of it stay at each end
FADE = RATE // 200

NAME = re.compile(r"[0-9]_[a-z]+_[0-9]\.wav")


@dataclass(frozen=True)
class Voice:
    """One speaker: an eSpeak NG accent and variant, pitch (0-99), speed (words/minute), peak."""

    speaker: str
    accent: str
    variant: str
    pitch: float
    speed: float
    peak_db: float


# Accents are named by file: asked for "en-gb+f2", eSpeak NG 1.51 drops the variant silently.
VOICES = (
    Voice("alice", "gmw/en", "f2", 50, 190, -6.0),
    Voice("clara", "gmw/en-US", "Andrea", 46, 150, -5.0),
    Voice("edith", "gmw/en-GB-scotland", "f1", 36, 170, -7.5),
    Voice("flora", "gmw/en-GB-x-rp", "f3", 62, 185, -6.5),
    Voice("greta", "gmw/en-GB-x-gbclan", "steph", 52, 165, -8.0),
    Voice("ivy", "gmw/en-029", "linda", 64, 190, -7.0),
    Voice("ben", "gmw/en-US", "m3", 50, 175, -5.5),
    Voice("carl", "gmw/en-GB-scotland", "m7", 42, 170, -6.0),
    Voice("felix", "gmw/en-GB-x-gbcwmd", "m2", 58, 190, -7.0),
    Voice("hugo", "gmw/en-029", "m8", 38, 165, -8.5),
    Voice("jonas", "gmw/en", "m5", 76, 180, -5.0),
    Voice("oscar", "gmw/en-GB-x-rp", "m4", 60, 185, -6.5),
)


def speak(voice: str, word: str, pitch: int, speed: int) -> tuple[Samples, int]:
    """Let eSpeak NG say a word; return the samples (-1 to 1) and their rate."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "word.wav"
        command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "-w", str(path)]
        subprocess.run([*command, word], check=True)
        with wave.open(str(path), "rb") as file:
            rate = file.getframerate()
            raw = file.readframes(file.getnframes())
    return np.frombuffer(raw, dtype="<i2").astype(np.float64) / 32768.0, rate


def trim(samples: Samples) -> Samples:
    """Cut the silence at both ends, except for a short rest that is faded in and out."""
    count = len(samples) // TRIM_FRAME
    frames = samples[: count * TRIM_FRAME].reshape(count, TRIM_FRAME)
    power = (frames**2).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10.0 ** (TRIM_DB / 10.0))
    start = max(0, int(loud[0]) * TRIM_FRAME - TRIM_KEEP)
    stop = min(len(samples), (int(loud[-1]) + 1) * TRIM_FRAME + TRIM_KEEP)
    trimmed = samples[start:stop].copy()
    ramp = np.arange(FADE) / FADE
    trimmed[:FADE] *= ramp
    trimmed[-FADE:] *= ramp[::-1]
    return trimmed


def draw_takes(index: int, digit: int) -> list[Samples]:
    """Draw pitch, speed, tract and level (-1 to 1) of all takes of a digit by one voice."""
    random = np.random.default_rng([SEED, index, digit])
    takes: list[Samples] = []
    while len(takes) < TAKES:
        draw = random.uniform(-1.0, 1.0, 4)
        if all(np.linalg.norm(draw[:3] - other[:3]) >= APART for other in takes):
            takes.append(draw)
    return takes


def make_take(voice: Voice, digit: int, draw: Samples) -> npt.NDArray[np.int16]:
    """Make one recording of a digit by a voice."""
    pitch, speed, tract, level = draw
    samples, rate = speak(
        f"{voice.accent}+{voice.variant}",
        WORDS[digit],
        round(voice.pitch * (1.0 + PITCH_SPREAD * pitch)),
        round(voice.speed * (1.0 + SPEED_SPREAD * speed)),
    )
    # Reading the samples a little too fast or too slowly moves pitch and formants together.
    shifted_rate = rate * (1.0 + TRACT_SPREAD * tract)
    samples = trim(np.asarray(soxr.resample(samples, shifted_rate, RATE, quality="VHQ")))
    peak = 10.0 ** ((voice.peak_db + LEVEL_SPREAD_DB * level) / 20.0)
    samples *= peak / np.abs(samples).max()
    return np.round(samples * 32767.0).astype("<i2")


def write_wav(path: Path, samples: npt.NDArray[np.int16]) -> None:
    """Write a mono 16-bit WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def make_all(folder: Path) -> int:
    """Write all recordings into a folder, in place of older ones; return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if NAME.fullmatch(old.name):
            old.unlink()
    seen: dict[bytes, str] = {}
    for index, voice in enumerate(VOICES):
        for digit in range(len(WORDS)):
            for take, draw in enumerate(draw_takes(index, digit)):
                name = f"{digit}_{voice.speaker}_{take}.wav"
                samples = make_take(voice, digit, draw)
                twin = seen.setdefault(samples.tobytes(), name)
                if twin != name:
                    raise RuntimeError(f"{name} sounds the same as {twin}")
                write_wav(folder / name, samples)
    return len(seen)


def main() -> None:
    """Read the command line and make the recordings."""
    parser = argparse.ArgumentParser(description="Make the spoken-digit recordings again.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "digits")
    folder: Path = parser.parse_args().out
    print(f"{make_all(folder)} recordings written to {folder}")


if __name__ == "__main__":
    main()
