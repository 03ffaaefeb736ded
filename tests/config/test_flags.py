"""Flags ask for the very settings that they were made from."""

import shlex
from dataclasses import replace

import pytest
import tyro

from audiovq.config.autoencoder import AutoencoderConfig, BottleneckConfig, NetworkConfig
from audiovq.config.flags import flags
from audiovq.config.presets import PRESETS
from audiovq.config.settings import PriorConfig, TrainConfig
from audiovq.config.spectrogram import PreprocessConfig


@pytest.mark.parametrize(
    "config",
    [
        *PRESETS.values(),
        TrainConfig(
            AutoencoderConfig(
                NetworkConfig(patch=(16, 2)),
                BottleneckConfig(kind="fsq", levels=(7, 5), restart=False),
            ),
            PriorConfig(dropout=0.25),
            max_minutes=1.5,
        ),
    ],
)
def test_training_is_asked_for_by_its_flags(config: TrainConfig) -> None:
    words = shlex.split(" ".join(flags(config, PRESETS["small"])))
    assert tyro.cli(TrainConfig, args=words, default=PRESETS["small"]) == config


def test_what_is_quoted_comes_back_and_what_is_usual_is_left_out() -> None:
    config = PreprocessConfig(labels=r"it's (?P<a>\d) $x", trim=False, n_mels=0)
    words = shlex.split(" ".join(flags(config, PreprocessConfig())))
    assert tyro.cli(PreprocessConfig, args=words) == config
    assert len(words) == 5
    assert flags(config, config) == []
    assert flags(replace(config, n_mels=None), config) == ["--n-mels None"]
