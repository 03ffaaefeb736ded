"""Tests of `audiovq.bottlenecks`: nearest code, losses, codebook updates."""

import copy
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from audiovq.config.autoencoder import BottleneckConfig
from audiovq.config.errors import AudiovqError
from audiovq.models.autoencoder import quantizers as models_autoencoder_quantizers
from audiovq.models.autoencoder.gaussian import Gaussian, NoBottleneck
from audiovq.models.autoencoder.quantizers import Codebook, LatentProjection, Quantizer


@pytest.fixture(scope="module")
def vq() -> Any:
    """An independent implementation. Its import takes seconds, so only the process that needs it imports it."""
    return pytest.importorskip("vector_quantize_pytorch")


def config(**changes: Any) -> BottleneckConfig:
    """Codebooks of 8 codes in 4 dimensions, without k-means initialisation and restarts."""
    plain = {
        "latent_dim": 4,
        "codebook_size": 8,
        "kmeans_start": False,
        "restart": False,
        "decay": 0.9,
    }
    return BottleneckConfig(**(plain | changes))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def place(codebook: Codebook, embedding: Tensor) -> None:
    """Set the code vectors, each with a cluster size of 1."""
    with torch.no_grad():
        codebook.embedding.copy_(embedding)
        if codebook.config.update == "ema":
            codebook.num_updates.fill_(1e6)  # past the fast averages of the first steps
            codebook.cluster_size.fill_(1)
            codebook.embedding_sum.copy_(embedding)


@given(st.data())
def test_nearest_code_is_of_least_distance_with_any_chunk_size(data: st.DataObject) -> None:
    dim, size, vectors = (data.draw(st.integers(low, 6)) for low in (1, 2, 0))
    cells = st.integers(-9, 9)  # small integers: exact in float32, and ties are common

    def draw(n: int) -> np.ndarray:
        return np.array(data.draw(st.lists(cells, min_size=n, max_size=n)), np.float32)

    codes, latents = draw(size * dim).reshape(size, dim), draw(vectors * dim).reshape(-1, dim)
    codebook = Codebook(config(latent_dim=dim, codebook_size=size))
    place(codebook, torch.from_numpy(codes))
    squared = ((latents[:, None] - codes[None]) ** 2).sum(axis=2)
    for cells_at_once in (1, 2 * size, models_autoencoder_quantizers.CHUNK_CELLS):
        with mock.patch.object(models_autoencoder_quantizers, "CHUNK_CELLS", cells_at_once):
            nearest = codebook.nearest(torch.from_numpy(latents)).numpy()
        assert nearest.shape == (vectors,)
        np.testing.assert_array_equal(squared[np.arange(vectors), nearest], squared.min(axis=1))


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    cells = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self.cells = max(self.cells, *(tensor.numel() for tensor in tensors), 0)
        return made


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_step_never_holds_a_latents_by_codes_matrix(update: str) -> None:
    quantizer = Quantizer(config(update=update, codebook_size=512, restart=update == "ema"))
    latents = normal(4096, 4).requires_grad_()
    with Largest() as largest:
        made = quantizer(latents)
        (made.latents.sum() + made.loss).backward()
    assert 4096 * 4 <= largest.cells <= models_autoencoder_quantizers.CHUNK_CELLS < 4096 * 512


@pytest.mark.parametrize("quantizers", [1, 3])
@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_straight_through_gradient_is_exactly_the_identity(update: str, quantizers: int) -> None:
    quantizer = Quantizer(config(update=update, num_quantizers=quantizers))
    latents = normal(20, 4).requires_grad_()
    weights = normal(20, 4, seed=1)
    result = quantizer(latents)
    (result.latents * weights).sum().backward()
    assert latents.grad is not None
    assert torch.equal(latents.grad, weights)
    assert all(p.grad is None for p in quantizer.parameters())


