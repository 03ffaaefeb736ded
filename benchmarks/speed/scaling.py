"""Scaling: speed with 1 and 2 processes, memory with 1,000 and 10,000 clips.

    python benchmarks/speed/scaling.py --out scaling.json
    python benchmarks/speed/scaling.py --no-speed

Training runs a preset with one thread per process: in one process; in two that share its batches; in
two that share batches twice as large; and, because two cores may be less than twice as fast as one,
in two independent trainings at once. Memory is the peak of a process's anonymous memory (mapped files
excluded), sampled a hundred times a second, with small networks so that growth is visible. The
recordings are those of the Free Spoken Digit Dataset, repeated under other names.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import tyro

from audiovq.config.autoencoder import AutoencoderConfig, BottleneckConfig, NetworkConfig
from audiovq.config.presets import PRESETS
from audiovq.config.settings import OptimizerConfig, PriorConfig
from audiovq.config.settings import TrainConfig as Config
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.runtime.files import read_json, write_json
from benchmarks.provenance import stamp

ROOT = Path(__file__).resolve().parents[2]
SPAWN = multiprocessing.get_context("spawn")
SMALL = Config(
    AutoencoderConfig(
        NetworkConfig(channels=16, encoder_blocks=1, decoder_blocks=1),
        BottleneckConfig(latent_dim=16),
    ),
    PriorConfig(dim=32, layers=2, heads=2),
    autoencoder_training=OptimizerConfig(steps=300, validate_every=300),
    prior_training=OptimizerConfig(steps=300, validate_every=300),
)
"""A complete training with networks that need little memory."""
FILES, TRAINED = 3_000, 1_000
"""Recordings for measuring speed: of preprocessing, of training."""
STAGES = "autoencoder_training", "prior_training"
STEPPED = "autoencoder", "prior"
Figures = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """Measure speed and memory."""

    recordings: Path = ROOT.parent / "shared" / "fsdd" / "recordings"
    """Folder of WAVs, without subfolders."""
    preset: Literal["tiny", "small", "base"] = "small"
    workers: tuple[str, ...] = ("1 threads", "2 threads", "1 copies", "2 copies", "2 processes")
    """Executors of preprocessing to compare; starting processes counts."""
    steps: int = 100
    """Training steps of each stage, for measuring speed."""
    clips: tuple[int, ...] = (1_000, 10_000)
    """Clips of the datasets, for measuring memory."""
    speed: bool = True
    """Measure speed."""
    memory: bool = True
    """Measure memory."""
    out: Path | None = None
    """JSON file for the figures; figures of other parts already in it stay."""


@contextlib.contextmanager
def anonymous_peak() -> Iterator[Callable[[], float]]:
    """Sample this process's anonymous memory while the block runs; the yielded function gives the peak in
    MiB."""
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            status = Path("/proc/self/status").read_text()
            peak = max(peak, *map(int, re.findall(r"RssAnon:\s*(\d+)", status)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak / 1024
    finally:
        ended.set()
        thread.join()


def in_new_process(work: Callable[..., Figures], *arguments: Any) -> Figures:
    """The result of `work` in a new process with one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(1, SPAWN) as one:
        return one.submit(work, *arguments).result()


def silent(_: str) -> None:
    """Print nothing."""


def link_recordings(source: Path, target: Path, count: int) -> Path:
    """Make a folder of `count` links to recordings."""
    target.mkdir()
    paths = sorted(source.glob("*.wav"))[::6]  # few, so that all folders hold similar lengths
    for number in range(count):
        path = paths[number % len(paths)]
        (target / f"{number // len(paths)}-{path.name}").symlink_to(path.resolve())
    return target


def measure_preprocess(source: Path, target: Path, workers: str) -> Figures:
    """Seconds and MiB of preprocessing by `workers`: `2 threads`, `1 processes`, `2 copies` and so on."""
    from audiovq.preprocessing.preprocess import preprocess

    count, kind = workers.split()
    config = PreprocessConfig(validation_share=0.05)
    with anonymous_peak() as peak:
        pool: Executor = ThreadPoolExecutor(int(count))
        if kind == "processes":
            pool = ProcessPoolExecutor(int(count), SPAWN)
        if kind == "copies":  # forked: this process has no torch
            pool = ProcessPoolExecutor(int(count), multiprocessing.get_context("fork"))
        with pool as executor:
            begin = time.perf_counter()
            preprocess(source, target, config, executor=executor, say=silent)
            seconds = time.perf_counter() - begin
    return {"seconds": seconds, "mib": peak()}


