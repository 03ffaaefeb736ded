"""Training a model on a dataset: autoencoder, context tables, prior, masked prior."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from pathlib import Path

import torch

from audiovq.codec.tokenize import Encodings, encode_views
from audiovq.config.presets import PRESETS
from audiovq.config.settings import TrainConfig
from audiovq.dataset.dataset import Dataset, Split
from audiovq.generation.known import learn_clips
from audiovq.models.checkpoint import KNOWN, load, save_known
from audiovq.models.model import Model, new_model
from audiovq.runtime import distributed
from audiovq.runtime.device import pick_device
from audiovq.runtime.files import (
    lock_folder,
    write_text,
)
from audiovq.runtime.progress import Say
from audiovq.training.autoencoder import train_autoencoder
from audiovq.training.card import model_card
from audiovq.training.context import train_context
from audiovq.training.folder import _mark_finished, claim
from audiovq.training.masked_prior import train_masked
from audiovq.training.prior import train_prior

CONTEXT_SHARE = 0.05
"""Of a time limit that is left for fitting the context tables,"""
CONTEXT_LATE = 10.0
"""and how many times that may pass before the clock cuts the fit short: it is planned in steps, and takes as
many on a slow machine."""
CODEC_CONTEXT_SHARE = 0.2
"""and where archives are all that a model is for (no prior), up to CODEC_CONTEXT_SECONDS."""
CODEC_CONTEXT_SECONDS = 300.0


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
    with distributed.process_group():
        dataset = dataset if isinstance(dataset, Dataset) else Dataset(Path(dataset))
        place = pick_device(device)
        with lock_folder(folder) if distributed.is_main() else contextlib.nullcontext():
            if distributed.is_main():
                claim(folder, dataset, config, overwrite)
            distributed.barrier()
            with dataset.train.held(place):
                model = _train(
                    dataset, folder, config, place, say if distributed.is_main() else _silent
                )
            distributed.barrier()
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
    distributed.barrier()
    model = load(folder, place)
    if limit is not None:
        limit = max(limit - seconds, limit * (1 - share) / 2)  # one that was raised has its due
    if config.autoencoder.quantizes:
        if model.context is None:
            train_context(
                dataset, model, folder, config, context_limit and CONTEXT_LATE * context_limit, say
            )
            distributed.barrier()
        if share < 1:
            masked_limit = None
            if limit is not None and config.max_minutes:
                masked_limit = min(60 * config.max_minutes * config.masked_share, limit / 2)
                limit -= masked_limit

            _know_clips(dataset, model, folder, say)
            distributed.barrier()

            @functools.cache
            def encoded() -> tuple[Encodings, Encodings]:
                return encode_views(model, dataset, limit)

            train_prior(dataset, model, folder, config, limit, encoded, say)
            distributed.barrier()
            if config.masked_share:
                model = load(folder, place)
                train_masked(dataset, model, folder, config, masked_limit, encoded, say)
                distributed.barrier()
        model = load(folder, place)
    if distributed.is_main():
        write_text(folder / "README.md", model_card(model, dataset))
        _mark_finished(folder)
    return model


def _know_clips(dataset: Dataset, model: Model, folder: Path, say: Say) -> None:
    """Save the training clips' codes, by which copies are found; not where they are listed already."""
    if KNOWN in model.header or model.spectrogram.config.images or not distributed.is_main():
        return
    started = time.perf_counter()
    model.known = learn_clips(model, dataset.train, dataset.validation)
    save_known(folder, model)
    say(
        f"copies: new sounds within {model.known.threshold_db:.1f} dB of a training clip will be called"
        f" near copies ({time.perf_counter() - started:.0f} s)"
    )


def _silent(_: str) -> None:
    """What all ranks but the main one say."""


def count_labels(split: Split) -> list[tuple[tuple[int, ...], int]]:
    """Which label values the clips have together, and how often."""
    return sorted(Counter(tuple(row) for row in split.label_indices.tolist()).items())