@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_gradient_update_has_the_loss_and_gradients_of_the_paper(beta: float) -> None:
    quantizer = Quantizer(config(update="gradient", commitment=beta))
    (codebook,) = quantizer.codebooks()
    place(codebook, normal(8, 4, seed=1))
    latents = normal(30, 4).requires_grad_()
    result = quantizer(latents)
    result.loss.backward()

    z, e = latents.detach().double().numpy(), codebook.embedding.detach().double().numpy()
    k = ((z[:, None] - e[None]) ** 2).sum(axis=2).argmin(axis=1)
    difference = e[k] - z
    by_code = np.zeros_like(e)
    np.add.at(by_code, k, 2 * difference / difference.size)
    assert result.loss.item() == pytest.approx((1 + beta) * (difference**2).mean(), rel=1e-5)
    np.testing.assert_array_equal(result.codes[:, 0], k)
    np.testing.assert_allclose(result.latents.detach(), e[k], atol=1e-6)
    np.testing.assert_allclose(codebook.embedding.grad, by_code, atol=1e-6)
    np.testing.assert_allclose(latents.grad, -2 * beta * difference / difference.size, atol=1e-7)


def test_gradient_update_moves_codes_by_the_optimizer_only() -> None:
    quantizer = Quantizer(config(update="gradient", restart=True))
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(normal(30, 4) + 5)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_ema_update_matches_vector_quantize_pytorch(vq: Any) -> None:
    quantizer = Quantizer(config(commitment=0.25))
    (codebook,) = quantizer.codebooks()
    oracle = vq.VectorQuantize(
        4,
        codebook_size=8,
        decay=0.9,
        eps=1e-12,  # no Laplace smoothing to speak of
        commitment_weight=0.25,
        rotation_trick=False,
        threshold_ema_dead_code=0,
    )
    start = normal(8, 4, seed=1)
    place(codebook, start)
    oracle._codebook.embed.copy_(start[None])
    oracle._codebook.embed_avg.copy_(start[None])
    for step in range(12):
        mine = normal(50, 4, seed=10 + step).requires_grad_()
        theirs = mine.detach().clone().requires_grad_()
        result = quantizer(mine)
        latents, codes, loss = oracle(theirs)
        assert torch.equal(result.codes[:, 0], codes)
        assert torch.allclose(result.latents, latents, atol=1e-5)
        assert result.loss.item() == pytest.approx(loss.item(), rel=1e-4)
        ((result.latents**3).sum() + result.loss).backward()
        ((latents**3).sum() + loss.sum()).backward()
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)
        assert torch.allclose(codebook.cluster_size, oracle._codebook.cluster_size[0], atol=1e-5)
        assert torch.allclose(codebook.embedding, oracle._codebook.embed[0], atol=1e-4)
    assert not torch.allclose(codebook.embedding, start, atol=0.1), "nothing was learnt"


def test_ema_is_fast_at_first_and_slows_to_the_configured_decay() -> None:
    quantizer = Quantizer(config(decay=0.7))
    (codebook,) = quantizer.codebooks()
    embedding = normal(8, 4, seed=1)
    place(codebook, embedding)
    codebook.num_updates.zero_()
    count, total = np.ones(8), embedding.double().numpy()
    for step in range(30):
        batch = normal(80, 4, seed=10 + step)
        codes = quantizer(batch).codes[:, 0]
        share = max(9 / (10 + step), 1 - 0.7)
        sums = np.zeros((8, 4))
        np.add.at(sums, codes.numpy(), batch.double().numpy())
        count += share * (np.bincount(codes, minlength=8) - count)
        total += share * (sums - total)
        np.testing.assert_allclose(codebook.embedding, total / count[:, None], atol=1e-4)
    assert share == pytest.approx(0.3)


