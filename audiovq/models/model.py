"""`Model`: spectrogram, autoencoder, entropy tables and priors, with the labels that they know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import to_json
from audiovq.config.settings import MaskedConfig, PriorConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.dataset import Dataset
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.entropy.context_tables import ContextTables
from audiovq.models.known import KnownClips
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.pixelcnn import PixelCNN
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from audiovq.spectral.spectrogram import Spectrogram


@dataclass
class Model:
    """Everything that turns sounds into codes and codes into sounds."""

    spectrogram: Spectrogram
    autoencoder: Autoencoder
    context: ContextTables | None = None
    prior: Prior | None = None
    masked: MaskedPrior | None = None
    known: KnownClips | None = None
    """The training clips' codes; None where they were left out, and copies cannot be told."""
    labels: dict[str, list[str]] = field(default_factory=dict)
    """Each label's values, in the order of their numbers."""
    label_counts: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    """Which values the training clips have together, and how often."""
    clip_frames: int = 0
    """Frames of the longest clip trained on."""
    header: dict[str, Any] = field(default_factory=dict)
    """model.json as read, but for its checksum."""

    @property
    def device(self) -> torch.device:
        return next(self.autoencoder.parameters()).device

    @property
    def sample_rate(self) -> int:
        """Hz of every waveform in and out."""
        return self.spectrogram.config.sample_rate

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the prior's tokens. Raises AudiovqError where the model makes no codes."""
        return Vocabulary(
            codebook_size=self.autoencoder.config.bottleneck.num_codes,
            num_quantizers=self.autoencoder.quantizer.num_quantizers,
            rows=self.autoencoder.rows,
            num_levels=self.spectrogram.config.num_levels,
            max_columns=-(-self.clip_frames // self.autoencoder.stride[1]),
        )

    @property
    def codes_per_second(self) -> float:
        """Of the whole grid, all quantizers."""
        config = self.spectrogram.config
        frames = config.sample_rate / config.hop_length
        return frames / self.autoencoder.stride[1] * self.vocabulary.slots

    def new_prior(self, config: PriorConfig) -> Prior:
        """A prior over this model's codes, untrained."""
        kind = PixelCNN if config.kind == "pixelcnn" else Transformer
        return kind(config, self.vocabulary, tuple(map(len, self.labels.values())))

    def new_masked(self, config: MaskedConfig) -> MaskedPrior:
        """A masked prior over this model's codes, untrained."""
        return MaskedPrior(config, self.vocabulary, tuple(map(len, self.labels.values())))

    def to(self, device: torch.device | str) -> Model:
        """Move all parts, in place."""
        for module in (self.spectrogram, self.autoencoder, self.prior, self.masked):
            if module is not None:
                module.to(device)
        return self


def new_model(
    spectrogram: SpectrogramConfig,
    autoencoder: AutoencoderConfig,
    labels: dict[str, list[str]],
    label_counts: list[tuple[tuple[int, ...], int]],
    clip_frames: int,
) -> Model:
    """An untrained model without a prior."""
    return Model(
        Spectrogram(spectrogram),
        Autoencoder(autoencoder, spectrogram.bins, tuple(map(len, labels.values())), clip_frames),
        labels=labels,
        label_counts=label_counts,
        clip_frames=clip_frames,
    )


def require_match(model: Model, dataset: Dataset) -> None:
    """Raise AudiovqError where a dataset's spectrograms or labels are not those of a model."""
    ours, theirs = to_json(model.spectrogram.config), to_json(dataset.spectrogram)
    for name, value in ours.items():
        if theirs[name] != value:
            raise AudiovqError(
                f"{dataset.folder}: made with {name} {theirs[name]}, the model with {value};"
                " name the dataset that the model was trained on"
            )
    if dataset.labels != model.labels:
        raise AudiovqError(
            f"{dataset.folder}: has other labels than the model;"
            " name the dataset that the model was trained on"
        )
