"""Figures of envelopes: laws of attack, pre-echo, clicks and the beat at the frames' rate."""

import numpy as np
import numpy.typing as npt
import pytest

from audiovq.evaluation.envelopes import (
    FLOOR_DB,
    attack_ms,
    beat_db,
    clicks,
    envelope_figures,
    pre_echo_db,
)

Waveform = npt.NDArray[np.float32]
RATE = 44_100
HOP = 0.0116


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> Waveform:
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate))
    return samples.astype(np.float32)


def test_a_click_at_the_first_sample_has_no_attack_and_no_pre_echo() -> None:
    click = np.zeros(RATE // 10, np.float32)
    click[0] = 0.9
    assert attack_ms(click, RATE) == 0
    assert pre_echo_db(click, RATE) == FLOOR_DB
    assert clicks(click) == (True, False)
    assert clicks(click[::-1]) == (False, True)


@pytest.mark.parametrize("milliseconds", [5, 20, 80])
def test_the_attack_of_a_linear_rise_is_from_a_hundredth_to_half(milliseconds: int) -> None:
    rise = np.minimum(1, np.arange(RATE // 5) / (milliseconds * RATE / 1000))
    sound = (0.5 * rise * np.sin(np.arange(len(rise)) * 1.5)).astype(np.float32)
    assert attack_ms(sound, RATE) == pytest.approx(0.49 * milliseconds, abs=1.5)


def test_loudness_and_silence_before_a_sound_change_neither_attack_nor_pre_echo() -> None:
    sound = noise(0.2) * np.linspace(0, 1, int(0.2 * RATE), dtype=np.float32) ** 2
    later = np.pad(sound / 8, (100 * (RATE // 1000), 0))  # a hundred milliseconds of the envelope
    assert attack_ms(later, RATE) == attack_ms(sound, RATE)
    assert pre_echo_db(later, RATE) == pytest.approx(pre_echo_db(sound, RATE))


def test_a_pre_echo_is_the_ratio_of_the_energies_on_both_sides_of_the_onset() -> None:
    burst = noise(0.1, seed=1)
    soft = noise(0.02, seed=2)
    for gain in (0.1, 0.03):
        sound = np.concatenate([gain * soft, burst])
        assert pre_echo_db(sound, RATE) == pytest.approx(20 * np.log10(gain), abs=1)


def test_figures_of_a_set_are_quartiles_medians_and_shares_of_the_sounds_that_have_them() -> None:
    click, late = np.zeros((2, RATE // 2), np.float32)
    click[0] = late[-1] = 0.9
    figures = envelope_figures([click, click, late, np.zeros_like(click)], RATE, HOP)
    assert figures["sounds"] == 4
    assert (figures["clicks_at_start"], figures["clicks_at_end"]) == (0.5, 0.25)
    assert figures["attack_ms"] == [0, 0, 0]
    assert figures["pre_echo_db"] == FLOOR_DB
    none = envelope_figures([], RATE, HOP)
    assert none.pop("sounds") == 0
    assert set(none.values()) == {None}


def test_silence_has_no_figures_and_no_clicks() -> None:
    silence = np.zeros(RATE, np.float32)
    assert attack_ms(silence, RATE) is None
    assert pre_echo_db(silence, RATE) is None
    assert beat_db(silence, RATE, HOP) is None
    assert clicks(silence) == (False, False)
    assert clicks(silence[:0]) == (False, False)


def test_a_sound_is_too_short_for_a_beat_below_an_eighth_of_a_second() -> None:
    assert beat_db(noise(0.1), RATE, HOP) is None
    assert beat_db(noise(0.2), RATE, HOP) is not None


def test_frames_that_follow_each_other_too_fast_have_no_beat() -> None:
    assert beat_db(noise(0.5), RATE, 4 / RATE) is None
    assert beat_db(noise(0.5), RATE, 64 / RATE) is not None


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_white_noise_has_a_beat_near_chance_at_any_rate_of_frames(rate: int) -> None:
    for hop in (0.008, HOP):
        beats = [beat_db(noise(0.5, seed, rate), rate, hop) for seed in range(24)]
        assert 0 < np.mean([beat for beat in beats if beat is not None]) < 3


@pytest.mark.parametrize("hop", [0.008, HOP])
def test_noise_that_pulses_with_the_frames_has_a_beat_at_their_rate_alone(hop: float) -> None:
    time = np.arange(RATE // 2) / RATE
    pulses = 1 + 0.4 * np.cos(2 * np.pi * time / hop)
    beats = [
        [beat_db((noise(0.5, seed) * by).astype(np.float32), RATE, at) for seed in range(6)]
        for by, at in ((pulses, hop), (pulses, 0.75 * hop), (1.0, hop))
    ]
    there, elsewhere, none = (np.mean([b for b in some if b is not None]) for some in beats)
    assert there > none + 4
    assert there > elsewhere + 4
