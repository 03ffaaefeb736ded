"""Preprocessing on a Dask cluster and in process pools: the bytes of a local run, also if workers die."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from audiovq.cli.main import main
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset
from audiovq.preprocessing import preprocess as preprocess_module
from audiovq.preprocessing.preprocess import Limits, preprocess
from audiovq.preprocessing.shard import ShardJob, make_shard
from audiovq.runtime.executors import cluster

distributed = pytest.importorskip("distributed", reason="Dask is not installed")
SMALL_SHARDS = Limits(files_per_shard=4)
pytestmark = pytest.mark.filterwarnings("ignore")  # of Dask, for ports and lost workers


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def quiet(_: str) -> None:
    pass


def fatal(job: ShardJob) -> int:
    """Make a shard; the first process to make the second shard is killed halfway."""
    mark = job.target.parent.parent / "killed"
    if job.name == "train-00001" and not mark.exists():
        mark.write_text(str(os.getpid()))
        (job.target / f"{job.name}.npy").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return make_shard(job)


def elsewhere(job: ShardJob) -> int:
    """Make a shard, and log the process's id."""
    with open(job.target.parent.parent / "makers", "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    return make_shard(job)


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    """A scheduler and two worker processes on this machine."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as local:
        yield local


def test_a_cluster_gives_the_bytes_of_a_local_run_even_if_a_worker_is_killed(
    recordings: Path, tmp_path: Path, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess(recordings, tmp_path / "local", say=quiet, limits=SMALL_SHARDS)
    monkeypatch.setattr(preprocess_module, "make_shard", fatal)
    with cluster(workers.scheduler_address) as executor:
        preprocess(recordings, tmp_path / "far", executor=executor, say=quiet, limits=SMALL_SHARDS)
    assert (tmp_path / "killed").exists(), "no worker was killed"
    assert len(Dataset(tmp_path / "far").header["splits"]["train"]["shards"]) > 2
    assert content(tmp_path / "far") == content(tmp_path / "local")


def test_the_command_runs_its_work_on_the_cluster(
    recordings: Path,
    dataset_folder: Path,
    tmp_path: Path,
    workers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preprocess_module, "local_executor", None)  # no local work
    monkeypatch.chdir(tmp_path)  # not the workers' folder
    arguments = ["preprocess", str(recordings), "far", "--cluster", workers.scheduler_address]
    assert main(arguments) == 0
    assert content(tmp_path / "far") == content(dataset_folder)


def test_an_unreachable_cluster_raises_in_one_line() -> None:
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        with pytest.raises(AudiovqError, match=f"--cluster {address}: no scheduler") as caught:
            cluster(address, timeout=0.2).__enter__()
        assert "\n" not in str(caught.value)


def test_a_cluster_without_workers_raises_in_one_line() -> None:
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=None, silence_logs=50
        ) as empty,
        pytest.raises(AudiovqError, match=r"has no workers; start some$"),
    ):
        cluster(empty.scheduler_address, timeout=0.2).__enter__()


@pytest.mark.slow
def test_many_shards_are_made_by_processes_with_the_same_bytes(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess(recordings, tmp_path / "threads", say=quiet, limits=SMALL_SHARDS)
    monkeypatch.setattr(preprocess_module, "make_shard", elsewhere)
    limits = Limits(files_per_shard=4, process_shards=2)
    preprocess(recordings, tmp_path / "processes", processes=True, say=quiet, limits=limits)
    makers = {int(pid) for pid in (tmp_path / "makers").read_text().split()}
    assert os.getpid() not in makers
    assert content(tmp_path / "processes") == content(tmp_path / "threads")


@pytest.mark.slow
def test_a_killed_pool_process_raises_in_one_line_and_the_next_run_resumes(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess(recordings, tmp_path / "local", say=quiet, limits=SMALL_SHARDS)
    target = tmp_path / "pool"
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with monkeypatch.context() as patch, ProcessPoolExecutor(1, spawn) as pool:
        patch.setattr(preprocess_module, "make_shard", fatal)
        with pytest.raises(AudiovqError, match=r"pool: a worker process .* resume"):
            preprocess(recordings, target, executor=pool, say=quiet, limits=SMALL_SHARDS)
    preprocess(recordings, target, say=quiet, limits=SMALL_SHARDS)
    assert content(target) == content(tmp_path / "local")
