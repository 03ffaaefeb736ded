"""Threads and processes of this machine as an executor."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Literal


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def can_fork() -> bool:
    """Whether copies of this process can work: on Linux, with one thread, and without torch, whose own
    threads do not outlive a fork."""
    alone = len(sys._current_frames()) == 1
    return sys.platform == "linux" and alone and "torch" not in sys.modules


@contextlib.contextmanager
def quick() -> Iterator[Executor]:
    """What starts at once: copies of this process, one for each core, where it `can_fork`; else threads,
    which wait for each other in Python."""
    with _ending(_processes("fork") if can_fork() else ThreadPoolExecutor(cores())) as executor:
        executor.submit(os.getpid)  # processes are copied now, while there is little to copy
        yield executor


@contextlib.contextmanager
def pool(start: Literal["fork", "spawn"] = "spawn") -> Iterator[Executor]:
    """A process for each core: copies of this one, or new ones, which take a second to start.

    What has not begun when the block ends is dropped; they end with it, or with this process where it
    is killed. Where there can be no processes, threads.
    """
    with _ending(_processes(start)) as executor:
        yield executor


def _processes(start: Literal["fork", "spawn"]) -> Executor:
    context = multiprocessing.get_context(start)
    try:
        return ProcessPoolExecutor(cores(), context, _begin, (os.getpid(),))
    except (OSError, ImportError, NotImplementedError):
        return ThreadPoolExecutor(cores())  # no semaphores: /dev/shm is closed, say


@contextlib.contextmanager
def _ending(executor: Executor) -> Iterator[Executor]:
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """What each process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asked hears Ctrl-C
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
