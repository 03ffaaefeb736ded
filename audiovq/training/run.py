"""Training a model on a dataset: autoencoder, vivid decoder, context tables, prior, masked prior."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from audiovq.codec.tokenize import Encodings, encode_views
from audiovq.config.errors import AudiovqError
from audiovq.config.presets import PRESETS
from audiovq.config.settings import TrainConfig
from audiovq.dataset.dataset import Dataset, Split
from audiovq.dataset.measured import measured_split
from audiovq.dataset.numbers import Numbers
from audiovq.generation.known import learn_clips
from audiovq.models.autoencoder.vivid import VividDecoder
from audiovq.models.checkpoint import KNOWN, amend, load, save, save_contrast, save_known
from audiovq.models.model import Model, new_model
from audiovq.runtime import distributed
from audiovq.runtime.device import pick_device
from audiovq.runtime.files import lock_folder, require_apart, write_text
from audiovq.runtime.progress import Say, percent
from audiovq.runtime.threads import fix_threads
from audiovq.training.budget import TimeBudget
from audiovq.training.card import model_card
from audiovq.training.folder import is_finished, mark_finished, prepare_folder
from audiovq.training.loop import Diverged, Trainer
from audiovq.training.more import Further, require_finished, stopped_further
from audiovq.training.origin import Origin
from audiovq.training.stage import Limits, Metrics, Run, Stage
from audiovq.training.stages.autoencoder import AutoencoderStage
from audiovq.training.stages.context import train_context
from audiovq.training.stages.contrast import fitted_contrast, fitted_sharpness, silence_of
from audiovq.training.stages.masked_prior import MaskedPriorStage
from audiovq.training.stages.plain import (
    PlainLines,
    begin_line,
    finished_line,
    task_of,
)
from audiovq.training.stages.prior import PriorStage, overfits
from audiovq.training.stages.sweeps import fitted_sweeps
from audiovq.training.stages.vivid import VividStage
from audiovq.training.state import State

_T = TypeVar("_T")

DONE_BEFORE = "done by an earlier run"
"""Said of a stage that a run finds trained."""


def train(
    dataset: Dataset | Path | str,
    folder: Path | str,
    config: TrainConfig | str = "small",
    *,
    origin: Path | str | None = None,
    more: float | None = None,
    device: str = "auto",
    overwrite: bool = False,
    say: Say = print,
    plain: bool = False,
    limits: Limits = Limits(),
) -> Model:
    """Train a model on `dataset` into `folder`: autoencoder, vivid decoder, context tables and priors.

    `config`: settings, or the name of a preset; they may leave out the vivid decoder and the priors. Run again with
    the same settings, training resumes where it stopped. `folder` holds a usable model from the autoencoder's first
    validation on. Processes launched by torchrun train together.

    `origin`: a model folder, or the name of a model in the package, from whose weights training starts; its networks
    replace those of a preset. `more`: minutes for which a finished model is trained further; a `config.max_minutes`
    above that of the finished training does the same. `overwrite`: replace the model in `folder`. `plain`: print lines for
    beginners in place of figures. Raises AudiovqError where the folder holds something else, such as the dataset or
    the origin, where settings contradict the origin or its weights do not fit, and where training diverges.
    """
    folder = Path(folder)
    if origin is not None:
        require_apart(folder, Path(origin), emptied=True)
    start = None if origin is None else Origin.read(origin)
    config = _settings(config, start)
    with distributed.process_group():
        dataset = dataset if isinstance(dataset, Dataset) else Dataset(Path(dataset))
        require_apart(folder, dataset.folder, emptied=True)
        say = say if distributed.is_main() else _silent
        run = Run(dataset, folder, config, pick_device(device), say, limits, start, plain)
        if start is not None:
            start.require_fit(_untrained(run))
        with lock_folder(folder) if distributed.is_main() else contextlib.nullcontext():
            if distributed.is_main():
                if more is not None:
                    require_finished(folder, more, overwrite)
                prepare_folder(folder, dataset, config, overwrite, start, more)
            distributed.barrier()
            further = Further.of(folder, config, more)
            if further is None and stopped_further(folder):
                say("note: a further training of this model was stopped; --more MINUTES resumes it")
            with dataset.train.held(run.device):
                model = _train(run) if further is None else _train_further(run, further)
            distributed.barrier()
            return model


def _settings(config: TrainConfig | str, origin: Origin | None) -> TrainConfig:
    """Settings by name, with the networks of the origin, or as given. Raises AudiovqError for an unknown name, and as
    `Origin.settle`."""
    if isinstance(config, str):
        if config not in PRESETS:
            raise AudiovqError(f"preset {config!r}: give one of {', '.join(PRESETS)}")
        return PRESETS[config] if origin is None else origin.adopt(PRESETS[config])
    return config if origin is None else origin.settle(config)


def _train_further(run: Run, further: Further) -> Model:
    """Train a finished model further, in a folder beside it, and put the result in its place."""
    origin = replace(Origin.read(run.folder), continues=True)
    number = further.minutes
    minutes = "" if number is None else f" for {number:g} minute{'s' * (number != 1)}"
    run.say(f"training the finished model further{minutes}; it stays as it is until the end")
    if distributed.is_main():
        further.prepare(run.dataset, run.config)
    distributed.barrier()
    # Decided by all before rank 0 removes what it is decided by.
    if not distributed.all_true(further.is_trained()):
        _train(replace(run, folder=further.work, config=further.config(run.config), origin=origin))
        distributed.barrier()
    if distributed.is_main():
        further.replace_finished()
    distributed.barrier()
    return load(run.folder, run.device)


def _train(run: Run) -> Model:
    """Train all stages in order; each resumes where it stopped."""
    config, dataset = run.config, run.dataset
    fix_threads(config.threads)
    torch.manual_seed(config.seed)
    if not len(dataset.validation):
        run.say(
            "note: this dataset has no validation split: training clips decide when training stops and"
            " which model is the best, and all errors below are measured on them"
        )
    model = _untrained(run).to(run.device)
    if run.origin is not None:
        _begin_from(run.origin, run, model)
    budget = _budget(run)
    finished = is_finished(run.folder)
    if finished:
        run.say(finished_line(run.folder))
    elif run.plain:
        run.say(begin_line(config, len(dataset.train), run.only_masked))
    seconds = run_stage(AutoencoderStage(run, model), budget.autoencoder)
    model, fitting = _timed(lambda: _fit_contrast(run))
    seconds += fitting
    if budget.trains_vivid:
        seconds += run_stage(VividStage(run, model), budget.vivid)
        model, fitting = _timed(lambda: _fit_vivid_contrast(run))
        seconds += fitting
    if run.plain and budget.has_codes and not finished:
        how_long = "takes seconds to minutes" if model.context is None else DONE_BEFORE
        run.say(f"{task_of(run, 'context')}: {how_long}")
    if budget.has_codes and model.context is None:
        train_context(run, model, budget.context_deadline)
        distributed.barrier()
    if budget.trains_prior:
        _train_priors(run, model, budget, seconds)
    if budget.has_codes:
        model = load(run.folder, run.device)
    if distributed.is_main():
        heritage = "" if run.origin is None else run.origin.heritage()
        write_text(run.folder / "README.md", model_card(model, dataset, heritage))
        mark_finished(run.folder)
    return model


def _budget(run: Run) -> TimeBudget:
    """The time limits of the stages."""
    return TimeBudget.of(run.config, run.dataset.spectrogram.is_wide)


def _untrained(run: Run) -> Model:
    """The model of the dataset and settings, before training."""
    dataset, config = run.dataset, run.config
    counts = count_labels(dataset.train)
    return new_model(
        dataset.spectrogram, config.autoencoder, dataset.labels, counts, dataset.clip_frames
    )


def _begin_from(origin: Origin, run: Run, model: Model) -> None:
    """Record the origin in `model`, and say once which weights are carried over."""
    record = origin.model.header.get("origin") if origin.continues else origin.record
    if record:
        model.header["origin"] = record
    begun = (run.folder / "training" / "autoencoder.state.safetensors").exists()
    if begun:
        return
    clips = len(run.dataset.train)
    if not origin.continues:
        for line in origin.lines(model, run.config, clips):
            run.say(line)
    elif origin.keeps_codes(run.config, clips):
        few = ", as the clips are few (--keep-codes False: all is trained)"
        few = few if run.config.keep_codes is None else ""
        run.say(f"codes stay as they are{few}: of the autoencoder, the decoder alone is trained")


def _fit_contrast(run: Run) -> Model:
    """The model with a trained autoencoder, and its decoder's contrast and sharpness, which are fitted unless they are given."""
    model = load(run.folder, run.device)
    config = model.autoencoder.config
    fits = config.contrast is None and config.quantizes
    if fits and not model.spectrogram.config.images:
        if distributed.is_main():
            sharpness = config.sharpness
            if sharpness is None:
                split = measured_split(run.dataset, "validation")
                sharpness = fitted_sharpness(model, split, run.dataset.train)
            model.autoencoder.config = replace(config, sharpness=sharpness)
            contrast = _contrast(run, model)
            save_contrast(run.folder, contrast, silence_of(model), sharpness)
            run.detail(
                f"autoencoder: contrast of decoded sounds {contrast:.3f}, sharpness {sharpness:.2f}"
            )
        distributed.barrier()
        model = load(run.folder, run.device)
    return model


