"""Labels of new sounds: those asked for, by name; the others sampled as in training, or inferred."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from audiovq.audio.notes import ROOT_LABELS, TEMPO_LABELS, midi_of
from audiovq.codec.windows import Encoded
from audiovq.config.checks import derived_seed, require_count
from audiovq.config.errors import AudiovqError
from audiovq.dataset.numbers import Numbers, label_numbers, number_of
from audiovq.models.model import Model

_RANK = re.compile(r"[01]|0\.\d+")
"""A value of a label that holds ranks."""
NEAR = 0.02
"""Share of a number's range that counts as near: the others' labels are those of clips near the number asked for."""
FARTHEST_EXPONENT = 18.0
"""Of a clip's weight: six times NEAR."""
Labels = Mapping[str, str]
"""Values by label name, such as {"digit": "7"}."""


def learns_labels(model: Model) -> bool:
    """Whether new sounds follow labels: all do but those of a Gaussian bottleneck without `conditional`."""
    bottleneck = model.autoencoder.config.bottleneck
    return bottleneck.kind != "gaussian" or bottleneck.conditional


def require_learnt(model: Model) -> None:
    """Raise AudiovqError where the model has labels, and new sounds do not follow them."""
    if model.labels and not learns_labels(model):
        raise AudiovqError(
            "--label, --each, --by: the model has not learnt labels; leave them out, or train with"
            " --autoencoder.bottleneck.conditional"
        )


def sample_labels(model: Model, n: int, labels: Labels, seed: int) -> Tensor:
    """(n, labels) value indices: the `labels` asked for, the others sampled from the training clips that
    have them, or numbers near them.

    Where no training clip has all the values asked for, the other labels are left open (null labels), and where the
    model has not learnt labels, all of them. Raises AudiovqError where labels are asked for then, a label or value is
    unknown, no training clip has the value, or a number is far outside the range of training clips.
    """
    if labels:
        require_learnt(model)
    wanted = label_indices(model, labels)
    matching = _matching(model, wanted) if learns_labels(model) else []
    if not matching:
        null_row = [len(values) for values in model.labels.values()]
        matching = [(tuple(null_row), 1.0)]
    counts = torch.tensor([count for _, count in matching], dtype=torch.double)
    generator = torch.Generator().manual_seed(derived_seed(seed, 500_000))
    # Stratified: evenly spaced points on the cumulative counts, shuffled, give every value its share.
    points = (torch.arange(n) + torch.rand(1, generator=generator).double()) / max(1, n)
    chosen = torch.searchsorted(counts.cumsum(0) / counts.sum(), points)
    chosen = chosen.clamp(max=len(matching) - 1)[torch.randperm(n, generator=generator)]
    rows = torch.tensor([row for row, _ in matching], dtype=torch.long).view(len(matching), -1)
    for label, index in wanted.items():
        rows[:, label] = index
    return rows[chosen]


def _matching(model: Model, wanted: Mapping[int, int]) -> list[tuple[tuple[int, ...], float]]:
    """Combinations of label indices of training clips that have the `wanted` ones, or of numbers some near them, and
    their weights: the number of clips, less for numbers farther away."""
    numbers, sizes = label_numbers(model.labels), [len(v) for v in model.labels.values()]
    matching = []
    for row, count in model.label_counts:
        exponent = 0.0
        for label, index in wanted.items():
            if label in numbers and row[label] < sizes[label]:
                low, high = numbers[label]
                exponent += ((row[label] - index) / (NEAR * (high - low))) ** 2 / 2
            elif row[label] != index:
                exponent = math.inf
        if exponent < FARTHEST_EXPONENT:
            matching.append((row, count * math.exp(-exponent)))
    return matching


def sample_each(model: Model, each: int, by: str | None, labels: Labels, seed: int) -> Tensor:
    """(n, labels) value indices: `each` sounds of each value of the label `by` that training clips with `labels` have.

    `by` None: the only label that is not among `labels`. Raises AudiovqError where there is no such label, or
    several, and as `sample_labels` does.
    """
    require_count(each, "each")
    require_learnt(model)
    labels = named(model, labels)
    left = [name for name in model.labels if name not in labels]
    if by is None and len(left) == 1:
        by = left[0]
    elif by is not None:
        by = name_of_label(model, by)
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
    for name, value in named(model, labels).items():
        if name not in names:
            raise AudiovqError(f"unknown label {name!r}; {_suggest(name, names, 'the model has')}")
        values = model.labels[name]
        if isinstance(values, Numbers):
            indices[names.index(name)] = _index_of_number(name, value, values)
            continue
        learnt = learnt_values(model, name)
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


def _index_of_number(name: str, value: str, values: Numbers) -> int:
    """The index of a number asked for. Raises AudiovqError where it is none, or is far outside the range."""
    if number_of(value, values.notes) is None:
        kind = "a note such as A3 or a MIDI number" if values.notes else "a number"
        raise AudiovqError(f"label {name}: {value!r} is not {kind}; learnt: {values.in_words}")
    if value not in values:
        raise AudiovqError(
            f"label {name}: {value} is far outside the values learnt; give {values[0]} to {values[-1]}"
            f" (learnt: {values.in_words})"
        )
    return values.index(value)


def named(model: Model, labels: Labels) -> dict[str, str]:
    """`labels` by the model's names: see `name_of_label`. Raises AudiovqError where two names are of one label."""
    found: dict[str, str] = {}
    for name, value in labels.items():
        ours = name_of_label(model, name)
        if ours in found:
            given = [other for other in labels if name_of_label(model, other) == ours]
            raise AudiovqError(f"labels {', '.join(given)}: are one label; give one of them")
        found[ours] = value
    return found


def name_of_label(model: Model, name: str) -> str:
    """The model's name of a label: a note is also found by another of its names (`pitch`, `note`), and a tempo."""
    if name not in model.labels:
        for names in (ROOT_LABELS, TEMPO_LABELS):
            others = [other for other in model.labels if other.lower() in names]
            if name.lower() in names and len(others) == 1:
                return others[0]
    return name


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
    """The values of a label that occur in training clips, not only in validation or test clips; of a number, those
    that stand for its range (`Numbers.listed`).

    With `labels`: those that occur together with them; all, if none does.
    """
    label, wanted = list(model.labels).index(name), label_indices(model, labels or {})
    matching = _matching(model, wanted) or model.label_counts
    values = model.labels[name]
    seen = {row[label] for row, _ in matching} - {len(values)}
    if isinstance(values, Numbers):
        numbers = [values.number(index) for index in seen]
        return values.listed(min(numbers), max(numbers)) if numbers else []
    return [value for i, value in enumerate(values) if i in seen]


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
    for i, (name, values) in enumerate(model.labels.items()):
        if i in wanted:
            continue
        listed = learnt_values(model, name)
        if not listed:
            continue
        candidates = row.repeat(len(listed), 1)
        candidates[:, i] = torch.tensor([values.index(value) for value in listed])
        with torch.inference_mode():
            likelihoods = model.prior.log_likelihood(
                tokens.expand(len(listed), -1),
                lengths.expand(len(listed)),
                candidates.to(model.device),
            )
        row[i] = candidates[likelihoods.argmax(), i]
    return row


def _suggest(word: str, words: list[str], lead: str) -> str:
    """A short list of the known `words`, those most similar to `word` first."""
    if not words:
        return "the model was trained without labels"
    similar = difflib.get_close_matches(word, words, 3, 0.5)
    shown = similar + [w for w in words if w not in similar]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"{lead} {', '.join(shown[:12])}{more}"
