"""Executors: where there can be no processes, threads do the work."""

import multiprocessing.synchronize
from concurrent.futures import ThreadPoolExecutor
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
