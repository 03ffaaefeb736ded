"""Tests of `audiovq.autoencoder`: sizes, batching with padding, losses, gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import changed, shake
from torch import Tensor

from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.errors import AudiovqError
from audiovq.models.autoencoder.autoencoder import RECONSTRUCTION_SCALE, Autoencoder
from audiovq.models.autoencoder.gaussian import NoBottleneck
from audiovq.models.autoencoder.networks import RowBias

ENCODERS = {
    "patch": {"patch": (4, 2)},
    "conv": {"filters": (4, 6, 5), "kernels": (3, 5, 3), "strides": (2, 1, 2)},
    "residual": {},
}
each_encoder = pytest.mark.parametrize("encoder", sorted(ENCODERS))
BOTTLENECKS: dict[str, dict[str, Any]] = {
    "vq": {},
    "none": {"bottleneck": "none"},
    "gaussian": {"bottleneck": "gaussian"},
    "fsq": {"bottleneck": "fsq", "levels": (3, 4), "num_quantizers": 1},
    "cosine": {"cosine": True, "num_quantizers": 1},
    "rotation": {"gradient_through": "rotation"},
    "sigmoid": {"output": "sigmoid", "loss": "cross_entropy"},
}
each_bottleneck = pytest.mark.parametrize("bottleneck", BOTTLENECKS)
each_code = pytest.mark.parametrize("bottleneck", ["vq", "fsq", "cosine", "sigmoid"])


def autoencoder(encoder: str, bins: int, **changes: Any) -> Autoencoder:
    """Small autoencoder with random weights throughout, in eval mode."""
    small: dict[str, Any] = {
        "channels": 6,
        "encoder_blocks": 2,
        "decoder_blocks": 2,
        "latent_dim": 3,
        "codebook_size": 8,
        "kmeans_start": False,
        "num_quantizers": 2,
    }
    config = changed(AutoencoderConfig(), network=encoder, **(small | ENCODERS[encoder] | changes))
    torch.manual_seed(0)
    made = Autoencoder(config, bins)
    shake(made)
    return made.eval()


def clips(bins: int, frames: list[int]) -> tuple[Tensor, Tensor]:
    """Padded random spectrograms of the given lengths, and these lengths."""
    generator = torch.Generator().manual_seed(sum(frames) + bins)
    images = torch.rand(len(frames), 1, bins, max(frames), generator=generator)
    num_frames = torch.tensor(frames)
    return images * (torch.arange(max(frames)) < num_frames[:, None])[:, None, None], num_frames


sizes = st.tuples(st.integers(1, 13), st.lists(st.integers(1, 11), min_size=1, max_size=3))


@each_bottleneck
@each_encoder
@settings(max_examples=8)
@given(size=sizes)
def test_output_has_the_input_size_and_batching_changes_no_clip(
    encoder: str, bottleneck: str, size: tuple[int, list[int]]
) -> None:
    bins, frames = size
    model = autoencoder(encoder, bins, **BOTTLENECKS[bottleneck])
    images, num_frames = clips(bins, frames)
    with torch.no_grad():
        together = model(images, num_frames)
        assert together.spectrogram.shape == images.shape
        # A batch's error is the mean over its clips, weighted by cells; the bottleneck's, by latents.
        columns = model.num_columns(num_frames).double()
        squared, committed = 0.0, 0.0
        for i, n in enumerate(frames):
            alone = model(images[i : i + 1, ..., :n], num_frames[i : i + 1])
            assert alone.spectrogram.shape == (1, 1, bins, n)
            torch.testing.assert_close(
                together.spectrogram[i, ..., :n], alone.spectrogram[0], atol=1e-5, rtol=1e-4
            )
            end = int(columns[i]) * model.stride[1]
            assert not together.spectrogram[i, ..., end:].any(), "padding stays zero"
            squared += alone.squared_error.item() * n / sum(frames)
            committed += alone.bottleneck_loss.item() * float(columns[i] / columns.sum())
        assert together.squared_error.item() == pytest.approx(squared, rel=1e-4)
        assert together.bottleneck_loss.item() == pytest.approx(committed, rel=1e-4, abs=1e-12)


@each_code
@each_encoder
@settings(max_examples=8)
@given(size=sizes)
def test_encode_and_decode_match_forward_for_any_size_and_batch(
    encoder: str, bottleneck: str, size: tuple[int, list[int]]
) -> None:
    bins, frames = size
    model = autoencoder(encoder, bins, **BOTTLENECKS[bottleneck])
    images, num_frames = clips(bins, frames)
    with torch.no_grad():
        codes = model.encode(images, num_frames)
        columns = model.num_columns(num_frames)
        decoded = model.decode(codes, columns)
        expected = model.apply_contrast(model(images, num_frames).spectrogram)
        strides = model.stride
        assert codes.shape == (
            len(frames),
            model.config.bottleneck.num_quantizers,
            -(-bins // strides[0]),
            -(-max(frames) // strides[1]),
        )
        assert decoded.shape == (len(frames), 1, bins, codes.shape[3] * strides[1])
        torch.testing.assert_close(
            decoded[..., : max(frames)], expected, atol=1e-5, rtol=1e-4, msg="decode after encode"
        )
        for i, n in enumerate(frames):
            c = -(-n // strides[1])
            assert int(columns[i]) == c
            alone = model.encode(images[i : i + 1, ..., :n], num_frames[i : i + 1])
            assert torch.equal(codes[i, ..., :c], alone[0])
            assert not codes[i, ..., c:].any()
            torch.testing.assert_close(
                decoded[i, ..., : c * strides[1]],
                model.decode(alone, columns[i : i + 1])[0],
                atol=1e-5,
                rtol=1e-4,
            )
            assert not decoded[i, ..., c * strides[1] :].any()


@each_encoder
def test_codes_in_the_padding_do_not_affect_the_clip(encoder: str) -> None:
    model = autoencoder(encoder, 12)
    columns = torch.tensor([2, 4])
    codes = torch.randint(8, (2, 2, model.rows, 4), generator=torch.Generator().manual_seed(0))
    other = codes.clone()
    other[0, ..., 2:] = (other[0, ..., 2:] + 1) % 8
    with torch.no_grad():
        assert torch.equal(model.decode(codes, columns), model.decode(other, columns))
        other[0, ..., 1] = (other[0, ..., 1] + 1) % 8
        assert not torch.equal(model.decode(codes, columns), model.decode(other, columns))


@each_bottleneck
@each_encoder
def test_loss_is_the_loudness_weighted_error_inside_the_clips(
    encoder: str, bottleneck: str
) -> None:
    model = autoencoder(encoder, 10, **BOTTLENECKS[bottleneck])
    images, num_frames = clips(10, [7, 11, 3])
    result = model(images, num_frames)
    made, wanted = result.spectrogram.detach().double().numpy(), images.double().numpy()
    cells = [(made[i, 0, :, :n] - wanted[i, 0, :, :n]).ravel() for i, n in enumerate((7, 11, 3))]
    squared = float((np.concatenate(cells) ** 2).mean())
    assert result.squared_error.item() == pytest.approx(squared, rel=1e-5)
    inside = np.concatenate([wanted[i, 0, :, :n].ravel() for i, n in enumerate((7, 11, 3))])
    weights = 0.02 + 0.98 * 10 ** (1.84 * (inside - 1))
    weighted = float((np.concatenate(cells) ** 2 * weights).sum() / weights.sum())
    assert result.weighted_error.item() == pytest.approx(weighted, rel=1e-5)
    expected = RECONSTRUCTION_SCALE * weighted
    if bottleneck == "sigmoid":
        made_inside = np.concatenate([made[i, 0, :, :n].ravel() for i, n in enumerate((7, 11, 3))])
        entropy = -inside * np.log(made_inside) - (1 - inside) * np.log(1 - made_inside)
        expected = float((entropy * weights).sum() / weights.sum())
    assert result.reconstruction_loss.item() == pytest.approx(expected, rel=1e-5)
    expected += result.bottleneck_loss.item()
    assert result.loss.item() == pytest.approx(expected, rel=1e-5)
    assert (result.bottleneck_loss.item() > 0) == (bottleneck not in ("none", "fsq"))


def test_without_emphasis_all_cells_have_equal_weight() -> None:
    model = autoencoder("patch", 10, emphasis=0.0)
    result = model(*clips(10, [7, 11, 3]))
    assert result.weighted_error.item() == pytest.approx(result.squared_error.item(), rel=1e-5)


@pytest.mark.parametrize("frames", [[24, 11, 3], [8], [5]])
def test_the_power_error_is_that_of_areas_inside_the_clips(frames: list[int]) -> None:
    model = autoencoder("patch", 10, power=4.0)
    images, num_frames = clips(10, frames)
    result = model(images, num_frames)
    made = result.spectrogram.detach().double().clamp(-0.1, 1.2).numpy()
    wanted = images.double().numpy()
    errors, weights = [], []
    for clip, length in enumerate(frames):
        for low in range(0, 10 - 4 + 1, 2):
            for first in range(0, length - 8 + 1, 4):
                of_made, of_wanted = (
                    1 + np.log10(1e-8 + np.mean(10 ** (8 * (area - 1)))) / 8
                    for area in (
                        x[clip, 0, low : low + 4, first : first + 8] for x in (made, wanted)
                    )
                )
                errors.append((of_made - of_wanted) ** 2)
                weights.append(0.02 + 0.98 * 10 ** (0.6 * (of_wanted - 1)))
    expected = np.average(errors, weights=weights) if errors else 0.0
    total = RECONSTRUCTION_SCALE * (result.weighted_error.item() + 4 * expected)
    assert result.reconstruction_loss.item() == pytest.approx(total, rel=1e-4)


def test_gradients_are_finite_where_no_clip_holds_an_area() -> None:
    model = autoencoder("patch", 10, power=1.0).train()
    model(*clips(10, [5, 3])).loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_a_mean_of_decibels_has_less_power_than_what_it_is_the_mean_of() -> None:
    model = autoencoder("patch", 8, power=4.0)
    noise = torch.rand(1, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    cells = torch.ones(1, 1, 1, 16)
    mean = noise.mean().expand_as(noise)
    louder = torch.full_like(noise, 1 + float((10 ** (8 * (noise - 1))).mean().log10()) / 8)
    assert model.power_error(noise, noise, cells) == 0
    assert model.power_error(louder, noise, cells) < 0.2 * model.power_error(mean, noise, cells)
    assert (louder - noise).square().mean() > (mean - noise).square().mean()


def test_contrast_stretches_values_below_1_and_keeps_silence() -> None:
    model = autoencoder("patch", 10, contrast=1.1)
    values = torch.tensor([0.0, 0.05, 0.5, 1.0, 1.2])
    torch.testing.assert_close(
        model.apply_contrast(values), torch.tensor([0.0, 0.0, 0.45, 1.0, 1.0])
    )


def test_loudness_up_to_the_silence_of_the_settings_is_silence_before_the_contrast() -> None:
    model = autoencoder("patch", 10, contrast=0.8, silence=0.1)
    values = torch.tensor([-0.1, 0.0, 0.05, 0.1, 0.15, 1.0])
    torch.testing.assert_close(
        model.apply_contrast(values), torch.tensor([0.0, 0.0, 0.0, 0.0, 0.32, 1.0])
    )
    torch.testing.assert_close(  # as of another decoder
        model.apply_contrast(values, 1.0), torch.tensor([0.0, 0.0, 0.05, 0.1, 0.15, 1.0])
    )


@each_encoder
def test_frozen_codes_stay_as_they_are_in_training(encoder: str) -> None:
    model, (images, num_frames) = autoencoder(encoder, 12), clips(12, [8, 11])
    codes = model.encode(images, num_frames)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.freeze_codes()
    model.train()
    model(images, num_frames).loss.backward()
    assert model.decoder.training
    for name, value in model.state_dict().items():
        assert name.startswith("decoder") or torch.equal(value, before[name]), name
    assert torch.equal(model.encode(images, num_frames), codes), "in training too"
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("decoder"), name


@each_encoder
def test_codebook_statistics_exclude_padding(encoder: str) -> None:
    model = autoencoder(encoder, 12).train()
    images, num_frames = clips(12, [1, 11])
    model(images, num_frames)
    columns = int(model.num_columns(num_frames).sum())
    for codebook in model.bottleneck.codebooks():
        assert float(codebook.usage.sum()) == model.rows * columns


@each_encoder
@pytest.mark.parametrize("bottleneck", [*BOTTLENECKS, "gradient"])
def test_gradients_reach_every_parameter(encoder: str, bottleneck: str) -> None:
    model = autoencoder(encoder, 12, **BOTTLENECKS.get(bottleneck, {"update": "gradient"})).train()
    images, num_frames = clips(12, [9, 11])
    model(images, num_frames).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name
        assert bool(parameter.grad.isfinite().all()), name


@each_encoder
def test_only_row_biases_distinguish_rows(encoder: str) -> None:
    bins = 96
    model = autoencoder(encoder, bins, bottleneck="none")
    if encoder == "conv":
        for part in (
            model.modules()
        ):  # zeros stay zeros inside: border effects reach no further than the kernels
            if isinstance(part, torch.nn.BatchNorm2d):
                part.reset_running_stats()
    step = model.stride[0]
    num_frames = torch.tensor([48])
    constant = torch.full((1, 1, bins, 48), 0.5)

    def differs() -> bool:
        with torch.no_grad():
            output = model(constant, num_frames).spectrogram[0, 0, :, 22:26]
        middle = bins // 2 // step * step
        low, high = output[middle : middle + step], output[middle + step : middle + 2 * step]
        return not torch.allclose(low, high, atol=1e-4)

    assert differs(), "the same sound an octave up must not look the same"
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, RowBias):
                part.bias.zero_()
    assert not differs(), "away from the borders only the biases may distinguish rows"


def test_patch_networks_are_equivariant_to_shifts_by_whole_codes() -> None:
    model = autoencoder("patch", 12, num_quantizers=1)
    images, num_frames = clips(12, [40])
    moved = torch.cat([torch.zeros(1, 1, 12, 6), images], dim=3)
    with torch.no_grad():
        codes = model.encode(images, num_frames)
        moved_codes = model.encode(moved, num_frames + 6)
        output = model(images, num_frames).spectrogram
        moved_output = model(moved, num_frames + 6).spectrogram
        off_grid = model(moved[..., 1:], num_frames + 5).spectrogram
    # Each block adds a column of receptive field per side: 2 to the codes, 4 (8 frames) to the output.
    assert torch.equal(moved_codes[..., 3 + 2 :], codes[..., 2:])
    torch.testing.assert_close(moved_output[..., 6 + 8 :], output[..., 8:], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(off_grid[..., 5 + 8 :], output[..., 8:], atol=1e-2)


def test_without_blocks_patches_are_independent() -> None:
    model = autoencoder("patch", 10, bottleneck="none", encoder_blocks=0, decoder_blocks=0)
    images, num_frames = clips(10, [6])
    with torch.no_grad():
        before = model(images, num_frames).spectrogram
        for row in range(10):
            for frame in range(6):
                other = images.clone()
                other[0, 0, row, frame] += 0.5
                changed = (model(other, num_frames).spectrogram != before)[0, 0].nonzero()
                patches = {(r // 4, f // 2) for r, f in changed.tolist()}
                assert patches == {(row // 4, frame // 2)}


def test_outputs_are_float32_under_autocast() -> None:
    for encoder in ENCODERS:
        model = autoencoder(encoder, 12)
        images, num_frames = clips(12, [9, 11])
        with torch.no_grad():
            expected = model(images, num_frames)
            with torch.autocast("cpu", torch.bfloat16):
                result = model(images, num_frames)
                decoded = model.decode(
                    model.encode(images, num_frames), model.num_columns(num_frames)
                )
        assert result.spectrogram.dtype == result.loss.dtype == decoded.dtype == torch.float32
        assert result.squared_error.item() == pytest.approx(expected.squared_error.item(), rel=0.3)


@each_encoder
@pytest.mark.parametrize("bottleneck", ["none", "gaussian"])
def test_encode_and_decode_raise_without_a_quantizer(encoder: str, bottleneck: str) -> None:
    model = autoencoder(encoder, 12, bottleneck=bottleneck)
    images, num_frames = clips(12, [9])
    with pytest.raises(AudiovqError, match=f"bottleneck {bottleneck}.*no codes"):
        model.encode(images, num_frames)
    with pytest.raises(AudiovqError, match="no codes"):
        model.decode(torch.zeros(1, 1, model.rows, 2, dtype=torch.long), torch.tensor([2]))


def test_a_short_training_beats_the_best_constant() -> None:
    torch.manual_seed(0)
    config = changed(
        autoencoder("patch", 8).config,
        channels=16,
        latent_dim=8,
        codebook_size=32,
        decay=0.9,
        kmeans_start=True,
    )
    model = Autoencoder(config, 8)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(16), indexing="ij")
    shifts = torch.arange(16)[:, None, None]
    images = (0.5 + 0.5 * torch.sin(rows + 0.5 * columns + shifts))[:, None]
    num_frames = torch.full((16,), 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        model(images, num_frames).loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = model.eval()(images, num_frames).squared_error.item()
    assert error < 0.1 * images.var().item()


@each_encoder
@pytest.mark.parametrize("bottleneck", ["none", "gaussian"])
def test_dense_latents_are_one_vector_for_clips_of_any_length(
    encoder: str, bottleneck: str
) -> None:
    torch.manual_seed(0)
    config = changed(autoencoder(encoder, 10, bottleneck=bottleneck).config, dense=2)
    model = Autoencoder(config, 10, clip_frames=9)
    shake(model)
    model.eval()
    longest = model.columns * model.stride[1]
    images, num_frames = clips(10, [5, 9, longest + 4])
    with torch.no_grad():
        result = model(images, num_frames)
        latents = model.latents(images, num_frames)
        assert latents.shape == (3, 2)
        assert result.spectrogram.shape == images.shape
        assert not result.spectrogram[..., longest:].any()
        columns = model.num_columns(num_frames).clamp(max=model.columns)
        made = model.decode_latents(latents, columns)
        assert made.shape == (3, 1, 10, longest)
        torch.testing.assert_close(
            made, model.apply_contrast(result.spectrogram[..., :longest]), atol=1e-5, rtol=1e-4
        )
        cut = model(images[..., :longest], num_frames.clamp(max=longest))
        assert torch.equal(cut.loss, result.loss), "frames that are cut off count in no loss"
        alone = model(images[:1, ..., :5], num_frames[:1]).spectrogram
        torch.testing.assert_close(result.spectrogram[:1, ..., :5], alone, atol=1e-5, rtol=1e-4)
    model.train()(images, num_frames).loss.backward()
    assert all(bool(p.grad.any()) for p in model.dense.parameters())


@each_encoder
def test_decoded_gaussian_latents_match_forward(encoder: str) -> None:
    model = autoencoder(encoder, 12, bottleneck="gaussian")
    images, num_frames = clips(12, [9, 11])
    with torch.no_grad():
        latents = model.latents(images, num_frames)
        made = model.decode_latents(latents, model.num_columns(num_frames))
        expected = model.apply_contrast(model(images, num_frames).spectrogram)
    assert latents.shape[:2] == (2, 3)
    torch.testing.assert_close(made[..., :11], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dense", [None, 2])
@each_encoder
def test_gaussian_samples_depend_on_label_and_seed(encoder: str, dense: int | None) -> None:
    torch.manual_seed(0)
    plain = autoencoder(encoder, 10, bottleneck="gaussian").config
    config = changed(plain, conditional=True, dense=dense)
    model = Autoencoder(config, 10, label_sizes=(2, 3), clip_frames=9)
    shake(model)
    for mean in model.bottleneck.means:
        mean.weight.data[:-1] += 1  # `shake` changes "no label" too
        mean.weight.data[-1] = 0
    model.eval()

    def draw(labels: list[list[int]] | None, seed: int = 0) -> Tensor:
        rows = None if labels is None else torch.tensor(labels)
        with torch.no_grad():
            return model.sample(2, rows, torch.Generator().manual_seed(seed))

    made = draw([[0, 1], [1, 2]])
    assert made.shape == (2, 1, 10, model.columns * model.stride[1])
    assert bool(((made >= 0) & (made <= 1)).all())
    assert torch.equal(made, draw([[0, 1], [1, 2]]))
    assert not torch.equal(made, draw([[0, 1], [1, 2]], seed=1))
    other = draw([[0, 1], [1, 0]])
    torch.testing.assert_close(made[0], other[0])
    assert not torch.allclose(made[1], other[1]), "another label gives another sound"
    torch.testing.assert_close(draw(None), draw([[2, 3], [2, 3]]))


def test_sample_raises_without_a_gaussian() -> None:
    for bottleneck in ("vq", "none"):
        with pytest.raises(AudiovqError, match=f"bottleneck {bottleneck}"):
            autoencoder("patch", 8, bottleneck=bottleneck).sample(1)


@each_encoder
def test_latents_are_projected_with_a_quantizer_or_without(encoder: str) -> None:
    for bottleneck in ("cosine", "fsq"):
        model = autoencoder(encoder, 12, **BOTTLENECKS[bottleneck])
        images, num_frames = clips(12, [9, 11])
        with torch.no_grad():
            latents = model.latents(images, num_frames)
            columns = model.num_columns(num_frames)
            inside = torch.arange(latents.shape[3]) < columns[:, None]
            vectors = latents.permute(0, 3, 2, 1)[inside]
            if bottleneck == "cosine":
                torch.testing.assert_close(vectors.norm(dim=2), torch.ones_like(vectors[..., 0]))
            else:
                assert float(vectors.abs().max()) < 1.01
            model.bottleneck = NoBottleneck()
            past = model.apply_contrast(model(images, num_frames).spectrogram)
            made = model.decode_latents(latents, columns)[..., :11]
        torch.testing.assert_close(made, past, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("corruption", ["noise", "mask"])
def test_corruption_applies_in_training_only_and_depends_on_the_seed(
    corruption: Any,
) -> None:
    model = autoencoder("patch", 12, bottleneck="none", corruption=corruption)
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images, num_frames = clips(12, [200, 120])
    with torch.no_grad():
        model(images, num_frames)
        model.train()
        losses = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            losses.append(model(images, num_frames).loss)
        assert losses[0] == losses[1] != losses[2]
    assert torch.equal(seen[0], images), "unchanged in eval"
    assert not seen[1][1, ..., 120:].any(), "no corruption in the padding"
    inside = images > 0
    changed = (seen[1] - images)[inside]
    if corruption == "mask":
        assert set(torch.unique(seen[1][inside] / images[inside]).tolist()) == {0.0, 1.0}
        assert float((changed != 0).float().mean()) == pytest.approx(0.1, abs=0.02)
    else:
        assert float(changed.std()) == pytest.approx(0.1, abs=0.01)
        assert float(changed.mean()) == pytest.approx(0, abs=0.01)
    assert not torch.equal(losses[0], losses[2])


def test_the_target_of_a_corrupted_input_is_the_clean_one() -> None:
    model = autoencoder("patch", 12, bottleneck="none", corruption="mask", corruption_strength=1.0)
    images, num_frames = clips(12, [20])
    result = model.train()(images, num_frames)
    error = (result.spectrogram - images).square().mean()
    assert result.squared_error.item() == pytest.approx(error.item(), rel=1e-5)
    silent = model(torch.zeros_like(images), num_frames).spectrogram
    assert torch.equal(result.spectrogram, silent), "the whole input was masked"
