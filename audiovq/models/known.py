"""Codes of the training clips, stored with the model to detect copies.

Their file in the model's folder may be left out. `generation.copies` compares new sounds with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from audiovq.models.priors.tokens import Vocabulary


@dataclass(frozen=True)
class KnownClips:
    """Codes of the training clips, concatenated along the columns."""

    codes: Tensor
    """(views, columns of all clips, quantizers, rows), int16 where that holds them, else int32.

    View `i` of `n` holds the codes of the clips shifted by `i / n` columns, since codes depend on the
    shift; -1 where a view has fewer columns."""
    bands: Tensor
    """(columns of all clips, bands) uint8: decoded spectrogram, averaged over each column and a few bands."""
    columns: Tensor
    """(clips,) int32: columns of each clip."""
    names: list[tuple[str, int]]
    """Path of each clip's recording, relative to its folder, and offset in samples."""
    of: int
    """Number of training clips; where there are more than `columns` lists, these are evenly spaced."""
    calibration: dict[str, float] = field(default_factory=dict)
    """`threshold_db`, below which a sound is a copy, and the figures it was chosen by."""

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def threshold_db(self) -> float:
        """Decibels below which a sound is a copy."""
        return self.calibration["threshold_db"]

    def clip(self, index: int, view: int = 0) -> Tensor:
        """Codes (quantizers, rows, columns) of a clip, int64."""
        end = int(self.columns[: index + 1].sum())
        codes = self.codes[view, end - int(self.columns[index]) : end]
        return codes[codes[:, 0, 0] >= 0].permute(1, 2, 0).long()

    def only(self, clips: Tensor) -> KnownClips:
        """Those of the clips that are True in `clips`, bool (clips,)."""
        columns = clips.repeat_interleave(self.columns.long())
        names = [name for name, kept in zip(self.names, clips.tolist(), strict=True) if kept]
        codes, bands = self.codes[:, columns], self.bands[columns]
        return replace(self, codes=codes, bands=bands, columns=self.columns[clips], names=names)

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the file, one of them JSON as bytes."""
        about = {"clips": self.names, "of": self.of, "calibration": self.calibration}
        encoded = torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)
        return {"codes": self.codes, "bands": self.bands, "columns": self.columns, "about": encoded}


def from_tensors(tensors: Mapping[str, Tensor], vocabulary: Vocabulary) -> KnownClips:
    """Inverse of `KnownClips.tensors`. Raises ValueError or LookupError where the tensors are damaged or
    belong to another vocabulary."""
    codes, bands, columns, encoded = (
        tensors[name] for name in ("codes", "bands", "columns", "about")
    )
    about: Any = json.loads(encoded.numpy().tobytes())
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
