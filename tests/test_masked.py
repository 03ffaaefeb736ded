"""The laws of the masked prior: what it sees, what it leaves alone, lengths, steps, learning."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import MASKED, shake

from audiovq.canvas import Canvas, masked_at_random, ranks_of, turns
from audiovq.config import AudiovqError, MaskedConfig, PriorConfig, SamplingConfig
from audiovq.masked import MaskedPrior, sample_masked
from audiovq.prior import Vocabulary
from audiovq.transformer import Transformer

VOCABULARY = Vocabulary(codebook_size=5, num_quantizers=2, rows=2, num_levels=3, max_columns=6)
SURE = SamplingConfig(temperature=0.0, steps=3)


def masked(vocabulary: Vocabulary = VOCABULARY, labels: tuple[int, ...] = (3, 2)) -> MaskedPrior:
    """A small one in eval mode; random weights, so that all there is has a say."""
    torch.manual_seed(0)
    made = MaskedPrior(MASKED, vocabulary, labels)
    shake(made)
    return made.eval()


def canvas(columns: tuple[int, ...] = (6, 3, 4), share: float = 0.5) -> Canvas:
    """Clips of unequal lengths, a share of whose codes is hidden."""
    generator = torch.Generator().manual_seed(0)
    shape = len(columns), 2, 2, max(columns)
    return Canvas(
        codes=torch.randint(5, shape, generator=generator),
        hidden=torch.rand(shape, generator=generator) < share,
        num_columns=torch.tensor(columns),
        levels=torch.arange(len(columns)) % 3,
        labels=torch.tensor([[0, 0], [2, 1], [3, 2]])[: len(columns)],
        whole=torch.tensor([[True, True], [True, False], [False, False]])[: len(columns)],
    )


def alone(clips: Canvas, i: int) -> Canvas:
    """One clip of a canvas, without padding."""
    width = int(clips.num_columns[i])
    one = slice(i, i + 1)
    return Canvas(
        clips.codes[one, ..., :width],
        clips.hidden[one, ..., :width],
        clips.num_columns[one],
        clips.levels[one],
        clips.labels[one],
        clips.whole[one],
    )


def test_a_batch_gives_what_its_clips_give_alone_whatever_the_padding_holds() -> None:
    clips, prior = canvas(), masked()
    with torch.no_grad():
        logits = prior(clips)
        torch.testing.assert_close(prior(dirty(clips)), logits)
        for i, width in enumerate(clips.num_columns.tolist()):
            torch.testing.assert_close(prior(alone(clips, i))[0], logits[i, ..., :width, :])
    filled = sample_masked(prior, clips, SURE, torch.Generator())
    for i, width in enumerate(clips.num_columns.tolist()):
        one = sample_masked(prior, alone(clips, i), SURE, torch.Generator())
        assert torch.equal(one[0], filled[i, ..., :width])


def dirty(clips: Canvas) -> Canvas:
    """Other codes in the padding, which nothing may read."""
    unread = ~clips.inside[:, None, None]
    return replace(clips, codes=torch.where(unread, (clips.codes + 1) % 5, clips.codes))


def test_a_code_knows_what_is_not_hidden_and_of_what_is_the_codes_below_it_in_its_column() -> None:
    prior, clips = masked(), canvas((6,), share=0.5)
    slots, places = VOCABULARY.slots, torch.arange(24)
    columns, slot = places // slots, places % slots
    hidden = prior.in_columns(clips.hidden)[0].flatten()
    tokens = prior.in_columns(clips.codes).flatten().repeat(24, 1)
    tokens[places, places] = (tokens[places, places] + 1) % 5
    grid = tokens.view(24, 6, 2, 2).permute(0, 3, 2, 1)
    many = Canvas(grid, *(getattr(clips, name).expand(24, *shape) for name, shape in SHAPES))
    with torch.no_grad():
        away = prior(many) - prior(clips)
    # More than another batch's order of sums makes of a logit.
    changed = prior.in_columns(away.abs().amax(dim=4)).flatten(1) > 1e-5
    below = (columns[:, None] == columns) & (slot[:, None] < slot)
    expected = below | ~hidden[:, None].expand(24, 24)
    assert torch.equal(changed, expected), "(source, place)"


SHAPES = (
    ("hidden", (2, 2, 6)),
    ("num_columns", ()),
    ("levels", ()),
    ("labels", (2,)),
    ("whole", (2,)),
)


@torch.no_grad()
def test_columns_asked_for_beside_those_with_holes_change_nothing() -> None:
    prior, clips = masked(), canvas(share=0.7)
    columns = prior.in_columns(clips.hidden).any(dim=2) & clips.inside
    assert 0 < columns.sum() < columns.numel()
    everywhere, told_everywhere = prior.context(clips, torch.ones_like(columns))
    context, told = prior.context(clips, columns)
    torch.testing.assert_close(context, everywhere[columns.flatten()])
    assert len(told) == len(told_everywhere)
    for part, everyone in zip(told, told_everywhere, strict=True):
        torch.testing.assert_close(part, everyone[columns.flatten()])


@torch.no_grad()
def test_columns_left_for_later_are_not_even_there_but_for_the_two_beside() -> None:
    prior = masked()
    clips = replace(canvas((6,)), hidden=torch.ones(1, 2, 2, 6, dtype=torch.bool))
    clips.hidden[..., :2] = False
    columns = torch.tensor([[False, False, True, False, False, False]])
    alone = prior.context(clips, columns)[0]
    begins = replace(clips, codes=clips.codes[..., :5], hidden=clips.hidden[..., :5])
    # How long the clip is, it is told all the same.
    torch.testing.assert_close(prior.context(begins, columns[:, :5])[0], alone)


@pytest.mark.parametrize("column", [0, 2, 5])
def test_a_hole_is_filled_from_the_past_and_from_the_future(column: int) -> None:
    prior, clips = masked(), canvas((6,), share=0.0)
    clips.hidden[:, :, :, column] = True
    with torch.no_grad():
        logits = prior(clips)[..., column, :]
        for other in set(range(6)) - {column}:
            codes = clips.codes.clone()
            codes[..., other] = (codes[..., other] + 1) % 5
            assert not torch.equal(prior(replace(clips, codes=codes))[..., column, :], logits)


@pytest.mark.parametrize("field", ["levels", "labels", "whole", "num_columns"])
def test_what_is_known_of_a_clip_has_a_say(field: str) -> None:
    prior, clips = masked(), canvas((4,), share=0.5)
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
def test_all_holes_are_filled_and_nothing_else_is_touched(
    steps: int, share: float, temperature: float, guidance: float, top_k: int
) -> None:
    clips = canvas(share=share)
    clips.codes[clips.hidden] = 99  # no code: what is left of it was not filled
    config = SamplingConfig(steps=steps, temperature=temperature, guidance=guidance, top_k=top_k)
    kept = ~clips.hidden | ~clips.inside[:, None, None]
    filled = sample_masked(masked(), clips, config, torch.Generator().manual_seed(1))
    assert torch.equal(filled[kept], clips.codes[kept])
    assert bool(((filled >= 0) & (filled < 5))[~kept].all())


@pytest.mark.parametrize("columns", [1, 2, 5, 14, 31])
def test_columns_are_drawn_apart_and_those_between_them_later(columns: int) -> None:
    ranks = ranks_of(columns)
    assert sorted(ranks.tolist()) == list(range(columns))
    assert int(ranks[columns // 2]) == 0
    halvings = columns.bit_length()
    for level in range(halvings):
        new = (ranks >= 2**level - 1) & (ranks < 2 ** (level + 1) - 1)
        known = ranks < 2**level - 1
        drawn = new.nonzero()[:, 0].tolist()
        for one, other in itertools.pairwise(drawn):
            assert bool(known[one:other].any()), "something known lies between any two"


@given(
    holes=st.lists(st.booleans(), min_size=1, max_size=12),
    steps=st.integers(1, 20),
)
def test_turns_follow_the_ranks_and_what_is_left_the_cosine(holes: list[bool], steps: int) -> None:
    turn = turns(torch.tensor([holes]), steps)[0]
    count = sum(holes)
    drawn = turn[torch.tensor(holes)]
    assert bool((turn[~torch.tensor(holes)] == -1).all())
    assert bool(((drawn >= 0) & (drawn < steps)).all())
    assert bool((drawn[ranks_of(count).argsort()].diff() >= 0).all())
    for step in range(1, steps):
        left = count * math.cos(math.pi / 2 * step / steps)
        assert abs(int((drawn >= step).sum()) - math.floor(left + 1e-5)) <= (left % 1 < 1e-5)


def test_what_is_drawn_first_is_what_later_steps_see() -> None:
    prior, clips = masked(), canvas((6,), share=1.1)
    at_once = sample_masked(prior, clips, replace(SURE, steps=1), torch.Generator())
    in_steps = sample_masked(prior, clips, replace(SURE, steps=24), torch.Generator())
    assert not torch.equal(at_once, in_steps)


def test_same_generator_same_codes_and_those_of_a_clip_do_not_depend_on_later_ones() -> None:
    prior, clips = masked(), canvas((6, 6, 6), share=1.1)
    config = SamplingConfig(temperature=1.0, steps=4)
    first, again, other = (
        sample_masked(prior, clips, config, torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    one = sample_masked(prior, alone(clips, 0), config, torch.Generator().manual_seed(3))
    assert torch.equal(one[0], first[0])


def test_sizes_are_drawn_as_the_labels_have_them() -> None:
    prior = masked(labels=(2,))
    with torch.no_grad():
        for head in (prior.length_head, prior.level_head):
            for parameter in head.parameters():
                parameter.zero_()
        prior.length_head[2].bias.copy_(torch.tensor([0, 0, math.log(3), 0, 0, 0]))
        prior.level_head[2].bias.copy_(torch.tensor([0.0, -1e9, 0.0]))
    labels = torch.zeros(4000, 1, dtype=torch.long)
    with torch.no_grad():
        columns, levels = prior.draw_sizes(labels, torch.Generator().manual_seed(0))
    shares = torch.bincount(columns, minlength=7)[1:] / 4000
    torch.testing.assert_close(shares, torch.tensor([1, 1, 3, 1, 1, 1]) / 8, atol=0.03, rtol=0)
    assert set(levels.tolist()) == {0, 2}


def test_holes_to_learn_from_hide_any_share_and_cut_clips_keep_what_is_left() -> None:
    columns = torch.full((3000,), 6)
    codes = torch.arange(6).expand(3000, 2, 2, 6)
    clips = masked_at_random(
        codes, columns, columns, columns[:, None], torch.Generator().manual_seed(0)
    )
    assert int(clips.num_columns.min()) >= 1
    assert int(clips.num_columns.max()) == 6
    for cut in ((True, True), (True, False)):
        same = (clips.whole == torch.tensor(cut)).all(dim=1)
        assert bool((clips.codes[same, 0, 0, 0] == 0).all())
    assert bool((clips.num_columns[clips.whole.all(dim=1)] == 6).all())
    begin = clips.codes[:, 0, 0, 0]
    assert set(begin[~clips.whole[:, 0]].tolist()) >= {0, 1, 2, 3, 4}
    last = clips.codes[:, 0, 0].gather(1, clips.num_columns[:, None] - 1)[:, 0]
    assert bool((last == begin + clips.num_columns - 1).all()), "in order, and nothing left out"
    shares = clips.hidden.float().flatten(1).mean(dim=1)
    assert bool((shares.histc(5, 0, 1) > 150).all()), "few holes and many"
    holes = clips.hidden & clips.inside[:, None, None]
    assert bool(holes.flatten(1).any(dim=1).all()), "and none without"


def test_what_was_cut_before_is_never_told_as_whole_and_nothing_else_changes() -> None:
    columns = torch.arange(3000) % 6 + 1
    codes = torch.arange(6).expand(3000, 2, 2, 6)
    complete = torch.rand(3000, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    known, told = (
        masked_at_random(
            codes, columns, columns, columns[:, None], torch.Generator().manual_seed(0), ends
        )
        for ends in (None, complete)
    )
    assert torch.equal(told.whole, known.whole & complete)
    for name in ("codes", "hidden", "num_columns", "levels", "labels"):
        assert torch.equal(getattr(told, name), getattr(known, name))


def test_lengths_are_learnt_from_whole_clips_and_the_longest_and_new_sounds_end_as_these() -> None:
    prior = masked()
    most = VOCABULARY.max_columns
    clips = canvas((most, most - 1, 1, most))
    ends = torch.tensor([[True, False], [False, True], [True, True], [False, False]])
    clips = replace(clips, whole=ends)
    assert prior.entire(clips).tolist() == [True, False, True, True]
    lengths = torch.tensor([most, 1])
    assert prior.ends(lengths).all()
    prior.longest_complete = (True, False)
    assert prior.ends(lengths).tolist() == [[True, False], [True, True]]


def test_it_learns_to_fill_from_both_sides() -> None:
    """Clips of one code each: what is left of one tells all of it."""
    torch.manual_seed(0)
    prior = MaskedPrior(MASKED, VOCABULARY, ())
    optimizer = torch.optim.AdamW(prior.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        codes = torch.randint(5, (32, 1, 1, 1), generator=generator).expand(-1, 2, 2, 6)
        rest = torch.full((32,), 6), torch.zeros(32, dtype=torch.long)
        clips = masked_at_random(codes, *rest, torch.zeros(32, 0, dtype=torch.long), generator)
        loss = sum(prior.loss(clips))
        optimizer.zero_grad()
        torch.as_tensor(loss).backward()
        optimizer.step()
    hidden = torch.arange(6).expand(5, 2, 2, 6) % 3 > 0
    codes = torch.arange(5)[:, None, None, None].expand(-1, 2, 2, 6)
    known = torch.full((5,), 6), torch.zeros(5, dtype=torch.long)
    whole = torch.ones(5, 2, dtype=torch.bool)
    empty = Canvas(codes * ~hidden, hidden, *known, torch.zeros(5, 0, dtype=torch.long), whole)
    filled = sample_masked(prior.eval(), empty, SURE, torch.Generator())
    assert float((filled == codes).float().mean()) > 0.9


def test_it_begins_with_what_a_prior_in_time_order_has_learnt_of_the_same_codes() -> None:
    sizes = {"dim": 16, "cell": 8, "layers": 2, "heads": 2}
    prior = Transformer(PriorConfig(**sizes), VOCABULARY, (3, 2))
    shake(prior, seed=1)
    own = masked()
    assert own.can_start_from(prior)
    own.start_from(prior)
    generator = torch.Generator().manual_seed(0)
    context, *told = torch.randn(5, 9, 8, generator=generator)
    below = torch.randint(10, (9, own.below), generator=generator)
    with torch.no_grad():
        features = own.cells(context, below, tuple(told))
        torch.testing.assert_close(features, prior.cells(context, below, tuple(told)))
        codes = torch.cat([head(features) for head in own.heads], dim=1)
        torch.testing.assert_close(codes, prior.head(features)[:, : VOCABULARY.end])
        labels = torch.tensor([[1, 0]])
        torch.testing.assert_close(own.condition(labels), prior.condition(labels))
    assert not masked(labels=()).can_start_from(
        Transformer(PriorConfig(**(sizes | {"layers": 3})), VOCABULARY, ())
    )


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(AudiovqError, match="multiple of the heads"):
        MaskedConfig(dim=10, heads=4)
