"""From a folder of recordings to 100 new ones by the clock: preprocess, train and generate, by the command line.

python benchmarks/speed/pipeline.py SOUNDS --preset small --limit 120 --out FILE
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import tyro
from tyro.conf import Positional

from benchmarks.speed.comparison import ALONE, merge, row
from benchmarks.speed.startup import process

NEW = 100
"""Sounds to generate."""


@dataclass(frozen=True)
class Settings:
    """Measure a whole pipeline."""

    sounds: Positional[Path]
    """Folder of recordings; its name is that of the rows."""
    out: Path
    """JSON lines file to add the rows to."""
    preset: str = "small"
    """Of the model."""
    limit: float = 120.0
    """Target in seconds."""
    device: str = "auto"
    """To train and generate on."""
    tiny: bool = False
    """Preset tiny, seconds of training and four new sounds, to see that it runs."""


def main(settings: Settings) -> None:
    """Run the three commands, and add a row for each and one for all."""
    new, preset = (4, "tiny") if settings.tiny else (NEW, settings.preset)
    short = ("--max-minutes", "0.1") if settings.tiny else ()
    where = "--device", settings.device
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        dataset, model, out = (str(Path(folder) / name) for name in ("dataset", "model", "new"))
        for words in (
            ("preprocess", str(settings.sounds), dataset),
            ("train", dataset, model, "--preset", preset, *where, *short),
            ("generate", model, out, "-n", str(new), *where),
        ):
            begin = time.perf_counter()
            process("-m", "audiovq", *words)
            times[words[0]] = time.perf_counter() - begin
        if (made := len(list(Path(out).glob("*.wav")))) != new:
            raise SystemExit(f"pipeline: {made} recordings, not {new}")
    times["all"] = sum(times.values())
    what = f"preset {preset}, {settings.sounds.name} to {new} new sounds"
    for verb, taken in times.items():
        wanted = 1.0 if verb == "all" else None
        pairs = [(taken, settings.limit)]
        name = f"{what}, {verb}"
        merge(settings.out, [row(name, f"{settings.limit:.0f} s", pairs, "s", wanted, ALONE)])


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
