"""Measure the bundled model `digits`, and the duration of `audiovq demo`.

    python benchmarks/quality/shipped.py --out benchmarks/results/NAME.json

The model is evaluated on the test clips of `data/digits`, which it was not trained on. The demo runs in
a new process, as a user runs it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository

import tyro

from audiovq.dataset.dataset import Dataset
from audiovq.evaluation.evaluate import evaluate
from audiovq.models.checkpoint import load
from audiovq.models.folder import SHIPPED
from audiovq.pipeline import DEMO_DATA
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.files import read_json, write_json
from benchmarks.command import refusing
from benchmarks.provenance import ROOT, stamp
from benchmarks.speed.startup import process


@dataclass(frozen=True)
class Settings:
    """Measure the bundled model and the demo."""

    n: int = 600
    """New sounds for the evaluation."""
    model: bool = True
    """Measure the model."""
    demo: bool = True
    """Measure the demo."""
    out: Path | None = None
    """JSON file for the figures; figures of the other part already in it stay."""


def of_model(n: int, work: Path) -> dict[str, Any]:
    """Bytes, training seconds and the results of `audiovq evaluate`."""
    folder = SHIPPED / "digits"
    preprocess(ROOT / "data" / "digits", work / "dataset", DEMO_DATA)
    model = load(folder)
    stages = [model.header[stage]["summary"] for stage in ("autoencoder", "prior")]
    return stamp() | {
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        # The summary has the time up to the best step; this scales it to the whole stage.
        "training_seconds": round(sum(s["seconds"] / s["progress"] for s in stages)),
        "evaluation": evaluate(model, Dataset(work / "dataset"), n=n),
    }


def of_demo(work: Path) -> dict[str, Any]:
    """Seconds of the whole process, number of recordings made, and its evaluation."""
    begin = time.perf_counter()
    process("-m", "audiovq", "demo", str(work / "demo"))
    seconds = time.perf_counter() - begin
    return stamp() | {
        "seconds": round(seconds, 1),
        "recordings": len(list((work / "demo" / "sounds").glob("*.wav"))),
        "evaluation": read_json(work / "demo" / "model" / "evaluation.json", "a demo"),
    }


def main(settings: Settings) -> None:
    """Measure, print, and write if asked to."""
    figures: dict[str, Any] = {}
    if settings.out and settings.out.exists():
        figures = read_json(settings.out, "a folder of results")
    with tempfile.TemporaryDirectory() as folder:
        if settings.model:
            figures["digits"] = of_model(settings.n, Path(folder))
        if settings.demo:
            figures["demo"] = of_demo(Path(folder))
    print(figures)
    if settings.out:
        write_json(settings.out, figures)


if __name__ == "__main__":
    with refusing("shipped"):
        main(tyro.cli(Settings, description=__doc__))
