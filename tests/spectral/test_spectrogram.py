"""Tests of `audiovq.spectrogram`: forward as in librosa, inverse with exact length and level."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from audiovq.audio import reading
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import Inversion, Phase
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.evaluation.envelopes import beat_db
from audiovq.inspection.describe import load_librosa
from audiovq.spectral.griffin_lim import MOMENTUM
from audiovq.spectral.scale import LOUDEST_DB, mel_filters
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.spectral.stft import num_frames, stft

Voice = Callable[..., npt.NDArray[np.float32]]
RATES = (1000, 4000, 8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 384_000)
CONFIG = SpectrogramConfig.for_rate(8000)
STEP = CONFIG.level_step_db / CONFIG.range_db
MEL, LINEAR = Spectrogram(CONFIG), Spectrogram(SpectrogramConfig.for_rate(8000, n_mels=0))
both = pytest.mark.parametrize("spectrogram", [MEL, LINEAR], ids=["mel", "linear"])
both_phases = pytest.mark.parametrize(
    ("phase", "n_iter"), [("pghi", 2), ("pghi", None), ("griffin-lim", 4)]
)


def noise(num_samples: int, seed: int = 0, peak: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return peak * (2 * torch.rand(1, num_samples, generator=generator) - 1)


@pytest.fixture(scope="module")
def voices(voice: Voice) -> tuple[Tensor, Tensor]:
    """Padded batch of five voices of different length, pitch and level, and their lengths."""
    sounds = [
        voice(seconds, pitch) * np.float32(gain)
        for seconds, pitch, gain in (
            (0.2, 100, 1),
            (0.5, 130, 0.5),
            (0.333, 170, 2),
            (1.0, 220, 0.1),
            (0.04, 300, 0.01),
        )
    ]
    waveform = torch.zeros(len(sounds), max(map(len, sounds)))
    for row, sound in zip(waveform, sounds, strict=True):
        row[: len(sound)] = torch.from_numpy(sound)
    return waveform, torch.tensor([len(sound) for sound in sounds])


def decibels(ratio: Tensor) -> Tensor:
    return 20 * torch.log10(ratio)


# --- Forward ----------------------------------------------------------------------------------


@both
@settings(max_examples=30)
@given(num_samples=st.integers(256, 3000), seed=st.integers(0, 99), peak=st.floats(1e-3, 1))
def test_values_are_in_0_to_1_and_the_largest_is_within_one_level_step_of_1(
    spectrogram: Spectrogram, num_samples: int, seed: int, peak: float
) -> None:
    image, level = spectrogram(noise(num_samples, seed, peak))
    frames = 1 + num_samples // CONFIG.hop_length
    assert image.shape == (1, 1, spectrogram.config.bins, frames)
    assert image.dtype == torch.float32
    assert level.dtype == torch.int64
    assert image.min() >= 0
    assert 1 - STEP - 1e-5 <= image.max() <= 1
    assert 0 <= level < CONFIG.num_levels


@both
@pytest.mark.parametrize("period", [1, 2, 8, 100, 10_000])
def test_a_full_scale_square_wave_is_within_range(spectrogram: Spectrogram, period: int) -> None:
    square = torch.ones(1, 4000)
    square[:, torch.arange(4000) // max(1, period // 2) % 2 == 1] = -1
    image, level = spectrogram(square)
    assert image.isfinite().all()
    assert image.max() <= 1
    assert level >= 0


@pytest.mark.parametrize("gain_db", [0, -0.7, -20, -60])
def test_level_and_loudest_cell_give_the_peak_of_a_sine_in_decibels(gain_db: float) -> None:
    time = torch.arange(8000) / 8000
    sine = 10 ** (gain_db / 20) * torch.sin(2 * math.pi * 1000 * time)  # on a bin
    image, level = LINEAR(sine[None])
    loudest = LINEAR.level_db(level) + (image.max() - 1) * CONFIG.range_db
    assert loudest.item() == pytest.approx(gain_db, abs=0.01)


@both
@settings(max_examples=20)
@given(steps=st.integers(0, 40), seed=st.integers(0, 99))
def test_a_gain_of_whole_level_steps_changes_only_the_level(
    spectrogram: Spectrogram, steps: int, seed: int
) -> None:
    loud = noise(1000, seed)
    quiet = loud * 10 ** (-steps * CONFIG.level_step_db / 20)
    image, level = spectrogram(loud)
    other, other_level = spectrogram(quiet)
    assert other_level == level + steps
    torch.testing.assert_close(other, image, atol=1e-4, rtol=0)


@both
def test_a_padded_batch_matches_each_clip_alone(
    spectrogram: Spectrogram, voices: tuple[Tensor, Tensor]
) -> None:
    waveform, num_samples = voices
    images, levels = spectrogram(waveform, num_samples)
    for clip, length in enumerate(num_samples.tolist()):
        image, level = spectrogram(waveform[clip : clip + 1, :length])
        assert level == levels[clip]
        torch.testing.assert_close(
            images[clip, :, :, : image.shape[3]], image[0], atol=1e-5, rtol=0
        )
        assert not images[clip, :, :, image.shape[3] :].any()


@both
def test_samples_after_a_clips_end_are_ignored(
    spectrogram: Spectrogram, voices: tuple[Tensor, Tensor]
) -> None:
    waveform, num_samples = voices
    beyond = torch.arange(waveform.shape[1]) >= num_samples[:, None]
    images, levels = spectrogram(waveform, num_samples)
    others, other_levels = spectrogram(waveform + beyond * noise(waveform.shape[1]), num_samples)
    assert torch.equal(others, images)
    assert torch.equal(other_levels, levels)


@both
def test_forward_does_not_modify_the_waveform(
    spectrogram: Spectrogram, voices: tuple[Tensor, Tensor]
) -> None:
    waveform, num_samples = voices
    before = waveform.clone()
    spectrogram(waveform, num_samples)
    spectrogram(waveform)
    assert torch.equal(waveform, before)


@pytest.mark.parametrize("rate", RATES)
def test_mel_filters_match_librosa_with_rows_that_sum_to_one(rate: int) -> None:
    config = SpectrogramConfig.for_rate(rate)
    filters = Spectrogram(config).mel
    assert filters is not None
    assert np.array_equal(filters.numpy(), mel_filters(config))
    expected = load_librosa().filters.mel(
        sr=rate, n_fft=config.n_fft, n_mels=config.n_mels, htk=False, norm=None, dtype=np.float64
    )
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(filters.numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(filters.sum(dim=1).numpy(), 1, atol=1e-6)
    if rate % 2 == 0:  # torchaudio halves odd rates to an integer
        grid = config.n_fft // 2 + 1, 0.0, rate / 2, config.n_mels, rate
        other = torchaudio.functional.melscale_fbanks(*grid, mel_scale="slaney").T
        torch.testing.assert_close(
            filters, other / other.sum(dim=1, keepdim=True), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("n_mels", [64, 0])
@pytest.mark.parametrize(("rate", "hop_length"), [(8000, None), (16_000, 100), (22_050, None)])
def test_decibels_match_librosa(
    voice: Voice, n_mels: int, rate: int, hop_length: int | None
) -> None:
    config = SpectrogramConfig.for_rate(rate, hop_length=hop_length, n_mels=n_mels)
    waveform = voice(0.5, 140, rate)
    magnitude = np.abs(
        load_librosa().stft(
            waveform.astype(np.float64),
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            window="hann",
            center=True,
            pad_mode="constant",
        )
    )
    if n_mels:
        filters = load_librosa().filters.mel(sr=rate, n_fft=config.n_fft, n_mels=n_mels, norm=None)
        magnitude = (filters / filters.sum(axis=1, keepdims=True)) @ magnitude
    else:
        magnitude = magnitude[:-1]
    full_scale_sine = config.n_fft / 4
    expected = load_librosa().amplitude_to_db(
        magnitude, ref=full_scale_sine, amin=1e-9, top_db=None
    )
    level = math.floor((LOUDEST_DB - expected.max()) / config.level_step_db)
    floor = LOUDEST_DB - level * config.level_step_db - config.range_db

    image, own_level = Spectrogram(config)(torch.from_numpy(waveform)[None])
    assert own_level == level
    own = image[0, 0].numpy() * config.range_db + floor
    np.testing.assert_allclose(own, expected.clip(floor, None), atol=0.02)  # float32 near the floor


# --- The grid ---------------------------------------------------------------------------------


def test_linear_bins_omit_nyquist_and_the_magnitude_restores_it_as_zeros() -> None:
    nyquist = 0.5 * (-1.0) ** torch.arange(2000)[None]
    waveform = noise(2000) + nyquist
    image, level = LINEAR(waveform)
    assert image.shape[2] == CONFIG.n_fft // 2
    magnitude = LINEAR.magnitude(image)
    assert magnitude.shape == (1, CONFIG.n_fft // 2 + 1, image.shape[3])
    assert not magnitude[:, -1].any()
    gain = 10 ** (LINEAR.level_db(level) / 20) * CONFIG.n_fft / 4
    expected = stft(waveform, CONFIG.n_fft, CONFIG.hop_length).abs()[:, :-1]
    torch.testing.assert_close(gain * magnitude[:, :-1], expected, rtol=1e-3, atol=1e-2)


def test_mel_bands_of_the_inverted_magnitude_match_the_input(
    voices: tuple[Tensor, Tensor],
) -> None:
    image, _ = MEL(*voices)
    magnitude = MEL.magnitude(image)
    assert magnitude.shape == (len(image), CONFIG.n_fft // 2 + 1, image.shape[3])
    assert magnitude.min() >= 0
    assert MEL.mel is not None
    wanted = 10 ** ((image[:, 0] - 1) * CONFIG.range_db / 20) * (image[:, 0] > 0)
    error = (MEL.mel @ magnitude - wanted).flatten(1).norm(dim=1)
    assert (error < 0.05 * wanted.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("rate", RATES[:-2])
def test_the_default_settings_of_any_rate_can_be_inverted(rate: int, voice: Voice) -> None:
    """The inverted waveform has the spectrogram that was given, at loud cells, and its level."""
    spectrogram = Spectrogram(SpectrogramConfig.for_rate(rate))
    waveform = torch.from_numpy(voice(0.4, 140, rate))[None]
    num_samples = torch.tensor([waveform.shape[1]])
    image, level = spectrogram(waveform)
    back = spectrogram.inverse(image, level, num_samples)
    assert back.shape == waveform.shape
    again = spectrogram.normalized(spectrogram.decibels(back, num_samples), level)
    away = spectrogram.config.range_db * (again - image).abs()
    assert float(away[image > 0.5].mean()) < 1.5
    assert abs(float(decibels(back.norm() / waveform.norm()))) < 0.7


@pytest.mark.parametrize("n_fft", [128, 256, 512, 1024, 2048])
@pytest.mark.parametrize("n_mels", [40, 64, 128])
@pytest.mark.filterwarnings("ignore:Empty filters detected")
def test_mel_bands_that_cover_no_bin_raise_with_advice(n_fft: int, n_mels: int) -> None:
    config = SpectrogramConfig(22_050, n_fft, n_fft // 4, min(n_mels, n_fft // 2))
    filters = load_librosa().filters.mel(sr=22_050, n_fft=n_fft, n_mels=config.n_mels)
    if filters.any(axis=1).all():
        Spectrogram(config)
        return
    with pytest.raises(AudiovqError, match=rf"n_mels {config.n_mels}: .*fewer bands") as caught:
        Spectrogram(config)
    assert "\n" not in str(caught.value)


# --- Inverse ----------------------------------------------------------------------------------


@both
def test_the_inverse_restores_loudness_and_spectrum(
    spectrogram: Spectrogram, voices: tuple[Tensor, Tensor]
) -> None:
    waveform, num_samples = voices
    image, level = spectrogram(waveform, num_samples)
    back = spectrogram.inverse(image, level, num_samples)
    change = decibels(back.norm(dim=1) / waveform.norm(dim=1))
    assert change.abs().mean() < 0.3
    assert change.abs().max() < (0.1 if spectrogram is LINEAR else 0.5)
    wanted = stft(waveform, CONFIG.n_fft, CONFIG.hop_length).abs()
    error = stft(back, CONFIG.n_fft, CONFIG.hop_length).abs() - wanted
    convergence = decibels(error.flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1))
    assert convergence.max() < (-20 if spectrogram is LINEAR else -11)


@both
@pytest.mark.parametrize("folder", ["digits", "fsdd"])
def test_the_inverse_restores_the_loudness_of_spoken_digits(
    spectrogram: Spectrogram, folder: str, request: pytest.FixtureRequest
) -> None:
    changes = []
    for path in sorted(request.getfixturevalue(folder).glob("*_0.wav"))[::4]:
        waveform = torch.from_numpy(reading.read(path)[0])[None]
        image, level = spectrogram(waveform)
        back = spectrogram.inverse(image, level, torch.tensor([waveform.shape[1]]))
        changes.append(decibels(back.norm() / waveform.norm()))
    change = torch.stack(changes)
    if spectrogram is LINEAR:
        assert change.abs().max() < 0.1
    else:  # energy narrower than a band is spread over it, which loses a little
        assert change.abs().mean() < 0.3
        assert change.abs().max() < CONFIG.level_step_db / 2


@both
@both_phases
def test_the_inverse_of_a_batch_matches_each_clip_alone_with_exact_lengths(
    spectrogram: Spectrogram, voices: tuple[Tensor, Tensor], phase: Phase, n_iter: int | None
) -> None:
    waveform, num_samples = voices
    images, levels = spectrogram(waveform, num_samples)
    back = spectrogram.inverse(images, levels, num_samples, inversion=Inversion(phase, n_iter))
    assert back.shape == waveform.shape
    for clip, length in enumerate(num_samples.tolist()):
        frames = num_frames(length, CONFIG.hop_length)
        alone = spectrogram.inverse(
            images[clip : clip + 1, :, :, :frames],
            levels[clip : clip + 1],
            num_samples[clip : clip + 1],
            inversion=Inversion(phase, n_iter),
        )
        assert alone.shape == (1, length)
        torch.testing.assert_close(back[clip, :length], alone[0], atol=1e-5, rtol=0)
        assert not back[clip, length:].any()


@both
@both_phases
def test_the_inverse_ignores_padding_frames(
    spectrogram: Spectrogram, voices: tuple[Tensor, Tensor], phase: Phase, n_iter: int | None
) -> None:
    waveform, num_samples = voices
    images, levels = spectrogram(waveform, num_samples)
    beyond = torch.arange(images.shape[3]) >= num_frames(num_samples, CONFIG.hop_length)[:, None]
    filled = torch.nn.functional.pad(images + 0.9 * beyond[:, None, None], (0, 7), value=0.9)
    other = spectrogram.inverse(filled, levels, num_samples, inversion=Inversion(phase, n_iter))
    back = spectrogram.inverse(images, levels, num_samples, inversion=Inversion(phase, n_iter))
    # Random phases are drawn frame by frame, so that further frames change none of the earlier ones.
    torch.testing.assert_close(other, back, atol=1e-5, rtol=0)


@both
@both_phases
def test_silence_stays_silence(
    spectrogram: Spectrogram, voices: tuple[Tensor, Tensor], phase: Phase, n_iter: int | None
) -> None:
    waveform, num_samples = voices
    waveform = waveform * torch.tensor([1, 0, 1, 0, 0])[:, None]
    image, level = spectrogram(waveform, num_samples)
    assert level[1] == CONFIG.num_levels - 1
    assert not image[1].any()
    back = spectrogram.inverse(image, level, num_samples, inversion=Inversion(phase, n_iter))
    assert back.isfinite().all()
    assert not back[[1, 3, 4]].any()
    assert back[[0, 2]].any(dim=1).all()


@both
@settings(max_examples=20)
@given(exponent=st.integers(-44, -4))
def test_the_faintest_sounds_give_no_nan(spectrogram: Spectrogram, exponent: int) -> None:
    waveform = noise(600) * 10.0**exponent
    image, level = spectrogram(waveform)
    assert image.isfinite().all()
    assert 0 <= level < CONFIG.num_levels
    back = spectrogram.inverse(image, level, torch.tensor([600]), inversion=Inversion(n_iter=1))
    assert back.isfinite().all()
    assert back.abs().max() <= 10 * 10.0**exponent


@both
def test_one_more_level_is_one_step_quieter(spectrogram: Spectrogram, voice: Voice) -> None:
    waveform = torch.from_numpy(voice(0.2))[None]
    image, level = spectrogram(waveform)
    length = torch.tensor([waveform.shape[1]])
    loud = spectrogram.inverse(image, level, length, inversion=Inversion(n_iter=1))
    quiet = spectrogram.inverse(image, level + 1, length, inversion=Inversion(n_iter=1))
    torch.testing.assert_close(quiet, loud * 10 ** (-CONFIG.level_step_db / 20))


@both_phases
def test_the_same_generator_state_gives_the_same_sound(phase: Phase, n_iter: int | None) -> None:
    image, level = MEL(noise(2000))
    length = torch.tensor([2000])
    first, second, other = (
        MEL.inverse(
            image,
            level,
            length,
            inversion=Inversion(phase, n_iter),
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert phase == "pghi" or not torch.equal(first, other)


@both
def test_too_few_frames_for_the_length_raise(spectrogram: Spectrogram) -> None:
    image, level = spectrogram(noise(1000))
    with pytest.raises(ValueError, match="too few"):
        spectrogram.inverse(image, level, torch.tensor([1024]))


def test_the_inverse_clamps_values_to_0_to_1() -> None:
    image, level = MEL(noise(1000))
    wild = image + 0.5 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    length = torch.tensor([1000])
    back = MEL.inverse(wild, level, length, inversion=Inversion(n_iter=1))
    torch.testing.assert_close(
        back, MEL.inverse(wild.clamp(0, 1), level, length, inversion=Inversion(n_iter=1))
    )


@pytest.mark.gpu
@both
def test_gpu_matches_cpu(spectrogram: Spectrogram, voices: tuple[Tensor, Tensor]) -> None:
    waveform, num_samples = voices
    image, level = spectrogram(waveform, num_samples)
    on_gpu = Spectrogram(spectrogram.config).cuda()
    other, other_level = on_gpu(waveform.cuda(), num_samples.cuda())
    assert torch.equal(other_level.cpu(), level)
    torch.testing.assert_close(other.cpu(), image, atol=1e-3, rtol=0)
    back = on_gpu.inverse(image.cuda(), level.cuda(), num_samples.cuda()).cpu()
    here = spectrogram.inverse(image, level, num_samples)
    assert decibels(back.norm(dim=1) / here.norm(dim=1)).abs().max() < 0.1


def test_smooth_noise_of_hits_beats_less_at_the_rate_of_the_frames_than_with_the_other_momentum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = SpectrogramConfig(sample_rate=44_100, n_fft=1024, hop_length=256, n_mels=128)
    assert config.is_of_hits
    spectrogram, num_samples = Spectrogram(config), torch.full((16,), 22_050)
    generator = torch.Generator().manual_seed(0)
    decay = torch.exp(-torch.arange(22_050) / 8_000)
    images, levels = spectrogram(0.1 * torch.randn(16, 22_050, generator=generator) * decay)
    smooth = nn.functional.avg_pool2d(images, (1, 3), 1, (0, 1), count_include_pad=False)

    def beat() -> float:
        waveforms = spectrogram.inverse(smooth, levels, num_samples).numpy()
        beats = [beat_db(w, 44_100, 256 / 44_100) for w in waveforms]
        return float(np.mean([b for b in beats if b is not None]))

    default = beat()
    monkeypatch.setattr("audiovq.spectral.spectrogram.MOMENTUM_OF_HITS", MOMENTUM)
    assert default < beat() - 0.3
