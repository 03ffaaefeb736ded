"""Every setting there is, on one page: frozen dataclasses, checked when made, JSON both ways.

Imports no torch, so that the command line can show every flag without loading it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from audiovq.config.checks import require, require_finite, require_seed

WIDEST = 16_384
"""No layer of ours is wider, and no window of a code's taller or longer."""
MOST_LAYERS = 256
"""What asks for more layers is damaged, and would take memory and time before that is known."""
MOST_STEPS = 1_000_000_000
"""No training takes more steps, and no batch more clips."""


@dataclass(frozen=True)
class PreprocessConfig:
    """How a folder of recordings becomes a dataset. `None` means: chosen from the recordings."""

    sample_rate: int | None = None
    """Hz of everything after reading; None: the rate that most usable files have."""
    clip_seconds: float | None = None
    """Length of a clip; None: the longest file's up to 2.5 s, else what 99 % of the files need, at
    most 2 s."""
    n_fft: int | None = None
    """Window length in samples; None: the power of two from 32 ms upward."""
    hop_length: int | None = None
    """Samples between frames; None: n_fft / 4."""
    n_mels: int | None = None
    """Mel bands; 0: linear bins; None: 64 up to 8 kHz, 80 to 16 kHz, 96 to 24 kHz, then 128."""
    range_db: float = 80.0
    """Decibels between a clip's loudest cell and the floor."""
    trim: bool = True
    """Cut silence at both ends of a file."""
    trim_db: float = 50.0
    """What counts as silence: this far below the file's loudest 20 ms."""
    labels: str | None = None
    """`folder`, a pattern with named groups matched against the path, or a CSV file."""
    test: str | None = None
    """Regular expression that names the test files; None: --test-share of them, by the hash of the path."""
    test_share: float = 0.1
    """Share of the files kept for the test, where --test names none; 0: no test."""
    validation_share: float = 0.1
    """Share of the remaining files kept for validation, by the hash of the path; 0: no validation."""

    def __post_init__(self) -> None:
        require(
            self.sample_rate is None or 1000 <= self.sample_rate <= 384_000,
            f"sample_rate {self.sample_rate}: give a rate in Hz from 1000 to 384000",
        )
        require(
            self.clip_seconds is None or 0.02 <= self.clip_seconds <= 600,
            f"clip_seconds {self.clip_seconds}: give seconds from 0.02 to 600",
        )
        for name in ("test_share", "validation_share"):
            share = getattr(self, name)
            require(0 <= share < 0.9, f"{name} {share}: give a share from 0 to 0.9")
        require(
            0 < self.trim_db <= 200, f"trim_db {self.trim_db}: give decibels above 0, up to 200"
        )
        require(
            20 <= self.range_db <= 120, f"range_db {self.range_db}: give decibels from 20 to 120"
        )
        require(
            self.n_fft is None or (16 <= self.n_fft <= 32_768 and self.n_fft % 2 == 0),
            f"n_fft {self.n_fft}: give an even number from 16 to 32768",
        )
        require(
            self.hop_length is None or 1 <= self.hop_length <= (self.n_fft or 32_768) // 2,
            f"hop_length {self.hop_length}: give 1 to n_fft / 2",
        )
        require(
            self.n_mels is None or 0 <= self.n_mels <= 512,
            f"n_mels {self.n_mels}: give 0 (linear bins) to 512",
        )


