"""Context tables fitted to real codes: better than a uniform guess, and at the requested rate."""

import dataclasses
import functools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fast_training import CONFIG
from torch import Tensor

from audiovq.audio.reading import read
from audiovq.codec import archive, codec
from audiovq.codec.tokenize import encode_split
from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import load
from audiovq.models.entropy.context_model import ContextModel
from audiovq.models.entropy.context_tables import ContextTables, code_bits, to_integers
from audiovq.models.model import Model, new_model
from audiovq.training.run import train
from audiovq.training.stage import Limits, Run
from audiovq.training.stages import context
from audiovq.training.stages.context import fit_context as fit_context_fully

fit_context = functools.partial(fit_context_fully, most_steps=40, most_views=2, checks=2)


@pytest.fixture(autouse=True)
def all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as users get; other tests have fewer."""
    monkeypatch.setattr(context, "PASSES", 30)


@pytest.fixture(scope="module")
def folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitting") / "model"
    config = dataclasses.replace(CONFIG, autoencoder_share=1.0)
    train(dataset, folder, config, device="cpu", say=lambda _: None)
    return folder


@pytest.fixture
def model(folder: Path) -> Model:
    return load(folder)


def test_a_share_of_1_for_the_autoencoder_trains_context_tables_and_no_prior(model: Model) -> None:
    assert model.prior is None
    assert model.context is not None


def test_neighbours_reduce_the_bits_per_code(model: Model, dataset: Dataset) -> None:
    fitted = fit_context(model, dataset.train, dataset.validation)
    assert fitted.bits_per_code < 0.9 * math.log2(model.vocabulary.codebook_size)


def test_the_same_seed_fits_the_same_tables(model: Model, dataset: Dataset) -> None:
    first, second = (fit_context(model, dataset.train, dataset.validation) for _ in range(2))
    for name, value in first.tables.integers.items():
        assert torch.equal(value, second.tables.integers[name]), name


def test_an_archive_takes_the_bits_that_the_tables_predict(
    model: Model, dataset: Dataset, recordings: Path
) -> None:
    model.context = fit_context(model, dataset.train, dataset.validation).tables
    waveforms = [read(path, model.sample_rate)[0] for path in sorted(recordings.rglob("*.wav"))]
    sounds = dict(zip(map(str, range(24)), codec.encode(model, waveforms), strict=True))
    bits = sum(
        code_bits(model.context, s.codes[None], torch.tensor([s.codes.shape[2]]))
        for s in sounds.values()
    )
    stored = 8 * archive.size_without_names(archive.pack(model, sounds))
    side_bits = 24 * (6 + 5 + 8)  # at most: level, columns, samples of the last column
    assert bits < stored < bits + side_bits + 8 * 29 + 32


def test_a_lower_target_rate_raises_the_rate_weight(model: Model, dataset: Dataset) -> None:
    config = model.autoencoder.config
    unconstrained = 0.9 * model.codes_per_second * math.log2(config.bottleneck.num_codes)
    weights = []
    for target in (None, 10 * unconstrained, 0.9 * unconstrained, 0.7 * unconstrained):
        model.autoencoder.config = dataclasses.replace(config, target_rate=target)
        weights.append(fit_context(model, dataset.train, dataset.validation).tables.rate_weight)
    assert weights[0] == weights[1] == pytest.approx(context.RATE_WEIGHT)
    assert weights[1] <= weights[2] <= weights[3] > weights[1], weights


@pytest.mark.parametrize(
    ("rate", "hop_length", "channels", "given", "expected"),
    [
        (8_000, 64, 1, None, context.RATE_WEIGHT),  # the default hop of speech
        (8_000, 32, 1, None, context.RATE_WEIGHT),
        (44_100, 512, 1, None, context.RATE_WEIGHT),
        (44_100, 256, 1, None, context.HITS_RATE_WEIGHT),
        (44_100, 256, 2, None, context.STEREO_HITS_RATE_WEIGHT),
        (44_100, 512, 2, None, context.RATE_WEIGHT),
        (44_100, 256, 2, 0.5, 0.5),
        (44_100, 256, 1, 0.5, 0.5),
        (44_100, 256, 1, 0.0, 0.0),
    ],
)
def test_hits_weigh_bits_more_and_stereo_hits_less_unless_a_weight_is_given(
    rate: int, hop_length: int, channels: int, given: float | None, expected: float
) -> None:
    spectrogram = SpectrogramConfig.for_rate(rate, hop_length=hop_length)
    spectrogram = dataclasses.replace(spectrogram, channels=channels)
    config = AutoencoderConfig(rate_weight=given)
    assert context.rate_weight_of(config, spectrogram) == pytest.approx(expected)


def test_the_target_rate_is_met(model: Model, dataset: Dataset, recordings: Path) -> None:
    names = [clip.path for clip in dataset.validation.clips]
    waveforms = [read(recordings / name, model.sample_rate)[0] for name in names]
    seconds = sum(map(len, waveforms)) / model.sample_rate
    model.autoencoder.config = dataclasses.replace(model.autoencoder.config, target_rate=900.0)
    model.context = fit_context(model, dataset.train, dataset.validation).tables
    sounds = dict(zip(names, codec.encode(model, waveforms), strict=True))
    # The header is a large share of so short an archive.
    stored = 8 * (archive.size_without_names(archive.pack(model, sounds)) - 29)
    assert 0.7 * 900 < stored / seconds < 1.05 * 900


def test_a_slow_machine_fits_the_tables_of_a_fast_one_unless_the_deadline_stops_it(
    model: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit in minutes is turned into steps; the clock only guards them."""
    splits = dataset.train, dataset.validation
    fast = fit_context(model, *splits, max_minutes=0.1, max_seconds=3600)
    assert fast.steps == fast.steps_planned == 20
    assert not fast.cut_short
    now = [0.0]

    def slow_clock() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(context.time, "perf_counter", slow_clock)
    slow = fit_context(model, *splits, max_minutes=0.1, max_seconds=3600)
    assert not slow.cut_short
    for name, value in fast.tables.integers.items():
        assert torch.equal(value, slow.tables.integers[name]), name
    cut = fit_context(model, *splits, max_minutes=0.1, max_seconds=12)
    assert cut.cut_short
    assert cut.steps < cut.steps_planned == 20


