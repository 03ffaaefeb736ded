"""Executor on a Dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor

from audiovq.config import AudiovqError

WAIT_SECONDS = 30
"""Timeout for the scheduler's answer, and again for a first worker."""


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """Executor on the workers of the scheduler at `address`, such as tcp://head:8786.

    Workers must see the same folders at the same paths, and have the same version of audiovq. Jobs of a
    lost worker are repeated by another. Raises AudiovqError where Dask is not installed, no scheduler
    answers, or all workers are lost.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise AudiovqError("--cluster: needs Dask; pip install 'audiovq[cluster]'") from error
    if ":" not in address:  # Dask would wait, and print a traceback
        raise AudiovqError(f"--cluster {address}: give HOST:PORT, such as tcp://head:8786")
    try:
        client = Client(address, timeout=WAIT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        words = " ".join(str(error).split())
        raise AudiovqError(f"--cluster {address}: no scheduler answers ({words:.100})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT_SECONDS)
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
