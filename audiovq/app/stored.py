"""Desks on disk, in the user's state folder, so that work is kept over a restart of the server: a file for each sound,
written once, and a list of them. Only the sounds are kept, no moves to undo."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, from_numpy

from audiovq.app.desk import SHELF_SIZE, Desk, Item
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.generation.sound import Sound
from audiovq.models.model import Model
from audiovq.runtime.files import read_object, state_folder, write_json
from audiovq.runtime.tensors import read_tensors, save_tensors

MAX_DESKS = 8
"""Desks of a model on disk; those not used for longest are deleted."""
LIST = "desk.json"


def folder_of(model: Model) -> Path | None:
    """Where the desks of a model from a folder are; None for other models, and without a state folder."""
    state, digest = state_folder(), model.header.get("autoencoder", {}).get("sha256")
    return None if state is None or not digest else state / "app" / digest[:16]


def save(folder: Path, browser: str, desk: Desk) -> None:
    """Write a browser's desk; nothing happens where that is not possible, as work continues in memory."""
    with contextlib.suppress(OSError, AudiovqError):
        desk_folder = _desk_folder(folder, browser)
        desk_folder.mkdir(0o700, parents=True, exist_ok=True)  # recordings may be private
        originals = [shown.original for shown in desk.shelf if shown.original is not None]
        items = {item.key: item for item in (*originals, *desk.shelf)}
        for key, item in items.items():
            if not (path := desk_folder / f"{key}.safetensors").exists():
                save_tensors(path, _tensors(item), {"audiovq": "sound"})
        rows = {key: _row(item) for key, item in items.items()}
        shelf = [item.key for item in desk.shelf]
        write_json(desk_folder / LIST, {"sounds": rows, "shelf": shelf, "open": desk.key})
        for path in desk_folder.glob("*.safetensors"):
            if path.stem not in items:
                path.unlink()
        by_time = sorted(folder.glob(f"*/{LIST}"), key=os.path.getmtime)
        for path in by_time[:-MAX_DESKS]:
            shutil.rmtree(path.parent, ignore_errors=True)


def load(folder: Path, browser: str) -> Desk | None:
    """A browser's desk as it was saved; None where there is none, or it is damaged."""
    desk_folder = _desk_folder(folder, browser)
    try:
        listed = read_object(desk_folder / LIST, "a desk")
        rows, shelf = listed["sounds"], [str(key) for key in listed["shelf"][:SHELF_SIZE]]
        items = {key: _item(desk_folder, key, rows[key]) for key in rows if key == Path(key).name}
        for key, row in rows.items():
            items[key] = replace(items[key], original=items.get(row["original"]))
        desk = Desk(tuple(items[key] for key in shelf), str(listed["open"]))
        _ = desk.selected
    except (OSError, AudiovqError, LookupError, TypeError, ValueError, AttributeError):
        return None
    return desk


def _desk_folder(folder: Path, browser: str) -> Path:
    """The folder of a browser's desk; its name does not tell the cookie that opens it."""
    return folder / hashlib.sha256(browser.encode()).hexdigest()[:16]


def _tensors(item: Item) -> dict[str, Tensor]:
    waveform = from_numpy(np.array(item.sound.waveform))
    return {"waveform": waveform, "codes": item.sound.encoded.codes}


def _row(item: Item) -> dict[str, Any]:
    """What a sound has beside its tensors."""
    return {
        "name": item.name,
        "note": item.note,
        "kept": item.is_kept,
        "original": item.original.key if item.original else None,
        "labels": item.sound.labels,
        "level": item.sound.encoded.level,
        "num_samples": item.sound.encoded.num_samples,
    }


def _item(desk_folder: Path, key: str, row: dict[str, Any]) -> Item:
    """A sound without its original; raises errors of several kinds where it is damaged."""
    tensors, _ = read_tensors(desk_folder / f"{key}.safetensors", sealed=True)
    encoded = Encoded(tensors["codes"], int(row["level"]), int(row["num_samples"]))
    labels = {str(name): str(value) for name, value in row["labels"].items()}
    sound = Sound(tensors["waveform"].numpy(), labels, encoded)
    return Item(str(row["name"]), sound, str(row["note"]), None, bool(row["kept"]), key)
