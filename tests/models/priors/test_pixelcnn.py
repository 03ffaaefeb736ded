"""Laws of the PixelCNN beyond those of any prior: receptive field, caches, speed, use in a model."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fast_training import CONFIG, train
from reseal import reseal
from tiny_models import PRIOR, shake, tiny_model
from torch import Tensor

from audiovq.codec.archive import pack, unpack
from audiovq.config.sampling import SamplingConfig
from audiovq.config.settings import PriorConfig
from audiovq.dataset.dataset import Dataset
from audiovq.generation.generate import generate
from audiovq.models.checkpoint import load, save
from audiovq.models.model import Model
from audiovq.models.priors.pixelcnn import PixelCNN
from audiovq.models.priors.sampling import sample
from audiovq.models.priors.tokens import Vocabulary
from audiovq.models.priors.transformer import Transformer

PIXELCNN = dataclasses.replace(PRIOR, kind="pixelcnn", kernel=3)


def pixelcnn(vocabulary: Vocabulary, config: PriorConfig = PIXELCNN) -> PixelCNN:
    """A PixelCNN in eval mode with random weights, for labels of 3 and 2 values."""
    torch.manual_seed(0)
    model = PixelCNN(config, vocabulary, (3, 2))
    shake(model)
    return model.eval()


def some_tokens(vocabulary: Vocabulary, columns: list[int]) -> tuple[Tensor, Tensor]:
    """Random clips with the given numbers of columns → tokens, lengths."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(columns), vocabulary.num_quantizers, vocabulary.rows, max(columns))
    codes = torch.randint(vocabulary.codebook_size, shape, generator=generator)
    levels = torch.arange(len(columns)) % vocabulary.num_levels
    return vocabulary.tokens(codes, torch.tensor(columns), levels)


