"""The laws of a transformer's layer: what it adds stays small, and whom it answers."""

import pytest
import torch
from tiny import shake

from audiovq.attention import FEW_ROWS, GAIN, Layer, Linear
from audiovq.config import MaskedConfig

CONFIG = MaskedConfig(dim=16, layers=1, heads=2)


def layer() -> tuple[Layer, torch.Tensor, tuple[torch.Tensor, ...]]:
    """One with random weights, in eval mode; five places of three clips; what their labels tell."""
    torch.manual_seed(0)
    made = Layer(CONFIG)
    shake(made)
    return made.eval(), torch.randn(3, 5, 16), made.told(torch.randn(3, 16))


@torch.no_grad()
@pytest.mark.parametrize("name", ["out", "mlp_out"])
def test_what_is_added_does_not_grow_with_the_weights_that_make_it(name: str) -> None:
    made, x, told = layer()
    before = made(x, told)
    for weights in getattr(made, name).parameters():
        weights *= 1000
    torch.testing.assert_close(made(x, told), before, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_at_first_each_half_adds_its_gain() -> None:
    x = torch.randn(3, 5, 16)
    made = Layer(CONFIG).eval()
    made.start()
    nothing = torch.zeros(16)
    for gain, other in (("attended_gain", "mlp_gain"), ("mlp_gain", "attended_gain")):
        made.load_state_dict({gain: torch.full((16,), GAIN), other: nothing}, strict=False)
        added = made(x, made.told(torch.randn(3, 16))) - x
        torch.testing.assert_close(
            added.std(dim=2, correction=0), torch.full((3, 5), GAIN), rtol=0.1, atol=0
        )


@torch.no_grad()
@pytest.mark.parametrize("asked", [1, 3, 5])
def test_the_first_places_asked_for_are_those_of_the_whole(asked: int) -> None:
    made, x, told = layer()
    inside = (torch.arange(5) < torch.tensor([[5], [4], [3]]))[:, None, None]
    whole = made(x, told, inside=inside)
    torch.testing.assert_close(made(x, told, inside=inside, asked=asked), whole[:, :asked])


@torch.no_grad()
def test_steps_give_what_the_whole_sequence_gives() -> None:
    made, x, told = layer()
    kept = torch.zeros(2, 3, CONFIG.heads, 5, CONFIG.dim // CONFIG.heads)
    steps = [made.step(x[:, place], told, kept, place) for place in range(5)]
    torch.testing.assert_close(torch.stack(steps, dim=1), made(x, told))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, FEW_ROWS, FEW_ROWS + 1])
def test_few_rows_and_many_are_multiplied_to_the_same(rows: int) -> None:
    made, x = Linear(8, 5), torch.randn(rows, 8)
    torch.testing.assert_close(made(x), x @ made.weight.T + made.bias)
