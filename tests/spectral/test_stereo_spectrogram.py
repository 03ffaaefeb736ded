"""Stereo spectrograms: loudness, balance and coherence of two channels, and two channels of these."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.spectral import scale
from audiovq.spectral.bands import turns
from audiovq.spectral.numpy_spectrogram import Analysis, Piece
from audiovq.spectral.spectrogram import Spectrogram

Waveform = npt.NDArray[np.float32]
Voice = Callable[..., Waveform]
RATE = 16_000
STEREO = SpectrogramConfig(RATE, 512, 128, 80, channels=2)
LINEAR = SpectrogramConfig(RATE, 512, 128, 0, channels=2)
MONO = SpectrogramConfig(RATE, 512, 128, 80)
configs = pytest.mark.parametrize("config", [STEREO, LINEAR], ids=["mel", "linear"])


def noise(seed: int, samples: int = RATE // 2) -> Waveform:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def image_of(left: Waveform, right: Waveform, config: SpectrogramConfig = STEREO) -> Tensor:
    """(3, bins, frames)"""
    return Spectrogram(config)(torch.from_numpy(np.stack([left, right]))[None])[0][0]


def inverse(left: Waveform, right: Waveform, config: SpectrogramConfig = STEREO) -> Waveform:
    """What two channels become by their true spectrogram: (2, samples)."""
    spectrogram = Spectrogram(config)
    image, level = spectrogram(torch.from_numpy(np.stack([left, right]))[None])
    return spectrogram.inverse(image, level, torch.tensor([len(left)]))[0].numpy()


def decibels(a: Waveform, b: Waveform) -> float:
    """Power of a over that of b."""
    return 10 * math.log10(float(np.square(a).mean()) / float(np.square(b).mean()))


def of_rows(image: Tensor, plane: int) -> float:
    """Mean of a plane without the ends of the clip, where windows hold little."""
    return float(image[plane, :, 4:-4].mean())


@configs
def test_equal_channels_are_the_mono_spectrogram_in_the_middle_and_in_phase(
    voice: Voice, config: SpectrogramConfig
) -> None:
    sound = voice(0.5, 150, RATE)
    mono = SpectrogramConfig(RATE, 512, 128, config.n_mels)
    expected, level = Spectrogram(mono)(torch.from_numpy(sound)[None])
    stereo, same = Spectrogram(config)(torch.from_numpy(np.stack([sound, sound]))[None])
    torch.testing.assert_close(stereo[:, :1], expected, atol=1e-4, rtol=0)
    assert int(same) == int(level)
    torch.testing.assert_close(stereo[:, 1], torch.full_like(stereo[:, 1], scale.MIDDLE))
    torch.testing.assert_close(stereo[:, 2], torch.ones_like(stereo[:, 2]), atol=1e-3, rtol=0)
    in_the_middle, _ = Spectrogram(config)(torch.from_numpy(sound)[None])
    assert torch.equal(in_the_middle, stereo)


def test_neutral_planes_give_the_mono_waveform_in_both_channels(voice: Voice) -> None:
    sound = voice(0.5, 150, RATE)
    mono = Spectrogram(MONO)
    image, level = mono(torch.from_numpy(sound)[None])
    expected = mono.inverse(image, level, torch.tensor([len(sound)]))[0].numpy()
    for channel in inverse(sound, sound):
        np.testing.assert_allclose(channel, expected, atol=2e-5)


@configs
def test_planes_that_are_nearly_neutral_make_both_channels_equal(config: SpectrogramConfig) -> None:
    """As a network's planes of a mono recording; where they are farther away, the channels differ audibly."""
    spectrogram, length = Spectrogram(config), torch.tensor([RATE // 2])
    image, level = spectrogram(torch.from_numpy(noise(1))[None])
    near, far = image.clone(), image.clone()
    random = torch.rand(2, *image[:, 0].shape, generator=torch.Generator().manual_seed(0))
    near[:, 1] += 0.02 * (random[0] - 0.5)
    near[:, 2] -= 0.03 * random[1]
    far[:, 2] -= 0.3 * random[1]
    left, right = spectrogram.inverse(near, level, length)[0].numpy()
    np.testing.assert_array_equal(left, right)
    left, right = spectrogram.inverse(far, level, length)[0].numpy()
    assert decibels(left - right, left + right) > -25


@configs
def test_numpy_matches_torch(voice: Voice, config: SpectrogramConfig) -> None:
    voices = [voice(0.4, 150, RATE), voice(0.4, 200, RATE)]
    sounds = [
        np.stack(voices),
        np.stack([voices[0], 0 * voices[0]]),
        np.stack([voices[0], -voices[0]]) / 100,
        np.stack([noise(0, 3000), noise(1, 3000)]),
        np.stack([noise(0, 300), np.roll(noise(0, 300), 9)]),
        np.zeros((2, 700), np.float32),
    ]
    frames = 1 + max(s.shape[1] for s in sounds) // config.hop_length
    batches = list(Analysis(config).batches(map(Piece, sounds), frames))
    levels = [level for _, found in batches for level in found]
    stored = np.concatenate([images for images, _ in batches])
    assert stored.shape == (len(sounds), config.bins + 2 * config.stereo_bands, frames)
    expanded = stored[:, scale.expanded_rows(config)]
    for sound, image, level in zip(sounds, expanded, levels, strict=True):
        expected, expected_level = Spectrogram(config)(torch.from_numpy(sound)[None])
        count = expected.shape[3]
        assert level == int(expected_level)
        found = torch.from_numpy(image[..., :count].astype(np.float32))
        torch.testing.assert_close(found, expected[0], atol=4e-3, rtol=0)
        assert not image[..., count:].any()


def test_opposite_channels_are_loud_and_stay_opposite(voice: Voice) -> None:
    sound = voice(0.5, 150, RATE)
    image = image_of(sound, -sound)
    mono = Spectrogram(MONO)(torch.from_numpy(sound)[None])[0][0]
    torch.testing.assert_close(image[:1], mono, atol=1e-4, rtol=0)
    loud = image[0] > 0.6
    assert float(image[2][loud].max()) < 0.1
    torch.testing.assert_close(image[1], torch.full_like(image[1], scale.MIDDLE))
    left, right = inverse(sound, -sound)
    assert float(np.dot(left, right)) < -0.95 * float(np.dot(left, left))
    assert decibels(left, sound) == pytest.approx(0, abs=1)


def test_a_silent_channel_stays_silent(voice: Voice) -> None:
    sound = voice(0.5, 150, RATE)
    for silent in (0, 1):
        sides = [sound, sound]
        sides[silent] = 0 * sound
        image = image_of(*sides)
        loud = image[0] > 0.6
        assert float((image[1] - (1 - silent)).abs()[1 - loud.int() == 0].max()) < 0.1
        assert float(image[2][loud].min()) > 0.8
        found = inverse(*sides)
        assert decibels(found[silent], found[1 - silent]) < -25
        assert decibels(found[1 - silent], sound) == pytest.approx(0, abs=1)


def test_swapping_the_channels_mirrors_the_balance(voice: Voice) -> None:
    a, b = voice(0.4, 150, RATE), noise(3, round(0.4 * RATE))
    image, mirrored = image_of(a, b), image_of(b, a)
    torch.testing.assert_close(image[0], mirrored[0])
    torch.testing.assert_close(image[1], 1 - mirrored[1])
    torch.testing.assert_close(image[2], mirrored[2])


@pytest.mark.parametrize("gain_db", [-20, -6, -1.5, 0, 3, 12])
def test_the_balance_is_the_ratio_of_levels(gain_db: float) -> None:
    sound = noise(0)
    image = image_of(sound, sound * np.float32(10 ** (gain_db / 20)))
    side = 2 * of_rows(image, 1) - 1
    ratio = scale.gain_ratio(np, np.float64(abs(side)))
    assert -20 * math.log10(ratio) == pytest.approx(abs(gain_db), abs=0.3)
    assert side * gain_db >= 0
    left, right = inverse(sound, sound * np.float32(10 ** (gain_db / 20)))
    assert decibels(right, left) == pytest.approx(gain_db, abs=0.5)


@pytest.mark.parametrize("correlation", [-0.9, -0.5, 0, 0.5, 0.8, 0.95])
def test_the_coherence_is_the_correlation_before_and_after_the_inverse(correlation: float) -> None:
    a, b = noise(0, 2 * RATE), noise(1, 2 * RATE)
    mixed = np.float32(correlation) * a + np.float32(math.sqrt(1 - correlation**2)) * b
    wanted = 1 - math.acos(correlation) / math.pi
    image = image_of(a, mixed)
    assert of_rows(image, 2) == pytest.approx(wanted, abs=0.05)
    left, right = inverse(a, mixed)
    found = float(np.dot(left, right)) / math.sqrt(float(np.dot(left, left) * np.dot(right, right)))
    assert found == pytest.approx(correlation, abs=0.04)
    again = image_of(left, right)
    assert of_rows(again, 2) == pytest.approx(of_rows(image, 2), abs=0.02)


def test_a_delayed_channel_is_in_the_middle_and_incoherent_in_wide_bands() -> None:
    sound = noise(0, 2 * RATE)
    delayed = np.concatenate([np.zeros(RATE // 100, np.float32), sound])[: len(sound)]
    image = image_of(sound, delayed)
    assert of_rows(image, 1) == pytest.approx(0.5, abs=0.02)
    assert of_rows(image, 2) == pytest.approx(0.5, abs=0.1)
    left, right = inverse(sound, delayed)
    assert decibels(left, sound) == pytest.approx(0, abs=1)
    assert decibels((left + right) / 2, (sound + delayed) / 2) == pytest.approx(0, abs=1)


def test_quiet_cells_are_neutral() -> None:
    loud, quiet = noise(0), np.float32(1e-5) * noise(1)
    sides = np.stack([np.concatenate([loud, quiet]), np.concatenate([loud, 0 * quiet])])
    image = image_of(*sides)
    later = image[:, :, -30:-4]
    assert float((later[1] - scale.MIDDLE).abs().max()) < 0.02
    assert float(later[2].min()) > 0.95


def test_a_batch_gives_each_clip_its_own_result(voice: Voice) -> None:
    sounds = [
        np.stack([voice(s, 150, RATE), noise(3, round(s * RATE))]).astype(np.float32)
        for s in (0.3, 0.2)
    ]
    spectrogram = Spectrogram(STEREO)
    num_samples = torch.tensor([s.shape[1] for s in sounds])
    batch = torch.zeros(2, 2, int(num_samples.max()))
    for row, sound in zip(batch, sounds, strict=True):
        row[:, : sound.shape[1]] = torch.from_numpy(sound)
    images, levels = spectrogram(batch, num_samples)
    together = spectrogram.inverse(images, levels, num_samples)
    assert together.shape == (2, 2, int(num_samples.max()))
    for i, sound in enumerate(sounds):
        image, level = spectrogram(torch.from_numpy(sound)[None])
        torch.testing.assert_close(images[i, ..., : image.shape[3]], image[0], atol=1e-5, rtol=0)
        alone = spectrogram.inverse(image, level, num_samples[i : i + 1])
        found = together[i, :, : sound.shape[1]]
        torch.testing.assert_close(found, alone[0], atol=1e-4, rtol=0)
        assert not together[i, :, sound.shape[1] :].any()


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("n_mels", [0, None])
def test_every_row_is_in_one_band_and_bands_rise(rate: int, n_mels: int | None) -> None:
    default = SpectrogramConfig.for_rate(rate, n_mels=n_mels)
    config = SpectrogramConfig(rate, default.n_fft, default.hop_length, default.n_mels, channels=2)
    bands = scale.row_bands(config)
    assert bands.shape == (config.bins,)
    assert set(np.diff(bands).tolist()) <= {0, 1}
    assert (bands[0], bands[-1]) == (0, config.stereo_bands - 1)
    filters = scale.stereo_filters(config)
    np.testing.assert_allclose(filters.sum(axis=1), 1, atol=1e-5)
    stored = np.arange(config.stored_rows)[scale.expanded_rows(config)]
    assert stored.shape == (3, config.bins)
    assert len(np.unique(stored)) == config.stored_rows


@pytest.mark.parametrize(("rate", "n_fft"), [(44_100, 2048), (44_100, 1024), (16_000, 512)])
def test_turns_alternate_in_bands_that_the_window_tells_apart(rate: int, n_fft: int) -> None:
    signs = turns(SpectrogramConfig(rate, n_fft, n_fft // 4, 80, channels=2))
    assert set(signs.tolist()) == {1.0, -1.0}
    changes = np.flatnonzero(np.diff(signs))
    assert len(changes) > 15
    assert np.diff(changes).min() >= 4
    assert abs(signs.mean()) < 0.25
