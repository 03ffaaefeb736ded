"""Tests of the training loop: exact resuming, schedule, patience, limits, divergence, batches."""

import json
import math
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ticking_clock import use_ticking_clock
from torch import Tensor, nn

from audiovq.config.errors import AudiovqError
from audiovq.config.presets import PRESETS
from audiovq.config.settings import OptimizerConfig
from audiovq.dataset.batches import batches
from audiovq.runtime import distributed
from audiovq.runtime.device import pick_precision
from audiovq.runtime.tensors import read_tensors, save_tensors
from audiovq.training.loop import Diverged, Stopped, Trainer, _Means
from audiovq.training.stage import Limits, Step
from audiovq.training.state import State

CONFIG = OptimizerConfig(
    steps=20,
    batch_size=4,
    learning_rate=1e-2,
    final_share=0.1,
    warmup=5,
    weight_decay=0.1,
    validate_every=6,
    patience=100,
)
LENGTHS = torch.tensor([5, 3, 9, 1, 7, 2, 8, 4, 6, 10])
INPUTS = torch.randn(10, 2, 5, 5, generator=torch.Generator().manual_seed(0))


class Task:
    """A toy regression with the features of a stage: dropout, noise, buffers, channels-last strides."""

    def __init__(self, folder: Path, config: OptimizerConfig = CONFIG, **changes: Any) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.2), nn.Flatten(), nn.Linear(54, 1)
        ).to(memory_format=torch.channels_last)
        self.settings: dict[str, Any] = {
            "stage": "toy",
            "clips": len(LENGTHS),
            "seed": 3,
            "dtype": torch.float32,
            "max_seconds": None,
        } | changes
        self.trainer = Trainer(self.module, config, folder, **self.settings)
        self.steps: list[Step] = []
        self.rates: list[float] = []
        self.random_numbers: list[tuple[float, float]] = []
        """Random numbers of each step, from the global and from the step's generator."""
        self.kept: list[tuple[dict[str, float], dict[str, Tensor]]] = []
        self.said: list[Mapping[str, float]] = []
        self.scores: list[float] = []
        self.carried = False
        self.before_step: dict[int, Any] = {}
        """Functions called inside the loss, by step."""

    def loss(self, step: Step) -> dict[str, Tensor]:
        assert self.module.training
        assert torch.is_grad_enabled()
        self.steps.append(step)
        self.random_numbers.append(
            (float(torch.rand(1)), float(torch.rand(1, generator=step.generator)))
        )
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])
        x = INPUTS[step.indices]
        noise = 0.1 * torch.randn(x.shape, generator=step.generator)
        squared = (self.module(x + noise)[:, 0] - x.mean(dim=(1, 2, 3))).square().mean()
        if step.number in self.before_step:
            squared = squared + self.before_step[step.number]()
        return {"loss": squared, "twice": 2 * squared.detach()}

    def validate(self) -> dict[str, float]:
        assert not self.module.training
        assert not torch.is_grad_enabled()
        error = (self.module(INPUTS)[:, 0] - INPUTS.mean(dim=(1, 2, 3))).square().mean().item()
        self.scores.append(error)
        return {"score": error, "other": 1.0}

    def training_score(self, metrics: Mapping[str, float]) -> float | None:
        return None

    def keep(self, state: State, metrics: Mapping[str, float]) -> None:
        weights = {name: value.clone() for name, value in self.module.state_dict().items()}
        self.kept.append((asdict(state) | {"seconds": 0}, weights))

    def fit(self) -> State:
        return self.fit_saying(self.said.append)

    def fit_saying(self, say: Callable[[Mapping[str, float]], None]) -> State:
        steps: list[Step] = []

        def prepare(step: Step) -> tuple[Tensor, ...]:
            steps.append(step)
            return ()

        stage = SimpleNamespace(
            lengths=LENGTHS,
            carried=self.carried,
            read_ahead=lambda indices: None,
            prepare=prepare,
            loss=lambda: self.loss(steps[-1]),
            validate=self.validate,
            training_score=self.training_score,
        )
        return self.trainer.fit(stage, self.keep, say)


def interrupt(number: int = signal.SIGINT, times: int = 1) -> Any:
    def happens() -> float:
        for _ in range(times):
            signal.raise_signal(number)
        return 0.0

    return happens


