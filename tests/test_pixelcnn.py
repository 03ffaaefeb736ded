"""The laws of `audiovq.pixelcnn` beyond those of any prior: reach, caches, speed, and its use."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from reseal import reseal
from tiny import PRIOR, shake, tiny_model
from torch import Tensor
from trained import CONFIG

from audiovq.archive import pack, unpack
from audiovq.checkpoint import Model, load, save
from audiovq.config import PriorConfig, SamplingConfig
from audiovq.dataset import Dataset
from audiovq.generation import generate
from audiovq.pixelcnn import PixelCNN
from audiovq.prior import Vocabulary
from audiovq.sampling import sample
from audiovq.training import train
from audiovq.transformer import Transformer

CONVOLVED = dataclasses.replace(PRIOR, kind="pixelcnn", kernel=3)


def pixelcnn(vocabulary: Vocabulary, config: PriorConfig = CONVOLVED) -> PixelCNN:
    """In eval mode; random weights, labels of 3 and 2 values."""
    torch.manual_seed(0)
    made = PixelCNN(config, vocabulary, (3, 2))
    shake(made)
    return made.eval()


def some_tokens(vocabulary: Vocabulary, columns: list[int]) -> tuple[Tensor, Tensor]:
    """Clips of so many columns → tokens, lengths."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(columns), vocabulary.num_quantizers, vocabulary.rows, max(columns))
    codes = torch.randint(vocabulary.codebook_size, shape, generator=generator)
    levels = torch.arange(len(columns)) % vocabulary.num_levels
    return vocabulary.tokens(codes, torch.tensor(columns), levels)


