"""Steps, schedule, validation, resuming. Knows neither audio nor what it trains.

All that is drawn at random in a step comes from (seed, step) alone: a run that was stopped and
goes on takes the very steps of one that was not. Several processes that train together (`ranks`) take
them too, each with its share of the batch; the main one alone writes and speaks.
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

from audiovq import ranks
from audiovq.checkpoint import read_tensors, save_tensors
from audiovq.config import AudiovqError, OptimizerConfig, derived_seed
from audiovq.files import append_line
from audiovq.graphs import Recorded, follow_gradients, make_recordable, own_stream, set_rate

POOL = 24
"""Batches are cut from so many batches' worth of clips, sorted by length: little is padded."""

QUIET_SECONDS = 45.0
"""Without a validation in this time, a line says where training stands all the same."""

CHECK_STEPS = 100
"""Losses are looked at once in so many steps: each look makes a GPU wait."""


Inputs = tuple[Tensor, ...]
"""What a step's loss is made from."""
Losses = Mapping[str, Tensor]
"""Scalars by name: `loss`, to be minimized, and others."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: the state is saved, the next run goes on from it."""


class Diverged(AudiovqError):
    """A loss or a gradient was no finite number; nothing of it was saved."""

    def __init__(self, message: str, places: list[int]) -> None:
        super().__init__(message)
        self.places = places
        """Of the clips in the batch where it was first seen."""


