"""Executors: where there can be no processes, threads do the work; Ctrl-C while one starts."""

import multiprocessing.synchronize
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime import executors as pool_module
from audiovq.runtime.executors import local_executor, process_pool


@pytest.fixture
def no_semaphores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that can fork, but where /dev/shm is not writable."""

    def closed(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", closed)
    monkeypatch.setattr(pool_module, "can_fork", lambda: True)


@pytest.mark.usefixtures("no_semaphores")
def test_without_semaphores_the_executor_uses_threads() -> None:
    for made in (local_executor(), process_pool("fork"), process_pool("spawn")):
        with made as executor:
            assert isinstance(executor, ThreadPoolExecutor)
            assert list(executor.map(abs, [-1, 2])) == [1, 2]


@pytest.mark.usefixtures("no_semaphores")
def test_without_semaphores_preprocessing_works(recordings: Path, tmp_path: Path) -> None:
    summary = preprocess(recordings, tmp_path / "out", processes=True, say=lambda line: None)
    assert summary.used == 24


class Interrupted(ThreadPoolExecutor):
    """An executor that Ctrl-C meets while it starts, and that cannot be shut down where that ended its start."""

    is_started = is_ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        signal.raise_signal(signal.SIGINT)
        self.is_started = True
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        assert self.is_started, "cannot join thread before it is started"
        self.is_ended = True
        super().shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.parametrize("make", [local_executor, process_pool])
def test_ctrl_c_while_an_executor_starts_stops_the_program_after_its_start(
    make: Callable[[], AbstractContextManager[Executor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, before = Interrupted(1), signal.default_int_handler
    ignored = signal.signal(
        signal.SIGINT, before
    )  # as in a terminal; side by side, tests ignore it
    monkeypatch.setattr(pool_module, "can_fork", lambda: True)
    monkeypatch.setattr(pool_module, "_processes", lambda start: executor)
    try:
        with pytest.raises(KeyboardInterrupt), make():
            pytest.fail("the block runs after Ctrl-C")
        assert executor.is_ended
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, ignored)


def test_an_executor_starts_in_any_thread() -> None:
    def work() -> int:
        with local_executor() as executor:
            return executor.submit(abs, -2).result()

    with ThreadPoolExecutor(1) as other:
        assert other.submit(work).result() == 2
