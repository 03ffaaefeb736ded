"""Bottlenecks without codes: the Gaussian of a VAE, and none at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiovq.config.autoencoder import BottleneckConfig
from audiovq.config.errors import AudiovqError
from audiovq.runtime import distributed

LABEL_MEAN_STD = 2.0
"""Initial standard deviation of the learnt means of label values."""


@dataclass(frozen=True)
class Bottleneck:
    """Output of a bottleneck."""

    latents: Tensor
    """(vectors, dim), with gradients to the encoder."""
    codes: Tensor
    """(vectors, quantizers), integers; no columns where nothing is quantized."""
    loss: Tensor
    """Scalar to be added to the reconstruction loss."""
    kl: Tensor | None = None
    """Scalar: unweighted KL divergence, in nats per cell of the spectrogram; None without one."""


class NoBottleneck(nn.Module):
    """Identity bottleneck: the baseline that shows what quantization costs."""

    num_quantizers = 0

    def forward(self, latents: Tensor, weights: Tensor | None = None) -> Bottleneck:
        """Returns latents (vectors, dim) unchanged, with no codes and loss 0."""
        codes = torch.empty(len(latents), 0, dtype=torch.long, device=latents.device)
        return Bottleneck(latents, codes, latents.new_zeros(()))


class Gaussian(nn.Module):
    """Gaussian bottleneck of the variational autoencoder (Kingma and Welling 2014).

    In training, latents are sampled as mean + exp(log variance / 2) · noise (section 2.4); in eval they
    are the mean. The loss is `kl_weight` times the KL divergence to the prior N(0, 1) (appendix B):
    -(1 + log variance - mean² - variance) / 2, summed over dimensions, per cell of the spectrogram.
    With `conditional` the prior's mean is a sum of learnt vectors, one for each label's value (a learnt
    conditional prior: Sohn, Lee, Yan 2015, equation 4); one past the last value means no label: 0.
    """

    num_quantizers = 0
    kl_scale: Tensor
    """Warm-up factor of `kl_weight` in training, 0 to 1; eval uses the full weight."""

    def __init__(
        self, config: BottleneckConfig, dim: int, cells: int, label_sizes: tuple[int, ...]
    ) -> None:
        """`cells`: spectrogram cells covered by one latent of `dim` dimensions.

        Raises AudiovqError where `conditional` is set and there are no labels.
        """
        super().__init__()
        if config.conditional and not label_sizes:
            raise AudiovqError(
                "conditional: the recordings have no labels; preprocess them with --labels"
            )
        sizes = label_sizes if config.conditional else ()
        self.dim, self.cells, self.kl_weight = dim, cells, config.kl_weight
        self.means = nn.ModuleList(nn.Embedding(size + 1, dim, padding_idx=size) for size in sizes)
        for embedding in self.means.parameters():
            with torch.no_grad():  # far apart: means that start close take long to separate
                embedding[:-1].normal_(std=LABEL_MEAN_STD)
        self.register_buffer("kl_scale", torch.ones(()), persistent=False)

    def prior_mean(self, labels: Tensor | None) -> Tensor | float:
        """Mean of the prior, (vectors, dim), for labels (vectors, labels); 0 without labels."""
        if not len(self.means) or labels is None:
            return 0.0
        return torch.stack([mean(labels[:, i]) for i, mean in enumerate(self.means)]).sum(dim=0)

    def forward(
        self, latents: Tensor, labels: Tensor | None = None, weights: Tensor | None = None
    ) -> Bottleneck:
        """Means and log variances (vectors, 2 · dim), labels (vectors, labels) → latents (vectors, dim).

        `weights` (vectors,), 0 or 1, excludes vectors from the loss.
        """
        with torch.autocast(latents.device.type, enabled=False):
            mean, log_variance = latents.float().chunk(2, dim=1)
            offset = mean - self.prior_mean(labels)
            nats = (offset.square() + log_variance.exp() - log_variance - 1).sum(dim=1) / 2
            kl = distributed.local_mean_term(nats, weights) / self.cells
            sampled = mean
            if self.training:
                vectors, before = distributed.row_offset(len(mean))
                noise = torch.randn(vectors, self.dim, device=mean.device)
                sampled = mean + (log_variance / 2).exp() * noise[before : before + len(mean)]
            codes = torch.empty(len(latents), 0, dtype=torch.long, device=latents.device)
            weight = self.kl_weight * (self.kl_scale if self.training else 1.0)
            return Bottleneck(sampled, codes, weight * kl, kl.detach())
