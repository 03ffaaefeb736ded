"""Run the speed benchmarks: all of them, or those named.

    python benchmarks/speed/run.py all --out benchmarks/results/DATE-MACHINE-speed.jsonl
    python benchmarks/speed/run.py preprocessing evaluation --sounds FOLDER

`comparison.py` says how times are measured: on one core and on all, alone and beside a process that keeps a core
busy. `docs/make_performance.py` makes the tables of `docs/performance.md` from the rows.
"""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import tyro
from tyro.conf import Positional

from audiovq.config.errors import AudiovqError
from benchmarks.speed import comparison
from benchmarks.speed.comparison import Row, lines, merge, table

BENCHMARKS = (
    "startup",
    "preprocessing",
    "quantizer",
    "inversion",
    "training_step",
    "sampling",
    "pixelcnn",
    "evaluation",
    "stereo",
)
"""Modules of this folder; each has a generator `rows` of comparisons."""


@dataclass(frozen=True)
class Settings:
    """Measure speed."""

    names: Positional[tuple[str, ...]] = ()
    """Benchmarks to run; none or `all`: all."""
    list: bool = False
    """List the benchmarks and exit."""
    sounds: Path | None = None
    """Folder of recordings at 44.1 kHz, for a row of preprocessing and in place of the synthetic hits of evaluation."""
    out: Path | None = None
    """JSON lines file to add the rows to; rows of the same name, peer and condition are replaced."""
    quick: bool = False
    """One short turn of everything, to see that it runs. The figures mean little."""


def main(settings: Settings) -> None:
    """Measure, print and write. Raises AudiovqError if a name is unknown."""
    names = BENCHMARKS if settings.names in ((), ("all",)) else settings.names
    if unknown := set(names) - set(BENCHMARKS):
        raise AudiovqError(
            f"{min(unknown)}: unknown benchmark; choose from {', '.join(BENCHMARKS)}"
        )
    if settings.sounds is not None and not settings.sounds.is_dir():
        raise AudiovqError(f"--sounds {settings.sounds}: give a folder of recordings")
    if settings.list:
        print("\n".join(BENCHMARKS))
        return
    if settings.quick:
        comparison.VISITS = comparison.ROUNDS = 1
        comparison.LEAST_SECONDS = comparison.SETTLE_SECONDS = 0.0
    rows: list[Row] = []
    for name in names:
        begin = time.monotonic()
        try:
            for row in importlib.import_module(f"benchmarks.speed.{name}").rows(settings.sounds):
                rows.append(row)
                print(f"{row.name}, against {row.peer}, {row.condition}: {row.ratio:.3g}")
                if settings.out is not None:  # now: the next row may take minutes
                    merge(settings.out, [row])
        except (ModuleNotFoundError, AudiovqError) as error:
            print(f"{name}: remaining rows skipped; {error}")
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    print(f"\n{table(rows)}\n\n{lines(rows)}", end="")


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings, description=__doc__))
    except AudiovqError as error:
        raise SystemExit(f"run: {error}") from error