def logged(folder: Path) -> list[dict[str, float]]:
    """What was logged, but for the seconds."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) | {"seconds": 0} for line in lines]


def same_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_fits_a_toy_regression(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=150, validate_every=50, weight_decay=0.0)
    task = Task(tmp_path, config)
    state = task.fit()
    assert state.done
    assert state.step == 150
    start = INPUTS.mean(dim=(1, 2, 3)).square().mean().item()
    assert state.best < 0.3 * start
    assert state.best == min(task.scores)


# 6 and 12 are steps with a validation, 20 is the last, 13 the first after one.
@pytest.mark.parametrize("stops", [[1], [6], [12], [13], [20], [3, 7, 12, 19]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    stops: list[int], number: int, optimizer: Literal["adamw", "muon"], tmp_path: Path
) -> None:
    config = replace(CONFIG, optimizer=optimizer)
    straight = Task(tmp_path / "straight", config)
    final = asdict(straight.fit())
    rates, kept, indices = [], [], []
    for stop in [*stops, None]:
        task = Task(tmp_path / "stopped", config)
        if stop is not None:
            task.before_step[stop - 1] = interrupt(number)
            with pytest.raises(Stopped):
                task.fit()
            assert task.trainer.state.step == stop, "finishes the current step and no more"
        else:
            assert asdict(task.fit()) | {"seconds": 0} == final | {"seconds": 0}
        rates += task.rates
        kept += task.kept
        indices += [step.indices for step in task.steps]
    assert same_weights(task.module.state_dict(), straight.module.state_dict())
    assert rates == straight.rates
    assert len(indices) == len(straight.steps)
    assert all(torch.equal(a, b.indices) for a, b in zip(indices, straight.steps, strict=True))
    assert [state for state, _ in kept] == [state for state, _ in straight.kept]
    for (_, mine), (_, theirs) in zip(kept, straight.kept, strict=True):
        assert same_weights(mine, theirs)
    lines = [logged(tmp_path / run) for run in ("straight", "stopped")]
    assert lines[0] == lines[1], "the mean losses of the steps before and after a stop, too"
    assert [line["step"] for line in lines[0]] == [6, 12, 18, 20]


def test_a_stop_before_a_validation_does_not_change_which_state_is_kept(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=12, learnt_share=0.1)
    kept = []
    for stopped in (False, True):
        folder = tmp_path / f"stopped-{stopped}"
        for again in range(1 + stopped):
            task = Task(folder, config)
            # The second mean is half of the first, and the loss of its last step alone higher than both.
            task.before_step = dict.fromkeys(range(6), lambda: 100.0) | {11: lambda: 300.0}
            task.validate = lambda task=task: {"score": float(task.trainer.state.step)}
            task.training_score = lambda metrics: metrics["loss"]
            if stopped and not again:
                task.before_step[10] = interrupt()
                with pytest.raises(Stopped):
                    task.fit()
        state = task.fit()
        kept.append((state.best_step, state.training_score))
    assert kept[0] == kept[1]
    assert kept[0][0] == 12, "as it was still learning training clips"


def test_a_state_file_without_the_losses_of_the_steps_before_is_resumed(tmp_path: Path) -> None:
    """As an earlier version wrote it."""
    task = Task(tmp_path)
    task.before_step[8] = interrupt()
    with pytest.raises(Stopped):
        task.fit()
    path = tmp_path / "toy.state.safetensors"
    tensors, metadata = read_tensors(path, sealed=True)
    state = json.loads(metadata["state"])
    assert state.pop("counted") == 3
    assert [len(of_ranks) for of_ranks in state.pop("totals").values()] == [1, 1]
    save_tensors(path, tensors, {"state": json.dumps(state)})
    again = Task(tmp_path)
    assert again.fit().done
    assert again.steps[0].number == 9


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (2, 1), (1, 2), (3, 2), (2, 5)])
def test_mean_losses_go_on_with_any_number_of_ranks(
    before: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean over steps and ranks of what was added before and after is that of a straight run."""
    losses = [0.1 * (1 + number) for number in range(before)]
    state = State(totals={"loss": losses}, counted=2)
    monkeypatch.setattr(distributed, "world_size", lambda: after)
    total = 0.0
    for rank in range(after):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        means = _Means.resumed(replace(state))
        total += float(means.totals["loss"])
        assert means.count == 2
        if before == after:
            assert means.totals["loss"] == losses[rank], "bit for bit"
    assert total / (2 * after) == pytest.approx(sum(losses) / (2 * before))