def _fit_vivid_contrast(run: Run) -> Model:
    """The model with a trained vivid decoder, and its contrast, which is fitted where the autoencoder's was."""
    model = load(run.folder, run.device)
    fits = run.config.autoencoder.contrast is None and not model.spectrogram.config.images
    if fits and model.vivid is not None and "contrast" not in model.header["vivid"]["summary"]:
        if distributed.is_main():
            contrast = _contrast(run, model, model.vivid)
            model.vivid.contrast.fill_(contrast)
            save(
                run.folder,
                model,
                "vivid",
                model.header["vivid"]["summary"] | {"contrast": contrast},
            )
            run.detail(f"vivid: contrast of decoded sounds {contrast:.3f}")
        distributed.barrier()
        model = load(run.folder, run.device)
    return model


def _contrast(run: Run, model: Model, decoder: VividDecoder | None = None) -> float:
    """`fitted_contrast` on validation clips and, where they are few, training clips."""
    split = measured_split(run.dataset, "validation")
    task = task_of(run, "autoencoder" if decoder is None else "vivid")
    return fitted_contrast(model, split, decoder, run.dataset.train, task=task)


def _timed(work: Callable[[], _T]) -> tuple[_T, float]:
    """The result of `work` and the seconds that it took in the main rank."""
    started = time.perf_counter()
    result = work()
    return result, distributed.sync_clock(time.perf_counter() - started)[0]


