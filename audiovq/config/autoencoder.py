"""Settings of the autoencoder, in parts: network, bottleneck, loss.

In each part, the settings that only the lessons of `docs/learn.md` change come last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from audiovq.config.checks import (
    MOST_LAYERS,
    WIDEST,
    require,
    require_choices,
    require_finite,
)
from audiovq.config.serialize import OMIT_DEFAULT
from audiovq.config.spectrogram import SpectrogramConfig

PATCH = 8, 4
"""Bins and frames covered by one code, at the default hop and bands of a sample rate."""
ROW_MIXING = 8
"""Groups of channels of row mixing for tones."""
POWER_OF_HITS = 4.0
"""Weight of the error of areas' power for hits: their attacks are decoded as steep as they were recorded, or nearly."""


@dataclass(frozen=True)
class NetworkConfig:
    """Encoder and decoder: how spectrograms become grids of latents, and the other way round."""

    patch: tuple[int, int] | None = None
    """Bins and frames covered by one code (patch); None: 8 and 4, and as many more where a dataset has more
    bands or a shorter hop than the default of its sample rate, so that as many codes last a second."""
    tall: int = 1
    """Factor on the bins covered by one code, where no patch is given: fewer codes at any sample rate (patch)."""
    channels: int = 128
    """Channels of each block (patch, residual)."""
    encoder_blocks: int = 2
    """Residual blocks of the encoder (patch, residual)."""
    decoder_blocks: int = 3
    """Residual blocks of the decoder (patch, residual)."""
    row_mixing: int | None = field(default=None, metadata=OMIT_DEFAULT)
    """Groups of channels with a matrix each by which a block mixes all rows, so that a tone's pitch decides about
    all its partials; 0: rows see their neighbours only. None: 8 where no patch is given and the spectrograms are
    those of tones, with twice as many bands as the default or more; else 0 (patch)."""

    # For the lessons only.
    kind: Literal["patch", "conv", "residual"] = "patch"
    """patch: one strided convolution to the grid, then residual blocks. conv: the tutorials' strided
    layers. residual: two strided layers and residual blocks, as in the VQ-VAE paper."""
    filters: tuple[int, ...] = (32, 64, 64, 64)
    """Channels of each layer (conv)."""
    kernels: tuple[int, ...] = (3, 3, 3, 3)
    """Kernel size of each layer (conv)."""
    strides: tuple[int, ...] = (1, 2, 2, 1)
    """Stride of each layer (conv)."""
    output: Literal["identity", "sigmoid"] = "identity"
    """Last function of the decoder."""

    def __post_init__(self) -> None:
        require_choices(self)
        sizes = *(self.patch or PATCH), self.tall, self.channels, *self.filters
        require(
            all(1 <= size <= WIDEST for size in sizes),
            f"patch, tall, channels and filters: give numbers from 1 to {WIDEST}",
        )
        require(
            all(0 <= n <= MOST_LAYERS for n in (self.encoder_blocks, self.decoder_blocks)),
            f"encoder_blocks and decoder_blocks: give numbers from 0 to {MOST_LAYERS}",
        )
        require(
            self.row_mixing is None
            or (self.row_mixing >= 0 and self.channels % max(1, self.row_mixing) == 0),
            f"row_mixing {self.row_mixing}: give 0, or a divisor of channels, {self.channels}",
        )
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

    @property
    def stride(self) -> tuple[int, int]:
        """Bins and frames covered by one code."""
        if self.kind == "patch":
            return self.patch or PATCH
        if self.kind == "residual":
            return (4, 4)
        return (math.prod(self.strides), math.prod(self.strides))

    def fitted(self, spectrogram: SpectrogramConfig) -> NetworkConfig:
        """This network with a patch and row mixing for spectrograms, where no patch is given."""
        if self.patch is not None or spectrogram.images:
            return replace(self, patch=self.patch or PATCH)
        default = SpectrogramConfig.for_rate(spectrogram.sample_rate)
        bins, frames = self.tall * PATCH[0], PATCH[1]
        mixing = self.row_mixing
        if spectrogram.n_mels >= 2 * default.n_mels:
            bins *= 2
            if mixing is None and self.channels % ROW_MIXING == 0:
                mixing = ROW_MIXING
        if 2 * spectrogram.hop_length <= default.hop_length:
            frames *= 2
        return replace(self, patch=(bins, frames), row_mixing=mixing)