def test_a_second_ctrl_c_stops_immediately(tmp_path: Path) -> None:
    task = Task(tmp_path)
    task.before_step[4] = interrupt(times=2)
    with pytest.raises(KeyboardInterrupt):
        task.fit()
    assert task.trainer.state.step == 4


def test_ctrl_c_during_the_last_validation_is_not_lost(tmp_path: Path) -> None:
    task = Task(tmp_path, replace(CONFIG, steps=6))
    plain = task.validate

    def validate() -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return plain()

    task.validate = validate
    with pytest.raises(Stopped):
        task.fit()
    again = Task(tmp_path, replace(CONFIG, steps=6))
    assert again.fit().done
    assert not again.steps, "no steps are left"


def test_signal_handlers_are_restored(tmp_path: Path) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    task = Task(tmp_path)
    task.before_step[2] = interrupt()
    with pytest.raises(Stopped):
        task.fit()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_crash_loses_only_the_steps_since_the_last_validation(tmp_path: Path) -> None:
    straight = Task(tmp_path / "straight")
    straight.fit()

    def crash() -> float:
        raise OSError("the disk is on fire")

    task = Task(tmp_path / "crashed")
    task.before_step[14] = crash
    with pytest.raises(OSError, match="on fire"):
        task.fit()
    again = Task(tmp_path / "crashed")
    again.fit()
    assert again.steps[0].number == 12
    assert same_weights(again.module.state_dict(), straight.module.state_dict())


def test_a_finished_run_takes_no_more_steps(tmp_path: Path) -> None:
    task = Task(tmp_path)
    task.fit()
    again = Task(tmp_path)
    assert asdict(again.fit()) == asdict(task.trainer.state)
    assert not again.steps
    assert same_weights(again.module.state_dict(), task.module.state_dict())


def test_random_numbers_of_a_step_depend_on_seed_and_step_only(tmp_path: Path) -> None:
    one, again, other = Task(tmp_path / "1"), Task(tmp_path / "2"), Task(tmp_path / "3", seed=4)
    one.fit()
    torch.manual_seed(99)
    again.fit()
    other.fit()
    assert one.random_numbers == again.random_numbers
    numbers = [number for pair in one.random_numbers + other.random_numbers for number in pair]
    assert len(set(numbers)) == len(numbers) == 80


def test_seeds_differ_in_their_steps(tmp_path: Path) -> None:
    one, other = Task(tmp_path / "one"), Task(tmp_path / "other", seed=4)
    for task in (one, other):
        task.fit()
    assert not same_weights(one.module.state_dict(), other.module.state_dict())
    orders = [torch.cat([step.indices for step in task.steps]).tolist() for task in (one, other)]
    assert orders[0] != orders[1]


def test_learning_rate_warms_up_and_decays_by_a_cosine(tmp_path: Path) -> None:
    task = Task(tmp_path, replace(CONFIG, steps=40, warmup=10))
    task.fit()
    progress = np.arange(40) / 40
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * progress))
    warm = np.minimum(1, np.arange(1, 41) / 10)
    np.testing.assert_allclose(task.rates, 1e-2 * cosine * warm, rtol=1e-9)
    assert [step.progress for step in task.steps] == pytest.approx(list(progress))
    assert task.said[-1]["progress"] == 1
    assert task.said[-1]["learning_rate"] == pytest.approx(1e-3), "ends at its final share"


@pytest.mark.parametrize(("fewest", "steps"), [(2, 9), (12, 12), (50, 20)])
def test_max_epochs_shortens_the_schedule_but_not_below_the_minimum_of_steps(
    fewest: int, steps: int, tmp_path: Path
) -> None:
    limits = Limits(fewest_steps=fewest)
    task = Task(tmp_path, replace(CONFIG, max_epochs=3), limits=limits)  # of three batches each
    task.fit()
    assert len(task.rates) == steps
    cosine = (1 + math.cos(math.pi * (steps - 1) / steps)) / 2
    assert task.rates[-1] == pytest.approx(1e-2 * (0.1 + 0.9 * cosine)), "the schedule is complete"


def test_exponential_decay_is_by_the_same_factor_in_every_step(tmp_path: Path) -> None:
    task = Task(
        tmp_path, replace(CONFIG, steps=40, warmup=0, schedule="exponential", decay_rate=0.05)
    )
    task.fit()
    np.testing.assert_allclose(task.rates, 1e-2 * 0.05 ** (np.arange(40) / 40), rtol=1e-9)
    assert task.said[-1]["learning_rate"] == pytest.approx(5e-4), "ends at the decay rate's share"


