"""All sounds of a shelf as one ZIP: WAVs, an instrument for samplers, and a page that plays them."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from pathlib import Path

from audiovq.app import view
from audiovq.app.desk import DECODED, Desk, Item
from audiovq.audio.silence import SILENT
from audiovq.audio.waveform import peak_of
from audiovq.config.errors import AudiovqError
from audiovq.library.instruments import Sample, hydrogen_kit, sfz_of_drums
from audiovq.models.model import Model
from audiovq.report.sheet import Entry, write_sheet


def zipped(model: Model, name: str, desk: Desk) -> bytes:
    """The kept sounds as a ZIP, or all if none is kept; silent ones are left out.

    Raises AudiovqError where none is left.
    """
    items = [item for item in desk.shelf if item.is_kept] or list(desk.shelf)
    items = [item for item in items if peak_of(item.sound.waveform) >= SILENT]
    if not items:
        raise AudiovqError("there is nothing to pack but silence: make a sound first")
    files: dict[str, Item] = {}
    for item in items:
        files[view.file_name(item, {file.lower() for file in files})] = item
    kinds: dict[str, list[Sample]] = {}
    for file, item in files.items():
        sample = Sample(file, item.sound.waveform.shape[-1])
        kinds.setdefault(_kind(item), []).append(sample)
    packed, folder = io.BytesIO(), folder_name(name)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, item in files.items():
            archive.writestr(f"{folder}/{file}", view.wav(model, item))
        kit = hydrogen_kit(name, kinds, "Sounds made in the app of audiovq.")
        archive.writestr(f"{folder}/{name}.sfz", sfz_of_drums(kinds))
        archive.writestr(f"{folder}/drumkit.xml", kit)
        archive.writestr(f"{folder}/index.html", _page(model, name, files))
    return packed.getvalue()


def folder_name(name: str) -> str:
    """The folder that the pack of a model of this name unpacks into, as Hydrogen wants it."""
    return name if name.endswith("sounds") else f"{name}-sounds"


def _kind(item: Item) -> str:
    """The instrument of a sound: its first label, or the name of its original; of a decoded recording its name, as
    it would take turns with the recording."""
    value = next(iter(item.sound.labels.values()), "") or (item.original or item).name
    value = item.name if item.note == DECODED else value
    return re.sub(r"\s+", " ", value)


def _page(model: Model, name: str, files: dict[str, Item]) -> str:
    entries = [Entry(item.name, file, item.sound.waveform) for file, item in files.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.html"
        words = f"{len(files)} sounds. Click a picture to play it."
        write_sheet(path, model.spectrogram, f"Sounds of {name}", words, {"": entries})
        return path.read_text(encoding="utf-8")
