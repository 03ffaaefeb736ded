"""Editing: what is kept, lengths, seeds, loops, refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import LABELS, tiny_model, untrained

from audiovq.audio.waveform import Waveform
from audiovq.codec import codec
from audiovq.codec.windows import Encoded
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation import edit
from audiovq.generation.generate import generate
from audiovq.generation.labels import infer_labels
from audiovq.generation.long import splice
from audiovq.generation.morph import morph
from audiovq.generation.sound import Sound
from audiovq.models.model import Model

PLAIN = SamplingConfig(temperature=1.0, guidance=0.0, steps=3)
QUICK: dict[str, Any] = {"sampling": PLAIN, "inversion": Inversion("griffin-lim", 1)}
COLUMN = 4 * 8
"""Samples of a column of codes."""


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(masked=True)


@pytest.fixture
def clip(voice: Callable[..., Waveform]) -> Waveform:
    """0.025 s: 7 columns of 2 rows."""
    return voice(0.025)[: 6 * COLUMN + 7]


def same(a: list[Sound], b: list[Sound]) -> bool:
    return all(np.array_equal(x.waveform, y.waveform) for x, y in zip(a, b, strict=True))


def test_variations_resample_a_share_of_codes_given_by_strength(
    model: Model, clip: Waveform
) -> None:
    given = edit.encode_nearest(model, clip)
    shares = []
    for strength in (0.0, 0.5, 1.0):
        sounds = edit.vary(model, clip, 40, strength, **QUICK)
        kept = [(s.encoded.codes == given.codes).float().mean() for s in sounds]
        shares.append(float(torch.stack(kept).mean()))
        assert all(len(s.waveform) == len(clip) for s in sounds)
        assert all(s.encoded.level == given.level for s in sounds)
    assert shares[0] == 1
    assert 0.4 < shares[1] < 0.7
    assert shares[2] < 0.3
    (whole,) = edit.vary(model, clip, 1, 0.0, **QUICK)
    coded = codec.decode(model, [given], inversion=Inversion("griffin-lim", 1))[0]
    assert np.array_equal(whole.waveform, coded)


@pytest.mark.parametrize(
    ("time", "band", "rows", "columns"),
    [
        ((2.5 * COLUMN / 8000, 4 * COLUMN / 8000), None, [0, 1], [2, 3]),
        ((-1.0, 0.1 * COLUMN / 8000), None, [0, 1], [0]),
        ((-1e308, 1e16), None, [0, 1], [0, 1, 2, 3, 4, 5, 6]),
        (None, (0.0, 1000.0), [0], [0, 1, 2, 3, 4, 5, 6]),
        (None, (2000.0, 4000.0), [1], [0, 1, 2, 3, 4, 5, 6]),
        ((5.0 * COLUMN / 8000, 99.0), (2000.0, 2000.0), [1], [5, 6]),
    ],
)
def test_repaint_changes_the_region_only(
    model: Model, clip: Waveform, time: Any, band: Any, rows: list[int], columns: list[int]
) -> None:
    given = edit.encode_nearest(model, clip)
    mask = edit.region_mask(model, given, time, band)
    assert mask.any(dim=1).nonzero()[:, 0].tolist() == rows
    assert mask.any(dim=0).nonzero()[:, 0].tolist() == columns
    assert int(mask.sum()) == len(rows) * len(columns)
    for order in ("masked", "time"):
        drawn = QUICK | {"sampling": SamplingConfig(order=order, steps=3)}
        sounds = edit.repaint(model, clip, time, band, n=6, **drawn)
        changed = torch.stack([s.encoded.codes[0] != given.codes[0] for s in sounds]).any(dim=0)
        assert not bool(changed[~mask].any()), "the rest is kept"
        assert bool(changed[mask].any())


@pytest.mark.parametrize("order", ["time", "masked"])
@pytest.mark.parametrize("samples", [7 * COLUMN, 700, 2000])
def test_a_continuation_begins_with_the_recording_and_has_the_length_given(
    model: Model, clip: Waveform, order: Any, samples: int
) -> None:
    given = edit.encode_nearest(model, clip)
    kept = (len(clip) - 16) // COLUMN
    drawn = QUICK | {"sampling": SamplingConfig(order=order, steps=3)}
    sounds = edit.extend(model, clip, samples / 8000, n=3, **drawn)
    for sound in sounds:
        assert len(sound.waveform) == samples
        assert torch.equal(sound.encoded.codes[..., :kept], given.codes[..., :kept])
    assert not torch.equal(sounds[0].encoded.codes, sounds[1].encoded.codes)


def test_without_a_length_the_prior_ends_a_continuation(
    model: Model, voice: Callable[..., Waveform]
) -> None:
    ends = set()
    for seconds in (0.01, 0.025, 0.1):
        clip = voice(seconds)
        given = edit.encode_nearest(model, clip)
        kept = (len(clip) - 16) // COLUMN
        sounds = edit.extend(model, clip, n=12, **QUICK)
        widths = {s.encoded.codes.shape[2] for s in sounds}
        assert min(widths) > kept
        ends |= {width - kept for width in widths}
        for sound in sounds:
            assert torch.equal(sound.encoded.codes[..., :kept], given.codes[..., :kept])
            assert len(sound.waveform) == sound.encoded.num_samples
    assert len(ends) > 2


def test_a_morph_has_even_steps_between_both_ends(
    model: Model, clip: Waveform, voice: Callable[..., Waveform]
) -> None:
    other = 0.1 * voice(0.015, 300.0)
    sounds = morph(model, clip, other, 5, inversion=Inversion("griffin-lim", 1))
    lengths = [len(sound.waveform) for sound in sounds]
    assert lengths == np.linspace(len(clip), len(other), 5).round().astype(int).tolist()
    levels = [sound.encoded.level for sound in sounds]
    assert levels == sorted(levels)
    assert levels[0] < levels[-1]
    for sound, end in ((sounds[0], clip), (sounds[-1], other)):
        assert torch.equal(sound.encoded.codes, edit.encode_nearest(model, end).codes)


def test_equal_seeds_give_equal_sounds_whatever_their_number(model: Model, clip: Waveform) -> None:
    length = 0.05
    ways: list[Callable[..., list[Sound]]] = [
        lambda **more: edit.vary(model, clip, 3, **more),
        lambda **more: edit.repaint(model, clip, (0.01, 0.02), n=3, **more),
        lambda **more: edit.extend(model, clip, length, n=3, **more),
        lambda **more: edit.extend(model, clip, n=3, **more),
    ]
    for way in ways:
        first = way(seed=1, **QUICK)
        assert same(way(seed=1, **QUICK), first)
        assert not same(way(seed=2, **QUICK), first)
    three, one = (edit.vary(model, clip, n, seed=1, **QUICK) for n in (3, 1))
    assert torch.equal(three[0].encoded.codes, one[0].encoded.codes)


def test_edits_follow_the_labels_given(model: Model, clip: Waveform) -> None:
    def made(labels: dict[str, str] | None) -> list[Sound]:
        return edit.vary(model, clip, 4, 1.0, labels, **QUICK)

    ada, bob, free = made({"speaker": "ada"}), made({"speaker": "bob"}), made(None)
    assert {s.labels["speaker"] for s in ada} == {"ada"}
    assert {len(s.labels) for s in free} == {0}
    pairs = zip(ada, bob, strict=True)
    assert sum(not torch.equal(a.encoded.codes, b.encoded.codes) for a, b in pairs) >= 1
    with pytest.raises(AudiovqError, match="unknown value 'eve'; known values:"):
        made({"speaker": "eve"})


@pytest.mark.parametrize("order", ["time", "masked"])
@pytest.mark.parametrize("loop", [False, True])
def test_new_sounds_have_the_length_given(model: Model, order: Any, loop: bool) -> None:
    drawn = QUICK | {"sampling": SamplingConfig(order=order, steps=3)}
    for samples in (COLUMN, 200, 1000):
        for sound in generate(model, 2, seconds=samples / 8000, loop=loop, **drawn):
            assert len(sound.waveform) == samples
            assert sound.labels.keys() == LABELS.keys()


def test_a_spliced_sine_is_a_shorter_sine_with_the_same_ends() -> None:
    """A period of it is left out, so there is nothing to hear."""
    sine = np.sin(np.arange(1100) * 2 * np.pi / 50).astype(np.float32)
    np.testing.assert_allclose(splice(sine, 1000, 64), sine[:1000], atol=1e-5)
    assert np.array_equal(splice(sine, 1100, 64), sine)


@given(st.integers(2, 60), st.integers(0, 40), st.integers(2, 20))
def test_a_splice_has_the_length_given_and_keeps_both_ends(kept: int, left: int, most: int) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, kept + left).astype(np.float32)
    spliced = splice(sound, kept, most)
    assert len(spliced) == kept
    assert spliced[0] == sound[0]
    assert spliced[-1] == pytest.approx(sound[-1])


@pytest.mark.parametrize("order", ["time", "masked"])
def test_a_loop_continues_without_a_seam(model: Model, order: Any) -> None:
    """Beyond the end goes the beginning as it goes on inside: steps are no larger there."""
    drawn: dict[str, Any] = {"sampling": SamplingConfig(order=order, steps=3), "loop": True}
    loops = generate(model, 6, seconds=0.1, **drawn) + generate(model, 6, **drawn)
    for sound in loops:
        assert len(sound.waveform) == sound.encoded.codes.shape[2] * COLUMN
        again = np.concatenate([sound.waveform[-40:], sound.waveform[:40]])
        second = np.abs(np.diff(sound.waveform, 2)).max()
        assert np.abs(np.diff(again, 2)).max() <= 1.5 * second


def test_a_loop_is_decoded_circularly(model: Model) -> None:
    """Turned codes give the turned sound, but for where it is faded over."""
    (sound,) = generate(model, 1, seconds=0.2, loop=True, sampling=PLAIN)
    turned = Encoded(
        sound.encoded.codes.roll(-25, dims=2), sound.encoded.level, sound.encoded.num_samples
    )
    images = []
    for encoded in (sound.encoded, turned):
        thrice = encoded.codes.repeat(1, 1, 3)[None]
        image = model.autoencoder.decode(thrice, torch.tensor([thrice.shape[3]]))
        images.append(image[..., 200:400])
    torch.testing.assert_close(images[0].roll(-100, dims=3), images[1])


def test_sampling_order_chooses_the_prior(model: Model) -> None:
    by_time, by_mask, free = (
        generate(
            model, 3, sampling=SamplingConfig(order=order), inversion=Inversion("griffin-lim", 1)
        )
        for order in ("time", "masked", "auto")
    )
    assert same(by_time, free)
    assert not same(by_time, by_mask)


def test_without_a_masked_prior_the_autoregressive_one_resamples(clip: Waveform) -> None:
    plain = tiny_model()
    given = edit.encode_nearest(plain, clip)
    (sound,) = edit.repaint(plain, clip, (0.01, 0.02), **QUICK)
    assert torch.equal(sound.encoded.codes[..., 5:], given.codes[..., 5:])
    with pytest.raises(AudiovqError, match="no masked prior; train one with --masked-share"):
        edit.repaint(plain, clip, (0.01, 0.02), sampling=SamplingConfig(order="masked"))
    plain.prior = None
    with pytest.raises(AudiovqError, match="no prior yet"):
        edit.repaint(plain, clip, (0.01, 0.02))


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (lambda m, w: edit.vary(m, w, strength=1.5), "strength 1.5: give a number from 0"),
        (lambda m, w: edit.vary(m, w, n=0), "n 0: give 1 to 1,000,000"),
        (lambda m, w: edit.repaint(m, w), "give a time, such as 0.2:0.5, or a band"),
        (
            lambda m, w: edit.repaint(m, w, time=(0.5, 0.2)),
            "time 0.5:0.2: give a start before an end",
        ),
        (lambda m, w: edit.repaint(m, w, time=(7.0, 8.0)), "within 0.0"),
        (lambda m, w: edit.repaint(m, w, time=(len(w) / m.sample_rate, 8.0)), "within 0.0"),
        (lambda m, w: edit.repaint(m, w, band=(9e3, 9.5e3)), "band 9000:9500: give a wider band"),
        (
            lambda m, w: edit.extend(m, w, 0.01),
            "length 0.01: the recording is already 0.02 s long; give more",
        ),
        (lambda m, w: edit.extend(m, w, float("nan")), "length nan: give seconds from"),
        (lambda m, w: morph(m, w, w, 1), "steps 1: give 2 to 1,000,000"),
        (lambda m, w: generate(m, 1, seconds=1e9), "give seconds from 0.001 to 3600"),
        (
            lambda m, w: edit.extend(m, w, sampling=SamplingConfig(order="masked")),
            "the masked prior cannot choose the length; give one with --length",
        ),
        (
            lambda m, w: morph(untrained(bottleneck="gaussian"), w, w),
            "no quantizer",
        ),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(
    model: Model, clip: Waveform, way: Callable[[Model, Waveform], Any], says: str
) -> None:
    with pytest.raises(AudiovqError) as caught:
        way(model, clip)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inferred_labels_are_those_under_which_the_sound_is_most_likely(
    model: Model, clip: Waveform
) -> None:
    given, prior = edit.encode_nearest(model, clip), model.prior
    assert prior is not None
    for columns in (3, 7):
        codes, opened = given.codes[None, :, :, :columns], [len(v) for v in model.labels.values()]
        tokens = model.vocabulary.tokens(
            codes, torch.tensor([columns]), torch.tensor([given.level])
        )[0][:, :-1]
        best = list(opened)
        for i, size in enumerate(opened):
            chances = []
            for value in range(size):
                rows = torch.tensor([[*best[:i], value, *best[i + 1 :]]])
                with torch.no_grad():
                    chances_of_all = prior(tokens, rows).log_softmax(dim=2)
                chances.append(float(chances_of_all.gather(2, tokens[:, :, None]).sum()))
            best[i] = int(np.argmax(chances))
        assert infer_labels(model, given, None, columns).tolist() == best
    name, values = next(iter(LABELS.items()))
    for number, value in enumerate(values):
        assert int(infer_labels(model, given, {name: value})[0]) == number


def test_values_that_no_training_clip_has_are_not_inferred(clip: Waveform) -> None:
    """Their embeddings are not trained, and edits refuse them."""
    for learnt in range(2):
        model = tiny_model(labels={"kind": ["kick", "snare"]})
        model.label_counts[:] = [((learnt,), 4)]
        assert infer_labels(model, edit.encode_nearest(model, clip)).tolist() == [learnt]
