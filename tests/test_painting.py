"""The laws of filling holes in a grid, for both kinds of prior."""

from typing import Any

import pytest
import torch
from tiny import tiny_model
from torch import Tensor

from audiovq import painting
from audiovq.config import SamplingConfig
from audiovq.masked import MaskedPrior
from audiovq.painting import Painter, fill
from audiovq.prior import Prior
from audiovq.sampling import sample

PLAIN = SamplingConfig(temperature=1.0, guidance=0.0, steps=3)
MODEL = tiny_model(masked=True)
LEVELS, LABELS = torch.tensor([5, 60]), torch.tensor([[0, 1], [2, 3]])
MOST = MODEL.vocabulary.max_columns


def priors() -> list[Painter]:
    """Both kinds, over grids of 1 quantizer, 2 rows and up to 8 columns."""
    assert MODEL.prior is not None
    assert MODEL.masked is not None
    return [MODEL.prior, MODEL.masked]


of_either_kind = pytest.mark.parametrize("prior", priors())


def grid(columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes of two sounds, and half of the places."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(16, (2, 1, 2, columns), generator=generator)
    return codes, torch.rand(codes.shape, generator=generator) < 0.5


def filled(prior: Painter, codes: Tensor, mask: Tensor, seed: int = 0, **more: Any) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rest: dict[str, Any] = {"sampling": PLAIN, "generator": generator, **more}
    return fill(prior, codes, mask, LEVELS, LABELS, **rest)


@of_either_kind
@pytest.mark.parametrize("columns", [1, 5, MOST, 3 * MOST + 1])
def test_what_is_not_masked_stays_and_what_is_masked_is_drawn(prior: Painter, columns: int) -> None:
    codes, mask = grid(columns)
    made = filled(prior, codes, mask)
    assert made.shape == codes.shape
    assert torch.equal(made[~mask], codes[~mask])
    assert bool(((made >= 0) & (made < 16)).all())
    assert columns < 5 or not torch.equal(made, codes)
    assert torch.equal(filled(prior, codes, mask.new_zeros(1)), codes)


@of_either_kind
def test_what_stood_in_a_hole_has_no_say(prior: Painter) -> None:
    codes, mask = grid(6)
    other = torch.where(mask, (codes + 3) % 16, codes)
    assert torch.equal(filled(prior, other, mask), filled(prior, codes, mask))


@of_either_kind
def test_same_generator_same_codes_and_another_others(prior: Painter) -> None:
    codes, mask = grid(3 * MOST)
    assert torch.equal(filled(prior, codes, mask), filled(prior, codes, mask))
    assert not torch.equal(filled(prior, codes, mask, seed=1), filled(prior, codes, mask))


@of_either_kind
def test_a_mask_goes_for_all_rows_and_sounds_where_it_is_of_columns(prior: Painter) -> None:
    codes, _ = grid(6)
    columns = torch.arange(6) % 2 == 0
    full = columns.expand(codes.shape)
    assert torch.equal(filled(prior, codes, columns), filled(prior, codes, full))


@of_either_kind
def test_a_hole_heeds_the_future(prior: Painter) -> None:
    """Of a prior in time order: by the choice among its candidates."""
    changed = 0
    for seed in range(8):
        codes, _ = grid(7, seed)
        hole = torch.arange(7) == 3
        other = codes.clone()
        other[..., 4:] = (other[..., 4:] + 5) % 16
        one, two = (filled(prior, c, hole, seed)[..., 3] for c in (codes, other))
        changed += int(not torch.equal(one, two))
    assert changed >= 2


@of_either_kind
def test_a_long_grid_is_filled_window_by_window_each_going_on_from_the_one_before(
    prior: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, Tensor]] = []

    def spy_masked(prior: MaskedPrior, canvas: Any, *rest: Any) -> Tensor:
        made = torch.full_like(canvas.codes, len(seen)).where(canvas.hidden, canvas.codes)
        seen.append((int(canvas.hidden[0, 0, 0].sum()), canvas.whole[0]))
        return made

    def spy_time(prior: Prior, codes: Tensor, hidden: Tensor, *rest: Any) -> Tensor:
        made = torch.full_like(codes, len(seen)).where(hidden, codes)
        seen.append((int(hidden[0, 0, 0].sum()), torch.zeros(2)))
        return made

    monkeypatch.setattr(painting, "paint", spy_masked)
    monkeypatch.setattr(painting, "_in_time_order", spy_time)
    codes = torch.zeros(2, 1, 2, 2 * MOST + 2, dtype=torch.long)
    made = filled(prior, codes, torch.ones(1, dtype=torch.bool), window=6)
    assert [count for count, _ in seen] == [6, 3, 3, 3, 3][: len(seen)]
    assert made[0, 0, 0].tolist() == [0] * 6 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    if isinstance(prior, MaskedPrior):
        assert [whole.tolist() for _, whole in seen] == [
            [True, False],
            *[[False, False]] * 3,
            [False, True],
        ]


def test_a_prior_in_time_order_keeps_the_likeliest_of_its_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior = MODEL.prior
    assert prior is not None
    drawn: list[Tensor] = []

    def spy(*arguments: Any, **more: Any) -> Tensor:
        drawn.append(sample(*arguments, **more))
        return drawn[-1]

    monkeypatch.setattr(painting, "sample", spy)
    codes, _ = grid(5)
    hole = torch.arange(5) == 2
    made = filled(prior, codes, hole)
    vocabulary = prior.vocabulary
    assert len(drawn[0]) == 2 * painting.CANDIDATES
    tokens, lengths = vocabulary.tokens(
        vocabulary.codes(drawn[0])[0],
        torch.full((len(drawn[0]),), 5),
        LEVELS.repeat(painting.CANDIDATES),
    )
    with torch.no_grad():
        likelihood = prior.log_likelihood(tokens, lengths, LABELS.repeat(painting.CANDIDATES, 1))
    best = likelihood.view(-1, 2).argmax(dim=0)
    for i in range(2):
        assert torch.equal(made[i], vocabulary.codes(drawn[0])[0][2 * int(best[i]) + i])
    drawn.clear()
    filled(prior, codes, torch.arange(5) >= 2)
    assert len(drawn[0]) == 2, "where nothing comes after, the first draw is as good as any"
