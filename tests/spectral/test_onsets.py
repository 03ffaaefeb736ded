"""Onsets are sharpened; all else stays as it is."""

import math

import torch

from audiovq.config.spectrogram import WIDE_ABOVE
from audiovq.spectral.onsets import sharpen_onsets

RATE, N_FFT = 44_100, 1024
TIME = torch.arange(RATE // 2) / RATE


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, len(TIME), generator=torch.Generator().manual_seed(seed))


def test_steady_tones_and_decays_are_unchanged_to_the_bit() -> None:
    tones = [torch.cos(2 * math.pi * hz * TIME)[None] for hz in (25, 40, 441, 9_000)]
    decays = [noise(0) * torch.exp(-TIME / seconds) for seconds in (0.03, 0.1)]
    for sound in tones + decays:
        assert torch.equal(sharpen_onsets(sound, N_FFT, RATE), sound)


def test_what_precedes_an_onset_becomes_quieter_and_the_sound_from_it_on_is_unchanged() -> None:
    sound = noise(1) * torch.exp(-(TIME - 0.1).clamp_min(0) / 0.05)
    onset = 100 * (RATE // 1000)
    sound[:, :onset] *= 0.03  # 30 dB below
    sharpened = sharpen_onsets(sound, N_FFT, RATE)
    assert torch.equal(sharpened[:, onset + 44 :], sound[:, onset + 44 :])
    just_before = slice(onset - 8 * 44, onset - 44)
    levels = [float(s[:, just_before].square().mean().log10()) * 10 for s in (sound, sharpened)]
    assert levels[1] < levels[0] - 30  # 15 dB below the threshold, expanded four times
    long_before = slice(0, onset - N_FFT // 2 - 44)
    assert torch.equal(sharpened[:, long_before], sound[:, long_before])


def test_a_clip_has_the_same_onsets_in_any_batch_and_after_any_padding() -> None:
    short = noise(2)[:, :9_999] * (TIME[:9_999] * 20).clamp(0, 1) ** 4
    batch = torch.zeros(2, len(TIME))
    batch[0, :9_999], batch[1] = short, noise(3)
    together = sharpen_onsets(batch, N_FFT, RATE)
    assert torch.equal(together[:1, :9_999], sharpen_onsets(short, N_FFT, RATE))
    assert not together[0, 9_999:].any()


def test_silence_and_sounds_of_few_samples_are_allowed_and_low_rates_unchanged() -> None:
    assert not sharpen_onsets(torch.zeros(1, 5_000), N_FFT, RATE).any()
    assert sharpen_onsets(torch.ones(1, 1), N_FFT, RATE).tolist() == [[1.0]]
    rising = noise(4) * TIME**3
    assert torch.equal(sharpen_onsets(rising, 256, WIDE_ABOVE), rising)
