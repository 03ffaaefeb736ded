"""New sounds are smoothed where the codes that the masked prior samples change more than recorded ones."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor

from audiovq.models.model import Model
from audiovq.training.stages import sweeps
from audiovq.training.stages.sweeps import UNEVEN, fitted_sweeps

CODES, COLUMNS = 5, 7
"""Codes in use, and columns of the longest clip."""


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model of sounds above 24 kHz whose vectors are 0, 1, 2 … in the first dimension."""
    model = tiny_model(masked=True)
    config = dataclasses.replace(model.spectrogram.config, sample_rate=44_100)
    monkeypatch.setattr(model.spectrogram, "config", config)
    assert model.masked is not None
    model.masked.vectors.zero_()
    model.masked.vectors[..., 0] = torch.arange(model.vocabulary.codebook_size)
    return model


def fitted(
    model: Model, recorded: Tensor, sampled: Tensor, monkeypatch: pytest.MonkeyPatch, begin: bool
) -> int:
    """`fitted_sweeps` where clips have the codes `recorded`, and the prior samples others."""
    clips, stride = len(recorded), model.autoencoder.stride[1]
    split: Any = SimpleNamespace(
        complete=torch.tensor([[begin, True]]).expand(clips, 2),
        num_frames=torch.full((clips,), COLUMNS * stride),
        spectrograms=lambda at: torch.zeros(len(at), 1, 16, COLUMNS * stride),
        levels=torch.zeros(clips, dtype=torch.long),
        label_indices=torch.zeros(clips, len(model.labels), dtype=torch.long),
    )
    monkeypatch.setattr(model.autoencoder, "encode", lambda *_: recorded)
    monkeypatch.setattr(sweeps, "sample_masked_autocast", lambda *_: sampled)
    return fitted_sweeps(model, split)


def alternating(model: Model, step: int, columns: int = COLUMNS) -> Tensor:
    """Codes (4, quantizers, rows, columns) that change by `step` from a column to the next, in the first quantizer."""
    vocabulary = model.vocabulary
    codes = torch.zeros(4, vocabulary.num_quantizers, vocabulary.rows, COLUMNS, dtype=torch.long)
    codes[:, 0, :, 1:columns:2] = step
    return codes


def test_a_sweep_is_made_where_squared_changes_of_sampled_vectors_are_far_above_recorded_ones(
    wide: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 9 / 4 > UNEVEN > 1
    even, uneven = alternating(wide, 2), alternating(wide, 3)
    assert fitted(wide, even, uneven, monkeypatch, begin=True) == 1
    assert fitted(wide, even, even, monkeypatch, begin=True) == 0
    assert fitted(wide, uneven, even, monkeypatch, begin=True) == 0
    assert fitted(wide, even, uneven, monkeypatch, begin=False) == 0, "no clip begins"


def test_changes_in_the_attack_do_not_count(wide: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    even = alternating(wide, 1)
    in_attack = even + alternating(wide, 3, columns=3)
    assert fitted(wide, even, in_attack, monkeypatch, begin=True) == 0


@pytest.mark.parametrize("columns", [1, 3])
def test_sounds_that_end_in_the_attack_are_not_smoothed(
    wide: Model, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    even, uneven = (alternating(wide, step)[..., :columns] for step in (1, 3))
    assert fitted(wide, even, uneven, monkeypatch, begin=True) == 0


def test_up_to_24_khz_nothing_is_smoothed(wide: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(wide.spectrogram.config, sample_rate=24_000)
    monkeypatch.setattr(wide.spectrogram, "config", config)
    even, uneven = alternating(wide, 1), alternating(wide, 3)
    assert fitted(wide, even, uneven, monkeypatch, begin=True) == 0