@pytest.fixture
def with_a_dead_code() -> tuple[Quantizer, Codebook, Tensor]:
    """Seven codes among the data, the eighth far away; decay 0.5."""

    def make(restart: bool) -> tuple[Quantizer, Codebook, Tensor]:
        torch.manual_seed(0)
        quantizer = Quantizer(config(decay=0.5, restart=restart))
        (codebook,) = quantizer.codebooks()
        latents = normal(64, 4)
        start = latents[:8].clone()
        start[7] = 100
        place(codebook, start)
        return quantizer, codebook, latents

    return make


def test_a_dead_code_restarts_at_a_latent_of_the_batch_and_stays_in_use(
    with_a_dead_code: Any,
) -> None:
    quantizer, codebook, latents = with_a_dead_code(restart=True)
    for _ in range(10):
        quantizer(latents)
        if float(codebook.embedding[7].abs().max()) < 50:
            break
    distance = (latents - codebook.embedding[7]).norm(dim=1)
    assert float(distance.min()) < 1e-5, "a dead code takes the exact value of a latent"
    nearest = latents[distance.argmin()]
    assert int(codebook.nearest(nearest[None])) == 7
    for _ in range(5):
        result = quantizer(latents)
        assert 7 in result.codes, "the restarted code is used from the next batch on"
        low, high = latents.amin(dim=0), latents.amax(dim=0)
        assert bool(((codebook.embedding[7] >= low) & (codebook.embedding[7] <= high)).all())


def test_restart_leaves_live_codes_unchanged(with_a_dead_code: Any) -> None:
    embeddings = []
    for restart in (False, True):
        quantizer, codebook, latents = with_a_dead_code(restart=restart)
        for _ in range(2):  # the second kills the eighth code
            quantizer(latents)
        embeddings.append(codebook.embedding)
    assert torch.equal(embeddings[0][:7], embeddings[1][:7])
    assert not torch.equal(embeddings[0][7], embeddings[1][7])


def test_without_restart_a_dead_code_never_moves(with_a_dead_code: Any) -> None:
    quantizer, codebook, latents = with_a_dead_code(restart=False)
    for _ in range(200):  # its cluster size and sum have underflowed float32 by now
        quantizer(latents)
    assert torch.allclose(codebook.embedding[7], torch.full((4,), 100.0), rtol=1e-4)
    quantizer(torch.full((64, 4), 101.0))
    assert torch.allclose(codebook.embedding[7], torch.full((4,), 101.0), rtol=1e-2), (
        "it can become live again"
    )


@pytest.mark.parametrize("update", ["ema", "gradient"])
@pytest.mark.parametrize("vectors", [3, 8, 200])
def test_kmeans_initialisation_puts_every_code_within_the_data(vectors: int, update: str) -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(config(update=update, kmeans_start=True))
    (codebook,) = quantizer.codebooks()
    latents = 50 + normal(vectors, 4)
    result = quantizer(latents)
    low, high = latents.amin(dim=0) - 0.02, latents.amax(dim=0) + 0.02
    assert bool(((codebook.embedding >= low) & (codebook.embedding <= high)).all())
    assert bool(torch.isfinite(result.latents).all())
    picked = latents[torch.randperm(vectors)[:8]]
    error = (latents - codebook.embedding[codebook.nearest(latents)]).square().sum().item()
    if vectors > 8:
        assert error < 0.8 * torch.cdist(latents, picked).square().amin(dim=1).sum()
        assert len(result.codes.unique()) == 8
    if vectors == 8:
        assert error < 1e-3, "one code for each vector"


def test_kmeans_initialisation_runs_once_and_not_after_loading() -> None:
    quantizer = Quantizer(config(kmeans_start=True, decay=0.999))
    first = normal(64, 4)
    quantizer.eval()
    before = quantizer.codebooks()[0].embedding.clone()
    quantizer(first + 50)
    assert torch.equal(quantizer.codebooks()[0].embedding, before), "no initialisation in eval mode"
    quantizer.train()(first)
    quantizer.codebooks()[0].num_updates.fill_(1e6)
    loaded = Quantizer(config(kmeans_start=True, decay=0.999))
    loaded.load_state_dict(quantizer.state_dict())
    for one in (quantizer, loaded):
        one(first + 50)
        assert float(one.codebooks()[0].embedding.abs().max()) < 10


