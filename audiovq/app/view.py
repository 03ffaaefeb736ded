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
from audiovq.report.axes import bin_hertz, hertz_ticks, second_ticks
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
    tall, wide = model.autoencoder.stride
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
        "hertz_ticks": hertz_ticks(model.spectrogram, rows * tall),
        "bands": [band_text(model, row) for row in range(rows)],
    }


def band_text(model: Model, row: int) -> str:
    """The frequencies of a row of codes, such as `500 to 730 Hz`."""
    tall = model.autoencoder.stride[0]
    in_row = bin_hertz(model.spectrogram)[row * tall : (row + 1) * tall]
    return f"{in_row[0]:,.0f} to {in_row[-1]:,.0f} Hz" if in_row else ""


def wav(model: Model, item: Item) -> bytes:
    """The sound as a WAV file."""
    return embed.wav_bytes(item.sound.waveform, model.sample_rate)


def png(model: Model, item: Item, columns: int | None = None) -> bytes:
    """The spectrogram as a PNG file, as wide and tall as the cells of its codes, or as `columns` of them."""
    (image,) = waveform_images(model.spectrogram, [item.sound.waveform])
    _, rows, all_columns = item.sound.encoded.codes.shape
    tall, wide = model.autoencoder.stride
    width = (columns or all_columns) * wide
    missing = (0, max(0, width - image.shape[2]), 0, rows * tall - image.shape[1])
    return picture.png_bytes(torch.nn.functional.pad(image, missing)[0, :, :width].numpy())


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
    there in training clips (of all, where the model does not know its clips), and the quietest.

    Raises AudiovqError where there is no such row.
    """
    size = model.vocabulary.codebook_size
    _require(row, model.vocabulary.rows, "row")
    found = torch.arange(min(CANDIDATES, size))
    if model.known is not None:
        used = model.known.codes[0, :, 0, row].long()
        counts = torch.bincount(used[used >= 0], minlength=size)
        found = counts.topk(min(CANDIDATES, int((counts > 0).sum()))).indices
    tall, wide = model.autoencoder.stride
    begin = MARGIN * wide
    images = held_codes(model, found, row)[:, 0].cpu()
    cells = images[:, row * tall : (row + 1) * tall, begin : begin + 2 * wide]
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
