"""Autoencoder over spectrograms of any size: encoder, bottleneck, decoder and reconstruction loss.

Padding is zeroed after every layer and excluded from losses and codebook statistics, so that each clip
of a padded batch gives the same result as on its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.errors import AudiovqError
from audiovq.models.autoencoder.gaussian import Bottleneck, Gaussian, NoBottleneck
from audiovq.models.autoencoder.lesson_networks import (
    ConvDecoder,
    ConvEncoder,
    Dense,
    ResidualDecoder,
    ResidualEncoder,
)
from audiovq.models.autoencoder.masks import CellMask
from audiovq.models.autoencoder.networks import PatchDecoder, PatchEncoder, mask_columns
from audiovq.models.autoencoder.quantizers import LatentProjection, Quantizer
from audiovq.models.autoencoder.vivid import VividDecoder
from audiovq.runtime import distributed
from audiovq.runtime.device import to_device_async
from audiovq.spectral.scale import NEUTRAL

RECONSTRUCTION_SCALE = 16.0
"""Scales the squared error of spectrograms in [0, 1] to about 1 for an untrained model, so that the
weight of the commitment loss has the meaning that it has in the 2017 paper."""
NETWORKS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "patch": (PatchEncoder, PatchDecoder),
    "conv": (ConvEncoder, ConvDecoder),
    "residual": (ResidualEncoder, ResidualDecoder),
}
"""Encoder and decoder of each `NetworkConfig.kind`."""
CONTRAST = 1.03
"""Contrast of a decoder in training, whose own is not fitted yet."""
EMPHASIS_FLOOR = 0.02
"""Weight of silence in the loss: the floor must be reconstructed too."""
AREA = 4, 8
"""Bins and frames of an area whose power counts in the loss: 46 ms of hits at 44.1 kHz."""
AREA_EMPHASIS = 0.6
"""`emphasis` of areas: quiet ones, as before an onset, weigh more than quiet cells do."""
RANGE_BELS = 8.0
"""Powers of ten of the power between the floor and the loudest cell, with the default range of 80 dB."""
PLANE_WEIGHTS = 1.0, 0.25, 0.12
"""Weight in the loss of each plane of stereo, without `power_error`: loudness, balance, coherence."""


@dataclass(frozen=True)
class Reconstruction:
    """Output of `Autoencoder.forward`."""

    spectrogram: Tensor
    """(batch, planes, bins, frames), zeros after each clip's last column."""
    loss: Tensor
    """Scalar to minimize: `reconstruction_loss` + `bottleneck_loss`."""
    reconstruction_loss: Tensor
    """`weighted_error`, and `power_error` with its weight, times RECONSTRUCTION_SCALE; or the cross-entropy with the
    weights of the first, in nats."""
    bottleneck_loss: Tensor
    """Codebook and commitment losses, or the weighted KL divergence."""
    squared_error: Tensor
    """Scalar: mean squared error of the loudness over the cells inside the clips."""
    weighted_error: Tensor
    """`Autoencoder.weighted_error`."""
    kl: Tensor | None
    """Scalar: KL divergence in nats per cell; None where the bottleneck has none."""


def loudness_weights(spectrogram: Tensor, emphasis: float) -> Tensor:
    """Weight of the error at each cell, EMPHASIS_FLOOR to 1, for spectrogram values in [0, 1].

    10 ** (emphasis · (value - 1)): at 1.84 over a range of 80 dB this is magnitude ** 0.46, the relation
    of loudness to magnitude (Zwicker; the exponent is that of PESQ, ITU-T P.862), so that no bits are
    spent on masked sounds. With emphasis 0 all cells weigh the same.
    """
    return EMPHASIS_FLOOR + (1 - EMPHASIS_FLOOR) * 10 ** (emphasis * (spectrogram - 1))


