"""Settings of training: the priors, the optimizer of each stage, and all stages together.

Imports no torch, so that the command line can show every flag without loading it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.checks import (
    MOST_LAYERS,
    MOST_STEPS,
    WIDEST,
    require,
    require_finite,
    require_seed,
    require_threads,
)


@dataclass(frozen=True)
class PriorConfig:
    """What learns the codes in time order."""

    kind: Literal["transformer", "pixelcnn"] = "transformer"
    """transformer: attends to all codes before. pixelcnn: gated convolutions over those nearby."""
    dim: int = 192
    layers: int = 4
    heads: int = 4
    """Of attention (transformer)."""
    cell: int = 128
    """Of what a code is told by the column so far (transformer)."""
    kernel: int = 5
    """Codes across a convolution's filter: half of them, and the one in the middle, are the past
    (pixelcnn)."""
    dropout: float = 0.1
    label_dropout: float = 0.15
    """How often a label is hidden in training, so that it can be left open, and guided, later."""

    def __post_init__(self) -> None:
        require_finite(self)
        sizes = ("dim", WIDEST), ("cell", WIDEST), ("layers", MOST_LAYERS), ("heads", WIDEST)
        for name, most in sizes:
            value = getattr(self, name)
            require(1 <= value <= most, f"{name} {value}: give 1 to {most}")
        require(
            self.kind != "transformer" or self.dim % (2 * self.heads) == 0,
            f"dim {self.dim}: give a multiple of twice the heads ({self.heads})",
        )
        require(
            3 <= self.kernel <= 255 and self.kernel % 2 == 1,
            f"kernel {self.kernel}: give an odd size from 3 to 255",
        )
        require(0 <= self.dropout < 1, f"dropout {self.dropout}: give a share below 1")
        require(
            0 <= self.label_dropout < 1, f"label_dropout {self.label_dropout}: give a share below 1"
        )


@dataclass(frozen=True)
class MaskedConfig:
    """What learns to fill holes in the codes."""

    dim: int = 192
    """Of a column."""
    cell: int = 128
    """Of what a code is told by its column."""
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1
    label_dropout: float = 0.15
    """How often a label is hidden in training, so that it can be left open, and guided, later."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name, most in (("dim", WIDEST), ("cell", WIDEST), ("layers", MOST_LAYERS)):
            value = getattr(self, name)
            require(1 <= value <= most, f"{name} {value}: give 1 to {most}")
        require(
            1 <= self.heads <= self.dim and self.dim % self.heads == 0,
            f"dim {self.dim}: give a multiple of the heads ({self.heads})",
        )
        require(0 <= self.dropout < 1, f"dropout {self.dropout}: give a share below 1")
        require(
            0 <= self.label_dropout < 1, f"label_dropout {self.label_dropout}: give a share below 1"
        )


FEWEST_STEPS = 3_000
"""To which no number of passes shortens a schedule."""
VALIDATION_EPOCHS = 4
"""Passes after which what learns by heart is validated, but not before"""
FEWEST_BETWEEN = 25
"""steps."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Steps and schedule of one stage of training."""

    steps: int = 10_000
    """The schedule's length; `--max-minutes` shortens it."""
    batch_size: int = 8
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "exponential"] = "cosine"
    """How the learning rate falls: to final_share of its peak, or as decay_rate ** progress."""
    final_share: float = 0.02
    """Learning rate at the end, as a share of its peak (cosine in between)."""
    decay_rate: float = 0.1
    """Learning rate at the end of an exponential schedule, as a share of its peak."""
    warmup: int = 100
    """Steps from 0 to the peak."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    """Largest gradient norm."""
    validate_every: int = 500
    """Steps from one validation to the next, at most: see max_epochs."""
    patience: int = 10
    """Stop after so many validations without a better one."""
    max_epochs: int | None = None
    """So many passes over the clips at most, but 3,000 steps in any case (or `steps`, if fewer). What
    learns by heart does better with a schedule that ends than with the best state of a longer one, and is
    validated every 4 passes."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("steps", "batch_size", "validate_every", "patience", "max_epochs"):
            value = getattr(self, name)
            require(
                value is None or 1 <= value <= MOST_STEPS, f"{name} {value}: give 1 to {MOST_STEPS}"
            )
        require(
            0 < self.learning_rate <= 100,
            f"learning_rate {self.learning_rate}: give a number above 0, up to 100",
        )
        require(
            0 <= self.final_share <= 1, f"final_share {self.final_share}: give a share from 0 to 1"
        )
        require(
            0 <= self.warmup <= MOST_STEPS,
            f"warmup {self.warmup}: give steps from 0 to {MOST_STEPS}",
        )
        require(
            0 <= self.weight_decay <= 100,
            f"weight_decay {self.weight_decay}: give a number from 0 to 100",
        )
        require(
            0 < self.clip_norm <= 1e6,
            f"clip_norm {self.clip_norm}: give a number above 0, up to 1e6",
        )
        require(
            0 < self.decay_rate <= 1,
            f"decay_rate {self.decay_rate}: give a share above 0, up to 1",
        )

    def steps_for(self, clips: int, fewest: int = FEWEST_STEPS) -> int:
        """The schedule's length with `clips` training clips; `max_epochs` does not shorten it below `fewest`."""
        if self.max_epochs is None:
            return self.steps
        per_epoch = -(-clips // self.batch_size)
        return min(self.steps, max(fewest, self.max_epochs * per_epoch))

    def validations_for(self, clips: int) -> int:
        """Steps from one validation to the next with so many clips to learn from.

        What learns by heart (`max_epochs`) is best after few passes over few clips, and is looked at as
        often as every VALIDATION_EPOCHS passes, so that this is not missed.
        """
        if self.max_epochs is None:
            return self.validate_every
        per_epoch = -(-clips // self.batch_size)
        return min(self.validate_every, max(FEWEST_BETWEEN, VALIDATION_EPOCHS * per_epoch))


PRIOR_EPOCHS = 60
"""Passes over the clips after which a prior knows them by heart."""
PRIOR_PATIENCE = 5
"""Validations without a better one after which a prior is past its best."""


@dataclass(frozen=True)
class TrainConfig:
    """All stages of training."""

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    masked: MaskedConfig = field(default_factory=MaskedConfig)
    autoencoder_training: OptimizerConfig = field(default_factory=OptimizerConfig)
    prior_training: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(max_epochs=PRIOR_EPOCHS, patience=PRIOR_PATIENCE)
    )
    masked_training: OptimizerConfig = field(default_factory=OptimizerConfig)
    max_minutes: float | None = None
    """Wall-clock limit of all training; the schedule shrinks to it and a usable model is left."""
    autoencoder_share: float = 0.45
    """Share of max_minutes that the autoencoder gets; the prior gets what is left. 1: no prior."""
    masked_share: float = 0.0
    """Share of max_minutes that the masked prior gets, out of the prior's; 0: none is trained."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the device computes in it, else float32. The quantizer stays float32."""
    threads: int | None = None
    """CPU threads per operation, for results that are the same bits in every run; by default the number
    adapts to the machine's load."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_finite(self)
        require_seed(self.seed)
        require_threads(self.threads)
        require(
            self.max_minutes is None or 0 < self.max_minutes <= 1e7,
            f"max_minutes {self.max_minutes}: give minutes above 0, up to 1e7",
        )
        require(
            0 < self.autoencoder_share <= 1,
            f"autoencoder_share {self.autoencoder_share}: give a share above 0, up to 1",
        )
        require(
            0 <= self.masked_share < 1,
            f"masked_share {self.masked_share}: give a share from 0 to below 1",
        )