@dataclass(frozen=True)
class SpectrogramConfig:
    """The spectrogram's grid and range, all fixed: stored in dataset and model."""

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    """Mel bands, or 0 for the n_fft / 2 linear bins below Nyquist."""
    range_db: float = 80.0
    level_step_db: float = 1.5
    num_levels: int = 64
    images: bool = False
    """No sound at all: grayscale images, a column of pixels as a frame, the lowest row as the first
    bin."""

    def __post_init__(self) -> None:
        require(
            0 < self.sample_rate <= 384_000,
            f"sample_rate {self.sample_rate}: give a rate in Hz above 0, up to 384000",
        )
        require(
            16 <= self.n_fft <= 32_768 and self.n_fft % 2 == 0,
            f"n_fft {self.n_fft}: give an even number from 16 to 32768",
        )
        require(
            0 < self.hop_length <= self.n_fft // 2,
            f"hop_length {self.hop_length}: give 1 to n_fft / 2 = {self.n_fft // 2}",
        )
        most = min(512, self.n_fft // 2)
        require(0 <= self.n_mels <= most, f"n_mels {self.n_mels}: give 0 (linear bins) to {most}")
        require(
            20 <= self.range_db <= 120, f"range_db {self.range_db}: give decibels from 20 to 120"
        )
        require(
            0 < self.level_step_db <= 20,
            f"level_step_db {self.level_step_db}: give decibels above 0, up to 20",
        )
        require(2 <= self.num_levels <= 1024, f"num_levels {self.num_levels}: give 2 to 1024")

    @property
    def bins(self) -> int:
        """Rows of the spectrogram."""
        return self.n_mels or self.n_fft // 2

    @classmethod
    def for_images(cls, height: int) -> SpectrogramConfig:
        """Of images so many pixels high; what is in decibels for sound is in hundredths of white."""
        return cls(1, 2 * height, 1, 0, range_db=100.0, num_levels=2, images=True)

    @classmethod
    def for_rate(
        cls,
        sample_rate: int,
        n_fft: int | None = None,
        hop_length: int | None = None,
        n_mels: int | None = None,
        range_db: float = 80.0,
    ) -> SpectrogramConfig:
        """The settings that suit a sample rate; what is given is kept."""
        n_fft = n_fft or 2 ** math.ceil(math.log2(0.032 * sample_rate))
        if n_mels is None:
            n_mels = next(
                (n for top, n in ((8e3, 64), (16e3, 80), (24e3, 96)) if sample_rate <= top), 128
            )
            n_mels = max(1, min(n_mels, n_fft // 4, _most_bands(sample_rate, n_fft)))
        return cls(sample_rate, n_fft, hop_length or n_fft // 4, n_mels, range_db)


def _most_bands(sample_rate: int, n_fft: int) -> int:
    """So many mel bands of `scale.mel_bands` cover a bin of the spectrum each: the narrowest ones, below
    1 kHz, are two steps of the scale wide, and a bin's width at least."""
    top = sample_rate / 2
    highest = 3 * top / 200 if top < 1000 else 15 + 27 * math.log(top / 1000, 6.4)
    return math.ceil(400 / 3 * highest * n_fft / sample_rate) - 2


@dataclass(frozen=True)
class AutoencoderConfig:
    """Encoder, bottleneck and decoder."""

    encoder: Literal["patch", "conv", "residual"] = "patch"
    """patch: one strided convolution to the grid, blocks there. conv, residual: the tutorials'."""
    channels: int = 128
    """Width of the patch and residual networks."""
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    patch: tuple[int, int] = (8, 4)
    """Bins and frames that one code stands for (patch network)."""
    filters: tuple[int, ...] = (32, 64, 64, 64)
    kernels: tuple[int, ...] = (3, 3, 3, 3)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    """Layers of the conv network, as the tutorials list them."""
    emphasis: float = 1.84
    """How much more errors weigh in loud cells than in quiet ones: factors of ten from the floor to
    the loudest cell; 0: all alike."""
    loss: Literal["squared", "cross_entropy"] = "squared"
    """Reconstruction loss: squared error, or binary cross-entropy (of a sigmoid output)."""
    output: Literal["identity", "sigmoid"] = "identity"
    """What the decoder ends in."""
    corruption: Literal["none", "noise", "mask"] = "none"
    """What is done to the input in training alone: normal noise added, or cells set to 0 (a denoising
    autoencoder: Vincent et al. 2008)."""
    corruption_strength: float = 0.1
    """The noise's standard deviation, or the share of cells that are masked."""
    bottleneck: Literal["vq", "fsq", "gaussian", "none"] = "vq"
    """vq: learnt codebooks. fsq: codes on a fixed grid. gaussian: the variational autoencoder's."""
    dense: int | None = None
    """Size of one vector for a whole clip, to which a dense layer brings the grid, and back (none and
    gaussian); None: the grid itself is the latent."""
    kl_weight: float = 0.1
    """Of the KL divergence, in nats per cell of the spectrogram (gaussian). 1 with cross_entropy and
    emphasis 0 is the evidence lower bound itself."""
    kl_warmup: float = 0.0
    """Share of the schedule over which that weight grows from 0."""
    conditional: bool = False
    """Each value of a label has a mean of its own in the latent space (gaussian)."""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Values of each dimension of a latent (fsq): they decide latent_dim and codebook_size."""
    latent_dim: int = 64
    """Dimensions of a latent and of a code's vector."""
    codebook_size: int = 512
    num_quantizers: int = 1
    """Residual quantization: each codebook codes what those before it left."""
    update: Literal["ema", "gradient"] = "ema"
    """How the codebook learns: moving averages, or the codebook loss of the 2017 paper."""
    cosine: bool = False
    """Latents and codes lie on the unit sphere (vq with one quantizer)."""
    gradient_through: Literal["straight", "rotation"] = "straight"
    """How gradients pass the quantizer: as they are, or turned as the latent is to its code."""
    commitment: float = 0.25
    """Weight beta of the commitment loss."""
    decay: float = 0.99
    """Of the moving averages."""
    kmeans_start: bool = True
    """Start the codebook from k-means over the first batch; else uniform in +-1 / codebook_size."""
    contrast: float = 1.03
    """Decoded spectrograms are stretched by this below their loudest value: a decoder's mean of all
    that one code may stand for is flatter than any of it."""
    rate_weight: float = 0.1
    """How much a bit of an archive weighs in choosing codes, in mean squared distances of latents to
    their codes; 0: always the nearest code."""
    target_rate: float | None = None
    """Bits per second that an archive of validation clips may take: rate_weight is raised until it
    does, with something to spare."""
    restart: bool = True
    """Give codes that nothing uses a new place among the batch's latents (ema only)."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(
            len(self.filters) == len(self.kernels) == len(self.strides)
            and 1 <= len(self.filters) <= MOST_LAYERS,
            f"filters, kernels and strides: give lists of one length, up to {MOST_LAYERS}",
        )
        require(
            all(0 < k < 64 and k % 2 == 1 for k in self.kernels),
            f"kernels {self.kernels}: give odd sizes up to 63",
        )
        require(
            all(1 <= stride <= 64 for stride in self.strides),
            f"strides {self.strides}: give numbers from 1 to 64",
        )
        sizes = *self.patch, self.channels, self.latent_dim, *self.filters
        require(
            all(1 <= size <= WIDEST for size in sizes),
            f"patch, channels, latent_dim and filters: give numbers from 1 to {WIDEST}",
        )
        require(
            2 <= self.codebook_size <= 65_536,
            f"codebook_size {self.codebook_size}: give 2 to 65536",
        )
        require(
            all(0 <= n <= MOST_LAYERS for n in (self.encoder_blocks, self.decoder_blocks)),
            f"encoder_blocks and decoder_blocks: give numbers from 0 to {MOST_LAYERS}",
        )
        require(
            1 <= self.num_quantizers <= 64,
            f"num_quantizers {self.num_quantizers}: give 1 to 64",
        )
        require(
            self.target_rate is None or 0 < self.target_rate <= 1e9,
            f"target_rate {self.target_rate}: give bits per second above 0, up to 1e9",
        )
        require(0.5 <= self.contrast <= 2, f"contrast {self.contrast}: give a number from 0.5 to 2")
        for name, most in (
            ("emphasis", 10),
            ("commitment", 1000),
            ("rate_weight", 1000),
            ("kl_weight", 1e6),
        ):
            value = getattr(self, name)
            require(0 <= value <= most, f"{name} {value}: give a number from 0 to {most:g}")
        require(0 < self.decay < 1, f"decay {self.decay}: give a number between 0 and 1")
        require(
            self.loss == "squared" or self.output == "sigmoid",
            f"loss {self.loss}: give output sigmoid, whose values are probabilities",
        )
        require(
            0 <= self.corruption_strength <= 1,
            f"corruption_strength {self.corruption_strength}: give a number from 0 to 1",
        )
        require(
            self.dense is None or 1 <= self.dense <= WIDEST,
            f"dense {self.dense}: give a number from 1 to {WIDEST}",
        )
        require(
            self.dense is None or not self.quantizes,
            f"dense {self.dense}: give bottleneck none or gaussian; one vector makes no grid of codes",
        )
        require(0 <= self.kl_warmup <= 1, f"kl_warmup {self.kl_warmup}: give a share from 0 to 1")
        require(
            not self.conditional or self.bottleneck == "gaussian",
            "conditional: give bottleneck gaussian",
        )
        require(
            not self.cosine or (self.bottleneck == "vq" and self.num_quantizers == 1),
            "cosine: give bottleneck vq and num_quantizers 1; what a code leaves lies on no sphere",
        )
        require(
            len(self.levels) > 0
            and min(self.levels) >= 3
            and max(self.levels) <= 65_536
            and math.prod(self.levels) <= 65_536,
            f"levels {self.levels}: give numbers from 3, whose product is at most 65536",
        )
        if self.bottleneck == "fsq":
            require(self.num_quantizers == 1, "num_quantizers: give 1 with bottleneck fsq")
            object.__setattr__(self, "latent_dim", len(self.levels))
            object.__setattr__(self, "codebook_size", math.prod(self.levels))

    @property
    def quantizes(self) -> bool:
        """Whether the bottleneck makes codes."""
        return self.bottleneck in ("vq", "fsq")

    @property
    def encoded_dim(self) -> int:
        """Channels that the encoder gives: a mean and a log variance each for a Gaussian on the grid."""
        return self.latent_dim * (2 if self.bottleneck == "gaussian" and not self.dense else 1)

    @property
    def stride(self) -> tuple[int, int]:
        """Bins and frames that one code stands for."""
        if self.encoder == "patch":
            return self.patch
        if self.encoder == "residual":
            return (4, 4)
        return (math.prod(self.strides), math.prod(self.strides))


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

    def steps_for(self, clips: int) -> int:
        """The schedule's length with so many clips to learn from."""
        if self.max_epochs is None:
            return self.steps
        per_epoch = -(-clips // self.batch_size)
        return min(self.steps, max(FEWEST_STEPS, self.max_epochs * per_epoch))

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
    seed: int = 0

    def __post_init__(self) -> None:
        require_finite(self)
        require_seed(self.seed)
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
