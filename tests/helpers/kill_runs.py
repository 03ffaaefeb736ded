"""Runs preprocess or training, kills it again and again, and compares the end with a straight run.

    python kill_runs.py preprocess|train SOURCE FOLDER KILLS

A process that has only imported everything forks each run, so that kills hit the work and not the
start. Prints how often a run was killed, and how often one ended before that.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fast_training import CONFIG, fit_briefly

from audiovq.dataset.dataset import Dataset
from audiovq.preprocessing import preprocess as preprocess_module
from audiovq.preprocessing.preprocess import preprocess
from audiovq.training.run import train
from audiovq.training.stage import Limits
from audiovq.training.stages.context import CHECKS

SHORT = {"steps": 16, "validate_every": 4}
OFTEN_SAVED = replace(
    CONFIG,
    autoencoder_training=replace(CONFIG.autoencoder_training, **SHORT),
    prior_training=replace(CONFIG.prior_training, **SHORT),
)
SHORTER = Limits(sample_every=2.0, context_steps=CHECKS)
"""Without samples, which import the most modules and are no part of the model, and most of fitting the context tables."""
SLOW_IMPORTS = "soundfile", "soxr", "torchaudio.functional", "matplotlib.image", "torch._dynamo"


def work(stage: str, source: Path, target: Path) -> None:
    if stage == "preprocess":
        limits = preprocess_module.Limits(files_per_shard=5)
        preprocess(source, target, limits=limits, say=lambda line: None)
    else:
        dataset = Dataset(source)
        train(
            dataset,
            target,
            OFTEN_SAVED,
            device="cpu",
            say=lambda line: None,
            limits=SHORTER,
        )


def start(job: Callable[[], None]) -> int:
    """The number of a new process that does the job, and exits with 0 where it does it well."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        torch.set_num_threads(1)
        job()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def finish(process: int) -> None:
    _, status = os.waitpid(process, 0)
    if status:
        raise SystemExit("a run failed")


def content(folder: Path) -> dict[str, Any]:
    """Of a dataset, or of a model short of what is there to go on training and to tell the time."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and (path.suffix == ".tmp" or "training" not in path.relative_to(folder).parts)
    }
    if "model.json" in found:
        header = without_seconds(json.loads(found["model.json"]))
        header.pop("sha256", None)  # of the file itself, and so of the seconds in it
        found["model.json"] = header
    return found


def without_seconds(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: without_seconds(value) for key, value in data.items() if key != "seconds"}
    return data


def main(stage: str, source: Path, folder: Path, asked: int) -> None:
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    fit_briefly()
    begun = time.perf_counter()
    finish(start(lambda: work(stage, source, folder / "straight")))
    length = time.perf_counter() - begun
    straight = content(folder / "straight")
    target = folder / "killed"
    moments = random.Random(1)
    kills = ends = 0
    while True:
        process = start(lambda: work(stage, source, target))
        if kills < asked:
            time.sleep(moments.uniform(0, length))
            if os.waitpid(process, os.WNOHANG) == (0, 0):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                kills += 1
                continue
        else:
            finish(process)
        ends += 1
        found = content(target)
        different = [name for name in straight | found if straight.get(name) != found.get(name)]
        if different:
            raise SystemExit(f"after {kills} kills: {', '.join(different)} differ")
        if kills == asked:
            break
        shutil.rmtree(target)
    print(f"{kills} kills, {ends} ends, a straight run takes {length:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
