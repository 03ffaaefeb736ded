"""Data-parallel training of one model in several processes under torchrun: ranks and collectives.

Each rank takes a slice of every batch. Losses are local terms of sums and counts over the global batch,
such that their mean over ranks is the loss of a single process: DistributedDataParallel (Li et al. 2020)
averages the gradients likewise. Random tensors are sampled for the global batch, in every rank. So the
steps equal those of a single process up to rounding, and the world size may change from run to run.
Every function is a no-op when the world size is 1.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from audiovq.config.errors import AudiovqError

TIMEOUT = timedelta(hours=6)
"""Timeout of collectives, for waiting on a busy rank. A rank that has died is noticed at once."""
LOST_RANK_WORDS = "gloo", "NCCL", "Connection", "ProcessGroup"
"""Words by which errors of torch for a lost rank are recognised; it has no exception class for them."""
_batch: ContextVar[int] = ContextVar("batch", default=0)
"""Clips in the global batch of the current step; 0 outside a step, and with one rank."""
_T = TypeVar("_T")


def world_size() -> int:
    """World size: number of ranks; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this rank, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is rank 0, the one that writes files and logs; valid without a process group, too."""
    return rank() == 0 and (world_size() > 1 or not _under_torchrun() or os.environ["RANK"] == "0")


def local_rank() -> int:
    """Local rank: index of this rank on its machine, from 0, and so of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _under_torchrun() -> bool:
    """Whether torchrun launched several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Process group of the ranks that torchrun launched, for the duration of the block.

    A failure in one rank ends all, and one of them reports it: the first to fail raises its error, or
    AudiovqError where another rank was killed; the others exit silently.
    """
    if not _under_torchrun() or dist.is_initialized():
        yield
        return
    store, this, ranks = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=this, world_size=ranks, timeout=TIMEOUT)
    try:
        yield
    except BaseException as error:
        if not _is_first_failure(store):
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        if isinstance(error, RuntimeError) and any(word in str(error) for word in LOST_RANK_WORDS):
            raise AudiovqError(
                f"rank {this} of {ranks}: another rank was killed;"
                " run the same command to resume from the last validation"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def _is_first_failure(store: Any) -> bool:
    """Whether this rank is the first to fail; assumed where the store is gone."""
    try:
        return int(store.add("failed", 1)) == 1
    except RuntimeError:  # the store was hosted by a rank that is gone
        return True


def barrier() -> None:
    """Barrier: wait for all ranks, so that files which the main one wrote before are visible."""
    if world_size() > 1:
        all_reduce_sum(torch.zeros(1))


def all_reduce_sum(x: Tensor) -> Tensor:
    """All-reduce sum of `x` over ranks, in place; bit-identical in all of them."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def all_reduce_floats(*values: float) -> tuple[float, ...]:
    """All-reduce sums of floats over ranks."""
    if world_size() == 1:
        return values
    return tuple(all_reduce_sum(torch.tensor(values, dtype=torch.float64)).tolist())


def sync_clock(seconds: float, stop: bool = False) -> tuple[float, bool]:
    """The main rank's `seconds`, and whether `stop` is set in any rank."""
    if world_size() == 1:
        return seconds, stop
    both = torch.tensor([seconds if is_main() else 0.0, float(stop)], dtype=torch.float64)
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return float(both[0]), bool(both[1])


def all_true(able: bool) -> bool:
    """Whether `able` is true in all ranks."""
    return all_reduce_floats(float(able))[0] == world_size()


def shard(items: Sequence[_T]) -> Sequence[_T]:
    """This rank's shard of `items`: every world-size-th of them."""
    return items[rank() :: world_size()] if world_size() > 1 else items


@contextlib.contextmanager
def global_batch(batch: int) -> Iterator[None]:
    """Training step on a global batch of `batch` clips, over which the functions below reduce."""
    token = _batch.set(batch if world_size() > 1 else 0)
    try:
        yield
    finally:
        _batch.reset(token)


def data_parallel(
    module: nn.Module, loss: Callable[..., Mapping[str, Tensor]]
) -> Callable[..., Mapping[str, Tensor]]:
    """`loss` wrapped so that the gradients of `module` are averaged over ranks during backward."""
    if world_size() == 1:
        return loss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 renames the option
        return DistributedDataParallel(_Loss(module, loss), broadcast_buffers=False)


class _Loss(nn.Module):
    """A module and a loss computed with it, wrapped as one module for DistributedDataParallel."""

    def __init__(self, module: nn.Module, loss: Callable[..., Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, *inputs: Tensor) -> Mapping[str, Tensor]:
        return self.loss(*inputs)


def local_slice() -> slice:
    """Slice of the global batch that this rank computes; may be empty."""
    batch = _batch.get()
    if not batch:
        return slice(None)
    return slice(batch * rank() // world_size(), batch * (rank() + 1) // world_size())


def draw_for_global_batch(clips: int, draw: Callable[[int], Tensor]) -> Tensor:
    """This rank's rows of the random tensor `draw(n)` (n, …) for all n clips of the global batch."""
    return draw(_batch.get() or clips)[local_slice()]


def row_offset(rows: int) -> tuple[int, int]:
    """Number of rows in all ranks, and the offset of this rank's rows among them."""
    if not _batch.get():
        return rows, 0
    counts = torch.zeros(world_size(), dtype=torch.long)
    counts[rank()] = rows
    dist.all_reduce(counts)
    return int(counts.sum()), int(counts[: rank()].sum())


def all_reduce_mean(x: Tensor) -> Tensor:
    """Mean of a scalar over ranks, without gradient.

    Local sums divided by it have a mean over ranks that is the quotient of the global sums.
    """
    return all_reduce_sum(x.detach().clone()) / world_size() if _batch.get() else x


def local_mean_term(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """Local term of the mean of `x` (rows, …) over the rows of all ranks, weighted by `weights` (rows,).

    The mean of the local terms over ranks is the global mean.
    """
    if weights is not None:
        sums = (x.flatten(1) if x.dim() > 1 else x[:, None]).mean(dim=1) * weights
        return sums.sum() / all_reduce_mean(weights.sum())
    if not _batch.get():
        return x.mean()
    return x.sum() * (world_size() / (row_offset(len(x))[0] * math.prod(x.shape[1:])))


def local_squared_error_term(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """`local_mean_term` of (a - b)²; fused with one process and no weights."""
    if _batch.get() or weights is not None:
        return local_mean_term((a - b).square(), weights)
    return nn.functional.mse_loss(a, b)


def all_reduce_sum_with_gradient(x: Tensor) -> Tensor:
    """All-reduce sum of `x` over ranks, differentiable: gradients are summed over ranks, too."""
    return _Summed.apply(x) if _batch.get() else x


class _Summed(torch.autograd.Function):
    """Sum over ranks whose gradient is also summed over ranks.

    `torch.distributed.nn.functional.all_reduce` does the same, but torch 2.14 deprecates it for a private one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_reduce_sum(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce_sum(gradient.clone())


def all_gather_rows(x: Tensor) -> Tensor:
    """Rows of all ranks' `x` (rows, dim), concatenated in the order of ranks."""
    rows, before = row_offset(len(x))
    return (
        all_reduce_sum(nn.functional.pad(x, (0, 0, before, rows - before - len(x))))
        if _batch.get()
        else x
    )


def gather_rows(x: Tensor, picks: Tensor, before: int) -> Tensor:
    """Rows at indices `picks` of the concatenation of all ranks' `x` (rows, dim).

    `before`: offset of this rank's rows in it, as from `row_offset`.
    """
    if not _batch.get():
        return x[picks]
    local = (picks >= before) & (picks < before + len(x))
    padded = nn.functional.pad(x, (0, 0, 0, 1))
    return all_reduce_sum(padded[torch.where(local, picks - before, len(x))])


def broadcast(*tensors: Tensor) -> None:
    """Broadcast tensors in place from rank 0, within a step."""
    if _batch.get():
        for tensor in tensors:
            dist.broadcast(tensor, 0)
