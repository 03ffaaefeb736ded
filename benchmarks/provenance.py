"""Provenance of a measurement: machine, date, and commit of the measured code."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def machine() -> str:
    """One line: cores, threads, system, torch version and GPU."""
    import torch  # not above: a measured process may run without torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads,"
        f" {platform.system()},"
        f" torch {torch.__version__}, {gpu}"
    )


def today() -> str:
    """Today's date, ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit() -> str:
    """The short hash of the checked-out commit, followed by + if the package differs from it; empty
    outside a git repository."""
    try:
        head = _git("rev-parse", "--short=7", "HEAD").strip()
        return head + ("+" if _git("status", "--porcelain", "--", "audiovq").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def stamp() -> dict[str, str]:
    """`machine`, `date` and `commit` for a results file."""
    return {"machine": machine(), "date": today(), "commit": commit()}


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
