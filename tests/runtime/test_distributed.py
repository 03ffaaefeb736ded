"""Training in several ranks matches one process: steps, statistics, stopping, failures and their report.

`ranked.py` runs all trainings of the first half of this file, one after another, from one process that
has imported everything.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from fast_training import CONFIG
from safetensors.torch import load_file
from tiny_models import changed
from torch import Tensor

from audiovq.config.serialize import to_json
from audiovq.config.settings import MaskedConfig, TrainConfig
from audiovq.dataset.dataset import Dataset
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.checkpoint import load
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masking import MaskedClips
from audiovq.models.priors.pixelcnn import PixelCNN
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from audiovq.runtime import distributed
from audiovq.runtime.device import pick_device
from audiovq.runtime.tensors import read_tensors

HERE = Path(__file__).parents[1] / "helpers"
ROOT = Path(__file__).parents[2]
STEPS = replace(
    CONFIG,
    autoencoder_training=replace(CONFIG.autoencoder_training, steps=20, validate_every=10),
    prior_training=replace(CONFIG.prior_training, steps=20, validate_every=10),
    seed=1,
)
"""Twenty steps of each stage. With this seed no latent is so close to the middle of two codes that rounding
decides between them, after which the prior would train on other codes."""
CODEC = replace(
    STEPS,
    autoencoder_share=1.0,
    autoencoder_training=replace(STEPS.autoencoder_training, steps=10),
)
"""Ten steps of the autoencoder only."""
STOPPED = replace(
    CONFIG,
    autoencoder_share=1.0,
    autoencoder_training=replace(CONFIG.autoencoder_training, steps=16, validate_every=4),
)
"""Autoencoder training that is interrupted or fails."""
KINDS: dict[str, dict[str, Any]] = {
    "gradient": {"update": "gradient"},
    "residual": {"network": "residual", "num_quantizers": 2, "gradient_through": "rotation"},
    "fsq": {"bottleneck": "fsq", "levels": (5, 5, 3)},
    "cosine": {"cosine": True},
    "power": {"power": 4.0},
    "masked": {"bottleneck": "none", "corruption": "mask"},
    "noisy": {"bottleneck": "none", "corruption": "noise"},
    "normed": {
        "bottleneck": "none",
        "network": "conv",
        "filters": (8, 16),
        "kernels": (3, 3),
        "strides": (2, 2),
    },
    "conditional": {"bottleneck": "gaussian", "conditional": True},
    "dense": {"bottleneck": "gaussian", "dense": 4, "output": "sigmoid", "loss": "cross_entropy"},
}


class Runs:
    """A list of trainings to run together, and the exit code and stderr of each rank."""

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder
        self.runs: list[dict[str, Any]] = []
        self.ended: dict[str, list[tuple[int, str]]] = {}

    def add(
        self, name: str, ranks: int, config: TrainConfig, *faults: Any, model: str = ""
    ) -> None:
        self.runs.append(
            {
                "name": name,
                "dataset": str(self.dataset.folder),
                "model": str(self.folder / (model or name)),
                "ranks": ranks,
                "config": to_json(config),
                "faults": faults,
            }
        )

    def run(self) -> None:
        done = subprocess.run(
            [sys.executable, HERE / "run_ranks.py"],
            input=json.dumps(self.runs),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        for run, ended in zip(self.runs, json.loads(done.stdout), strict=True):
            self.ended[run["name"]] = [(code, said) for code, said in ended]

    def metrics(self, name: str) -> list[dict[str, Any]]:
        text = (self.folder / name / "training" / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def furthest(self, one: str, other: str) -> float:
        """The largest relative difference of a step's loss, or of a validation's score."""
        numbers = zip(self.numbers(one), self.numbers(other), strict=True)
        return max(abs(a - b) / abs(a) for a, b in numbers)

    def numbers(self, name: str) -> list[float]:
        text = (self.folder / name / "losses.jsonl").read_text()
        losses = [json.loads(line)[1] for line in text.splitlines()]
        return losses + [row["validation_score"] for row in self.metrics(name)]

    def weights(self, name: str, stage: str) -> Mapping[str, Tensor]:
        return load_file(self.folder / name / f"{stage}.safetensors")


@pytest.fixture(scope="module")
def runs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    runs = Runs(dataset, tmp_path_factory.mktemp("runs"))
    runs.add("steps-1", 1, STEPS)
    runs.add("steps-2", 2, STEPS)
    runs.add("straight-1", 1, STOPPED)
    for first, then in ((1, 2), (2, 1)):
        fault = (first - 1, "autoencoder", 9, "interrupt")
        runs.add(f"stopped-{first}", first, STOPPED, fault, model=f"resumed-{then}")
        runs.add(f"resumed-{then}", then, STOPPED)
    runs.add("terminated", 2, STOPPED, (1, "autoencoder", 6, "terminate"))
    for rank in (0, 1):
        runs.add(f"killed-{rank}", 2, STOPPED, (rank, "autoencoder", 6, "kill"))
        runs.add(f"failed-{rank}", 2, STOPPED, (rank, "autoencoder", 6, "raise"))
    runs.run()
    return runs


def test_two_ranks_take_the_same_steps_as_one(runs: Runs) -> None:
    assert len(runs.numbers("steps-1")) == 2 * (20 + 2)
    assert runs.furthest("steps-1", "steps-2") < 1e-5
    for stage in ("autoencoder", "prior"):
        for name, value in runs.weights("steps-1", stage).items():
            other = runs.weights("steps-2", stage)[name]
            torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-4, msg=name)


def test_codebook_statistics_of_two_ranks_equal_those_of_one(runs: Runs) -> None:
    one, two = (runs.weights(f"steps-{n}", "autoencoder") for n in (1, 2))
    for name in ("embedding", "cluster_size", "embedding_sum", "num_updates"):
        path = f"bottleneck.quantizers.0.{name}"
        torch.testing.assert_close(two[path], one[path], rtol=1e-5, atol=2e-5, msg=name)


def test_a_run_resumes_with_another_number_of_ranks(runs: Runs) -> None:
    for then, first in ((1, 2), (2, 1)):
        assert [code for code, _ in runs.ended[f"stopped-{first}"]] == [130] * first
        assert runs.ended[f"resumed-{then}"] == [(0, "")] * then
        model = f"resumed-{then}"
        assert runs.furthest("straight-1", model) < 1e-5
        straight = runs.weights("straight-1", "autoencoder")
        for name, value in runs.weights(model, "autoencoder").items():
            torch.testing.assert_close(value, straight[name], rtol=1e-4, atol=1e-4, msg=name)
        means = [[row["loss"] for row in runs.metrics(name)] for name in ("straight-1", model)]
        assert means[1] == pytest.approx(means[0], rel=1e-5), "of the steps before the stop, too"


def test_a_signal_to_any_rank_stops_all_after_the_same_step_and_one_reports_it(runs: Runs) -> None:
    ended = runs.ended["terminated"]
    assert [code for code, _ in ended] == [130, 130]
    assert sorted(said for _, said in ended)[0] == ""
    assert "".join(said for _, said in ended).splitlines() == [
        "audiovq: stopped; run the same command to resume"
    ]
    _, metadata = read_tensors(
        runs.folder / "terminated" / "training" / "autoencoder.state.safetensors", sealed=True
    )
    assert json.loads(metadata["state"])["step"] == 7, "finishes the current step and no more"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failing_rank_ends_all_and_only_it_reports(runs: Runs, rank: int) -> None:
    ended = runs.ended[f"failed-{rank}"]
    assert ended[rank] == (2, "audiovq: the disk is on fire\n")
    assert ended[1 - rank] == (2, "")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all_and_another_reports_it_in_one_line(runs: Runs, rank: int) -> None:
    ended = runs.ended[f"killed-{rank}"]
    assert ended[rank] == (-9, "")
    code, said = ended[1 - rank]
    assert code == 2
    assert said.startswith("audiovq: ")
    assert "another rank was killed" in said
    assert said.count("\n") == 1
    assert load(runs.folder / f"killed-{rank}").clip_frames, "the last validation's model is there"


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7])
def test_every_kind_of_model_takes_the_same_steps_in_three_ranks(
    dataset: Dataset, tmp_path: Path, batch_size: int
) -> None:
    """With batches of one clip, two ranks have empty slices."""
    runs = Runs(dataset, tmp_path)
    for name, changes in KINDS.items():
        config = replace(
            CODEC,
            autoencoder=changed(CODEC.autoencoder, **changes),
            autoencoder_training=replace(CODEC.autoencoder_training, batch_size=batch_size),
        )
        for count in (1, 3):
            runs.add(f"{name}-{count}", count, config)
    pixels = replace(STEPS, prior=replace(STEPS.prior, kind="pixelcnn"))
    for count in (1, 3):
        runs.add(f"pixels-{count}", count, pixels)
    runs.run()
    for name in (*KINDS, "pixels"):
        assert runs.ended[f"{name}-3"] == [(0, "")] * 3
        assert runs.furthest(f"{name}-1", f"{name}-3") < 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformer", "pixelcnn"])
def test_all_stages_take_the_same_steps_where_two_of_three_ranks_have_no_clips(
    dataset: Dataset, tmp_path: Path, kind: Literal["transformer", "pixelcnn"]
) -> None:
    stages = ("autoencoder_training", "vivid_training", "prior_training", "masked_training")
    few: dict[str, Any] = {
        stage: replace(getattr(CONFIG, stage), batch_size=1, steps=10, validate_every=5)
        for stage in stages
    }
    prior = replace(CONFIG.prior, kind=kind)
    runs = Runs(dataset, tmp_path)
    for count in (1, 3):
        config = replace(CONFIG, **few, prior=prior, vivid_share=0.2, masked_share=0.3)
        runs.add(f"{count}", count, config)
    runs.run()
    assert runs.ended["3"] == [(0, "")] * 3
    assert len(runs.numbers("1")) == 4 * (10 + 2)
    assert runs.furthest("1", "3") < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_an_autoencoder_accepts_an_empty_batch(kind: str) -> None:
    """As happens where a batch has fewer clips than there are ranks."""
    config = changed(CONFIG.autoencoder, **KINDS[kind])
    autoencoder = Autoencoder(config, 64, (3,), clip_frames=32).eval()
    labels = torch.zeros(0, 1, dtype=torch.long)
    result = autoencoder(torch.zeros(0, 1, 64, 32), torch.zeros(0, dtype=torch.long), labels)
    assert result.spectrogram.shape == (0, 1, 64, 32)


@pytest.mark.parametrize("kind", [Transformer, PixelCNN])
def test_a_prior_accepts_an_empty_batch(kind: type[Prior]) -> None:
    vocabulary = Vocabulary(16, 2, rows=4, num_levels=8, max_columns=6)
    prior = kind(CONFIG.prior, vocabulary, (3,))
    tokens, none = torch.zeros(0, 1 + 8 * 5, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    assert prior(tokens, none[:, None]).shape == (0, 41, vocabulary.size)


def test_a_masked_prior_accepts_an_empty_batch() -> None:
    vocabulary = Vocabulary(16, 2, rows=4, num_levels=8, max_columns=6)
    prior = MaskedPrior(MaskedConfig(dim=32, layers=2, heads=2), vocabulary, (3,))
    none = torch.zeros(0, dtype=torch.long)
    codes = torch.zeros(0, 2, 4, 6, dtype=torch.long)
    whole = torch.zeros(0, 2, dtype=torch.bool)
    canvas = MaskedClips(codes, codes.bool(), none, none, none[:, None], whole)
    context, told = prior.context(canvas, torch.zeros(0, 6, dtype=torch.bool))
    assert context.shape == (0, 8, prior.config.cell)
    assert {part.shape for part in told} == {(0, prior.config.cell)}


def test_with_one_rank_every_function_is_a_no_op() -> None:
    x = torch.randn(5, 3)
    with distributed.process_group(), distributed.global_batch(5):
        assert distributed.world_size() == 1
        assert distributed.is_main()
        assert distributed.local_slice() == slice(None)
        assert distributed.row_offset(5) == (5, 0)
        assert distributed.sync_clock(1.5, True) == (1.5, True)
        assert torch.equal(distributed.local_mean_term(x), x.mean())
        for same in (
            distributed.all_reduce_sum,
            distributed.all_reduce_mean,
            distributed.all_reduce_sum_with_gradient,
            distributed.all_gather_rows,
        ):
            assert same(x) is x


def test_each_rank_takes_the_gpu_of_its_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device("auto") == torch.device("cuda", 3)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.delenv("LOCAL_RANK")
    assert pick_device("cuda") == torch.device("cuda", 0)


@pytest.mark.slow
def test_torchrun_trains_and_reports_an_error_in_one_line(dataset: Dataset, tmp_path: Path) -> None:
    few = ["--preset", "tiny", "--autoencoder-training.steps", "4", "--prior-training.steps", "4"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [
        *torchrun,
        "--nproc-per-node",
        "2",
        str(ROOT / "scripts" / "train.py"),
        str(dataset.folder),
    ]
    for target, code, line in (("model", 0, "wrote "), ("mine", 1, "audiovq: ")):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "diary.txt").touch()
        done = subprocess.run(
            [*command, str(tmp_path / target), *few, "--device", "cpu"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == code, done.stderr
        assert sum(x.startswith(line) for x in (done.stdout + done.stderr).splitlines()) == 1
    assert load(tmp_path / "model").prior is not None
