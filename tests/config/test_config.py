"""The laws of `audiovq.config`: JSON both ways, and every bad setting refused by its name."""

import contextlib
import dataclasses
import json
import math
import subprocess
import sys
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiovq.config.autoencoder import (
    POWER_OF_HITS,
    AutoencoderConfig,
    BottleneckConfig,
    LossConfig,
    NetworkConfig,
)
from audiovq.config.checks import MOST_SEED
from audiovq.config.errors import AudiovqError
from audiovq.config.output import OutputConfig
from audiovq.config.presets import PRESETS
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.config.serialize import from_json, to_json
from audiovq.config.settings import MaskedConfig, OptimizerConfig, PriorConfig, TrainConfig
from audiovq.config.spectrogram import PreprocessConfig, SpectrogramConfig

CLASSES = [
    PreprocessConfig,
    SpectrogramConfig,
    NetworkConfig,
    BottleneckConfig,
    LossConfig,
    AutoencoderConfig,
    PriorConfig,
    OptimizerConfig,
    TrainConfig,
]
NEEDED: dict[str, Any] = {"sample_rate": 8000, "n_fft": 256, "hop_length": 64, "n_mels": 64}


def share(low: float = 0.01, high: float = 0.89) -> st.SearchStrategy[float]:
    return st.floats(low, high)


def whole(low: int = 1, high: int = 10_000) -> st.SearchStrategy[int]:
    return st.integers(low, high)


spectrograms = st.builds(
    lambda half, **rest: SpectrogramConfig(n_fft=2 * half, **rest),
    half=whole(64, 2048),
    sample_rate=whole(1000, 384_000),
    hop_length=whole(1, 64),
    n_mels=whole(0, 64),
    range_db=st.floats(20, 120),
)
preprocessings = st.builds(
    PreprocessConfig,
    sample_rate=st.none() | whole(1000, 384_000),
    clip_seconds=st.none() | st.floats(0.02, 600),
    n_fft=st.none() | whole(64, 2048).map(lambda half: 2 * half),
    hop_length=st.none() | whole(1, 64),
    n_mels=st.none() | whole(0, 256),
    range_db=st.floats(20, 120),
    trim=st.booleans(),
    trim_db=st.floats(1, 120),
    labels=st.none() | st.text(),
    test=st.none() | st.text(),
    validation_share=share(0),
)
networks = st.builds(
    lambda layers, **rest: NetworkConfig(
        filters=tuple(f for f, _, _ in layers),
        kernels=tuple(2 * k + 1 for _, k, _ in layers),
        strides=tuple(s for _, _, s in layers),
        **rest,
    ),
    layers=st.lists(st.tuples(whole(), whole(0, 4), whole(1, 4)), min_size=1, max_size=6),
    kind=st.sampled_from(["patch", "conv", "residual"]),
    channels=whole(),
    patch=st.tuples(whole(), whole()),
    output=st.sampled_from(["identity", "sigmoid"]),
)
bottlenecks = st.builds(
    BottleneckConfig,
    kind=st.sampled_from(["vq", "none", "fsq", "gaussian"]),
    codebook_size=whole(2, 65_536),
    num_quantizers=st.just(1),
    levels=st.lists(whole(3, 16), min_size=1, max_size=4).map(tuple),
    kl_weight=st.floats(0, 1e6),
    update=st.sampled_from(["ema", "gradient"]),
    decay=share(),
    restart=st.booleans(),
)
losses = st.builds(
    LossConfig,
    emphasis=st.floats(0, 10),
    corruption=st.sampled_from(["none", "noise", "mask"]),
    corruption_strength=share(),
)
autoencoders = st.builds(
    AutoencoderConfig,
    network=networks,
    bottleneck=bottlenecks,
    loss=losses,
    contrast=st.floats(0.5, 2),
    target_rate=st.none() | st.floats(1, 1e9),
)
priors = st.builds(
    lambda heads, times, **rest: PriorConfig(heads=heads, dim=2 * heads * times, **rest),
    heads=whole(1, 16),
    times=whole(1, 64),
    kind=st.sampled_from(["transformer", "pixelcnn"]),
    layers=whole(1, 32),
    kernel=st.sampled_from([3, 5, 7]),
    dropout=share(),
    label_dropout=share(),
)
optimizers = st.builds(
    OptimizerConfig,
    steps=whole(),
    batch_size=whole(),
    learning_rate=st.floats(1e-9, 1),
    patience=whole(),
)
trainings = st.builds(
    TrainConfig,
    autoencoder=autoencoders,
    prior=priors,
    autoencoder_training=optimizers,
    prior_training=optimizers,
    max_minutes=st.none() | st.floats(0.01, 1e6),
    precision=st.sampled_from(["auto", "float32", "bfloat16"]),
    seed=st.integers(0, MOST_SEED),
)