def test_weight_decay_applies_to_weights_and_not_to_biases(tmp_path: Path) -> None:
    task = Task(tmp_path, replace(CONFIG, steps=5, warmup=0))
    before = {name: value.clone() for name, value in task.module.named_parameters()}

    def loss(step: Step) -> dict[str, Tensor]:
        return {"loss": sum((p * 0).sum() for p in task.module.parameters())}

    task.loss = loss
    task.fit()
    for name, value in task.module.named_parameters():
        if value.ndim >= 2:
            assert float((value / before[name]).detach().max()) < 1, name
        else:
            assert torch.equal(value, before[name]), name


def test_gradients_are_clipped_to_clip_norm(tmp_path: Path) -> None:
    task = Task(tmp_path, replace(CONFIG, clip_norm=0.01))
    lengths = []

    def say(metrics: Mapping[str, float]) -> None:
        gradients = [p.grad for p in task.module.parameters() if p.grad is not None]
        lengths.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))

    task.fit_saying(say)
    assert lengths == pytest.approx([0.01] * len(lengths), rel=1e-3)


def test_a_prior_that_overfits_is_validated_often_and_stopped_after_its_best_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prior's settings: on few clips its best state comes long before step 1,000."""
    prior = PRESETS["tiny"].prior_training
    assert prior.validations_for(86) == 44
    assert prior.validations_for(642) == 324
    assert prior.validations_for(10**6) == prior.validate_every == 1_000
    assert replace(prior, max_epochs=None).validations_for(86) == 1_000
    task = Task(tmp_path, prior)
    monkeypatch.setattr(task, "validate", lambda: {"score": abs(task.trainer.state.step - 75)})
    state = task.fit()
    assert state.best_step == 75
    assert state.step == 75 + prior.patience * 25 < prior.steps
    assert task.trainer.ended_by == "patience"


def test_patience_ends_a_run_without_improvement(tmp_path: Path) -> None:
    task = Task(tmp_path, replace(CONFIG, steps=1000, validate_every=2, patience=3))
    scores = iter([3.0, 2.0, 2.5, 2.0, 1.0, 1.0, 5.0, math.nan, 0.0])
    task.validate = lambda: {"score": next(scores)}
    state = task.fit()
    assert state.done
    assert (state.step, state.best, state.best_step, state.stale) == (16, 1.0, 10, 3)
    assert [kept["best_step"] for kept, _ in task.kept] == [2, 4, 10]


def test_a_later_state_within_the_tolerance_of_the_best_score_is_kept(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1000, validate_every=2, patience=3, tolerance=0.1)
    task = Task(tmp_path, config)
    scores = iter([math.inf, 2.0, 2.2, 2.21, 2.1, 1.0, 1.11, math.nan, 1.1, 1.2, 1.2, 1.2])
    task.validate = lambda: {"score": next(scores)}
    state = task.fit()
    assert (state.best, state.best_step, state.stale) == (1.0, 18, 3)
    assert [kept["best_step"] for kept, _ in task.kept] == [4, 6, 10, 12, 18]


def test_a_later_state_is_kept_until_training_clips_are_learnt(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1000, validate_every=2, patience=2, learnt_share=0.5)
    task = Task(tmp_path, config)
    pairs = [(3.0, None), (4.0, 5.0), (2.0, 4.0), (2.5, 4.0), (2.4, 3.9), (3.0, 1.6), (2.1, 1.0)]
    pairs.append((3.0, 1.4))
    scores, of_training = (iter(column) for column in zip(*pairs, strict=True))
    task.validate = lambda: {"score": next(scores)}
    task.training_score = lambda _: next(of_training)
    state = task.fit()
    kept = [kept["best_step"] for kept, _ in task.kept]
    assert kept == [2, 6, 10, 12], (
        "neither where a training is worse for all clips, nor once they are learnt"
    )
    assert (state.step, state.best, state.best_step, state.stale) == (16, 2.0, 12, 2)
    assert state.training_score == 1.6


