"""Laws of autoregressive priors, for both kinds: tokens, causality, conditioning, sampling."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import shake
from torch import Tensor

from audiovq.config.sampling import SamplingConfig
from audiovq.config.settings import PriorConfig
from audiovq.models.priors.base import Prior
from audiovq.models.priors.column_decoder import TOKEN_DROPOUT, drop_tokens
from audiovq.models.priors.pixelcnn import PixelCNN
from audiovq.models.priors.sampling import apply_guidance, sample, sample_categorical
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer

VOCABULARY = Vocabulary(codebook_size=5, num_quantizers=2, rows=2, num_levels=3, max_columns=4)
PLAIN = SamplingConfig(temperature=1.0, top_k=0, top_p=1.0, guidance=0.0)
SMALL = PriorConfig(dim=16, cell=8, layers=2, heads=2, kernel=3, dropout=0.0)
ROUNDING = 1e-5
"""More than the rounding error of a logit from another batch size."""
Kind = type[Transformer] | type[PixelCNN]
for_both_priors = pytest.mark.parametrize("kind", [Transformer, PixelCNN])


def prior(
    kind: Kind = Transformer,
    vocabulary: Vocabulary = VOCABULARY,
    labels: tuple[int, ...] = (3, 2),
) -> Any:
    """A small prior in eval mode, with random weights throughout, so that every input matters."""
    torch.manual_seed(0)
    model = kind(SMALL, vocabulary, labels)
    shake(model)
    return model.eval()


def random_codes(vocabulary: Vocabulary, batch: int, columns: int, seed: int = 0) -> Tensor:
    shape = (batch, vocabulary.num_quantizers, vocabulary.rows, columns)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary.codebook_size, shape, generator=generator)


def some_tokens(vocabulary: Vocabulary = VOCABULARY) -> tuple[Tensor, Tensor, Tensor]:
    """Three clips of 4, 1 and 3 columns: tokens, lengths, labels."""
    codes, columns = random_codes(vocabulary, 3, 4), torch.tensor([4, 1, 3])
    tokens, lengths = vocabulary.tokens(codes, columns, torch.tensor([0, 1, 2]))
    return tokens, lengths, torch.tensor([[0, 0], [2, 1], [3, 2]])


vocabularies = st.builds(
    Vocabulary,
    codebook_size=st.integers(2, 6),
    num_quantizers=st.integers(1, 3),
    rows=st.integers(1, 4),
    num_levels=st.integers(1, 4),
    max_columns=st.integers(1, 5),
)


def expected_tokens(vocabulary: Vocabulary, codes: Any, columns: int, level: int) -> list[int]:
    """One clip's tokens, by the definition: level, columns in time order, END."""
    end = vocabulary.codebook_size * vocabulary.num_quantizers
    tokens = [end + 1 + level]
    for column in range(columns):
        for row in range(vocabulary.rows):
            for quantizer in range(vocabulary.num_quantizers):
                code = int(codes[quantizer, row, column])
                tokens.append(quantizer * vocabulary.codebook_size + code)
    return tokens + [end] * (columns < vocabulary.max_columns)


@given(data=st.data(), vocabulary=vocabularies)
def test_tokens_follow_the_definition_and_codes_is_their_inverse(
    data: st.DataObject, vocabulary: Vocabulary
) -> None:
    columns = data.draw(st.lists(st.integers(1, vocabulary.max_columns), min_size=1, max_size=3))
    levels = [data.draw(st.integers(0, vocabulary.num_levels - 1)) for _ in columns]
    codes = random_codes(vocabulary, len(columns), max(columns), seed=sum(columns))
    tokens, lengths = vocabulary.tokens(codes, torch.tensor(columns), torch.tensor(levels))
    assert tokens.shape[1] <= vocabulary.max_tokens
    back, back_columns, back_levels = vocabulary.codes(tokens)
    assert back_columns.tolist() == columns
    assert back_levels.tolist() == levels
    for i, n in enumerate(columns):
        expected = expected_tokens(vocabulary, codes[i], n, levels[i])
        assert tokens[i, : len(expected)].tolist() == expected
        assert int(lengths[i]) == len(expected)
        assert bool((tokens[i, len(expected) :] == vocabulary.end).all())
        assert torch.equal(back[i, ..., :n], codes[i, ..., :n])
        assert not back[i, ..., n:].any()
        for position, token in enumerate(expected):
            assert bool(vocabulary.allowed()[vocabulary.slot(torch.tensor(position)), token])


