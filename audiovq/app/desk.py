"""What somebody plays with: sounds on a shelf, and the one at hand, whose codes can be changed.

A desk never changes: every move gives a new one, and what was at hand before can be taken back.
Moves are asked for by strangers (a page sends them), so whatever they name is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from audiovq.audio import reading
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.settings import SamplingConfig
from audiovq.generation import edit
from audiovq.generation.generate import generate
from audiovq.generation.sound import Sound
from audiovq.models.model import Model

LONGEST_SECONDS = 10.0
"""Of a recording that is taken in, and of a sound that is gone on with."""
SHELF = 24
"""Sounds that a shelf holds; the oldest fall off."""
MOST = 8
"""Sounds made at a time."""
UNDONE = 32
"""Moves that can be taken back."""


@dataclass(frozen=True)
class Item:
    """A sound with its name."""

    name: str
    sound: Sound


@dataclass(frozen=True)
class Desk:
    """The newest sounds first; nothing is at hand before there are any."""

    shelf: tuple[Item, ...] = ()
    hand: Item | None = None
    past: tuple[Item, ...] = ()
    """What was at hand before, the latest last."""

    @property
    def at_hand(self) -> Item:
        """Raises AudiovqError where nothing is."""
        if self.hand is None:
            raise AudiovqError("no sound is at hand: make one, or drop in a recording")
        return self.hand


def make(
    model: Model,
    desk: Desk,
    n: int,
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """`n` new sounds on the shelf, the first at hand. Raises AudiovqError as `generate` does."""
    if not 1 <= n <= MOST:
        raise AudiovqError(f"number {n}: give 1 to {MOST}")
    sounds = generate(model, n, labels, sampling=sampling, seed=seed)
    return _put(
        desk, [Item(_name(sound) or f"new {i + 1}", sound) for i, sound in enumerate(sounds)]
    )


def record(model: Model, desk: Desk, path: Path) -> Desk:
    """A recording and what its codes make of it on the shelf, the latter at hand.

    Raises AudiovqError where it cannot be read, or is longer than LONGEST_SECONDS.
    """
    try:
        seconds = reading.info(path).seconds
        if seconds > LONGEST_SECONDS:
            raise AudiovqError(
                f"lasts {seconds:.1f} s; give a recording of {LONGEST_SECONDS:.0f} s at most"
            )
        waveform, _ = reading.read(path, model.sample_rate)
    except AudiovqError as error:
        raise AudiovqError(f"{path.name}: {error}") from error
    encoded = edit.encoded(model, waveform)
    again = _heard(model, f"{path.stem}, through the codes", encoded, {})
    return _put(desk, [again, Item(path.stem, Sound(waveform, {}, encoded))])


def take(model: Model, desk: Desk, place: int) -> Desk:
    """The sound at `place` on the shelf, as its codes have it, at hand."""
    item = _on_shelf(desk, place)
    return _changed(desk, _heard(model, item.name, item.sound.encoded, item.sound.labels))


def write_codes(
    model: Model, desk: Desk, cells: Sequence[Sequence[int]], codes: Sequence[int]
) -> Desk:
    """`codes`, one a quantizer, in `cells`, pairs of (row, column), of the sound at hand."""
    item, size = desk.at_hand, model.autoencoder.config.codebook_size
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
    return _changed(desk, _heard(model, item.name, encoded, item.sound.labels))


def repaint(
    model: Model,
    desk: Desk,
    cells: Sequence[Sequence[int]],
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """`cells`, pairs of (row, column), of the sound at hand drawn anew, to go with all others."""
    item = desk.at_hand
    mask = _mask(item, cells)
    (sound,) = edit.painted(model, item.sound.encoded, mask, labels, sampling=sampling, seed=seed)
    return _changed(desk, Item(item.name, sound))


def vary(
    model: Model,
    desk: Desk,
    n: int,
    strength: float,
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """`n` variations of the sound at hand on the shelf: see `play.variations`."""
    item = desk.at_hand
    if not 1 <= n <= MOST:
        raise AudiovqError(f"number {n}: give 1 to {MOST}")
    waveform = item.sound.waveform
    sounds = edit.variations(model, waveform, n, strength, labels, sampling=sampling, seed=seed)
    return _put(desk, [Item(f"{item.name}, varied {i + 1}", s) for i, s in enumerate(sounds)])


def extend(
    model: Model,
    desk: Desk,
    seconds: float,
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """The sound at hand as the beginning of one of so many seconds: see `play.extend`."""
    item = desk.at_hand
    if seconds > LONGEST_SECONDS:
        raise AudiovqError(f"length {seconds:g}: give up to {LONGEST_SECONDS:.0f} seconds")
    (sound,) = edit.extend(
        model, item.sound.waveform, seconds, labels, sampling=sampling, seed=seed
    )
    return _put(desk, [Item(f"{item.name}, continued", sound)])


def morph(model: Model, desk: Desk, place: int, steps: int) -> Desk:
    """`steps` sounds from the one at hand to the one at `place` on the shelf: see `play.morph`."""
    item, other = desk.at_hand, _on_shelf(desk, place)
    if not 2 <= steps <= MOST:
        raise AudiovqError(f"steps {steps}: give 2 to {MOST}")
    sounds = edit.morph(model, item.sound.waveform, other.sound.waveform, steps)
    return _put(
        desk,
        [Item(f"{item.name} → {other.name} {i + 1}/{steps}", s) for i, s in enumerate(sounds)],
    )


def undo(desk: Desk) -> Desk:
    """What was at hand before the last move at hand again."""
    if not desk.past:
        raise AudiovqError("there is nothing to take back")
    return replace(desk, hand=desk.past[-1], past=desk.past[:-1])


def _put(desk: Desk, items: Sequence[Item]) -> Desk:
    """`items` on the shelf before all others, the first of them at hand."""
    return _changed(replace(desk, shelf=(*items, *desk.shelf)[:SHELF]), items[0])


def _changed(desk: Desk, item: Item) -> Desk:
    past = (*desk.past, desk.hand)[-UNDONE:] if desk.hand else ()
    return replace(desk, hand=item, past=past)


def _on_shelf(desk: Desk, place: int) -> Item:
    if not 0 <= place < len(desk.shelf):
        raise AudiovqError(f"sound {place + 1}: the shelf holds {len(desk.shelf)}")
    return desk.shelf[place]


def _mask(item: Item, cells: Sequence[Sequence[int]]) -> torch.Tensor:
    """(rows, columns) bool. Raises AudiovqError where no cell is named, or one that is not there."""
    _, rows, columns = item.sound.encoded.codes.shape
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for row, column in cells:
        if not (0 <= row < rows and 0 <= column < columns):
            raise AudiovqError(f"cell {row}, {column}: the sound has {rows} × {columns}")
        mask[row, column] = True
    if not mask.any():
        raise AudiovqError("no cell is chosen: click on some first")
    return mask


def _heard(model: Model, name: str, encoded: Encoded, labels: Mapping[str, str]) -> Item:
    (waveform,) = codec.decode(model, [encoded])
    return Item(name, Sound(waveform, dict(labels), encoded))


def _name(sound: Sound) -> str:
    """Its labels, and of which training clip it is a near copy."""
    near = sound.nearest
    copied = [f"near copy of {near.path}"] if near is not None and near.is_copy else []
    return " · ".join([*sound.labels.values(), *copied])
