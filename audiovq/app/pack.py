"""All sounds of a shelf as one ZIP: WAVs, an instrument for samplers, and a page that plays them."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from pathlib import Path

from audiovq.app import view
from audiovq.app.desk import Desk, Item
from audiovq.config.errors import AudiovqError
from audiovq.library.instruments import Sample, hydrogen_kit, sfz_of_drums
from audiovq.models.model import Model
from audiovq.report.sheet import Entry, write_sheet


def zipped(model: Model, name: str, desk: Desk) -> bytes:
    """The kept sounds as a ZIP, or all if none is kept. Raises AudiovqError where the shelf is empty."""
    items = [item for item in desk.shelf if item.is_kept] or list(desk.shelf)
    if not items:
        raise AudiovqError("the shelf is empty: make a sound first")
    files: dict[str, Item] = {}
    for item in items:
        files[view.file_name(item, {file.lower() for file in files})] = item
    kinds: dict[str, list[Sample]] = {}
    for file, item in files.items():
        sample = Sample(file, item.sound.waveform.shape[-1])
        kinds.setdefault(_kind(item), []).append(sample)
    packed, folder = (
        io.BytesIO(),
        f"{name}-sounds",
    )  # so that it unpacks into one, as Hydrogen wants it
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, item in files.items():
            archive.writestr(f"{folder}/{file}", view.wav(model, item))
        kit = hydrogen_kit(name, kinds, "Sounds made in the app of audiovq.")
        archive.writestr(f"{folder}/{name}.sfz", sfz_of_drums(kinds))
        archive.writestr(f"{folder}/drumkit.xml", kit)
        archive.writestr(f"{folder}/index.html", _page(model, name, files))
    return packed.getvalue()


def _kind(item: Item) -> str:
    """The instrument of a sound: its first label, or the name of its original."""
    value = next(iter(item.sound.labels.values()), "") or (item.original or item).name
    return re.sub(r"\s+", " ", value)


def _page(model: Model, name: str, files: dict[str, Item]) -> str:
    entries = [Entry(item.name, file, item.sound.waveform) for file, item in files.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.html"
        words = f"{len(files)} sounds. Click a picture to play it."
        write_sheet(path, model.spectrogram, f"Sounds of {name}", words, {"": entries})
        return path.read_text(encoding="utf-8")
