"""Preprocessing of recordings to spectrograms: ours, the tutorial series' pipeline, and a plain loop.

Each side runs in its own process. The process reports the time of the work alone, after all imports
and one file; the time of the whole process is measured from outside. All sides compute the same grid:
linear bins, clips cut and padded to one length, decibels scaled to [0, 1].

Ours forks one process per core; the others are one process with one thread (on spectrograms this
small, torch's threads cost more than they save). So there are two kinds of rows: CPU seconds on one
core, which compare the code and depend little on other load, and wall-clock seconds on all cores,
which compare the waiting time of a user.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import numpy as np
import numpy.typing as npt

from audiovq.runtime.executors import cores
from benchmarks.speed.comparison import Row, row

ROUNDS = 3
N_FFT, HOP = 512, 256
FSDD = Path(__file__).resolve().parents[3] / "shared" / "fsdd" / "recordings"
SYNTHETIC = 1000
"""Number of synthetic files: stereo noise at 44.1 kHz, 0.5 to 1.5 s each."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Job:
    """The task of one process."""

    side: str
    source: Path
    target: Path
    rate: int
    seconds: float

    @property
    def samples(self) -> int:
        """Samples of one clip."""
        return int(self.rate * self.seconds)


def series(job: Job) -> Callable[[list[Path]], None]:
    """The tutorial series' pipeline: librosa for each step, one file at a time."""
    import librosa

    def run(paths: list[Path]) -> None:
        for path in paths:
            signal, _ = librosa.load(path, sr=job.rate, duration=job.seconds, mono=True)
            if len(signal) < job.samples:
                signal = np.pad(signal, (0, job.samples - len(signal)), mode="constant")
            spectrum = librosa.stft(signal, n_fft=N_FFT, hop_length=HOP)[:-1]
            decibels = librosa.amplitude_to_db(np.abs(spectrum))
            low, high = decibels.min(), decibels.max()
            _save(job.target / f"{path.name}.npy", (decibels - low) / (high - low))

    return run


def loop(job: Job) -> Callable[[list[Path]], None]:
    """A plain loop with soundfile, torchaudio and torch, one file at a time."""
    import soundfile
    import torch
    import torchaudio

    torch.set_num_threads(1)
    window = torch.hann_window(N_FFT)
    resamplers: dict[int, torchaudio.transforms.Resample] = {}  # one filter design per rate

    def run(paths: list[Path]) -> None:
        for path in paths:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            signal = torch.from_numpy(samples).mean(dim=1)
            if rate not in resamplers:
                resamplers[rate] = torchaudio.transforms.Resample(rate, job.rate)
            signal = resamplers[rate](signal)[: job.samples]
            signal = torch.nn.functional.pad(signal, (0, job.samples - len(signal)))
            spectrum = torch.stft(signal, N_FFT, HOP, window=window, return_complex=True)[:-1]
            decibels = torchaudio.functional.amplitude_to_DB(spectrum.abs(), 20, 1e-5, 0, 80)
            low, high = decibels.min(), decibels.max()
            _save(job.target / f"{path.name}.npy", ((decibels - low) / (high - low)).numpy())

    return run


def ours(job: Job) -> Callable[[list[Path]], None]:
    """`audiovq.preprocess`. It finds the files itself; long files become several clips."""
    from audiovq.config.spectrogram import PreprocessConfig
    from audiovq.preprocessing.preprocess import preprocess

    config = PreprocessConfig(
        sample_rate=job.rate,
        clip_seconds=job.seconds,
        n_fft=N_FFT,
        hop_length=HOP,
        n_mels=0,
        trim=False,
    )

    def run(paths: list[Path]) -> None:
        if len(paths) > 1:
            preprocess(job.source, job.target / "dataset", config)
            return
        alone = job.target / "alone"
        alone.mkdir()
        (alone / paths[0].name).symlink_to(paths[0])
        preprocess(alone, job.target / "first", config)

    return run


def _save(path: Path, array: Array) -> None:
    """`np.save` that refuses to pickle."""
    with open(path, "wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


SIDES = {"series": series, "loop": loop, "ours": ours}


def serve(job: Job) -> None:
    """Run one side in this process and print its wall-clock and CPU seconds."""
    run = SIDES[job.side](job)
    paths = sorted(job.source.iterdir())
    run(paths[:1])
    begin, cpu = time.perf_counter(), cpu_seconds()
    run(paths)
    print(time.perf_counter() - begin, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its finished children."""
    return sum(os.times()[:4])


def timed_process(
    side: str, source: Path, rate: int, seconds: float, one_core: bool
) -> tuple[float, float]:
    """Run one side in a new process; returns the seconds of the whole process and of its work alone.

    With `one_core`, CPU seconds of a process bound to one core, else wall-clock seconds on all cores.
    """
    one = {min(os.sched_getaffinity(0))} if one_core else None
    with tempfile.TemporaryDirectory() as target:
        words = (side, source, target, rate, seconds)
        begin, cpu = time.perf_counter(), cpu_seconds()
        done = subprocess.run(
            [sys.executable, __file__, *map(str, words)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=None if one is None else lambda: os.sched_setaffinity(0, one),
        )
        clock, work = map(float, done.stdout.split()[-2:])
        if one_core:
            return cpu_seconds() - cpu, work
        return time.perf_counter() - begin, clock


def synthetic(folder: Path) -> None:
    """Write SYNTHETIC 16-bit WAVs to `folder`."""
    import soundfile

    random = np.random.default_rng(0)
    for number in range(SYNTHETIC):
        samples = random.normal(0, 0.1, (random.integers(22_050, 66_150), 2))
        soundfile.write(folder / f"{number:04d}.wav", samples, 44_100)


def rows() -> Iterator[Row]:
    """The digits at the series' rate, and stereo noise at 16 kHz: on one core, then on all cores.

    Needs Linux, which can bind a process to one core.
    """
    for one_core in (True, False) if cores() > 1 else (True,):
        yield from rows_on(one_core)


def rows_on(one_core: bool) -> Iterator[Row]:
    """Rows measured on one core, or rows measured on all cores."""
    which = "CPU time on one core" if one_core else f"{cores()} processes against 1"
    with tempfile.TemporaryDirectory() as folder:
        synthetic(Path(folder))
        for source, rate, seconds, promised in (
            (FSDD, 22_050, 0.74, not one_core),
            (Path(folder), 16_000, 1.0, False),
        ):
            if not source.is_dir():
                continue
            files = f"{sum(1 for _ in source.iterdir()):,} files to {rate:,} Hz"
            for peer, said in (
                ("series", "the series' pipeline"),
                ("loop", "torchaudio, soundfile"),
            ):
                pairs = [
                    [
                        timed_process(side, source, rate, seconds, one_core)
                        for side in ("ours", peer)
                    ]
                    for _ in range(ROUNDS)
                ]
                for kind, index, least in (("whole process", 0, 5.0), ("imports excluded", 1, 3.0)):
                    times = [(mine[index], theirs[index]) for mine, theirs in pairs]
                    wanted = least if promised and peer == "series" else None
                    yield row(f"preprocess, {files}, {which}, {kind}", said, times, "s", wanted)


if __name__ == "__main__":
    side, source, target, rate, seconds = sys.argv[1:]
    serve(Job(side, Path(source), Path(target), int(rate), float(seconds)))