@given(vocabulary=vocabularies)
def test_each_slot_allows_exactly_the_tokens_of_its_kind(
    vocabulary: Vocabulary,
) -> None:
    table = vocabulary.allowed()
    size, end = vocabulary.codebook_size, vocabulary.end
    assert table.shape == (1 + vocabulary.rows * vocabulary.num_quantizers, vocabulary.size)
    for slot in range(len(table)):
        if slot == 0:
            legal = set(range(end + 1, end + 1 + vocabulary.num_levels))
        else:
            quantizer = (slot - 1) % vocabulary.num_quantizers
            legal = set(range(quantizer * size, (quantizer + 1) * size))
            legal |= {end} if slot == 1 else set()
        assert set(table[slot].nonzero()[:, 0].tolist()) == legal


@pytest.mark.parametrize(("rows", "quantizers"), [(2, 2), (1, 1), (10, 2), (17, 1)])
def test_logits_depend_on_all_earlier_tokens_and_on_no_others(rows: int, quantizers: int) -> None:
    vocabulary = Vocabulary(5, quantizers, rows, 3, max_columns=4)
    model = prior(vocabulary=vocabulary)
    codes = random_codes(vocabulary, 1, 4)
    tokens, _ = vocabulary.tokens(codes, torch.tensor([3]), torch.tensor([1]))
    length = tokens.shape[1]
    others = tokens.repeat(length, 1)
    positions = torch.arange(length)
    others[positions, positions] = torch.where(
        positions == 0, vocabulary.size - 1, (tokens[0] + 1) % 5
    )
    with torch.no_grad():
        plain = model(tokens, torch.tensor([[0, 0]]))
        difference = model(others, torch.tensor([[0, 0]]).expand(length, 2)) - plain
    changed = difference.nan_to_num(0).abs().amax(dim=2) > ROUNDING
    assert torch.equal(changed, positions[:, None] < positions), "(changed token, affected logits)"


@for_both_priors
def test_a_changed_token_changes_no_logits_up_to_its_own_position(kind: Kind) -> None:
    tokens, _, labels = some_tokens()
    model, slots = prior(kind), VOCABULARY.slots
    logits = model(tokens, labels)
    for position in range(tokens.shape[1]):
        other = tokens.clone()
        other[:, position] = (other[:, position] + 1) % VOCABULARY.size
        changed = model(other, labels)
        assert torch.equal(changed[:, : position + 1], logits[:, : position + 1])
        for later in (position + 1, position + slots):
            if later < tokens.shape[1]:
                assert not torch.equal(changed[:, later], logits[:, later])


@for_both_priors
@pytest.mark.parametrize("rows", [1, 2, 3, 10])
@pytest.mark.parametrize("quantizers", [1, 2])
def test_cached_steps_give_the_logits_of_the_forward_pass(
    kind: Kind, rows: int, quantizers: int
) -> None:
    vocabulary = Vocabulary(5, quantizers, rows, 3, max_columns=4)
    model = prior(kind, vocabulary)
    tokens, _, labels = some_tokens(vocabulary)
    with torch.no_grad():
        whole = model(tokens, labels)
        condition = model.condition(labels)
        caches = model.new_caches(3, tokens.shape[1])
        for position in range(tokens.shape[1]):
            before = tokens.clone()
            before[:, position:] = 0  # not known yet
            step = model.step(before, position, condition, caches)
            torch.testing.assert_close(step, whole[:, position], atol=1e-5, rtol=1e-4)


@for_both_priors
def test_disallowed_tokens_have_probability_0_and_all_sum_to_1(kind: Kind) -> None:
    tokens, _, labels = some_tokens()
    with torch.no_grad():
        logits = prior(kind)(tokens, labels)
    assert logits.dtype == torch.float32
    slots = VOCABULARY.slot(torch.arange(tokens.shape[1]))
    assert slots.tolist() == [0, *[1 + i % 4 for i in range(tokens.shape[1] - 1)]]
    allowed = VOCABULARY.allowed()[slots].expand_as(logits)
    assert torch.equal(logits.isfinite(), allowed)
    assert bool((logits[~allowed] == -torch.inf).all())
    probabilities = logits.softmax(dim=-1)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(tokens.shape))
    assert not probabilities[~allowed].any()


