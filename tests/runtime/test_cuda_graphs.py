"""Tests of `audiovq.graphs`, and of training and sampling on an emulated GPU."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import GPU, OnGPU
from fast_training import CONFIG
from tiny_models import AUTOENCODER, MASKED, PRIOR, changed, shake
from torch import Tensor

from audiovq.cli.main import main
from audiovq.config.sampling import SamplingConfig
from audiovq.config.settings import OptimizerConfig, PriorConfig
from audiovq.dataset.dataset import Dataset
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.priors.base import Prior
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masking import MaskedClips, training_masks
from audiovq.models.priors.pixelcnn import PixelCNN
from audiovq.models.priors.sampling import CHECK_COLUMNS, FIRST_GRAPHED_COLUMN, sample
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from audiovq.runtime.cuda_graphs import WARMUP_CALLS, GraphedFunction
from audiovq.training.loop import Trainer
from audiovq.training.run import train
from audiovq.training.stage import Inputs, Step

THERE = torch.device("cuda:0")
STEPS = 3 * (WARMUP_CALLS + 2)
LENGTHS = torch.tensor([24, 14, 15, 5, 8, 3])
"""Frames of the training clips."""
VOCABULARY = Vocabulary(codebook_size=12, num_quantizers=2, rows=3, num_levels=5, max_columns=10)
COLUMNS = 7
"""Maximum columns of samples: enough that a graph is replayed more than once."""
BEGUN = "a graph is begun"


@pytest.fixture
def gpu() -> Iterator[GPU]:
    with GPU() as there:
        yield there


def twin(module: Any, made: Any) -> Any:
    """`made`, a module of the same shapes, with the weights of `module`, on the GPU."""
    made.load_state_dict(module.state_dict())
    return made.train(module.training).to(THERE)


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


# --- The emulated GPU itself ------------------------------------------------------------------


def test_gpu_operations_reject_cpu_tensors(gpu: GPU) -> None:
    x = torch.ones(3, device=THERE)
    assert x.device == THERE
    assert torch.equal((x + torch.tensor(2.0)).cpu(), torch.full((3,), 3.0)), "scalars are accepted"
    with pytest.raises(RuntimeError, match=r"add.*of the CPU"):
        x + torch.ones(3)


def test_every_synchronisation_is_recorded(gpu: GPU) -> None:
    x = torch.arange(3.0).pin_memory().to(THERE, non_blocking=True)
    y = x[torch.arange(1, device=THERE)] + x.sum()
    assert gpu.waits == []
    for wait in (
        lambda: float(y),
        lambda: y.cpu(),
        lambda: torch.ones(3).to(THERE),
        lambda: torch.ones(3).to(THERE, non_blocking=True),
        lambda: torch.tensor([1], device=THERE),
        lambda: x[x > 0],
        lambda: x[[0]],
        lambda: x.nonzero(),
        lambda: torch.bincount(x.long()),
    ):
        wait()
        assert gpu.waits, wait
        gpu.waits.clear()


def test_capture_changes_nothing_and_replay_ignores_changes_of_cpu_tensors(gpu: GPU) -> None:
    total, number = torch.zeros(3, device=THERE), torch.tensor(2.0)
    given = torch.ones(3, device=THERE)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total += given * number
        result = total.clone()
    assert total.tolist() == [0.0] * 3
    assert all(map(torch.isnan, result.cpu()))
    number.fill_(5)
    given.copy_(torch.arange(3, device=THERE))
    for times in (1, 2):
        graph.replay()
        assert result.tolist() == total.tolist() == [0.0, 2.0 * times, 4.0 * times]


# --- Recorded ---------------------------------------------------------------------------------


def test_a_graphed_function_returns_the_results_of_the_function(gpu: GPU) -> None:
    calls: list[torch.Size] = []
    bias = torch.tensor([1.0], device=THERE)

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(x.shape)
        return x * y + bias, x.sum()

    recorded = GraphedFunction(function, THERE)
    for turn in range(WARMUP_CALLS + 4):
        for size in (2, 5):
            x, y = torch.randn(2, size)
            bias += 1
            product, total = recorded(x, y.to(THERE) if turn % 2 else y)
            close(product.cpu(), x * y + bias.cpu())
            close(total.cpu(), x.sum())
    assert len(calls) == 2 * (WARMUP_CALLS + 1)
    assert gpu.replays == 2 * 4
    recorded(torch.randn(2).double(), torch.randn(2))
    assert len(calls) == 2 * (WARMUP_CALLS + 1) + 1, "another dtype needs another graph"


def test_a_replay_is_one_launch_without_synchronisation(gpu: GPU) -> None:
    def function(x: Tensor) -> Tensor:
        for _ in range(100):
            x = x + 1
        return x

    recorded, x = GraphedFunction(function, THERE), torch.zeros(2)
    for _ in range(WARMUP_CALLS + 1):
        recorded(x)
    gpu.launches = 0
    gpu.waits.clear()
    assert recorded(x).tolist() == [100.0] * 2
    assert gpu.launches == 1, "the copy into the static input"
    assert [wait for wait in gpu.waits if "to the CPU" not in wait] == []


def test_a_function_that_cannot_be_captured_runs_eagerly(gpu: GPU) -> None:
    recorded = GraphedFunction(lambda x: x * float(x.max()), THERE)
    for turn in range(WARMUP_CALLS):
        assert recorded(torch.tensor([1.0, turn])).tolist() == [turn or 1.0, max(1, turn) * turn]
    with pytest.warns(UserWarning, match="cannot be captured.*a number is read"):
        assert recorded(torch.tensor([1.0, 4.0])).tolist() == [4.0, 16.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recorded(torch.tensor([1.0, 5.0])).tolist() == [5.0, 25.0]
    assert gpu.replays == 0


def test_the_number_of_graphs_is_limited(gpu: GPU) -> None:
    recorded = GraphedFunction(lambda x: x + 1, THERE, warm=1, max_graphs=2)
    for turn in range(3):
        for size in (1, 2, 3):
            assert recorded(torch.full((size,), float(turn))).tolist() == [turn + 1.0] * size
    assert sum(BEGUN in wait for wait in gpu.waits) == 2
    assert gpu.replays == 2 * 2


# --- Training ---------------------------------------------------------------------------------


def trainer(module: Any, folder: Path) -> Trainer:
    config = OptimizerConfig(steps=STEPS, batch_size=2, warmup=2, learning_rate=3e-3)
    settings: Any = {"stage": "toy", "clips": 6, "seed": 1, "max_seconds": None}
    return Trainer(module, config, folder, dtype=torch.float32, **settings)


def stepped(trainer: Trainer, prepare: Any, loss: Any) -> list[dict[str, Tensor]]:
    """Losses and gradient norms of STEPS steps."""
    update, found = trainer._updating(loss), []
    for number in range(STEPS):
        trainer.state.step = number
        indices = torch.tensor([2 * number, 2 * number + 1]) % len(LENGTHS)
        scalars, norm = trainer._step(prepare, update, indices)
        found.append({name: value.clone() for name, value in scalars.items()} | {"norm": norm * 1})
    return found


def takes_the_same_steps(gpu: GPU, here: Trainer, there: Trainer, prepare: Any, loss: Any) -> None:
    """Assert that a trainer on the CPU and one on the GPU take the same steps."""
    expected = stepped(here, prepare, lambda *given: loss(here.module, *given))
    gpu.waits.clear()
    found = stepped(there, prepare, lambda *given: loss(there.module, *given))
    assert gpu.replays == STEPS - 3 * WARMUP_CALLS, (
        "all but the eager steps of each of three widths"
    )
    begun = [wait for wait in gpu.waits if BEGUN in wait]
    first = [wait for wait in gpu.waits if "quantizers.py" in wait]  # k-means, in the first step
    assert len(begun) + len(first) == len(gpu.waits), gpu.waits
    for a, b in zip(expected, found, strict=True):
        close({name: value.cpu() for name, value in b.items()}, a)
    for name, value in here.module.state_dict().items():
        torch.testing.assert_close(
            there.module.state_dict()[name].cpu(), value, atol=1e-3, rtol=1e-2, msg=name
        )


AUTOENCODERS: dict[str, dict[str, Any]] = {
    "ema": {"kmeans_start": True},
    "restarted": {"codebook_size": 64},
    "residual": {"num_quantizers": 2},
    "gradient": {"update": "gradient", "gradient_through": "rotation", "num_quantizers": 2},
    "cosine": {"cosine": True, "network": "residual", "restart": False},
    "fsq": {"bottleneck": "fsq", "levels": (4, 3), "latent_dim": 2},
    "none": {"bottleneck": "none", "output": "sigmoid", "loss": "cross_entropy"},
    "dense": {"bottleneck": "gaussian", "dense": 4, "kl_warmup": 0.5, "conditional": True},
    "noise": {"bottleneck": "none", "corruption": "noise"},
}
MORE = "gradient", "cosine", "none", "noise"


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) if kind in MORE else kind for kind in AUTOENCODERS],
)
def test_an_autoencoder_takes_the_same_steps_on_the_gpu_as_on_the_cpu(
    gpu: GPU, tmp_path: Path, kind: str
) -> None:
    config = changed(AUTOENCODER, **AUTOENCODERS[kind])
    images = torch.rand(len(LENGTHS), 1, 16, 24, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(LENGTHS))[:, None] % 3

    def made() -> Autoencoder:
        return Autoencoder(config, 16, (3,), clip_frames=24)

    def prepare(step: Step) -> Inputs:
        frames = LENGTHS[step.indices]
        width = 4 * step.width(-(-int(frames.max()) // 4))
        inside = torch.arange(width) < frames[:, None, None, None]
        padded = torch.nn.functional.pad(images[step.indices], (0, width - 24))
        return padded * inside, frames, labels[step.indices]

    def loss(module: Any, images: Tensor, frames: Tensor, labels: Tensor) -> dict[str, Tensor]:
        result = module(images, frames, labels)
        return {"loss": result.loss, "bottleneck_loss": result.bottleneck_loss}

    torch.manual_seed(0)
    here = trainer(made(), tmp_path / "here")
    there = trainer(twin(here.module, made()), tmp_path / "there")
    takes_the_same_steps(gpu, here, there, prepare, loss)


@pytest.mark.parametrize("kind", [Transformer, pytest.param(PixelCNN, marks=pytest.mark.slow)])
def test_a_prior_takes_the_same_steps_on_the_gpu_as_on_the_cpu(
    gpu: GPU, tmp_path: Path, kind: Any
) -> None:
    codes, columns, levels = some_codes()
    tokens, lengths = VOCABULARY.tokens(codes, columns, levels)
    labels = torch.arange(6)[:, None] % 3

    def prepare(step: Step) -> Inputs:
        longest = int(
            lengths[step.indices].max()
        )  # of equal widths, so that dropout draws the same
        return tokens[step.indices, :longest], lengths[step.indices], labels[step.indices]

    def loss(module: Any, tokens: Tensor, lengths: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": module.loss(tokens, lengths, labels)[0]}

    torch.manual_seed(0)
    config = replace(PRIOR, kernel=3, dropout=0.1)
    here = trainer(kind(config, VOCABULARY, (3,)), tmp_path / "here")
    there = trainer(twin(here.module, kind(config, VOCABULARY, (3,))), tmp_path / "there")
    takes_the_same_steps(gpu, here, there, prepare, loss)


def test_a_masked_prior_takes_the_same_steps_on_the_gpu_as_on_the_cpu(
    gpu: GPU, tmp_path: Path
) -> None:
    codes, columns, levels = some_codes()
    labels = torch.arange(6)[:, None] % 3

    def prepare(step: Step) -> Inputs:
        i, wide = step.indices, int(columns[step.indices].max())
        canvas = training_masks(
            codes[i, ..., :wide], columns[i], levels[i], labels[i], step.generator
        )
        return tuple(vars(canvas).values())

    def loss(module: Any, *canvas: Tensor) -> dict[str, Tensor]:
        code, length, level = module.loss(MaskedClips(*canvas))
        return {"loss": code + length + level, "code": code}

    torch.manual_seed(0)
    here = trainer(MaskedPrior(MASKED, VOCABULARY, (3,)), tmp_path / "here")
    there = trainer(twin(here.module, MaskedPrior(MASKED, VOCABULARY, (3,))), tmp_path / "there")
    takes_the_same_steps(gpu, here, there, prepare, loss)


def some_codes() -> tuple[Tensor, Tensor, Tensor]:
    """Codes, columns and levels of six clips."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(12, (6, 2, 3, 10), generator=generator)
    return codes, torch.tensor([10, 7, 6, 6, 3, 2]), torch.arange(6) % 5


