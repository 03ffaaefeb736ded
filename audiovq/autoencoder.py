"""Encoder, bottleneck, decoder over spectrograms of any size.

Padding never reaches a clip: it is zeroed after every layer, so a padded batch gives for each clip
what the clip alone gives, and no loss or codebook statistic sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiovq import ranks
from audiovq.bottlenecks import Bottleneck, Gaussian, NoBottleneck, Placed, Quantizer
from audiovq.config import AudiovqError, AutoencoderConfig
from audiovq.graphs import sent
from audiovq.grid import Inside
from audiovq.networks import NETWORKS, Dense, mask_columns

RECONSTRUCTION_SCALE = 16.0
"""Brings the squared error of a spectrogram in [0, 1] to about 1 for a model that knows nothing,
so that the weight of the commitment loss means what it means in the 2017 paper."""

EMPHASIS_FLOOR = 0.02
"""Weight of silence in the loss: the floor too must come back."""


@dataclass(frozen=True)
class Reconstruction:
    """What `Autoencoder.forward` returns."""

    spectrogram: Tensor
    """(batch, 1, bins, frames), zeros beyond each clip's columns."""
    loss: Tensor
    """Scalar to minimize: the two that follow, added."""
    reconstruction_loss: Tensor
    """The weighted error times RECONSTRUCTION_SCALE, or the cross-entropy weighted alike, in nats."""
    bottleneck_loss: Tensor
    """Codebook and commitment losses, or the KL divergence times its weight."""
    squared_error: Tensor
    """Scalar: mean over the cells inside the clips."""
    weighted_error: Tensor
    """The same, loud cells weighing more: see `loudness_weights`."""
    kl: Tensor | None
    """Scalar: KL divergence in nats per cell, where the bottleneck has one."""


def loudness_weights(spectrogram: Tensor, emphasis: float) -> Tensor:
    """Values in [0, 1] → how much an error there weighs, EMPHASIS_FLOOR to 1.

    10 ** (emphasis · (value - 1)): with 1.84 over a range of 80 dB, magnitude ** 0.46, which is how
    loudness goes with magnitude (Zwicker; the exponent is that of PESQ, ITU-T P.862). So bits are
    not spent on what cannot be heard beside what is loud. 0: all cells alike.
    """
    return EMPHASIS_FLOOR + (1 - EMPHASIS_FLOOR) * 10 ** (emphasis * (spectrogram - 1))


