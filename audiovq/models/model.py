"""`Model`: spectrogram, autoencoder, entropy tables, priors and labels."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Decoder
from audiovq.config.settings import MaskedConfig, PriorConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.numbers import LabelValues, label_numbers
from audiovq.models.autoencoder.autoencoder import CONTRAST, Autoencoder
from audiovq.models.autoencoder.vivid import VividDecoder
from audiovq.models.entropy.context_tables import LARGEST_TABLES, ContextTables, table_entries
from audiovq.models.known import KnownClips
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.pixelcnn import PixelCNN
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from audiovq.spectral.spectrogram import Spectrogram


@dataclass
class Model:
    """All parts that turn sounds into codes and codes into sounds."""

    spectrogram: Spectrogram
    autoencoder: Autoencoder
    context: ContextTables | None = None
    vivid: VividDecoder | None = None
    """Decoder of new sounds; None where it was not trained."""
    prior: Prior | None = None
    masked: MaskedPrior | None = None
    known: KnownClips | None = None
    """Codes of the training clips; None where they were left out, so that copies cannot be detected."""
    labels: LabelValues = field(default_factory=dict)
    """Values of each label, in the order of their indices: words or `Numbers`."""
    label_counts: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    """(indices of label values, number of training clips) pairs."""
    clip_frames: int = 0
    """Frames of the longest training clip."""
    header: dict[str, Any] = field(default_factory=dict)
    """model.json without its checksum."""

    @property
    def device(self) -> torch.device:
        """Device of the autoencoder."""
        return next(self.autoencoder.parameters()).device

    @property
    def sample_rate(self) -> int:
        """Sample rate of all waveforms, in Hz."""
        return self.spectrogram.config.sample_rate

    @property
    def channels(self) -> int:
        """Channels of all waveforms: 1, or of stereo 2."""
        return self.spectrogram.config.channels

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary of the priors. Raises AudiovqError where the model has no codes."""
        return Vocabulary(
            codebook_size=self.autoencoder.config.bottleneck.num_codes,
            num_quantizers=self.autoencoder.quantizer.num_quantizers,
            rows=self.autoencoder.rows,
            num_levels=self.spectrogram.config.num_levels,
            max_columns=-(-self.clip_frames // self.autoencoder.stride[1]),
        )

    @property
    def codes_per_second(self) -> float:
        """Codes per second, of all rows and quantizers."""
        config = self.spectrogram.config
        frames = config.sample_rate / config.hop_length
        return frames / self.autoencoder.stride[1] * self.vocabulary.slots

    @property
    def generates(self) -> bool:
        """Whether it makes new sounds or images: by a prior, or by the latents of a Gaussian bottleneck."""
        is_gaussian = self.autoencoder.config.bottleneck.kind == "gaussian"
        return is_gaussian or self.prior is not None or self.masked is not None

    def pick_decoder(self, decoder: Decoder) -> VividDecoder | None:
        """The decoder by name, as `Autoencoder.decode` takes it: None is the autoencoder's own, which `auto` names.

        Raises AudiovqError where the model does not have it.
        """
        if decoder == "vivid" and self.vivid is None:
            raise AudiovqError(
                "the model has no vivid decoder; train one with --vivid-share 0.15, or give --decoder faithful"
            )
        return self.vivid if decoder == "vivid" else None

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the file of each network, by its name; empty for a model that was not loaded or saved."""
        networks = "autoencoder", "vivid", "prior", "masked"
        return {part: str(self.header[part]["sha256"]) for part in networks if part in self.header}

    def new_vivid(self) -> VividDecoder:
        """A copy of the autoencoder's decoder with its contrast, but at least CONTRAST: the vivid one in training."""
        contrast = max(CONTRAST, self.autoencoder.contrast)  # else quiet cells would be filled
        return VividDecoder(copy.deepcopy(self.autoencoder.decoder), contrast)

    def new_prior(self, config: PriorConfig) -> Prior:
        """Untrained prior over this model's codes."""
        kind = PixelCNN if config.kind == "pixelcnn" else Transformer
        sizes = tuple(map(len, self.labels.values()))
        return kind(config, self.vocabulary, sizes, label_numbers(self.labels))

    def new_masked(self, config: MaskedConfig) -> MaskedPrior:
        """Untrained masked prior over this model's codes, with their vectors: the autoencoder is not trained any more."""
        sizes = tuple(map(len, self.labels.values()))
        dim = self.autoencoder.config.bottleneck.dim
        masked = MaskedPrior(config, self.vocabulary, sizes, label_numbers(self.labels), dim)
        for ours, codebook in zip(
            masked.vectors, self.autoencoder.quantizer.codebooks(), strict=True
        ):
            ours.copy_(codebook.vectors.detach())
        return masked

    def to(self, device: torch.device | str) -> Model:
        """Move all parts to `device`, in place; returns self."""
        for module in (self.spectrogram, self.autoencoder, self.vivid, self.prior, self.masked):
            if module is not None:
                module.to(device)
        return self


def new_model(
    spectrogram: SpectrogramConfig,
    autoencoder: AutoencoderConfig,
    labels: LabelValues,
    label_counts: list[tuple[tuple[int, ...], int]],
    clip_frames: int,
) -> Model:
    """Untrained model without a prior; the network's patch and the loss are fitted to the spectrograms.

    Raises AudiovqError where the bottleneck has a mean for each value of a label, and a label is a number, and where
    the context tables of its codebooks would be too large."""
    numbers = label_numbers(labels)
    if numbers and autoencoder.bottleneck.conditional:
        name = list(labels)[min(numbers)]
        raise AudiovqError(
            f"bottleneck.conditional: label {name} is a number, and has no mean for each value; leave it out of the dataset"
        )
    quantizers, size = autoencoder.bottleneck.num_quantizers, autoencoder.bottleneck.num_codes
    if autoencoder.quantizes and table_entries(quantizers, size) > LARGEST_TABLES:
        most = LARGEST_TABLES // table_entries(quantizers, 0) - 1
        raise AudiovqError(
            f"bottleneck.codebook_size {size}: with num_quantizers {quantizers}, give at most {most}, or the context"
            " tables, by which archives are coded, would be too large"
        )
    network, loss = autoencoder.network.fitted(spectrogram), autoencoder.loss.fitted(spectrogram)
    autoencoder = replace(autoencoder, network=network, loss=loss)
    return Model(
        Spectrogram(spectrogram),
        Autoencoder(
            autoencoder,
            spectrogram.bins,
            tuple(map(len, labels.values())),
            clip_frames,
            spectrogram.planes,
        ),
        labels=labels,
        label_counts=label_counts,
        clip_frames=clip_frames,
    )


def require_match(model: Model, dataset: Dataset) -> None:
    """Raise AudiovqError where a dataset's spectrograms or labels are not those of a model."""
    require_spectrograms(model, dataset)
    if dataset.labels != model.labels:
        raise AudiovqError(
            f"{dataset.folder}: has other labels than the model;"
            " use the dataset that the model was trained on"
        )


def require_spectrograms(model: Model, dataset: Dataset) -> None:
    """Raise AudiovqError where a dataset's spectrograms were made with other settings than a model's."""
    ours, theirs = asdict(model.spectrogram.config), asdict(dataset.spectrogram)
    for name, value in ours.items():
        if theirs[name] != value:
            raise AudiovqError(
                f"{dataset.folder}: made with {name} {theirs[name]}, the model with {value};"
                " use the dataset that the model was trained on"
            )
