"""Processes of this machine as an executor."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import torch


@contextlib.contextmanager
def pool() -> Iterator[Executor]:
    """A process for each core, with one thread of torch's. They take seconds to start.

    What has not begun when the block ends is dropped; they end with it, or with this process where it
    is killed.
    """
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not outlive a fork
    executor = ProcessPoolExecutor(os.cpu_count(), spawn, _begin, (os.getpid(),))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """What each process does first."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asked hears Ctrl-C
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
