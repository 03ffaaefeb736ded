"""Distances between sets of sounds: Fréchet distance, Inception Score, spread within classes."""

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
    """(clips, values) what a classifier makes of clips → exp of the mean KL(p(y|x) ‖ mean p(y)).

    Salimans et al. 2016, section 4, over all clips at once. From 1, where all are named alike or
    none surely, to the number of values, where each is named surely and all are equally common.
    """
    p = probabilities.double()
    information = torch.special.entr(p.mean(dim=0)).sum() - torch.special.entr(p).sum(dim=1).mean()
    return float(information.exp())


def class_spreads(features: Tensor, label_indices: Tensor) -> dict[tuple[int, ...], float]:
    """(clips, dim), (clips, labels) → for each class, how far apart its clips are.

    A class is what has the same values of all labels; its spread is the mean Euclidean distance
    between the features of two of its clips, over all pairs, as Zhu et al. 2017 (BicycleGAN)
    measure diversity in LPIPS. 0 where all are alike. Classes of one clip are left out.
    """
    spreads = {}
    for values in label_indices.unique(dim=0):
        alike = features[(label_indices == values).all(dim=1)]
        if len(alike) > 1:
            spreads[tuple(values.tolist())] = float(nn.functional.pdist(alike).mean())
    return spreads
