"""A training that takes seconds, for tests that need a model made by the real stages, and a way to stop it."""

import functools
import signal
from typing import Any

import pytest

from audiovq.config.autoencoder import AutoencoderConfig, BottleneckConfig, NetworkConfig
from audiovq.config.settings import OptimizerConfig, PriorConfig, TrainConfig
from audiovq.generation import known
from audiovq.training.loop import Trainer
from audiovq.training.run import train as train_with_samples
from audiovq.training.stage import Limits
from audiovq.training.stages import context, contrast

CONFIG = TrainConfig(
    autoencoder=AutoencoderConfig(
        NetworkConfig(channels=16, encoder_blocks=1, decoder_blocks=1, row_mixing=4),
        BottleneckConfig(latent_dim=8, codebook_size=32),
    ),
    prior=PriorConfig(dim=32, layers=2, heads=2),
    autoencoder_training=OptimizerConfig(steps=30, batch_size=4, warmup=5, validate_every=15),
    prior_training=OptimizerConfig(steps=20, batch_size=4, warmup=5, validate_every=10),
    precision="float32",
)
train = functools.partial(train_with_samples, limits=Limits(sample_every=2.0))
"""Training that writes no samples."""


def fit_briefly() -> None:
    """In this process, context tables need not be good ones, nor contrast and the limits of copies exact."""
    context.PASSES, contrast.TOLERANCE, known.CALIBRATION_CLIPS = 1, 0.1, 4


def stop_after(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """Ctrl-C after the given step of a stage, as long as the patch lasts."""
    real_step = Trainer._step

    def step_then_interrupt(self: Trainer, *arguments: Any) -> Any:
        result = real_step(self, *arguments)
        if self.stage == stage and self.state.step == step:
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(Trainer, "_step", step_then_interrupt)