def test_residual_encode_inverts_decode() -> None:
    quantizer = Quantizer(config(num_quantizers=3))
    digits = torch.tensor([[x, y, z, 0.0] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    for codebook, scale in zip(quantizer.codebooks(), (1, 0.25, 0.0625), strict=True):
        place(codebook, scale * digits)
    every = torch.cartesian_prod(*[torch.arange(8)] * 3)
    assert torch.equal(quantizer.encode(quantizer.decode(every)), every)
    assert len(quantizer.decode(every).unique(dim=0)) == 512


@pytest.mark.parametrize("quantizers", [1, 2, 3])
def test_forward_returns_the_codes_and_vectors_of_encode_and_decode(quantizers: int) -> None:
    quantizer = Quantizer(config(latent_dim=1, num_quantizers=quantizers)).eval()
    # Codes so close together that the order of two subtractions decides between them.
    codebooks = [
        torch.linspace(-1, 1, 8),
        torch.linspace(-0.1, 0.1, 8),
        torch.linspace(-2e-7, 2e-7, 8),
    ]
    for codebook, values in zip(quantizer.codebooks(), codebooks, strict=False):
        place(codebook, values[:, None])
    picks = torch.randint(8, (2, 2000), generator=torch.Generator().manual_seed(0))
    latents = (codebooks[0][picks[0]] + codebooks[1][picks[1]])[:, None] + 1e-7 * normal(2000, 1)
    result = quantizer(latents)
    assert torch.equal(result.codes, quantizer.encode(latents))
    assert torch.allclose(result.latents, quantizer.decode(result.codes), atol=1e-6)


def residual_books(count: int, scale: float = 0.6) -> Quantizer:
    """Codebooks of 8 random codes in 4 dimensions, each finer than the one before."""
    quantizer = Quantizer(config(num_quantizers=count)).eval()
    for i, codebook in enumerate(quantizer.codebooks()):
        place(codebook, normal(8, 4, seed=i + 1) * scale**i)
    return quantizer


def test_a_beam_as_wide_as_all_sums_finds_the_nearest_of_them() -> None:
    quantizer, latents = residual_books(3), normal(200, 4)
    every = torch.cartesian_prod(*[torch.arange(8)] * 3)
    distances = torch.cdist(latents.double(), quantizer.decode(every).double())
    found = quantizer.decode(quantizer.encode(latents, beam=64)).double()
    assert torch.allclose((found - latents).norm(dim=1), distances.min(dim=1).values, atol=1e-6)


def test_a_wider_beam_finds_nearer_sums_and_one_of_1_takes_the_nearest_code_each_time() -> None:
    quantizer, latents = residual_books(4), normal(2000, 4)
    residual, greedy = latents, []
    for codebook in quantizer.codebooks():
        greedy.append(torch.cdist(residual, codebook.embedding).argmin(dim=1))
        residual = residual - codebook.embedding[greedy[-1]]
    assert torch.equal(quantizer.encode(latents, beam=1), torch.stack(greedy, dim=1))
    errors = [
        float((quantizer.decode(quantizer.encode(latents, beam)) - latents).square().mean())
        for beam in (1, 2, 4, 8)
    ]
    assert all(wider < 0.99 * narrower for narrower, wider in pairwise(errors))


def test_codes_of_a_beam_are_independent_of_other_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer, latents = residual_books(3), normal(300, 4)
    together = quantizer.encode(latents)
    seven_latents = 7 * models_autoencoder_quantizers.BEAM * 8
    monkeypatch.setattr(models_autoencoder_quantizers, "CHUNK_CELLS", seven_latents)
    assert torch.equal(quantizer.encode(latents), together)


def test_a_training_step_takes_the_nearest_code_each_time() -> None:
    quantizer, latents = residual_books(3), normal(300, 4)
    greedy = quantizer.encode(latents, beam=1)
    assert not torch.equal(quantizer(latents).codes, greedy)
    assert torch.equal(quantizer.train()(latents).codes, greedy)


def test_each_further_quantizer_reduces_the_error() -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(config(num_quantizers=4, kmeans_start=True, restart=True))
    latents = normal(400, 4)
    for _ in range(5):
        quantizer(latents)
    codes = quantizer.encode(latents)
    codebooks = quantizer.codebooks()
    parts = torch.stack([codebook.embedding[codes[:, i]] for i, codebook in enumerate(codebooks)])
    errors = [float((latents - made).square().mean()) for made in parts.cumsum(dim=0)]
    errors.insert(0, float(latents.square().mean()))
    assert all(later < 0.75 * before for before, later in pairwise(errors))


def test_each_quantizer_adds_its_own_commitment_loss() -> None:
    quantizer = Quantizer(config(num_quantizers=3, commitment=0.5)).eval()
    for i, codebook in enumerate(quantizer.codebooks()):
        place(codebook, normal(8, 4, seed=i + 1) / (i + 1))
    latents = normal(40, 4)
    result = quantizer(latents)
    left, expected = latents.double().numpy(), 0.0
    for i, codebook in enumerate(quantizer.codebooks()):
        left = left - codebook.embedding.double().numpy()[result.codes[:, i]]
        expected += 0.5 * (left**2).mean()
    assert result.loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kmeans_start", [False, True])
@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_eval_mode_changes_no_state(update: str, kmeans_start: bool) -> None:
    quantizer = Quantizer(config(update=update, kmeans_start=kmeans_start, restart=True)).eval()
    before = copy.deepcopy(quantizer.state_dict())
    usage = quantizer.codebooks()[0].usage.clone()
    first = quantizer(normal(30, 4))
    again = quantizer(normal(30, 4))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    assert torch.equal(quantizer.codebooks()[0].usage, usage)
    assert torch.equal(first.latents, again.latents)


def test_quantizer_stays_float32_under_bfloat16_autocast() -> None:
    start = Quantizer(config(latent_dim=16, codebook_size=64, num_quantizers=2))
    outside, inside = copy.deepcopy(start), copy.deepcopy(start)
    for step in range(3):
        latents = 0.02 * normal(300, 16, seed=step)
        expected = outside(latents)
        with torch.autocast("cpu", torch.bfloat16):
            result = inside(latents)
            codes = inside.encode(latents)
            decoded = inside.decode(codes)
        assert torch.equal(codes, outside.encode(latents))
        assert torch.equal(result.codes, expected.codes)
        assert torch.equal(result.latents, expected.latents)
        assert torch.equal(result.loss, expected.loss)
        assert result.latents.dtype == result.loss.dtype == decoded.dtype == torch.float32
    for name, value in inside.state_dict().items():
        assert torch.equal(value, outside.state_dict()[name])


def test_usage_counts_every_code_of_every_batch() -> None:
    quantizer = Quantizer(config())
    codes = torch.cat([quantizer(normal(30, 4, seed=i)).codes for i in range(3)])
    expected = torch.bincount(codes[:, 0], minlength=8).float()
    assert torch.equal(quantizer.codebooks()[0].usage, expected)


def test_no_bottleneck_is_the_identity() -> None:
    latents = normal(20, 4).requires_grad_()
    result = NoBottleneck()(latents)
    assert result.latents is latents
    assert result.codes.shape == (20, 0)
    assert float(result.loss) == 0


def on_grid(latents: Tensor, config: BottleneckConfig) -> Tensor:
    """`LatentProjection` of latents (vectors, dim)."""
    return LatentProjection(config)(latents.T[None, :, :, None])[0, :, :, 0].T


@pytest.mark.parametrize("gradient_through", ["straight", "rotation"])
@pytest.mark.parametrize("cosine", [False, True])
def test_cosine_codes_and_rotation_trick_match_vector_quantize_pytorch(
    vq: Any, cosine: bool, gradient_through: str
) -> None:
    settings = config(cosine=cosine, gradient_through=gradient_through)
    quantizer = Quantizer(settings)
    (codebook,) = quantizer.codebooks()
    oracle = vq.VectorQuantize(
        4,
        codebook_size=8,
        decay=0.9,
        eps=1e-12,
        commitment_weight=0.25,
        use_cosine_sim=cosine,
        rotation_trick=gradient_through == "rotation",
        threshold_ema_dead_code=0,
    )
    start = on_grid(normal(8, 4, seed=1), settings)
    place(codebook, start)
    oracle._codebook.embed.copy_(start[None])
    oracle._codebook.embed_avg.copy_(start[None])
    for step in range(8):
        mine = normal(50, 4, seed=10 + step).requires_grad_()
        theirs = mine.detach().clone().requires_grad_()
        result = quantizer(on_grid(mine, settings))
        latents, codes, loss = oracle(theirs)
        assert torch.equal(result.codes[:, 0], codes)
        assert torch.allclose(result.latents, latents, atol=1e-5)
        assert result.loss.item() == pytest.approx(loss.item(), rel=1e-4)
        ((result.latents**3).sum() + result.loss).backward()
        ((latents**3).sum() + loss.sum()).backward()
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)
        assert torch.allclose(codebook.vectors, oracle._codebook.embed[0], atol=1e-4)
    assert not torch.allclose(codebook.vectors, start, atol=0.1), "nothing was learnt"


def test_cosine_codes_have_length_1_and_get_gradients() -> None:
    settings = config(cosine=True, update="gradient")
    quantizer = Quantizer(settings)
    result = quantizer(on_grid(normal(20, 4), settings))
    torch.testing.assert_close(result.latents.norm(dim=1), torch.ones(20))
    result.loss.backward()
    assert bool(quantizer.codebooks()[0].embedding.grad.any())


@pytest.mark.parametrize("codes", ["gradient", "kmeans"])
def test_rotation_trick_returns_the_exact_code_vectors(codes: str) -> None:
    quantizer = Quantizer(config(gradient_through="rotation", kmeans_start=codes == "kmeans"))
    latents = torch.cat([normal(30, 4), torch.zeros(1, 4)]).requires_grad_()
    result = quantizer.eval()(latents)
    torch.testing.assert_close(result.latents, quantizer.decode(result.codes))
    result.latents.sum().backward()
    assert bool(latents.grad.isfinite().all())


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3,), (4, 7, 6)])
def test_fsq_matches_vector_quantize_pytorch(vq: Any, levels: tuple[int, ...]) -> None:
    settings = BottleneckConfig(kind="fsq", levels=levels)
    quantizer, oracle = Quantizer(settings), vq.FSQ(levels=list(levels))
    mine = (2 * normal(400, len(levels))).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    inside = on_grid(mine, settings)
    result = quantizer(inside)
    latents, codes = oracle(theirs[None])
    assert torch.equal(result.codes[:, 0], codes[0].long())
    torch.testing.assert_close(result.latents, latents[0])
    assert result.loss.item() == 0
    (result.latents**3).sum().backward()
    (latents**3).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    assert torch.equal(quantizer.encode(inside), result.codes)
    assert settings.num_codes == int(np.prod(levels))
    every = torch.arange(settings.num_codes)[:, None]
    assert torch.equal(quantizer.encode(quantizer.decode(every)), every)
    # The vectors form an ordinary codebook, which rate-distortion search relies on.
    (codebook,) = quantizer.codebooks()
    by_distance = torch.cdist(inside.detach(), codebook.vectors).argmin(dim=1)
    assert float((by_distance == result.codes[:, 0]).float().mean()) > 0.99
    assert not quantizer.state_dict(), "nothing is learnt, nothing is saved"


