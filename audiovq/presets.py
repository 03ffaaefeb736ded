"""Settings of training by name."""

from audiovq.config import (
    AutoencoderConfig,
    MaskedConfig,
    OptimizerConfig,
    PriorConfig,
    TrainConfig,
)

PRESETS: dict[str, TrainConfig] = {
    "tiny": TrainConfig(
        autoencoder=AutoencoderConfig(channels=96, encoder_blocks=1, decoder_blocks=2),
        prior=PriorConfig(dim=128, layers=3),
        autoencoder_training=OptimizerConfig(
            steps=2_500, batch_size=4, learning_rate=2e-3, validate_every=500
        ),
        prior_training=OptimizerConfig(steps=4_000, learning_rate=2e-3, validate_every=1_000),
        max_minutes=5,
        autoencoder_share=0.3,
    ),
    "small": TrainConfig(
        autoencoder_training=OptimizerConfig(
            steps=16_000, learning_rate=1.5e-3, validate_every=1_000
        ),
        prior_training=OptimizerConfig(steps=12_000, learning_rate=1.5e-3, validate_every=1_000),
        masked_training=OptimizerConfig(steps=12_000, validate_every=1_000),
        max_minutes=20,
        autoencoder_share=0.4,
        masked_share=0.2,
    ),
    "base": TrainConfig(
        autoencoder=AutoencoderConfig(channels=256, encoder_blocks=4, decoder_blocks=6),
        prior=PriorConfig(dim=384, layers=8, heads=6, dropout=0.15),
        autoencoder_training=OptimizerConfig(
            steps=60_000, batch_size=32, learning_rate=7e-4, validate_every=2_000
        ),
        prior_training=OptimizerConfig(
            steps=40_000, batch_size=32, learning_rate=7e-4, validate_every=2_000
        ),
        masked=MaskedConfig(dim=512, cell=128, layers=8, heads=8, dropout=0.15),
        masked_training=OptimizerConfig(
            steps=40_000, batch_size=32, learning_rate=7e-4, validate_every=2_000
        ),
        masked_share=0.2,
    ),
}
"""tiny: five minutes on a laptop at most. small: twenty. base: for a GPU, without a limit. rate-…: an
hour, autoencoders alone, for archives of about 1, 2 and 4 kbit/s (speech at 8 kHz)."""


def _rate_preset(quantizers: int, codebook_size: int, target_rate: float) -> TrainConfig:
    """A codec for speech at 8 kHz, without a prior: tall patches of few frames, some stages of
    codes, and bits weighed until the rate is met."""
    return TrainConfig(
        autoencoder=AutoencoderConfig(
            patch=(16, 4),
            num_quantizers=quantizers,
            codebook_size=codebook_size,
            rate_weight=0.05,
            target_rate=target_rate,
        ),
        autoencoder_training=OptimizerConfig(
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