@dataclass(frozen=True)
class Step:
    """What a loss function is told."""

    number: int
    progress: float
    """0 to 1 over the schedule."""
    indices: Tensor
    """(batch,) places of the clips, of which `ranks.mine()` are this process's."""
    generator: torch.Generator
    """Of the CPU, seeded for this step."""
    recorded: bool = False
    """Whether what follows is recorded for each size that it comes in."""

    def width(self, size: int) -> int:
        """`size`, or where steps are recorded the next of eight an octave, so that there are few."""
        if not self.recorded:
            return size
        step = 1 << max(0, size.bit_length() - 4)
        return -(-size // step) * step


@dataclass
class State:
    """Where training stands; saved with weights and optimizer."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0
    stale: int = 0
    """Validations since the best one."""
    done: bool = False


def batches(lengths: Tensor, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """(clips,) lengths → one epoch of index tensors, clips of like length together, in random order.

    Lengths are jittered by 5 %, so that a clip meets other partners in every epoch.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
    shuffled = torch.randperm(len(lengths), generator=generator)
    pools = torch.split(shuffled, batch_size * POOL)
    jittered = lengths * (0.95 + 0.1 * torch.rand(len(lengths), generator=generator))
    by_length = (pool[jittered[pool].argsort(stable=True)] for pool in pools)
    cut = [batch for pool in by_length for batch in torch.split(pool, batch_size)]
    return [cut[i] for i in torch.randperm(len(cut), generator=generator)]


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """`auto` → bfloat16 where the device computes in it, else float32."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    able = False
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        flags: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        able = bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
    return torch.bfloat16 if ranks.all_can(able) else torch.float32


class Trainer:
    """Trains one module with AdamW, warm-up, decay, clipping, validation and patience."""

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
        self.device = next(module.parameters()).device
        self.records = self.device.type == "cuda" and ranks.world() == 1
        """Whether steps become CUDA graphs."""
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
            make_recordable(self.optimizer, self.device)
        self.resume()

    @property
    def progress(self) -> float:
        """0 to 1: steps done of the schedule, or time used of the limit, whichever is further."""
        by_time = self.state.seconds / self.max_seconds if self.max_seconds else 0.0
        return min(1.0, max(self.state.step / self.steps, by_time))

    def learning_rate(self) -> float:
        """Warm-up to the peak, then a cosine to its final share, or an exponential decay."""
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
        """Train until the schedule, the time limit or the patience ends.

        `lengths` (clips,) are cut into batches; `prepare` gives the tensors, on the CPU or the device,
        that `loss` is called with, and that gives `loss`, to minimize, and any other scalars to log, as
        parts whose mean over ranks is the batch's. On a GPU it gets all of them there, and is recorded:
        it may depend on nothing else that changes. `validate` gives `score`, the
        lower the better, and others, the same in all ranks; in the main one `keep` is called
        with every best state, `say` with every validation's metrics and, where that takes long, now
        and then with the training's alone; `ahead` hears of the next step's clips. Goes on where a
        stopped run stood. Raises Stopped on Ctrl-C, after saving, and Diverged where a loss or its
        gradient is not finite.
        """
        totals: dict[str, Tensor] = {}
        counted, epoch, order = 0, -1, list[Tensor]()
        unseen: list[tuple[Tensor, Tensor]] = []
        started = time.perf_counter() - self.state.seconds
        spoken = self.state.seconds
        update = self._updating(ranks.parallel(self.module, loss))
        bar = tqdm(
            total=1000,
            desc=self.stage,
            disable=None if ranks.is_main() else True,
            bar_format="{desc}: {percentage:3.0f}% {bar} {elapsed}, {remaining} left",
        )
        with _interrupts() as interrupted, bar, own_stream(self.device):
            while not self.state.done:
                per_epoch = -(-len(lengths) // self.config.batch_size)
                if epoch != self.state.step // per_epoch:
                    epoch = self.state.step // per_epoch
                    order = batches(lengths, self.config.batch_size, self.seed, epoch)
                indices = order[self.state.step % len(order)]
                ahead(order[(self.state.step + 1) % len(order)])
                scalars, norm = self._step(prepare, update, indices)
                unseen.append((indices, scalars["loss"] + norm))
                for name, value in scalars.items():
                    totals[name] = totals[name] + value if name in totals else value.clone()
                counted += 1
                self.state.step += 1
                elapsed = time.perf_counter() - started
                self.state.seconds, stop = ranks.agreed(elapsed, interrupted())
                bar.update(int(1000 * self.progress) - bar.n)
                ended = self.progress >= 1
                due = ended or self.state.step % self.config.validate_every == 0
                speaks = due or self.state.seconds - spoken > QUIET_SECONDS
                if speaks or stop or len(unseen) == CHECK_STEPS:
                    self._check(unseen)
                    unseen = []
                if speaks:
                    sums = ranks.totals(*(float(total) for total in totals.values()))
                    steps = counted * ranks.world()
                    means = {name: x / steps for name, x in zip(totals, sums, strict=True)}
                    metrics = self._metrics(means)
                    if due:
                        metrics |= self._validated(means, validate, keep, ended)
                        totals, counted = {}, 0
                    if ranks.is_main():
                        with tqdm.external_write_mode():
                            say(metrics)
                    spoken, stop = ranks.agreed(time.perf_counter() - started, interrupted())
                # After a validation that is due, or the run that goes on would go without it.
                if stop:
                    if unseen:
                        self._check(unseen)
                    self.save()
                    raise Stopped
        return self.state

    def _step(
        self,
        prepare: Callable[[Step], Inputs],
        update: Callable[..., tuple[Losses, Tensor]],
        indices: Tensor,
    ) -> tuple[Losses, Tensor]:
        """One step: the losses, and the norm of the gradient; the next step may overwrite both."""
        number = self.state.step
        generator = torch.Generator().manual_seed(derived_seed(self.seed, 2 * number + 1))
        _seed(derived_seed(self.seed, 2 * number), self.device)
        set_rate(self.optimizer, self.learning_rate())
        if not self.module.training:
            self.module.train()
        with ranks.sharing(len(indices)):
            return update(*prepare(Step(number, self.progress, indices, generator, self.records)))

    def _updating(self, loss: Callable[..., Losses]) -> Callable[..., tuple[Losses, Tensor]]:
        """What `prepare` gives → the losses, and the norm of the gradient that was followed."""

        def update(*inputs: Tensor) -> tuple[Losses, Tensor]:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                scalars = loss(*inputs)
            self.optimizer.zero_grad(set_to_none=True)
            scalars["loss"].backward()
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
            follow_gradients(self.optimizer, self.device)
            return {name: value.detach() for name, value in scalars.items()}, norm

        return Recorded(update, self.device) if self.records else update

    def _check(self, unseen: list[tuple[Tensor, Tensor]]) -> None:
        """Raise Diverged where one of the last steps, (clips, loss + norm) each, went wrong."""
        finite = ranks.total(torch.stack([value for _, value in unseen])).isfinite().tolist()
        if not all(finite):
            first = finite.index(False)
            kept = (
                f"the best model so far, of step {self.state.best_step}, is kept"
                if self.state.best_step
                else "there is no model of an earlier step yet"
            )
            raise Diverged(
                f"{self.stage}: the loss stopped being a number at step"
                f" {self.state.step - len(unseen) + first + 1}; {kept}."
                " Train again with a lower learning rate",
                unseen[first][0].tolist(),
            )

    def _metrics(self, means: Mapping[str, float]) -> dict[str, float]:
        """Where training stands, and the means of its losses since the last validation."""
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
        """Validate, keep what is best, save the state, log; returns the validation's metrics."""
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
            if ranks.is_main():
                keep(state, metrics)
        else:
            state.stale += 1
        state.done = ended or state.stale >= self.config.patience
        self.save()
        if ranks.is_main():
            append_line(self.folder / "metrics.jsonl", json.dumps({"stage": self.stage, **metrics}))
        return named

    def _require_finite_weights(self) -> None:
        """What is not finite must not take the place of what was good."""
        for name, value in self.module.state_dict().items():
            if not bool(value.isfinite().all()):
                raise AudiovqError(
                    f"{self.stage}: {name} stopped being numbers before step {self.state.step};"
                    " what was saved before is kept. Train again with a lower learning rate"
                )

    def save(self) -> None:
        """Weights, optimizer and state in one file, atomically. Never weights that are not finite."""
        self._require_finite_weights()
        if not ranks.is_main():
            return
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        names = {id(p): name for name, p in self.module.named_parameters()}
        for parameter, moments in self.optimizer.state.items():
            for name, value in moments.items():
                tensors[f"optimizer.{name}.{names[id(parameter)]}"] = value
        save_tensors(self._path, tensors, {"state": json.dumps(asdict(self.state))})

    def resume(self) -> None:
        """Take up what `save` left, if anything."""
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
        """A moment of AdamW as it lay in memory: files keep no strides, but the fused kernels walk
        weights and moments side by side, whatever the strides of each."""
        if moment == "step":  # AdamW keeps it on the CPU unless it is fused on a GPU
            return value.to(self.device)
        return torch.empty_like(parameter, requires_grad=False).copy_(value)

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.stage}.state.safetensors"


def _seed(seed: int, device: torch.device) -> None:
    """torch.manual_seed, but for the kinds of device that are not in use: it asks all, at length."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM wait for the end of a step; a second Ctrl-C does not."""
    caught: list[int] = []

    def catch(number: int, _: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        before = {n: signal.signal(n, catch) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
