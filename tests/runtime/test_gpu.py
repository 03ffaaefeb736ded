"""On a GPU that is there: what is recorded as a CUDA graph does what single operations do."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fast_training import CONFIG
from torch import Tensor

from audiovq.config.presets import PRESETS
from audiovq.config.sampling import SamplingConfig
from audiovq.config.settings import OptimizerConfig, PriorConfig
from audiovq.dataset.dataset import Dataset
from audiovq.generation.generate import generate
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.masking import MaskedClips, training_masks
from audiovq.models.priors.sampling import sample
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer
from audiovq.runtime.cuda_graphs import side_stream
from audiovq.training.loop import Trainer
from audiovq.training.run import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
THERE = torch.device("cuda:0")
SMALL = PRESETS["small"]
VOCABULARY = Vocabulary(512, 1, rows=8, num_levels=64, max_columns=31)
STEPS = 12


def losses(
    module: Any,
    given: tuple[Tensor, ...],
    loss: Any,
    dtype: torch.dtype,
    records: bool,
    folder: Path,
) -> list[float]:
    """Of STEPS steps with the same clips."""
    config = OptimizerConfig(steps=STEPS, batch_size=8, warmup=2, learning_rate=1e-3)
    settings: Any = {"stage": "toy", "clips": 8, "seed": 1, "max_seconds": None}
    trainer = Trainer(module, config, folder, dtype=dtype, **settings)
    trainer.records = records
    update, found = trainer._updating(lambda *x: loss(module, *x)), []
    with side_stream(THERE):
        for number in range(STEPS):
            trainer.state.step = number
            scalars, norm = trainer._step(lambda step: given, update, torch.arange(8))
            found.append(torch.stack([scalars["loss"], norm]))
        return torch.stack(found).flatten().tolist()


def autoencoder() -> tuple[Any, tuple[Tensor, ...], Any]:
    frames = torch.tensor([64, 60, 55, 50, 47, 40, 33, 20])
    images = torch.rand(8, 1, 64, 64) * (torch.arange(64) < frames[:, None, None, None])

    def loss(module: Any, images: Tensor, frames: Tensor) -> dict[str, Tensor]:
        return {"loss": module(images.to(THERE), frames.to(THERE)).loss}

    return Autoencoder(SMALL.autoencoder, 64).to(THERE), (images, frames), loss


def codes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    columns = torch.tensor([31, 30, 28, 22, 20, 17, 9, 3])
    return torch.randint(512, (8, 1, 8, 31)), columns, torch.arange(8), torch.arange(8)[:, None]


def prior() -> tuple[Any, tuple[Tensor, ...], Any]:
    grid, columns, levels, labels = codes()

    def loss(module: Any, tokens: Tensor, lengths: Tensor, labels: Tensor) -> dict[str, Tensor]:
        there = (x.to(THERE) for x in (tokens, lengths, labels))
        return {"loss": module.loss(*there)[0]}

    made = Transformer(SMALL.prior, VOCABULARY, (10,)).to(THERE)
    return made, (*VOCABULARY.tokens(grid, columns, levels), labels), loss


def masked() -> tuple[Any, tuple[Tensor, ...], Any]:
    canvas = training_masks(*codes(), torch.Generator().manual_seed(0))

    def loss(module: Any, *canvas: Tensor) -> dict[str, Tensor]:
        code, length, level = module.loss(MaskedClips(*canvas).to(THERE))
        return {"loss": code + length + level}

    made = MaskedPrior(SMALL.masked, VOCABULARY, (10,)).to(THERE)
    return made, tuple(vars(canvas).values()), loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stage", [autoencoder, prior, masked])
def test_steps_by_graphs_equal_eager_steps(stage: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    found = []
    for records in (False, True):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found.append(losses(*stage(), dtype, records, tmp_path / str(records)))
    single, recorded = found
    assert recorded == pytest.approx(single, rel=2e-3 if dtype is torch.float32 else 5e-2)
    assert single[-2] < single[0]


def test_sampling_with_one_graph_equals_single_steps() -> None:
    torch.manual_seed(0)
    made = Transformer(SMALL.prior, VOCABULARY, (10,)).to(THERE).eval()
    labels = (torch.arange(16)[:, None] % 10).to(THERE)
    tokens = []
    for step_at in (None, made.step_at):
        made.step_at = step_at
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            generator = torch.Generator().manual_seed(0)
            tokens.append(sample(made, labels, SamplingConfig(), generator))
    columns = min(x.shape[1] for x in tokens)
    same = (tokens[0][:, :columns] == tokens[1][:, :columns]).float().mean()
    assert float(same) > 0.9, "rounding may lead a clip astray now and then"


def test_a_model_is_trained_and_generates_on_the_gpu(dataset: Dataset, tmp_path: Path) -> None:
    config = replace(
        CONFIG,
        precision="auto",
        masked_share=0.2,
        masked_training=CONFIG.prior_training,
        vivid_share=0.2,
        vivid_training=CONFIG.prior_training,
    )
    config = replace(config, prior=PriorConfig(dim=64, cell=32, layers=2, heads=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = train(dataset, tmp_path / "model", config, device="cuda", say=lambda line: None)
    assert len(generate(model, 3)) == 3
