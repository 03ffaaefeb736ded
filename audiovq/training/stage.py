"""A stage of training: what it trains, on which data, by which loss, and what it says about it.

`autoencoder`, `vivid`, `prior` and `masked_prior` in `stages` are such stages; `run.run_stage` trains one by
`loop.Trainer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from audiovq.config.settings import FEWEST_STEPS, OptimizerConfig, TrainConfig
from audiovq.dataset.batches import evenly_spaced as evenly_spaced
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.measured import measured_split
from audiovq.models.model import Model
from audiovq.runtime import distributed
from audiovq.runtime.device import pick_precision
from audiovq.runtime.progress import Say, clock
from audiovq.training.origin import Origin

Inputs = tuple[Tensor, ...]
"""Arguments of a step's loss function."""
Losses = Mapping[str, Tensor]
"""Scalars by name: `loss`, to be minimized, and others to log."""
Metrics = Mapping[str, float]
"""Numbers by name, as metrics.jsonl and model.json hold them."""
VALIDATION_CLIPS = 512
"""Clips of a validation, fewer than twice as many: `evenly_spaced` in the split."""


@dataclass(frozen=True)
class Limits:
    """Bounds of training that are no settings of a model; tests lower them."""

    quiet_seconds: float = 45.0
    """Longest time without a progress line; one is printed then even without a validation."""
    check_steps: int = 100
    """Steps between checks for non-finite losses: each check synchronises with the GPU."""
    fewest_steps: int = FEWEST_STEPS
    """Steps below which `max_epochs` shortens no schedule."""
    sample_every: float = 0.2
    """Share of the schedule between two files of samples; above 1: no samples."""
    context_steps: int = 3_000
    """Maximum number of steps for fitting the context tables."""


@dataclass(frozen=True)
class Run:
    """What the stages of one training share."""

    dataset: Dataset
    folder: Path
    """The model folder."""
    config: TrainConfig
    device: torch.device
    say: Say
    """Prints a line; silent in all ranks but rank 0."""
    limits: Limits = Limits()
    origin: Origin | None = None
    """The trained model that the stages start from."""
    plain: bool = False
    """Whether to print a line for beginners in place of figures (`plain`)."""

    def detail(self, line: str) -> None:
        """Print a line of figures, unless `plain`."""
        if not self.plain:
            self.say(line)

    @property
    def only_masked(self) -> bool:
        """Whether the masked prior is the only one that is trained, and new sounds come from it."""
        return self.origin is not None and self.origin.trains_only_masked(self.config)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of autocast, in all ranks that which all can have. To be asked for in all ranks."""
        dtype = pick_precision(self.config.precision, self.device)
        return dtype if distributed.all_true(dtype == torch.bfloat16) else torch.float32


@dataclass(frozen=True)
class Step:
    """Current step, as `Stage.prepare` receives it."""

    number: int
    progress: float
    """Share of the schedule, 0 to 1."""
    indices: Tensor
    """(batch,) indices of the clips; `distributed.local_slice()` is this rank's slice of them."""
    generator: torch.Generator
    """CPU generator, seeded for this step."""
    recorded: bool = False
    """Whether the step is captured as a CUDA graph, one for each input size."""

    def width(self, size: int) -> int:
        """Padded `size`: with CUDA graphs the next of eight sizes per octave, so that graphs are few."""
        if not self.recorded:
            return size
        multiple = 1 << max(0, size.bit_length() - 4)
        return -(-size // multiple) * multiple


class Stage(ABC):
    """One stage of training.

    Losses are local terms whose mean over ranks is that of the batch. On a GPU `loss` gets all its arguments there
    and is captured as a CUDA graph, so it may depend on nothing else that changes.
    """

    name: Literal["autoencoder", "vivid", "prior", "masked"]
    """Key in model.json and metrics.jsonl, first word of messages."""
    lengths: Tensor
    """(clips,) frames or tokens of each training clip, by which clips are batched; known after `begin`."""

    def __init__(
        self,
        run: Run,
        model: Model,
        module: nn.Module,
        optimizer: OptimizerConfig,
        carried: bool = False,
    ) -> None:
        """`module`: the part of `model` that is trained, as `optimizer` says; `carried`: from trained weights."""
        self.run = run
        self.model = model
        self.module = module
        self.carried = carried
        """Whether the weights are those of `run.origin`: they are validated before the first step, and learn more
        slowly, by `carried_rate`."""
        rate = optimizer.learning_rate * (run.config.carried_rate if carried else 1.0)
        self.optimizer = replace(optimizer, learning_rate=rate)
        self.held_out = measured_split(run.dataset, "validation")
        """Clips of `validate`: training clips where the dataset has no validation split."""
        self.facts: dict[str, Any] = {}
        """Entries of the summary in model.json beside the metrics."""

    @abstractmethod
    def begin(self, resumed: bool) -> Sequence[str]:
        """Make the training data; returns lines to print. Not called where the stage is already trained."""

    def read_ahead(self, indices: Tensor) -> None:
        """Prefetch the clips at `indices` (batch,), those of the next step; by default nothing."""
        return

    @abstractmethod
    def prepare(self, step: Step) -> Inputs:
        """The arguments of `loss` in a step, on the CPU or the device."""

    @abstractmethod
    def loss(self, *inputs: Tensor) -> Losses:
        """`loss`, to be minimized, and other scalars to log."""

    @abstractmethod
    def validate(self) -> Metrics:
        """`score`, lower being better, and other scalars; equal in all ranks."""

    def training_score(self, metrics: Metrics) -> float | None:
        """Score of training clips since the last validation, in the units of `validate`; None where it is not known."""
        return None

    @abstractmethod
    def describe(self, metrics: Metrics) -> str:
        """The progress line of a validation or, without its metrics, of training."""

    def sample(self, step: int) -> None:
        """Write samples of the model to the folder, named by stage and step; by default none."""
        return

    def size_line(self) -> str:
        """`prior: 1,234 parameters`."""
        return f"{self.name}: {sum(p.numel() for p in self.module.parameters()):,} parameters"


def progress_line(stage: str, metrics: Metrics) -> str:
    """Share of the schedule, step, time taken and left, as words."""
    share, seconds = metrics["progress"], metrics["seconds"]
    left = clock(seconds * (1 - share) / share) if share else "?"
    return f"{stage} {100 * share:3.0f} %, step {metrics['step']:,}, {clock(seconds)}, {left} left"


def loss_line(stage: str, metrics: Metrics) -> str:
    """Progress and loss, as words: the line between validations."""
    return f"{progress_line(stage, metrics)}: loss {metrics['loss']:.3f} (lower is better)"