@pytest.mark.parametrize("levels", [(2001,), (3001, 5), (1500,)])
def test_fsq_codes_of_any_latents_are_in_the_codebook(levels: tuple[int, ...]) -> None:
    settings = BottleneckConfig(kind="fsq", levels=levels)
    extremes = torch.tensor([[-20.0], [20.0]]).expand(2, len(levels))
    codes = Quantizer(settings).encode(on_grid(extremes, settings))
    assert codes[:, 0].tolist() == [0, settings.num_codes - 1]


def gaussian(**changes: Any) -> Gaussian:
    """Gaussian of 3 dimensions, a latent for 8 cells, two labels of 2 and 3 values."""
    settings = BottleneckConfig(kind="gaussian", **({"kl_weight": 0.5} | changes))
    return Gaussian(settings, 3, 8, (2, 3))


@pytest.mark.parametrize("conditional", [False, True])
def test_kl_to_the_prior_of_the_labels_matches_torch_distributions(conditional: bool) -> None:
    bottleneck = gaussian(conditional=conditional).eval()
    tables = [normal(3, 3, seed=1), normal(4, 3, seed=2)]
    for mean, table in zip(bottleneck.means, tables, strict=False):
        mean.weight.data.copy_(table)
        mean.weight.data[-1] = 0  # one past the last value: no label
    labels = torch.tensor([[0, 2], [1, 3], [2, 0], [2, 3]])
    parameters = normal(4, 6).requires_grad_()
    mean, log_variance = parameters.detach().double().chunk(2, dim=1)
    prior = torch.zeros(4, 3, dtype=torch.double)
    if conditional:
        prior = torch.stack([tables[0][0] + tables[1][2], tables[0][1], tables[1][0], prior[0]])
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    nats = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(prior, 1.0))
    result = bottleneck(parameters, labels)
    assert result.kl.item() == pytest.approx(nats.sum(dim=1).mean().item() / 8, rel=1e-5)
    assert result.loss.item() == pytest.approx(0.5 * result.kl.item())
    assert torch.equal(result.latents, parameters[:, :3]), "in eval the mean"
    assert result.codes.shape == (4, 0)
    result.loss.backward()
    assert bool(parameters.grad.any())
    for table in bottleneck.means:
        assert bool(table.weight.grad[:-1].any())
        assert not table.weight.grad[-1].any(), "what has no label keeps the standard normal"


