"""Laws of inpainting, for both kinds of prior."""

from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor

from audiovq.config.sampling import SamplingConfig
from audiovq.generation import inpaint as inpaint_module
from audiovq.generation.inpaint import AnyPrior, inpaint
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.sampling import sample

PLAIN = SamplingConfig(temperature=1.0, guidance=0.0, steps=3)
MODEL = tiny_model(masked=True)
LEVELS, LABELS = torch.tensor([5, 60]), torch.tensor([[0, 1], [2, 3]])
MOST = MODEL.vocabulary.max_columns


def priors() -> list[AnyPrior]:
    """An autoregressive and a masked prior over grids of 1 quantizer, 2 rows and up to 8 columns."""
    assert MODEL.prior is not None
    assert MODEL.masked is not None
    return [MODEL.prior, MODEL.masked]


for_both_priors = pytest.mark.parametrize("prior", priors())


def grid(columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes of two sounds, and a mask of about half of them."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(16, (2, 1, 2, columns), generator=generator)
    return codes, torch.rand(codes.shape, generator=generator) < 0.5


def filled(prior: AnyPrior, codes: Tensor, mask: Tensor, seed: int = 0, **more: Any) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rest: dict[str, Any] = {"sampling": PLAIN, "generator": generator, **more}
    return inpaint(prior, codes, mask, LEVELS, LABELS, **rest)


@for_both_priors
@pytest.mark.parametrize("columns", [1, 5, MOST, 3 * MOST + 1])
def test_masked_codes_are_resampled_and_all_others_unchanged(prior: AnyPrior, columns: int) -> None:
    codes, mask = grid(columns)
    made = filled(prior, codes, mask)
    assert made.shape == codes.shape
    assert torch.equal(made[~mask], codes[~mask])
    assert bool(((made >= 0) & (made < 16)).all())
    assert columns < 5 or not torch.equal(made, codes)
    assert torch.equal(filled(prior, codes, mask.new_zeros(1)), codes)


@for_both_priors
def test_the_result_does_not_depend_on_the_old_masked_codes(prior: AnyPrior) -> None:
    codes, mask = grid(6)
    other = torch.where(mask, (codes + 3) % 16, codes)
    assert torch.equal(filled(prior, other, mask), filled(prior, codes, mask))


@for_both_priors
def test_the_seed_determines_the_codes(prior: AnyPrior) -> None:
    codes, mask = grid(3 * MOST)
    assert torch.equal(filled(prior, codes, mask), filled(prior, codes, mask))
    assert not torch.equal(filled(prior, codes, mask, seed=1), filled(prior, codes, mask))


@for_both_priors
def test_a_mask_of_columns_is_broadcast_to_all_rows_and_sounds(prior: AnyPrior) -> None:
    codes, _ = grid(6)
    columns = torch.arange(6) % 2 == 0
    full = columns.expand(codes.shape)
    assert torch.equal(filled(prior, codes, columns), filled(prior, codes, full))


@for_both_priors
def test_a_hole_depends_on_later_codes(prior: AnyPrior) -> None:
    """For an autoregressive prior, through the choice among its candidates."""
    changed = 0
    for seed in range(8):
        codes, _ = grid(7, seed)
        hole = torch.arange(7) == 3
        other = codes.clone()
        other[..., 4:] = (other[..., 4:] + 5) % 16
        one, two = (filled(prior, c, hole, seed)[..., 3] for c in (codes, other))
        changed += int(not torch.equal(one, two))
    assert changed >= 2


@for_both_priors
def test_a_long_grid_is_filled_in_windows_that_overlap_by_half(
    prior: AnyPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, Tensor]] = []

    def spy_masked(prior: MaskedPrior, clips: Any, *rest: Any) -> Tensor:
        made = torch.full_like(clips.codes, len(calls)).where(clips.hidden, clips.codes)
        calls.append((int(clips.hidden[0, 0, 0].sum()), clips.whole[0]))
        return made

    def spy_causal(prior: Prior, codes: Tensor, mask: Tensor, *rest: Any) -> Tensor:
        made = torch.full_like(codes, len(calls)).where(mask, codes)
        calls.append((int(mask[0, 0, 0].sum()), torch.zeros(2)))
        return made

    monkeypatch.setattr(inpaint_module, "sample_masked_autocast", spy_masked)
    monkeypatch.setattr(inpaint_module, "_inpaint_causal", spy_causal)
    codes = torch.zeros(2, 1, 2, 2 * MOST + 2, dtype=torch.long)
    made = filled(prior, codes, torch.ones(1, dtype=torch.bool), window=6)
    assert [count for count, _ in calls] == [6, 3, 3, 3, 3][: len(calls)]
    assert made[0, 0, 0].tolist() == [0] * 6 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    if isinstance(prior, MaskedPrior):
        assert [whole.tolist() for _, whole in calls] == [
            [True, False],
            *[[False, False]] * 3,
            [False, True],
        ]


def test_an_autoregressive_prior_returns_the_likeliest_of_its_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior = MODEL.prior
    assert prior is not None
    sampled: list[Tensor] = []

    def spy(*arguments: Any, **more: Any) -> Tensor:
        sampled.append(sample(*arguments, **more))
        return sampled[-1]

    monkeypatch.setattr(inpaint_module, "sample", spy)
    codes, _ = grid(5)
    hole = torch.arange(5) == 2
    made = filled(prior, codes, hole)
    vocabulary = prior.vocabulary
    assert len(sampled[0]) == 2 * inpaint_module.CANDIDATES
    tokens, lengths = vocabulary.tokens(
        vocabulary.codes(sampled[0])[0],
        torch.full((len(sampled[0]),), 5),
        LEVELS.repeat(inpaint_module.CANDIDATES),
    )
    with torch.no_grad():
        likelihood = prior.log_likelihood(
            tokens, lengths, LABELS.repeat(inpaint_module.CANDIDATES, 1)
        )
    best = likelihood.view(-1, 2).argmax(dim=0)
    for i in range(2):
        assert torch.equal(made[i], vocabulary.codes(sampled[0])[0][2 * int(best[i]) + i])
    sampled.clear()
    filled(prior, codes, torch.arange(5) >= 2)
    assert len(sampled[0]) == 2, "without a right context there is one candidate per sound"