class Autoencoder(nn.Module):
    """2D convolutional autoencoder; with bottleneck `vq`, the VQ-VAE of van den Oord et al. 2017.

    For any number of bins and frames: both are padded with zeros to whole codes inside. With `dense`
    clips are cut or padded to `clip_frames`, since a dense layer has a fixed size.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        bins: int,
        label_sizes: tuple[int, ...] = (),
        clip_frames: int = 0,
    ) -> None:
        """`label_sizes`: how many values each label has (`conditional`); `clip_frames`: of the longest
        clip, which `dense` and `sample` go by."""
        super().__init__()
        self.config = config
        self.bins = bins
        self.stride = config.stride
        """(bins, frames) that one code stands for."""
        self.rows = -(-bins // self.stride[0])
        self.columns = -(-clip_frames // self.stride[1])
        """Of the longest clip."""
        encoder, decoder = NETWORKS[config.encoder]
        self.encoder: nn.Module = encoder(config, self.rows)
        self.decoder: nn.Module = decoder(config, self.rows)
        self.placed = Placed(config)
        self.dense: Dense | None = None
        dim, cells = config.latent_dim, self.stride[0] * self.stride[1]
        if config.dense is not None:
            if not clip_frames:
                raise ValueError("dense: needs clip_frames")
            self.dense = Dense(config, config.dense, self.rows, self.columns)
            dim, cells = config.dense, cells * self.rows * self.columns
        self.bottleneck: Quantizer | Gaussian | NoBottleneck
        if config.quantizes:
            self.bottleneck = Quantizer(config)
        elif config.bottleneck == "gaussian":
            self.bottleneck = Gaussian(config, dim, cells, label_sizes)
        else:
            self.bottleneck = NoBottleneck()
        self.to(memory_format=torch.channels_last)

    @property
    def reach(self) -> int:
        """Columns on either side that a column's latents, or a column's frames, depend on, at most."""
        config = self.config
        if config.encoder == "conv":
            return sum(kernel // 2 for kernel in config.kernels) + 1
        return max(config.encoder_blocks, config.decoder_blocks) + 3 * (config.encoder != "patch")

    def num_columns(self, num_frames: Tensor) -> Tensor:
        """(batch,) frames → (batch,) columns of codes that cover them."""
        return (num_frames + self.stride[1] - 1) // self.stride[1]

    def forward(
        self, spectrogram: Tensor, num_frames: Tensor, labels: Tensor | None = None
    ) -> Reconstruction:
        """(batch, 1, bins, frames) in [0, 1] and each clip's own (batch,) frames → Reconstruction.

        `labels` (batch, labels) are for `conditional`. What `dense` cuts off counts in no loss and comes
        back as zeros; what it fills up is silence, and counts. Where `num_frames` lies on a GPU, nothing
        here waits for it, and shapes depend on shapes alone.
        """
        asked = spectrogram.shape[3]
        spectrogram, num_frames = self._fitted(spectrogram, num_frames)
        frames = torch.arange(spectrogram.shape[3], device=spectrogram.device)
        cells = (frames < sent(num_frames, spectrogram.device)[:, None])[:, None, None]
        seen = spectrogram
        if self.training and self.config.corruption != "none":
            seen = self._corrupted(spectrogram) * cells
        latents, inside = self._latents(seen, num_frames)
        bottleneck = self._through(latents, inside, labels)
        raw = self._decode(bottleneck.latents, inside)
        output = self.values(raw, inside.mask)[..., : spectrogram.shape[3]]
        squared = (output - spectrogram).square() * cells
        weights = loudness_weights(spectrogram, self.config.emphasis) * cells
        weight = ranks.mean(weights.sum())
        weighted_error = (squared * weights).sum() / weight
        reconstruction_loss = RECONSTRUCTION_SCALE * weighted_error
        if self.config.loss == "cross_entropy":
            entropy = nn.functional.binary_cross_entropy_with_logits(
                raw[..., : spectrogram.shape[3]], spectrogram, reduction="none"
            )
            reconstruction_loss = (entropy * weights).sum() / weight
        return Reconstruction(
            nn.functional.pad(output, (0, asked - output.shape[3])),
            reconstruction_loss + bottleneck.loss,
            reconstruction_loss.detach(),
            bottleneck.loss.detach(),
            squared.detach().sum() / (ranks.mean(cells.sum()) * self.bins),
            weighted_error.detach(),
            bottleneck.kl,
        )

    def latents(self, spectrogram: Tensor, num_frames: Tensor) -> Tensor:
        """(batch, 1, bins, frames), (batch,) → what is quantized (batch, dim, rows, columns), 0 beyond.

        Of a Gaussian its mean; with `dense` (batch, dense).
        """
        latents, _ = self._latents(*self._fitted(spectrogram, num_frames))
        if self.dense is not None:
            latents = self.dense(latents)
        if isinstance(self.bottleneck, Gaussian):
            latents = latents.chunk(2, dim=1)[0]
        return latents.float()

    def encode(self, spectrogram: Tensor, num_frames: Tensor) -> Tensor:
        """(batch, 1, bins, frames), (batch,) → codes (batch, quantizers, rows, columns), 0 beyond."""
        return self.nearest(self.latents(spectrogram, num_frames), self.num_columns(num_frames))

    def nearest(self, latents: Tensor, num_columns: Tensor) -> Tensor:
        """Latents (batch, dim, rows, columns), (batch,) columns → the nearest codes, as `encode`."""
        quantizer = self.quantizer
        inside = self._inside(num_columns, latents.shape[3], latents.device)
        return inside.put(quantizer.encode(inside.take(latents)))

    def decode(self, codes: Tensor, num_columns: Tensor) -> Tensor:
        """Codes (batch, quantizers, rows, columns), (batch,) columns → (batch, 1, bins, frames).

        Frames are columns × stride, zeros beyond each clip's own columns; values are in [0, 1].
        """
        inside = self._inside(num_columns, codes.shape[3], codes.device)
        vectors = self.quantizer.decode(inside.take(codes))
        return self.heard(self.values(self._decode(vectors, inside), inside.mask))

    def decode_latents(self, latents: Tensor, num_columns: Tensor) -> Tensor:
        """What `latents` gives, (batch,) columns → (batch, 1, bins, frames) in [0, 1], as `decode`."""
        device = latents.device
        if self.dense is None:
            inside = self._inside(num_columns, latents.shape[3], device)
            return self.heard(self.values(self._decode(inside.take(latents), inside), inside.mask))
        whole = self._inside(torch.full_like(num_columns, self.columns), self.columns, device)
        inside = self._inside(num_columns, self.columns, device)
        return self.heard(self.values(self._decode(latents, whole), inside.mask))

    def sample(
        self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """`n` new spectrograms (n, 1, bins, frames) in [0, 1], as long as the longest clip.

        Latents are drawn from the prior of a Gaussian; with `conditional`, from that of `labels`
        (n, labels). `generator` is of the CPU. Raises AudiovqError where the bottleneck has no prior.
        """
        if not isinstance(self.bottleneck, Gaussian):
            raise AudiovqError(
                f"the model's latents have no distribution (bottleneck {self.config.bottleneck});"
                " train one with --autoencoder.bottleneck gaussian"
            )
        device = next(self.parameters()).device
        inside = self._inside(torch.full((n,), self.columns), self.columns, device)
        vectors = n if self.dense is not None else n * self.rows * self.columns
        noise = torch.randn(vectors, self.bottleneck.dim, generator=generator).to(device)
        latents = noise + self.bottleneck.prior_mean(self._of_vectors(labels, inside))
        return self.heard(self.values(self._decode(latents, inside), inside.mask))

    def heard(self, output: Tensor) -> Tensor:
        """What the decoder gives, (batch, 1, bins, frames) → what is made into sound, in [0, 1].

        Values are stretched away from 1 by `contrast`; zeros stay.
        """
        return (1 - (1 - output) * self.config.contrast).clamp(0, 1) * (output > 0)

    @property
    def quantizer(self) -> Quantizer:
        """The bottleneck, where it makes codes. Raises AudiovqError where it does not."""
        if not isinstance(self.bottleneck, Quantizer):
            raise AudiovqError(
                f"the model has no quantizer (bottleneck {self.config.bottleneck}), so it has no codes"
            )
        return self.bottleneck

    def _fitted(self, spectrogram: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """With `dense`, cut or padded to the grid's columns, silence being a part of the clip."""
        if self.dense is None:
            return spectrogram, num_frames
        frames = self.columns * self.stride[1]
        spectrogram = nn.functional.pad(spectrogram, (0, frames - spectrogram.shape[3]))
        return spectrogram, torch.full_like(num_frames, frames)

    def _corrupted(self, spectrogram: Tensor) -> Tensor:
        """Noise added, or cells set to 0: the stochastic mapping of Vincent et al. 2008, section 2.3."""
        strength, (clips, *shape) = self.config.corruption_strength, spectrogram.shape
        device = spectrogram.device
        if self.config.corruption == "mask":
            chance = ranks.drawn(clips, lambda n: torch.rand(n, *shape, device=device))
            return spectrogram * (chance >= strength)
        noise = ranks.drawn(clips, lambda n: torch.randn(n, *shape, device=device))
        return spectrogram + strength * noise

    def _latents(self, spectrogram: Tensor, num_frames: Tensor) -> tuple[Tensor, Inside]:
        """Latents (batch, dim, rows, columns), where codes can lie, and which are inside the clips."""
        bins, frames = spectrogram.shape[2:]
        columns = -(-frames // self.stride[1])
        inside = self._inside(self.num_columns(num_frames), columns, spectrogram.device)
        padding = (0, columns * self.stride[1] - frames, 0, self.rows * self.stride[0] - bins)
        padded = nn.functional.pad(spectrogram, padding)
        latents: Tensor = self.encoder(padded.to(memory_format=torch.channels_last), inside.mask)
        return self.placed(latents), inside

    def _through(self, latents: Tensor, inside: Inside, labels: Tensor | None) -> Bottleneck:
        """Latents (batch, dim, rows, columns), labels (batch, labels) → what the bottleneck makes."""
        vectors, weights = inside.take(latents), inside.weights
        if self.dense is not None:
            vectors, weights = self.dense(latents), None
        made: Bottleneck
        if isinstance(self.bottleneck, Gaussian):
            made = self.bottleneck(vectors, self._of_vectors(labels, inside), weights)
        else:
            made = self.bottleneck(vectors, weights)
        return made

    def _of_vectors(self, labels: Tensor | None, inside: Inside) -> Tensor | None:
        """labels (batch, labels) → those of each vector of the bottleneck (vectors, labels)."""
        if labels is None:
            return None
        labels = sent(labels, inside.mask.device)
        return labels if self.dense is not None else inside.of_clips(labels)

    def _inside(self, num_columns: Tensor, columns: int, device: torch.device) -> Inside:
        """Which cells of grids of codes lie inside clips of (batch,) columns."""
        return Inside.of(num_columns, self.rows, columns, device)

    def _decode(self, vectors: Tensor, inside: Inside) -> Tensor:
        """Vectors of the bottleneck → (batch, 1, bins, columns × stride) as the decoder gives it."""
        if self.dense is not None:
            grid = mask_columns(self.dense.back(vectors), inside.mask)
        else:
            grid = inside.put(vectors)
        output: Tensor = self.decoder(grid, inside.mask)
        return output[:, :, : self.bins].float()

    def values(self, raw: Tensor, mask: Tensor) -> Tensor:
        """What the decoder gives (batch, 1, bins, frames) → values, zeros beyond each clip's columns."""
        return mask_columns(raw.sigmoid(), mask) if self.config.output == "sigmoid" else raw
