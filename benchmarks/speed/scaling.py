"""What more processes and more recordings cost: speed of 1 and 2, memory of 1,000 and 10,000 clips.

    python benchmarks/speed/scaling.py --out scaling.json
    python benchmarks/speed/scaling.py --no-speed

Training is that of a preset, a thread for each process: by one; by two that share its batches; by two that
share batches twice as large; and, since two cores may be worth less than twice one, by two that
have nothing to do with each other. Memory is what a process
holds at most beyond the pages of mapped files, measured a hundred times a second, with networks
that are small so that what grows is seen. Recordings are those of the Free Spoken Digit Dataset, again
and again under other names.
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

from audiovq.config.presets import PRESETS
from audiovq.config.settings import (
    AutoencoderConfig,
    OptimizerConfig,
    PreprocessConfig,
    PriorConfig,
)
from audiovq.config.settings import TrainConfig as Config
from audiovq.runtime.files import read_json, write_json
from benchmarks.provenance import stamp

ROOT = Path(__file__).resolve().parents[2]
SPAWN = multiprocessing.get_context("spawn")
SMALL = Config(
    AutoencoderConfig(channels=16, encoder_blocks=1, decoder_blocks=1, latent_dim=16),
    PriorConfig(dim=32, layers=2, heads=2),
    autoencoder_training=OptimizerConfig(steps=300, validate_every=300),
    prior_training=OptimizerConfig(steps=300, validate_every=300),
)
"""All that training does, with networks that take next to no memory."""
FILES, TRAINED = 3_000, 1_000
"""Recordings by which speed is measured: those made into a dataset, those trained on."""
STAGES = "autoencoder_training", "prior_training"
STEPPED = "autoencoder", "prior"
Figures = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """Measure speed and memory."""

    recordings: Path = ROOT.parent / "shared" / "fsdd" / "recordings"
    """Folder of WAVs, of one level."""
    preset: Literal["tiny", "small", "base"] = "small"
    workers: tuple[str, ...] = ("1 threads", "2 threads", "1 copies", "2 copies", "2 processes")
    """That make a dataset, in measuring speed; the time in which processes start counts."""
    steps: int = 100
    """Of each stage, in measuring speed."""
    clips: tuple[int, ...] = (1_000, 10_000)
    speed: bool = True
    memory: bool = True
    out: Path | None = None
    """Write the figures as JSON, together with what the file holds already."""


@contextlib.contextmanager
def anonymous_peak() -> Iterator[Callable[[], float]]:
    """Measures while the block runs; then tells the most MiB that this process held for itself."""
    most, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.01):
            status = Path("/proc/self/status").read_text()
            most = max(most, *map(int, re.findall(r"RssAnon:\s*(\d+)", status)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: most / 1024
    finally:
        ended.set()
        thread.join()


def apart(work: Callable[..., Figures], *arguments: Any) -> Figures:
    """What the work gives in a new process with one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(1, SPAWN) as one:
        return one.submit(work, *arguments).result()


def silent(_: str) -> None:
    """Says nothing."""


def collected(source: Path, target: Path, count: int) -> Path:
    """A folder of `count` links to recordings."""
    target.mkdir()
    paths = sorted(source.glob("*.wav"))[::6]  # few, so that all folders hold clips of like lengths
    for number in range(count):
        path = paths[number % len(paths)]
        (target / f"{number // len(paths)}-{path.name}").symlink_to(path.resolve())
    return target


def made(source: Path, target: Path, workers: str) -> Figures:
    """Seconds and memory of preprocessing by `2 threads`, `1 processes`, `2 copies` and so on."""
    from audiovq.preprocessing.preprocess import preprocess

    count, kind = workers.split()
    config = PreprocessConfig(validation_share=0.05)
    with anonymous_peak() as peak:
        pool: Executor = ThreadPoolExecutor(int(count))
        if kind == "processes":
            pool = ProcessPoolExecutor(int(count), SPAWN)
        if kind == "copies":  # this process has no torch
            pool = ProcessPoolExecutor(int(count), multiprocessing.get_context("fork"))
        with pool as executor:
            begin = time.perf_counter()
            preprocess(source, target, config, executor=executor, say=silent)
            seconds = time.perf_counter() - begin
    return {"seconds": seconds, "mib": peak()}


def trained(dataset: Path, model: Path, config: Config, environment: dict[str, str]) -> Figures:
    """Memory of one rank, and the milliseconds that a step of each stage took it."""
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
    for stage, times in begins.items():  # from the tenth step on: the first ones warm up
        figures[stage] = 1000 * (times[-1] - times[10]) / (len(times) - 11)
    return figures


def trained_by(ranks: int, dataset: Path, model: Path, config: Config) -> Figures:
    """Milliseconds of a step with so many processes, as the first of them sees it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [
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
        futures = [pool.submit(apart, trained, dataset, model, config, place) for place in places]
        return futures[0].result()


def at_once(dataset: Path, model: Path, config: Config) -> Figures:
    """Milliseconds of a step while another training, of another model, goes on."""
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(trained_by, 1, dataset, model.with_name(f"{model.name}-{i}"), config)
            for i in range(2)
        ]
        return futures[0].result()


def speeds(settings: Settings, source: Path, work: Path) -> dict[str, Any]:
    """Files a second by threads and processes; milliseconds a step by 1 and 2 ranks."""
    found: dict[str, Any] = {}
    for workers in settings.workers:
        figures = apart(made, source, work / workers, workers)
        found[f"preprocess, {workers}"] = {"files_per_second": FILES / figures["seconds"]}
        print(json.dumps(found), flush=True)
    preset = PRESETS[settings.preset]
    few = {
        stage: replace(getattr(preset, stage), steps=settings.steps, validate_every=settings.steps)
        for stage in STAGES
    }
    config = replace(preset, max_minutes=None, **few)
    few_clips = work / "few"
    apart(
        made,
        collected(settings.recordings, work / "few-recordings", TRAINED),
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
        "one": lambda: trained_by(1, few_clips, work / "one", config),
        "two, the same batches": lambda: trained_by(2, few_clips, work / "two", config),
        "two, batches twice as large": lambda: trained_by(2, few_clips, work / "twice", twice),
        "two apart": lambda: at_once(few_clips, work / "apart", config),
    }
    for name, work_of in trainings.items():
        figures = work_of()
        found[f"train, {name}"] = {f"{stage}_ms": figures[stage] for stage in STEPPED}
        print(json.dumps(found), flush=True)
    return found


def memories(settings: Settings, work: Path) -> dict[str, Any]:
    """MiB beyond mapped files, and the MiB of the files that are mapped."""
    found: dict[str, Any] = {}
    for count in settings.clips:
        source = collected(settings.recordings, work / f"recordings-{count}", count)
        target = work / f"dataset-{count}"
        found[f"preprocess, {count:,} clips"] = {
            "mib": apart(made, source, target, "2 threads")["mib"]
        }
        mapped = sum(path.stat().st_size for path in target.glob("*.npy")) / 2**20
        training = apart(trained, target, work / f"small-{count}", SMALL, {})
        found[f"train, {count:,} clips"] = {"mib": training["mib"], "mapped_mib": mapped}
        print(json.dumps(found), flush=True)
    return found


def main(settings: Settings) -> None:
    """Measure, print, and write what was asked for."""
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
                settings, collected(settings.recordings, source, FILES), Path(folder)
            )
    print(json.dumps(figures, indent=2))
    if settings.out:
        write_json(settings.out, figures)


if __name__ == "__main__":
    main(tyro.cli(Settings))
