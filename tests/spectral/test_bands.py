"""Tests of mel bands: products by block, gains and fits; and that Griffin-Lim brings the bands about."""

import numpy as np
import pytest
import torch
from torch import Tensor

from audiovq.config.sampling import Inversion
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.spectral.bands import Bands
from audiovq.spectral.griffin_lim import grain, griffin_lim, random_phase
from audiovq.spectral.pghi import pghi
from audiovq.spectral.scale import mel_filters
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.spectral.stft import num_frames, stft

GRIDS = (
    (8000, 256, 64),
    (16_000, 512, 80),
    (44_100, 2048, 128),
    (44_100, 1024, 96),
    (48_000, 2048, 256),
)
grids = pytest.mark.parametrize("grid", GRIDS, ids=str)


def bank(grid: tuple[int, int, int]) -> Bands:
    rate, n_fft, n_mels = grid
    return Bands(mel_filters(SpectrogramConfig(rate, n_fft, n_fft // 4, n_mels)))


def positive(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) + 0.01


@grids
def test_blocks_give_the_products_of_whole_matrices(grid: tuple[int, int, int]) -> None:
    bands = bank(grid)
    count, bins = bands.filters.shape
    magnitude, values = positive(40, bins), positive(40, count)
    torch.testing.assert_close(bands.sums(magnitude), magnitude @ bands.filters.T)
    torch.testing.assert_close(bands.spread(values), values @ bands.shares, rtol=1e-5, atol=1e-6)
    shares = bands.shares.sum(dim=0)
    covered = bands.filters.sum(dim=0) > 1e-6
    torch.testing.assert_close(shares[covered], torch.ones(int(covered.sum())))
    assert float(shares[~covered].max()) < 1e-6


@grids
def test_a_row_gets_the_same_bits_alone_and_among_others(grid: tuple[int, int, int]) -> None:
    bands = bank(grid)
    count, bins = bands.filters.shape
    magnitude, wanted = positive(300, bins), positive(300, count)
    gain, fit = bands.gain(magnitude, wanted), bands.fit(wanted)
    for rows in (1, 2, 5, 31, 100):
        assert torch.equal(bands.gain(magnitude[:rows], wanted[:rows]), gain[:rows])
        assert torch.equal(bands.fit(wanted[:rows]), fit[:rows])


@grids
def test_a_gain_changes_nothing_where_the_bands_are_right_and_brings_them_closer_elsewhere(
    grid: tuple[int, int, int],
) -> None:
    bands = bank(grid)
    magnitude, target = positive(20, bands.filters.shape[1]), positive(20, len(bands.filters))
    covered = bands.filters.sum(dim=0) > 1e-6
    kept = bands.gain(magnitude, bands.sums(magnitude))
    torch.testing.assert_close(
        kept[:, covered], torch.ones_like(kept[:, covered]), rtol=1e-4, atol=0
    )
    errors = []
    for _ in range(30):
        errors.append(float((bands.sums(magnitude) - target).norm()))
        magnitude = magnitude * bands.gain(magnitude, target)
    assert errors[-1] < 0.5 * errors[0]
    assert not bands.gain(magnitude, torch.zeros_like(target)).any()


@grids
def test_a_fit_has_the_bands_of_a_smooth_spectrum(grid: tuple[int, int, int]) -> None:
    bands = bank(grid)
    slope = torch.linspace(1, 0.01, bands.filters.shape[1]).repeat(3, 5, 1)
    wanted = slope @ bands.filters.T
    fit = bands.fit(wanted)
    assert fit.shape == slope.shape
    assert fit.min() >= 0
    torch.testing.assert_close(fit @ bands.filters.T, wanted, rtol=0.02, atol=1e-3)
    assert not bands.fit(torch.zeros_like(wanted)).any()


def test_roughness_is_the_larger_the_wider_the_bands() -> None:
    one_each = Bands(np.eye(4, dtype=np.float32))
    assert not one_each.roughness().any()
    pairs = Bands(np.repeat(np.eye(2, dtype=np.float32), 2, axis=1) / 2)
    torch.testing.assert_close(pairs.roughness(), torch.full((4,), 0.5))
    roughness = bank((44_100, 2048, 128)).roughness()[4:-4]
    assert roughness[-1] > 0.9 > roughness[0]


def test_grain_has_the_magnitudes_of_white_noise() -> None:
    magnitude = torch.zeros(1, 129, 200)
    phase = random_phase(magnitude, None)
    grained = grain(phase)
    noise = torch.randn(1, 129 * 200 * 2, generator=torch.Generator().manual_seed(1))
    expected = torch.view_as_complex(noise.view(-1, 2)).abs()
    expected /= expected.mean()
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert float(grained.quantile(share)) == pytest.approx(
            float(expected.quantile(share)), abs=0.03
        )
    together = torch.corrcoef(torch.stack([grained.flatten(), phase.abs().flatten()]))
    assert abs(float(together[0, 1])) < 0.03


@pytest.mark.parametrize("rate", [8000, 44_100])
def test_griffin_lim_brings_about_the_bands_of_noise_and_of_tones(rate: int) -> None:
    """The sum in each band of the result's own STFT, against what a smooth magnitude gives."""
    config = SpectrogramConfig.for_rate(rate)
    spectrogram = Spectrogram(config)
    bands, grid = spectrogram.bands, (config.n_fft, config.hop_length)
    assert bands is not None
    length = rate // 2
    generator = torch.Generator().manual_seed(0)
    tone = torch.sin(torch.arange(length) * 0.1)
    waveform = (0.1 * torch.randn(length, generator=generator) + 0.3 * tone)[None]
    num_samples = torch.tensor([length])
    magnitude = stft(waveform, *grid).abs() / config.n_fft
    wanted = bands.filters @ magnitude
    fitted = bands.fit(wanted.transpose(1, 2)).transpose(1, 2)

    def error(made: Tensor) -> float:
        own = bands.filters @ stft(made, *grid).abs()
        floor = 1e-3 * wanted.max()
        return float((own.clamp_min(floor) / wanted.clamp_min(floor)).log10().abs().mean())

    start = pghi(fitted, *grid, num_samples)
    errors = [
        error(griffin_lim(fitted, *grid, num_samples, n_iter=48, phase=start, **held))
        for held in ({}, {"bands": bands, "wanted": wanted})
    ]
    print(errors)
    assert errors[1] < 0.7 * errors[0]


def test_wanted_bands_are_checked() -> None:
    bands = bank(GRIDS[0])
    magnitude, num_samples = torch.ones(1, 129, 5), torch.tensor([256])
    for wanted, message in (
        (None, "bands and wanted"),
        (torch.ones(1, 63, 5), r"wanted must be \(1, 64, 5\)"),
        (-torch.ones(1, 64, 5), "finite and at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            griffin_lim(magnitude, 256, 64, num_samples, bands=bands, wanted=wanted)


def test_a_given_spectrum_is_continued() -> None:
    """The first frames of the result are those given; without them, they are others."""
    config = SpectrogramConfig.for_rate(8000)
    spectrogram = Spectrogram(config)
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(1, 8000, generator=generator)
    image, level = spectrogram(waveform)
    known = stft(waveform, config.n_fft, config.hop_length)[:, :, :30]
    count = 20 * config.hop_length
    apart = []
    for given in (known, None):
        made = spectrogram.inverse(
            image, level, torch.tensor([8000]), inversion=Inversion(n_iter=8), known=given
        )
        apart.append(float((made - waveform)[:, :count].norm() / waveform[:, :count].norm()))
    print(apart)
    assert apart[0] < 0.6 < apart[1]
    assert num_frames(8000, config.hop_length) == image.shape[3]