def receptive_field(vocabulary: Vocabulary, config: PriorConfig, position: int) -> set[int]:
    """Positions that the logits at `position` depend on, by the docstring of `PixelCNN`."""
    if position == 0:
        return set()
    quantizers, far = vocabulary.num_quantizers, config.layers * (config.kernel // 2)
    column, row = divmod((position - 1) // quantizers, vocabulary.rows)
    cell = position - (position - 1) % quantizers  # its first position
    field = {0, *range(cell, position)}
    for other in range(1, cell):
        back, up = divmod((other - 1) // quantizers, vocabulary.rows)
        back, up = column - back, up - row
        if (back == 0 and up >= -1 - far) or (1 <= back <= 1 + far and abs(up) <= far):
            field.add(other)
    return field


@pytest.mark.parametrize(("kernel", "layers", "quantizers"), [(3, 1, 2), (3, 2, 1), (5, 1, 1)])
def test_logits_depend_on_every_code_of_the_receptive_field_and_on_no_other(
    kernel: int, layers: int, quantizers: int
) -> None:
    vocabulary = Vocabulary(5, quantizers, rows=6, num_levels=3, max_columns=5)
    config = dataclasses.replace(PIXELCNN, kernel=kernel, layers=layers)
    model = pixelcnn(vocabulary, config)
    tokens, _ = some_tokens(vocabulary, [5])
    embedded: list[Tensor] = []

    def hook(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    model.token_embedding.register_forward_hook(hook)
    logits = model(tokens, torch.tensor([[1, 0]]))
    partial = False
    for position in range(tokens.shape[1]):
        allowed = logits[:, position][logits[:, position].isfinite()]
        (gradient,) = torch.autograd.grad(
            allowed.square().sum(), embedded, retain_graph=True, materialize_grads=True
        )
        found = set(gradient[0].abs().sum(dim=1).nonzero()[:, 0].tolist())
        assert found == receptive_field(vocabulary, config, position), f"position {position}"
        partial |= found != set(range(position))
    assert partial, "the test needs codes outside the receptive field"


def test_cached_steps_sample_the_same_codes_as_the_whole_network() -> None:
    vocabulary = Vocabulary(16, 1, rows=16, num_levels=3, max_columns=16)

    class Uncached(PixelCNN):
        def step(self, tokens: Tensor, position: int, condition: Tensor, caches: Any) -> Tensor:
            logits: Tensor = self(tokens[:, : position + 1], labels)[:, position]
            return logits

    labels = torch.tensor([[0, 1]])
    # In float64: in float32, rounding could decide between two codes of nearly the same probability.
    config = dataclasses.replace(PIXELCNN, kernel=5)
    model = pixelcnn(vocabulary, config).double()
    uncached = Uncached(config, vocabulary, (3, 2)).double().eval()
    with torch.no_grad():
        model.head.bias[vocabulary.end] = -1e4
    uncached.load_state_dict(model.state_dict())
    sampling = SamplingConfig(guidance=0, top_p=0.9)
    tokens, expected = (
        sample(prior, labels, sampling, torch.Generator().manual_seed(5))
        for prior in (model, uncached)
    )
    assert torch.equal(tokens, expected)
    model.float()
    with torch.no_grad():
        whole = model(tokens, labels).log_softmax(dim=-1)
        condition, caches = model.condition(labels), model.new_caches(*tokens.shape)
        for position in range(tokens.shape[1]):
            step = model.step(tokens, position, condition, caches).log_softmax(dim=-1)
            torch.testing.assert_close(step, whole[:, position], atol=1e-5, rtol=0)


def test_sampling_with_caches_is_20_times_faster_than_the_whole_network_for_every_code() -> None:
    """`benchmarks/speed/pixelcnn.py` in small: one run of the whole network is timed, and multiplied."""
    vocabulary = Vocabulary(512, 1, rows=16, num_levels=64, max_columns=16)
    model = PixelCNN(PriorConfig(kind="pixelcnn"), vocabulary, (3, 2)).eval()
    labels = torch.zeros(8, 2, dtype=torch.long)
    with torch.no_grad():
        model.head.bias[vocabulary.end] = -1e4
        tokens, _ = some_tokens(vocabulary, [16] * 8)
        model(tokens[:, :20], labels)  # warm-up
        begin = time.process_time()
        model(tokens, labels)
        whole = time.process_time() - begin
        begin = time.process_time()
        sampled = sample(model, labels, SamplingConfig(guidance=0), torch.Generator())
    assert sampled.shape[1] == 1 + 256
    assert 257 * whole > 20 * (time.process_time() - begin)


def test_a_clip_has_the_same_likelihood_in_a_padded_batch_as_alone() -> None:
    vocabulary = Vocabulary(5, 2, rows=4, num_levels=3, max_columns=9)
    model = pixelcnn(vocabulary)
    tokens, lengths = some_tokens(vocabulary, [9, 1, 6])
    labels = torch.tensor([[0, 0], [2, 1], [3, 2]])
    with torch.no_grad():
        together = model.log_likelihood(tokens, lengths, labels)
        for i, length in enumerate(lengths.tolist()):
            alone = model.log_likelihood(
                tokens[i : i + 1, :length], lengths[i : i + 1], labels[i : i + 1]
            )
            torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


def test_25_steps_bring_the_loss_below_half_the_unigram_entropy() -> None:
    vocabulary = Vocabulary(8, 2, rows=4, num_levels=3, max_columns=8)
    tokens, lengths = some_tokens(vocabulary, [8, 5, 3])
    labels = torch.tensor([[0, 0], [1, 1], [2, 0]])
    valid = tokens[torch.arange(tokens.shape[1]) < lengths[:, None]]
    counts = torch.bincount(valid[valid < vocabulary.end]).view(2, -1).double()
    shares = counts / counts.sum(dim=1, keepdim=True)
    unigram = float(torch.special.entr(shares).sum(dim=1).mean())
    torch.manual_seed(0)
    model = PixelCNN(PIXELCNN, vocabulary, (3, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        loss = model.loss(tokens, lengths, labels)[0]
        loss.backward()
        optimizer.step()
    assert unigram > 1.5
    assert loss.item() < 0.5 * unigram


def test_under_bfloat16_autocast_logits_are_float32_and_close_to_those_without() -> None:
    vocabulary = Vocabulary(5, 2, rows=4, num_levels=3, max_columns=9)
    model = pixelcnn(vocabulary)
    tokens, _ = some_tokens(vocabulary, [9])
    labels = torch.tensor([[0, 1]])
    with torch.no_grad():
        exact = model(tokens, labels)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(tokens, labels)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.15, rtol=0.05)


def pixelcnn_model() -> Model:
    """A model in eval mode with a PixelCNN as its prior."""
    model = tiny_model()
    model.prior = model.new_prior(PIXELCNN).eval()
    shake(model.prior)
    return model


def test_a_loaded_model_gives_exactly_the_logits_of_the_saved_one(tmp_path: Path) -> None:
    model = pixelcnn_model()
    save(tmp_path, model, "autoencoder", {})
    save(tmp_path, model, "prior", {})
    loaded = load(tmp_path)
    assert isinstance(loaded.prior, PixelCNN)
    assert isinstance(model.prior, PixelCNN)
    assert loaded.prior.config == PIXELCNN
    tokens, _ = some_tokens(model.vocabulary, [3, 8])
    labels = torch.tensor([[0, 2], [1, 1]])
    with torch.no_grad():
        assert torch.equal(loaded.prior(tokens, labels), model.prior(tokens, labels))


def test_a_model_file_without_a_prior_kind_loads_a_transformer(tmp_path: Path) -> None:
    model = tiny_model()
    save(tmp_path, model, "autoencoder", {})
    save(tmp_path, model, "prior", {})
    header = json.loads((tmp_path / "model.json").read_text())
    for name in ("kind", "kernel"):
        del header["prior"]["config"][name]
    (tmp_path / "model.json").write_text(json.dumps(header))
    reseal(tmp_path)
    assert isinstance(load(tmp_path).prior, Transformer)


def test_a_trained_model_generates_sounds_and_packs_archives(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        CONFIG,
        prior=PriorConfig(kind="pixelcnn", dim=20, layers=2, kernel=3),
        autoencoder_training=dataclasses.replace(CONFIG.autoencoder_training, steps=10),
    )
    model = train(dataset, tmp_path / "model", config, device="cpu", say=lambda _: None)
    assert isinstance(model.prior, PixelCNN)
    summary = model.header["prior"]["summary"]
    assert summary["validation_bits_per_code"] < summary["uniform_bits"]
    sounds = generate(model, 3, best_of=2, sampling=SamplingConfig(guidance=2.0))
    assert [len(sound.waveform) > 0 for sound in sounds] == [True] * 3
    encoded = {str(i): sound.encoded for i, sound in enumerate(sounds)}
    back = unpack(model, pack(model, encoded, "prior"))
    assert all(torch.equal(back[name].codes, encoded[name].codes) for name in encoded)


def test_guidance_makes_codes_of_the_requested_label_more_frequent() -> None:
    """With two labels, whose clips have the other label's code in three cells of ten."""
    vocabulary = Vocabulary(2, 1, rows=2, num_levels=1, max_columns=3)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200)[:, None] % 2
    codes = (labels.view(-1, 1, 1, 1) + (torch.rand(200, 1, 2, 3, generator=generator) < 0.3)) % 2
    tokens, lengths = vocabulary.tokens(
        codes.long(), torch.full((200,), 3), torch.zeros(200).long()
    )
    torch.manual_seed(0)
    model = PixelCNN(PIXELCNN, vocabulary, (2,))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        dropped = model.hide_labels(labels, generator)
        dropped[::4] = 2
        model.loss(tokens, lengths, dropped)[0].backward()
        optimizer.step()
    model.eval()
    shares = []
    for guidance in (0.0, 3.0):
        sampling = SamplingConfig(temperature=1.0, guidance=guidance)
        sampled = sample(model, labels, sampling, torch.Generator().manual_seed(1))
        grid, _, _ = vocabulary.codes(sampled)
        shares.append((grid[:, 0, :, 0] == labels).float().mean().item())
    assert shares[0] == pytest.approx(0.7, abs=0.12)
    assert shares[1] > shares[0] + 0.1