@dataclass(frozen=True)
class BottleneckConfig:
    """The bottleneck between encoder and decoder: vector quantization by default.

    `dim` and `num_codes` are the sizes of every kind; `latent_dim` and `codebook_size` set them for all
    kinds but fsq, where `levels` does.
    """

    latent_dim: int = 64
    """Dimensions of a latent and of a code's vector (fsq: set by levels)."""
    codebook_size: int = 512
    """Codes of each codebook (fsq: set by levels)."""
    num_quantizers: int = 1
    """Number of codebooks; each one codes the residual of those before it (vq)."""
    commitment: float = 0.25
    """Weight beta of the commitment loss (vq)."""
    decay: float = 0.99
    """Decay of the codebook's moving averages (vq, ema)."""
    kmeans_start: bool = True
    """Initialize the codebook by k-means on the first batch; otherwise uniformly in ±1 / codebook_size
    (vq)."""
    restart: bool = True
    """Replace unused codes by random latents of the batch (vq, ema)."""

    # For the lessons only.
    kind: Literal["vq", "fsq", "gaussian", "none"] = "vq"
    """vq: learned codebooks. fsq: codes on a fixed grid. gaussian: variational autoencoder. none: plain
    autoencoder."""
    update: Literal["ema", "gradient"] = "ema"
    """How the codebook learns: by moving averages, or by the codebook loss of the VQ-VAE paper (vq)."""
    cosine: bool = False
    """Normalize latents and codes to length 1 (vq with one quantizer)."""
    gradient_through: Literal["straight", "rotation"] = "straight"
    """Gradient of the quantizer: straight-through, or rotated with the latent (vq, fsq)."""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Number of values of each dimension of a latent (fsq)."""
    dense: int | None = None
    """Size of one vector for the whole clip, made by a dense layer (gaussian, none); None: the latents
    form a grid."""
    kl_weight: float = 0.1
    """Weight of the KL divergence, in nats per cell of the spectrogram (gaussian); 1 with
    cross-entropy and emphasis 0 gives the evidence lower bound."""
    kl_warmup: float = 0.0
    """Share of the schedule over which kl_weight grows from 0 (gaussian)."""
    conditional: bool = False
    """Learn a prior mean for each label value (gaussian)."""

    def __post_init__(self) -> None:
        require_choices(self)
        require_finite(self)
        require(
            1 <= self.latent_dim <= WIDEST,
            f"latent_dim {self.latent_dim}: give a number from 1 to {WIDEST}",
        )
        require(
            2 <= self.codebook_size <= 65_536,
            f"codebook_size {self.codebook_size}: give 2 to 65536",
        )
        require(
            1 <= self.num_quantizers <= 64, f"num_quantizers {self.num_quantizers}: give 1 to 64"
        )
        for name, most in (("commitment", 1000), ("kl_weight", 1e6)):
            value = getattr(self, name)
            require(0 <= value <= most, f"{name} {value}: give a number from 0 to {most:g}")
        require(0 < self.decay < 1, f"decay {self.decay}: give a number between 0 and 1")
        require(0 <= self.kl_warmup <= 1, f"kl_warmup {self.kl_warmup}: give a share from 0 to 1")
        require(
            self.dense is None or 1 <= self.dense <= WIDEST,
            f"dense {self.dense}: give a number from 1 to {WIDEST}",
        )
        require(
            len(self.levels) > 0
            and min(self.levels) >= 3
            and max(self.levels) <= 65_536
            and math.prod(self.levels) <= 65_536,
            f"levels {self.levels}: give numbers from 3, whose product is at most 65536",
        )
        self._require_compatible()

    def _require_compatible(self) -> None:
        """Raise AudiovqError where two settings exclude each other."""
        require(
            self.dense is None or not self.quantizes,
            f"dense {self.dense}: needs bottleneck none or gaussian; one vector makes no grid of codes",
        )
        require(
            not self.conditional or self.kind == "gaussian",
            "conditional: needs bottleneck gaussian",
        )
        require(
            not self.cosine or (self.kind == "vq" and self.num_quantizers == 1),
            "cosine: needs bottleneck vq and num_quantizers 1; residuals do not have length 1",
        )
        require(
            self.kind != "fsq" or self.num_quantizers == 1,
            "num_quantizers: give 1 with bottleneck fsq",
        )

    @property
    def quantizes(self) -> bool:
        """Whether the bottleneck makes codes."""
        return self.kind in ("vq", "fsq")

    @property
    def dim(self) -> int:
        """Dimensions of a latent: `latent_dim`, or with fsq one for each of `levels`."""
        return len(self.levels) if self.kind == "fsq" else self.latent_dim

    @property
    def num_codes(self) -> int:
        """Codes of each codebook: `codebook_size`, or with fsq the points of the grid of `levels`."""
        return math.prod(self.levels) if self.kind == "fsq" else self.codebook_size

    @property
    def encoded_dim(self) -> int:
        """Channels of the encoder's output: mean and log variance for a Gaussian on the grid, else `dim`."""
        return self.dim * (2 if self.kind == "gaussian" and not self.dense else 1)


