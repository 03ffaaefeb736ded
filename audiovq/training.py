"""Training a model on a dataset: the autoencoder first, then the priors over its codes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from audiovq import ranks
from audiovq.autoencoder_stage import train_autoencoder
from audiovq.checkpoint import KNOWN, PARTS, Model, load, new_model, save, save_known
from audiovq.config import AudiovqError, TrainConfig, from_json, to_json
from audiovq.copies import know
from audiovq.dataset import Dataset, Split
from audiovq.files import (
    claimed,
    clear,
    is_blank,
    read_object,
    relative,
    require_outside_products,
    sweep,
    write_json,
    write_text,
)
from audiovq.fitting import fit_context
from audiovq.masked_stage import train_masked
from audiovq.measured import clips_and_why, measured_split, recordings_in_words
from audiovq.presets import PRESETS
from audiovq.prior_stage import BY_HEART, learns_by_heart, train_prior
from audiovq.stage import Say
from audiovq.trainer import pick_precision
from audiovq.views import Encodings, encode_views

CONTEXT_SHARE = 0.05
"""Of a time limit that is left for fitting the context tables,"""
CONTEXT_LATE = 10.0
"""and how many times that may pass before the clock cuts the fit short: it is planned in steps, and takes as
many on a slow machine."""
CODEC_CONTEXT_SHARE = 0.2
"""and where archives are all that a model is for (no prior), up to CODEC_CONTEXT_SECONDS."""
CODEC_CONTEXT_SECONDS = 300.0
NAME_IT = "name the dataset: `report MODEL DATASET`, `plot MODEL OUT --dataset DATASET`"


def pick_device(name: str = "auto") -> torch.device:
    """`auto` → CUDA where there is one, else Apple's MPS, else the CPU; of several CUDA devices each
    process that torchrun started takes its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise AudiovqError(f"--device {name}: no CUDA device here; take cpu, or auto")
    if name == "mps" and not torch.backends.mps.is_available():
        raise AudiovqError("--device mps: no Apple GPU here; take cpu, or auto")
    if name == "cuda":
        name = f"cuda:{ranks.place_on_machine()}"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise AudiovqError(f"--device {name}: take auto, cpu, cuda or mps") from error


def train(
    dataset: Dataset | Path | str,
    folder: Path | str,
    config: TrainConfig | str = "small",
    *,
    device: str = "auto",
    overwrite: bool = False,
    say: Say = print,
) -> Model:
    """Train a model on `dataset` into `folder`: autoencoder, prior, and, where it has a share of the
    time, the masked prior.

    `config` may name a preset. Processes that torchrun started train together. Run again with the same settings it goes on where it stopped; what
    `folder` holds is a usable model from the autoencoder's first validation on. Raises AudiovqError
    where the folder holds something else.
    """
    folder = Path(folder)
    config = PRESETS[config] if isinstance(config, str) else config
    with ranks.together():
        dataset = dataset if isinstance(dataset, Dataset) else Dataset(Path(dataset))
        place = pick_device(device)
        with claimed(folder) if ranks.is_main() else contextlib.nullcontext():
            if ranks.is_main():
                _claim(folder, dataset, config, overwrite)
            ranks.wait()
            with dataset.train.held(place):
                model = _train(dataset, folder, config, place, say if ranks.is_main() else _silent)
            ranks.wait()
            return model


def _train(
    dataset: Dataset, folder: Path, config: TrainConfig, place: torch.device, say: Say
) -> Model:
    """All stages, each from where it stopped."""
    torch.manual_seed(config.seed)
    if not len(dataset.validation):
        say(
            "note: this dataset has no validation split: training clips decide when training stops and"
            " which model is the best, and the figures below are theirs"
        )
    model = new_model(
        dataset.spectrogram,
        config.autoencoder,
        dataset.labels,
        count_labels(dataset.train),
        dataset.clip_frames,
    )
    model.to(place)
    limit = 60 * config.max_minutes if config.max_minutes else None
    share = config.autoencoder_share if config.autoencoder.quantizes else 1.0
    context_limit = None
    if limit is not None and config.autoencoder.quantizes:
        context_limit = CONTEXT_SHARE * limit
        if share == 1:
            context_limit = min(CODEC_CONTEXT_SHARE * limit, CODEC_CONTEXT_SECONDS)
        limit -= context_limit
    seconds = train_autoencoder(dataset, model, folder, config, limit and limit * share, say)
    ranks.wait()
    model = load(folder, place)
    if limit is not None:
        limit = max(limit - seconds, limit * (1 - share) / 2)  # one that was raised has its due
    if config.autoencoder.quantizes:
        if model.context is None:
            _fit_context(
                dataset, model, folder, config, context_limit and CONTEXT_LATE * context_limit, say
            )
            ranks.wait()
        if share < 1:
            masked_limit = None
            if limit is not None and config.max_minutes:
                masked_limit = min(60 * config.max_minutes * config.masked_share, limit / 2)
                limit -= masked_limit

            _know_clips(dataset, model, folder, say)
            ranks.wait()

            @functools.cache
            def encoded() -> tuple[Encodings, Encodings]:
                return encode_views(model, dataset, limit)

            train_prior(dataset, model, folder, config, limit, encoded, say)
            ranks.wait()
            if config.masked_share:
                model = load(folder, place)
                train_masked(dataset, model, folder, config, masked_limit, encoded, say)
                ranks.wait()
        model = load(folder, place)
    if ranks.is_main():
        write_text(folder / "README.md", model_card(model, dataset))
        _mark_finished(folder)
    return model


