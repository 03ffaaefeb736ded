"""The model folder during training: who may write to it, and which dataset it belongs to."""

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

NAME_IT = "name the dataset: `report MODEL DATASET`, `plot MODEL OUT --dataset DATASET`"


def claim(folder: Path, dataset: Dataset, config: TrainConfig, overwrite: bool) -> None:
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
        begun = _begun_with(folder, before.get("config"))
        same = dataclasses.replace(begun, max_minutes=config.max_minutes)
        if to_json(same) != settings["config"]:
            raise AudiovqError(
                f"{folder}: was trained with other settings ({_difference(to_json(same), to_json(config))});"
                " name another folder, or add --overwrite"
            )
        if before.get("finished") and (config.max_minutes or math.inf) > (
            begun.max_minutes or math.inf
        ):
            raise AudiovqError(
                f"{folder}: its training is finished, and more minutes do not continue it; name another"
                " folder, or add --overwrite to train again"
            )
        remove_partials(folder)
        if not before.get("finished"):  # what is left goes by the new limit
            write_json(path, settings)
        return
    elif not is_blank(folder):
        raise AudiovqError(
            f"{folder}: exists already and is no started training; name another folder"
        )
    remove_partials(folder)
    write_json(path, settings)


def _begun_with(folder: Path, config: Any) -> TrainConfig:
    """Settings of a training begun earlier, from JSON. Raises AudiovqError where they are not settings of
    this version of the program."""
    try:
        return from_json(TrainConfig, config, "training/settings.json")
    except AudiovqError as error:
        raise AudiovqError(
            f"{folder}: its training was begun by another version of audiovq ({error}); name another"
            " folder, or add --overwrite"
        ) from error


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
