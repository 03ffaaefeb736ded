"""Row mixing: rows see each other, columns and groups of channels do not."""

import pytest
import torch

from audiovq.config.autoencoder import NetworkConfig
from audiovq.config.errors import AudiovqError
from audiovq.models.autoencoder.networks import PatchDecoder, RowMixing

GROUPS, ROWS, BATCH, CHANNELS, COLUMNS = 2, 5, 3, 8, 4


def mixing() -> RowMixing:
    made = RowMixing(GROUPS, ROWS)
    torch.nn.init.normal_(made.weight, generator=torch.Generator().manual_seed(0))
    return made


def latents() -> torch.Tensor:
    return torch.randn(
        BATCH, CHANNELS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()


def test_row_mixing_adds_the_sum_over_rows_of_each_group() -> None:
    part, x = mixing(), latents()
    expected = torch.empty_like(x)
    for group in range(GROUPS):
        channels = slice(group * CHANNELS // GROUPS, (group + 1) * CHANNELS // GROUPS)
        sums = torch.einsum("bcrw,sr->bcsw", x[:, channels], part.weight[group])
        expected[:, channels] = x[:, channels] + sums
    torch.testing.assert_close(part(x), expected)
    last = x.detach().to(memory_format=torch.channels_last)
    torch.testing.assert_close(part(last), expected.detach())


def test_a_cell_depends_on_all_rows_of_its_column_and_channel_alone() -> None:
    x = latents()
    mixing()(x)[1, 2, 3, 0].backward()
    assert x.grad is not None
    assert x.grad[1, 2, :, 0].all()
    x.grad[1, 2, :, 0] = 0
    assert not x.grad.any()


def test_row_mixing_is_the_identity_at_initialisation() -> None:
    x = latents()
    torch.testing.assert_close(RowMixing(GROUPS, ROWS)(x), x, rtol=0, atol=0)


@pytest.mark.parametrize(("groups", "reach"), [(0, 3), (4, ROWS)])
def test_one_block_with_row_mixing_sees_every_row(groups: int, reach: int) -> None:
    config = NetworkConfig(channels=CHANNELS, decoder_blocks=1, patch=(1, 1), row_mixing=groups)
    decoder = PatchDecoder(config, CHANNELS, ROWS)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    x = latents()
    decoder(x, torch.ones(BATCH, 1, 1, COLUMNS))[0, 0, 2, 0].backward()
    assert x.grad is not None
    assert int(x.grad[0].abs().sum(dim=(0, 2)).ne(0).sum()) == reach


@pytest.mark.parametrize("groups", [-1, 3])
def test_groups_that_do_not_divide_the_channels_are_refused(groups: int) -> None:
    with pytest.raises(AudiovqError, match=rf"^row_mixing {groups}: give 0, or a divisor"):
        NetworkConfig(channels=CHANNELS, row_mixing=groups)
