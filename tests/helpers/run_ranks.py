"""Runs trainings, each in one or several processes that train together as under torchrun.

    python run_ranks.py < RUNS

RUNS is a JSON list of runs, one after another: {"dataset", "model", "ranks", "config", "faults"}.
`config` is a TrainConfig as JSON; `faults` is a list of [rank, stage, step, what happens before it:
"interrupt", "terminate", "kill" or "raise"]. Prints a JSON list of each run's exit codes and what was
said on standard error, by rank. A process that has only imported everything forks the ranks, so that
a run takes no longer than its steps. Each step's stage and loss go to `losses.jsonl` in the model's
folder.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from fast_training import fit_briefly

from audiovq.cli.main import failing
from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import from_json
from audiovq.config.settings import TrainConfig
from audiovq.runtime import distributed
from audiovq.runtime.files import append_line
from audiovq.training.loop import Trainer
from audiovq.training.run import train
from audiovq.training.stage import Limits
from audiovq.training.stages.context import CHECKS

SLOW_IMPORTS = "soundfile", "soxr", "torchaudio.functional", "matplotlib.image", "torch._dynamo"
SHORT = Limits(sample_every=2.0, context_steps=CHECKS)
"""Without what would take longer than the steps: samples, and most of fitting the context tables."""
SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "kill": signal.SIGKILL}


def job(run: dict[str, Any], rank: int) -> int:
    """What one rank does; its exit code."""
    real_step = Trainer._step

    def step(self: Trainer, *arguments: Any) -> Any:
        for who, stage, number, what in run.get("faults", []):
            if (who, stage, number) == (rank, self.stage, self.state.step):
                if what == "raise":
                    raise AudiovqError("the disk is on fire")
                signal.raise_signal(SIGNALS[what])
        scalars, norm = real_step(self, *arguments)
        loss = distributed.all_reduce_floats(scalars["loss"].item())[0] / distributed.world_size()
        if rank == 0:
            append_line(Path(run["model"]) / "losses.jsonl", json.dumps([self.stage, loss]))
        return scalars, norm

    Trainer._step = step
    config = from_json(TrainConfig, run["config"])
    dataset, model = Path(run["dataset"]), Path(run["model"])
    return failing(lambda: train(dataset, model, config, device="cpu", limits=SHORT))


def start(run: dict[str, Any], rank: int, port: int, said: int) -> int:
    """The number of a new process that is one rank of a run."""
    process = os.fork()
    if process:
        return process
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(said, 2)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(run["ranks"]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    status = 1
    try:
        torch.set_num_threads(1)
        status = job(run, rank)
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def finished(run: dict[str, Any]) -> list[tuple[int, str]]:
    """Exit code and standard error of each rank."""
    # As under torchrun, the ranks meet at something that outlives each of them.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(run["ranks"])]
        processes = [start(run, rank, store.port, file.fileno()) for rank, file in enumerate(files)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        for file in files:
            file.seek(0)
        return [(code, file.read()) for code, file in zip(codes, files, strict=True)]


if __name__ == "__main__":
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    fit_briefly()
    print(json.dumps([finished(run) for run in json.load(sys.stdin)]))
