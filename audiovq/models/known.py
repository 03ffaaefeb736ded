"""The training clips as a model remembers them on purpose: their codes, to find copies by.

They lie in a file of their own in the model's folder, which may be left out. `copies.py` compares new
sounds with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from audiovq.models.priors.tokens import Vocabulary


@dataclass(frozen=True)
class KnownClips:
    """Training clips in coded form, one after another along the columns."""

    codes: Tensor
    """(views, columns of all clips, quantizers, rows), int16 where that holds them, else int32.

    View `i` of `n` is of the clips begun `i / n` columns later, since codes change with that; where
    it has fewer columns, -1."""
    bands: Tensor
    """(columns of all clips, bands) uint8: what they decode to, each column's mean in a few bands."""
    columns: Tensor
    """(clips,) int32"""
    names: list[tuple[str, int]]
    """Each clip's recording, relative to the folder it came from, and where it begins, in samples."""
    of: int
    """Training clips there are; where they are more than `columns` has, those are evenly spread."""
    calibration: dict[str, float] = field(default_factory=dict)
    """`threshold_db`, below which a sound is a copy, and what that was drawn from."""

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def threshold_db(self) -> float:
        """Decibels below which a sound is a copy."""
        return self.calibration["threshold_db"]

    def clip(self, place: int, view: int = 0) -> Tensor:
        """(quantizers, rows, columns) codes of a clip, int64."""
        end = int(self.columns[: place + 1].sum())
        codes = self.codes[view, end - int(self.columns[place]) : end]
        return codes[codes[:, 0, 0] >= 0].permute(1, 2, 0).long()

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds: tensors, one of them JSON in bytes."""
        about = {"clips": self.names, "of": self.of, "calibration": self.calibration}
        told = torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)
        return {"codes": self.codes, "bands": self.bands, "columns": self.columns, "about": told}


def from_tensors(tensors: Mapping[str, Tensor], vocabulary: Vocabulary) -> KnownClips:
    """The inverse of `KnownClips.tensors`. Raises ValueError or LookupError where they are not those of
    clips in this vocabulary's codes."""
    codes, bands, columns, told = (tensors[name] for name in ("codes", "bands", "columns", "about"))
    about: Any = json.loads(told.numpy().tobytes())
    names, of, calibration = about["clips"], about["of"], about["calibration"]
    slots = vocabulary.num_quantizers, vocabulary.rows
    fits = (
        codes.dtype in (torch.int16, torch.int32)
        and codes.dim() == 4
        and len(codes) > 0
        and tuple(codes.shape[2:]) == slots
        and bands.dtype == torch.uint8
        and bands.dim() == 2
        and len(bands) == codes.shape[1]
        and bands.shape[1] > 0
        and columns.dtype == torch.int32
        and columns.dim() == 1
        and len(columns) > 0
        and bool(((columns > 0) & (columns <= vocabulary.max_columns)).all())
        and int(columns.sum()) == codes.shape[1]
        and bool(((codes >= 0) | (codes[..., :1, :1] < 0)).all())
        and bool((codes[0] >= 0).all())
        and bool((codes < vocabulary.codebook_size).all())
        and type(of) is int
        and of >= len(columns) == len(names)
        and all(type(path) is str and type(offset) is int for path, offset in names)
        and all(type(v) in (int, float) and 0 <= v < 1e6 for v in calibration.values())
    )
    if not fits:
        raise ValueError("training codes of another model")
    _ = calibration["threshold_db"]
    pairs = [(path, offset) for path, offset in names]
    return KnownClips(codes, bands, columns, pairs, of, calibration)
