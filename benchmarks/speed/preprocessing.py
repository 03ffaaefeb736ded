"""Preprocessing of recordings to spectrograms: ours, the tutorial series' pipeline, and a plain loop.

Each side runs in a separate process, which imports everything once and then works on demand. All
sides compute the same grid: linear bins, clips cut and padded to one length, decibels scaled to [0, 1].

On all cores, ours forks a process per core; the peers have one process each.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import numpy as np
import numpy.typing as npt
import soundfile

from audiovq.runtime.executors import cores
from benchmarks.speed.comparison import ONE_CORE, Peer, Row, Run, bind, compare, threads
from benchmarks.speed.sounds import LONGEST, RATE, write_hits

FSDD = Path(__file__).resolve().parents[3] / "shared" / "fsdd" / "recordings"
FILES = {"fsdd": 1500, "hits": 300}
"""Number of files of a source."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Job:
    """The work of each side."""

    side: str
    source: Path
    target: Path
    rate: int
    seconds: float
    n_fft: int
    hop_length: int

    @property
    def samples(self) -> int:
        """Samples of one clip."""
        return int(self.rate * self.seconds)

    def files(self) -> list[Path]:
        """All files of the source."""
        return sorted(path for path in self.source.rglob("*") if path.is_file())


def series(job: Job) -> Run:
    """The tutorial series' pipeline: librosa for each step, one file at a time."""
    import librosa

    def run() -> None:
        for path in job.files():
            signal, _ = librosa.load(path, sr=job.rate, duration=job.seconds, mono=True)
            signal = np.pad(signal, (0, max(0, job.samples - len(signal))), mode="constant")
            spectrum = librosa.stft(signal, n_fft=job.n_fft, hop_length=job.hop_length)[:-1]
            decibels = librosa.amplitude_to_db(np.abs(spectrum))
            low, high = decibels.min(), decibels.max()
            _save(job.target / f"{path.name}.npy", (decibels - low) / (high - low))

    return run


@functools.cache
def _resampler(rate: int, to_rate: int) -> Any:
    """torchaudio's resampler, with the filter of two rates."""
    from torchaudio.transforms import Resample

    return Resample(rate, to_rate)


def loop(job: Job) -> Run:
    """A plain loop with soundfile, torchaudio and torch, one file at a time."""
    import torch
    import torchaudio

    window = torch.hann_window(job.n_fft)

    def run() -> None:
        for path in job.files():
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            signal = torch.from_numpy(samples).mean(dim=1)
            signal = _resampler(rate, job.rate)(signal)[: job.samples]
            signal = torch.nn.functional.pad(signal, (0, job.samples - len(signal)))
            spectrum = torch.stft(
                signal, job.n_fft, job.hop_length, window=window, return_complex=True
            )[:-1]
            decibels = torchaudio.functional.amplitude_to_DB(spectrum.abs(), 20, 1e-5, 0, 80)
            low, high = decibels.min(), decibels.max()
            _save(job.target / f"{path.name}.npy", ((decibels - low) / (high - low)).numpy())

    return run


def ours(job: Job) -> Run:
    """`audiovq.preprocess`, which finds the files itself; mono and without the search for near copies, as the peers."""
    from audiovq.config.spectrogram import PreprocessConfig
    from audiovq.preprocessing.preprocess import preprocess

    config = PreprocessConfig(
        sample_rate=job.rate,
        clip_seconds=job.seconds,
        n_fft=job.n_fft,
        hop_length=job.hop_length,
        n_mels=0,
        trim=False,
        channels="mono",
    )
    numbers = (job.target / str(number) for number in range(10**9))
    return lambda: preprocess(job.source, next(numbers), config, near=False, say=_nothing)


def _nothing(_: str) -> None:
    """Say nothing."""


def _save(path: Path, array: Array) -> None:
    """`np.save` that refuses to pickle."""
    with open(path, "wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


SIDES: dict[str, Callable[[Job], Run]] = {
    "series": series,
    "loop": loop,
    "ours": ours,
}
PEERS = {
    "series": "the series' pipeline",
    "loop": "torchaudio, soundfile, filter kept",
}


def serve(job: Job) -> None:
    """Do the work once for each line of standard input, the cores and number of threads to use."""
    run = SIDES[job.side](job)
    for line in sys.stdin:
        numbers = list(map(int, line.split()))
        bind(set(numbers[1:]))
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(numbers[0])
        run()
        print(flush=True)


class Side:
    """A process that does the work of one side on demand, on the cores and threads of this process."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        words = map(str, (job.side, job.source, job.target, job.rate, job.seconds))
        grid = map(str, (job.n_fft, job.hop_length))
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, __file__, *words, *grid],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        stack.callback(self.process.kill)

    def __call__(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(threads(), *os.sched_getaffinity(0), file=self.process.stdin, flush=True)
        if not self.process.stdout.readline():
            raise RuntimeError(f"a side of the comparison has failed: {self.process.args!r}")


def rows(sounds: Path | None = None) -> Iterator[Row]:
    """The digits at the series' rate, then hits at 44.1 kHz: mono files, stereo files, and `sounds`.

    Needs Linux, which can bind a process to one core.
    """
    with tempfile.TemporaryDirectory() as folder:
        digits, mono, stereo = (Path(folder) / name for name in ("digits", "mono", "stereo"))
        write_hits(mono, FILES["hits"], 1)
        write_hits(stereo, FILES["hits"], 2)
        wide = RATE, LONGEST, 2048, 512
        if FSDD.is_dir():
            digits.mkdir()
            recordings = sorted(FSDD.iterdir())
            for path in recordings[:: max(1, len(recordings) // FILES["fsdd"])]:
                (digits / path.name).symlink_to(path)
            yield from rows_on(digits, "digits", 22_050, 0.74, 512, 256, 4)
        yield from rows_on(mono, "mono files", *wide, None)
        yield from rows_on(stereo, "stereo files", *wide, 3)
        if sounds is not None:
            excerpts = Path(folder) / "excerpts"
            write_excerpts(sounds, excerpts)
            yield from rows_on(excerpts, f"files of {sounds.name}", *wide, None)


def write_excerpts(source: Path, target: Path) -> None:
    """The first LONGEST seconds of each recording as 16-bit WAVs of their rates and channels.

    The peers read no more of a recording, whereas ours codes all of it.
    """
    target.mkdir()
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        with soundfile.SoundFile(path) as file:
            samples = file.read(int(LONGEST * file.samplerate), dtype="float32")
            soundfile.write(target / f"{number:05}.wav", samples, file.samplerate, "PCM_16")


def rows_on(
    source: Path,
    what: str,
    rate: int,
    seconds: float,
    n_fft: int,
    hop_length: int,
    wanted: float | None,
) -> Iterator[Row]:
    """Rows of one folder; `wanted` is the target against the series' pipeline on one core."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = {}
        for side in SIDES:
            target = Path(folder) / side
            target.mkdir()
            job = Job(side, source, target, rate, seconds, n_fft, hop_length)
            sides[side] = Side(job, stack)
        count = len(job.files())
        peers = [
            Peer(said, sides[side], wanted if side == "series" else None, ONE_CORE, threads=(1,))
            for side, said in PEERS.items()
        ]
        name = f"preprocess, {count:,} {what} to {rate:,} Hz"
        yield from compare(name, sides["ours"], *peers, rounds=2, workers=cores)


if __name__ == "__main__":
    side, source, target, *numbers = sys.argv[1:]
    grid = int(numbers[0]), float(numbers[1]), int(numbers[2]), int(numbers[3])
    serve(Job(side, Path(source), Path(target), *grid))
