"""CUDA graphs: functions of tensors on a GPU, captured once per set of shapes and replayed.

A training step is about 1,000 small kernels, so launch overhead dominates; a graph launches them all at
once (Nguyen et al. 2021, "Accelerating PyTorch with CUDA Graphs"). A captured function is bound to its
shapes and memory. It may neither read a value from the GPU nor use CPU tensors: replays would not see
them change.
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

from audiovq.runtime.device import to_device_async

WARMUP_CALLS = 3
"""Eager calls with new shapes before capture: libraries select their kernels in them."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Graph(Generic[_T]):
    """A captured graph with its static input and output tensors."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    result: _T


class GraphedFunction(Generic[_T]):
    """A function of tensors, captured as a CUDA graph for each set of shapes that is frequent enough.

    Call it within a side stream (`side_stream`). Where capture fails, the function runs eagerly from then
    on, and a warning gives the reason.
    """

    def __init__(
        self,
        function: Callable[..., _T],
        device: torch.device,
        warm: int = WARMUP_CALLS,
        max_graphs: int = 64,
    ) -> None:
        """`warm`: eager calls before capture, at least 1; `max_graphs`: maximum number of graphs, for as
        many sets of shapes."""
        self.function = function
        self.device = device
        self.warm = warm
        self.max_graphs = max_graphs
        self._capturable = True
        self._pool = torch.cuda.graph_pool_handle()
        # All graphs share one memory pool: each has finished before another is replayed.
        self._graphs: dict[object, _Graph[_T]] = {}
        self._calls = Counter[object]()

    def __call__(self, *inputs: Tensor) -> _T:
        """The function's result, in tensors that the next call may overwrite.

        `inputs` may be on the CPU; the function receives all of them on the GPU.
        """
        shapes = tuple((x.shape, x.dtype) for x in inputs)
        captured = self._graphs.get(shapes)
        if captured is None:
            self._calls[shapes] += 1
            rare = self._calls[shapes] <= self.warm or len(self._graphs) == self.max_graphs
            if rare or not self._capturable:
                return self.function(*self._to_device(inputs))
            try:
                captured = self._graphs[shapes] = self._capture(inputs)
            except RuntimeError as error:
                self._capturable = False
                warnings.warn(f"a step cannot be captured as a CUDA graph: {error}", stacklevel=2)
                return self.function(*self._to_device(inputs))
        for static, x in zip(captured.inputs, inputs, strict=True):
            static.copy_(x if x.is_cuda else x.pin_memory(), non_blocking=True)
        captured.graph.replay()
        return captured.result

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Graph[_T]:
        """Capture the function: no kernel runs and no tensor changes, only Python variables do."""
        static = tuple(x.clone() for x in self._to_device(inputs))
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream(self.device)
        with torch.cuda.graph(graph, pool=self._pool, stream=stream):
            result = self.function(*static)
        return _Graph(graph, static, result)

    def _to_device(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        return [to_device_async(x, self.device) for x in inputs]


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Move the learning rates of a fused optimizer to GPU tensors, so that graphs see them change."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"]).to(device)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def optimizer_step(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """`optimizer.step()`, with `capturable` set only during capture, as torch warns otherwise."""
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    for group in optimizer.param_groups:
        group["capturable"] = capturing
    optimizer.step()


@contextlib.contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Run the block on a side stream of the GPU; the default stream cannot be captured."""
    if device.type != "cuda":
        yield
        return
    before, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(before)
    try:
        with torch.cuda.stream(side):
            yield
    finally:
        before.wait_stream(side)


Position = int | Tensor
"""An int, or a tensor (1,) on the GPU, so that one CUDA graph serves all positions."""


def read_at(x: Tensor, dim: int, begin: Position, count: int) -> Tensor:
    """`count` slices of x along `dim`, from `begin` on."""
    if isinstance(begin, int):
        return x.narrow(dim, begin, count)
    return x.index_select(dim, begin + torch.arange(count, device=x.device))


def write_at(x: Tensor, dim: int, position: Position, value: Tensor) -> None:
    """Write `value`, broadcast if needed, into the slice of x at `position` along `dim`."""
    if isinstance(position, int):
        x.select(dim, position).copy_(value)
    else:
        x.index_copy_(dim, position, value.expand_as(x.select(dim, 0)).unsqueeze(dim))
