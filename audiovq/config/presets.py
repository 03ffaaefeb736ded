"""Settings of training by name."""

from dataclasses import replace
from functools import partial
from typing import Literal

from audiovq.config.autoencoder import (
    AutoencoderConfig,
    BottleneckConfig,
    LossConfig,
    NetworkConfig,
)
from audiovq.config.settings import (
    MASKED_EPOCHS,
    MASKED_LEARNT_SHARE,
    PRIOR_EPOCHS,
    PRIOR_PATIENCE,
    PRIOR_TOLERANCE,
    MaskedConfig,
    OptimizerConfig,
    PriorConfig,
    TrainConfig,
)

_autoencoder_training = partial(OptimizerConfig, optimizer="muon")
_prior_training = partial(
    OptimizerConfig,
    max_epochs=PRIOR_EPOCHS,
    patience=PRIOR_PATIENCE,
    tolerance=PRIOR_TOLERANCE,
)
_masked_training = partial(
    OptimizerConfig,
    max_epochs=MASKED_EPOCHS,
    tolerance=PRIOR_TOLERANCE,
    learnt_share=MASKED_LEARNT_SHARE,
)
PRESETS: dict[str, TrainConfig] = {
    "tiny": TrainConfig(
        autoencoder=AutoencoderConfig(
            NetworkConfig(channels=96, encoder_blocks=1, decoder_blocks=2)
        ),
        prior=PriorConfig(dim=128, cell=96, layers=3),
        autoencoder_training=_autoencoder_training(
            steps=2_500, batch_size=4, learning_rate=2e-3, validate_every=500
        ),
        prior_training=_prior_training(steps=4_000, learning_rate=2e-3, validate_every=1_000),
        max_minutes=5,
        autoencoder_share=0.3,
    ),
    "small": TrainConfig(
        autoencoder_training=_autoencoder_training(
            steps=16_000, learning_rate=1.5e-3, validate_every=1_000
        ),
        # On 2,400 digits the prior was best at 6,000 and 7,000 steps of 16,000, and the masked prior gained
        # almost nothing after 12,000. On a laptop the time limit ends both earlier.
        prior_training=_prior_training(steps=10_000, learning_rate=2e-3, validate_every=1_000),
        masked_training=_masked_training(steps=12_000, validate_every=1_000),
        vivid_training=OptimizerConfig(
            steps=6_000, batch_size=12, learning_rate=4e-4, validate_every=1_000
        ),
        max_minutes=20,
        autoencoder_share=0.5,
        vivid_share=0.15,
        masked_share=0.2,
    ),
    "base": TrainConfig(
        autoencoder=AutoencoderConfig(
            NetworkConfig(channels=256, encoder_blocks=4, decoder_blocks=6)
        ),
        prior=PriorConfig(dim=384, cell=256, layers=8, heads=6),
        autoencoder_training=_autoencoder_training(
            steps=60_000, batch_size=32, learning_rate=7e-4, validate_every=2_000
        ),
        prior_training=_prior_training(
            steps=40_000, batch_size=32, learning_rate=7e-4, validate_every=2_000
        ),
        masked=MaskedConfig(dim=384, cell=256, layers=8, heads=6),
        masked_training=_masked_training(
            steps=40_000, batch_size=32, learning_rate=7e-4, validate_every=2_000
        ),
        vivid_training=OptimizerConfig(
            steps=15_000, batch_size=32, learning_rate=4e-4, validate_every=2_000
        ),
        vivid_share=0.15,
        masked_share=0.2,
    ),
}
"""tiny: at most five minutes on a laptop. small: at most twenty. base: for a GPU, no time limit. rate-…: one
hour, autoencoders without a prior, for archives of 1, 2 and 4 kbit/s at any sample rate."""


def _rate_preset(quantizers: int, codebook_size: int, target_rate: float) -> TrainConfig:
    """Codec without a prior: tall patches, residual quantizers, and a target rate, met on validation clips."""
    return TrainConfig(
        autoencoder=AutoencoderConfig(
            NetworkConfig(tall=2),
            BottleneckConfig(num_quantizers=quantizers, codebook_size=codebook_size),
            rate_weight=0.0,  # the nearest codes, unless they take more than the target
            target_rate=target_rate,
        ),
        autoencoder_training=_autoencoder_training(
            steps=80_000, learning_rate=1.5e-3, validate_every=2_000
        ),
        max_minutes=60,
        autoencoder_share=1.0,
    )


PRESETS |= {
    "rate-1k": _rate_preset(1, 2048, 1_000),
    "rate-2k": _rate_preset(2, 1024, 2_000),
    "rate-4k": _rate_preset(4, 512, 4_000),
}
LESSON = AutoencoderConfig(
    NetworkConfig(
        kind="conv",
        filters=(32, 64, 64, 64),
        kernels=(3, 3, 3, 3),
        strides=(1, 2, 2, 1),
        output="sigmoid",
    ),
    BottleneckConfig(
        latent_dim=16,
        codebook_size=64,
        commitment=0.25,
        kmeans_start=False,
        restart=False,
        update="gradient",
    ),
    LossConfig(emphasis=0.0, power=0.0),
    contrast=1.0,
    rate_weight=0.0,
)
"""The VQ-VAE of the tutorials; the other lessons change one part of it, mostly the bottleneck."""


def _lesson_preset(
    network: NetworkConfig = LESSON.network,
    bottleneck: BottleneckConfig = LESSON.bottleneck,
    loss: LossConfig = LESSON.loss,
    prior: Literal["transformer", "pixelcnn"] = "transformer",
) -> TrainConfig:
    """One lesson of a few minutes, for images and for short sounds: LESSON with other parts."""
    return TrainConfig(
        autoencoder=replace(LESSON, network=network, bottleneck=bottleneck, loss=loss),
        prior=PriorConfig(kind=prior, dim=96, layers=4, dropout=0.1),
        autoencoder_training=OptimizerConfig(
            steps=6_000,
            learning_rate=1e-3,
            schedule="exponential",
            validate_every=500,
        ),
        prior_training=_prior_training(
            steps=6_000, batch_size=8, learning_rate=2e-3, validate_every=500
        ),
        max_minutes=5.5 if bottleneck.quantizes else 1.7,
        autoencoder_share=0.4,
    )


_PLAIN = replace(LESSON.bottleneck, kind="none")
_GAUSSIAN = replace(LESSON.bottleneck, kind="gaussian", dense=16, kl_weight=1.0)
_CROSS_ENTROPY = replace(LESSON.loss, kind="cross_entropy")
"""With _GAUSSIAN, the evidence lower bound."""
PRESETS |= {
    "lesson-ae": _lesson_preset(bottleneck=_PLAIN),
    "lesson-dae": _lesson_preset(
        bottleneck=_PLAIN, loss=replace(LESSON.loss, corruption="noise", corruption_strength=0.3)
    ),
    "lesson-vae": _lesson_preset(bottleneck=_GAUSSIAN, loss=_CROSS_ENTROPY),
    "lesson-cvae": _lesson_preset(
        bottleneck=replace(_GAUSSIAN, conditional=True), loss=_CROSS_ENTROPY
    ),
    "lesson-vqvae": _lesson_preset(),
    "lesson-vqvae-residual": _lesson_preset(
        network=replace(
            LESSON.network, kind="residual", channels=32, encoder_blocks=2, decoder_blocks=2
        )
    ),
    "lesson-pixelcnn": _lesson_preset(prior="pixelcnn"),
}
