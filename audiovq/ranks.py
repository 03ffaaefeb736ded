"""Processes that train one model together, as torchrun starts them: who is who, and what all share.

Each process is a *rank* and takes its share of every batch. Losses are made of sums and of counts over
the whole batch, in parts whose mean over ranks is the loss of one process: DistributedDataParallel (Li
et al. 2020) takes that mean of the gradients. What is drawn at random is drawn for the whole batch, in
every rank. So several processes take the steps of one, but for rounding, and how many there are may
change from run to run. In one process nothing here does anything.
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

from audiovq.config import AudiovqError

PATIENCE = timedelta(hours=6)
"""So long ranks wait for one that is busy. One that has died is noticed at once."""
LOST = "gloo", "NCCL", "Connection", "ProcessGroup"
"""Words of torch's errors where another rank is gone; it has no class for them."""
_batch: ContextVar[int] = ContextVar("batch", default=0)
"""Clips of the step that ranks share now; 0: none."""
_T = TypeVar("_T")


def world() -> int:
    """How many ranks there are; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0 on."""
    return dist.get_rank() if world() > 1 else 0


def is_main() -> bool:
    """Whether this is the rank that writes and speaks; also before and after they are `together`."""
    return rank() == 0 and (world() > 1 or not _started() or os.environ["RANK"] == "0")


def place_on_machine() -> int:
    """Which of the ranks on its machine this is, from 0 on: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _started() -> bool:
    """Whether torchrun started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def together() -> Iterator[None]:
    """The processes that torchrun started are one group until the block ends.

    What ends one rank ends all, and one of them tells of it: the first to raise an error raises it,
    or AudiovqError where another was killed; the others exit without a word.
    """
    if not _started() or dist.is_initialized():
        yield
        return
    store, this, ranks = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=this, world_size=ranks, timeout=PATIENCE)
    try:
        yield
    except BaseException as error:
        if not _first(store):
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        if isinstance(error, RuntimeError) and any(word in str(error) for word in LOST):
            raise AudiovqError(
                f"rank {this} of {ranks}: another rank was ended from outside;"
                " the same command goes on from the last validation"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def _first(store: Any) -> bool:
    """Whether this rank is the first to fail, as far as can be told."""
    try:
        return int(store.add("failed", 1)) == 1
    except RuntimeError:  # the store lay with a rank that is gone
        return True


def wait() -> None:
    """Until all ranks are here, and so what the main one wrote before is there."""
    if world() > 1:
        total(torch.zeros(1))


def total(x: Tensor) -> Tensor:
    """The sum of all ranks' `x`, the same bits in all of them; `x` itself is changed to it."""
    if world() > 1:
        dist.all_reduce(x)
    return x


def totals(*values: float) -> tuple[float, ...]:
    """The sums of all ranks' numbers."""
    if world() == 1:
        return values
    return tuple(total(torch.tensor(values, dtype=torch.float64)).tolist())


def agreed(seconds: float, stop: bool = False) -> tuple[float, bool]:
    """The main rank's clock, and whether any rank is to stop."""
    if world() == 1:
        return seconds, stop
    both = torch.tensor([seconds if is_main() else 0.0, float(stop)], dtype=torch.float64)
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return float(both[0]), bool(both[1])


def all_can(able: bool) -> bool:
    """Whether all ranks can do what this one can or cannot."""
    return totals(float(able))[0] == world()


def dealt(things: Sequence[_T]) -> Sequence[_T]:
    """Those of all things that are this rank's to do."""
    return things[rank() :: world()] if world() > 1 else things


# --- In a step --------------------------------------------------------------------------------


@contextlib.contextmanager
def sharing(batch: int) -> Iterator[None]:
    """A step: ranks share a batch of so many clips, and what is below goes over all of them."""
    token = _batch.set(batch if world() > 1 else 0)
    try:
        yield
    finally:
        _batch.reset(token)


def parallel(
    module: nn.Module, loss: Callable[..., Mapping[str, Tensor]]
) -> Callable[..., Mapping[str, Tensor]]:
    """`loss`, whose gradients to `module` become their mean over ranks as they come."""
    if world() == 1:
        return loss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 gives the option another name
        return DistributedDataParallel(_Loss(module, loss), broadcast_buffers=False)


class _Loss(nn.Module):
    """A module and a loss made with it, as one module."""

    def __init__(self, module: nn.Module, loss: Callable[..., Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, *inputs: Tensor) -> Mapping[str, Tensor]:
        return self.loss(*inputs)


def mine() -> slice:
    """The clips of the batch that are this rank's. There may be none."""
    batch = _batch.get()
    if not batch:
        return slice(None)
    return slice(batch * rank() // world(), batch * (rank() + 1) // world())


def drawn(clips: int, draw: Callable[[int], Tensor]) -> Tensor:
    """`draw(clips)` (clips, …) as one process with the whole batch would: of its rows these clips'."""
    return draw(_batch.get() or clips)[mine()]


def placed(rows: int) -> tuple[int, int]:
    """How many rows all ranks have, and how many of them stand before this one's."""
    if not _batch.get():
        return rows, 0
    counts = torch.zeros(world(), dtype=torch.long)
    counts[rank()] = rows
    dist.all_reduce(counts)
    return int(counts.sum()), int(counts[: rank()].sum())


def mean(x: Tensor) -> Tensor:
    """The mean of all ranks' scalars, without a gradient: what this rank's part of a sum is divided
    by, so that the mean of the quotients is the quotient of the sums."""
    return total(x.detach().clone()) / world() if _batch.get() else x


def part_of_mean(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """(rows, …) → a scalar, whose mean over ranks is the mean over all ranks' rows, or, with `weights`
    (rows,), the weighted one."""
    if weights is not None:
        sums = (x.flatten(1) if x.dim() > 1 else x[:, None]).mean(dim=1) * weights
        return sums.sum() / mean(weights.sum())
    if not _batch.get():
        return x.mean()
    return x.sum() * (world() / (placed(len(x))[0] * math.prod(x.shape[1:])))


def part_of_squared_error(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """`part_of_mean` of (a - b)², in one pass where there is one process and no weights."""
    if _batch.get() or weights is not None:
        return part_of_mean((a - b).square(), weights)
    return nn.functional.mse_loss(a, b)


def summed(x: Tensor) -> Tensor:
    """The sum of all ranks' `x`; gradients go back to all of them."""
    return _Summed.apply(x) if _batch.get() else x


class _Summed(torch.autograd.Function):
    """What every rank's loss says of a sum, every rank's part of it must hear."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return total(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient.clone())


def gathered(x: Tensor) -> Tensor:
    """All ranks' `x` (rows, dim), one after another."""
    rows, before = placed(len(x))
    return (
        total(nn.functional.pad(x, (0, 0, before, rows - before - len(x)))) if _batch.get() else x
    )


def picked(x: Tensor, picks: Tensor, before: int) -> Tensor:
    """Rows `picks` of all ranks' `x` (rows, dim), of which this one's begin `before`."""
    if not _batch.get():
        return x[picks]
    own = (picks >= before) & (picks < before + len(x))
    padded = nn.functional.pad(x, (0, 0, 0, 1))
    return total(padded[torch.where(own, picks - before, len(x))])


def same(*tensors: Tensor) -> None:
    """Give all ranks the main one's bits."""
    if _batch.get():
        for tensor in tensors:
            dist.broadcast(tensor, 0)