def test_gaussian_samples_have_the_given_moments_and_gradients_to_both() -> None:
    torch.manual_seed(0)
    parameters = torch.tensor([[1.0, -2.0, 0.0, 0.0, -4.0, 1.0]]).repeat(20_000, 1).requires_grad_()
    drawn = gaussian()(parameters).latents
    assert torch.allclose(drawn.mean(dim=0), torch.tensor([1.0, -2.0, 0.0]), atol=0.05)
    variance = torch.tensor([0.0, -4.0, 1.0]).exp()
    assert torch.allclose(drawn.var(dim=0), variance, rtol=0.05)
    drawn.square().mean().backward()
    assert bool((parameters.grad.abs().sum(dim=0) > 0).all())


def test_kl_warm_up_applies_in_training_only() -> None:
    bottleneck, parameters = gaussian(), normal(5, 6)
    bottleneck.kl_scale.fill_(0.25)
    assert bottleneck(parameters).loss == pytest.approx(0.125 * bottleneck(parameters).kl)
    result = bottleneck.eval()(parameters)
    assert result.loss == pytest.approx(0.5 * result.kl)


def test_conditional_without_labels_raises() -> None:
    settings = BottleneckConfig(kind="gaussian", conditional=True)
    with pytest.raises(AudiovqError, match="conditional"):
        Gaussian(settings, 3, 8, ())
