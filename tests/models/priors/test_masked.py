"""Laws of the masked prior and of its masks: dependencies, padding, schedule, sampling, learning."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import MASKED, shake

from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig, Settled
from audiovq.config.settings import MaskedConfig, PriorConfig
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masked_sampling import sample_masked, smooth
from audiovq.models.priors.masking import (
    MOST_REPLACED,
    MaskedClips,
    bisection_order,
    replace_visible,
    training_masks,
    unmask_schedule,
)
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer

VOCABULARY = Vocabulary(codebook_size=5, num_quantizers=2, rows=2, num_levels=3, max_columns=6)
GREEDY = SamplingConfig(temperature=0.0, steps=3)


def tiny_prior(labels: tuple[int, ...] = (3, 2)) -> MaskedPrior:
    """A small prior in eval mode, with random weights throughout, so that every input matters."""
    torch.manual_seed(0)
    prior = MaskedPrior(MASKED, VOCABULARY, labels, code_dim=3)
    shake(prior)
    prior.vectors.copy_(torch.randn(2, 5, 3))
    return prior.eval()


def masked_clips(columns: tuple[int, ...] = (6, 3, 4), share: float = 0.5) -> MaskedClips:
    """Clips of different lengths, with a share of their codes masked."""
    generator = torch.Generator().manual_seed(0)
    shape = len(columns), 2, 2, max(columns)
    return MaskedClips(
        codes=torch.randint(5, shape, generator=generator),
        hidden=torch.rand(shape, generator=generator) < share,
        num_columns=torch.tensor(columns),
        levels=torch.arange(len(columns)) % 3,
        labels=torch.tensor([[0, 0], [2, 1], [3, 2]])[: len(columns)],
        whole=torch.tensor([[True, True], [True, False], [False, False]])[: len(columns)],
    )


def alone(clips: MaskedClips, i: int) -> MaskedClips:
    """Clip `i` as a batch of one, without padding."""
    width = int(clips.num_columns[i])
    one = slice(i, i + 1)
    return MaskedClips(
        clips.codes[one, ..., :width],
        clips.hidden[one, ..., :width],
        clips.num_columns[one],
        clips.levels[one],
        clips.labels[one],
        clips.whole[one],
    )


def test_clips_in_a_batch_give_the_same_as_alone_whatever_their_padding() -> None:
    clips, prior = masked_clips(), tiny_prior()
    with torch.no_grad():
        logits = prior(clips)
        torch.testing.assert_close(prior(with_other_padding(clips)), logits)
        for i, width in enumerate(clips.num_columns.tolist()):
            torch.testing.assert_close(prior(alone(clips, i))[0], logits[i, ..., :width, :])
    filled = sample_masked(prior, clips, GREEDY, torch.Generator())
    for i, width in enumerate(clips.num_columns.tolist()):
        one = sample_masked(prior, alone(clips, i), GREEDY, torch.Generator())
        assert torch.equal(one[0], filled[i, ..., :width])


def with_other_padding(clips: MaskedClips) -> MaskedClips:
    """The same clips with other codes in the padding, which must not matter."""
    padding = ~clips.valid[:, None, None]
    return replace(clips, codes=torch.where(padding, (clips.codes + 1) % 5, clips.codes))


def test_logits_depend_on_unmasked_codes_and_on_codes_below_in_the_same_column() -> None:
    prior, clips = tiny_prior(), masked_clips((6,), share=0.5)
    slots, positions = VOCABULARY.slots, torch.arange(24)
    columns, slot = positions // slots, positions % slots
    mask = prior.to_slots(clips.hidden)[0].flatten()
    tokens = prior.to_slots(clips.codes).flatten().repeat(24, 1)
    tokens[positions, positions] = (tokens[positions, positions] + 1) % 5
    grid = tokens.view(24, 6, 2, 2).permute(0, 3, 2, 1)
    many = MaskedClips(grid, *(getattr(clips, name).expand(24, *shape) for name, shape in SHAPES))
    with torch.no_grad():
        difference = prior(many) - prior(clips)
    # More than the rounding error from another batch size.
    changed = prior.to_slots(difference.abs().amax(dim=4)).flatten(1) > 1e-5
    below = (columns[:, None] == columns) & (slot[:, None] < slot)
    expected = below | ~mask[:, None].expand(24, 24)
    assert torch.equal(changed, expected), "(changed code, affected logits)"


SHAPES = (
    ("hidden", (2, 2, 6)),
    ("num_columns", ()),
    ("levels", ()),
    ("labels", (2,)),
    ("whole", (2,)),
)


@torch.no_grad()
def test_selecting_some_columns_gives_the_same_inputs_as_selecting_all() -> None:
    prior, clips = tiny_prior(), masked_clips(share=0.7)
    columns = prior.to_slots(clips.hidden).any(dim=2) & clips.valid
    assert 0 < columns.sum() < columns.numel()
    all_inputs, all_modulation = prior.context(clips, torch.ones_like(columns))
    inputs, modulation = prior.context(clips, columns)
    torch.testing.assert_close(inputs, all_inputs[columns.flatten()])
    assert len(modulation) == len(all_modulation)
    for part, of_all in zip(modulation, all_modulation, strict=True):
        torch.testing.assert_close(part, of_all[columns.flatten()])


@torch.no_grad()
def test_fully_masked_columns_that_are_not_selected_take_no_part_in_attention() -> None:
    prior = tiny_prior()
    clips = replace(masked_clips((6,)), hidden=torch.ones(1, 2, 2, 6, dtype=torch.bool))
    clips.hidden[..., :2] = False
    columns = torch.tensor([[False, False, True, False, False, False]])
    expected = prior.context(clips, columns)[0]
    # Without the last column; its clip's length, which is an input too, stays 6.
    shorter = replace(clips, codes=clips.codes[..., :5], hidden=clips.hidden[..., :5])
    torch.testing.assert_close(prior.context(shorter, columns[:, :5])[0], expected)


@pytest.mark.parametrize("column", [0, 2, 5])
def test_logits_of_a_masked_column_depend_on_all_past_and_future_columns(column: int) -> None:
    prior, clips = tiny_prior(), masked_clips((6,), share=0.0)
    clips.hidden[:, :, :, column] = True
    with torch.no_grad():
        logits = prior(clips)[..., column, :]
        for other in set(range(6)) - {column}:
            codes = clips.codes.clone()
            codes[..., other] = (codes[..., other] + 1) % 5
            assert not torch.equal(prior(replace(clips, codes=codes))[..., column, :], logits)


@pytest.mark.parametrize("field", ["levels", "labels", "whole", "num_columns"])
def test_logits_depend_on_level_labels_length_and_crop(field: str) -> None:
    prior, clips = tiny_prior(), masked_clips((4,), share=0.5)
    changed = {
        "levels": clips.levels + 1,
        "labels": clips.labels + 1,
        "whole": ~clips.whole,
        "num_columns": clips.num_columns - 1,
    }
    with torch.no_grad():
        before, after = prior(clips), prior(replace(clips, **{field: changed[field]}))
    assert not torch.allclose(before[..., :3, :], after[..., :3, :])


@settings(max_examples=30)
@given(
    steps=st.integers(1, 9),
    share=st.floats(0, 1),
    temperature=st.sampled_from([0.0, 1.0]),
    guidance=st.sampled_from([0.0, 1.5]),
    top_k=st.sampled_from([0, 2]),
)
def test_all_masked_codes_are_sampled_and_no_others_changed(
    steps: int, share: float, temperature: float, guidance: float, top_k: int
) -> None:
    clips = masked_clips(share=share)
    clips.codes[clips.hidden] = 99  # not a code, so that any masked code left over is found
    config = SamplingConfig(steps=steps, temperature=temperature, guidance=guidance, top_k=top_k)
    unchanged = ~clips.hidden | ~clips.valid[:, None, None]
    filled = sample_masked(tiny_prior(), clips, config, torch.Generator().manual_seed(1))
    assert torch.equal(filled[unchanged], clips.codes[unchanged])
    assert bool(((filled >= 0) & (filled < 5))[~unchanged].all())


@pytest.mark.parametrize("columns", [1, 2, 5, 14, 31])
def test_the_first_column_is_sampled_first_and_between_two_of_a_level_lies_one_of_an_earlier_level(
    columns: int,
) -> None:
    ranks = bisection_order(columns)
    assert sorted(ranks.tolist()) == list(range(columns))
    assert int(ranks[0]) == 0
    for level in range(columns.bit_length()):
        of_level = (ranks >= 2**level) & (ranks < 2 ** (level + 1))
        earlier = ranks < 2**level
        for one, other in itertools.pairwise(of_level.nonzero()[:, 0].tolist()):
            assert bool(earlier[one:other].any())


@given(
    masked=st.lists(st.booleans(), min_size=1, max_size=12),
    steps=st.integers(1, 20),
)
def test_the_schedule_follows_the_bisection_order_and_the_cosine(
    masked: list[bool], steps: int
) -> None:
    schedule = unmask_schedule(torch.tensor([masked]), steps)[0]
    count = sum(masked)
    sampled_at = schedule[torch.tensor(masked)]
    assert bool((schedule[~torch.tensor(masked)] == -1).all())
    assert bool(((sampled_at >= 0) & (sampled_at < steps)).all())
    assert bool((sampled_at[bisection_order(count).argsort()].diff() >= 0).all())
    for step in range(1, steps):
        left = count * math.cos(math.pi / 2 * step / steps)
        assert abs(int((sampled_at >= step).sum()) - math.floor(left + 1e-5)) <= (left % 1 < 1e-5)


def test_later_steps_depend_on_codes_sampled_in_earlier_ones() -> None:
    prior, clips = tiny_prior(), masked_clips((6,), share=1.1)
    at_once = sample_masked(prior, clips, replace(GREEDY, steps=1), torch.Generator())
    in_steps = sample_masked(prior, clips, replace(GREEDY, steps=24), torch.Generator())
    assert not torch.equal(at_once, in_steps)


def test_the_seed_determines_the_codes_and_later_clips_do_not_matter() -> None:
    prior, clips = tiny_prior(), masked_clips((6, 6, 6), share=1.1)
    config = SamplingConfig(temperature=1.0, steps=4)
    first, again, other = (
        sample_masked(prior, clips, config, torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    one = sample_masked(prior, alone(clips, 0), config, torch.Generator().manual_seed(3))
    assert torch.equal(one[0], first[0])


def expected_sweep(prior: MaskedPrior, clips: MaskedClips) -> torch.Tensor:
    """One sweep over a clip without guidance, code by code, from all its logits."""
    codes = clips.codes.clone()
    for half in (0, 1):
        columns = [c for c in range(half, 6, 2) if c > 2 or not bool(clips.whole[0, 0])]
        hidden = torch.zeros_like(clips.hidden)
        hidden[..., columns] = clips.hidden[..., columns]
        for row, quantizer in itertools.product(range(2), range(2)):
            logits = prior(replace(clips, codes=codes, hidden=hidden))[0, quantizer, row]
            for column in columns:
                if bool(clips.hidden[0, quantizer, row, column]):
                    mean = logits[column].softmax(dim=0) @ prior.vectors[quantizer]
                    distances = (prior.vectors[quantizer] - mean).norm(dim=1)
                    codes[0, quantizer, row, column] = distances.argmin()
    return codes


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("share", [0.5, 1.1])
def test_a_sweep_takes_the_codes_nearest_to_the_expected_vectors_given_all_others(
    begins: bool, share: float
) -> None:
    prior, clips = tiny_prior(), masked_clips((6,), share=share)
    clips = replace(clips, whole=torch.tensor([[begins, True]]))
    once = Settled(guidance=0.0, sweeps=1)
    with torch.no_grad():
        expected = expected_sweep(prior, clips)
    assert not torch.equal(expected, clips.codes)
    assert torch.equal(smooth(prior, clips, once), expected)
    twice = smooth(prior, replace(clips, codes=expected), once)
    assert torch.equal(smooth(prior, clips, replace(once, sweeps=2)), twice)
    assert torch.equal(smooth(prior, clips, replace(once, sweeps=0)), clips.codes)


def test_sampled_codes_are_smoothed_where_they_were_masked_and_guided_by_the_labels() -> None:
    prior, clips = tiny_prior(), masked_clips(share=0.7)
    config = Settled(temperature=1.0, guidance=0.0, steps=3)
    plain = sample_masked(prior, clips, config, torch.Generator())
    swept = [
        sample_masked(prior, clips, replace(config, sweeps=1, guidance=guidance), torch.Generator())
        for guidance in (0.0, 4.0)
    ]
    once = replace(config, sweeps=1)
    assert torch.equal(swept[0], smooth(prior, replace(clips, codes=plain), once))
    assert not torch.equal(swept[0], swept[1])
    unchanged = ~clips.hidden | ~clips.valid[:, None, None]
    for codes in swept:
        assert torch.equal(codes[unchanged], clips.codes[unchanged])
    alone_first = sample_masked(prior, alone(clips, 0), once, torch.Generator())
    assert torch.equal(alone_first[0], swept[0][0])


def test_lengths_and_levels_are_sampled_from_the_heads_distributions() -> None:
    prior = tiny_prior(labels=(2,))
    with torch.no_grad():
        for head in (prior.length_head, prior.level_head):
            for parameter in head.parameters():
                parameter.zero_()
        prior.length_head[2].bias.copy_(torch.tensor([0, 0, math.log(3), 0, 0, 0]))
        prior.level_head[2].bias.copy_(torch.tensor([0.0, -1e9, 0.0]))
    labels = torch.zeros(4000, 1, dtype=torch.long)
    with torch.no_grad():
        plain = SamplingConfig(temperature=1.0, guidance=0.0)
        columns, levels = prior.draw_sizes(labels, plain, torch.Generator().manual_seed(0))
    shares = torch.bincount(columns, minlength=7)[1:] / 4000
    torch.testing.assert_close(shares, torch.tensor([1, 1, 3, 1, 1, 1]) / 8, atol=0.03, rtol=0)
    assert set(levels.tolist()) == {0, 2}


def test_lengths_and_levels_are_those_of_a_clip_with_the_labels_and_else_of_the_heads() -> None:
    prior = tiny_prior()
    prior.sizes = torch.tensor([[0, 0, 2, 1], [0, 1, 3, 2], [0, 1, 5, 0], [1, 0, 4, 1]])
    asked = torch.tensor([[0, 1], [0, 2], [3, 2], [2, 1]])  # the null labels are 3 and 2
    labels = asked.repeat(1000, 1)
    with torch.no_grad():
        columns, levels = prior.draw_sizes(
            labels, SamplingConfig(), torch.Generator().manual_seed(0)
        )
        prior.sizes = prior.sizes[:0]
        by_heads, _ = prior.draw_sizes(labels, SamplingConfig(), torch.Generator().manual_seed(0))
    drawn = torch.stack([columns, levels], dim=1).unflatten(0, (1000, 4)).unbind(dim=1)
    expected = {(3, 2): 1 / 2, (5, 0): 1 / 2}, {(2, 1): 1 / 3, (3, 2): 1 / 3, (5, 0): 1 / 3}
    for sizes, shares in zip(drawn, expected, strict=False):
        found = Counter(map(tuple, sizes.tolist()))
        assert found.keys() == shares.keys()
        for size, share in shares.items():
            assert found[size] / 1000 == pytest.approx(share, abs=0.06)
    assert len({tuple(size) for size in drawn[2].tolist()}) == 4
    assert torch.equal(columns[3::4], by_heads[3::4]), "no clip has these labels"
    assert not torch.equal(columns, by_heads)


def test_levels_follow_the_temperature() -> None:
    prior = tiny_prior(labels=(2,))
    labels = torch.zeros(2000, 1, dtype=torch.long)

    def spread(**settings: float) -> float:
        sampling = SamplingConfig(**settings)
        with torch.no_grad():
            _, levels = prior.draw_sizes(labels, sampling, torch.Generator().manual_seed(0))
        shares = torch.bincount(levels).double() / len(levels)
        return float(-(shares * shares.clamp(min=1e-12).log()).sum())

    cold, cool, warm = (spread(temperature=t, guidance=0.0) for t in (0.0, 0.3, 1.0))
    assert cold <= cool < warm


def test_training_masks_have_all_shares_and_cropped_clips_are_contiguous() -> None:
    columns = torch.full((3000,), 6)
    codes = torch.arange(6).expand(3000, 2, 2, 6)
    clips = training_masks(
        codes, columns, columns, columns[:, None], torch.Generator().manual_seed(0)
    )
    assert int(clips.num_columns.min()) >= 1
    assert int(clips.num_columns.max()) == 6
    for whole in ((True, True), (True, False)):
        same = (clips.whole == torch.tensor(whole)).all(dim=1)
        assert bool((clips.codes[same, 0, 0, 0] == 0).all())
    assert bool((clips.num_columns[clips.whole.all(dim=1)] == 6).all())
    begin = clips.codes[:, 0, 0, 0]
    assert set(begin[~clips.whole[:, 0]].tolist()) >= {0, 1, 2, 3, 4}
    last = clips.codes[:, 0, 0].gather(1, clips.num_columns[:, None] - 1)[:, 0]
    assert bool((last == begin + clips.num_columns - 1).all()), "contiguous columns"
    shares = clips.hidden.float().flatten(1).mean(dim=1)
    assert bool((shares.histc(5, 0, 1) > 150).all()), "small shares and large ones"
    masks = clips.hidden & clips.valid[:, None, None]
    assert bool(masks.flatten(1).any(dim=1).all()), "at least one masked code per clip"


def test_replaced_codes_are_visible_ones_up_to_a_share_and_from_the_clip_before() -> None:
    columns = torch.arange(3000) % 6 + 1
    codes = torch.arange(3000)[:, None, None, None].expand(-1, 2, 2, 6)
    rest = columns, columns, columns[:, None]
    clips = training_masks(codes, *rest, torch.Generator().manual_seed(0))
    some, same = (replace_visible(clips, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(some.codes, same.codes)
    replaced = some.codes != clips.codes
    visible = ~clips.hidden & clips.valid[:, None, None]
    assert not (replaced & ~visible).any()
    assert torch.equal(some.codes[replaced], clips.codes.roll(1, 0)[replaced])
    both = visible & clips.valid.roll(1, 0)[:, None, None]
    assert float(replaced[both].float().mean()) == pytest.approx(MOST_REPLACED / 2, abs=0.01)
    shares = replaced.flatten(1).sum(dim=1) / both.flatten(1).sum(dim=1).clamp(min=1)
    large = shares[both.flatten(1).sum(dim=1) >= 16]
    assert float(large.min()) == 0
    assert float(large.max()) < 2 * MOST_REPLACED
    for name in ("hidden", "num_columns", "levels", "labels", "whole"):
        assert getattr(some, name) is getattr(clips, name)


def test_clips_cut_before_never_count_as_complete_and_nothing_else_changes() -> None:
    columns = torch.arange(3000) % 6 + 1
    codes = torch.arange(6).expand(3000, 2, 2, 6)
    complete = torch.rand(3000, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    known, cut = (
        training_masks(
            codes, columns, columns, columns[:, None], torch.Generator().manual_seed(0), ends
        )
        for ends in (None, complete)
    )
    assert torch.equal(cut.whole, known.whole & complete)
    for name in ("codes", "hidden", "num_columns", "levels", "labels"):
        assert torch.equal(getattr(cut, name), getattr(known, name))


def test_lengths_are_learnt_from_complete_and_longest_clips_and_new_sounds_end_as_these() -> None:
    prior = tiny_prior()
    most = VOCABULARY.max_columns
    clips = masked_clips((most, most - 1, 1))
    ends = torch.tensor([[True, False], [False, True], [True, True]])
    assert prior.length_known(clips.num_columns, ends).tolist() == [True, False, True]
    ends = torch.tensor([[False, False], [True, False], [False, True]])
    assert not prior.length_known(clips.num_columns, ends).any()
    lengths = torch.tensor([most, 1])
    assert prior.complete(lengths).all()
    prior.longest_complete = (False, False)
    assert prior.length_known(clips.num_columns, ends).tolist() == [True, False, False]
    assert prior.complete(lengths).tolist() == [[False, False], [True, True]]


def test_it_learns_to_fill_clips_that_repeat_one_code() -> None:
    """Any unmasked code of such a clip determines all others."""
    torch.manual_seed(0)
    prior = MaskedPrior(MASKED, VOCABULARY, ())
    optimizer = torch.optim.AdamW(prior.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(180):
        codes = torch.randint(5, (32, 1, 1, 1), generator=generator).expand(-1, 2, 2, 6)
        rest = torch.full((32,), 6), torch.zeros(32, dtype=torch.long)
        clips = training_masks(codes, *rest, torch.zeros(32, 0, dtype=torch.long), generator)
        loss = sum(prior.loss(clips))
        optimizer.zero_grad()
        torch.as_tensor(loss).backward()
        optimizer.step()
    mask = torch.arange(6).expand(5, 2, 2, 6) % 3 > 0
    codes = torch.arange(5)[:, None, None, None].expand(-1, 2, 2, 6)
    lengths_and_levels = torch.full((5,), 6), torch.zeros(5, dtype=torch.long)
    labels, whole = torch.zeros(5, 0, dtype=torch.long), torch.ones(5, 2, dtype=torch.bool)
    clips = MaskedClips(codes * ~mask, mask, *lengths_and_levels, labels, whole)
    filled = sample_masked(prior.eval(), clips, GREEDY, torch.Generator())
    assert float((filled == codes).float().mean()) > 0.9


def test_initialized_from_an_autoregressive_prior_it_predicts_the_same_from_the_same_inputs() -> (
    None
):
    sizes = {"dim": 16, "cell": 8, "layers": 2, "heads": 2}
    prior = Transformer(PriorConfig(**sizes), VOCABULARY, (3, 2))
    shake(prior, seed=1)
    own = tiny_prior()
    assert own.can_start_from(prior)
    own.start_from(prior)
    generator = torch.Generator().manual_seed(0)
    inputs, *modulation = torch.randn(5, 9, 8, generator=generator)
    prefix = torch.randint(10, (9, own.prefix), generator=generator)
    with torch.no_grad():
        features = own.column_decoder(inputs, prefix, tuple(modulation))
        expected = prior.column_decoder(inputs, prefix, tuple(modulation))
        torch.testing.assert_close(features, expected)
        codes = torch.cat([head(features) for head in own.heads], dim=1)
        torch.testing.assert_close(codes, prior.head(features)[:, : VOCABULARY.end])
        labels = torch.tensor([[1, 0]])
        torch.testing.assert_close(own.condition(labels), prior.condition(labels))
    assert not tiny_prior(labels=()).can_start_from(
        Transformer(PriorConfig(**(sizes | {"layers": 3})), VOCABULARY, ())
    )


def test_a_dim_that_is_not_a_multiple_of_the_heads_raises_an_error() -> None:
    with pytest.raises(AudiovqError, match="multiple of the heads"):
        MaskedConfig(dim=10, heads=4)
