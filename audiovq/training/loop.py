"""Training loop: steps, schedule, validation, resuming. Knows neither audio nor the module's purpose.

All random numbers of a step depend on (seed, step) only: a resumed run takes exactly the steps of an
uninterrupted one. With several ranks, each computes its slice of the batch, and only rank 0 writes files
and logs.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from audiovq.config.checks import derived_seed
from audiovq.config.errors import AudiovqError
from audiovq.config.settings import OptimizerConfig
from audiovq.dataset.batches import batches
from audiovq.runtime import distributed
from audiovq.runtime.cuda_graphs import (
    GraphedFunction,
    make_capturable,
    optimizer_step,
    set_learning_rate,
    side_stream,
)
from audiovq.runtime.device import seed_all
from audiovq.runtime.files import append_line, json_text
from audiovq.runtime.tensors import read_tensors, save_tensors

QUIET_SECONDS = 45.0
"""Longest time without a progress line; one is printed then even without a validation."""
CHECK_STEPS = 100
"""Steps between checks for non-finite losses: each check synchronises with the GPU."""
Inputs = tuple[Tensor, ...]
"""Arguments of a step's loss function."""
Losses = Mapping[str, Tensor]
"""Scalars by name: `loss`, to be minimized, and others to log."""


class Stopped(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or SIGTERM; its state is saved for the next run."""


class Diverged(AudiovqError):
    """A loss or gradient was NaN or infinite; nothing since then was saved."""

    def __init__(self, message: str, places: list[int]) -> None:
        super().__init__(message)
        self.places = places
        """Indices of the clips in the first such batch."""


@dataclass(frozen=True)
class Step:
    """Current step, as `prepare` receives it."""

    number: int
    progress: float
    """Share of the schedule, 0 to 1."""
    indices: Tensor
    """(batch,) indices of the clips; `ranks.mine()` is this rank's slice of them."""
    generator: torch.Generator
    """CPU generator, seeded for this step."""
    recorded: bool = False
    """Whether the step is captured as a CUDA graph, one for each input size."""

    def width(self, size: int) -> int:
        """Padded `size`: with CUDA graphs the next of eight sizes per octave, so that graphs are few."""
        if not self.recorded:
            return size
        step = 1 << max(0, size.bit_length() - 4)
        return -(-size // step) * step


@dataclass
class State:
    """State of training; saved with weights and optimizer."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0
    stale: int = 0
    """Number of validations since the best one."""
    done: bool = False


class Trainer:
    """Training of one module: AdamW, warm-up, decay, gradient clipping, validation and early stopping."""

    def __init__(
        self,
        module: nn.Module,
        config: OptimizerConfig,
        folder: Path,
        *,
        stage: str,
        clips: int,
        seed: int,
        dtype: torch.dtype,
        max_seconds: float | None,
    ) -> None:
        self.module = module
        self.config = config
        self.folder = folder
        self.stage = stage
        self.seed = seed
        self.dtype = dtype
        self.max_seconds = max_seconds
        self.steps = config.steps_for(clips)
        self.validate_every = config.validations_for(clips)
        self.device = next(module.parameters()).device
        self.records = self.device.type == "cuda" and distributed.world_size() == 1
        """Whether steps are captured as CUDA graphs."""
        self.state = State()
        decayed = [p for p in module.parameters() if p.ndim >= 2]
        others = [p for p in module.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            fused=self.device.type in ("cpu", "cuda"),
        )
        if self.records:
            make_capturable(self.optimizer, self.device)
        self.resume()

    @property
    def progress(self) -> float:
        """Share, 0 to 1, of the steps done or of the time limit used, whichever is larger."""
        by_time = self.state.seconds / self.max_seconds if self.max_seconds else 0.0
        return min(1.0, max(self.state.step / self.steps, by_time))

    @property
    def ended_by(self) -> str | None:
        """What ended the training: `steps`, `patience` or `time`; None before its end."""
        if not self.state.done:
            return None
        if self.state.step >= self.steps:
            return "steps"
        return "patience" if self.state.stale >= self.config.patience else "time"

    def learning_rate(self) -> float:
        """Current learning rate: linear warm-up, then cosine or exponential decay."""
        config = self.config
        cosine = (1 + math.cos(math.pi * self.progress)) / 2
        share = config.final_share + (1 - config.final_share) * cosine
        if config.schedule == "exponential":
            share = config.decay_rate**self.progress
        return (
            config.learning_rate * share * min(1.0, (self.state.step + 1) / max(1, config.warmup))
        )

    def fit(
        self,
        lengths: Tensor,
        prepare: Callable[[Step], Inputs],
        loss: Callable[..., Losses],
        validate: Callable[[], Mapping[str, float]],
        keep: Callable[[State, Mapping[str, float]], None],
        say: Callable[[Mapping[str, float]], None],
        ahead: Callable[[Tensor], None] = lambda _: None,
    ) -> State:
        """Train until the end of the schedule, the time limit or the patience.

        `lengths` (clips,) are cut into batches. `prepare` returns the arguments of `loss`, on the CPU or
        the device; `loss` returns `loss`, to minimize, and other scalars to log, as local terms whose
        mean over ranks is that of the batch. On a GPU `loss` gets all arguments there and is captured as
        a CUDA graph, so it may depend on nothing else that changes. `validate` returns `score`, lower
        being better, and other scalars, equal in all ranks. In rank 0, `keep` is called with every best
        state, and `say` with the metrics of every validation and, between distant ones, with those of
        training. `ahead` gets the next step's clips, to prefetch. Resumes a stopped run. Raises Stopped
        on Ctrl-C, after saving, and Diverged where a loss or its gradient is not finite.
        """
        totals: dict[str, Tensor] = {}
        counted, epoch, order = 0, -1, list[Tensor]()
        unchecked: list[tuple[Tensor, Tensor]] = []
        started = time.perf_counter() - self.state.seconds
        reported = self.state.seconds
        update = self._updating(distributed.data_parallel(self.module, loss))
        bar = tqdm(
            total=1000,
            desc=self.stage,
            disable=None if distributed.is_main() else True,
            bar_format="{desc}: {percentage:3.0f}% {bar} {elapsed}, {remaining} left",
        )
        with _interrupts() as interrupted, bar, side_stream(self.device):
            while not self.state.done:
                per_epoch = -(-len(lengths) // self.config.batch_size)
                if epoch != self.state.step // per_epoch:
                    epoch = self.state.step // per_epoch
                    order = batches(lengths, self.config.batch_size, self.seed, epoch)
                indices = order[self.state.step % len(order)]
                ahead(order[(self.state.step + 1) % len(order)])
                scalars, norm = self._step(prepare, update, indices)
                unchecked.append((indices, scalars["loss"] + norm))
                for name, value in scalars.items():
                    totals[name] = totals[name] + value if name in totals else value.clone()
                counted += 1
                self.state.step += 1
                elapsed = time.perf_counter() - started
                self.state.seconds, stop = distributed.sync_clock(elapsed, interrupted())
                bar.update(int(1000 * self.progress) - bar.n)
                ended = self.progress >= 1
                due = ended or self.state.step % self.validate_every == 0
                reports = due or self.state.seconds - reported > QUIET_SECONDS
                if reports or stop or len(unchecked) == CHECK_STEPS:
                    self._check(unchecked)
                    unchecked = []
                if reports:
                    sums = distributed.all_reduce_floats(
                        *(float(total) for total in totals.values())
                    )
                    steps = counted * distributed.world_size()
                    means = {name: x / steps for name, x in zip(totals, sums, strict=True)}
                    metrics = self._metrics(means)
                    if due:
                        metrics |= self._validated(means, validate, keep, ended)
                        totals, counted = {}, 0
                    if distributed.is_main():
                        with tqdm.external_write_mode():
                            say(metrics)
                    reported, stop = distributed.sync_clock(
                        time.perf_counter() - started, interrupted()
                    )
                # After a validation that is due, or the resumed run would skip it.
                if stop:
                    if unchecked:
                        self._check(unchecked)
                    self.save()
                    raise Stopped
        return self.state

    def _step(
        self,
        prepare: Callable[[Step], Inputs],
        update: Callable[..., tuple[Losses, Tensor]],
        indices: Tensor,
    ) -> tuple[Losses, Tensor]:
        """Losses and gradient norm of one training step; the next step may overwrite both."""
        number = self.state.step
        generator = torch.Generator().manual_seed(derived_seed(self.seed, 2 * number + 1))
        seed_all(derived_seed(self.seed, 2 * number), self.device)
        set_learning_rate(self.optimizer, self.learning_rate())
        if not self.module.training:
            self.module.train()
        with distributed.global_batch(len(indices)):
            return update(*prepare(Step(number, self.progress, indices, generator, self.records)))

    def _updating(self, loss: Callable[..., Losses]) -> Callable[..., tuple[Losses, Tensor]]:
        """Function of the output of `prepare`: optimizer step; returns losses and gradient norm."""

        def update(*inputs: Tensor) -> tuple[Losses, Tensor]:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                scalars = loss(*inputs)
            self.optimizer.zero_grad(set_to_none=True)
            scalars["loss"].backward()
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
            optimizer_step(self.optimizer, self.device)
            return {name: value.detach() for name, value in scalars.items()}, norm

        return GraphedFunction(update, self.device) if self.records else update

    def _check(self, unchecked: list[tuple[Tensor, Tensor]]) -> None:
        """Raise Diverged unless all (clips, loss + gradient norm) are finite."""
        finite = (
            distributed.all_reduce_sum(torch.stack([value for _, value in unchecked]))
            .isfinite()
            .tolist()
        )
        if not all(finite):
            first = finite.index(False)
            kept = (
                f"the best model so far, of step {self.state.best_step}, is kept"
                if self.state.best_step
                else "there is no model of an earlier step yet"
            )
            raise Diverged(
                f"{self.stage}: the loss became NaN or infinite at step"
                f" {self.state.step - len(unchecked) + first + 1}; {kept}."
                " Train again with a lower learning rate",
                unchecked[first][0].tolist(),
            )

    def _metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        """Step, time, learning rate, and mean losses since the last validation."""
        return {
            "step": self.state.step,
            "seconds": round(self.state.seconds, 2),
            "progress": self.progress,
            "learning_rate": self.learning_rate(),
            **means,
        }

    def _validated(
        self,
        means: Mapping[str, float],
        validate: Callable[[], Mapping[str, float]],
        keep: Callable[[State, Mapping[str, float]], None],
        ended: bool,
    ) -> dict[str, float]:
        """Metrics of a validation, after keeping the best model, saving the state and logging."""
        state = self.state
        self._require_finite_weights()
        self.module.eval()
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            validation = validate()
        named = {f"validation_{name}": value for name, value in validation.items()}
        metrics = self._metrics(means) | named
        if validation["score"] < state.best:
            state.best, state.best_step, state.stale = validation["score"], state.step, 0
            if distributed.is_main():
                keep(state, metrics)
        else:
            state.stale += 1
        state.done = ended or state.stale >= self.config.patience
        self.save()
        if distributed.is_main():
            append_line(self.folder / "metrics.jsonl", json_text({"stage": self.stage, **metrics}))
        return named

    def _require_finite_weights(self) -> None:
        """Raise AudiovqError if weights are not finite, before they replace good ones on disk."""
        for name, value in self.module.state_dict().items():
            if not bool(value.isfinite().all()):
                raise AudiovqError(
                    f"{self.stage}: {name} became NaN or infinite before step {self.state.step};"
                    " earlier saves are kept. Train again with a lower learning rate"
                )

    def save(self) -> None:
        """Save weights, optimizer and state in one file, atomically.

        Raises AudiovqError if weights are not finite.
        """
        self._require_finite_weights()
        if not distributed.is_main():
            return
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        names = {id(p): name for name, p in self.module.named_parameters()}
        for parameter, moments in self.optimizer.state.items():
            for name, value in moments.items():
                tensors[f"optimizer.{name}.{names[id(parameter)]}"] = value
        save_tensors(self._path, tensors, {"state": json.dumps(asdict(self.state))})

    def resume(self) -> None:
        """Load the file of `save`, if there is one.

        Raises AudiovqError where it does not match the module and optimizer.
        """
        if not self._path.exists():
            return
        tensors, metadata = read_tensors(self._path, sealed=True)
        try:
            self.state = State(**json.loads(metadata["state"]))
            module = {
                n.removeprefix("module."): t for n, t in tensors.items() if n.startswith("module.")
            }
            self.module.load_state_dict(module)
            parameters = dict(self.module.named_parameters())
            for name, value in tensors.items():
                kind, _, rest = name.partition(".")
                if kind == "optimizer":
                    moment, _, parameter = rest.partition(".")
                    state = self.optimizer.state[parameters[parameter]]
                    state[moment] = self._restored(moment, value, parameters[parameter])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise AudiovqError(
                f"{self._path}: belongs to other settings ({' '.join(str(error).split())});"
                " train with --overwrite"
            ) from error

    def _restored(self, moment: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """A moment of AdamW with the strides of its parameter: files store none, and the fused kernels assume
        equal strides of both."""
        if moment == "step":  # AdamW holds it on the CPU unless fused on a GPU
            return value.to(self.device)
        return torch.empty_like(parameter, requires_grad=False).copy_(value)

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.stage}.state.safetensors"


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Defer Ctrl-C and SIGTERM to the end of a step; yields a test for them. A second Ctrl-C is immediate."""
    caught: list[int] = []

    def catch(number: int, _: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        before = {n: signal.signal(n, catch) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller handles signals
        before = {}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