def measure_train(
    dataset: Path, model: Path, config: Config, environment: dict[str, str]
) -> Figures:
    """MiB of one rank, and its milliseconds per step of each stage."""
    os.environ |= environment
    from audiovq.training.loop import Trainer
    from audiovq.training.run import train

    begins: dict[str, list[float]] = {}
    real_step = Trainer._step

    def step(self: Trainer, *arguments: Any) -> Any:
        begins.setdefault(self.stage, []).append(time.perf_counter())
        return real_step(self, *arguments)

    with anonymous_peak() as peak, mock.patch.object(Trainer, "_step", step):
        train(dataset, model, config, device="cpu", say=silent)
    figures = {"mib": peak()}
    for stage, times in begins.items():  # from the tenth step on, after the warm-up
        figures[stage] = 1000 * (times[-1] - times[10]) / (len(times) - 11)
    return figures


def train_with_ranks(ranks: int, dataset: Path, model: Path, config: Config) -> Figures:
    """Milliseconds per step with this number of ranks, measured on rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environments = [
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for rank in range(ranks)
    ]
    with ThreadPoolExecutor(ranks) as pool:
        futures = [
            pool.submit(in_new_process, measure_train, dataset, model, config, environment)
            for environment in environments
        ]
        return futures[0].result()


def train_two_at_once(dataset: Path, model: Path, config: Config) -> Figures:
    """Milliseconds per step while an independent second training runs."""
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(train_with_ranks, 1, dataset, model.with_name(f"{model.name}-{i}"), config)
            for i in range(2)
        ]
        return futures[0].result()


def speeds(settings: Settings, source: Path, work: Path) -> dict[str, Any]:
    """Files per second by threads and processes; milliseconds per step by 1 and 2 ranks."""
    found: dict[str, Any] = {}
    for workers in settings.workers:
        figures = in_new_process(measure_preprocess, source, work / workers, workers)
        found[f"preprocess, {workers}"] = {"files_per_second": FILES / figures["seconds"]}
        print(json.dumps(found), flush=True)
    preset = PRESETS[settings.preset]
    few = {
        stage: replace(getattr(preset, stage), steps=settings.steps, validate_every=settings.steps)
        for stage in STAGES
    }
    config = replace(preset, max_minutes=None, **few)
    few_clips = work / "few"
    in_new_process(
        measure_preprocess,
        link_recordings(settings.recordings, work / "few-recordings", TRAINED),
        few_clips,
        "2 threads",
    )
    twice = replace(
        config,
        **{
            stage: replace(getattr(config, stage), batch_size=2 * getattr(config, stage).batch_size)
            for stage in STAGES
        },
    )
    trainings: dict[str, Callable[[], Figures]] = {
        "one": lambda: train_with_ranks(1, few_clips, work / "one", config),
        "two, the same batches": lambda: train_with_ranks(2, few_clips, work / "two", config),
        "two, batches twice as large": lambda: train_with_ranks(
            2, few_clips, work / "twice", twice
        ),
        "two apart": lambda: train_two_at_once(few_clips, work / "apart", config),
    }
    for name, work_of in trainings.items():
        figures = work_of()
        found[f"train, {name}"] = {f"{stage}_ms": figures[stage] for stage in STEPPED}
        print(json.dumps(found), flush=True)
    return found


def memories(settings: Settings, work: Path) -> dict[str, Any]:
    """MiB without mapped files, and MiB of the mapped files."""
    found: dict[str, Any] = {}
    for count in settings.clips:
        source = link_recordings(settings.recordings, work / f"recordings-{count}", count)
        target = work / f"dataset-{count}"
        found[f"preprocess, {count:,} clips"] = {
            "mib": in_new_process(measure_preprocess, source, target, "2 threads")["mib"]
        }
        mapped = sum(path.stat().st_size for path in target.glob("*.npy")) / 2**20
        training = in_new_process(measure_train, target, work / f"small-{count}", SMALL, {})
        found[f"train, {count:,} clips"] = {"mib": training["mib"], "mapped_mib": mapped}
        print(json.dumps(found), flush=True)
    return found


def main(settings: Settings) -> None:
    """Measure, print, and write if asked to."""
    figures: dict[str, Any] = {}
    if settings.out and settings.out.exists():
        figures = read_json(settings.out, "a folder of results")
    figures |= stamp()
    with tempfile.TemporaryDirectory() as folder:
        if settings.memory:
            figures["memory"] = memories(settings, Path(folder))
        if settings.speed:
            source = Path(folder) / "recordings"
            figures["speed"] = figures.get("speed", {}) | speeds(
                settings, link_recordings(settings.recordings, source, FILES), Path(folder)
            )
    print(json.dumps(figures, indent=2))
    if settings.out:
        write_json(settings.out, figures)


if __name__ == "__main__":
    main(tyro.cli(Settings))
