"""A training that takes seconds, for tests that need a model made by the real stages."""

from audiovq.config.autoencoder import AutoencoderConfig, BottleneckConfig, NetworkConfig
from audiovq.config.settings import OptimizerConfig, PriorConfig, TrainConfig

CONFIG = TrainConfig(
    autoencoder=AutoencoderConfig(
        NetworkConfig(channels=16, encoder_blocks=1, decoder_blocks=1),
        BottleneckConfig(latent_dim=8, codebook_size=32),
    ),
    prior=PriorConfig(dim=32, layers=2, heads=2),
    autoencoder_training=OptimizerConfig(steps=60, batch_size=4, warmup=5, validate_every=30),
    prior_training=OptimizerConfig(steps=40, batch_size=4, warmup=5, validate_every=20),
    precision="float32",
)
