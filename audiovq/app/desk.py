"""State of the app: a shelf of sounds, and the selected one, whose codes can be edited.

A `Desk` is immutable: every move returns a new one, and earlier ones can be restored. Moves come from a web page, so
all their arguments are checked.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from audiovq.audio import reading
from audiovq.audio.waveform import AudioError
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.output import OutputConfig
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation import edit
from audiovq.generation import morph as morphing
from audiovq.generation.generate import generate
from audiovq.generation.labels import infer_labels, label_names
from audiovq.generation.output.run import gain_of
from audiovq.generation.sound import Sound, decode_sounds
from audiovq.models.model import Model

MAX_SECONDS = 10.0
"""Longest recording that can be loaded, and longest sound."""
SHELF_SIZE = 40
"""Sounds on the shelf; the oldest that are not kept are dropped."""
MAX_SOUNDS = 8
"""Sounds of a morph."""
MAX_UNDO = 32
"""Moves that can be undone."""
DECODED = "encoded and decoded"
"""The note of a recording as the codec decodes it."""
MAX_NAME = 60
"""Characters of a name."""


def _new_key() -> str:
    return secrets.token_urlsafe(9)


@dataclass(frozen=True, eq=False)
class Item:
    """A sound with its name."""

    name: str
    sound: Sound
    note: str = ""
    """How it was made, or what it was made from."""
    original: Item | None = None
    """The sound before all edits; None: it is not edited."""
    is_kept: bool = False
    """Whether it stays when the shelf is full."""
    key: str = field(default_factory=_new_key)
    """Differs for each waveform."""


@dataclass(frozen=True)
class Moment:
    """A state that can be restored."""

    shelf: tuple[Item, ...]
    key: str
    move: str
    """The move that followed it, in a word or two."""


@dataclass(frozen=True)
class Desk:
    """The shelf, newest sounds first, and the key of the selected one; "" without sounds."""

    shelf: tuple[Item, ...] = ()
    key: str = ""
    past: tuple[Moment, ...] = ()
    """Earlier states, the latest last."""
    future: tuple[Moment, ...] = ()
    """States that were undone, the latest last."""

    @property
    def selected(self) -> Item:
        """The selected sound. Raises AudiovqError where there is none."""
        if not self.shelf:
            raise AudiovqError("no sound is selected: make one, or drop in a recording")
        return self.find(self.key)

    def find(self, key: str) -> Item:
        """The sound on the shelf with a key. Raises AudiovqError where there is none."""
        for item in self.shelf:
            if item.key == key:
                return item
        raise AudiovqError("that sound is not on the shelf any more: choose another")


def make(
    model: Model,
    desk: Desk,
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
    seconds: float | None = None,
) -> Desk:
    """Put a new sound on the shelf and select it; `seconds` None: the model chooses its length.

    Raises AudiovqError as `generate` does.
    """
    _require_seconds(seconds)
    made = generate(model, 1, labels, sampling=sampling, seed=seed, seconds=seconds)
    (sound,) = _below_peak(model, made)
    number = 1 + _last_number(desk, "sound ")
    near = sound.nearest
    note = f"near copy of {near.path}" if near is not None and near.is_copy else "new"
    name = " · ".join(sound.labels.values()) or f"sound {number}"
    return _add(desk, "new sound", [Item(name, sound, note)])


def record(model: Model, desk: Desk, path: Path, name: str) -> Desk:
    """Put a recording on the shelf and select it, and its reconstruction after it; edits keep its samples.

    Labels that are not known are those that the prior finds most likely. Raises AudiovqError where the file cannot
    be read, or is longer than MAX_SECONDS.
    """
    try:
        found = reading.info(path)
        if found.seconds > MAX_SECONDS:
            raise AudiovqError(
                f"lasts {found.seconds:.1f} s; give a recording of {MAX_SECONDS:.0f} s at most"
            )
        waveform, _ = reading.read(path, model.sample_rate, channels=model.channels)
    except AudioError as error:
        raise AudiovqError(f"{name}: {error}; open another recording, such as a WAV") from error
    except AudiovqError as error:
        raise AudiovqError(f"{name}: {error}") from error
    encoded = edit.encode_nearest(model, waveform)
    labels = label_names(model, infer_labels(model, encoded).tolist())
    stem = Path(name).stem[:MAX_NAME] or "recording"
    note = _converted(found, model)
    item = Item(stem, Sound(waveform, labels, encoded), note)
    (coded,) = _below_peak(model, [_decode(model, encoded, labels)])
    return _add(desk, "recording", [item, Item(f"{stem}, decoded", coded, DECODED, item)])


def _converted(found: reading.AudioInfo, model: Model) -> str:
    """What a recording is turned into, such as `48,000 Hz stereo → 44,100 Hz mono`."""
    before, after = (
        f"{rate:,} Hz {_channels(channels)}"
        for rate, channels in (
            (found.sample_rate, found.channels),
            (model.sample_rate, model.channels),
        )
    )
    return f"{before}, as the model's" if before == after else f"{before} → {after}"


def _channels(number: int) -> str:
    return {1: "mono", 2: "stereo"}.get(number, f"{number} channels")


def take(desk: Desk, key: str) -> Desk:
    """Select the sound with a key."""
    return replace(desk, key=desk.find(key).key)


def rename(desk: Desk, key: str, name: str) -> Desk:
    """Give a sound another name."""
    name = " ".join(name.split())[:MAX_NAME]
    if not name:
        raise AudiovqError("the name is empty: type one")
    return _changed(desk, "rename", key, lambda item: replace(item, name=name))


def keep(desk: Desk, key: str, is_kept: bool) -> Desk:
    """Mark a sound as kept, or not."""
    return _changed(desk, "keep", key, lambda item: replace(item, is_kept=is_kept))


def discard(desk: Desk, key: str) -> Desk:
    """Take a sound off the shelf; if it was the selected one, its neighbour is selected."""
    index = desk.shelf.index(desk.find(key))
    shelf = desk.shelf[:index] + desk.shelf[index + 1 :]
    selected = desk.key
    if selected == key:
        selected = shelf[min(index, len(shelf) - 1)].key if shelf else ""
    return _after(desk, "discard", shelf, selected)


def redraw(
    model: Model,
    desk: Desk,
    cells: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """Resample `cells`, pairs of (row, column) of the selected sound, conditioned on all others, as a further take;
    samples elsewhere are kept."""
    item = desk.selected
    mask = _mask(item, cells)
    encoded, labels = item.sound.encoded, item.sound.labels
    (sound,) = edit.resample(model, encoded, mask, labels, sampling=sampling, seed=seed)
    sound = edit.keep_unmasked(model, item.sound.waveform, sound, mask)
    return _add(desk, "redraw", [_take(desk, item, sound, f"{int(mask.sum())} cells redrawn")])


def write_codes(
    model: Model, desk: Desk, cells: Sequence[Sequence[int]], codes: Sequence[int]
) -> Desk:
    """Set `cells`, pairs of (row, column) of the selected sound, to `codes`, one per quantizer, as a further take;
    samples elsewhere are kept."""
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
    decoded = _decode(model, encoded, item.sound.labels)
    sound = edit.keep_unmasked(model, item.sound.waveform, decoded, mask)
    words = f"code {' '.join(map(str, codes))} written in {int(mask.sum())} cells"
    return _add(desk, "write code", [_take(desk, item, sound, words)])


def vary(
    model: Model,
    desk: Desk,
    strength: float,
    labels: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
) -> Desk:
    """Put a variation of the selected sound on the shelf: see `edit.vary`."""
    item = desk.selected
    labels = {**item.sound.labels, **labels}
    made = edit.vary(model, item.sound.waveform, 1, strength, labels, sampling=sampling, seed=seed)
    (sound,) = _below_peak(model, made)
    return _add(desk, "variation", [_take(desk, item, sound, f"varied, strength {strength:g}")])


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
    _require_seconds(seconds)
    labels = {**item.sound.labels, **labels}
    waveform = item.sound.waveform
    (sound,) = edit.extend(model, waveform, seconds, labels, sampling=sampling, seed=seed)
    return _add(desk, "continuation", [_take(desk, item, sound, f"continued to {seconds:g} s")])


def morph(model: Model, desk: Desk, key: str, steps: int) -> Desk:
    """Put `steps` sounds from the selected one to the one with a key on the shelf: see `morph.morph`."""
    item, other = desk.selected, desk.find(key)
    if item is other:
        raise AudiovqError("a sound cannot morph to itself: choose another of the shelf")
    if not 2 <= steps <= MAX_SOUNDS:
        raise AudiovqError(f"steps {steps}: give 2 to {MAX_SOUNDS}")
    made = morphing.morph(model, item.sound.waveform, other.sound.waveform, steps)
    sounds = _below_peak(model, made)
    names = [f"{item.name} → {other.name} {i + 1}/{steps}"[:MAX_NAME] for i in range(steps)]
    return _add(
        desk,
        "morph",
        [Item(name, s, "morph", item) for name, s in zip(names, sounds, strict=True)],
    )


def undo(desk: Desk) -> Desk:
    """Restore the state before the last move. Raises AudiovqError where there is none."""
    if not desk.past:
        raise AudiovqError("there is nothing to undo")
    last = desk.past[-1]
    undone = (*desk.future, Moment(desk.shelf, desk.key, last.move))
    return Desk(last.shelf, last.key, desk.past[:-1], undone)


def redo(desk: Desk) -> Desk:
    """Restore the state before the last `undo`. Raises AudiovqError where there is none."""
    if not desk.future:
        raise AudiovqError("there is nothing to redo")
    last = desk.future[-1]
    past = (*desk.past, Moment(desk.shelf, desk.key, last.move))
    return Desk(last.shelf, last.key, past, desk.future[:-1])


def _below_peak(model: Model, sounds: Sequence[Sound]) -> list[Sound]:
    """New sounds, those that are louder turned down to the peak of files by `generate`."""
    output = OutputConfig()
    gains = [np.float32(gain_of(sound, model.sample_rate, output)[0]) for sound in sounds]
    return [
        replace(sound, waveform=gain * sound.waveform)
        for gain, sound in zip(gains, sounds, strict=True)
    ]


def _take(desk: Desk, item: Item, sound: Sound, note: str) -> Item:
    """An edit of an item, named after its original and numbered."""
    original = item.original or item
    sound = replace(sound, labels=sound.labels or item.sound.labels)
    name = f"{original.name[: MAX_NAME - 10]}, take "
    return Item(f"{name}{1 + max(1, _last_number(desk, name))}", sound, note, original)


def _last_number(desk: Desk, name: str) -> int:
    """The highest number behind a name on the shelf; 0 where there is none."""
    found = (re.fullmatch(rf"{re.escape(name)}(\d+)", item.name) for item in desk.shelf)
    return max((int(match[1]) for match in found if match), default=0)


def _add(desk: Desk, move: str, items: Sequence[Item]) -> Desk:
    """Put `items` at the front of the shelf and select the first. Raises AudiovqError where kept sounds fill it."""
    shelf = [*items, *desk.shelf]
    droppable = [item for item in desk.shelf if not item.is_kept]
    while len(shelf) > SHELF_SIZE:
        if not droppable:
            raise AudiovqError(
                f"the shelf is full of kept sounds ({SHELF_SIZE}): download them, then discard some"
            )
        shelf.remove(droppable.pop())
    return _after(desk, move, tuple(shelf), items[0].key)


def _after(desk: Desk, move: str, shelf: tuple[Item, ...], key: str) -> Desk:
    """The desk after a move, which can be undone."""
    past = (*desk.past, Moment(desk.shelf, desk.key, move))[-MAX_UNDO:]
    return Desk(shelf, key, past)


def _changed(desk: Desk, move: str, key: str, change: Callable[[Item], Item]) -> Desk:
    """The desk with one sound changed, as the original of others, too."""
    changed = change(desk.find(key))

    def after(item: Item) -> Item:
        if item.key == key:
            return changed
        is_take = item.original is not None and item.original.key == key
        return replace(item, original=changed) if is_take else item

    return _after(desk, move, tuple(map(after, desk.shelf)), desk.key)


def _require_seconds(seconds: float | None) -> None:
    if seconds is not None and not seconds <= MAX_SECONDS:
        raise AudiovqError(f"length {seconds:g}: give up to {MAX_SECONDS:.0f} seconds")


def _mask(item: Item, cells: Sequence[Sequence[int]]) -> torch.Tensor:
    """(rows, columns) bool. Raises AudiovqError where no cell is given, or one outside the grid."""
    _, rows, columns = item.sound.encoded.codes.shape
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for row, column in cells:
        if not (0 <= row < rows and 0 <= column < columns):
            raise AudiovqError(f"cell {row}, {column}: the sound has {rows} × {columns}")
        mask[row, column] = True
    if not mask.any():
        raise AudiovqError("no cell is selected: drag over the picture first")
    return mask


def _decode(model: Model, encoded: Encoded, labels: Mapping[str, str]) -> Sound:
    (sound,) = decode_sounds(model, [encoded], labels, Inversion(), 0)
    return sound
