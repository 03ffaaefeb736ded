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
    require_choices,
    require_finite,
    require_seed,
    require_threads,
)
from audiovq.config.serialize import OMIT_DEFAULT


@dataclass(frozen=True)
class PriorConfig:
    """The autoregressive prior, which predicts codes in time order."""

    kind: Literal["transformer", "pixelcnn"] = "transformer"
    """transformer: attends to all earlier codes. pixelcnn: gated convolutions over nearby codes."""
    dim: int = 192
    """Width of each column's vector (transformer), or channels (pixelcnn)."""
    layers: int = 4
    """Number of layers."""
    heads: int = 4
    """Number of attention heads (transformer)."""
    cell: int = 128
    """Width of the column decoder, which predicts the codes of a column (transformer)."""
    kernel: int = 5
    """Kernel size of the convolutions, of which only the half over past codes is used (pixelcnn)."""
    dropout: float = 0.1
    """Dropout probability in training."""
    label_dropout: float = 0.15
    """Probability of dropping a label in training; needed to sample without labels, and for guidance."""

    def __post_init__(self) -> None:
        require_choices(self)
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
        require(0 <= self.dropout < 1, f"dropout {self.dropout}: give a share from 0 to below 1")
        require(
            0 <= self.label_dropout < 1,
            f"label_dropout {self.label_dropout}: give a share from 0 to below 1",
        )


