"""Run the speed benchmarks: all of them, or those named.

    python benchmarks/speed/run.py --list
    python benchmarks/speed/run.py quantizer sampling --out benchmarks/results/MACHINE-speed.jsonl
    python benchmarks/speed/run.py training_step sampling inversion --busy

Prints a table, then one JSON object for each row. `comparison.py` says how times are measured;
`docs/performance.md` says what the results mean.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import tyro
from tyro.conf import Positional

from audiovq.config.errors import AudiovqError
from benchmarks.speed.comparison import Row, busy_core, lines, merge, table

BENCHMARKS = (
    "startup",
    "preprocessing",
    "quantizer",
    "inversion",
    "training_step",
    "sampling",
    "pixelcnn",
    "whole",
)
"""Modules of this folder; each has a generator `rows` of comparisons."""


@dataclass(frozen=True)
class Settings:
    """Measure speed."""

    names: Positional[tuple[str, ...]] = ()
    """Benchmarks to run; none: all."""
    list: bool = False
    """List the benchmarks and exit."""
    busy: bool = False
    """Measure beside a process that keeps one core busy, as other programs on a laptop do."""
    out: Path | None = None
    """JSON lines file to add the rows to; rows of the same name are replaced."""


def main(settings: Settings) -> None:
    """Measure, print and write. Raises AudiovqError if a name is unknown."""
    if unknown := set(settings.names) - set(BENCHMARKS):
        raise AudiovqError(
            f"{min(unknown)}: unknown benchmark; choose from {', '.join(BENCHMARKS)}"
        )
    if settings.list:
        print("\n".join(BENCHMARKS))
        return
    rows: list[Row] = []
    with busy_core() if settings.busy else contextlib.nullcontext():
        for name in settings.names or BENCHMARKS:
            try:
                for row in importlib.import_module(f"benchmarks.speed.{name}").rows():
                    if settings.busy:
                        row = replace(row, name=f"{row.name}, beside one busy core")
                    rows.append(row)
                    print(f"{row.name}, against {row.peer}: {row.ratio:.3g}", flush=True)
                    if settings.out is not None:  # now: the next row may take minutes
                        merge(settings.out, [row])
            except (ModuleNotFoundError, AudiovqError) as error:
                print(f"{name}: remaining rows skipped; {error}", flush=True)
    print(f"\n{table(rows)}\n\n{lines(rows)}", end="")


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings, description=__doc__))
    except AudiovqError as error:
        raise SystemExit(f"run: {error}") from error