def _know_clips(dataset: Dataset, model: Model, folder: Path, say: Say) -> None:
    """Save the training clips' codes, by which copies are found; not where they are listed already."""
    if KNOWN in model.header or model.spectrogram.config.images or not ranks.is_main():
        return
    started = time.perf_counter()
    model.known = know(model, dataset.train, dataset.validation)
    save_known(folder, model)
    say(
        f"copies: new sounds within {model.known.threshold_db:.1f} dB of a training clip will be called"
        f" near copies ({time.perf_counter() - started:.0f} s)"
    )


def _silent(_: str) -> None:
    """What all ranks but the main one say."""


def model_card(model: Model, dataset: Dataset) -> str:
    """What a model is and what it was trained on, in a page of Markdown."""
    spectrogram = model.spectrogram.config
    lines = [
        "# A model made with audiovq",
        "",
        f"Sounds at {model.sample_rate:,} Hz, up to"
        f" {model.clip_frames * spectrogram.hop_length / model.sample_rate:.2f} s at a time;"
        f" {_codes_in_words(model)}.",
        "",
        f"- trained on {recordings_in_words(dataset)}",
    ]
    for name, values in model.labels.items():
        lines.append(f"- label `{name}`: {', '.join(values[:40])}{' …' * (len(values) > 40)}")
    reached = {part: model.header.get(part, {}).get("summary") for part in ("autoencoder", *PARTS)}
    lines += [f"- {part}: {_summary_in_words(found)}" for part, found in reached.items() if found]
    if KNOWN in model.header:
        name = model.header[KNOWN]["file"]
        lines.append(
            f"- `{name}` holds the training recordings in coded form, to find copies of them among new"
            " sounds; where the recordings are private, leave it out when you share the model"
        )
    lines += ["", "```", "audiovq generate MODEL OUT -n 16", "```", ""]
    return "\n".join(lines)


def _summary_in_words(summary: dict[str, Any]) -> str:
    """What a stage reached, on which clips, and how it ended."""
    reached = (
        [f"bits_per_code {summary['bits_per_code']:.3g}"] if "bits_per_code" in summary else []
    )
    reached += [
        f"{key.removeprefix('validation_')} {summary[key]:.3g}"
        for key in sorted(summary)
        if key.startswith("validation_") and key != "validation_score"
    ]
    measured_on = str(summary.get("measured_on", "validation"))
    words = f"on {clips_and_why(measured_on, 'validation')}: {', '.join(reached)}"
    if "step" in summary:
        words = f"step {summary['step']:,}, {words}"
    if summary.get("ended_by") == "time":
        words += f"; cut short by the time limit ({summary['steps_planned']:,} steps were planned)"
    if "unigram_bits" in summary and learns_by_heart(summary):
        words += f"; {BY_HEART}"
    return words


def _codes_in_words(model: Model) -> str:
    config = model.autoencoder.config
    if not config.quantizes:
        return f"no codes (bottleneck {config.bottleneck})"
    rate = model.codes_per_second
    return f"{rate:.0f} codes a second, {rate * math.log2(config.codebook_size):.0f} bit/s"


def count_labels(split: Split) -> list[tuple[tuple[int, ...], int]]:
    """Which label values the clips have together, and how often."""
    return sorted(Counter(tuple(row) for row in split.label_indices.tolist()).items())


