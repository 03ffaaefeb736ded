"""Muon: an optimizer that orthogonalizes the steps of weight matrices, and leaves all else to AdamW.

A gradient's momentum has few large singular values, so that a step along it learns a few directions well. Muon gives
all of them the same length (K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024). The
steps are scaled to the root mean square of AdamW's, so that both share a learning rate (J. Liu et al., "Muon is
Scalable for LLM Training", 2025, section 2.2). `torch.optim.Muon` takes no kernels of convolutions, and iterates in
bfloat16, which few CPUs compute fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 4
COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the polynomial a·x + b·x³ + c·x⁵, which, iterated, takes singular values from 0.001 up to about 1."""
ADAMW_RMS = 0.2
"""Root mean square of the steps of AdamW, per unit of learning rate."""


class Muon(torch.optim.AdamW):
    """AdamW, whose parameter groups with a true `muon` take orthogonalized steps; all groups have this key.

    The parameters of these groups have at least two dimensions; a convolution's kernel (out, in, height, width) is the
    matrix (out, in · height · width). Other options are those of AdamW.
    """

    @torch.no_grad()
    # AdamW's returns the loss of a closure, and has overloads for that; no closure is ever given here.
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step, without a closure; the gradients of groups with `muon` are taken away."""
        for group in self.param_groups:
            if group["muon"]:
                self._orthogonal_step(group)
        super().step()  # skips parameters without a gradient

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        """Step of all parameters of a group that have a gradient, those of one shape at a time."""
        by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                shape = len(parameter), parameter[0].numel()
                by_shape.setdefault(shape, []).append(parameter)
        for shape, parameters in by_shape.items():
            steps = orthogonalized(
                torch.stack([self._momentum(p).reshape(shape) for p in parameters])
            )
            steps *= -ADAMW_RMS * max(shape) ** 0.5 * group["lr"]
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(step.view(parameter.shape))
                parameter.grad = None

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov momentum of a parameter, of its shape, after its gradient has been added to it."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM)


def parameter_groups(module: nn.Module, weight_decay: float, muon: bool) -> list[dict[str, Any]]:
    """Parameter groups of a module: weights that decay, biases and scales that do not, and, with `muon`, matrices.

    Matrices are the weights of linear layers and of convolutions, without those that are computed of others.
    """
    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    matrices = [part.weight for part in module.modules() if muon and isinstance(part, layers)]
    matrices = [weight for weight in matrices if weight.is_leaf]  # weight_norm makes new ones
    chosen = {id(weight) for weight in matrices}
    rest = [p for p in module.parameters() if id(p) not in chosen]
    return [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay, "muon": False},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0, "muon": False},
        {"params": matrices, "weight_decay": weight_decay, "muon": True},
    ]


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices (number, rows, columns) with the same singular vectors, and singular values of about 1 (0.7 to 1.2).

    The iteration of Newton and Schulz. Its polynomials are of the smaller Gram matrix, which therefore is iterated
    alone; the matrices are multiplied once, at the end.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.mT).mT
    gram = matrices @ matrices.mT
    # The squared norm of Schatten with p = 4, which bounds the largest singular value more closely than Frobenius' norm.
    square = gram.norm(dim=(1, 2), keepdim=True).clamp_min(1e-24)
    gram = gram / square
    factor = product = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        product = factor @ product
    made: Tensor = product @ matrices / square.sqrt()
    return made


def _polynomial(gram: Tensor) -> Tensor:
    """a + b·G + c·G² of matrices G (number, rows, rows)."""
    a, b, c = COEFFICIENTS
    identity = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    return torch.baddbmm(a * identity + b * gram, gram, gram, alpha=c)
