"""Labels of new sounds: those asked for, by name; the others sampled as in training, or inferred."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from audiovq.audio.notes import ROOT_LABELS, midi_of
from audiovq.codec.windows import Encoded
from audiovq.config.checks import derived_seed, require_count
from audiovq.config.errors import AudiovqError
from audiovq.models.model import Model

_RANK = re.compile(r"[01]|0\.\d+")
"""A value of a label that holds ranks."""
Labels = Mapping[str, str]
"""Values by label name, such as {"digit": "7"}."""


def sample_labels(model: Model, n: int, labels: Labels, seed: int) -> Tensor:
    """(n, labels) value indices: the `labels` asked for, the others sampled from the training clips that
    have them.

    Where no training clip has all the values asked for, the other labels are left open (null labels).
    Raises AudiovqError where a label or value is unknown, or no training clip has the value.
    """
    wanted = label_indices(model, labels)
    matching = [
        (row, count)
        for row, count in model.label_counts
        if all(row[label] == value for label, value in wanted.items())
    ]
    if not matching:
        null_row = [len(values) for values in model.labels.values()]
        matching = [(tuple(wanted.get(i, null) for i, null in enumerate(null_row)), 1)]
    counts = torch.tensor([count for _, count in matching], dtype=torch.double)
    generator = torch.Generator().manual_seed(derived_seed(seed, 500_000))
    # Stratified: evenly spaced points on the cumulative counts, shuffled, give every value its share.
    points = (torch.arange(n) + torch.rand(1, generator=generator).double()) / max(1, n)
    chosen = torch.searchsorted(counts.cumsum(0) / counts.sum(), points)
    chosen = chosen.clamp(max=len(matching) - 1)[torch.randperm(n, generator=generator)]
    rows = torch.tensor([row for row, _ in matching], dtype=torch.long).view(len(matching), -1)
    return rows[chosen]


def sample_each(model: Model, each: int, by: str | None, labels: Labels, seed: int) -> Tensor:
    """(n, labels) value indices: `each` sounds of each value of the label `by` that training clips with `labels` have.

    `by` None: the only label that is not among `labels`. Raises AudiovqError where there is no such label, or
    several, and as `sample_labels` does.
    """
    require_count(each, "each")
    left = [name for name in model.labels if name not in labels]
    if by is None and len(left) == 1:
        by = left[0]
    if by is None or by not in left:
        if not left:
            raise AudiovqError("each: the model has no label that --label leaves open; give -n")
        wrong = "several labels are open" if by is None else f"unknown or fixed label {by!r}"
        raise AudiovqError(f"each: {wrong}; give --by NAME, one of {', '.join(left)}")
    rows = [
        sample_labels(model, each, {**labels, by: value}, derived_seed(seed, 700_000 + number))
        for number, value in enumerate(learnt_values(model, by, labels))
    ]
    return torch.cat(rows)


def label_indices(model: Model, labels: Labels) -> dict[int, int]:
    """Labels by name as label index → value index (see `resolved`). Raises AudiovqError for unknown names and
    values."""
    names = list(model.labels)
    indices: dict[int, int] = {}
    for name, value in labels.items():
        if name not in names:
            raise AudiovqError(f"unknown label {name!r}; {_suggest(name, names, 'the model has')}")
        values, learnt = model.labels[name], learnt_values(model, name)
        value = resolved(name, value, learnt)
        if value not in values:
            raise AudiovqError(
                f"label {name}: unknown value {value!r}; {_suggest(value, learnt, 'known values:')}"
            )
        if value not in learnt:
            raise AudiovqError(
                f"label {name}: no training clip has the value {value!r};"
                f" {_suggest(value, learnt, 'values with training clips:')}"
            )
        indices[names.index(name)] = values.index(value)
    return indices


def resolved(name: str, value: str, learnt: list[str]) -> str:
    """The value among `learnt` that `value` stands for; `value` itself if there is none.

    Of a note label, the same note in another form (`57`, `A3`); of ranks from 0 to 1, as `hearing` measures them, the
    nearest.
    """
    if value in learnt:
        return value
    if name.lower() in ROOT_LABELS and (midi := midi_of(value)) is not None:
        return next((one for one in learnt if midi_of(one) == midi), value)
    if all(map(_RANK.fullmatch, learnt)) and any("." in one for one in learnt):
        with contextlib.suppress(ValueError):
            number = float(value)
            if 0 <= number <= 1:
                return min(learnt, key=lambda one: abs(float(one) - number))
    return value


def label_names(model: Model, row: list[int]) -> dict[str, str]:
    """The inverse of `label_indices` for one value index per label; open (null) labels are left out."""
    return {
        name: values[value]
        for (name, values), value in zip(model.labels.items(), row, strict=True)
        if value < len(values)
    }


def learnt_values(model: Model, name: str, labels: Labels | None = None) -> list[str]:
    """The values of a label that occur in training clips, not only in validation or test clips.

    With `labels`: those that occur together with them; all, if none does.
    """
    label, wanted = list(model.labels).index(name), label_indices(model, labels or {})
    matching = [row for row, _ in model.label_counts if all(row[i] == v for i, v in wanted.items())]
    seen = {row[label] for row in matching or [row for row, _ in model.label_counts]}
    return [value for i, value in enumerate(model.labels[name]) if i in seen]


def infer_labels(
    model: Model, encoded: Encoded, labels: Labels | None = None, columns: int | None = None
) -> Tensor:
    """(labels,) value indices of a sound: those in `labels`; for each other label, in turn, the value under
    which the autoregressive prior gives the first `columns` of codes the highest likelihood.

    This is Bayes' rule with equal prior probabilities. Labels are left open (null) where the model has no
    such prior.
    """
    wanted = label_indices(model, labels or {})
    sizes = [len(values) for values in model.labels.values()]
    row = torch.tensor([wanted.get(i, size) for i, size in enumerate(sizes)], dtype=torch.long)
    if model.prior is None:
        return row
    width = min(columns or encoded.codes.shape[2], model.vocabulary.max_columns)
    tokens, _ = model.vocabulary.tokens(
        encoded.codes[None, :, :, :width], torch.tensor([width]), torch.tensor([encoded.level])
    )
    tokens = tokens[:, :-1].to(model.device)  # without END: the sound may continue
    lengths = torch.tensor([tokens.shape[1]])
    for i, size in enumerate(sizes):
        if i in wanted:
            continue
        candidates = row.repeat(size, 1)
        candidates[:, i] = torch.arange(size)
        with torch.inference_mode():
            likelihoods = model.prior.log_likelihood(
                tokens.expand(size, -1), lengths.expand(size), candidates.to(model.device)
            )
        row[i] = likelihoods.argmax()
    return row


def _suggest(word: str, words: list[str], lead: str) -> str:
    """A short list of the known `words`, those most similar to `word` first."""
    if not words:
        return "the model was trained without labels"
    similar = difflib.get_close_matches(word, words, 3, 0.5)
    shown = similar + [w for w in words if w not in similar]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"{lead} {', '.join(shown[:12])}{more}"