def _train_priors(run: Run, model: Model, budget: TimeBudget, seconds: float) -> None:
    """Train both priors on the same codes; `seconds`: time that both decoders took.

    Where training starts from a model that has only a masked prior, that takes all the time.
    """
    _, measuring = _timed(lambda: _save_training_codes(run, model))
    seconds += measuring
    distributed.barrier()
    limit, masked_limit = budget.prior(seconds), budget.masked(seconds)
    if run.only_masked:
        limit = masked_limit = budget.priors(seconds)

    @functools.cache
    def encode() -> tuple[Encodings, Encodings]:
        longer = None if limit is None or masked_limit is None else max(limit, masked_limit)
        return encode_views(model, run.dataset, longer, _encoding(run))

    if not run.only_masked:
        run_stage(PriorStage(run, model, encode), limit)
        model = load(run.folder, run.device)
    if run.config.masked_share:
        run_stage(MaskedPriorStage(run, model, encode), masked_limit)
        _fit_sweeps(run)


def _fit_sweeps(run: Run) -> None:
    """Add to model.json how often new sounds of the masked prior are smoothed, unless it is known."""
    if distributed.is_main():
        model = load(run.folder, run.device)
        if model.masked is not None and "sweeps" not in model.header["masked"]["summary"]:
            amend(run.folder, "masked", {"sweeps": fitted_sweeps(model, run.dataset.train)})
    distributed.barrier()


def _first_prior(run: Run) -> str:
    """The stage of the prior that is trained first."""
    return "masked" if run.only_masked else "prior"


def _encoding(run: Run) -> str:
    """The name under which the progress of the encodings for the priors is shown."""
    task = task_of(run, _first_prior(run))
    return task and f"{task}, encoding"


def run_stage(stage: Stage, max_seconds: float | None) -> float:
    """Train a stage from where it stopped, and save its best state, or a later one nearly as good, in the model folder.

    `max_seconds`: time limit, earlier runs and making the training data included. Returns the seconds of training.
    Raises AudiovqError with the names of the recordings where training diverges.
    """
    run = stage.run
    trainer = Trainer(
        stage.module,
        stage.optimizer,
        run.folder / "training",
        stage=stage.name,
        clips=len(run.dataset.train),
        seed=run.config.seed,
        dtype=run.dtype,
        max_seconds=max_seconds,
        limits=run.limits,
        title=task_of(run, stage.name),
    )
    before, was_done = trainer.progress, trainer.state.done
    if was_done and not is_finished(run.folder):
        run.say(f"{trainer.title}: {DONE_BEFORE}")
    if not was_done:
        if run.plain and trainer.state.step:
            run.say(f"{trainer.title}: continues where it stopped, at {percent(before)}")
        started = time.perf_counter()
        for line in stage.begin(resumed=trainer.state.step > 0):
            run.detail(line)
        if max_seconds is not None:
            elapsed, _ = distributed.sync_clock(time.perf_counter() - started)
            trainer.max_seconds = max(1.0, max_seconds - elapsed)
        with _naming_clips(run.dataset.train):
            trainer.fit(stage, functools.partial(_save_best, stage), _Reports(stage, trainer))
    if distributed.is_main():
        _record_end(run, trainer, silent=was_done)
    distributed.barrier()
    return trainer.state.seconds


