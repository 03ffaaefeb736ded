"""The stages as plain functions. Start reading here.

preprocess         folder of recordings → dataset
train              dataset → model: the autoencoder first, then the prior over its codes
generate_files     model → folder of new recordings
vary_files         recording → variations; extend_files, repaint_files, morph_files likewise
encode_files       recordings → archive
decode_files       archive → recordings
reconstruct_files  recordings → codes → recordings
evaluate           model, dataset → figures
write_report       model, dataset → page
demo               all of it on the digits that ship, or on synthesized hits and notes
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from audiovq.codec.files import decode_files, encode_files, reconstruct_files
from audiovq.config.errors import AudiovqError
from audiovq.config.presets import PRESETS
from audiovq.config.sampling import SamplingConfig
from audiovq.config.settings import TrainConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation.evaluate import evaluate
from audiovq.evaluation.wording import figure_table
from audiovq.generation.files import (
    extend_files,
    generate_files,
    morph_files,
    repaint_files,
    vary_files,
    write_sounds,
)
from audiovq.generation.generate import generate
from audiovq.library.synthesis import write_takes
from audiovq.models.folder import spectrogram_of
from audiovq.preprocessing.preprocess import Summary, preprocess
from audiovq.report.collect import write_report
from audiovq.report.commands import in_columns, next_steps
from audiovq.runtime.device import pick_device
from audiovq.runtime.files import write_json
from audiovq.runtime.progress import Say
from audiovq.training.origin import Origin
from audiovq.training.run import train

__all__ = [
    "Summary",
    "decode_files",
    "demo",
    "encode_files",
    "evaluate",
    "extend_files",
    "generate_files",
    "morph_files",
    "pick_device",
    "preprocess",
    "reconstruct_files",
    "repaint_files",
    "train",
    "vary_files",
    "write_report",
]
DEMO_DATA = PreprocessConfig(
    labels=r"(?P<digit>\d)_(?P<speaker>[a-z0-9-]+)_\d+\.wav$", test=r"_[67]\.wav$"
)
INSPECTED = "the contents of a folder of yours, and what to type for it"
DEMO_SEED = "sounds"
"""The model in the package from which the demo of sounds starts."""
DEMO_KINDS = "kick", "snare", "clap", "bell", "pluck", "organ"
"""Kinds of synthesized sounds in the demo of sounds: hits and notes."""
DEMO_TAKES = range(1_000, 1_016)
"""Their takes, none of which the model has learnt."""


@dataclasses.dataclass(frozen=True)
class _Demo:
    """What a demo learns from, and how."""

    source: Path
    data: PreprocessConfig
    config: TrainConfig
    label: str
    origin: str | None = None


def demo(
    out: Path | str = "demo",
    *,
    sounds: bool = False,
    max_minutes: float = 3.0,
    device: str = "auto",
    overwrite: bool = False,
    say: Say = print,
    plain: bool = False,
) -> dict[str, Any]:
    """Run the whole pipeline on the bundled digits: `out`/dataset, model, sounds, report.html.

    `sounds`: on hits and notes at 44.1 kHz instead, which are synthesized into `out`/recordings, starting from the
    model DEMO_SEED. Returns the metrics, which are also printed and written to `out`/model/evaluation.json. A demo
    that was stopped resumes. `plain`: print lines for beginners in place of figures.
    """
    out = Path(out)
    if (out / "report.html").exists() and not overwrite:
        raise AudiovqError(
            f"{out}: holds a finished demo; choose another folder, or add --overwrite"
        )
    what = _sounds_demo(out, max_minutes) if sounds else _digits_demo(max_minutes)
    say(f"1 of 5: spectrograms of {what.source.name}")
    preprocess(what.source, out / "dataset", what.data, overwrite=overwrite, say=say)
    dataset = Dataset(out / "dataset", what.source)
    say("2 of 5: training")
    model = train(
        dataset,
        out / "model",
        what.config,
        origin=what.origin,
        device=device,
        overwrite=overwrite,
        say=say,
        plain=plain,
    )
    say(f"3 of 5: new sounds, four of each {what.label}")
    new = [
        sound
        for number, value in enumerate(model.labels[what.label])
        for sound in generate(model, 4, {what.label: value}, seed=number)
    ]
    paths = write_sounds(model, out / "sounds", new, SamplingConfig(), 0, say, overwrite=True)
    say(f"wrote {len(paths)} recordings to {out / 'sounds'}")
    say("4 of 5: evaluation")
    figures = evaluate(model, dataset, say=say)
    if not plain:
        say(figure_table(figures))
    write_json(out / "model" / "evaluation.json", figures)
    say("5 of 5: report")
    page = write_report(model, dataset, out / "model", out / "report.html", say=say)
    say(f"open {page} in a browser to see and hear the model; its sounds are in {out / 'sounds'}")
    steps = [*next_steps(model, str(out / "model")), ("audiovq inspect MY-SOUNDS", INSPECTED)]
    say("\n".join(["next:", *in_columns(steps)]))
    return figures


def _digits_demo(max_minutes: float) -> _Demo:
    """The demo of the bundled digits. Raises AudiovqError where they are missing."""
    config = dataclasses.replace(PRESETS["tiny"], max_minutes=max_minutes)
    source = Path(__file__).parent.parent / "data" / "digits"
    if not source.is_dir():
        raise AudiovqError(
            "the bundled digits were not found: install audiovq from its repository with"
            " `pip install -e .`, or use preprocess and train on a folder of your own"
        )
    return _Demo(source, DEMO_DATA, config, "digit")


def _sounds_demo(out: Path, max_minutes: float) -> _Demo:
    """The demo of synthesized sounds, which it writes."""
    small = dataclasses.replace(PRESETS["small"], max_minutes=max_minutes)
    config = Origin.read(DEMO_SEED).adopt(small)
    data = PreprocessConfig(labels=r"^(?P<kind>[a-z]+)/").like(spectrogram_of(DEMO_SEED), DEMO_SEED)
    write_takes(out / "recordings", DEMO_KINDS, DEMO_TAKES)
    return _Demo(out / "recordings", data, config, "kind", DEMO_SEED)
