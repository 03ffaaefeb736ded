"""Weights of a trained model as the start of another: what fits, and why the rest does not.

The origin is the trained model. Both may have other labels, other lengths of clips, and spectrograms of another
sample rate; an autoencoder fits where a code covers the same bands and frames, a prior where codes are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from audiovq.dataset.numbers import LabelValues, Numbers
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.labels import NumberEmbedding
from audiovq.models.priors.masked import MaskedPrior

REPEATING = "position_embedding.weight", "column_embedding.weight"
"""Tensors with a row for each column of a clip, of which the last stands for all later ones."""
UNKNOWN_LAST = "begin_embedding.weight", "end_embedding.weight"
"""The same, but the last row stands for an unknown column."""
BY_LENGTH = "length_head.2.weight", "length_head.2.bias"
"""Tensors with a row for each number of columns."""


def autoencoder_misfit(origin: Model, model: Model) -> str | None:
    """Why the autoencoder of `model` cannot start from that of `origin`; None where it can."""
    ours, theirs = model.spectrogram.config, origin.spectrogram.config
    rows = "rows of pixels" if ours.images else "bands"
    if ours.images != theirs.images:
        return "one of both is a model of images"
    if ours.bins != theirs.bins:
        return f"its spectrograms have {theirs.bins} {rows}, those of this dataset {ours.bins}"
    expected = model.autoencoder.state_dict()
    for name, value in origin.autoencoder.state_dict().items():
        found = expected.pop(name, None)
        if found is None or found.shape != value.shape:
            shape = "missing" if found is None else tuple(found.shape)
            return f"its autoencoder has {name} {tuple(value.shape)}, here it is {shape}"
    return f"its autoencoder lacks {next(iter(expected))}" if expected else None


def carry_autoencoder(origin: Model, model: Model) -> None:
    """Start the autoencoder of `model` from that of `origin`, codebook and its averages included."""
    model.autoencoder.load_state_dict(origin.autoencoder.state_dict())


def carry_vivid(origin: Model, model: Model) -> None:
    """Start the vivid decoder of `model` from that of `origin`; both have one."""
    assert model.vivid is not None
    assert origin.vivid is not None
    model.vivid.load_state_dict(origin.vivid.state_dict())


def prior_misfit(ours: Prior | MaskedPrior, theirs: Prior | MaskedPrior) -> str | None:
    """Why a prior cannot start from `theirs`, of another model; None where it can."""
    one, other = (
        ours.vocabulary,
        replace(theirs.vocabulary, max_columns=ours.vocabulary.max_columns),
    )
    if one != other:
        return f"its codes are of another kind ({other}, here {one})"
    if type(ours) is not type(theirs):
        return f"it is a {type(theirs).__name__}, here a {type(ours).__name__}"
    expected = {name: value for name, value in ours.state_dict().items() if _by_shape(name)}
    for name, value in theirs.state_dict().items():
        if _by_shape(name) and (name not in expected or expected[name].shape != value.shape):
            return f"its {name} has another shape"
    return None


@torch.no_grad()
def carry_prior(
    origin: Model, ours: Prior | MaskedPrior, theirs: Prior | MaskedPrior, labels: LabelValues
) -> None:
    """Start a prior, whose labels are `labels`, from `theirs`, of `origin`.

    Rows for columns beyond the origin's clips are those of its last column; numbers of columns that it lacks keep
    their initial weights. Embeddings of labels: see `carry_labels`.
    """
    state = ours.state_dict()
    for name, value in theirs.state_dict().items():
        if name.startswith("label_embeddings."):
            continue
        if _by_shape(name):
            state[name].copy_(value)
            continue
        rows = min(len(value), len(state[name]))
        unknown = name in UNKNOWN_LAST
        state[name][: rows - unknown] = value[: rows - unknown]
        if name not in BY_LENGTH:
            state[name][rows - unknown :] = value[-1 - unknown]
        if unknown:
            state[name][-1] = value[-1]
    carry_labels(ours.label_embeddings, theirs.label_embeddings, labels, origin.labels)


@torch.no_grad()
def carry_labels(
    ours: nn.ModuleList, theirs: nn.ModuleList, labels: LabelValues, others: LabelValues
) -> None:
    """Label embeddings: equal values of equal labels keep theirs, the others start at that of an unknown value.

    `labels` and `others` are the labels of `ours` and `theirs`. A new value, initialized as usual, is added to the
    embedding of its label's unknown value (the last one). The unknown values of labels that are missing here are added
    to the new labels, or to the first one, so that the sum over all labels stays what the origin has learnt; a value
    that a missing label has, as `kick` where folders are named like the origin's kinds, takes its embedding. Numbers
    of the same range keep their curve; others start as new labels do, without the unknown values of those missing.
    """
    known = {name: _rows(table) for name, table in zip(others, theirs, strict=True)}
    kept = {name for name in labels if name in others and keeps(labels[name], others[name])}
    tables: dict[str, Tensor] = {}
    for name, embedding in zip(labels, ours, strict=True):
        if not isinstance(embedding, NumberEmbedding):
            tables[name] = _rows(embedding)
        elif name in kept:
            embedding.load_state_dict(theirs[list(others).index(name)].state_dict())
    missing = [rows[-1] for name, rows in known.items() if name not in kept]
    new = [name for name in tables if name not in kept]
    for name, table in tables.items():
        if name in new:
            continue
        table += known[name][-1]
        table[-1] = known[name][-1]
        for index, value in enumerate(labels[name]):
            if value in others[name]:
                table[index] = known[name][others[name].index(value)]
    if missing and tables:
        receivers = new or list(tables)[:1]
        for name in receivers:
            tables[name] += torch.stack(missing).sum(dim=0) / len(receivers)
    words = [o for o in others if o not in kept and not isinstance(others[o], Numbers)]
    for name in new:
        for index, value in enumerate(labels[name]):
            for other in words:
                if value in others[other]:
                    tables[name][index] += (
                        known[other][others[other].index(value)] - known[other][-1]
                    )


def keeps(values: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a label of `values` keeps what the origin has learnt of its `others`."""
    is_number = isinstance(values, Numbers) or isinstance(others, Numbers)
    return values == others if is_number else True


def _rows(table: nn.Module) -> Tensor:
    """The vectors of a label's words, the last that of an unknown one; of a number only the last."""
    if isinstance(table, NumberEmbedding):
        return table.missing[None]
    return torch.as_tensor(table.weight)


def _by_shape(name: str) -> bool:
    """Whether a tensor of a prior is copied as a whole: not by labels or columns."""
    by_columns = name in (*REPEATING, *UNKNOWN_LAST, *BY_LENGTH)
    return not by_columns and not name.startswith("label_embeddings.")
