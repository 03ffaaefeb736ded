"""The time budget of training: its parts add up to the limit, and no stage is left without time."""

import dataclasses

import pytest
from fast_training import CONFIG
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_models import changed

from audiovq.training.budget import (
    CODEC_CONTEXT_SECONDS,
    CODEC_CONTEXT_SHARE,
    CONTEXT_SHARE,
    TimeBudget,
)

SHARES = st.floats(0.01, 0.99)
MASKED_SHARES = st.floats(0.0, 0.99)
SECONDS = st.floats(1.0, 1e6)


def budget(
    total: float | None = 1000.0,
    has_codes: bool = True,
    autoencoder_share: float = 0.5,
    masked_share: float = 0.2,
    vivid_share: float = 0.0,
    masked_first: bool = False,
) -> TimeBudget:
    return TimeBudget(total, has_codes, autoencoder_share, vivid_share, masked_share, masked_first)


def with_priors(total: float, share: float, masked_share: float) -> TimeBudget:
    return budget(total, autoencoder_share=share, masked_share=masked_share)


def parts(budget: TimeBudget, spent: float) -> list[float]:
    """Seconds of all stages, of which autoencoder and vivid decoder took `spent`."""
    found = [budget.context, spent, budget.prior(spent), budget.masked(spent)]
    assert all(part is not None for part in found)
    return [part for part in found if part is not None]


@given(share=SHARES, masked_share=MASKED_SHARES, spent=SECONDS)
def test_without_a_limit_no_stage_has_one(share: float, masked_share: float, spent: float) -> None:
    unlimited = budget(None, autoencoder_share=share, masked_share=masked_share)
    assert unlimited.autoencoder is None
    assert unlimited.context is None
    assert unlimited.context_deadline is None
    assert unlimited.prior(spent) is None
    assert unlimited.masked(spent) is None


@given(
    total=SECONDS,
    share=SHARES,
    masked_share=MASKED_SHARES,
    vivid_share=MASKED_SHARES,
    used=st.floats(0, 1),
)
def test_stages_add_up_to_the_limit_where_the_decoders_keep_to_their_part(
    total: float, share: float, masked_share: float, vivid_share: float, used: float
) -> None:
    """Time that autoencoder and vivid decoder do not use goes to the priors."""
    limited = budget(
        total, autoencoder_share=share, masked_share=masked_share, vivid_share=vivid_share
    )
    assert limited.autoencoder is not None
    assert limited.vivid is not None
    assert limited.vivid <= limited.autoencoder * (1 + 1e-9)
    assert limited.trains_vivid == (vivid_share > 0)
    found = parts(limited, used * (limited.autoencoder + limited.vivid))
    assert sum(found) == pytest.approx(total)
    assert min(found) >= 0


@given(total=SECONDS, share=SHARES, masked_share=MASKED_SHARES, spent=SECONDS)
def test_an_autoencoder_that_took_too_long_leaves_the_priors_half_of_their_share(
    total: float, share: float, masked_share: float, spent: float
) -> None:
    """As after a stop, under a limit that was lowered since."""
    limited = with_priors(total, share, masked_share)
    assert limited.autoencoder is not None
    assume(spent > limited.autoencoder)
    context, _, prior, masked = parts(limited, spent)
    assert prior + masked >= (1 - share) * (total - context) / 2 * (1 - 1e-9)


@given(
    total=SECONDS,
    more=SECONDS,
    share=SHARES,
    masked_share=MASKED_SHARES,
    spent=SECONDS,
)
def test_a_raised_limit_shortens_no_stage(
    total: float, more: float, share: float, masked_share: float, spent: float
) -> None:
    lower, higher = (with_priors(t, share, masked_share) for t in (total, total + more))
    assert lower.autoencoder is not None
    assert higher.autoencoder is not None
    assert higher.autoencoder >= lower.autoencoder
    for before, after in zip(parts(lower, spent), parts(higher, spent), strict=True):
        assert after >= before * (1 - 1e-9)


@given(total=SECONDS, share=SHARES, masked_share=MASKED_SHARES, spent=SECONDS)
def test_the_masked_prior_has_its_share_of_the_limit_but_at_most_half_of_both_priors(
    total: float, share: float, masked_share: float, spent: float
) -> None:
    limited = with_priors(total, share, masked_share)
    _, _, prior, masked = parts(limited, spent)
    assert masked <= masked_share * total
    assert masked <= prior * (1 + 1e-9)
    assert masked == pytest.approx(min(masked_share * total, (prior + masked) / 2))


@given(total=SECONDS, share=SHARES, masked_share=MASKED_SHARES, spent=SECONDS)
def test_above_24_khz_both_priors_change_places(
    total: float, share: float, masked_share: float, spent: float
) -> None:
    speech, wide = (
        budget(total, autoencoder_share=share, masked_share=masked_share, masked_first=first)
        for first in (False, True)
    )
    assert (wide.masked(spent), wide.prior(spent)) == (
        (speech.prior(spent), speech.masked(spent))
        if masked_share
        else (speech.masked(spent), speech.prior(spent))
    )


def test_without_a_masked_prior_the_other_has_all_the_time_at_any_rate() -> None:
    for first in (False, True):
        alone = budget(masked_share=0.0, masked_first=first)
        assert alone.masked(100.0) == 0.0
        assert alone.prior(100.0) == alone.priors(100.0)


def test_a_codec_without_a_prior_has_more_time_for_its_tables_up_to_five_minutes() -> None:
    short, long = (budget(total, autoencoder_share=1.0) for total in (100.0, 1e5))
    assert budget(100.0).context == CONTEXT_SHARE * 100
    assert short.context == CODEC_CONTEXT_SHARE * 100
    assert long.context == CODEC_CONTEXT_SECONDS
    for codec in (short, long):
        assert not codec.trains_prior
        assert codec.total is not None
        assert codec.context is not None
        assert codec.autoencoder == codec.total - codec.context


def test_the_deadline_of_the_context_tables_is_later_than_their_planned_time() -> None:
    limited = budget()
    assert limited.context is not None
    assert limited.context_deadline is not None
    assert limited.context_deadline > limited.context


def test_without_codes_the_autoencoder_has_all_the_time() -> None:
    continuous = budget(has_codes=False, autoencoder_share=1.0)
    assert continuous.autoencoder == continuous.total
    assert continuous.context is None
    assert not continuous.trains_prior


def test_the_budget_of_settings_is_in_seconds() -> None:
    config = dataclasses.replace(CONFIG, max_minutes=2.0, autoencoder_share=0.4, masked_share=0.1)
    assert TimeBudget.of(config) == TimeBudget(120.0, True, 0.4, 0.0, 0.1)
    assert TimeBudget.of(CONFIG).total is None
    gaussian = changed(config.autoencoder, bottleneck="gaussian")
    assert TimeBudget.of(dataclasses.replace(config, autoencoder=gaussian)) == TimeBudget(
        120.0, False, 1.0, 0.0, 0.1
    )
