"""Which clips say how loud and how long new sounds are: those that begin as new sounds do."""

import dataclasses
import math

import pytest
import torch
from tiny_models import PRIOR, untrained
from torch import Tensor

from audiovq.codec.tokenize import Encodings
from audiovq.config.settings import MaskedConfig
from audiovq.models.priors.masked import MaskedPrior
from audiovq.models.priors.tokens import Vocabulary
from audiovq.training.stages.masked_prior import MOST_SIZES, clip_sizes, longest_complete
from audiovq.training.stages.prior import levels_count, validate_prior

VOCABULARY = Vocabulary(codebook_size=4, num_quantizers=1, rows=2, num_levels=3, max_columns=3)


def encodings(columns: list[int], complete: Tensor) -> Encodings:
    """Clips of these numbers of columns, all codes 0, with these `complete` (clips, 2)."""
    counts = torch.tensor(columns)
    codes = torch.zeros(len(columns), 1, 2, 3, dtype=torch.long)
    tokens, lengths = VOCABULARY.tokens(codes, counts, torch.zeros(len(columns), dtype=torch.long))
    return Encodings(tokens, lengths, torch.zeros(len(columns), 0, dtype=torch.long), complete)


def test_levels_of_clips_from_within_a_hit_do_not_count_and_of_a_long_texture_all_do() -> None:
    hits = torch.tensor([[True, True], [True, False], [False, True]])
    assert levels_count(encodings([2, 3, 1], hits)).tolist() == [True, True, False]
    texture = torch.tensor([[True, False]] + 7 * [[False, False]])
    assert levels_count(encodings([3] * 8, texture)).all()


@pytest.mark.parametrize("height", [8, 16])
def test_bits_per_code_are_of_codes_whether_or_not_a_clip_ends(height: int) -> None:
    model = untrained(patch=(height, 4))
    vocabulary = model.vocabulary
    assert vocabulary.slots == 16 // height
    prior = model.new_prior(PRIOR).eval()
    counts, levels = torch.tensor([2, 3, 5]), torch.zeros(3, dtype=torch.long)
    codes = torch.zeros(3, 1, vocabulary.rows, 5, dtype=torch.long)
    tokens, lengths = vocabulary.tokens(codes, counts, levels)
    lengths[1] -= 1  # cut from a recording, it has no END
    labels, complete = torch.zeros(3, 2, dtype=torch.long), torch.ones(3, 2, dtype=torch.bool)
    source = Encodings(tokens, lengths, labels, complete)
    with torch.no_grad():
        _, nats, _ = prior.loss(tokens.long(), lengths, labels, levels_count(source))
        found = validate_prior(prior, source)["bits_per_code"]
    assert found == pytest.approx(float(nats) / (10 * vocabulary.slots) / math.log(2))


@pytest.mark.parametrize(
    ("columns", "complete", "expected"),
    [
        # One of three longest hits begins, and rings on: so do new ones of that length.
        ([3, 3, 3, 1], [[1, 0], [0, 0], [0, 1], [1, 1]], (True, False)),
        # Two of three that begin end, too.
        ([3, 3, 3, 3], [[1, 1], [1, 1], [1, 0], [0, 0]], (True, True)),
        # A texture: few clips begin.
        ([3] * 8, [[1, 0]] + 7 * [[0, 0]], (False, False)),
        ([1, 2], [[1, 1], [1, 1]], (True, True)),
    ],
)
def test_the_longest_new_sounds_begin_and_end_as_most_clips_that_begin_so(
    columns: list[int], complete: list[list[int]], expected: tuple[bool, bool]
) -> None:
    source = encodings(columns, torch.tensor(complete, dtype=torch.bool))
    assert longest_complete(source, VOCABULARY) == expected


@pytest.mark.parametrize("rows", [1, 2])
def test_sizes_are_those_of_clips_that_are_as_long_as_new_sounds(rows: int) -> None:
    vocabulary = dataclasses.replace(VOCABULARY, rows=rows)
    prior = MaskedPrior(MaskedConfig(dim=8, cell=8, layers=1, heads=1), vocabulary, (2,))
    complete = torch.tensor([[1, 1], [0, 1], [1, 0], [1, 1], [1, 1]], dtype=torch.bool)
    counts, levels = torch.tensor([1, 2, 3, 2, 3]), torch.tensor([0, 1, 2, 1, 0])
    labels = torch.tensor([[0], [1], [1], [2], [0]])
    codes = torch.zeros(5, 1, rows, 3, dtype=torch.long)
    tokens, lengths = vocabulary.tokens(codes, counts, levels)
    # Where it is not known that a clip ends, END is not among its tokens; and of views only the first counts.
    lengths[3] -= 1
    source = Encodings(tokens, lengths, labels, complete)
    sizes = clip_sizes(source, 4, prior)
    assert sizes.tolist() == [[0, 1, 0], [1, 3, 2], [2, 2, 1]]
    many = Encodings(*(field[torch.zeros(3 * MOST_SIZES, dtype=torch.long)] for field in source))
    assert len(clip_sizes(many, 3 * MOST_SIZES, prior)) == MOST_SIZES
