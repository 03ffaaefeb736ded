"""State of the app: a shelf of sounds, and the selected one, whose codes can be edited.

A `Desk` is immutable: every action returns a new one, and the previous selection can be restored. Actions
come from a web page, so all their arguments are checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from audiovq.audio import reading
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation import edit
from audiovq.generation import morph as morphing
from audiovq.generation.generate import generate
from audiovq.generation.sound import Sound, decode_sounds
from audiovq.models.model import Model

MAX_SECONDS = 10.0
"""Longest recording that can be loaded, and longest continuation."""
SHELF_SIZE = 24
"""Sounds on the shelf; the oldest are dropped."""
MAX_SOUNDS = 8
"""Sounds made at a time."""
MAX_UNDO = 32
"""Actions that can be undone."""


@dataclass(frozen=True)
class Item:
    """A sound with its name."""

    name: str
    sound: Sound


@dataclass(frozen=True)
class Desk:
    """The shelf, newest sounds first, and the selected sound; none at the start."""

    shelf: tuple[Item, ...] = ()
    hand: Item | None = None
    past: tuple[Item, ...] = ()
    """Earlier selections, the latest last."""

    @property
    def selected(self) -> Item:
        """The selected sound. Raises AudiovqError where there is none."""
        if self.hand is None:
            raise AudiovqError("no sound is selected: make one, or drop in a recording")
        return self.hand


def make(
    model: Model,
    desk: Desk,
    n: int,
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """Put `n` new sounds on the shelf and select the first. Raises AudiovqError as `generate` does."""
    if not 1 <= n <= MAX_SOUNDS:
        raise AudiovqError(f"number {n}: give 1 to {MAX_SOUNDS}")
    sounds = generate(model, n, labels, sampling=sampling, seed=seed)
    return _add(
        desk, [Item(_name(sound) or f"new {i + 1}", sound) for i, sound in enumerate(sounds)]
    )


def record(model: Model, desk: Desk, path: Path) -> Desk:
    """Put a recording and its reconstruction on the shelf, and select the recording, whose samples edits keep.

    Raises AudiovqError where the file cannot be read, or is longer than MAX_SECONDS.
    """
    try:
        seconds = reading.info(path).seconds
        if seconds > MAX_SECONDS:
            raise AudiovqError(
                f"lasts {seconds:.1f} s; give a recording of {MAX_SECONDS:.0f} s at most"
            )
        waveform, _ = reading.read(path, model.sample_rate, channels=model.channels)
    except AudiovqError as error:
        raise AudiovqError(f"{path.name}: {error}") from error
    encoded = edit.encode_nearest(model, waveform)
    decoded = _decode(model, f"{path.stem}, encoded and decoded", encoded, {})
    return _add(desk, [Item(path.stem, Sound(waveform, {}, encoded)), decoded])


def take(desk: Desk, index: int) -> Desk:
    """Select the sound at `index` on the shelf."""
    return _select(desk, _on_shelf(desk, index))


def write_codes(
    model: Model, desk: Desk, cells: Sequence[Sequence[int]], codes: Sequence[int]
) -> Desk:
    """Set `cells`, pairs of (row, column) of the selected sound, to `codes`, one per quantizer; samples elsewhere are
    kept."""
    item, size = desk.selected, model.autoencoder.config.bottleneck.num_codes
    grid = item.sound.encoded.codes.clone()
    for code in codes:
        if not 0 <= code < size:
            raise AudiovqError(f"code {code}: give 0 to {size - 1}")
    if len(codes) != len(grid):
        raise AudiovqError(f"codes {list(codes)}: give {len(grid)}, one for each quantizer")
    mask = _mask(item, cells)
    for layer, code in zip(grid, codes, strict=True):
        layer[mask] = code
    encoded = replace(item.sound.encoded, codes=grid)
    decoded = _decode(model, item.name, encoded, item.sound.labels)
    sound = edit.keep_unmasked(model, item.sound.waveform, decoded.sound, mask)
    return _select(desk, Item(item.name, sound))


def repaint(
    model: Model,
    desk: Desk,
    cells: Sequence[Sequence[int]],
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """Resample `cells`, pairs of (row, column) of the selected sound, conditioned on all others; samples elsewhere
    are kept."""
    item = desk.selected
    mask = _mask(item, cells)
    (sound,) = edit.resample(model, item.sound.encoded, mask, labels, sampling=sampling, seed=seed)
    sound = edit.keep_unmasked(model, item.sound.waveform, sound, mask)
    return _select(desk, Item(item.name, sound))


def vary(
    model: Model,
    desk: Desk,
    n: int,
    strength: float,
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """Put `n` variations of the selected sound on the shelf: see `edit.vary`."""
    item = desk.selected
    if not 1 <= n <= MAX_SOUNDS:
        raise AudiovqError(f"number {n}: give 1 to {MAX_SOUNDS}")
    waveform = item.sound.waveform
    sounds = edit.vary(model, waveform, n, strength, labels, sampling=sampling, seed=seed)
    return _add(desk, [Item(f"{item.name}, varied {i + 1}", s) for i, s in enumerate(sounds)])


def extend(
    model: Model,
    desk: Desk,
    seconds: float,
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """Put a continuation of the selected sound, `seconds` long in total, on the shelf: see `edit.extend`."""
    item = desk.selected
    if seconds > MAX_SECONDS:
        raise AudiovqError(f"length {seconds:g}: give up to {MAX_SECONDS:.0f} seconds")
    (sound,) = edit.extend(
        model, item.sound.waveform, seconds, labels, sampling=sampling, seed=seed
    )
    return _add(desk, [Item(f"{item.name}, continued", sound)])


def morph(model: Model, desk: Desk, index: int, steps: int) -> Desk:
    """Put `steps` sounds from the selected one to the one at `index` on the shelf: see `morph.morph`."""
    item, other = desk.selected, _on_shelf(desk, index)
    if not 2 <= steps <= MAX_SOUNDS:
        raise AudiovqError(f"steps {steps}: give 2 to {MAX_SOUNDS}")
    sounds = morphing.morph(model, item.sound.waveform, other.sound.waveform, steps)
    return _add(
        desk,
        [Item(f"{item.name} → {other.name} {i + 1}/{steps}", s) for i, s in enumerate(sounds)],
    )


def undo(desk: Desk) -> Desk:
    """Restore the selection before the last action. Raises AudiovqError where there is none."""
    if not desk.past:
        raise AudiovqError("there is nothing to undo")
    return replace(desk, hand=desk.past[-1], past=desk.past[:-1])


def _add(desk: Desk, items: Sequence[Item]) -> Desk:
    """Put `items` at the front of the shelf and select the first."""
    return _select(replace(desk, shelf=(*items, *desk.shelf)[:SHELF_SIZE]), items[0])


def _select(desk: Desk, item: Item) -> Desk:
    past = (*desk.past, desk.hand)[-MAX_UNDO:] if desk.hand else ()
    return replace(desk, hand=item, past=past)


def _on_shelf(desk: Desk, index: int) -> Item:
    if not 0 <= index < len(desk.shelf):
        raise AudiovqError(f"sound {index + 1}: the shelf holds {len(desk.shelf)}")
    return desk.shelf[index]


def _mask(item: Item, cells: Sequence[Sequence[int]]) -> torch.Tensor:
    """(rows, columns) bool. Raises AudiovqError where no cell is given, or one outside the grid."""
    _, rows, columns = item.sound.encoded.codes.shape
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for row, column in cells:
        if not (0 <= row < rows and 0 <= column < columns):
            raise AudiovqError(f"cell {row}, {column}: the sound has {rows} × {columns}")
        mask[row, column] = True
    if not mask.any():
        raise AudiovqError("no cell is selected: click on some first")
    return mask


def _decode(model: Model, name: str, encoded: Encoded, labels: Mapping[str, str]) -> Item:
    (sound,) = decode_sounds(model, [encoded], labels, Inversion(), 0)
    return Item(name, sound)


def _name(sound: Sound) -> str:
    """The sound's label values, and the training clip of which it is a near copy."""
    near = sound.nearest
    copied = [f"near copy of {near.path}"] if near is not None and near.is_copy else []
    return " · ".join([*sound.labels.values(), *copied])
