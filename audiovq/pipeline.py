"""The stages as plain functions. Start reading here.

preprocess         folder of recordings → dataset
train              dataset → model: the autoencoder first, then the prior over its codes
generate_files     model → folder of new recordings
play_files         recordings → variations, continuations, repaintings, morphs
encode_files       recordings → archive
decode_files       archive → recordings
reconstruct_files  recordings → codes → recordings
evaluate           model, dataset → figures
write_report       model, dataset → page
demo               all of it on the digits that ship
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from audiovq import audio
from audiovq.checkpoint import Model
from audiovq.config import AudiovqError, PreprocessConfig, SamplingConfig
from audiovq.dataset import Dataset
from audiovq.exhibit import write_report
from audiovq.figures import evaluate, figure_table
from audiovq.files import filling, write_json
from audiovq.generation import Sound, draw, generate
from audiovq.images import write_images
from audiovq.play import repaint, variations
from audiovq.preprocess import Summary, preprocess
from audiovq.presets import PRESETS
from audiovq.progress import progress
from audiovq.recordings import decode_files, encode_files, reconstruct_files
from audiovq.spectrogram import Phase
from audiovq.training import pick_device, train

__all__ = [
    "Summary",
    "decode_files",
    "demo",
    "encode_files",
    "evaluate",
    "generate_files",
    "pick_device",
    "play_files",
    "preprocess",
    "reconstruct_files",
    "train",
    "write_report",
]

Say = Callable[[str], None]
DEMO_DATA = PreprocessConfig(
    labels=r"(?P<digit>\d)_(?P<speaker>[a-z0-9-]+)_\d+\.wav$", test=r"_[67]\.wav$"
)


def generate_files(
    model: Model,
    folder: Path | str,
    n: int = 16,
    labels: Mapping[str, str] | None = None,
    *,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    phase: Phase = "pghi",
    n_iter: int | None = None,
    best_of: int = 1,
    seconds: float | None = None,
    loop: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> list[Path]:
    """Write `n` new recordings and `manifest.json`, which tells what each was made with.

    Files are named by number and label values, as 0007_7_george.wav. A model of images writes PNGs,
    and no manifest. Returns their paths.
    """
    folder = Path(folder)
    with (
        filling(folder, overwrite),
        progress("generate", n, "sounds") as step,
    ):
        if model.spectrogram.config.images:
            images, named = draw(
                model,
                n,
                labels,
                sampling=sampling,
                best_of=best_of,
                seed=seed,
                progress=step,
            )
            return write_images(folder, images, [_file_name(*row) for row in enumerate(named)])
        sounds = generate(
            model,
            n,
            labels,
            sampling=sampling,
            seed=seed,
            phase=phase,
            n_iter=n_iter,
            best_of=best_of,
            seconds=seconds,
            loop=loop,
            progress=step,
        )
        return write_sounds(model, folder, sounds, sampling or SamplingConfig(), seed, say)


def play_files(
    model: Model,
    sources: Sequence[Path],
    folder: Path | str,
    play: Callable[..., list[Sound]],
    *,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = print,
    **asked: Any,
) -> list[Path]:
    """Write what a function of `audiovq.play` makes of recordings, and manifest.json.

    `asked` are its other arguments. Says so where a prior in time order stands in for a masked one,
    which the model lacks. Returns the WAVs' paths. Raises AudiovqError where a recording cannot be
    read.
    """
    folder = Path(folder)
    waveforms = [read_recording(path, model.sample_rate) for path in sources]
    drawn = {} if sampling is None else {"sampling": sampling}
    if play in (repaint, variations) and model.masked is None:
        say("the model has no masked prior: the one in time order paints, the best of a few tries")
    with filling(folder, overwrite):
        sounds = play(model, *waveforms, seed=seed, **asked, **drawn)
        made_from = {"play": play.__name__, "sources": list(map(str, sources)), **asked}
        sampling = sampling or SamplingConfig()
        return write_sounds(model, folder, sounds, sampling, seed, say, made_from)


def read_recording(path: Path, sample_rate: int) -> audio.Waveform:
    """A recording (samples,) at `sample_rate`. Raises AudiovqError that names it and the reason."""
    try:
        return audio.read(path, sample_rate)[0]
    except audio.AudioError as error:
        raise AudiovqError(f"{path}: {error}") from error


def write_sounds(
    model: Model,
    folder: Path,
    sounds: Sequence[Sound],
    sampling: SamplingConfig,
    seed: int,
    say: Say = print,
    more: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Sounds → WAVs and manifest.json in `folder`, `more` beside its settings; returns the WAVs' paths."""
    rows, paths = [], []
    for number, sound in enumerate(sounds):
        path = folder / f"{_file_name(number, sound.labels)}.wav"
        limited = audio.write(path, sound.waveform, model.sample_rate)
        paths.append(path)
        rows.append(
            {
                "file": path.name,
                "labels": sound.labels,
                "seconds": round(len(sound.waveform) / model.sample_rate, 4),
                "level_db": float(model.spectrogram.level_db(torch.tensor(sound.encoded.level))),
                "peak_limited": limited,
            }
        )
    header: dict[str, Any] = {
        "seed": seed,
        **dataclasses.asdict(sampling),
        **(more or {}),
        **{
            part: model.header[part]["sha256"]
            for part in ("autoencoder", "prior", "masked")
            if part in model.header
        },
    }
    write_json(folder / "manifest.json", {"made_with": header, "sounds": rows})
    if note := audio.limited_note(sum(bool(row["peak_limited"]) for row in rows), len(rows)):
        say(note)
    return paths


def _file_name(number: int, labels: Mapping[str, str]) -> str:
    values = [re.sub(r"[^\w.-]+", "-", value) for value in labels.values()]
    return "_".join([f"{number:04d}", *values])


def demo(
    out: Path | str = "demo",
    *,
    max_minutes: float = 3.0,
    device: str = "auto",
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """The whole story on the digits that ship: `out`/dataset, model, sounds, report.html.

    Returns the figures, which are also said and written to `out`/model/evaluation.json. Stopped,
    it goes on where it stood.
    """
    out = Path(out)
    config = dataclasses.replace(PRESETS["tiny"], max_minutes=max_minutes)
    source = Path(__file__).parent.parent / "data" / "digits"
    if not source.is_dir():
        raise AudiovqError(
            "the digits that ship are not here: install audiovq from its repository with"
            " `pip install -e .`, or use preprocess and train on a folder of your own"
        )
    if (out / "report.html").exists() and not overwrite:
        raise AudiovqError(f"{out}: holds a finished demo; name another folder, or add --overwrite")
    say(f"1 of 5: spectrograms of {source.name}")
    preprocess(source, out / "dataset", DEMO_DATA, overwrite=overwrite, say=say)
    dataset = Dataset(out / "dataset")
    say("2 of 5: training")
    model = train(dataset, out / "model", config, device=device, overwrite=overwrite, say=say)
    say("3 of 5: new sounds, four of each digit")
    sounds = [
        sound
        for digit in model.labels["digit"]
        for sound in generate(model, 4, {"digit": digit}, seed=int(digit))
    ]
    paths = write_sounds(model, out / "sounds", sounds, SamplingConfig(), 0, say)
    say(f"wrote {len(paths)} recordings to {out / 'sounds'}")
    say("4 of 5: figures")
    figures = evaluate(model, dataset, say=say)
    say(figure_table(figures))
    write_json(out / "model" / "evaluation.json", figures)
    say("5 of 5: page")
    say(f"wrote {write_report(model, dataset, out / 'model', out / 'report.html')}")
    return figures
