"""The state of training: saved after each validation and on Ctrl-C, loaded by the next run.

One safetensors file per stage holds the module's weights, the optimizer's moments and, as JSON in its metadata,
`State`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from audiovq.config.errors import AudiovqError
from audiovq.runtime.tensors import read_tensors, save_tensors


@dataclass
class State:
    """Counters of training, saved with weights and optimizer."""

    step: int = 0
    """Number of steps taken."""
    seconds: float = 0.0
    """Time taken, that of earlier runs included."""
    best: float = math.inf
    """Lowest validation score so far."""
    best_step: int = 0
    """Step of the state that is kept: the best one, or a later one that is nearly as good, or knows training clips better."""
    training_score: float | None = None
    """Score of training clips at that step; None where it is not known."""
    stale: int = 0
    """Number of validations since that step."""
    done: bool = False
    totals: dict[str, list[float]] = field(default_factory=dict)
    """Sums of the losses since the last validation, by name, one of each rank; empty but where training was stopped
    between two validations, and in files of earlier versions."""
    counted: int = 0
    """Number of steps in `totals`."""


def save_state(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, state: State
) -> None:
    """Write weights, the optimizer's moments and `state` to one file, atomically."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            tensors[f"optimizer.{name}.{names[id(parameter)]}"] = value
    save_tensors(path, tensors, {"state": json.dumps(asdict(state))})


def load_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load the file of `save_state` into module and optimizer; returns its `State`.

    Raises AudiovqError where the file is damaged or does not match the module and optimizer.
    """
    tensors, metadata = read_tensors(path, sealed=True)
    try:
        state = State(**json.loads(metadata["state"]))
        weights = {
            name.removeprefix("module."): value
            for name, value in tensors.items()
            if name.startswith("module.")
        }
        module.load_state_dict(weights)
        parameters = dict(module.named_parameters())
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                moment, _, parameter_name = rest.partition(".")
                parameter = parameters[parameter_name]
                optimizer.state[parameter][moment] = _restored(moment, value, parameter)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise AudiovqError(
            f"{path}: belongs to other settings ({' '.join(str(error).split())});"
            " train with --overwrite"
        ) from error
    return state


def _restored(moment: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A moment with the strides of its parameter: files store none, and the fused kernels assume equal strides of
    both."""
    if moment == "step":  # AdamW holds it on the CPU unless fused on a GPU
        return value.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(value)