@for_both_priors
def test_loss_is_the_mean_negative_log_likelihood_computed_in_numpy(kind: Kind) -> None:
    tokens, lengths, labels = some_tokens()
    model = prior(kind)
    mean, code_nats, level_nats = model.loss(tokens, lengths, labels)
    logits = model(tokens, labels).detach().double().numpy()
    codes, levels, count = 0.0, 0.0, 0
    for clip in range(3):
        for position in range(int(lengths[clip])):
            row = logits[clip, position]
            nats = math.log(np.exp(row).sum()) - row[tokens[clip, position]]
            codes, levels = (codes, levels + nats) if position == 0 else (codes + nats, levels)
            count += 1
    assert count == (1 + 16) + (1 + 4 + 1) + (1 + 12 + 1)  # a clip of max_columns has no END
    assert mean.item() == pytest.approx((codes + levels) / count, rel=1e-5)
    assert code_nats.item() == pytest.approx(codes, rel=1e-5)
    assert level_nats.item() == pytest.approx(levels, rel=1e-5)


@for_both_priors
def test_padding_changes_neither_loss_nor_gradients(kind: Kind) -> None:
    tokens, lengths, labels = some_tokens()
    model = prior(kind)
    results = []
    for filler in (VOCABULARY.end, 0, VOCABULARY.size - 1):
        padded = torch.nn.functional.pad(tokens, (0, 3), value=filler)
        beyond = torch.arange(padded.shape[1]) >= lengths[:, None]
        model.zero_grad()
        loss, *sums = model.loss(padded.masked_fill(beyond, filler), lengths, labels)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((loss.detach(), *sums, gradient))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=1e-6, rtol=1e-4)


@for_both_priors
def test_gradients_reach_every_parameter(kind: Kind) -> None:
    tokens, lengths, labels = some_tokens()
    model = prior(kind)
    model.loss(tokens, lengths, labels)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


@for_both_priors
def test_logits_at_all_positions_differ_between_all_labels_and_null_labels(kind: Kind) -> None:
    tokens, _, _ = some_tokens()
    model = prior(kind)
    tokens = tokens[:1]
    logits: dict[tuple[int, int], Tensor] = {}
    for digit in range(4):
        for speaker in range(3):
            with torch.no_grad():
                logits[digit, speaker] = model(tokens, torch.tensor([[digit, speaker]]))
    assert model.open_labels(2).tolist() == [[3, 2], [3, 2]]
    pairs = [(a, b) for a in logits for b in logits if a < b]
    for a, b in pairs:
        difference = (logits[a] - logits[b]).nan_to_num(0).abs().amax(dim=2)
        assert bool((difference > 1e-4).all()), (a, b)


@for_both_priors
def test_a_prior_without_labels_works(kind: Kind) -> None:
    tokens, lengths, _ = some_tokens()
    model = prior(kind, labels=())
    labels = torch.zeros(3, 0, dtype=torch.long)
    assert model.loss(tokens, lengths, labels)[0].isfinite()
    assert model.open_labels(3).shape == (3, 0)
    assert model.hide_labels(labels, torch.Generator()).shape == (3, 0)
    sampled = sample(
        model, labels, SamplingConfig(temperature=1, guidance=2.0), torch.Generator().manual_seed(0)
    )
    assert len(sampled) == 3


def test_labels_are_dropped_at_the_configured_rate() -> None:
    share, clips = 0.2, 20_000
    config = PriorConfig(dim=8, layers=1, heads=1, label_dropout=share)
    model: Prior = Transformer(config, VOCABULARY, (3, 2))
    labels = torch.stack([torch.arange(clips) % 3, torch.arange(clips) % 2], dim=1)
    result = model.hide_labels(labels, torch.Generator().manual_seed(0))
    dropped = result == model.open_labels(clips)
    assert torch.equal(result[~dropped], labels[~dropped])
    # All of a clip's labels with probability `share`, else each one with half of it.
    single = share + (1 - share) * share / 2
    both = share + (1 - share) * (share / 2) ** 2
    assert dropped.float().mean(dim=0).tolist() == pytest.approx([single] * 2, abs=0.01)
    assert dropped.all(dim=1).float().mean().item() == pytest.approx(both, abs=0.01)
    model = Transformer(PriorConfig(dim=8, layers=1, heads=1, label_dropout=0), VOCABULARY, (3, 2))
    assert torch.equal(model.hide_labels(labels, torch.Generator()), labels)


