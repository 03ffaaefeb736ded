"""The laws of `audiovq.generation`: seeds, labels, shares, lengths, and what is refused."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import COUNTS, LABELS, tiny_model
from torch import Tensor

from audiovq.codec import codec
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import STEPS, STEPS_OF_PART, Inversion, SamplingConfig
from audiovq.generation import codes as codes_module
from audiovq.generation import generate as generation_generate
from audiovq.generation.files import generate_files
from audiovq.generation.generate import (
    FIRST_BATCH,
    batch_size,
    batch_sizes,
    generate,
    sample_codes,
)
from audiovq.generation.labels import sample_labels
from audiovq.generation.sound import Sound, prior_or_none, settled
from audiovq.models.checkpoint import load
from audiovq.models.model import Model
from audiovq.models.priors.base import Prior
from audiovq.models.priors.sampling import sample
from audiovq.spectral.scale import num_frames

PLAIN = SamplingConfig(temperature=1.0, guidance=0.0)
FAST: dict[str, Any] = {"inversion": Inversion("griffin-lim", 0)}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def make(model: Model, n: int, labels: dict[str, str] | None = None, **options: Any) -> list[Sound]:
    quick: dict[str, Any] = {"sampling": PLAIN, "inversion": Inversion("griffin-lim", 1)}
    return generate(model, n, labels, **(quick | options))


def same(a: list[Sound], b: list[Sound]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x.waveform, y.waveform) and x.labels == y.labels
        for x, y in zip(a, b, strict=True)
    )


def test_equal_seeds_give_equal_sounds_and_others_differ(model: Model) -> None:
    first = make(model, 5, seed=7)
    torch.rand(3)
    np.random.default_rng().random()
    assert same(make(model, 5, seed=7), first)
    other = make(model, 5, seed=8)
    assert not any(
        np.array_equal(a.waveform, b.waveform) for a, b in zip(first, other, strict=True)
    )


@given(st.integers(1, 500), st.sampled_from([0, 40_000, 1 << 24]))
def test_batches_grow_from_a_small_one_up_to_what_fits(n: int, num_samples: int) -> None:
    model = tiny_model()
    sizes = batch_sizes(model, n, num_samples)
    most = batch_size(model, num_samples)
    assert sum(sizes) == n
    assert sizes[0] <= FIRST_BATCH
    assert all(size <= most for size in sizes)
    assert all(b in (min(most, 2 * a), sizes[-1]) for a, b in itertools.pairwise(sizes))


def test_the_first_sounds_are_written_before_the_last_are_made(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    make_batch = generation_generate.Batches.make

    def spy(batches: Any, number: int) -> list[Sound]:
        written.append(len(list(tmp_path.glob("out/*.wav"))))
        return make_batch(batches, number)

    monkeypatch.setattr(generation_generate.Batches, "make", spy)
    generate_files(model, tmp_path / "out", 13, sampling=PLAIN, say=lambda _: None, **FAST)
    assert written == [0, 4, 12]


def test_batches_are_in_order_and_differ(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation_generate, "MAX_BATCH", 3)
    added: list[int] = []
    sounds = make(model, 8, seed=1, progress=added.append)
    assert added == [3, 3, 2]
    assert len(sounds) == 8
    assert same(make(model, 8, seed=1), sounds)
    unlabelled = tiny_model(labels={})
    codes = [
        tuple(sound.encoded.codes.flatten().tolist())
        for seed in (1, 2)
        for sound in make(unlabelled, 6, seed=seed)
    ]
    assert len(set(codes)) == 12, "no batch and no seed repeats another"


def test_a_sound_equals_its_decoded_codes(model: Model) -> None:
    sounds = make(model, 6, inversion=Inversion("pghi", None))
    assert len({len(sound.waveform) for sound in sounds}) > 1, "the test needs several lengths"
    for sound in sounds:
        (alone,) = codec.decode(model, [sound.encoded])
        kept = len(alone) // 2  # later samples may be faded out
        atol = 1e-2 * float(np.abs(alone).max())
        np.testing.assert_allclose(sound.waveform[:kept], alone[:kept], atol=atol)
        columns = sound.encoded.codes.shape[2]
        assert 1 <= columns <= model.vocabulary.max_columns
        assert len(sound.waveform) == sound.encoded.num_samples
        frames = num_frames(len(sound.waveform), 8)
        assert 4 * (columns - 1) < frames <= min(4 * columns, model.clip_frames)
        assert 0 <= sound.encoded.level < model.spectrogram.config.num_levels
        assert bool(((sound.encoded.codes >= 0) & (sound.encoded.codes < 16)).all())


def test_sounds_carry_the_labels_that_the_prior_was_given(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_rows: list[list[int]] = []
    plain = codes_module.sample

    def spy(prior: Any, labels: torch.Tensor, *rest: Any) -> torch.Tensor:
        given_rows.extend(labels.tolist())
        return plain(prior, labels, *rest)

    monkeypatch.setattr(codes_module, "sample", spy)
    monkeypatch.setattr(generation_generate, "MAX_BATCH", 4)
    sounds = make(model, 10)
    for sound, (digit, speaker) in zip(sounds, given_rows, strict=True):
        expected = {"digit": LABELS["digit"][digit], "speaker": LABELS["speaker"][speaker]}
        assert sound.labels == expected
        assert len(sound.waveform) == sound.encoded.num_samples


def test_sounds_resemble_clips_with_the_label_given() -> None:
    """By the shipped model: the real recordings that sounds are nearest to, by their codes, are of the
    digit that was asked for."""
    shipped = load("digits")
    known = shipped.known
    assert known is not None
    right = []
    for digit in ("1", "6", "8"):
        sounds = generate(shipped, 6, {"digit": digit}, seed=2, keep_copies=True, **FAST)
        assert all(sound.labels["digit"] == digit for sound in sounds)
        nearest = [sound.nearest for sound in sounds]
        right += [one is not None and one.path.startswith(f"{digit}_") for one in nearest]
    assert np.mean(right) > 0.7, "one in ten by chance"


def test_labels_change_the_sampled_codes(model: Model) -> None:
    one, other = (make(model, 4, {"digit": "0", "speaker": s}) for s in ("ada", "bob"))
    assert not any(np.array_equal(a.waveform, b.waveform) for a, b in zip(one, other, strict=True))


@given(
    n=st.integers(1, 60),
    seed=st.integers(0, 1000),
    asked=st.sampled_from([{}, {"digit": "0"}, {"digit": "1"}, {"speaker": "ada"}]),
)
def test_labels_not_given_have_the_distribution_of_the_training_clips(
    n: int, seed: int, asked: dict[str, str]
) -> None:
    model = tiny_model()
    drawn = Counter(map(tuple, sample_labels(model, n, asked, seed).tolist()))
    fitting = {
        places: count
        for places, count in COUNTS
        if all(LABELS[name][places[list(LABELS).index(name)]] == v for name, v in asked.items())
    }
    assert sum(drawn.values()) == n
    assert drawn.keys() <= fitting.keys()
    for places, count in fitting.items():  # evenly spaced: no share is off by a whole sound
        assert abs(drawn[places] - n * count / sum(fitting.values())) < 1 + 1e-6


def test_sampled_labels_are_shuffled() -> None:
    model = tiny_model()
    rows = sample_labels(model, 200, {}, 0)
    assert rows.shape == (200, 2)
    assert rows.tolist() != sorted(rows.tolist())
    changes = int((rows[1:] != rows[:-1]).any(dim=1).sum())
    assert changes > 60, "shuffled, not in blocks"
    assert torch.equal(sample_labels(model, 200, {}, 0), rows)
    assert not torch.equal(sample_labels(model, 200, {}, 1), rows)


def test_a_combination_absent_from_training_leaves_other_labels_open() -> None:
    model = tiny_model(
        labels={"digit": ["0", "1"], "speaker": ["ada", "bob", "cyd"], "mood": ["x"]}
    )
    model.label_counts = [((0, 0, 0), 5), ((1, 1, 0), 5)]
    rows = sample_labels(model, 3, {"digit": "0", "speaker": "bob"}, 0)
    assert rows.tolist() == [[0, 1, 1]] * 3
    (sound,) = make(model, 1, {"digit": "0", "speaker": "bob"})
    assert sound.labels == {"digit": "0", "speaker": "bob"}


def test_a_model_without_labels_generates() -> None:
    model = tiny_model(labels={})
    assert sample_labels(model, 4, {}, 0).shape == (4, 0)
    sounds = make(model, 4, sampling=SamplingConfig(guidance=2.0))
    assert [sound.labels for sound in sounds] == [{}] * 4
    with pytest.raises(AudiovqError, match=r"unknown label 'digit'; .* without labels"):
        make(model, 1, {"digit": "0"})


def refused(model: Model, labels: dict[str, str]) -> str:
    with pytest.raises(AudiovqError) as caught:
        generate(model, 1, labels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_labels_and_values_are_refused_and_the_closest_suggested() -> None:
    model = tiny_model(labels={"digit": [str(i) for i in range(30)], "speaker": ["ada", "bob"]})
    model.label_counts = [((i, i % 2), 1) for i in range(30)]
    message = refused(model, {"speakr": "ada"})
    assert "'speakr'" in message
    assert message.index("speaker") < message.index("digit")
    message = refused(model, {"speaker": "bobb"})
    assert "'bobb'" in message
    assert message.index("bob,") < message.index("ada")
    message = refused(model, {"digit": "290"})
    listed = message.split("known values: ")[1].split(", ")
    assert listed[:3] == ["29", "20", "9"]
    assert listed[3:5] == ["0", "1"]
    assert "and 18 more" in message
    assert "'1 '" in refused(model, {"digit": "1 "})


def test_without_a_prior_generation_is_refused_with_the_reason() -> None:
    model = tiny_model()
    model.prior = None
    with pytest.raises(AudiovqError, match="no prior"):
        generate(model, 1)


@pytest.mark.parametrize("n", [0, -3])
def test_fewer_than_one_sound_is_refused(model: Model, n: int) -> None:
    with pytest.raises(AudiovqError, match=str(n)):
        generate(model, n)


def log_likelihoods(prior: Prior, tokens: Tensor, lengths: Tensor, labels: Tensor) -> list[float]:
    """As `Prior.log_likelihood`, a step of the cached sampler at a time."""
    sums = [0.0] * len(tokens)
    with torch.no_grad():
        condition, caches = prior.condition(labels), prior.new_caches(*tokens.shape)
        for place in range(tokens.shape[1]):
            logits = prior.step(tokens, place, condition, caches).double().log_softmax(dim=1)
            for i, length in enumerate(lengths.tolist()):
                sums[i] += float(logits[i, tokens[i, place]]) if place < length else 0
    return sums


def test_the_likelihood_equals_the_sum_over_sampling_steps(model: Model) -> None:
    prior, vocabulary = model.prior, model.vocabulary
    assert prior is not None
    columns = torch.tensor([2, 5, vocabulary.max_columns])
    shape = (3, 1, vocabulary.rows, vocabulary.max_columns)
    codes = torch.randint(16, shape, generator=torch.Generator().manual_seed(0))
    tokens, lengths = vocabulary.tokens(codes, columns, torch.tensor([0, 3, 60]))
    labels = torch.tensor([[0, 0], [1, 2], [2, 3]])
    with torch.no_grad():
        likelihoods = prior.log_likelihood(tokens, lengths, labels)
    expected = log_likelihoods(prior, tokens, lengths, labels)
    assert likelihoods.tolist() == pytest.approx(expected, rel=1e-4)


def test_best_of_one_equals_plain_sampling(model: Model) -> None:
    assert model.prior is not None
    labels = sample_labels(model, 5, {}, 0)
    drawn = sample(model.prior, labels, PLAIN, torch.Generator().manual_seed(3))
    codes, columns, levels = model.vocabulary.codes(drawn)
    encoded = sample_codes(
        model, model.prior, labels, PLAIN, torch.Generator().manual_seed(3), best_of=1
    )
    for sound, grid, width, level in zip(encoded, codes, columns, levels, strict=True):
        assert torch.equal(sound.codes, grid[:, :, : int(width)])
        assert sound.level == level


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_best_of_several_has_the_highest_mean_log_likelihood_per_token(
    monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    model = tiny_model(clip_frames=12)  # few tokens, so each counts
    prior, vocabulary = model.prior, model.vocabulary
    assert prior is not None
    with torch.no_grad():
        prior.head.bias[vocabulary.end] -= 1  # END is dear, so it shows whether it counts
    batches: list[Tensor] = []

    def spy(*arguments: Any) -> Tensor:
        batches.append(sample(*arguments))
        return batches[-1]

    monkeypatch.setattr(codes_module, "sample", spy)
    labels = torch.cartesian_prod(torch.arange(2), torch.arange(3)).repeat(10, 1)
    sampling = SamplingConfig(temperature=4.0, guidance=guidance)
    chosen = sample_codes(
        model, prior, labels, sampling, torch.Generator(), best_of=6, candidate_batch=150
    )
    assert [len(batch) for batch in batches] == [150, 150, 60]
    clips = [clip for batch in batches for clip in batch]
    tokens = torch.full((len(clips), vocabulary.max_tokens), vocabulary.end)
    for row, clip in zip(tokens, clips, strict=True):
        row[: len(clip)] = clip
    codes, columns, levels = vocabulary.codes(tokens)
    assert len(columns.unique()) > 1, "the test needs several lengths"
    assert int(columns.max()) == vocabulary.max_columns, "and one without END"
    lengths = 1 + vocabulary.slots * columns + (columns < vocabulary.max_columns)
    likelihoods = log_likelihoods(prior, tokens, lengths, labels.repeat(6, 1))
    a_token = np.array(likelihoods) / lengths.numpy()
    for i, sound in enumerate(chosen):
        best = i + 60 * int(a_token[i::60].argmax())
        assert torch.equal(sound.codes, codes[best, :, :, : int(columns[best])])
        assert sound.level == levels[best]


def test_best_of_several_depends_on_labels_and_seed(model: Model) -> None:
    sounds = make(model, 3, {"speaker": "bob"}, best_of=3, seed=4)
    assert [sound.labels["speaker"] for sound in sounds] == ["bob"] * 3
    assert same(make(model, 3, {"speaker": "bob"}, best_of=3, seed=4), sounds)
    assert not same(make(model, 3, {"speaker": "bob"}, best_of=1, seed=4), sounds)


def test_best_of_zero_is_refused(model: Model) -> None:
    with pytest.raises(AudiovqError, match="best_of 0"):
        generate(model, 1, best_of=0)


def test_best_of_is_refused_where_the_length_is_given(model: Model) -> None:
    with pytest.raises(AudiovqError, match=r"--best-of: .*leave out --length"):
        generate(model, 1, best_of=2, seconds=0.1)


def test_no_sound_is_longer_than_the_longest_training_clip() -> None:
    model = tiny_model(clip_frames=6)  # two columns, of which the second is half used
    assert model.prior is not None
    with torch.no_grad():
        model.prior.head.bias[model.vocabulary.end] = -1e4
    encoded = sample_codes(
        model, model.prior, torch.zeros(3, 2, dtype=torch.long), PLAIN, torch.Generator()
    )
    assert [(e.codes.shape[2], e.num_samples) for e in encoded] == [(2, 6 * 8 - 1)] * 3


def test_new_sounds_above_24_khz_are_sampled_by_the_masked_prior_and_speech_in_time_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both, config = tiny_model(masked=True), tiny_model().spectrogram.config
    assert prior_or_none(both, SamplingConfig()) is both.prior
    wide = dataclasses.replace(config, sample_rate=44_100)
    monkeypatch.setattr(both.spectrogram, "config", wide)
    assert prior_or_none(both, SamplingConfig()) is both.masked
    assert prior_or_none(both, SamplingConfig(order="time")) is both.prior
    monkeypatch.setattr(both, "masked", None)
    assert prior_or_none(both, SamplingConfig()) is both.prior


def test_guidance_and_sweeps_follow_the_rate_and_the_masked_prior_unless_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(masked=True)
    assert model.masked is not None
    model.masked.sweeps = 3
    given = SamplingConfig(temperature=0.3, guidance=0.0, top_k=5, steps=4, sweeps=2)
    for rate, guidance in ((8_000, 1.0), (24_000, 1.0), (24_001, 0.5), (44_100, 0.5)):
        config = dataclasses.replace(model.spectrogram.config, sample_rate=rate)
        monkeypatch.setattr(model.spectrogram, "config", config)
        found = settled(model, SamplingConfig(order="masked"))
        assert (found.guidance, found.sweeps, found.order) == (guidance, 3, "masked")
        assert dataclasses.asdict(settled(model, given)) == dataclasses.asdict(given)
        assert settled(model, found) == found
    assert settled(model, SamplingConfig(temperature=0.0)).sweeps == 0
    assert settled(model, SamplingConfig(temperature=0.0, sweeps=1)).sweeps == 1
    monkeypatch.setattr(model, "masked", None)
    assert settled(model, SamplingConfig()).sweeps == 0


def test_sounds_of_a_length_are_sampled_in_as_many_steps_as_others() -> None:
    both, length = tiny_model(masked=True), 0.02

    def made(steps: int | None) -> list[Tensor]:
        sampling = SamplingConfig(order="masked", steps=steps)
        return [s.encoded.codes for s in generate(both, 3, seconds=length, sampling=sampling)]

    default, as_whole, as_part = made(None), made(STEPS), made(STEPS_OF_PART)
    assert all(map(torch.equal, default, as_whole))
    assert not all(map(torch.equal, default, as_part))


def test_the_masked_prior_samples_whole_sounds_in_eight_steps_by_default() -> None:
    both = tiny_model(masked=True)
    default, eight, two = (
        make(both, 4, seed=3, sampling=SamplingConfig(order="masked", temperature=1.0, steps=n))
        for n in (None, STEPS, STEPS_OF_PART)
    )
    assert same(default, eight)
    assert not same(default, two)
