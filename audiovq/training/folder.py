"""The model folder during training: whether it may be written to, and the dataset of its model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import from_json, to_json
from audiovq.config.settings import TrainConfig
from audiovq.dataset.dataset import Dataset
from audiovq.runtime.files import (
    clear,
    is_blank,
    read_object,
    relative,
    remove_partials,
    require_outside_products,
    write_json,
)
from audiovq.training.origin import Origin

FREE_OF_FURTHER = "keep_codes", "carried_rate"
"""Settings that a further training may have other than the finished one: how it starts from the model."""
NAME_DATASET = "name the dataset: `report MODEL DATASET`, `plot MODEL OUT --dataset DATASET`"


def prepare_folder(
    folder: Path,
    dataset: Dataset,
    config: TrainConfig,
    overwrite: bool,
    origin: Origin | None = None,
    more: float | None = None,
) -> None:
    """Make `folder` ready for a training: create it, clear it (`overwrite`), or check that it can be resumed, or be
    trained further (`more`, or a longer time limit).

    Raises AudiovqError where it holds something else, or a training with other settings, on another dataset, or from
    another model than `origin`.
    """
    require_outside_products(folder)
    path = folder / "training" / "settings.json"
    settings: dict[str, Any] = {
        "dataset": dataset.fingerprint,
        "dataset_folder": relative(dataset.folder, folder),
        "config": to_json(config),
    }
    if origin is not None:
        settings["origin"] = origin.record
    if overwrite and ((folder / "model.json").exists() or path.exists()):
        write_json(path, {})  # so that a run killed now leaves a folder that can be overwritten
        clear(folder, but=path.parent)
        clear(path.parent, but=path)
    elif path.exists():
        before = read_object(path, "a training folder")
        if before.get("dataset") != settings["dataset"]:
            raise AudiovqError(
                f"{folder}: was trained on another dataset; choose another folder, or add --overwrite"
            )
        _require_origin(folder, before.get("origin"), origin)
        # The time limit may change between a stop and the next start, and for a further training what starts it.
        begun = _begun_with(folder, before.get("config"))
        is_longer = (config.max_minutes or math.inf) > (begun.max_minutes or math.inf)
        goes_further = bool(before.get("finished")) and (more is not None or is_longer)
        free = ["max_minutes", *(FREE_OF_FURTHER if goes_further else ())]
        same = dataclasses.replace(begun, **{name: getattr(config, name) for name in free})
        if to_json(same) != settings["config"]:
            raise AudiovqError(
                f"{folder}: was trained with other settings ({difference(to_json(same), to_json(config))});"
                " choose another folder, or add --overwrite"
            )
        remove_partials(folder)
        if not before.get("finished"):  # the new time limit holds for the stages left
            write_json(path, settings)
        elif before.get("dataset_folder") != settings["dataset_folder"]:  # it was moved
            write_json(path, before | {"dataset_folder": settings["dataset_folder"]})
        return
    elif not is_blank(folder):
        raise AudiovqError(
            f"{folder}: exists but contains no training to resume; choose another folder"
        )
    remove_partials(folder)
    write_json(path, settings)


def _require_origin(folder: Path, before: dict[str, Any] | None, origin: Origin | None) -> None:
    """Raise AudiovqError where a training from the model `before`, of settings.json, is not one from `origin`."""
    if before and (origin is None or origin.record["sha256"] != before.get("sha256")):
        is_other = "" if origin is None else ", which has changed or is another one"
        raise AudiovqError(
            f"{folder}: was trained from the model {before.get('name')}{is_other}; give it by --from, choose"
            " another folder, or add --overwrite"
        )
    if origin is not None and not before:
        raise AudiovqError(
            f"{folder}: was not trained from another model; leave out --from, choose another folder, or add"
            " --overwrite"
        )


def _begun_with(folder: Path, config: Any) -> TrainConfig:
    """Settings of a training begun earlier, from JSON.

    Raises AudiovqError where they are not settings of this version of the program.
    """
    try:
        return from_json(TrainConfig, config, "training/settings.json")
    except AudiovqError as error:
        raise AudiovqError(
            f"{folder}: its training was begun by another version of audiovq ({error}); choose another"
            " folder, or add --overwrite"
        ) from error


def mark_finished(folder: Path) -> None:
    """Note in settings.json that all stages are trained."""
    path = folder / "training" / "settings.json"
    settings = read_object(path, "a training folder")
    if not settings.get("finished"):
        write_json(path, settings | {"finished": True})


def is_finished(folder: Path) -> bool:
    """Whether settings.json notes that all stages are trained."""
    path = folder / "training" / "settings.json"
    return path.exists() and bool(read_object(path, "a training folder").get("finished"))


def trained_on(folder: Path, recordings: Path | None = None) -> Dataset:
    """The dataset that the model in `folder` was trained on; `recordings` as in `Dataset`.

    Raises AudiovqError where the model does not name one, or where it has been moved or deleted.
    """
    path = folder / "training" / "settings.json"
    dataset_folder = None
    if path.exists():
        settings = read_object(path, "a model that names its dataset")
        dataset_folder = settings.get("dataset_folder")
    if not isinstance(dataset_folder, str) or not dataset_folder:
        raise AudiovqError(
            f"{folder}: does not say which dataset it was trained on; {NAME_DATASET}"
        )
    try:
        return Dataset(folder / dataset_folder, recordings)
    except AudiovqError as error:
        raise AudiovqError(
            f"{folder}: its dataset was moved or deleted; {NAME_DATASET} ({error})"
        ) from error


def difference(before: dict[str, Any], now: dict[str, Any], path: str = "") -> str:
    """The first setting that differs, in words."""
    for key, value in now.items():
        if isinstance(value, dict):
            if found := difference(before[key], value, f"{path}{key}."):
                return found
        elif list(value) != list(before[key]) if isinstance(value, tuple) else value != before[key]:
            return f"{path}{key} was {before[key]}, is {value}"
    return ""