def _save_best(stage: Stage, state: State, metrics: Metrics) -> None:
    """Save the stage's part of the model, with what it reached."""
    summary = {"step": state.step, "measured_on": stage.held_out.name}
    save(stage.run.folder, stage.model, stage.name, summary | stage.facts | dict(metrics))


class _Reports:
    """Prints progress lines of a stage, and writes samples after validations that are far enough apart."""

    def __init__(self, stage: Stage, trainer: Trainer) -> None:
        self.stage = stage
        self.trainer = trainer
        self.sampled_at = trainer.progress
        """Progress at the latest samples."""
        later = _budget(stage.run).after(stage.name)
        self.plain = PlainLines(
            trainer.title, stage.name, later, trainer.steps, best=trainer.state.best
        )

    def __call__(self, metrics: Metrics) -> None:
        run = self.stage.run
        self._say(metrics)
        due = min(1.0, self.sampled_at + run.limits.sample_every)
        if (
            "validation_score" in metrics
            and run.limits.sample_every <= 1
            and metrics["progress"] >= due
        ):
            self.sampled_at = metrics["progress"]
            self.stage.sample(int(metrics["step"]))

    def _say(self, metrics: Metrics) -> None:
        """Print the line for beginners, or the one with figures."""
        stage = self.stage
        if not stage.run.plain:
            stage.run.say(stage.describe(metrics))
            return
        known = {**metrics, **stage.facts, "measured_on": stage.held_out.name}
        copies = stage.name == "prior" and "validation_bits_per_code" in metrics and overfits(known)
        stage.run.say(self.plain.line(metrics, copies, self.trainer.ended_by))


def _record_end(run: Run, trainer: Trainer, silent: bool) -> None:
    """Add to model.json how a stage ended; with figures, print a line where the time limit ended it, unless `silent`."""
    amend(run.folder, trainer.stage, {"steps_planned": trainer.steps, "ended_by": trainer.ended_by})
    if trainer.ended_by == "time" and not silent:
        run.detail(
            f"{trainer.stage}: stopped by the time limit after {trainer.state.step:,} of"
            f" {trainer.steps:,} steps; a longer limit may give a better model"
        )


@contextlib.contextmanager
def _naming_clips(split: Split) -> Iterator[None]:
    """Add to the message of Diverged the recordings of the batch."""
    try:
        yield
    except Diverged as error:
        # Priors train on several encodings of the split, one after the other.
        paths = sorted({split.clips[index % len(split)].path for index in error.indices})
        names = ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
        raise AudiovqError(f"{error} (clips of that batch: {names})") from error


def _save_training_codes(run: Run, model: Model) -> None:
    """Save the training clips' codes, by which copies are found, unless model.json lists them already."""
    if KNOWN in model.header or model.spectrogram.config.images or not distributed.is_main():
        return
    if run.plain:
        clips = len(run.dataset.train)
        run.say(
            f"{task_of(run, _first_prior(run))}: first measures {clips:,} clips, to tell copies from new"
            " sounds; takes seconds to minutes"
        )
    started = time.perf_counter()
    model.known = learn_clips(
        model, run.dataset.train, run.dataset.validation, task=task_of(run, _first_prior(run))
    )
    save_known(run.folder, model)
    run.detail(
        f"copies: new sounds within {model.known.threshold_db:.1f} dB of a training clip count as near"
        f" copies ({time.perf_counter() - started:.0f} s)"
    )


def _silent(_: str) -> None:
    """`say` of all ranks but rank 0."""


MOST_COMBINATIONS = 20_000
"""Combinations of labels that a model keeps of a dataset with numbers."""


def count_labels(split: Split) -> list[tuple[tuple[int, ...], int]]:
    """Each combination of label indices that clips have, and the number of its clips.

    Of numbers, nearly every clip has another combination: of more than MOST_COMBINATIONS, those with the same words are
    thinned out evenly, and the ones that are kept count for their neighbours."""
    counts = Counter(tuple(row) for row in split.label_indices.tolist())
    numbers = [isinstance(values, Numbers) for values in split.labels.values()]
    step = -(-len(counts) // MOST_COMBINATIONS)
    if step <= 1 or not any(numbers):
        return sorted(counts.items())

    def words_of(row: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(i for i, is_number in zip(row, numbers, strict=True) if not is_number)

    kept: list[tuple[tuple[int, ...], int]] = []
    in_groups = sorted(counts, key=lambda row: (words_of(row), row))
    for _, group in itertools.groupby(in_groups, words_of):
        rows = list(group)
        for begin in range(0, len(rows), step):
            together = rows[begin : begin + step]
            kept.append((together[0], sum(counts[row] for row in together)))
    return sorted(kept)