def test_widths_for_capture_are_few_and_pad_little() -> None:
    indices, generator = torch.arange(2), torch.Generator()
    step = Step(0, 0.0, indices, generator, recorded=True)
    widths = {step.width(size) for size in range(1, 1025)}
    assert len(widths) <= 8 * 10
    for size in range(1, 1025):
        assert size <= step.width(size) <= max(size, 1.125 * size)
        assert Step(0, 0.0, indices, generator).width(size) == size


# --- Sampling ---------------------------------------------------------------------------------


def pair(kind: Any, vocabulary: Vocabulary) -> tuple[Prior, Prior]:
    """A prior on the CPU, and a copy on the GPU."""
    torch.manual_seed(0)
    config = PriorConfig(dim=16, cell=8, layers=2, heads=2, kernel=3, dropout=0.0)
    made = kind(config, vocabulary, (4,)).eval()
    shake(made)
    return made, twin(made, kind(config, vocabulary, (4,)))


@pytest.mark.parametrize(
    ("quantizers", "rows", "guidance", "end"),
    [
        (1, 4, 0.0, -9.0),
        pytest.param(2, 9, 1.5, -9.0, marks=pytest.mark.slow),
        (2, 3, 0.5, 2.0),
        (1, 1, 0.0, 3.0),
    ],
)
def test_sampling_with_a_graph_per_column_matches_single_steps(
    gpu: GPU, quantizers: int, rows: int, guidance: float, end: float
) -> None:
    vocabulary = Vocabulary(16, quantizers, rows, num_levels=5, max_columns=COLUMNS)
    here, there = pair(Transformer, vocabulary)
    for prior in (here, there):
        with torch.no_grad():
            prior.head.bias[vocabulary.end] += end
    labels = torch.arange(5)[:, None] % 4
    config = SamplingConfig(temperature=0.8, guidance=guidance, top_p=0.95)
    partly = torch.full((5, 4 * vocabulary.slots), -1)
    partly[:, ::3] = 1
    partly[:, 1 :: vocabulary.slots] = -1
    for more in (
        {},
        {"shortest": torch.tensor([1, 2, 6, 4, 7])},
        {"shortest": 3, "longest": 5},
        {"given": partly},
        {"longest": 0},
    ):
        expected = sample(here, labels, config, torch.Generator().manual_seed(1), **more)
        gpu.replays = 0
        on_gpu = {
            name: value.to(THERE) if isinstance(value, Tensor) else value
            for name, value in more.items()
        }
        found = sample(there, labels.to(THERE), config, torch.Generator().manual_seed(1), **on_gpu)
        assert torch.equal(found.cpu(), expected)
        columns = more.get("longest", COLUMNS) if end < 0 else 0
        if end < 0 and "shortest" not in more:
            assert gpu.replays == max(0, columns - FIRST_GRAPHED_COLUMN - 1)
    gpu.replays = 0
    there.step_at = None
    single = sample(there, labels.to(THERE), config, torch.Generator().manual_seed(1))
    assert torch.equal(single.cpu(), sample(here, labels, config, torch.Generator().manual_seed(1)))
    assert gpu.replays == 0, "no graph without step_at"
    if end > 0:
        expected = single.cpu()
        assert expected.shape[1] < 1 + COLUMNS * vocabulary.slots, "some clips must end early"