def test_token_dropout_is_only_in_training_and_never_drops_the_level() -> None:
    model = prior().train()
    tokens = torch.zeros(2000, 9, dtype=torch.long)
    dropped = drop_tokens(tokens, 7)
    assert set(dropped.unique().tolist()) == {0, 7}
    assert dropped.float().mean().item() / 7 == pytest.approx(TOKEN_DROPOUT, abs=0.01)
    torch.manual_seed(0)
    one, other = (model(tokens[:50], torch.zeros(50, 2, dtype=torch.long)) for _ in range(2))
    assert torch.equal(one[:, :2], other[:, :2]), "these logits depend on the level alone"
    assert not torch.equal(one[:, 2:], other[:, 2:])
    model.eval()
    assert torch.equal(*(model(tokens[:5], torch.zeros(5, 2, dtype=torch.long)) for _ in range(2)))


def test_labels_on_the_cpu_can_be_dropped_with_weights_on_another_device() -> None:
    model = prior().to("meta")
    labels = torch.tensor([[0, 0], [2, 1]])
    assert model.hide_labels(labels, torch.Generator()).device == labels.device


def test_dropout_is_only_in_training_and_preserves_the_mean() -> None:
    model = prior()
    layer: Any = model.layers[0]
    layer.dropout = 0.25
    x = torch.ones(4000, 3, 16)
    assert layer._channel_dropout(x) is x
    layer.train()
    dropped = layer._channel_dropout(x)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)