@dataclass(frozen=True)
class MaskedConfig:
    """The masked prior, which fills holes in grids of codes."""

    dim: int = 192
    """Width of each column's vector."""
    cell: int = 128
    """Width of the column decoder, which predicts the codes of a column."""
    layers: int = 4
    """Number of layers."""
    heads: int = 4
    """Number of attention heads."""
    dropout: float = 0.1
    """Dropout probability in training."""
    label_dropout: float = 0.15
    """Probability of dropping a label in training; needed to sample without labels, and for guidance."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name, most in (("dim", WIDEST), ("cell", WIDEST), ("layers", MOST_LAYERS)):
            value = getattr(self, name)
            require(1 <= value <= most, f"{name} {value}: give 1 to {most}")
        require(
            1 <= self.heads <= self.dim and self.dim % self.heads == 0,
            f"dim {self.dim}: give a multiple of the heads ({self.heads})",
        )
        require(0 <= self.dropout < 1, f"dropout {self.dropout}: give a share from 0 to below 1")
        require(
            0 <= self.label_dropout < 1,
            f"label_dropout {self.label_dropout}: give a share from 0 to below 1",
        )


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator against which the vivid decoder is trained, and its weight."""

    channels: int = 32
    """Channels of its first layer; the later ones have twice as many."""
    scales: int = 1
    """Number of resolutions, each half of the one before, that it sees."""
    weight: float = 0.015
    """Weight of its judgement in the decoder's loss: more is more vivid and less faithful."""
    feature_weight: float = 0.06
    """Weight of the distance between its features of recordings and of decoded spectrograms."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(1 <= self.channels <= WIDEST, f"channels {self.channels}: give 1 to {WIDEST}")
        require(1 <= self.scales <= 4, f"scales {self.scales}: give 1 to 4")
        for name in ("weight", "feature_weight"):
            value = getattr(self, name)
            require(0 <= value <= 1e3, f"{name} {value}: give a number from 0 to 1,000")


FEWEST_STEPS = 3_000
"""Shortest schedule that `max_epochs` leads to."""
VALIDATION_EPOCHS = 4
"""Passes from one validation to the next where `max_epochs` is set."""
FEWEST_BETWEEN = 25
"""Fewest steps from one validation to the next where `max_epochs` is set."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and schedule of one stage of training."""

    steps: int = 10_000
    """Steps of the schedule; `--max-minutes` shortens it."""
    optimizer: Literal["adamw", "muon"] = field(default="adamw", metadata=OMIT_DEFAULT)
    """adamw: AdamW for all weights. muon: orthogonalized steps (Muon) for those of linear layers and convolutions;
    fewer steps are needed, and each takes longer."""
    batch_size: int = 8
    """Clips of a batch, over all ranks together."""
    learning_rate: float = 1e-3
    """Peak of the learning rate."""
    schedule: Literal["cosine", "exponential"] = "cosine"
    """How the learning rate falls from its peak: to final_share of it, or as decay_rate ** progress."""
    final_share: float = 0.02
    """Final learning rate as a share of the peak (cosine)."""
    decay_rate: float = 0.1
    """Final learning rate as a share of the peak (exponential)."""
    warmup: int = 100
    """Steps over which the learning rate rises to its peak."""
    weight_decay: float = 0.01
    """Weight decay (AdamW)."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; larger gradients are scaled down."""
    validate_every: int = 500
    """Maximum number of steps between validations (see max_epochs)."""
    patience: int = 10
    """Stop after this number of validations of which none replaces the state that is kept."""
    tolerance: float = field(default=0.0, metadata=OMIT_DEFAULT)
    """Share of the best score by which a later state may be worse and still replaces the state that is kept."""
    learnt_share: float = field(default=0.0, metadata=OMIT_DEFAULT)
    """Share of the score of other clips below which that of training clips shows that these are learnt. Until then a later
    state of a prior replaces the state that is kept where training clips score better, whatever other clips do; 0: at once."""
    max_epochs: int | None = None
    """Maximum number of epochs: shortens the schedule (not below 3,000 steps) and validates every 4
    epochs. For stages that overfit: a short, completed schedule beats the best state of a long one."""

    def __post_init__(self) -> None:
        require_choices(self)
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
        require(0 <= self.tolerance <= 10, f"tolerance {self.tolerance}: give a share from 0 to 10")
        require(
            0 <= self.learnt_share <= 1,
            f"learnt_share {self.learnt_share}: give a share from 0 to 1",
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
        """Steps from one validation to the next with `clips` training clips.

        With `max_epochs`, every VALIDATION_EPOCHS passes: a stage that overfits is best after a few
        passes over few clips, and rarer validations would miss that.
        """
        if self.max_epochs is None:
            return self.validate_every
        per_epoch = -(-clips // self.batch_size)
        return min(self.validate_every, max(FEWEST_BETWEEN, VALIDATION_EPOCHS * per_epoch))


PRIOR_EPOCHS = 60
"""Passes over the clips after which a prior has memorized them."""
PRIOR_PATIENCE = 5
"""Validations without an improvement after which a prior is past its best."""
MASKED_EPOCHS = 200
"""The same of a masked prior, which meets other masks in each pass."""
PRIOR_TOLERANCE = 0.02
"""Share of the best score within which a later state of a prior is kept: with few clips, new sounds still come nearer to
recordings when the likelihood of other clips no longer rises. Near copies of training clips are sampled again."""
MASKED_LEARNT_SHARE = 0.55
"""`learnt_share` of a masked prior. One that starts from another model and learns few clips of new kinds is best on other clips
long before it tells the kinds apart."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of all stages of training."""

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    masked: MaskedConfig = field(default_factory=MaskedConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    autoencoder_training: OptimizerConfig = field(default_factory=OptimizerConfig)
    vivid_training: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=4e-4)
    )
    prior_training: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            max_epochs=PRIOR_EPOCHS, patience=PRIOR_PATIENCE, tolerance=PRIOR_TOLERANCE
        )
    )
    masked_training: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            max_epochs=MASKED_EPOCHS, tolerance=PRIOR_TOLERANCE, learnt_share=MASKED_LEARNT_SHARE
        )
    )
    max_minutes: float | None = None
    """Time limit of the whole training; schedules are shortened to fit."""
    autoencoder_share: float = 0.45
    """Share of max_minutes for the autoencoder; the rest is for the priors. 1: no prior."""
    vivid_share: float = 0.0
    """Share of max_minutes for the vivid decoder, taken from the autoencoder's time; 0: no vivid decoder."""
    masked_share: float = 0.0
    """Share of max_minutes for the masked prior, taken from the prior's time; 0: no masked prior. Above 24 kHz, where
    new sounds are sampled by the masked prior, this is the other one's share."""
    carried_rate: float = 0.3
    """Factor on the learning rates of stages that start from trained weights (--from, --more)."""
    keep_codes: bool | None = None
    """Whether encoder and codebook stay those of the model that training starts from (--from, --more), so that
    what its priors have learnt about codes stays true. None: with few clips they do."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the device supports it, else float32. The quantizer always uses float32."""
    threads: int | None = None
    """CPU threads per operation; fix it for bit-identical results in every run. By default the number
    adapts to the machine's load."""
    seed: int = 0
    """Seed of initial weights, batches and noise."""

    def __post_init__(self) -> None:
        require_choices(self)
        require_finite(self)
        require_seed(self.seed)
        require_threads(self.threads)
        require(
            0 < self.carried_rate <= 10,
            f"carried_rate {self.carried_rate}: give a factor above 0, up to 10",
        )
        require(
            self.max_minutes is None or 0 < self.max_minutes <= 1e7,
            f"max_minutes {self.max_minutes}: give minutes above 0, up to 1e7",
        )
        require(
            0 < self.autoencoder_share <= 1,
            f"autoencoder_share {self.autoencoder_share}: give a share above 0, up to 1",
        )
        require(
            0 <= self.vivid_share < 1,
            f"vivid_share {self.vivid_share}: give a share from 0 to below 1",
        )
        require(
            0 <= self.masked_share < 1,
            f"masked_share {self.masked_share}: give a share from 0 to below 1",
        )