@pytest.mark.parametrize("kind", [Transformer, pytest.param(PixelCNN, marks=pytest.mark.slow)])
def test_sampling_synchronises_every_few_columns(gpu: GPU, kind: Any) -> None:
    waits = []
    for columns in (4, 4 + 4 * CHECK_COLUMNS):
        _, there = pair(kind, replace(VOCABULARY, max_columns=columns))
        with torch.no_grad():
            there.head.bias[VOCABULARY.end] = -100.0
        labels = torch.zeros(3, 1, dtype=torch.long).to(THERE)
        gpu.waits.clear()
        sample(there, labels, SamplingConfig(), torch.Generator().manual_seed(0))
        waits.append(len(gpu.waits))
    assert waits[1] - waits[0] <= 4 * (1 if kind is Transformer else CHECK_COLUMNS)


# --- Everything -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("error:a step cannot be captured")
def test_training_on_the_gpu_matches_the_cpu_and_every_command_runs_there(
    gpu: GPU, dataset: Dataset, recordings: Path, tmp_path: Path
) -> None:
    config = replace(
        CONFIG,
        masked_share=0.2,
        masked=replace(MASKED, dim=32, cell=32),
        masked_training=CONFIG.prior_training,
        vivid_share=0.2,
        vivid_training=CONFIG.prior_training,
    )
    curves = {}
    for device in ("cpu", "cuda:0"):
        model = tmp_path / device.replace(":", "")
        train(dataset, model, config, device=device, say=lambda line: None)
        lines = (model / "training" / "metrics.jsonl").read_text().splitlines()
        curves[device] = [json.loads(line) for line in lines]
    assert gpu.replays > 50
    for here, there in zip(*curves.values(), strict=True):
        assert there["stage"] == here["stage"]
        assert there["loss"] == pytest.approx(here["loss"], rel=0.1)
        if here["stage"] == "autoencoder":  # its widths are the same
            assert there["loss"] == pytest.approx(here["loss"], rel=1e-3)
    model, out = str(tmp_path / "cuda0"), tmp_path / "out"
    first, second = (str(recordings / name) for name in ("jan/0_jan_0.wav", "sam/1_sam_1.wav"))
    out.mkdir()
    for arguments in (
        ("generate", model, out / "new", "-n", "3"),
        ("generate", model, out / "masked", "-n", "3", "--order", "masked"),
        ("continue", model, first, out / "more", "-n", "2"),
        ("vary", model, first, out / "varied", "-n", "2"),
        ("repaint", model, first, out / "repainted", "-n", "2", "--time", "0.05:0.1"),
        ("morph", model, first, second, out / "between"),
        ("encode", model, recordings, out / "by-context.avq"),
        ("encode", model, recordings, out / "by-prior.avq", "--coder", "prior"),
        ("decode", model, out / "by-context.avq", out / "back"),
        ("decode", model, out / "by-prior.avq", out / "back-too"),
        ("reconstruct", model, recordings, out / "again"),
        ("plot", model, out / "there.png", "--dataset", dataset.folder),
        ("plot", model, out / "plane.png", "--dataset", dataset.folder, "--kind", "latent-scatter"),
        ("report", model, dataset.folder, "--out", out / "page.html"),
    ):
        assert main([*map(str, arguments), "--device", "cuda:0"]) == 0, arguments


def test_nothing_of_the_emulated_gpu_remains() -> None:
    assert not torch.cuda.is_available() or torch.cuda.get_device_name()
    assert type(torch.ones(1).to("cpu")) is Tensor
    assert not isinstance(torch.zeros(1), OnGPU)
