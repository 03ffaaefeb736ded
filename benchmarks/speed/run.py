"""Speed, beside the peers: each benchmark, or those named.

    python benchmarks/speed/run.py --list
    python benchmarks/speed/run.py quantizer sampling --out benchmarks/results/MACHINE-speed.jsonl

Prints a table, then one JSON object a row. How it is measured stands in `comparison.py`; what it
means, in `docs/performance.md`.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import tyro
from tyro.conf import Positional

from audiovq.config.errors import AudiovqError
from benchmarks.speed.comparison import Row, lines, merge, table

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
"""Modules beside this one; `rows` of each gives its comparisons one by one."""


@dataclass(frozen=True)
class Settings:
    """Measure speed."""

    names: Positional[tuple[str, ...]] = ()
    """Which benchmarks; none: all."""
    list: bool = False
    """Only name them."""
    out: Path | None = None
    """Write the rows as JSON lines, together with what the file holds already."""


def main(settings: Settings) -> None:
    """Measure, print, write. Raises AudiovqError where a name is unknown."""
    if unknown := set(settings.names) - set(BENCHMARKS):
        raise AudiovqError(f"{min(unknown)}: no such benchmark; take {', '.join(BENCHMARKS)}")
    if settings.list:
        print("\n".join(BENCHMARKS))
        return
    rows: list[Row] = []
    for name in settings.names or BENCHMARKS:
        try:
            for row in importlib.import_module(f"benchmarks.speed.{name}").rows():
                rows.append(row)
                print(f"{row.name}, beside {row.peer}: {row.ratio:.3g}", flush=True)
                if settings.out is not None:  # at once: the next may take minutes
                    merge(settings.out, [row])
        except ModuleNotFoundError as missing:
            print(f"{name}: the rest is left out, {missing.name} is not installed", flush=True)
    print(f"\n{table(rows)}\n\n{lines(rows)}", end="")


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings, description=__doc__))
    except AudiovqError as error:
        raise SystemExit(f"run: {error}") from error
