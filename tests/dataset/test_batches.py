"""Laws of the views of clips that priors learn from."""

import pytest
import torch

from audiovq.dataset.batches import (
    ONSET_FRAMES,
    SPEED,
    equalize,
    excerpts,
    random_variations,
    shift_and_stretch,
)
from audiovq.dataset.dataset import Dataset


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.3])
def test_the_onset_of_a_stretched_clip_is_left_as_it_is(dataset: Dataset, speed: float) -> None:
    split, indices = dataset.train, torch.arange(4)
    clips, frames = split.spectrograms(indices), split.num_frames[indices]
    zeros, speeds = torch.zeros(4, dtype=torch.long), torch.full((4,), speed)
    views, played = shift_and_stretch(split, indices, zeros, speeds, onset=5)
    assert torch.equal(views[..., :6], clips[..., :6])
    expected = 6 + ((frames - 6) / speed).floor().long()
    assert torch.equal(played, expected)


def test_a_clip_no_longer_than_its_onset_is_not_stretched(dataset: Dataset) -> None:
    split, indices = dataset.train, torch.arange(4)
    zeros, half = torch.zeros(4, dtype=torch.long), torch.full((4,), 0.5)
    views, frames = shift_and_stretch(split, indices, zeros, half, onset=10_000)
    assert torch.equal(frames, split.num_frames[indices])
    assert torch.equal(views, split.spectrograms(indices)[..., : views.shape[3]])


def test_variations_begin_where_their_recordings_do(dataset: Dataset) -> None:
    split, indices = dataset.train, torch.arange(len(dataset.train))
    assert bool(split.complete[indices, 0].all())
    clips, frames = split.spectrograms(indices), split.num_frames[indices]
    generator = torch.Generator().manual_seed(0)
    views, played = random_variations(split, indices, generator, 4, 80.0)
    first = slice(0, ONSET_FRAMES)
    sounding = views[..., first] > 0
    assert bool((sounding <= (clips[..., first] > 0)).all())
    assert bool((sounding >= (clips[..., first] > 0.3)).all())
    ratio = (played - ONSET_FRAMES) / (frames - ONSET_FRAMES)
    assert bool(((ratio >= 1 / (1 + SPEED) - 0.1) & (ratio <= 1 / (1 - SPEED) + 0.1)).all())
    assert (views[..., : clips.shape[3]] != clips[..., : views.shape[3]]).any()


def test_a_rank_makes_its_part_of_the_variations_of_a_batch(dataset: Dataset) -> None:
    split, indices = dataset.train, torch.arange(6)
    together, frames = random_variations(split, indices, torch.Generator().manual_seed(1), 4, 80.0)
    part = slice(2, 4)
    views, played = random_variations(
        split, indices, torch.Generator().manual_seed(1), 4, 80.0, part
    )
    assert torch.equal(played, frames[part])
    assert torch.equal(views, together[part, ..., : views.shape[3]])


def test_an_equalizer_keeps_the_loudest_cell_and_silence_and_opposite_gains_undo_it() -> None:
    generator = torch.Generator().manual_seed(0)
    images = 0.3 + 0.6 * torch.rand(3, 1, 16, 9, generator=generator)
    images[:, :, 5, 5] = 1.0
    images[:, :, :, 7:] = 0.0
    gains = torch.randn(3, 4, generator=generator)
    louder = equalize(images, gains, 80.0)
    assert louder.amax(dim=(1, 2, 3)).tolist() == pytest.approx([1.0] * 3)
    assert torch.equal(louder > 0, images > 0)
    assert (louder != images).any()
    torch.testing.assert_close(equalize(louder, -gains, 80.0), images)
    torch.testing.assert_close(equalize(images, torch.zeros(3, 4), 80.0), images)


def test_excerpts_are_stretches_of_their_clips_that_begin_with_a_column() -> None:
    frames = torch.tensor([40, 12, 33, 40])
    images = torch.arange(1.0, 41).expand(4, 1, 3, 40) * (
        torch.arange(40) < frames[:, None, None, None]
    )
    found, counts = excerpts(images, frames, torch.tensor([0.2, 0.9, 0.999, 0.75]), 4, 5)
    assert found.shape == (4, 1, 3, 20)
    begins = (found[:, 0, 0, 0] - 1).tolist()
    assert begins == [0, 0, 12, 12]
    assert counts.tolist() == [20, 12, 20, 20]
    for i, begin in enumerate(map(int, begins)):
        assert torch.equal(found[i, ..., : counts[i]], images[i, ..., begin : begin + counts[i]])


def test_short_clips_are_their_own_excerpts() -> None:
    images, frames = torch.rand(2, 1, 3, 20), torch.tensor([20, 7])
    found, counts = excerpts(images, frames, torch.tensor([0.1, 0.9]), 4, 5)
    assert found is images
    assert counts is frames
