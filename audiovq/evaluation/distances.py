"""Metrics of sets of sounds: Fréchet distance, Inception Score, spread within classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to (clips, dim) features (Heusel et al. 2017, eq. 6).

    Needs two clips on each side.
    """
    a, b = features.double(), others.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    eigenvalues = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0)
    mean = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return float(mean + cov_a.trace() + cov_b.trace() - 2 * eigenvalues.sqrt().sum())


def inception_score(probabilities: Tensor) -> float:
    """Inception Score of probabilities (clips, values): exp of the mean KL(p(y|x) ‖ mean p(y)).

    Salimans et al. 2016, section 4, over all clips at once. 1 if all clips have the same probabilities;
    the number of values if each clip is certain and all values are equally frequent.
    """
    p = probabilities.double()
    information = torch.special.entr(p.mean(dim=0)).sum() - torch.special.entr(p).sum(dim=1).mean()
    return float(information.exp())


def class_spreads(features: Tensor, label_indices: Tensor) -> dict[tuple[int, ...], float]:
    """Spread of each class: mean distance between features (clips, dim) of its clips, over all pairs.

    A class is the set of clips with the same `label_indices` (clips, labels) for all labels. As Zhu et al.
    2017 (BicycleGAN) measure diversity, with Euclidean distance in place of LPIPS. 0 if all features are
    equal. Classes of one clip are omitted.
    """
    spreads = {}
    for values in label_indices.unique(dim=0):
        members = features[(label_indices == values).all(dim=1)]
        if len(members) > 1:
            spreads[tuple(values.tolist())] = float(nn.functional.pdist(members).mean())
    return spreads
