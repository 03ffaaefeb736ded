"""Functions of tensors on a GPU, recorded as CUDA graphs and played again.

A step of training is a thousand small operations, and a CPU takes longer to name them one by one than a
GPU to do them; a graph names them all at once (Nguyen et al. 2021, "Accelerating PyTorch with CUDA
Graphs"). What is recorded is bound to its shapes and its memory, and may neither read a number nor meet
a tensor of the CPU: those it would not see change.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

WARM = 3
"""Calls with tensors of new shapes before one is recorded: libraries choose their kernels in them."""
MOST = 64
"""Graphs of a function."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Graph(Generic[_T]):
    """What was recorded, the tensors it reads, and those that it writes."""

    graph: torch.cuda.CUDAGraph
    given: tuple[Tensor, ...]
    result: _T


class Recorded(Generic[_T]):
    """A function of tensors, recorded for each set of shapes that comes often enough.

    It is to be called within a stream of its own (`own_stream`). Where it cannot be recorded, it is
    called as it is, and a warning says why.
    """

    def __init__(self, function: Callable[..., _T], device: torch.device, warm: int = WARM) -> None:
        """`warm`: see WARM; 1 at least."""
        self.function = function
        self.device = device
        self.warm = warm
        self.able = True
        self._pool = torch.cuda.graph_pool_handle()
        # All graphs share their memory: each is done with it before another is played.
        self._graphs: dict[object, _Graph[_T]] = {}
        self._calls = Counter[object]()

    def __call__(self, *given: Tensor) -> _T:
        """What the function gives, in tensors that the next call may overwrite.

        `given` may lie on the CPU; the function gets all of it on the GPU.
        """
        shapes = tuple((x.shape, x.dtype) for x in given)
        played = self._graphs.get(shapes)
        if played is None:
            self._calls[shapes] += 1
            rare = self._calls[shapes] <= self.warm or len(self._graphs) == MOST
            if rare or not self.able:
                return self.function(*self._sent(given))
            try:
                played = self._graphs[shapes] = self._recorded(given)
            except RuntimeError as error:
                self.able = False
                warnings.warn(f"a step cannot be recorded as a CUDA graph: {error}", stacklevel=2)
                return self.function(*self._sent(given))
        for kept, x in zip(played.given, given, strict=True):
            kept.copy_(x if x.is_cuda else x.pin_memory(), non_blocking=True)
        played.graph.replay()
        return played.result

    def _recorded(self, given: tuple[Tensor, ...]) -> _Graph[_T]:
        """Nothing is computed, and nothing changed, but in Python's own variables."""
        kept = tuple(x.clone() for x in self._sent(given))
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream(self.device)
        with torch.cuda.graph(graph, pool=self._pool, stream=stream):
            result = self.function(*kept)
        return _Graph(graph, kept, result)

    def _sent(self, given: tuple[Tensor, ...]) -> list[Tensor]:
        return [sent(x, self.device) for x in given]


def make_recordable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Learning rates become tensors on the GPU, where a graph sees them change. For fused optimizers."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"]).to(device)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of all groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def follow_gradients(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """`optimizer.step`, recorded or not: torch warns where it is told that it may be, and is not."""
    recorded = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    for group in optimizer.param_groups:
        group["capturable"] = recorded
    optimizer.step()


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """What is done on a GPU meanwhile stands in a line of its own: the first, which all share, can not
    be recorded."""
    if device.type != "cuda":
        yield
        return
    before, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(before)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        before.wait_stream(own)


def sent(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`; if that is a GPU, nobody waits until it is there."""
    if device.type != "cuda" or x.is_cuda:
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
