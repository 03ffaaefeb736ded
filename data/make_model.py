"""Makes the model that ships, audiovq/models/digits: trained on data/digits alone.

    python data/make_model.py --max-minutes 20

Weights are stored as float16 and the training's state is left out, so that it stays below 6 MB.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import tyro

from audiovq.checkpoint import SHIPPED, export
from audiovq.config import PRESETS, PriorConfig
from audiovq.pipeline import DEMO_DATA, preprocess, train

PRIOR = PriorConfig(dim=160, layers=3)
"""Smaller than the preset's, for the 6 MB."""


def main(max_minutes: float = 20.0, work: Path | None = None) -> None:
    """Preprocess, train, store.

    Args:
        max_minutes: Limit of the training.
        work: Folder for dataset and training, kept and gone on with; None: a temporary one.
    """
    work = work or Path(tempfile.mkdtemp())
    preprocess(Path(__file__).parent / "digits", work / "dataset", DEMO_DATA)
    config = dataclasses.replace(PRESETS["small"], prior=PRIOR, max_minutes=max_minutes)
    train(work / "dataset", work / "model", config)
    target = SHIPPED / "digits"
    if target.exists():
        shutil.rmtree(target)
    export(work / "model", target)
    shutil.copy(work / "model" / "README.md", target)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"wrote {target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    tyro.cli(main)
