"""Tests of `audiovq.context`: causal contexts, integer tables, rate-distortion search."""

import math

import numpy as np
import pytest
import torch

from audiovq.models.entropy.context_model import NEIGHBOURS, ContextModel, context_cells
from audiovq.models.entropy.context_tables import (
    EXPONENTIAL,
    LARGEST_COUNT,
    CodeGrid,
    ContextTables,
    to_integers,
    to_network,
)
from audiovq.models.entropy.rate_search import search

ROWS, COLUMNS, SIZE, DIM = 3, 5, 16, 4


def make_model(quantizers: int = 2) -> ContextModel:
    """An untrained network with no parameter at zero."""
    torch.manual_seed(quantizers)
    model = ContextModel(torch.randn(quantizers, SIZE, DIM), ROWS, hidden=24)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return model


def make_tables(quantizers: int = 2) -> ContextTables:
    levels, columns = torch.arange(1, 9), torch.arange(1, COLUMNS + 2)
    return ContextTables(to_integers(make_model(quantizers), levels, columns, 2.0, 0.1))


def make_codes(sounds: int = 4, quantizers: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(SIZE, (sounds, quantizers, ROWS, COLUMNS), generator=generator)
    num_columns = torch.tensor([COLUMNS, 2, 1, 4])[:sounds]
    return codes * (torch.arange(COLUMNS) < num_columns[:, None, None, None]), num_columns


def test_neighbours_precede_the_cell_in_time_order() -> None:
    assert all(column < 0 or (column == 0 and row < 0) for row, column in NEIGHBOURS)
    assert len(set(NEIGHBOURS)) == len(NEIGHBOURS)


def test_a_grid_filled_step_by_step_has_the_contexts_of_the_complete_one() -> None:
    codes, num_columns = make_codes()
    contexts, targets, rows = context_cells(codes, num_columns, SIZE)
    slots = [6 * 2, 6 * 2 + 1]
    grid = CodeGrid(4, 2, ROWS, COLUMNS, SIZE)
    seen: dict[tuple[int, int, int], np.ndarray] = {}
    for column in range(COLUMNS):
        sounds = np.flatnonzero(num_columns.numpy() > column)
        for row in range(ROWS):
            for q in range(2):
                for sound, context in zip(
                    sounds, grid.contexts(sounds, row, column, q), strict=True
                ):
                    seen[sound, row, column] = context
                    assert len(context) == slots[q]
                grid.set(sounds, row, column, q, codes[sounds, q, row, column].numpy())
    order = [
        (sound, row, column)
        for sound in range(4)
        for row in range(ROWS)
        for column in range(int(num_columns[sound]))
    ]
    assert rows.tolist() == [row for _, row, _ in order]
    np.testing.assert_array_equal(contexts.numpy(), np.stack([seen[cell] for cell in order]))
    expected = torch.stack([codes[sound, :, row, column] for sound, row, column in order])
    assert torch.equal(targets, expected)


def test_a_network_made_of_tables_gives_their_tables_again() -> None:
    model, tables = make_model(), make_tables()
    network = to_network(tables, model.codebooks)
    again = to_integers(network, torch.arange(1, 9), torch.arange(1, COLUMNS + 2), 2.0, 0.1)
    assert again.keys() == tables.integers.keys()
    for name, value in tables.integers.items():
        assert torch.equal(again[name], value), name


def test_integer_tables_match_the_network() -> None:
    model, tables = make_model(), make_tables()
    contexts, _, rows = context_cells(*make_codes(), SIZE)
    for q, slots in enumerate(model.slots):
        with torch.no_grad():
            expected = model(contexts[:, :slots], rows, q).softmax(dim=1).numpy()
        for row in range(ROWS):
            chosen = (rows == row).numpy()
            counts = tables.counts(contexts[chosen].numpy(), row, q)
            assert counts.dtype == np.int64
            assert counts.min() >= 1
            shares = counts / counts.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(shares, expected[chosen], rtol=0.2, atol=1e-4)
            divergence = (expected[chosen] * np.log(expected[chosen] / shares)).sum(axis=1)
            assert divergence.max() < 2e-3


def test_counts_of_a_cell_are_independent_of_other_cells() -> None:
    contexts, _, rows = context_cells(*make_codes(), SIZE)
    chosen = contexts[rows == 1].numpy()
    together = make_tables().counts(chosen, 1, 1)
    alone = [make_tables().counts(one[None], 1, 1)[0] for one in chosen]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_tables_are_restored_from_their_tensors() -> None:
    tables = make_tables()
    again = ContextTables({name: value.clone() for name, value in tables.integers.items()})
    contexts = context_cells(*make_codes(), SIZE)[0].numpy()
    np.testing.assert_array_equal(tables.counts(contexts, 0, 1), again.counts(contexts, 0, 1))
    assert again.level_counts == list(range(1, 9))
    assert again.column_counts == list(range(1, COLUMNS + 2))
    floats = [name for name, value in tables.integers.items() if value.is_floating_point()]
    assert floats == ["distortion", "rate_weight"]  # used by the search only


def test_no_exponential_is_near_a_rounding_boundary() -> None:
    exact = [LARGEST_COUNT * math.exp(-i / 64) for i in range(len(EXPONENTIAL))]
    assert min(abs(value % 1 - 0.5) for value in exact) > 1e-6
    assert EXPONENTIAL[0] == LARGEST_COUNT
    assert EXPONENTIAL[-1] == 1
    assert (np.diff(EXPONENTIAL) <= 0).all()


def make_search(quantizers: int = 2) -> tuple[ContextTables, np.ndarray, np.ndarray, list]:
    generator = np.random.default_rng(0)
    latents = generator.normal(size=(4, DIM, ROWS, COLUMNS)).astype(np.float32)
    embeddings = [
        generator.normal(size=(SIZE, DIM)).astype(np.float32) / (1 + q) for q in range(quantizers)
    ]
    return make_tables(quantizers), latents, np.array([COLUMNS, 2, 1, 4]), embeddings


def bits_and_distance(
    tables: ContextTables,
    codes: np.ndarray,
    latents: np.ndarray,
    columns: np.ndarray,
    codebooks: list,
) -> tuple[float, float]:
    """Bits in an archive, and squared distance, summed over all cells."""
    contexts, targets, rows = context_cells(
        torch.from_numpy(codes), torch.from_numpy(columns), SIZE
    )
    bits = 0.0
    for row in range(ROWS):
        chosen = (rows == row).numpy()
        for q in range(codes.shape[1]):
            counts = tables.counts(contexts[chosen].numpy(), row, q)
            taken = counts[np.arange(len(counts)), targets[chosen, q].numpy()]
            bits -= np.log2(taken / counts.sum(axis=1)).sum()
    decoded = sum(codebook[codes[:, q]] for q, codebook in enumerate(codebooks))
    squared = ((decoded.transpose(0, 3, 1, 2) - latents) ** 2).sum(axis=1)
    inside = np.arange(codes.shape[3]) < columns[:, None, None]
    return float(bits), float((squared * inside).sum())


def test_search_with_weight_0_takes_the_nearest_code() -> None:
    tables, latents, columns, codebooks = make_search(1)
    codes = search(tables, latents, columns, codebooks, 0.0)
    distances = ((latents[:, None] - codebooks[0][None, :, :, None, None]) ** 2).sum(axis=2)
    inside = np.arange(COLUMNS) < columns[:, None, None]
    np.testing.assert_array_equal(codes[:, 0], distances.argmin(axis=1) * inside)


def test_search_takes_tables_whose_distortion_is_0() -> None:
    tables, latents, columns, codebooks = make_search(1)
    tables = ContextTables(tables.integers | {"distortion": torch.zeros(())})
    latents[:] = codebooks[0][1][None, :, None, None]
    with np.errstate(all="raise"):
        codes = search(tables, latents, columns, codebooks, 1e-3)
    inside = np.arange(COLUMNS) < columns[:, None, None]
    np.testing.assert_array_equal(codes[:, 0], np.broadcast_to(inside, codes[:, 0].shape))


def test_beam_search_finds_less_distance_than_the_greedy_choice() -> None:
    tables, latents, columns, codebooks = make_search(2)
    found = search(tables, latents, columns, codebooks, 0.0)
    first = (
        ((latents[:, None] - codebooks[0][None, :, :, None, None]) ** 2).sum(axis=2).argmin(axis=1)
    )
    residual = latents - codebooks[0][first].transpose(0, 3, 1, 2)
    second = ((residual[:, None] - codebooks[1][None, :, :, None, None]) ** 2).sum(axis=2)
    greedy = np.stack([first, second.argmin(axis=1)], axis=1)
    _, near = bits_and_distance(tables, found, latents, columns, codebooks)
    _, nearest_each = bits_and_distance(tables, greedy, latents, columns, codebooks)
    assert near < nearest_each


@pytest.mark.parametrize("quantizers", [1, 2])
def test_a_higher_weight_gives_fewer_bits_and_more_distance(quantizers: int) -> None:
    tables, latents, columns, codebooks = make_search(quantizers)
    figures = [
        bits_and_distance(
            tables, search(tables, latents, columns, codebooks, weight), latents, columns, codebooks
        )
        for weight in (0.0, 0.3, 3.0)
    ]
    bits, distances = zip(*figures, strict=True)
    assert bits[0] > bits[1] > bits[2]
    assert distances[0] < distances[1] < distances[2]


def test_codes_of_a_sound_are_independent_of_other_sounds() -> None:
    tables, latents, columns, codebooks = make_search()
    together = search(tables, latents, columns, codebooks, 0.2)
    for sound, count in enumerate(columns):
        alone = search(
            tables, latents[sound : sound + 1, :, :, :count], columns[[sound]], codebooks, 0.2
        )
        np.testing.assert_array_equal(together[sound, :, :, :count], alone[0])
        assert not together[sound, :, :, count:].any()
