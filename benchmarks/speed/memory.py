"""Peak memory of one call, on each side, in a new process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.speed.comparison import ALONE, Row, Run, row


def compare_peaks(
    name: str, peer: str, ours: Callable[[], Run], theirs: Callable[[], Run], wanted: float | None
) -> Row:
    """Compare the peak memory (MiB) of one call beyond the memory allocated before it.

    Each side runs in a new process, where `ours` or `theirs` (module-level functions) makes the
    function to be measured.
    """
    return row(name, peer, [(_peak_apart(ours), _peak_apart(theirs))], "MiB", wanted, ALONE)


def _peak_apart(make: Callable[[], Run]) -> float:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, make).result()


def _peak(make: Callable[[], Run]) -> float:
    import torch

    run = make()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 2**10


def _resident(kind: str) -> int:
    """Resident memory of this process in KiB: current (VmRSS) or peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0])