@given(spectrograms | preprocessings | trainings)
def test_settings_go_through_json_and_come_back_the_same(config: Any) -> None:
    text = json.dumps(to_json(config), allow_nan=False)
    back = from_json(type(config), json.loads(text))
    assert back == config
    assert repr(back) == repr(config)  # 1 is not 1.0, and a list no tuple


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_comes_back_from_json(name: str) -> None:
    assert from_json(TrainConfig, json.loads(json.dumps(to_json(PRESETS[name])))) == PRESETS[name]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_unknown_setting_is_refused_by_name_and_place(cls: type) -> None:
    with pytest.raises(AudiovqError, match=r"^model\.json: .*'colour'"):
        from_json(cls, {"colour": 3}, "model.json")


def test_a_setting_that_is_missing_is_named() -> None:
    for name in NEEDED:
        rest = {key: value for key, value in NEEDED.items() if key != name}
        with pytest.raises(AudiovqError, match=name):
            from_json(SpectrogramConfig, rest)


def test_an_unknown_setting_inside_another_is_named_with_its_place() -> None:
    with pytest.raises(AudiovqError, match=r"prior.*'colour'"):
        from_json(TrainConfig, {"prior": {"colour": 3}})


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("data", [None, 3, "text", [], [["steps", 3]]])
def test_what_is_no_object_is_refused(cls: type, data: Any) -> None:
    with pytest.raises(AudiovqError, match="here"):
        from_json(cls, data, "here")


WRONG: list[Any] = [
    (PreprocessConfig, "sample_rate", "8000"),
    (PreprocessConfig, "sample_rate", 8000.0),
    (PreprocessConfig, "sample_rate", True),
    (PreprocessConfig, "clip_seconds", [1]),
    (LossConfig, "emphasis", float("nan")),
    (AutoencoderConfig, "rate_weight", float("inf")),
    pytest.param(PreprocessConfig, "clip_seconds", 10**400, id="huge"),
    (PreprocessConfig, "trim", 1),
    (PreprocessConfig, "labels", 3),
    (SpectrogramConfig, "n_mels", None),
    (SpectrogramConfig, "range_db", "80"),
    (NetworkConfig, "kind", "transformer"),
    (NetworkConfig, "kind", ["patch"]),
    (NetworkConfig, "patch", 8),
    (NetworkConfig, "patch", [8]),
    (NetworkConfig, "patch", [8, 4, 2]),
    (NetworkConfig, "patch", [8, "4"]),
    (NetworkConfig, "filters", "32"),
    (BottleneckConfig, "restart", 0),
    (OptimizerConfig, "steps", 1.5),
    (OptimizerConfig, "learning_rate", None),
    (TrainConfig, "prior", 3),
    (TrainConfig, "max_minutes", "3"),
    (TrainConfig, "precision", "float16"),
    (TrainConfig, "seed", None),
]
BAD: list[Any] = [
    (TrainConfig, "seed", -1),
    (TrainConfig, "seed", MOST_SEED + 1),
    (TrainConfig, "max_minutes", math.inf),
    (TrainConfig, "max_minutes", math.nan),
    (OptimizerConfig, "learning_rate", math.inf),
    (OptimizerConfig, "weight_decay", math.nan),
    (LossConfig, "emphasis", math.inf),
    (PriorConfig, "dropout", math.nan),
    (PreprocessConfig, "sample_rate", 999),
    (PreprocessConfig, "sample_rate", 384_001),
    (PreprocessConfig, "clip_seconds", 0.0),
    (PreprocessConfig, "clip_seconds", float("nan")),
    (PreprocessConfig, "validation_share", -0.1),
    (PreprocessConfig, "validation_share", 0.9),
    (PreprocessConfig, "trim_db", 0.0),
    (SpectrogramConfig, "sample_rate", 0),
    (SpectrogramConfig, "n_fft", 255),
    (SpectrogramConfig, "n_fft", 0),
    (SpectrogramConfig, "hop_length", 0),
    (SpectrogramConfig, "hop_length", 129),
    (SpectrogramConfig, "n_mels", -1),
    (SpectrogramConfig, "n_mels", 129),
    (SpectrogramConfig, "range_db", 19.0),
    (SpectrogramConfig, "range_db", float("nan")),
    (SpectrogramConfig, "level_step_db", 0.0),
    (SpectrogramConfig, "num_levels", 1),
    (SpectrogramConfig, "num_levels", 1025),
    (SpectrogramConfig, "sample_rate", 384_001),
    (SpectrogramConfig, "n_fft", 32_770),
    (SpectrogramConfig, "level_step_db", float("inf")),
    (NetworkConfig, "kernels", [3, 4, 3, 3]),
    (NetworkConfig, "kernels", [3, -1, 3, 3]),
    (NetworkConfig, "filters", [32, 64]),
    (NetworkConfig, "patch", [0, 4]),
    (NetworkConfig, "encoder_blocks", -1),
    (BottleneckConfig, "codebook_size", 1),
    (BottleneckConfig, "num_quantizers", 0),
    (BottleneckConfig, "num_quantizers", 65),
    (NetworkConfig, "channels", 10**9),
    (NetworkConfig, "patch", [8, 10**6]),
    (NetworkConfig, "strides", [1, 2, 2, 65]),
    (NetworkConfig, "kernels", [3, 3, 3, 65]),
    (NetworkConfig, "decoder_blocks", 257),
    (BottleneckConfig, "decay", 1.0),
    (BottleneckConfig, "dense", 0),
    (BottleneckConfig, "dense", 2),  # no codes in one vector
    (BottleneckConfig, "conditional", True),  # no distribution to have a mean
    (LossConfig, "corruption_strength", 1.5),
    (BottleneckConfig, "kl_weight", -1.0),
    (BottleneckConfig, "kl_warmup", 1.5),
    (BottleneckConfig, "levels", [8, 2]),
    (BottleneckConfig, "levels", [256, 257]),
    (BottleneckConfig, "levels", []),
    (PriorConfig, "dim", 190),
    (PriorConfig, "dim", 0),
    (PriorConfig, "heads", 0),
    (PriorConfig, "layers", 0),
    (PriorConfig, "layers", 257),
    (PriorConfig, "dim", 2**40),
    (PriorConfig, "kernel", 4),
    (PriorConfig, "kernel", 1),
    (PriorConfig, "dropout", 1.0),
    (PriorConfig, "label_dropout", -0.1),
    (OptimizerConfig, "steps", 0),
    (OptimizerConfig, "batch_size", 0),
    (OptimizerConfig, "learning_rate", 0.0),
    (OptimizerConfig, "validate_every", 0),
    (OptimizerConfig, "max_epochs", 0),
    (OptimizerConfig, "decay_rate", 0.0),
    (OptimizerConfig, "decay_rate", 1.5),
    (OptimizerConfig, "tolerance", -0.1),
    (OptimizerConfig, "learnt_share", -0.1),
    (OptimizerConfig, "learnt_share", 1.1),
    (TrainConfig, "max_minutes", 0.0),
    (TrainConfig, "autoencoder_share", 1.1),
]


