"""Executors: threads and processes on this machine, or the workers of a cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Literal

from audiovq.config.errors import AudiovqError


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def can_fork() -> bool:
    """Whether this process may be forked: on Linux, with one thread, and without torch, whose threads do
    not survive a fork."""
    single = len(sys._current_frames()) == 1
    return sys.platform == "linux" and single and "torch" not in sys.modules


@contextlib.contextmanager
def local_executor() -> Iterator[Executor]:
    """Executor that starts at once: forked processes, one per core, if this one `can_fork`; else threads,
    which share Python's lock."""
    with _ending(_processes("fork") if can_fork() else ThreadPoolExecutor(cores())) as executor:
        yield executor


@contextlib.contextmanager
def process_pool(start: Literal["fork", "spawn"] = "spawn") -> Iterator[Executor]:
    """Executor with a process per core: forks of this one, or new ones, which take a second to start.

    Threads where the system allows no processes. Jobs that have not started when the block ends are
    cancelled. The processes end with the block, or with this process if it is killed.
    """
    with _ending(_processes(start)) as executor:
        yield executor


def _processes(start: Literal["fork", "spawn"]) -> Executor:
    context = multiprocessing.get_context(start)
    try:
        return ProcessPoolExecutor(cores(), context, _begin, (os.getpid(),))
    except (OSError, ImportError, NotImplementedError):
        # Processes need semaphores. Where the system has none, as with a closed /dev/shm, threads do the same work.
        return ThreadPoolExecutor(cores())


@contextlib.contextmanager
def _ending(executor: Executor) -> Iterator[Executor]:
    """Start the executor, fork its processes while this one is small, and end them with the block."""
    try:
        # An executor that Ctrl-C stops while it starts its thread cannot be ended.
        with _uninterrupted():
            executor.submit(os.getpid)
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block."""
    caught: list[int] = []
    try:
        before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    except ValueError:  # not in the main thread, which alone handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        signal.raise_signal(signal.SIGINT)


def _begin(parent: int) -> None:
    """Initialise a worker process: ignore Ctrl-C, and exit with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Exit once the parent process has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextlib.contextmanager
def cluster(address: str, timeout: float = 30) -> Iterator[Executor]:
    """Executor on the workers of the scheduler at `address`, such as tcp://head:8786.

    `timeout`: seconds to wait for the scheduler, and again for a first worker. Workers must see the same folders at
    the same paths, and have the same version of audiovq. Jobs of a lost worker are repeated by another. Raises
    AudiovqError where Dask is not installed, no scheduler answers, or all workers are lost.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise AudiovqError(
            "--cluster: needs Dask; pip install -e '.[cluster]' in audiovq's folder"
        ) from error
    if ":" not in address:  # Dask would wait, and print a traceback
        raise AudiovqError(f"--cluster {address}: give HOST:PORT, such as tcp://head:8786")
    try:
        client = Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        words = " ".join(str(error).split())
        raise AudiovqError(f"--cluster {address}: no scheduler answers ({words:.100})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=timeout)
            executor = client.get_executor(pure=False)
            try:
                yield executor
            finally:
                executor.shutdown(wait=False)
        except TimeoutError as error:
            raise AudiovqError(f"--cluster {address}: has no workers; start some") from error
        except (KilledWorker, CancelledError) as error:
            raise AudiovqError(
                f"--cluster {address}: lost its workers; run the same command to resume"
            ) from error
