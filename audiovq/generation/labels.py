"""Labels of new sounds: those asked for by name, and how the others are drawn to go with them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import torch
from torch import Tensor

from audiovq.config.checks import derived_seed
from audiovq.config.errors import AudiovqError
from audiovq.models.model import Model


def draw_labels(model: Model, n: int, asked: Mapping[str, str], seed: int) -> Tensor:
    """(n, labels) places of values: those asked for, the others as they go with them in training.

    Where training has no clip with all that was asked for together, the others are left open. Raises
    AudiovqError where a label or value is unknown, or no training clip has the value.
    """
    wanted = places_of(model, asked)
    fitting = [
        (places, count)
        for places, count in model.label_counts
        if all(places[i] == value for i, value in wanted.items())
    ]
    if not fitting:
        open_places = [len(values) for values in model.labels.values()]
        fitting = [(tuple(wanted.get(i, place) for i, place in enumerate(open_places)), 1)]
    counts = torch.tensor([count for _, count in fitting], dtype=torch.double)
    generator = torch.Generator().manual_seed(derived_seed(seed, 500_000))
    # Evenly spaced places on the cumulative counts, shuffled: every value gets its due share.
    offsets = (torch.arange(n) + torch.rand(1, generator=generator).double()) / max(1, n)
    drawn = torch.searchsorted(counts.cumsum(0) / counts.sum(), offsets).clamp(max=len(fitting) - 1)
    drawn = drawn[torch.randperm(n, generator=generator)]
    return torch.tensor([places for places, _ in fitting], dtype=torch.long).view(len(fitting), -1)[
        drawn
    ]


def places_of(model: Model, asked: Mapping[str, str]) -> dict[int, int]:
    """Labels by name → place of the label: place of its value. Raises AudiovqError of unknown ones."""
    names = list(model.labels)
    wanted: dict[int, int] = {}
    for name, value in asked.items():
        if name not in names:
            raise AudiovqError(f"unknown label {name!r}; {_known(name, names, 'the model has')}")
        values, learnt = model.labels[name], learnt_values(model, name)
        if value not in values:
            raise AudiovqError(
                f"label {name}: unknown value {value!r}; {_known(value, learnt, 'known are')}"
            )
        if value not in learnt:
            raise AudiovqError(
                f"label {name}: no training clip has the value {value!r};"
                f" {_known(value, learnt, 'learnt are')}"
            )
        wanted[names.index(name)] = values.index(value)
    return wanted


def learnt_values(model: Model, name: str) -> list[str]:
    """The values of a label that training clips have: others are of validation or test clips alone."""
    place = list(model.labels).index(name)
    seen = {places[place] for places, _ in model.label_counts}
    return [value for i, value in enumerate(model.labels[name]) if i in seen]


def _known(word: str, words: list[str], lead: str) -> str:
    """A short list of what there is, the likeliest meant first."""
    if not words:
        return "the model was trained without labels"
    close = difflib.get_close_matches(word, words, 3, 0.5)
    shown = close + [w for w in words if w not in close]
    return f"{lead} {', '.join(shown[:12])}" + (
        f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    )


def named(model: Model, row: list[int]) -> dict[str, str]:
    """Places of values, one of each label → the values by name, without those left open."""
    return {
        name: values[place]
        for (name, values), place in zip(model.labels.items(), row, strict=True)
        if place < len(values)
    }