@pytest.mark.parametrize(("cls", "name", "value"), WRONG + BAD)
def test_a_wrong_setting_is_refused_by_name_and_place_in_one_line(
    cls: type, name: str, value: Any
) -> None:
    data = {**(NEEDED if cls is SpectrogramConfig else {}), name: value}
    with pytest.raises(AudiovqError) as caught:
        from_json(cls, data, "model.json")
    assert str(caught.value).startswith("model.json: ")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("cls", "name", "value"), BAD)
def test_a_bad_setting_is_refused_in_python_too(cls: type, name: str, value: Any) -> None:
    data = {**(NEEDED if cls is SpectrogramConfig else {}), name: value}
    data = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
    with pytest.raises(AudiovqError, match=name):
        cls(**data)


NUMBERS = [
    (cls, field.name)
    for cls in (*CLASSES, MaskedConfig, SamplingConfig)
    for field in dataclasses.fields(cls)
    if str(field.type).removesuffix(" | None") in ("int", "float")
]


@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_every_number_has_bounds_on_both_sides_and_is_never_no_number(cls: type, name: str) -> None:
    for value in (math.nan, math.inf, -math.inf, -1, -1e-9, -(10**30), 10**400):
        with pytest.raises(AudiovqError, match=name) as caught:
            cls(**{**(NEEDED if cls is SpectrogramConfig else {}), name: value})
        assert "\n" not in str(caught.value)
    for value in (0, 1e-300, 1e9):
        with contextlib.suppress(AudiovqError):
            json.dumps(
                to_json(cls(**{**(NEEDED if cls is SpectrogramConfig else {}), name: value}))
            )


def test_a_whole_number_in_json_may_stand_for_a_fraction() -> None:
    config = from_json(PreprocessConfig, {"range_db": 70, "clip_seconds": 1})
    assert config == PreprocessConfig(range_db=70.0, clip_seconds=1.0)
    assert isinstance(config.range_db, float)
    assert isinstance(config.clip_seconds, float)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PriorConfig().dim = 3


