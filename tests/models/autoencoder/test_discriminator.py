"""Laws of the discriminator and its losses."""

import pytest
import torch

from audiovq.config.settings import DiscriminatorConfig
from audiovq.models.autoencoder.discriminator import (
    Discriminator,
    Judgement,
    adversarial_loss,
    feature_loss,
    halves,
    hinge_loss,
    share_right,
)

CONFIG = DiscriminatorConfig(channels=4, scales=2)


def spectrograms(batch: int = 3, frames: int = 22) -> torch.Tensor:
    return torch.rand(batch, 1, 16, frames, generator=torch.Generator().manual_seed(0))


def scored(value: float) -> list[Judgement]:
    return [Judgement(torch.full((2, 1, 4, 11), value), [])]


CELLS = torch.ones(2, 1, 1, 22)


def test_the_discriminator_judges_each_clip_as_it_would_alone() -> None:
    torch.manual_seed(0)
    made, batch = Discriminator(CONFIG), spectrograms()
    together = made(batch)
    for i in range(len(batch)):
        for scale, alone in zip(together, made(batch[i : i + 1]), strict=True):
            torch.testing.assert_close(scale.scores[i : i + 1], alone.scores)


def test_each_scale_scores_patches_of_half_the_resolution() -> None:
    first, second = Discriminator(CONFIG)(spectrograms(frames=64))
    assert first.scores.shape == (3, 1, 4, 32)
    assert second.scores.shape == (3, 1, 2, 16)


def test_clips_shorter_than_a_patch_have_a_judgement_of_each_scale() -> None:
    for frames in (1, 6):
        judgements = Discriminator(DiscriminatorConfig(channels=4, scales=4))(
            spectrograms(frames=frames)
        )
        assert all(0 < j.scores.shape[3] <= frames for j in judgements)


def test_a_discriminator_that_is_right_by_a_margin_has_no_loss_and_one_without_opinion_has_two() -> (
    None
):
    assert float(hinge_loss(scored(1.5), scored(-1.5), CELLS)) == 0
    assert float(hinge_loss(scored(0.0), scored(0.0), CELLS)) == 2
    assert float(hinge_loss(scored(-1.0), scored(1.0), CELLS)) == 4


def test_a_decoder_gains_where_its_patches_are_taken_for_recorded_ones() -> None:
    assert float(adversarial_loss(scored(2.0), CELLS)) == -2


def test_the_share_of_patches_taken_for_what_they_are_is_counted() -> None:
    assert float(share_right(scored(0.3), CELLS, recorded=True)) == 1
    assert float(share_right(scored(0.3), CELLS, recorded=False)) == 0


def test_padding_has_no_part_in_any_loss() -> None:
    cells = torch.ones(2, 1, 1, 22)
    cells[1, ..., 10:] = 0
    for scores in (scored(0.2), scored(-0.4)):
        spoiled = [Judgement(j.scores.clone(), []) for j in scores]
        spoiled[0].scores[1, ..., 5:] = 1e6
        for loss in (
            lambda x: adversarial_loss(x, cells),
            lambda x: hinge_loss(x, scored(0.0), cells),
            lambda x: share_right(x, cells, recorded=True),
        ):
            assert float(loss(spoiled)) == pytest.approx(float(loss(scores)))


def test_features_are_matched_with_those_of_the_recording_which_get_no_gradient() -> None:
    torch.manual_seed(0)
    made = Discriminator(CONFIG)
    recorded, decoded = spectrograms().requires_grad_(), spectrograms().flip(0).requires_grad_()
    cells = torch.ones(3, 1, 1, 22)
    assert float(feature_loss(made(recorded), made(recorded), cells).detach()) == 0
    loss = feature_loss(made(recorded), made(decoded), cells)
    assert float(loss.detach()) > 0
    loss.backward()
    assert recorded.grad is None
    assert decoded.grad is not None
    assert decoded.grad.abs().sum() > 0


def test_halves_of_a_joint_batch_are_the_judgements_of_its_parts() -> None:
    torch.manual_seed(0)
    made, one, two = Discriminator(CONFIG), spectrograms(), 1 - spectrograms()
    for found, part in zip(halves(made(torch.cat([one, two]))), (one, two), strict=True):
        for half, alone in zip(found, made(part), strict=True):
            torch.testing.assert_close(half.scores, alone.scores)
            for a, b in zip(half.features, alone.features, strict=True):
                torch.testing.assert_close(a, b)