def test_steps_of_many_quantizers_which_take_longer_are_fewer_within_a_time_limit(
    dataset: Dataset,
) -> None:
    steps = {}
    for quantizers in (1, 2, 4, 8):
        bottleneck = dataclasses.replace(CONFIG.autoencoder.bottleneck, num_quantizers=quantizers)
        config = dataclasses.replace(CONFIG.autoencoder, bottleneck=bottleneck)
        model = new_model(dataset.spectrogram, config, dataset.labels, [], dataset.clip_frames)
        fitted = fit_context(model, dataset.train, dataset.validation, max_minutes=0.1)
        steps[quantizers] = fitted.steps_planned
    assert steps == {1: 20, 2: 20, 4: 10, 8: 5}


def test_tables_that_learnt_nothing_make_archives_no_larger_than_without_and_are_named(
    folder: Path, dataset: Dataset, recordings: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """As after a step of a fitting that ran out of time."""
    monkeypatch.setattr(context, "LEARNING_RATE", 100.0)
    shutil.copytree(folder, tmp_path / "model")
    lines: list[str] = []
    cpu = torch.device("cpu")
    limits = Limits(context_steps=context.CHECKS)
    run = Run(dataset, tmp_path / "model", CONFIG, cpu, lines.append, limits)
    context.train_context(run, load(folder), None)
    assert "learnt no more than how often each code occurs" in lines[-1]
    model = load(tmp_path / "model")
    paths = [recordings / clip.path for clip in dataset.validation.clips]
    waveforms = [read(path, model.sample_rate)[0] for path in paths]
    encoded = codec.encode(model, waveforms, rate_weight=0)
    sounds = dict(zip(map(str, paths), encoded, strict=True))
    with_tables, without = (len(archive.pack(model, sounds, c)) for c in ("context", "plain"))
    assert with_tables < without


def cells_of(targets: Tensor) -> context._Cells:
    """Cells with these codes (cells, quantizers), of clips of one cell."""
    none = torch.zeros(len(targets), 8, dtype=torch.int16)
    return context._Cells(none, targets, none[:, 0], none[:, 0], none[:, 0])


@pytest.mark.parametrize(
    ("held_out", "expected"),
    [
        ([0, 0, 0, 1], [4 / 8, 2 / 8, 1 / 8, 1 / 8]),  # one more of each than in training
        ([3, 3, 3, 2], [1 / 4, 1 / 4, 1 / 4, 1 / 4]),  # which codes in training say nothing about
    ],
)
def test_shares_of_codes_are_those_of_training_unless_no_tables_are_better(
    held_out: list[int], expected: list[float]
) -> None:
    network = ContextModel(torch.randn(1, 4, 3), rows=1)
    train, measured = (cells_of(torch.tensor([x]).T) for x in ([0, 0, 0, 1], held_out))
    state, bits = context._by_shares(network, train, measured)
    assert bits == pytest.approx(-sum(math.log2(expected[x]) for x in held_out) / 4)
    network.load_state_dict(state)
    counts = torch.ones(2, dtype=torch.int32)
    tables = ContextTables(to_integers(network, counts, counts, 1.0, 0.1))
    found = torch.from_numpy(tables.counts(torch.randint(5, (3, 6)).numpy(), 0, 0)).double()
    for row in found:
        assert (row / row.sum()).tolist() == pytest.approx(expected, rel=0.02)
    assert context._bits(network, measured) == pytest.approx(bits, rel=1e-4)


def test_encoding_leaves_fitting_half_of_the_time_limit(
    model: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a clip takes a second to encode, and so does a step of fitting."""
    now = [0.0]
    real_update = context.update_function

    def encode(model: Model, split: Any, *args: Any, chosen: Tensor, **kwargs: Any) -> Any:
        now[0] += len(chosen)
        return encode_split(model, split, *args, chosen=chosen, **kwargs)

    def updating(*args: Any) -> Callable[..., Any]:
        update = real_update(*args)

        def slowly(*inputs: Tensor) -> Any:
            now[0] += 1.0
            return update(*inputs)

        return slowly

    train, held_out = dataset.train, dataset.validation
    monkeypatch.setattr(context, "PASSES", 3000)  # few cells have as many steps
    free = fit_context(model, train, held_out, most_views=1)
    monkeypatch.setattr(context, "TIMED_CLIPS", 2)
    monkeypatch.setattr(context, "encode_split", encode)
    monkeypatch.setattr(context, "update_function", updating)
    monkeypatch.setattr(context.time, "perf_counter", lambda: now[0])
    for limit in (6.0, 20.0, 1000.0):
        now[0] = 0.0
        fitted = fit_context(model, train, held_out, most_views=1, max_seconds=limit)
        integers = fitted.tables.integers
        clips = int(integers["levels"].sum()) - model.vocabulary.num_levels
        assert min(40, limit / 2) <= fitted.steps <= fitted.steps_planned == 40
        if limit == 1000:
            assert not fitted.cut_short
            for name, value in free.tables.integers.items():
                assert torch.equal(value, integers[name]), name
        else:
            assert fitted.cut_short
            assert 2 <= clips <= limit / 2 < len(train)


def test_chosen_clips_have_the_codes_that_they_have_among_all(
    model: Model, dataset: Dataset
) -> None:
    chosen = torch.arange(0, len(dataset.train), 3)
    all_clips, some = (encode_split(model, dataset.train, chosen=x) for x in (None, chosen))
    for name, values in some._asdict().items():
        assert torch.equal(values, getattr(all_clips, name)[chosen]), name