def _claim(folder: Path, dataset: Dataset, config: TrainConfig, overwrite: bool) -> None:
    """Make `folder` this very training's: new, or one that was stopped."""
    require_outside_products(folder)
    path = folder / "training" / "settings.json"
    settings = {
        "dataset": dataset.fingerprint,
        "dataset_folder": relative(dataset.folder, folder),
        "config": to_json(config),
    }
    if overwrite and ((folder / "model.json").exists() or path.exists()):
        write_json(path, {})  # a run killed now leaves what can be overwritten
        clear(folder, but=path.parent)
        clear(path.parent, but=path)
    elif path.exists():
        before = read_object(path, "a training folder")
        if before.get("dataset") != settings["dataset"]:
            raise AudiovqError(
                f"{folder}: was trained on another dataset; name another folder, or add --overwrite"
            )
        # The time limit may change between a stop and the next start.
        same = dataclasses.replace(
            from_json(TrainConfig, before.get("config"), str(path)), max_minutes=config.max_minutes
        )
        if to_json(same) != settings["config"]:
            raise AudiovqError(
                f"{folder}: was trained with other settings ({_difference(to_json(same), to_json(config))});"
                " name another folder, or add --overwrite"
            )
        if before.get("finished") and (config.max_minutes or math.inf) > (
            from_json(TrainConfig, before["config"], str(path)).max_minutes or math.inf
        ):
            raise AudiovqError(
                f"{folder}: its training is finished, and more minutes do not continue it; name another"
                " folder, or add --overwrite to train again"
            )
        sweep(folder)
        if not before.get("finished"):  # what is left goes by the new limit
            write_json(path, settings)
        return
    elif not is_blank(folder):
        raise AudiovqError(
            f"{folder}: exists already and is no started training; name another folder"
        )
    sweep(folder)
    write_json(path, settings)


def _mark_finished(folder: Path) -> None:
    """Keep in settings.json that no stage is left to be trained."""
    path = folder / "training" / "settings.json"
    settings = read_object(path, "a training folder")
    if not settings.get("finished"):
        write_json(path, settings | {"finished": True})


def trained_on(folder: Path, recordings: Path | None = None) -> Dataset:
    """The dataset that the model in `folder` was trained on; `recordings` as `Dataset` takes it. Raises
    AudiovqError where it is gone."""
    path = folder / "training" / "settings.json"
    where = None
    if path.exists():
        where = read_object(path, "a model that knows its dataset").get("dataset_folder")
    if not isinstance(where, str) or not where:
        raise AudiovqError(f"{folder}: does not say which dataset it was trained on; {NAME_IT}")
    try:
        return Dataset(folder / where, recordings)
    except AudiovqError as error:
        raise AudiovqError(
            f"{folder}: its dataset is not where it was; {NAME_IT} ({error})"
        ) from error


def _difference(before: dict[str, Any], now: dict[str, Any], path: str = "") -> str:
    """The first setting that differs, in words."""
    for key, value in now.items():
        if isinstance(value, dict):
            if found := _difference(before[key], value, f"{path}{key}."):
                return found
        elif list(value) != list(before[key]) if isinstance(value, tuple) else value != before[key]:
            return f"{path}{key} was {before[key]}, is {value}"
    return ""


def _fit_context(
    dataset: Dataset, model: Model, folder: Path, config: TrainConfig, limit: float | None, say: Say
) -> None:
    """Fit and save the tables by which archives are coded."""
    started = time.perf_counter()
    say("context: fitting the entropy coder's tables, which `encode` uses")
    held_out = measured_split(dataset, "validation")
    fitted = fit_context(
        model,
        dataset.train,
        held_out,
        seed=config.seed,
        dtype=pick_precision(config.precision, model.device),
        max_minutes=config.max_minutes,
        max_seconds=math.inf if limit is None else limit,
    )
    if not ranks.is_main():
        return
    model.context = fitted.tables
    summary = {
        "bits_per_code": fitted.bits_per_code,
        "measured_on": held_out.name,
        "step": fitted.steps,
        "steps_planned": fitted.steps_planned,
        "ended_by": "time" if fitted.cut_short else "steps",
    }
    save(folder, model, "context", summary)
    say(
        f"context: {fitted.bits_per_code:.2f} bits a code on {clips_and_why(held_out.name, 'validation')},"
        f" {math.log2(model.vocabulary.codebook_size):.2f} without tables"
        f" ({time.perf_counter() - started:.0f} s)"
    )
    if fitted.cut_short:
        say(
            f"context: cut short by the time limit, after {fitted.steps:,} of {fitted.steps_planned:,}"
            " steps: archives will be larger than they need be; give more minutes"
        )