def labels_for(batch: int) -> Tensor:
    return torch.stack([torch.arange(batch) % 3, torch.arange(batch) % 2], dim=1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@for_both_priors
def test_the_seed_determines_the_tokens(kind: Kind) -> None:
    model, labels = prior(kind), labels_for(8)
    first = sample(model, labels, PLAIN, seeded(1))
    torch.rand(5)  # advances the global generator, which must not matter
    assert torch.equal(sample(model, labels, PLAIN, seeded(1)), first)
    other = sample(model, labels, PLAIN, seeded(2))
    assert other.shape != first.shape or not torch.equal(other, first)


@for_both_priors
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_temperature_0_takes_the_argmax_of_uncached_guided_logits(
    kind: Kind, guidance: float
) -> None:
    model, labels = prior(kind), labels_for(4)
    sampling = SamplingConfig(temperature=0, guidance=guidance)
    tokens = sample(model, labels, sampling, seeded())
    assert torch.equal(sample(model, labels, sampling, seeded(9)), tokens)
    done = torch.zeros(4, dtype=torch.bool)
    for position in range(tokens.shape[1]):
        before = tokens[:, : position + 1]
        with torch.no_grad():
            conditional = model(before, labels)[:, position]
            unconditional = model(before, model.open_labels(4))[:, position]
        led = (1 + guidance) * conditional - guidance * unconditional
        led = led.nan_to_num(-1e9, neginf=-1e9)
        led[:, VOCABULARY.end] = -1e9
        ends = conditional.softmax(dim=1)[:, VOCABULARY.end]  # END is not guided
        probabilities = led.softmax(dim=1) * (1 - ends[:, None])
        probabilities[:, VOCABULARY.end] = 0 if position == 1 else ends
        expected = probabilities.argmax(dim=1)
        if position >= 1 and (position - 1) % VOCABULARY.slots == 0:
            done |= expected == VOCABULARY.end
        expected[done] = VOCABULARY.end
        assert torch.equal(tokens[:, position], expected), f"position {position}"


@for_both_priors
def test_guidance_changes_samples_with_labels_but_not_with_null_labels(kind: Kind) -> None:
    model, labels = prior(kind), labels_for(8)
    plain = sample(model, labels, PLAIN, seeded())
    guided = sample(model, labels, SamplingConfig(temperature=1, guidance=3.0), seeded())
    assert guided.shape != plain.shape or not torch.equal(guided, plain)
    opened = model.open_labels(8)
    plain = sample(model, opened, PLAIN, seeded())
    assert torch.equal(
        sample(model, opened, SamplingConfig(temperature=1, guidance=3.0), seeded()), plain
    )


def test_guidance_changes_the_codes_but_not_the_probability_of_end() -> None:
    conditional, unconditional = torch.randn(2, 30, 6, generator=seeded())
    conditional[:10, 5] = unconditional[:10, 5] = -torch.inf  # slots that do not allow END
    probabilities = apply_guidance(conditional, unconditional, 1.5, end=5).softmax(dim=1)
    torch.testing.assert_close(probabilities[:, 5], conditional.softmax(dim=1)[:, 5])
    expected = (conditional + 1.5 * (conditional - unconditional))[:, :5].softmax(dim=1)
    torch.testing.assert_close(probabilities[:, :5] / (1 - probabilities[:, 5:]), expected)


@for_both_priors
@pytest.mark.parametrize("guidance", [0.0, 2.0])
@pytest.mark.parametrize(("rows", "quantizers"), [(1, 1), (2, 2), (3, 1)])
def test_samples_have_allowed_tokens_at_least_one_column_and_only_end_after_their_end(
    kind: Kind, rows: int, quantizers: int, guidance: float
) -> None:
    vocabulary = Vocabulary(3, quantizers, rows, 3, max_columns=6)
    model = prior(kind, vocabulary)
    tokens = sample(
        model, labels_for(40), SamplingConfig(temperature=1, guidance=guidance), seeded()
    )
    codes, columns, levels = vocabulary.codes(tokens)
    assert int(columns.min()) >= 1
    assert len(columns.unique()) > 1, "the test needs clips of several lengths"
    assert bool(((levels >= 0) & (levels < 3)).all())
    for i, n in enumerate(columns.tolist()):
        expected = expected_tokens(vocabulary, codes[i], n, int(levels[i]))
        row = tokens[i].tolist()
        assert row == (expected + [vocabulary.end] * len(row))[: len(row)]
        assert bool(((codes[i] >= 0) & (codes[i] < 3)).all())


@for_both_priors
def test_clips_have_one_column_if_end_is_certain_and_max_columns_if_it_is_impossible(
    kind: Kind,
) -> None:
    model = prior(kind)
    with torch.no_grad():
        model.head.bias[VOCABULARY.end] = 1e4
    always = sample(model, labels_for(4), PLAIN, seeded())
    assert VOCABULARY.codes(always)[1].tolist() == [1] * 4
    with torch.no_grad():
        model.head.bias[VOCABULARY.end] = -1e4
    never = sample(model, labels_for(4), PLAIN, seeded())
    assert VOCABULARY.codes(never)[1].tolist() == [VOCABULARY.max_columns] * 4


@for_both_priors
def test_sampled_tokens_have_the_priors_probabilities(kind: Kind) -> None:
    model = prior(kind)
    labels = torch.tensor([[1, 0]]).expand(4000, -1)
    tokens = sample(model, labels, PLAIN, seeded())
    level = VOCABULARY.end + 1
    with torch.no_grad():
        first = model(tokens[:1], labels[:1])[0, 0].softmax(dim=0)
        shares = torch.bincount(tokens[:, 0], minlength=VOCABULARY.size) / 4000
        torch.testing.assert_close(shares, first, atol=0.03, rtol=0)
        louder = tokens[tokens[:, 0] == level]
        second = model(louder[:1], labels[:1])[0, 1].clone()
        second[VOCABULARY.end] = -torch.inf
        shares = torch.bincount(louder[:, 1], minlength=VOCABULARY.size) / len(louder)
        torch.testing.assert_close(shares, second.softmax(dim=0), atol=0.06, rtol=0)


EVENLY = (torch.arange(4000)[:, None] + 0.5) / 4000
"""Evenly spaced numbers in [0, 1), so that shares of samples are exact to 1/4000."""


def shares_of(logits: Tensor, config: SamplingConfig) -> np.ndarray:
    sampled = sample_categorical(logits.expand(4000, -1).clone(), config, EVENLY)
    return (torch.bincount(sampled, minlength=len(logits)) / 4000).numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()


logit_lists = st.lists(
    st.one_of(st.floats(-6, 6, width=32), st.just(-math.inf)), min_size=2, max_size=8, unique=True
)


@settings(max_examples=60)
@given(
    values=logit_lists,
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.integers(0, 9),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
)
def test_samples_follow_the_softmax_after_temperature_top_k_and_top_p(
    values: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    logits = np.array(values)
    expected = softmax(logits / temperature)
    if top_k:
        top = sorted(range(len(values)), key=lambda i: -values[i])[:top_k]
        expected = np.array([p if i in top else 0 for i, p in enumerate(expected)])
        expected /= expected.sum()
    cumulative, nucleus = 0.0, []
    for i in sorted(range(len(values)), key=lambda i: -expected[i]):
        if abs(cumulative - top_p) < 1e-5:
            return  # a tie that rounding decides
        if cumulative < top_p:
            nucleus.append(i)
        cumulative += expected[i]
    expected = np.array([p if i in nucleus else 0 for i, p in enumerate(expected)])
    expected /= expected.sum()
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    shares = shares_of(torch.tensor(values), config)
    np.testing.assert_allclose(shares, expected, atol=1e-3)
    assert not shares[expected == 0].any()


def test_tokens_of_probability_0_are_never_sampled_even_at_the_ends_of_the_interval() -> None:
    logits = torch.tensor([[-torch.inf, 0.3, -torch.inf, 0.1, -30.0, -torch.inf]])
    for uniform in (0.0, 0.5, 1 - 2**-24):  # the largest value of torch.rand
        for config in (PLAIN, replace(PLAIN, top_p=0.999), replace(PLAIN, top_k=5)):
            sampled = sample_categorical(logits.clone(), config, torch.tensor([[uniform]]))
            assert int(sampled) in (1, 3, 4)


def test_trailing_tokens_of_probability_0_are_never_sampled_whatever_the_total() -> None:
    """Cumulative sums in float32 end a little below or above 1."""
    logits = torch.randn(2000, 37, generator=seeded())
    logits[:, 20:] = -torch.inf
    largest = torch.full((2000, 1), 1 - 2**-24)
    assert int(sample_categorical(logits, PLAIN, largest).max()) <= 19


def test_each_token_has_a_half_open_interval_of_the_cdf() -> None:
    uniform = torch.arange(8)[:, None] / 8
    sampled = sample_categorical(torch.zeros(8, 4), PLAIN, uniform)
    assert sampled.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_temperature_0_and_top_k_1_take_the_argmax() -> None:
    logits, uniform = torch.randn(50, 7, generator=seeded()), torch.rand(50, 1, generator=seeded())
    greedy = sample_categorical(logits, SamplingConfig(temperature=0), uniform)
    assert torch.equal(greedy, logits.argmax(dim=1))
    top_1 = sample_categorical(logits.clone(), replace(PLAIN, top_k=1), torch.rand(50, 1))
    assert torch.equal(top_1, greedy)


@for_both_priors
def test_a_tiny_prior_memorizes_two_clips_and_samples_them_by_label(kind: Kind) -> None:
    torch.manual_seed(0)
    vocabulary = Vocabulary(4, 1, rows=2, num_levels=2, max_columns=4)
    model = kind(PriorConfig(dim=32, layers=2, heads=2, dropout=0.0), vocabulary, (2,))
    codes = random_codes(vocabulary, 2, 4, seed=3)
    columns, levels = torch.tensor([4, 2]), torch.tensor([1, 0])
    tokens, lengths = vocabulary.tokens(codes, columns, levels)
    labels = torch.tensor([[0], [1]])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(tokens, lengths, labels)[0].backward()
        optimizer.step()
    model.eval()
    assert model.loss(tokens, lengths, labels)[0].item() < 0.02
    sampled = sample(
        model, torch.tensor([[1], [0], [0]]), SamplingConfig(temperature=0.5, guidance=0), seeded()
    )
    back, back_columns, back_levels = vocabulary.codes(sampled)
    assert back_columns.tolist() == [2, 4, 4]
    assert back_levels.tolist() == [0, 1, 1]
    assert torch.equal(back[0, ..., :2], codes[1, ..., :2])
    assert torch.equal(back[1], codes[0])
    assert torch.equal(back[2], codes[0])


@for_both_priors
def test_levels_that_do_not_count_are_given_but_not_learnt(kind: Kind) -> None:
    tokens, lengths, labels = some_tokens()
    model = prior(kind)
    counted = torch.tensor([True, False, True])
    mean, codes, levels = model.loss(tokens, lengths, labels, counted)
    of_all = model.loss(tokens, lengths, labels)
    nats = torch.stack([model.loss(*part)[2] for part in _each(tokens, lengths, labels)])
    torch.testing.assert_close(levels, nats[counted].sum())
    torch.testing.assert_close(codes, of_all[1])
    torch.testing.assert_close(mean, of_all[0] - nats[1] / lengths.sum())


def _each(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Each row of a batch as a batch."""
    return list(zip(*(tensor.split(1) for tensor in tensors), strict=True))
