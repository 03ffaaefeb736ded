"""A Dask cluster as an executor of shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor

from audiovq.config import AudiovqError

WAIT_SECONDS = 30
"""For the scheduler to answer, and then for a first worker."""


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """The workers of the scheduler at `address`, such as tcp://head:8786.

    They must see the same folders under the same names, and have the same audiovq. What a worker had
    in hand when it was lost, another does again. Raises AudiovqError where Dask is not installed, no
    scheduler answers, or all workers are lost.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise AudiovqError("--cluster: needs Dask; pip install 'audiovq[cluster]'") from error
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
                f"--cluster {address}: lost its workers; the same command goes on from here"
            ) from error
