"""The card of a model names a command that works with it."""

from collections.abc import Callable

import pytest
from tiny_models import tiny_model, untrained

from audiovq.dataset.dataset import Dataset
from audiovq.models.model import Model
from audiovq.training.card import model_card


@pytest.mark.parametrize(
    ("make", "verb"),
    [
        (tiny_model, "generate"),
        (lambda: untrained(bottleneck="gaussian"), "generate"),
        (untrained, "reconstruct"),
        (lambda: untrained(bottleneck="none"), "plot"),
    ],
)
def test_a_card_names_a_verb_that_works_with_the_model(
    dataset: Dataset, make: Callable[[], Model], verb: str
) -> None:
    card = model_card(make(), dataset)
    assert f"\naudiovq {verb} MODEL " in card
    assert card.count("\naudiovq ") == 1
