"""Training loop: steps, schedule, validation, resuming. Knows neither audio nor the module's purpose.

All random numbers of a step depend on (seed, step) only: a resumed run takes exactly the steps of an
uninterrupted one. With several ranks, each computes its slice of the batch, and only rank 0 writes files
and logs.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
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
from audiovq.runtime.threads import tuned_step
from audiovq.training.muon import Muon, parameter_groups
from audiovq.training.stage import Inputs, Limits, Losses, Metrics, Stage, Step
from audiovq.training.state import State, load_state, save_state


class Stopped(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or SIGTERM; its state is saved for the next run."""


class Diverged(AudiovqError):
    """A loss or gradient was NaN or infinite; nothing since then was saved."""

    def __init__(self, message: str, indices: list[int]) -> None:
        super().__init__(message)
        self.indices = indices
        """Indices of the clips in the first such batch."""


class Trainer:
    """Training of one module: AdamW or Muon, warm-up, decay, gradient clipping, validation and early stopping."""

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
        limits: Limits = Limits(),
        title: str = "",
    ) -> None:
        """Resumes from the state file of `stage` in `folder`, if it exists.

        `clips`: number of training clips. `max_seconds`: time limit, with the time of earlier runs. `title`: the
        stage in words, for its progress bar. Raises AudiovqError where the file does not match the module and
        `config`.
        """
        self.module = module
        self.config = config
        self.folder = folder
        self.stage = stage
        self.title = title or stage
        self.seed = seed
        self.dtype = dtype
        self.max_seconds = max_seconds
        self.limits = limits
        self.steps = config.steps_for(clips, limits.fewest_steps)
        self.validate_every = config.validations_for(clips)
        self.device = next(module.parameters()).device
        self.records = self.device.type == "cuda" and distributed.world_size() == 1
        """Whether steps are captured as CUDA graphs."""
        self.state = State()
        self.optimizer = Muon(
            parameter_groups(module, config.weight_decay, config.optimizer == "muon"),
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
        stage: Stage,
        keep: Callable[[State, Metrics], None],
        report: Callable[[Metrics], None],
    ) -> State:
        """Train until the end of the schedule, the time limit or the patience.

        A stage that starts from trained weights is validated first: they stay where no step is better, or nearly as
        good. In rank 0, `keep` is called with every state that replaces the one kept before (see `_is_kept`), and
        `report` with the metrics of every validation and, between distant ones, with those of training. Raises Stopped
        on Ctrl-C, after saving, and Diverged where a loss or its gradient is not finite.
        """
        order = _Batches(stage.lengths, self.config.batch_size, self.seed)
        means = _Means.resumed(self.state)
        unchecked: list[tuple[Tensor, Tensor]] = []
        started = time.perf_counter() - self.state.seconds
        reported = self.state.seconds
        update = self._updating(distributed.data_parallel(self.module, stage.loss))
        with _interrupts() as interrupted, self._bar() as bar, side_stream(self.device):
            if stage.carried and self.state.best == math.inf:
                metrics = self._validated(self._metrics({}), stage, keep)
                _print(report, metrics)
            while not self.state.done:
                indices, following = order.at(self.state.step)
                stage.read_ahead(following)
                losses, norm = self._step(stage.prepare, update, indices)
                unchecked.append((indices, losses["loss"] + norm))
                means.add(losses)
                self.state.step += 1
                elapsed = time.perf_counter() - started
                self.state.seconds, stop = distributed.sync_clock(elapsed, interrupted())
                bar.update(int(1000 * self.progress) - bar.n)
                due = self.progress >= 1 or self.state.step % self.validate_every == 0
                reports = due or self.state.seconds - reported > self.limits.quiet_seconds
                if reports or stop or len(unchecked) == self.limits.check_steps:
                    self._check(unchecked)
                    unchecked = []
                if reports:
                    metrics = self._metrics(means.over_ranks())
                    if due:
                        metrics = self._validated(metrics, stage, keep)
                        means = _Means()
                    _print(report, metrics)
                    elapsed = time.perf_counter() - started
                    reported, stop = distributed.sync_clock(elapsed, interrupted())
                # After a validation that is due, or the resumed run would skip it.
                if stop:
                    # The next validation decides by the mean of all steps before it which state is kept.
                    self.state.totals, self.state.counted = means.of_ranks(), means.count
                    self.save()
                    raise Stopped
        return self.state

    def _bar(self) -> Any:
        """Progress bar of the schedule in thousandths, in rank 0; at its end it goes, and the lines stay."""
        return tqdm(
            total=1000,
            desc=self.title,
            disable=None if distributed.is_main() else True,
            leave=False,
            bar_format="{desc}: {bar} {elapsed}, {remaining} left in this stage",
        )

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
            inputs = prepare(Step(number, self.progress, indices, generator, self.records))
            # Several ranks wait for each other, so that the time of a step says nothing about this one.
            tunable = self.device.type == "cpu" and distributed.world_size() == 1
            size = inputs[0].numel() if inputs else 1
            with tuned_step(self.stage, size, enabled=tunable):
                return update(*inputs)

    def _updating(self, loss: Callable[..., Losses]) -> Callable[..., tuple[Losses, Tensor]]:
        """Function of the output of `prepare`: optimizer step; returns losses and gradient norm."""
        return update_function(
            self.module, self.optimizer, loss, self.dtype, self.config.clip_norm, self.records
        )

    def _check(self, unchecked: list[tuple[Tensor, Tensor]]) -> None:
        """Raise Diverged unless all (clips, loss + gradient norm) are finite."""
        finite = (
            distributed.all_reduce_sum(torch.stack([value for _, value in unchecked]))
            .isfinite()
            .tolist()
        )
        if not all(finite):
            first = finite.index(False)
            saved = (
                f"the model of step {self.state.best_step} is kept"
                if self.state.best < math.inf
                else "no model was saved before"
            )
            raise Diverged(
                f"{self.stage}: the loss became NaN or infinite at step"
                f" {self.state.step - len(unchecked) + first + 1}; {saved}."
                " Train again with a lower learning rate",
                unchecked[first][0].tolist(),
            )

    def _metrics(self, means: Metrics) -> dict[str, float]:
        """Step, time, learning rate, and mean losses since the last validation."""
        return {
            "step": self.state.step,
            "seconds": round(self.state.seconds, 2),
            "progress": self.progress,
            "learning_rate": self.learning_rate(),
            **means,
        }

    def _validated(
        self, metrics: Metrics, stage: Stage, keep: Callable[[State, Metrics], None]
    ) -> dict[str, float]:
        """`metrics` and those of a validation, after keeping the best model, saving the state and logging."""
        state = self.state
        self._require_finite_weights()
        self.module.eval()
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            validation = stage.validate()
        metrics = {**metrics, **{f"validation_{name}": x for name, x in validation.items()}}
        training_score = stage.training_score(metrics)
        if self._is_kept(validation["score"], training_score):
            state.best = min(state.best, validation["score"])
            state.best_step, state.training_score, state.stale = state.step, training_score, 0
            if distributed.is_main():
                keep(state, metrics)
        else:
            state.stale += 1
        state.done = self.progress >= 1 or state.stale >= self.config.patience
        self.save()
        if distributed.is_main():
            append_line(self.folder / "metrics.jsonl", json_text({"stage": self.stage, **metrics}))
        return metrics

    def _is_kept(self, score: float, training_score: float | None) -> bool:
        """Whether a state replaces the one that is kept: it is better, or nearly as good as the best (`tolerance`), or
        training clips are still being learnt (`learnt_share`)."""
        best, before, config = self.state.best, self.state.training_score, self.config
        if config.learnt_share and training_score is not None and before is not None:
            learning = config.learnt_share * score < training_score < before
        else:
            learning = False
        if not config.tolerance or best == math.inf:
            return learning or score < best
        return learning or score <= best + config.tolerance * abs(best)

    def _require_finite_weights(self) -> None:
        """Raise AudiovqError if weights are not finite, before they replace good ones on disk."""
        for name, value in self.module.state_dict().items():
            if not bool(value.isfinite().all()):
                raise AudiovqError(
                    f"{self.stage}: {name} became NaN or infinite before step {self.state.step};"
                    " earlier saves are kept. Train again with a lower learning rate"
                )

    def save(self) -> None:
        """Save weights, optimizer and state, in rank 0. Raises AudiovqError if weights are not finite."""
        self._require_finite_weights()
        if distributed.is_main():
            save_state(self._path, self.module, self.optimizer, self.state)

    def resume(self) -> None:
        """Load what `save` saved, if there is anything.

        Raises AudiovqError where it does not match the module and optimizer.
        """
        if self._path.exists():
            self.state = load_state(self._path, self.module, self.optimizer)

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.stage}.state.safetensors"