def test_time_limit_ends_the_schedule_and_leaves_a_kept_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_ticking_clock(monkeypatch, 0.001)
    task = Task(
        tmp_path, replace(CONFIG, steps=10**9, validate_every=10**9, warmup=1), max_seconds=0.4
    )
    state = task.fit()
    assert state.done
    assert len(task.kept) == 1
    assert same_weights(task.kept[0][1], task.module.state_dict())
    assert 0.4 <= state.seconds < 0.41
    assert task.said[-1]["progress"] == 1
    assert task.rates[-1] < 0.2 * max(task.rates), "the schedule shrank with it"
    assert task.rates == sorted(task.rates, reverse=True)


def test_time_of_earlier_runs_counts(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=10**9, validate_every=10**9)
    task = Task(tmp_path, config, max_seconds=1000.0)
    task.before_step[2] = interrupt()
    with pytest.raises(Stopped):
        task.fit()
    task.trainer.state.seconds = 999.9  # as if it had taken long
    task.trainer.save()
    again = Task(tmp_path, config, max_seconds=1000.0)
    state = again.fit()
    assert state.done
    assert state.seconds >= 1000
    assert again.steps[0].number == 3
    assert again.steps[0].progress == pytest.approx(0.9999)


@pytest.mark.parametrize("check_steps", [1, 2, 100])
def test_a_non_finite_loss_raises_with_step_and_clips_and_keeps_the_best_model(
    tmp_path: Path, check_steps: int
) -> None:
    task = Task(tmp_path, limits=Limits(check_steps=check_steps))
    task.before_step[8] = lambda: math.nan
    message = r"^toy: .* at step 9; the model of step 6 is kept.*lower learning rate$"
    with pytest.raises(Diverged, match=message) as caught:
        task.fit()
    assert caught.value.indices == task.steps[8].indices.tolist()
    assert len(task.kept) == 1
    assert all(bool(value.isfinite().all()) for value in task.kept[0][1].values())
    again = Task(tmp_path)
    again.trainer.resume()
    assert again.trainer.state.step == 6, "the next run resumes before the fault"
    assert all(bool(value.isfinite().all()) for value in again.module.state_dict().values())


def test_a_non_finite_gradient_raises_with_its_step(tmp_path: Path) -> None:
    task = Task(tmp_path)
    plain = task.loss

    def loss(step: Step) -> dict[str, Tensor]:
        weight = task.module[0].weight
        # Finite itself, but the derivative of the root at 0 is not.
        fault = (weight * 0).sum().abs().sqrt() if step.number == 8 else 0.0
        return {"loss": plain(step)["loss"] + fault}

    task.loss = loss
    with pytest.raises(Diverged, match="at step 9"):
        task.fit()
    assert Task(tmp_path).trainer.state.step == 6


def test_ctrl_c_saves_no_diverged_state(tmp_path: Path) -> None:
    task = Task(tmp_path)

    def fault() -> float:
        signal.raise_signal(signal.SIGINT)
        return math.nan

    task.before_step[8] = fault
    with pytest.raises(Diverged, match="at step 9"):
        task.fit()
    assert Task(tmp_path).trainer.state.step == 6


def test_non_finite_weights_are_never_saved_or_kept(tmp_path: Path) -> None:
    task = Task(tmp_path)
    plain = task.loss

    def loss(step: Step) -> dict[str, Tensor]:
        if step.number == 10:  # invisible to the loss: running means are not trained
            task.module[1].running_mean.fill_(math.nan)
        return plain(step)

    task.loss = loss
    with pytest.raises(AudiovqError, match=r"1\.running_mean became NaN or infinite"):
        task.fit()
    assert len(task.kept) == 1
    again = Task(tmp_path)
    assert again.trainer.state.step == 6
    assert all(bool(value.isfinite().all()) for value in again.module.state_dict().values())


def test_metrics_are_means_since_the_last_validation(tmp_path: Path) -> None:
    task = Task(tmp_path)
    seen: list[float] = []
    plain = task.loss

    def loss(step: Step) -> dict[str, Tensor]:
        scalars = plain(step)
        seen.append(scalars["loss"].item())
        return scalars

    task.loss = loss
    task.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [6, 12, 18, 20]
    for line, said, part in zip(
        lines, task.said, (seen[:6], seen[6:12], seen[12:18], seen[18:]), strict=True
    ):
        assert line["loss"] == pytest.approx(np.mean(part), rel=1e-5)
        assert line["twice"] == pytest.approx(2 * np.mean(part), rel=1e-5)
        assert line["validation_other"] == 1
        assert line == {"stage": "toy", **said}