@dataclass(frozen=True)
class LossConfig:
    """Reconstruction loss."""

    emphasis: float = 1.84
    """How much more errors weigh in loud cells than in quiet ones: powers of ten between the floor and
    the loudest cell; 0: equal weights."""
    power: float | None = field(default=None, metadata=OMIT_DEFAULT)
    """Weight of the error of the power of small areas, of 4 bins and 8 frames, beside that of each cell; 0: none. None: 4 for
    hits above 24 kHz, whose attacks get steeper, else 0."""

    # For the lessons only.
    kind: Literal["squared", "cross_entropy"] = "squared"
    """Squared error, or binary cross-entropy (needs a sigmoid output)."""
    corruption: Literal["none", "noise", "mask"] = "none"
    """Corruption of the input in training: added normal noise, or cells set to 0 (denoising autoencoder:
    Vincent et al. 2008)."""
    corruption_strength: float = 0.1
    """Standard deviation of the noise, or share of masked cells."""

    def __post_init__(self) -> None:
        require_choices(self)
        require_finite(self)
        require(0 <= self.emphasis <= 10, f"emphasis {self.emphasis}: give a number from 0 to 10")
        require(
            self.power is None or 0 <= self.power <= 1000,
            f"power {self.power}: give a number from 0 to 1000",
        )
        require(
            not self.power or self.kind == "squared",
            f"power {self.power}: needs loss squared",
        )
        require(
            0 <= self.corruption_strength <= 1,
            f"corruption_strength {self.corruption_strength}: give a number from 0 to 1",
        )

    def fitted(self, spectrogram: SpectrogramConfig) -> LossConfig:
        """This loss with a weight of the power for spectrograms, where none is given."""
        if self.power is not None:
            return self
        counts = spectrogram.is_of_hits and self.kind == "squared"
        return replace(self, power=POWER_OF_HITS if counts else 0.0)


@dataclass(frozen=True)
class AutoencoderConfig:
    """Settings of the autoencoder, and of how archives choose codes."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    contrast: float | None = None
    """Contrast of decoded spectrograms: factor on the distance of each value from the loudest one. It
    offsets the flattening that comes from the decoder averaging over all sounds of a code. None: fitted to
    validation clips after training."""
    silence: float | None = field(default=None, metadata=OMIT_DEFAULT)
    """Decoded loudness up to this, 0 to 1, is silence, before the contrast is applied: a decoder that is not sure returns
    a little more than 0. None: set where the contrast is fitted, above 24 kHz to .025, else to 0."""
    sharpness: float | None = field(default=None, metadata=OMIT_DEFAULT)
    """Factor on the differences of decoded loudness between neighbouring bins, before the contrast is applied, as a decoder
    that is not sure of a formant smooths it. None: fitted with the contrast, up to 24 kHz, else 1."""
    rate_weight: float | None = None
    """Rate-distortion trade-off when codes are chosen: cost of one bit, in units of the mean squared
    distance between latents and codes; 0: always the nearest code; None: .1, for hits above 24 kHz .32, and for those
    in stereo .07, since codes say less of the loudness alone there."""
    target_rate: float | None = None
    """Bits per second of an archive of validation clips: rate_weight is raised until this is met, with
    a margin."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(
            self.contrast is None or 0.5 <= self.contrast <= 2,
            f"contrast {self.contrast}: give a number from 0.5 to 2",
        )
        require(
            self.silence is None or 0 <= self.silence < 1,
            f"silence {self.silence}: give a number from 0 to below 1",
        )
        require(
            self.sharpness is None or 1 <= self.sharpness <= 2,
            f"sharpness {self.sharpness}: give a number from 1 to 2",
        )
        require(
            self.rate_weight is None or 0 <= self.rate_weight <= 1000,
            f"rate_weight {self.rate_weight}: give a number from 0 to 1000",
        )
        require(
            self.target_rate is None or 0 < self.target_rate <= 1e9,
            f"target_rate {self.target_rate}: give bits per second above 0, up to 1e9",
        )
        require(
            self.loss.kind == "squared" or self.network.output == "sigmoid",
            f"loss {self.loss.kind}: needs network output sigmoid, whose values are probabilities",
        )

    @property
    def quantizes(self) -> bool:
        """Whether the bottleneck makes codes."""
        return self.bottleneck.quantizes