def update_function(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[..., Losses],
    dtype: torch.dtype,
    clip_norm: float,
    graphed: bool,
) -> Callable[..., tuple[Losses, Tensor]]:
    """One optimizer step, as a function of the arguments of `loss`; returns losses and gradient norm.

    `dtype`: precision of autocast. `clip_norm`: largest gradient norm; infinite: no clipping. `graphed`: capture as
    a CUDA graph, for which `optimizer` was made capturable.
    """
    device = next(module.parameters()).device

    def update(*inputs: Tensor) -> tuple[Losses, Tensor]:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            losses = loss(*inputs)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
        optimizer_step(optimizer, device)
        return {name: value.detach() for name, value in losses.items()}, norm

    return GraphedFunction(update, device) if graphed else update


def _print(report: Callable[[Metrics], None], metrics: Metrics) -> None:
    """Report in rank 0, without disturbing a progress bar."""
    if distributed.is_main():
        with tqdm.external_write_mode():
            report(metrics)


class _Batches:
    """Batches of clips of similar length, in an order that depends on seed and epoch."""

    def __init__(self, lengths: Tensor, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.per_epoch = -(-len(lengths) // batch_size)
        self.epoch, self.order = -1, list[Tensor]()

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Indices of the clips of a step, and of the batch to prefetch: the epoch's next one, after its last the
        first."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            self.order = batches(self.lengths, self.batch_size, self.seed, epoch)
        return self.order[index], self.order[(index + 1) % self.per_epoch]


class _Means:
    """Running means of scalars."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor | float] = {}
        """A tensor on its device, as a number would make every step wait for it; after resuming, a number until the
        next step: the sums are equal."""
        self.count = 0

    @classmethod
    def resumed(cls, state: State) -> _Means:
        """The means of the run that saved `state`, from which they are removed; their ranks may have been others."""
        means, world = cls(), distributed.world_size()
        for name, totals in state.totals.items():
            ours = sum(totals[distributed.rank() :: world])
            means.totals[name] = ours * (world / len(totals))
        means.count, state.totals, state.counted = state.counted, {}, 0
        return means

    def add(self, scalars: Losses) -> None:
        """Add the scalars of a step; the next step may overwrite their tensors."""
        for name, value in scalars.items():
            before = self.totals.get(name)
            self.totals[name] = value.clone() if before is None else before + value
        self.count += 1

    def over_ranks(self) -> dict[str, float]:
        """The means over all steps added in all ranks."""
        sums = distributed.all_reduce_floats(*(float(total) for total in self.totals.values()))
        steps = self.count * distributed.world_size()
        return {name: total / steps for name, total in zip(self.totals, sums, strict=True)}

    def of_ranks(self) -> dict[str, list[float]]:
        """The totals of every rank, by name, the same in all ranks."""
        ranks, found = range(distributed.world_size()), dict[str, list[float]]()
        for name, total in self.totals.items():
            ours = float(total)
            found[name] = list(
                distributed.all_reduce_floats(
                    *(ours if rank == distributed.rank() else 0.0 for rank in ranks)
                )
            )
        return found


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
