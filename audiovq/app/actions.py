"""Moves as the page asks for them, by name, with values that are not trusted, and the first sounds of a desk."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from audiovq.app import desk as moves
from audiovq.app.desk import Desk, Item
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig
from audiovq.generation import edit
from audiovq.generation.sound import Sound
from audiovq.models.model import Model

FIRST_SOUNDS = 3
"""Sounds on a new desk, where the model can generate."""
SWEEP_SECONDS = 1.0
"""Length of the sweep that a model without a prior begins with."""


def first_desk(model: Model) -> Desk:
    """A desk to begin with: new sounds, or a sweep where the model cannot generate. Nothing of it can be undone."""
    desk = Desk()
    if model.prior is None and model.masked is None:
        waveform = _sweep(model)
        encoded = edit.encode_nearest(model, waveform)
        item = Item("sweep", Sound(waveform, {}, encoded), "a tone that rises through all bands")
        return Desk((item,), item.key)
    for seed in range(FIRST_SOUNDS):
        desk = moves.make(model, desk, {}, SamplingConfig(), seed)
    return Desk(desk.shelf, desk.key)


def _sweep(model: Model) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A tone from low to high over SWEEP_SECONDS, (samples,) or (2, samples)."""
    rate = model.sample_rate
    times = np.arange(round(SWEEP_SECONDS * rate)) / rate
    octaves = np.log2(0.45 * rate / 60)
    phase = 2 * np.pi * 60 * (2 ** (octaves * times / SWEEP_SECONDS) - 1)
    phase *= SWEEP_SECONDS / (octaves * np.log(2))
    mono = (0.3 * np.sin(phase)).astype(np.float32)
    return np.stack([mono, mono]) if model.channels == 2 else mono


def act(model: Model, desk: Desk, asked: Mapping[str, Any]) -> Desk:
    """The desk after the move that `asked["move"]` names, on the sound `asked["from"]`, or else the selected one.

    Raises AudiovqError where a value is out of range, and KeyError, TypeError, ValueError or OverflowError where one is
    missing or of another kind.
    """
    name = asked["move"]
    act = MOVES.get(name) if isinstance(name, str) else None
    if act is None:
        raise AudiovqError(f"move {name!r:.40}: is unknown; reload the page")
    if "from" in asked:
        desk = moves.take(desk, str(asked["from"]))
    return act(model, desk, asked)


def _sampling(asked: Mapping[str, Any]) -> SamplingConfig:
    guidance = asked.get("guidance")
    return SamplingConfig(
        temperature=float(asked.get("temperature", SamplingConfig.temperature)),
        guidance=None if guidance is None else float(guidance),
    )


def _seed(asked: Mapping[str, Any]) -> int:
    """The seed; a random one where it is left open."""
    seed = asked.get("seed")
    return secrets.randbelow(1 << 31) if seed is None else int(seed)


def _labels(asked: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in dict(asked.get("labels", {})).items()}


def _cells(asked: Mapping[str, Any]) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in asked["cells"]]


def _make(model: Model, desk: Desk, asked: Mapping[str, Any]) -> Desk:
    seconds = asked.get("seconds")
    return moves.make(
        model,
        desk,
        _labels(asked),
        _sampling(asked),
        _seed(asked),
        None if seconds is None else float(seconds),
    )


MOVES: Mapping[str, Callable[[Model, Desk, Mapping[str, Any]], Desk]] = {
    "make": _make,
    "take": lambda m, d, a: moves.take(d, str(a["key"])),
    "rename": lambda m, d, a: moves.rename(d, str(a["key"]), str(a["name"])),
    "keep": lambda m, d, a: moves.keep(d, str(a["key"]), bool(a["kept"])),
    "discard": lambda m, d, a: moves.discard(d, str(a["key"])),
    "redraw": lambda m, d, a: moves.redraw(m, d, _cells(a), _sampling(a), _seed(a)),
    "write": lambda m, d, a: moves.write_codes(m, d, _cells(a), [int(c) for c in a["codes"]]),
    "vary": lambda m, d, a: moves.vary(
        m, d, float(a["strength"]), _labels(a), _sampling(a), _seed(a)
    ),
    "extend": lambda m, d, a: moves.extend(
        m, d, float(a["seconds"]), _labels(a), _sampling(a), _seed(a)
    ),
    "morph": lambda m, d, a: moves.morph(m, d, str(a["key"]), int(a["steps"])),
    "undo": lambda m, d, a: moves.undo(d),
    "redo": lambda m, d, a: moves.redo(d),
}
"""Moves by name."""
