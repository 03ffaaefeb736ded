"""A folder of recordings to spectrograms: ours, the tutorial series', and a plain loop.

Each side is a process of its own, which says how long it took once all was imported and one file
done; what the whole process took is told by the clock outside. All make the same grid: linear bins
of the window, clips cut and padded to one length, decibels between 0 and 1.

Ours makes a copy of itself for each core, the others are one process with one thread (on spectrograms
this small torch's threads take longer than they save). So there are two kinds of rows: seconds of one
core's processor time each, which compare the code and hardly depend on what else the machine does, and
seconds by the clock on all cores, which compare what a user waits for.
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
"""Files of stereo noise at 44.1 kHz, half a second to a second and a half."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Job:
    """What a process is asked for."""

    side: str
    source: Path
    target: Path
    rate: int
    seconds: float

    @property
    def samples(self) -> int:
        """Of a clip."""
        return int(self.rate * self.seconds)


def series(job: Job) -> Callable[[list[Path]], None]:
    """The tutorial series' pipeline: librosa throughout, one file at a time."""
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
    """soundfile, torchaudio and torch, as plainly as they are used, one file at a time."""
    import soundfile
    import torch
    import torchaudio

    torch.set_num_threads(1)
    window = torch.hann_window(N_FFT)
    resamplers: dict[int, torchaudio.transforms.Resample] = {}  # each designs its filter once

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
    """`audiovq.preprocess`; it looks for the files itself, and cuts long ones instead of the end."""
    from audiovq.config.settings import PreprocessConfig
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
    """As `np.save`, which could pickle too."""
    with open(path, "wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


SIDES = {"series": series, "loop": loop, "ours": ours}


def serve(job: Job) -> None:
    """What the process of one side does."""
    run = SIDES[job.side](job)
    paths = sorted(job.source.iterdir())
    run(paths[:1])
    begin, busy = time.perf_counter(), processor()
    run(paths)
    print(time.perf_counter() - begin, processor() - busy)


def processor() -> float:
    """Seconds of processor time of this process and of those it has started and seen end."""
    return sum(os.times()[:4])


def started(
    side: str, source: Path, rate: int, seconds: float, one_core: bool
) -> tuple[float, float]:
    """Seconds of a side's whole process, and of its work alone: of processor time, kept to one core, or by
    the clock, on all cores there are."""
    alone = {min(os.sched_getaffinity(0))} if one_core else None
    with tempfile.TemporaryDirectory() as target:
        words = (side, source, target, rate, seconds)
        begin, busy = time.perf_counter(), processor()
        done = subprocess.run(
            [sys.executable, __file__, *map(str, words)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=None if alone is None else lambda: os.sched_setaffinity(0, alone),
        )
        clock, work = map(float, done.stdout.split()[-2:])
        if one_core:
            return processor() - busy, work
        return time.perf_counter() - begin, clock


def synthetic(folder: Path) -> None:
    """SYNTHETIC WAVs of 16 bits."""
    import soundfile

    random = np.random.default_rng(0)
    for number in range(SYNTHETIC):
        samples = random.normal(0, 0.1, (random.integers(22_050, 66_150), 2))
        soundfile.write(folder / f"{number:04d}.wav", samples, 44_100)


def rows() -> Iterator[Row]:
    """The digits as the series reads them, and stereo brought down to speech's rate: on one core each,
    then, where there are more, on all.

    Needs Linux, where a process can be kept to one core.
    """
    for one_core in (True, False) if cores() > 1 else (True,):
        yield from rows_on(one_core)


def rows_on(one_core: bool) -> Iterator[Row]:
    """Those on one core each, or those on all cores."""
    which = "processor time of one core each" if one_core else f"{cores()} processes beside 1"
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
                    [started(side, source, rate, seconds, one_core) for side in ("ours", peer)]
                    for _ in range(ROUNDS)
                ]
                for kind, place, least in (("whole process", 0, 5.0), ("imports excluded", 1, 3.0)):
                    times = [(mine[place], theirs[place]) for mine, theirs in pairs]
                    wanted = least if promised and peer == "series" else None
                    yield row(f"preprocess, {files}, {which}, {kind}", said, times, "s", wanted)


if __name__ == "__main__":
    side, source, target, rate, seconds = sys.argv[1:]
    serve(Job(side, Path(source), Path(target), int(rate), float(seconds)))
