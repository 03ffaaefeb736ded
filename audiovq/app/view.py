"""What the page shows of a desk, as plain data, and its pictures and sounds, as files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch

from audiovq.app import desk as moves
from audiovq.app.desk import Desk, Item
from audiovq.codec.single import MARGIN, held_codes, held_waveform
from audiovq.config.errors import AudiovqError
from audiovq.generation.labels import learnt_values
from audiovq.models.model import Model
from audiovq.report import embed
from audiovq.report.axes import Tick, hertz_ticks, row_text, second_ticks
from audiovq.runtime.files import MAX_VALUE_CHARS
from audiovq.spectral import picture
from audiovq.spectral.spectrogram import waveform_images

MAX_UPLOAD_BYTES = 20 << 20
MOST_CODES = 16
"""Codes of a row that can be played and written by a click,"""
CANDIDATES = 64
"""of those that are commonest."""


def describe_model(model: Model, name: str) -> dict[str, Any]:
    """What the page needs to know of the model, for its template."""
    codes = model.autoencoder.config.bottleneck.num_codes
    channels = "stereo" if model.channels == 2 else "mono"
    return {
        "name": name,
        "facts": f"{model.sample_rate / 1000:g} kHz {channels} · {codes} codes (pieces of sound)",
        "labels": {label: learnt_values(model, label) for label in model.labels},
        "generates": model.prior is not None or model.masked is not None,
        "codes": codes,
        "max_seconds": moves.MAX_SECONDS,
        "most_bytes": MAX_UPLOAD_BYTES,
        "max_sounds": moves.MAX_SOUNDS,
    }


def describe_desk(model: Model, desk: Desk) -> dict[str, Any]:
    """The shelf and the selected sound, with its codes and the ticks of its axes."""
    return {
        "sounds": [_describe(model, item) for item in desk.shelf],
        "editor": _editor(model, desk.selected) if desk.shelf else None,
        "undo": desk.past[-1].move if desk.past else "",
        "redo": desk.future[-1].move if desk.future else "",
    }


def _describe(model: Model, item: Item) -> dict[str, Any]:
    return {
        "key": item.key,
        "name": item.name,
        "seconds": item.sound.waveform.shape[-1] / model.sample_rate,
        "note": item.note,
        "kept": item.is_kept,
    }


def _editor(model: Model, item: Item) -> dict[str, Any]:
    """The selected sound: its codes as cells over its picture, and the sound before all edits."""
    codes = item.sound.encoded.codes
    _, rows, columns = codes.shape
    wide = model.autoencoder.stride[1]
    samples = columns * wide * model.spectrogram.config.hop_length
    seconds = samples / model.sample_rate
    return {
        **_describe(model, item),
        "labels": item.sound.labels,
        "original": _describe(model, item.original) if item.original else None,
        "rows": rows,
        "columns": columns,
        "codes": codes.permute(1, 2, 0).tolist(),
        "shown_seconds": seconds,
        "seconds_ticks": second_ticks(seconds),
        "hertz_ticks": _ticks(model),
        "bands": [row_text(model, row) for row in range(rows)],
    }


def _ticks(model: Model) -> list[Tick]:
    """Frequencies beside the rows of loudness, and a tick in the middle of those of positions."""
    autoencoder = model.autoencoder
    ticks = hertz_ticks(model.spectrogram, autoencoder.rows * autoencoder.stride[0])
    if autoencoder.position_rows:
        middle = autoencoder.loudness_rows + autoencoder.position_rows / 2
        ticks.append(Tick(middle / autoencoder.rows, "L–R"))
    return ticks


def wav(model: Model, item: Item) -> bytes:
    """The sound as a WAV file."""
    return embed.wav_bytes(item.sound.waveform, model.sample_rate)


def png(model: Model, item: Item, columns: int | None = None) -> bytes:
    """The spectrogram as a PNG file, as wide and tall as the cells of its codes, or as `columns` of them.

    Rows of positions show the balance from low to high bands, dark on the left."""
    (image,) = waveform_images(model.spectrogram, [item.sound.waveform])
    autoencoder = model.autoencoder
    tall, wide = autoencoder.stride
    width = (columns or item.sound.encoded.codes.shape[2]) * wide
    missing = (
        0,
        max(0, width - image.shape[2]),
        0,
        autoencoder.loudness_rows * tall - image.shape[1],
    )
    shown = torch.nn.functional.pad(image, missing)
    if height := autoencoder.position_rows * tall:
        bins = torch.arange(height) * autoencoder.bins // height
        shown = torch.cat([shown[:1], shown[1:2, bins]], dim=1)
    return picture.png_bytes(shown[0, :, :width].numpy())


def file_name(item: Item, taken: Iterable[str] = ()) -> str:
    """A name for the sound's file that is not `taken` (in small letters), such as `kick-take-2.wav`."""
    stem = re.sub(r"[^\w.-]+", "-", item.name).strip("-.")[:MAX_VALUE_CHARS] or "sound"
    names = set(taken)
    number = 1
    while (name := f"{stem}{'' if number == 1 else f'_{number}'}.wav").lower() in names:
        number += 1
    return name


def row_codes(model: Model, row: int) -> list[dict[str, Any]]:
    """Codes to choose from in a row, from quiet to loud, each with a picture: the loudest of those that are common
    there in training clips (of all, where the model does not know its clips), and the quietest. Positions: left to right.

    Raises AudiovqError where there is no such row.
    """
    size = model.vocabulary.codebook_size
    _require(row, model.vocabulary.rows, "row")
    found = torch.arange(min(CANDIDATES, size))
    if model.known is not None:
        used = model.known.codes[0, :, 0, row].long()
        counts = torch.bincount(used[used >= 0], minlength=size)
        found = counts.topk(min(CANDIDATES, int((counts > 0).sum()))).indices
    autoencoder = model.autoencoder
    bins, wide = autoencoder.bins_of(row), autoencoder.stride[1]
    begin = MARGIN * wide
    plane = int(row >= autoencoder.loudness_rows)  # of a position, its balance
    images = held_codes(model, found, row)[:, plane].cpu()
    cells = images[:, bins.start : bins.stop, begin : begin + 2 * wide]
    order = cells.mean(dim=(1, 2)).argsort()
    order = torch.cat([order[:1], order[1:][-(MOST_CODES - 1) :]])
    return [
        {"code": int(found[i]), "picture": picture.png(cells[i].numpy())} for i in order.tolist()
    ]


def code_wav(model: Model, row: int, code: int) -> bytes:
    """What a code sounds like in a row, as a WAV file. Raises AudiovqError where there is no such row or code."""
    _require(row, model.vocabulary.rows, "row")
    _require(code, model.vocabulary.codebook_size, "code")
    (image,) = held_codes(model, torch.tensor([code]), row)
    return embed.wav_bytes(held_waveform(model, image), model.sample_rate)


def _require(number: int, end: int, name: str) -> None:
    if not 0 <= number < end:
        raise AudiovqError(f"{name} {number}: give 0 to {end - 1}")
