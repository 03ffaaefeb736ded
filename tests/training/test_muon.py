"""Muon: singular values of its steps, torch's own Muon as an oracle, and what it leaves to AdamW."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from audiovq.training.muon import MOMENTUM, Muon, orthogonalized, parameter_groups


@pytest.mark.parametrize("shape", [(3, 8, 40), (3, 40, 8), (1, 16, 16)])
def test_orthogonalized_matrices_keep_their_singular_vectors(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    made = orthogonalized(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ made @ right.mT
    values = turned.diagonal(dim1=1, dim2=2)
    assert 0.6 < values.min() <= values.max() < 1.25
    assert (turned - torch.diag_embed(values)).abs().max() < 1e-3


def test_the_scale_of_a_matrix_does_not_matter_and_zeros_stay_zeros() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(2, 6, 9)
    torch.testing.assert_close(orthogonalized(1e-3 * matrices), orthogonalized(matrices))
    assert not orthogonalized(torch.zeros(2, 6, 9)).any()


def steps(optimizer: torch.optim.Optimizer, module: nn.Module, count: int = 5) -> None:
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def test_steps_are_those_of_the_muon_of_torch() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(48, 24, bias=False), nn.Linear(24, 24, bias=False))
    start, other = weights(module), copy.deepcopy(module)
    steps(Muon(parameter_groups(module, 0.1, muon=True), lr=0.01), module)
    theirs = torch.optim.Muon(
        other.parameters(),
        lr=0.01,
        weight_decay=0.1,
        momentum=MOMENTUM,
        adjust_lr_fn="match_rms_adamw",
    )
    steps(theirs, other)
    for a, b, before in zip(weights(module), weights(other), start, strict=True):
        # Torch takes five steps of the iteration, in bfloat16.
        assert (a - b).square().mean() < 0.05 * (a - before).square().mean()


def test_a_kernel_steps_as_the_matrix_of_its_outputs() -> None:
    torch.manual_seed(0)
    kernel = nn.Conv2d(4, 8, 3, bias=False)
    matrix = nn.Linear(36, 8, bias=False)
    with torch.no_grad():
        matrix.weight.copy_(kernel.weight.flatten(1))
    for module in (kernel, matrix):
        steps(Muon(parameter_groups(module, 0.1, muon=True), lr=0.01), module)
    torch.testing.assert_close(kernel.weight.flatten(1), matrix.weight)


def test_weights_that_are_computed_of_others_are_no_matrices() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(weight_norm(nn.Conv2d(2, 4, 3)), nn.Linear(4, 6))
    groups = parameter_groups(module, 0.1, muon=True)
    assert [id(p) for p in groups[2]["params"]] == [id(module[1].weight)]
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
    before = weights(module)
    steps(Muon(groups, lr=0.01), module)
    assert not any(torch.equal(a, b) for a, b in zip(weights(module), before, strict=True))


@pytest.mark.parametrize("muon", [False, True])
def test_all_but_the_matrices_steps_as_in_adamw(muon: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 6), nn.LayerNorm(6))
    other = copy.deepcopy(module)
    steps(Muon(parameter_groups(module, 0.1, muon=muon), lr=0.01), module)
    decayed = [p for p in other.parameters() if p.ndim >= 2]
    others = [p for p in other.parameters() if p.ndim < 2]
    theirs = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.01
    )
    steps(theirs, other)
    same = [torch.allclose(a, b) for a, b in zip(weights(module), weights(other), strict=True)]
    assert same == [True, not muon, True, True, True]