@given(whole(1000, 384_000))
def test_the_window_is_the_power_of_two_from_32_ms_and_the_hop_a_quarter(rate: int) -> None:
    config = SpectrogramConfig.for_rate(rate)
    assert config.n_fft.bit_count() == 1
    assert config.n_fft / 2 < 0.032 * rate <= config.n_fft
    assert config.hop_length * 4 == config.n_fft


@given(spectrograms)
def test_what_is_given_for_a_rate_is_kept(config: SpectrogramConfig) -> None:
    made = SpectrogramConfig.for_rate(
        config.sample_rate, config.n_fft, config.hop_length, config.n_mels, config.range_db
    )
    assert made == config


def test_settings_are_read_without_torch() -> None:
    code = "import sys, audiovq.config.settings; print(sorted({'torch', 'numpy', 'librosa'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_levels_of_a_fixed_grid_set_its_codes_and_dimensions() -> None:
    config = BottleneckConfig(kind="fsq", levels=(8, 6, 5))
    assert (config.num_codes, config.dim) == (240, 3)


@pytest.mark.parametrize("kind", ["vq", "gaussian", "none"])
def test_without_a_fixed_grid_the_sizes_are_those_given(kind: Any) -> None:
    config = BottleneckConfig(kind=kind, codebook_size=7, latent_dim=5)
    assert (config.num_codes, config.dim) == (7, 5)


def test_cross_entropy_needs_outputs_that_are_probabilities() -> None:
    loss = LossConfig(kind="cross_entropy")
    with pytest.raises(AudiovqError, match=r"loss cross_entropy.*sigmoid"):
        AutoencoderConfig(loss=loss)
    AutoencoderConfig(NetworkConfig(output="sigmoid"), loss=loss)


def test_the_power_of_areas_counts_for_hits_alone_unless_it_is_given() -> None:
    hits = SpectrogramConfig(sample_rate=44_100, n_fft=1024, hop_length=256, n_mels=128)
    assert hits.is_of_hits
    assert LossConfig().fitted(hits).power == POWER_OF_HITS > 0
    assert LossConfig(power=0.0).fitted(hits).power == 0
    assert LossConfig().fitted(dataclasses.replace(hits, channels=2)).power == POWER_OF_HITS
    assert LossConfig(kind="cross_entropy").fitted(hits).power == 0
    for rate in (8_000, 44_100):
        others = SpectrogramConfig.for_rate(rate)
        assert LossConfig().fitted(others).power == 0
        assert LossConfig(power=2.0).fitted(others).power == 2
    with pytest.raises(AudiovqError, match="power"):
        LossConfig(kind="cross_entropy", power=1.0)


@pytest.mark.parametrize("changes", [{"cosine": True}, {"kind": "fsq"}])
def test_what_needs_one_quantizer_refuses_several(changes: dict[str, Any]) -> None:
    with pytest.raises(AudiovqError, match="num_quantizers"):
        BottleneckConfig(num_quantizers=2, **changes)


def test_rate_presets_spend_as_many_codes_a_second_at_any_sample_rate() -> None:
    """Within the third by which a default hop differs from 8 ms."""
    network = PRESETS["rate-1k"].autoencoder.network
    per_second = []
    for spectrogram in (
        SpectrogramConfig(sample_rate=8_000, n_fft=256, hop_length=64, n_mels=64),
        SpectrogramConfig(sample_rate=44_100, n_fft=2048, hop_length=512, n_mels=256),
        SpectrogramConfig(sample_rate=44_100, n_fft=1024, hop_length=256, n_mels=128),
    ):
        bins, frames = network.fitted(spectrogram).stride
        rate = spectrogram.sample_rate / spectrogram.hop_length
        per_second.append(rate / frames * spectrogram.bins / bins)
    assert max(per_second) < 1.5 * min(per_second)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (config, f.name)
        for config in (
            NetworkConfig,
            BottleneckConfig,
            LossConfig,
            PriorConfig,
            OptimizerConfig,
            TrainConfig,
            PreprocessConfig,
            SamplingConfig,
            Inversion,
            OutputConfig,
        )
        for f in dataclasses.fields(config)
        if get_origin(get_type_hints(config)[f.name]) is Literal
    ],
)
def test_a_word_that_is_no_choice_is_refused_with_the_choices(config: Any, name: str) -> None:
    choices = get_args(get_type_hints(config)[name])
    for choice in choices:
        if (name, choice) != ("bits", "32f"):
            assert choice in str(config(**{name: choice}))
    with pytest.raises(AudiovqError, match=f"^{name} 'maskd': give '{choices[0]}'"):
        config(**{name: "maskd"})