def detail(spectrogram: Tensor) -> Tensor:
    """Difference of each cell from the mean of three neighbouring bins, for (batch, planes, bins, frames)."""
    padded = nn.functional.pad(spectrogram, (0, 0, 1, 1), mode="replicate")
    return spectrogram - nn.functional.avg_pool2d(padded, (3, 1), 1)


class Autoencoder(nn.Module):
    """2D convolutional autoencoder; with bottleneck `vq`, the VQ-VAE of van den Oord et al. 2017.

    Takes any number of bins and frames, and as many planes as it was made for; both are padded with zeros to whole
    codes. With `dense`, clips are cut or padded to `clip_frames`, since a dense layer has a fixed size.
    """

    neutral: Tensor
    plane_weights: Tensor

    def __init__(
        self,
        config: AutoencoderConfig,
        bins: int,
        label_sizes: tuple[int, ...] = (),
        clip_frames: int = 0,
        planes: int = 1,
    ) -> None:
        """`label_sizes`: number of values of each label, for `conditional`. `clip_frames`: frames of the
        longest clip, for `dense` and `sample`. `planes`: of the spectrograms."""
        super().__init__()
        self.config = config
        self.codes_frozen = False
        """Whether `freeze_codes` was called."""
        self.bins = bins
        self.planes = planes
        self.stride = config.network.stride
        """(bins, frames) covered by one code."""
        self.rows = -(-bins // self.stride[0])
        self.columns = -(-clip_frames // self.stride[1])
        """Columns of the longest clip."""
        encoder, decoder = NETWORKS[config.network.kind]
        self.encoder: nn.Module = encoder(
            config.network, config.bottleneck.encoded_dim, self.rows, planes
        )
        self.decoder: nn.Module = decoder(config.network, config.bottleneck.dim, self.rows, planes)
        if planes > 1:
            # The error of the power comes to that of the loudness: else the other planes would weigh less.
            more = 1 + (config.loss.power or 0) / 2
            loudness, *others = PLANE_WEIGHTS
            weights = loudness, *(more * weight for weight in others)
            for name, values in (("neutral", NEUTRAL), ("plane_weights", weights)):
                self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.latent_projection = LatentProjection(config.bottleneck)
        self.dense: Dense | None = None
        dim, cells = config.bottleneck.dim, self.stride[0] * self.stride[1]
        if config.bottleneck.dense is not None:
            if not clip_frames:
                raise ValueError("dense: needs clip_frames")
            dim = config.bottleneck.dense
            self.dense = Dense(config.bottleneck, dim, self.rows, self.columns)
            cells = cells * self.rows * self.columns
        self.bottleneck: Quantizer | Gaussian | NoBottleneck
        if config.quantizes:
            self.bottleneck = Quantizer(config.bottleneck)
        elif config.bottleneck.kind == "gaussian":
            self.bottleneck = Gaussian(config.bottleneck, dim, cells, label_sizes)
        else:
            self.bottleneck = NoBottleneck()
        self.to(memory_format=torch.channels_last)

    def freeze_codes(self) -> None:
        """Leave encoder and bottleneck as they are in training, so that only the decoder learns."""
        for module in (self.encoder, self.bottleneck):
            module.requires_grad_(False)
        self.codes_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As for any module, except that what makes frozen codes stays in eval mode: no statistics of a batch
        normalization and no codebook change then."""
        super().train(mode)
        if self.codes_frozen:
            self.encoder.eval()
            self.bottleneck.eval()
        return self

    @property
    def reach(self) -> int:
        """Receptive field of encoder and of decoder, as columns on either side of a column, at most."""
        config = self.config.network
        if config.kind == "conv":
            return sum(kernel // 2 for kernel in config.kernels) + 1
        return max(config.encoder_blocks, config.decoder_blocks) + 3 * (config.kind != "patch")

    def num_columns(self, num_frames: Tensor) -> Tensor:
        """Columns of codes (batch,) that cover `num_frames` (batch,)."""
        return (num_frames + self.stride[1] - 1) // self.stride[1]

    def forward(
        self, spectrogram: Tensor, num_frames: Tensor, labels: Tensor | None = None
    ) -> Reconstruction:
        """Reconstruction and losses of a spectrogram (batch, planes, bins, frames) in [0, 1].

        `num_frames` (batch,) are the clips' lengths; `labels` (batch, labels) are for `conditional`.
        Frames that `dense` cuts off count in no loss and are returned as zeros; frames that it pads are
        silence, and count. With `num_frames` on a GPU nothing here synchronises, and output shapes
        depend on input shapes only.
        """
        frames_in = spectrogram.shape[3]
        spectrogram, num_frames = self._fit_to_grid(spectrogram, num_frames)
        frames = torch.arange(spectrogram.shape[3], device=spectrogram.device)
        cells = (frames < to_device_async(num_frames, spectrogram.device)[:, None])[:, None, None]
        encoded = spectrogram
        if self.training and self.config.loss.corruption != "none":
            encoded = self._corrupted(spectrogram) * cells
        latents, cell_mask = self._latents(encoded, num_frames)
        bottleneck = self._apply_bottleneck(latents, cell_mask, labels)
        raw = self._decode(bottleneck.latents, cell_mask)
        output = self.values(raw, cell_mask.mask)[..., : spectrogram.shape[3]]
        squared = (output - spectrogram).square() * cells
        weighted_error = self.weighted_error(squared, spectrogram, cells)
        reconstruction_loss = RECONSTRUCTION_SCALE * weighted_error
        if self.config.loss.power:
            power_error = self.power_error(output, spectrogram, cells)
            reconstruction_loss = (
                reconstruction_loss + RECONSTRUCTION_SCALE * self.config.loss.power * power_error
            )
        if self.config.loss.kind == "cross_entropy":
            entropy = nn.functional.binary_cross_entropy_with_logits(
                raw[..., : spectrogram.shape[3]], spectrogram, reduction="none"
            )
            reconstruction_loss = self.weighted_error(entropy, spectrogram, cells)
        return Reconstruction(
            nn.functional.pad(output, (0, frames_in - output.shape[3])),
            reconstruction_loss + bottleneck.loss,
            reconstruction_loss.detach(),
            bottleneck.loss.detach(),
            squared[:, :1].detach().sum() / (distributed.all_reduce_mean(cells.sum()) * self.bins),
            weighted_error.detach(),
            bottleneck.kl,
        )

    def weighted_error(self, errors: Tensor, spectrogram: Tensor, cells: Tensor) -> Tensor:
        """Mean of errors (batch, planes, bins, frames) in the `cells` (batch, 1, 1, frames) inside the clips.

        They are weighted by `loudness_weights` of the first plane, and those of each further plane by its
        `plane_weights` in addition.
        """
        weights = loudness_weights(spectrogram[:, :1], self.config.loss.emphasis) * cells
        weight = distributed.all_reduce_mean(weights.sum())
        if self.planes > 1:
            errors = errors * self.plane_weights
        error: Tensor = (errors * weights).sum() / weight
        return error

    def power_error(self, output: Tensor, spectrogram: Tensor, cells: Tensor) -> Tensor:
        """Mean squared error of the level of areas' power, in units of the spectrogram; 0 where no clip holds an area.

        Of `output` and `spectrogram` (batch, planes, bins, frames), the first plane. Areas of AREA overlap by half; those
        inside the `cells` (batch, 1, 1, frames) count, with `loudness_weights` by AREA_EMPHASIS. A decoder that is not
        sure where an onset is returns means of decibels, which are far below the power of what they are means of.
        """
        bins, frames = min(AREA[0], spectrogram.shape[2]), AREA[1]
        steps = max(1, bins // 2), frames // 2
        # Short clips are padded rather than left out: each rank takes part in the sum below.
        missing = max(0, frames - spectrogram.shape[3])
        output, spectrogram, cells = (
            nn.functional.pad(x, (0, missing)) for x in (output, spectrogram, cells)
        )

        def level(values: Tensor) -> Tensor:
            power = 10 ** (RANGE_BELS * (values[:, :1].float().clamp(-0.1, 1.2) - 1))
            mean = nn.functional.avg_pool2d(power, (bins, frames), steps)
            return 1 + (mean + 10**-RANGE_BELS).log10() / RANGE_BELS

        mask = nn.functional.avg_pool2d(cells.float(), (1, frames), (1, steps[1])) > 1 - 1e-6
        wanted = level(spectrogram)
        weights = loudness_weights(wanted, AREA_EMPHASIS) * mask
        weight = distributed.all_reduce_mean(weights.sum())
        errors = (level(output) - wanted).square() * weights
        # Far below the weight of one area; the reciprocal of a smaller number would overflow in the gradient.
        error: Tensor = errors.sum() / weight.clamp_min(1e-6)
        return error

    def latents(self, spectrogram: Tensor, num_frames: Tensor) -> Tensor:
        """Latents before quantization (batch, dim, rows, columns), 0 after each clip's last column.

        Takes a spectrogram (batch, planes, bins, frames) and `num_frames` (batch,). For a Gaussian its mean;
        with `dense` (batch, dense).
        """
        latents, _ = self._latents(*self._fit_to_grid(spectrogram, num_frames))
        if self.dense is not None:
            latents = self.dense(latents)
        if isinstance(self.bottleneck, Gaussian):
            latents = latents.chunk(2, dim=1)[0]
        return latents.float()

    def encode(self, spectrogram: Tensor, num_frames: Tensor) -> Tensor:
        """Spectrogram (batch, planes, bins, frames) → codes (batch, quantizers, rows, columns), 0 in padding."""
        return self.nearest(self.latents(spectrogram, num_frames), self.num_columns(num_frames))

    def nearest(self, latents: Tensor, num_columns: Tensor) -> Tensor:
        """Nearest codes, as from `encode`, of latents (batch, dim, rows, columns), `num_columns` (batch,)."""
        quantizer = self.quantizer
        cell_mask = self._cell_mask(num_columns, latents.shape[3], latents.device)
        return cell_mask.scatter(quantizer.encode(cell_mask.gather(latents)))

    @property
    def sharpness(self) -> float:
        """Sharpness of its decoder: that of the settings, or 1 as long as it is not fitted."""
        return 1.0 if self.config.sharpness is None else self.config.sharpness

    @property
    def contrast(self) -> float:
        """Contrast of its decoder: that of the settings, or CONTRAST as long as it is not fitted."""
        return CONTRAST if self.config.contrast is None else self.config.contrast

    def decode(
        self, codes: Tensor, num_columns: Tensor, decoder: VividDecoder | None = None
    ) -> Tensor:
        """Spectrogram (batch, planes, bins, frames) in [0, 1] of codes (batch, quantizers, rows, columns).

        There are columns × stride frames, zeros after each clip's own `num_columns` (batch,).
        `decoder` replaces the autoencoder's.
        """
        values = self.decode_values(codes, num_columns, decoder)
        return self.apply_contrast(values, None if decoder is None else decoder.contrast)

    def decode_values(
        self, codes: Tensor, num_columns: Tensor, decoder: VividDecoder | None = None
    ) -> Tensor:
        """As `decode`, before `apply_contrast`: neither stretched nor clamped."""
        cell_mask = self._cell_mask(num_columns, codes.shape[3], codes.device)
        vectors = self.quantizer.decode(cell_mask.gather(codes))
        return self.values(self._decode(vectors, cell_mask, decoder), cell_mask.mask)

    def decode_latents(self, latents: Tensor, num_columns: Tensor) -> Tensor:
        """Spectrogram, as from `decode`, of the output of `latents`; `num_columns` (batch,)."""
        device = latents.device
        if self.dense is None:
            cell_mask = self._cell_mask(num_columns, latents.shape[3], device)
            vectors = cell_mask.gather(latents)
            return self.apply_contrast(
                self.values(self._decode(vectors, cell_mask), cell_mask.mask)
            )
        full = self._cell_mask(torch.full_like(num_columns, self.columns), self.columns, device)
        cell_mask = self._cell_mask(num_columns, self.columns, device)
        return self.apply_contrast(self.values(self._decode(latents, full), cell_mask.mask))

    def sample(
        self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """`n` sampled spectrograms (n, 1, bins, frames) in [0, 1], as long as the longest clip.

        Latents are sampled from the Gaussian's prior; with `conditional`, from that of `labels`
        (n, labels). `generator` is a CPU generator. Raises AudiovqError where the bottleneck is not
        Gaussian.
        """
        if not isinstance(self.bottleneck, Gaussian):
            raise AudiovqError(
                f"the model's latents have no distribution (bottleneck {self.config.bottleneck.kind});"
                " train one with --autoencoder.bottleneck.kind gaussian"
            )
        device = next(self.parameters()).device
        cell_mask = self._cell_mask(torch.full((n,), self.columns), self.columns, device)
        vectors = n if self.dense is not None else n * self.rows * self.columns
        noise = torch.randn(vectors, self.bottleneck.dim, generator=generator).to(device)
        latents = noise + self.bottleneck.prior_mean(self._labels_per_vector(labels, cell_mask))
        return self.apply_contrast(self.values(self._decode(latents, cell_mask), cell_mask.mask))

    def apply_contrast(
        self, output: Tensor, contrast: Tensor | float | None = None, silence: float = 0.0
    ) -> Tensor:
        """Decoder output (batch, planes, bins, frames) after `stretch`, clamped to [0, 1]; loudness up to `silence` is 0.

        `contrast`: None is that of the autoencoder's own decoder, with its `sharpness` and its `silence`.
        """
        if contrast is None:
            contrast, silence = self.contrast, self.config.silence or 0.0
            output = self.sharpen(output)
        values = self.stretch(output, contrast).clamp(0, 1)
        if self.planes == 1:
            return values * (output > silence)
        return torch.cat([values[:, :1] * (output[:, :1] > silence), values[:, 1:]], dim=1)

    def sharpen(self, output: Tensor) -> Tensor:
        """Decoder output (batch, planes, bins, frames), the `detail` of its loudness times `sharpness`."""
        if self.sharpness == 1:
            return output
        loudness = output[:, :1]
        loudness = loudness + (self.sharpness - 1) * detail(loudness)
        return loudness if self.planes == 1 else torch.cat([loudness, output[:, 1:]], dim=1)

    def stretch(self, output: Tensor, contrast: Tensor | float) -> Tensor:
        """Decoder output (batch, planes, bins, frames), its loudness stretched away from 1 by a contrast."""
        if self.planes == 1:
            return 1 - (1 - output) * contrast
        return torch.cat([1 - (1 - output[:, :1]) * contrast, output[:, 1:]], dim=1)

    @property
    def quantizer(self) -> Quantizer:
        """The bottleneck as a quantizer. Raises AudiovqError where it makes no codes."""
        if not isinstance(self.bottleneck, Quantizer):
            raise AudiovqError(
                f"the model has no quantizer (bottleneck {self.config.bottleneck.kind}), so it has no codes;"
                " `audiovq report` and `plot` show its reconstructions"
            )
        return self.bottleneck

    def _fit_to_grid(self, spectrogram: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Spectrogram and frames; with `dense` cut or padded with silence to the grid's columns."""
        if self.dense is None:
            return spectrogram, num_frames
        frames = self.columns * self.stride[1]
        spectrogram = nn.functional.pad(spectrogram, (0, frames - spectrogram.shape[3]))
        return spectrogram, torch.full_like(num_frames, frames)

    def _corrupted(self, spectrogram: Tensor) -> Tensor:
        """Spectrogram with added noise or with zeroed cells (Vincent et al. 2008, section 2.3)."""
        strength, (clips, *shape) = self.config.loss.corruption_strength, spectrogram.shape
        device = spectrogram.device
        if self.config.loss.corruption == "mask":
            chance = distributed.draw_for_global_batch(
                clips, lambda n: torch.rand(n, *shape, device=device)
            )
            return spectrogram * (chance >= strength)
        noise = distributed.draw_for_global_batch(
            clips, lambda n: torch.randn(n, *shape, device=device)
        )
        return spectrogram + strength * noise

    def _latents(self, spectrogram: Tensor, num_frames: Tensor) -> tuple[Tensor, CellMask]:
        """Projected latents (batch, dim, rows, columns), and the mask of cells inside the clips."""
        bins, frames = spectrogram.shape[2:]
        columns = -(-frames // self.stride[1])
        cell_mask = self._cell_mask(self.num_columns(num_frames), columns, spectrogram.device)
        if self.planes > 1:
            # Silence is 0 in all planes, as the padding of columns and of convolutions.
            mask = torch.arange(frames, device=spectrogram.device)
            mask = mask < to_device_async(num_frames, spectrogram.device)[:, None]
            spectrogram = (spectrogram - self.neutral) * mask[:, None, None]
        padding = (0, columns * self.stride[1] - frames, 0, self.rows * self.stride[0] - bins)
        padded = nn.functional.pad(spectrogram, padding)
        latents: Tensor = self.encoder(padded.to(memory_format=torch.channels_last), cell_mask.mask)
        return self.latent_projection(latents), cell_mask

    def _apply_bottleneck(
        self, latents: Tensor, cell_mask: CellMask, labels: Tensor | None
    ) -> Bottleneck:
        """Bottleneck's output for latents (batch, dim, rows, columns) and labels (batch, labels)."""
        vectors, weights = cell_mask.gather(latents), cell_mask.weights
        if self.dense is not None:
            vectors, weights = self.dense(latents), None
        output: Bottleneck
        if isinstance(self.bottleneck, Gaussian):
            output = self.bottleneck(vectors, self._labels_per_vector(labels, cell_mask), weights)
        else:
            output = self.bottleneck(vectors, weights)
        return output

    def _labels_per_vector(self, labels: Tensor | None, cell_mask: CellMask) -> Tensor | None:
        """Labels (batch, labels) repeated for each vector of the bottleneck (vectors, labels)."""
        if labels is None:
            return None
        labels = to_device_async(labels, cell_mask.mask.device)
        return labels if self.dense is not None else cell_mask.per_cell(labels)

    def _cell_mask(self, num_columns: Tensor, columns: int, device: torch.device) -> CellMask:
        """Mask of the cells inside clips of `num_columns` (batch,) in grids of `columns`."""
        return CellMask.from_num_columns(num_columns, self.rows, columns, device)

    def _decode(
        self, vectors: Tensor, cell_mask: CellMask, decoder: VividDecoder | None = None
    ) -> Tensor:
        """Raw decoder output (batch, planes, bins, columns × stride) of the bottleneck's vectors."""
        if self.dense is not None:
            grid = mask_columns(self.dense.back(vectors), cell_mask.mask)
        else:
            grid = cell_mask.scatter(vectors)
        output: Tensor = (decoder or self.decoder)(grid, cell_mask.mask)
        return output[:, :, : self.bins].float()

    def values(self, raw: Tensor, mask: Tensor) -> Tensor:
        """Spectrogram values of raw decoder output (batch, planes, bins, frames), zeros outside the clips."""
        if self.config.network.output == "sigmoid":
            return mask_columns(raw.sigmoid(), mask)
        return raw if self.planes == 1 else mask_columns(raw + self.neutral, mask)
