"""Laws of the transformer block: bounded residuals, queries as a subset, cached steps as the whole pass."""

import pytest
import torch
from tiny_models import shake

from audiovq.config.settings import MaskedConfig
from audiovq.models.priors.attention import LAYER_SCALE_INIT, SMALL_BATCH, Linear, TransformerBlock

CONFIG = MaskedConfig(dim=16, layers=1, heads=2)


def random_block() -> tuple[TransformerBlock, torch.Tensor, tuple[torch.Tensor, ...]]:
    """A block with random weights in eval mode, input of three clips and five positions, modulation."""
    torch.manual_seed(0)
    block = TransformerBlock(CONFIG)
    shake(block)
    return block.eval(), torch.randn(3, 5, 16), block.compute_modulation(torch.randn(3, 16))


@torch.no_grad()
@pytest.mark.parametrize("name", ["out", "mlp_out"])
def test_residuals_do_not_depend_on_the_scale_of_the_output_weights(name: str) -> None:
    block, x, modulation = random_block()
    before = block(x, modulation)
    for weights in getattr(block, name).parameters():
        weights *= 1000
    torch.testing.assert_close(block(x, modulation), before, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_initial_residuals_have_the_standard_deviation_of_the_layer_scale() -> None:
    x = torch.randn(3, 5, 16)
    block = TransformerBlock(CONFIG).eval()
    block.zero_init()
    initial, zeros = torch.full((16,), LAYER_SCALE_INIT), torch.zeros(16)
    for scale, other in (("attn_scale", "mlp_scale"), ("mlp_scale", "attn_scale")):
        block.load_state_dict({scale: initial, other: zeros}, strict=False)
        residual = block(x, block.compute_modulation(torch.randn(3, 16))) - x
        torch.testing.assert_close(
            residual.std(dim=2, correction=0),
            torch.full((3, 5), LAYER_SCALE_INIT),
            rtol=0.1,
            atol=0,
        )


@torch.no_grad()
@pytest.mark.parametrize("num_queries", [1, 3, 5])
def test_the_first_queries_give_the_first_outputs_of_all_queries(num_queries: int) -> None:
    block, x, modulation = random_block()
    key_mask = (torch.arange(5) < torch.tensor([[5], [4], [3]]))[:, None, None]
    whole = block(x, modulation, key_mask=key_mask)
    first = block(x, modulation, key_mask=key_mask, num_queries=num_queries)
    torch.testing.assert_close(first, whole[:, :num_queries])


@torch.no_grad()
def test_cached_steps_equal_the_forward_pass_over_the_whole_sequence() -> None:
    block, x, modulation = random_block()
    kv_cache = torch.zeros(2, 3, CONFIG.heads, 5, CONFIG.dim // CONFIG.heads)
    steps = [block.step(x[:, i], modulation, kv_cache, i) for i in range(5)]
    torch.testing.assert_close(torch.stack(steps, dim=1), block(x, modulation))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, SMALL_BATCH, SMALL_BATCH + 1])
def test_linear_is_the_same_product_for_small_and_large_batches(rows: int) -> None:
    linear, x = Linear(8, 5), torch.randn(rows, 8)
    torch.testing.assert_close(linear(x), x @ linear.weight.T + linear.bias)