def reach(vocabulary: Vocabulary, config: PriorConfig, place: int) -> set[int]:
    """Places that the logits at `place` depend on, by the description of `PixelCNN`."""
    if place == 0:
        return set()
    quantizers, far = vocabulary.num_quantizers, config.layers * (config.kernel // 2)
    column, row = divmod((place - 1) // quantizers, vocabulary.rows)
    seen = {0, *range(place - (place - 1) % quantizers, place)}
    for other in range(1, place - (place - 1) % quantizers):
        back, up = divmod((other - 1) // quantizers, vocabulary.rows)
        back, up = column - back, up - row
        if (back == 0 and up >= -1 - far) or (1 <= back <= 1 + far and abs(up) <= far):
            seen.add(other)
    return seen


@pytest.mark.parametrize(("kernel", "layers", "quantizers"), [(3, 1, 2), (3, 2, 1), (5, 1, 1)])
def test_a_code_depends_on_every_code_in_reach_and_on_no_other(
    kernel: int, layers: int, quantizers: int
) -> None:
    vocabulary = Vocabulary(5, quantizers, rows=6, num_levels=3, max_columns=5)
    config = dataclasses.replace(CONVOLVED, kernel=kernel, layers=layers)
    model = pixelcnn(vocabulary, config)
    tokens, _ = some_tokens(vocabulary, [5])
    seen: list[Tensor] = []

    def hook(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    model.token_embedding.register_forward_hook(hook)
    logits = model(tokens, torch.tensor([[1, 0]]))
    partial = False
    for place in range(tokens.shape[1]):
        chosen = logits[:, place][logits[:, place].isfinite()]
        (gradient,) = torch.autograd.grad(
            chosen.square().sum(), seen, retain_graph=True, materialize_grads=True
        )
        read = set(gradient[0].abs().sum(dim=1).nonzero()[:, 0].tolist())
        assert read == reach(vocabulary, config, place), f"place {place}"
        partial |= read != set(range(place))
    assert partial, "the test needs codes out of reach"


def test_with_caches_the_same_codes_are_drawn_as_by_the_whole_network() -> None:
    vocabulary = Vocabulary(16, 1, rows=16, num_levels=3, max_columns=16)

    class Uncached(PixelCNN):
        def step(self, tokens: Tensor, place: int, condition: Tensor, caches: Any) -> Tensor:
            logits: Tensor = self(tokens[:, : place + 1], labels)[:, place]
            return logits

    labels = torch.tensor([[0, 1]])
    # In float64: a float's last bit may part two codes that are as good as equally likely.
    config = dataclasses.replace(CONVOLVED, kernel=5)
    model = pixelcnn(vocabulary, config).double()
    uncached = Uncached(config, vocabulary, (3, 2)).double().eval()
    with torch.no_grad():
        model.head.bias[vocabulary.end] = -1e4
    uncached.load_state_dict(model.state_dict())
    sampling = SamplingConfig(guidance=0, top_p=0.9)
    drawn = [
        sample(prior, labels, sampling, torch.Generator().manual_seed(5))
        for prior in (model, uncached)
    ]
    assert torch.equal(*drawn)
    model.float()
    with torch.no_grad():
        whole = model(drawn[0], labels).log_softmax(dim=-1)
        condition, caches = model.condition(labels), model.new_caches(*drawn[0].shape)
        for place in range(drawn[0].shape[1]):
            step = model.step(drawn[0], place, condition, caches).log_softmax(dim=-1)
            torch.testing.assert_close(step, whole[:, place], atol=1e-5, rtol=0)


def test_drawing_with_caches_is_many_times_faster_than_the_whole_network_for_every_code() -> None:
    """`benchmarks/pixelcnn.py` in small: the whole network is timed once, for all of its runs."""
    vocabulary = Vocabulary(512, 1, rows=16, num_levels=64, max_columns=16)
    model = PixelCNN(PriorConfig(kind="pixelcnn"), vocabulary, (3, 2)).eval()
    labels = torch.zeros(8, 2, dtype=torch.long)
    with torch.no_grad():
        model.head.bias[vocabulary.end] = -1e4
        tokens, _ = some_tokens(vocabulary, [16] * 8)
        model(tokens[:, :20], labels)  # what is done once is not counted
        begin = time.process_time()
        model(tokens, labels)
        whole = time.process_time() - begin
        begin = time.process_time()
        drawn = sample(model, labels, SamplingConfig(guidance=0), torch.Generator())
    assert drawn.shape[1] == 1 + 256
    assert 257 * whole > 20 * (time.process_time() - begin)


def test_a_clip_in_a_padded_batch_is_as_likely_as_alone() -> None:
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


def test_a_few_steps_bring_the_loss_below_what_common_codes_tell() -> None:
    vocabulary = Vocabulary(8, 2, rows=4, num_levels=3, max_columns=8)
    tokens, lengths = some_tokens(vocabulary, [8, 5, 3])
    labels = torch.tensor([[0, 0], [1, 1], [2, 0]])
    inside = tokens[torch.arange(tokens.shape[1]) < lengths[:, None]]
    counts = torch.bincount(inside[inside < vocabulary.end]).view(2, -1).double()
    shares = counts / counts.sum(dim=1, keepdim=True)
    unigram = float(torch.special.entr(shares).sum(dim=1).mean())
    torch.manual_seed(0)
    model = PixelCNN(CONVOLVED, vocabulary, (3, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        loss = model.loss(tokens, lengths, labels)[0]
        loss.backward()
        optimizer.step()
    assert unigram > 1.5
    assert loss.item() < 0.5 * unigram


def test_in_bfloat16_logits_are_float32_and_near_those_of_float32() -> None:
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


def convolved_model() -> Model:
    model = tiny_model()
    model.prior = model.new_prior(CONVOLVED).eval()
    shake(model.prior)
    return model


def test_what_is_loaded_gives_exactly_what_was_saved(tmp_path: Path) -> None:
    model = convolved_model()
    save(tmp_path, model, "autoencoder", {})
    save(tmp_path, model, "prior", {})
    loaded = load(tmp_path)
    assert isinstance(loaded.prior, PixelCNN)
    assert isinstance(model.prior, PixelCNN)
    assert loaded.prior.config == CONVOLVED
    tokens, _ = some_tokens(model.vocabulary, [3, 8])
    labels = torch.tensor([[0, 2], [1, 1]])
    with torch.no_grad():
        assert torch.equal(loaded.prior(tokens, labels), model.prior(tokens, labels))


def test_a_model_that_names_no_kind_of_prior_has_a_transformer(tmp_path: Path) -> None:
    model = tiny_model()
    save(tmp_path, model, "autoencoder", {})
    save(tmp_path, model, "prior", {})
    header = json.loads((tmp_path / "model.json").read_text())
    for name in ("kind", "kernel"):
        del header["prior"]["config"][name]
    (tmp_path / "model.json").write_text(json.dumps(header))
    reseal(tmp_path)
    assert isinstance(load(tmp_path).prior, Transformer)


def test_a_dataset_becomes_a_model_that_generates_and_packs_archives(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        CONFIG,
        prior=PriorConfig(kind="pixelcnn", dim=20, layers=2, kernel=3),
        autoencoder_training=dataclasses.replace(CONFIG.autoencoder_training, steps=10),
    )
    model = train(dataset, tmp_path / "model", config, device="cpu", say=lambda _: None)
    assert isinstance(model.prior, PixelCNN)
    reached = model.header["prior"]["summary"]
    assert reached["validation_bits_per_code"] < reached["uniform_bits"]
    sounds = generate(model, 3, best_of=2, sampling=SamplingConfig(guidance=2.0))
    assert [len(sound.waveform) > 0 for sound in sounds] == [True] * 3
    encoded = {str(i): sound.encoded for i, sound in enumerate(sounds)}
    back = unpack(model, pack(model, encoded, "prior"))
    assert all(torch.equal(back[name].codes, encoded[name].codes) for name in encoded)


def test_guidance_goes_further_towards_what_was_asked_for() -> None:
    """Of two labels: the codes of each are those of the other three times in ten."""
    vocabulary = Vocabulary(2, 1, rows=2, num_levels=1, max_columns=3)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200)[:, None] % 2
    codes = (labels.view(-1, 1, 1, 1) + (torch.rand(200, 1, 2, 3, generator=generator) < 0.3)) % 2
    tokens, lengths = vocabulary.tokens(
        codes.long(), torch.full((200,), 3), torch.zeros(200).long()
    )
    torch.manual_seed(0)
    model = PixelCNN(CONVOLVED, vocabulary, (2,))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        hidden = model.hide_labels(labels, generator)
        hidden[::4] = 2
        model.loss(tokens, lengths, hidden)[0].backward()
        optimizer.step()
    model.eval()
    shares = []
    for guidance in (0.0, 3.0):
        sampling = SamplingConfig(temperature=1.0, guidance=guidance)
        drawn = sample(model, labels, sampling, torch.Generator().manual_seed(1))
        grid, _, _ = vocabulary.codes(drawn)
        shares.append((grid[:, 0, :, 0] == labels).float().mean().item())
    assert shares[0] == pytest.approx(0.7, abs=0.12)
    assert shares[1] > shares[0] + 0.1