def test_state_of_other_settings_raises_in_one_line(tmp_path: Path) -> None:
    Task(tmp_path).fit()
    path = tmp_path / "toy.state.safetensors"
    for module in (nn.Linear(2, 3), nn.Sequential(nn.Conv2d(2, 5, 3))):
        settings = Task(tmp_path).settings
        with pytest.raises(AudiovqError) as caught:
            Trainer(module, CONFIG, tmp_path, **settings).resume()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AudiovqError, match=r"toy\.state\.safetensors") as caught:
        Task(tmp_path).fit()
    assert "\n" not in str(caught.value)


def test_training_uses_every_clip_once_per_epoch(tmp_path: Path) -> None:
    task = Task(tmp_path, replace(CONFIG, steps=9))
    task.fit()
    epochs = [torch.cat([s.indices for s in task.steps[i : i + 3]]).tolist() for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=120),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_batches_contain_every_clip_once_and_depend_on_seed_and_epoch_only(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    clips = torch.tensor(lengths)
    cut = batches(clips, batch_size, seed, epoch)
    assert sorted(torch.cat(cut).tolist()) == list(range(len(clips)))
    assert len(cut) == -(-len(clips) // batch_size)
    assert all(1 <= len(batch) <= batch_size for batch in cut)
    torch.rand(3)
    again = batches(clips, batch_size, seed, epoch)
    assert all(torch.equal(a, b) for a, b in zip(cut, again, strict=True))


def test_batches_pad_little_and_are_in_random_order() -> None:
    lengths = torch.randint(1, 200, (1000,), generator=torch.Generator().manual_seed(0))

    def padding(cut: list[Tensor] | tuple[Tensor, ...]) -> int:
        return sum(int((lengths[b].max() - lengths[b]).sum()) for b in cut)

    cut = batches(lengths, 8, 0, 0)
    shuffled = torch.split(torch.randperm(1000, generator=torch.Generator().manual_seed(0)), 8)
    assert padding(cut) < 0.15 * padding(shuffled)
    means = torch.stack([lengths[b].float().mean() for b in cut])
    neighbours = torch.corrcoef(torch.stack([means[1:], means[:-1]]))[0, 1]
    assert abs(float(neighbours)) < 0.3
    other = batches(lengths, 8, 0, 1)
    assert {tuple(b.tolist()) for b in cut} != {tuple(b.tolist()) for b in other}


def test_batches_of_a_small_set_differ_between_epochs() -> None:
    lengths = torch.randint(50, 200, (64,), generator=torch.Generator().manual_seed(0))
    pairs = [
        {
            frozenset((i, j))
            for b in batches(lengths, 8, 0, epoch)
            for i in b.tolist()
            for j in b.tolist()
        }
        for epoch in (0, 1)
    ]
    assert len(pairs[0] & pairs[1]) < 0.8 * len(pairs[0])


def test_precision_is_as_requested_or_as_the_device_supports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    assert pick_precision("float32", cpu) == torch.float32
    assert pick_precision("bfloat16", cpu) == torch.bfloat16
    assert pick_precision("auto", torch.device("mps")) == torch.float32
    for flags, expected in (
        ({}, torch.float32),
        ({"avx512_bf16": False, "avx2": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert pick_precision("auto", cpu) == expected
    # One rank alone samples and judges, while the others wait for it.
    monkeypatch.setattr(
        distributed, "all_reduce_floats", lambda *_: pytest.fail("asks other ranks")
    )
    assert pick_precision("auto", cpu) == torch.bfloat16


def test_bfloat16_training_keeps_weights_in_float32(tmp_path: Path) -> None:
    task = Task(tmp_path, dtype=torch.bfloat16)
    dtypes = set()
    task.module[0].register_forward_hook(lambda *a: dtypes.add(a[2].dtype))
    task.fit()
    assert dtypes == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in task.module.parameters())


def test_trained_weights_are_validated_before_the_first_step_and_kept_where_no_step_is_better(
    tmp_path: Path,
) -> None:
    ruinous = replace(CONFIG, learning_rate=50.0, clip_norm=1e6, warmup=0)
    task = Task(tmp_path, ruinous)
    task.carried = True
    initial = {name: value.clone() for name, value in task.module.state_dict().items()}
    state = task.fit()
    assert (state.best_step, state.best) == (0, task.scores[0])
    assert min(task.scores) == task.scores[0]
    ((kept, weights),) = task.kept
    assert kept["step"] == 0
    assert all(torch.equal(weights[name], value) for name, value in initial.items())
    assert "loss" not in task.said[0]
