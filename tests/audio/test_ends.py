"""Decoded sounds begin from silence and end in it."""

import numpy as np
import numpy.typing as npt
import pytest

from audiovq.audio.ends import RELEASE_SECONDS, TRIM_DB, ended, from_silence
from audiovq.audio.silence import trim

Waveform = npt.NDArray[np.float32]
RATE = 44_100


def noise(num_samples: int) -> Waveform:
    return np.random.default_rng(0).uniform(-1, 1, num_samples).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, RATE])
def test_a_sound_begins_and_ends_without_a_step_and_is_unchanged_in_between(rate: int) -> None:
    sound = np.sign(noise(rate))
    faded = from_silence(sound, rate)
    assert abs(faded[0]) < 0.05
    assert abs(faded[-1]) < 0.05
    fade = rate // 1000
    assert np.array_equal(faded[fade:-fade], sound[fade:-fade])
    assert (np.abs(faded) <= np.abs(sound)).all()


def test_a_block_is_faded_only_where_its_sound_begins_or_ends() -> None:
    sound = noise(RATE)
    parts = [
        from_silence(sound[:20_000], RATE, ends=False),
        from_silence(sound[20_000:30_000], RATE, False, False),
        from_silence(sound[30_000:], RATE, begins=False),
    ]
    assert np.array_equal(np.concatenate(parts), from_silence(sound, RATE))


@pytest.mark.parametrize("num_samples", [0, 1, 2, 7, 8, 9, 100, 1000])
@pytest.mark.parametrize("trims", [True, False])
def test_the_shortest_sounds_keep_their_ends_or_are_faded(num_samples: int, trims: bool) -> None:
    sound = noise(num_samples)
    assert len(from_silence(sound, RATE)) == num_samples
    assert np.isfinite(faded := ended(sound, RATE, trims)).all()
    assert len(faded) == num_samples


def test_a_new_sound_that_decays_ends_where_its_recording_would_be_trimmed() -> None:
    time = np.arange(RATE) / RATE
    lengths = set()
    for decay in (30.0, 31.0, 32.0):
        sound = (np.exp(-decay * time) * np.cos(2000 * time)).astype(np.float32)
        faded = ended(sound, RATE, trims=True)
        lengths.add(len(faded))
        assert len(faded) == trim(sound, RATE, TRIM_DB)[1]
        # The envelope falls by TRIM_DB, in windows of 20 ms, of which the last begins before; 10 ms of silence follow.
        expected = TRIM_DB / 20 * np.log(10) / decay
        assert expected < len(faded) / RATE < expected + 0.04
        kept = len(faded) - round(RELEASE_SECONDS * RATE)
        assert np.array_equal(faded[:kept], sound[:kept])
        assert abs(faded[-1]) < 1e-5
        assert len(ended(sound, RATE, trims=False)) == RATE
    assert len(lengths) > 1


def test_what_was_trimmed_as_a_recording_is_not_trimmed_again() -> None:
    hit = noise(RATE) * np.exp(-20 * np.arange(RATE, dtype=np.float32) / RATE)
    hit += 10 ** (-70 / 20) * noise(RATE)
    trimmed = hit[: trim(hit, RATE, TRIM_DB)[1]]
    assert len(trimmed) < RATE
    assert len(ended(trimmed, RATE, trims=True)) == len(trimmed)


@pytest.mark.parametrize(
    ("seconds", "fade"), [(2.0, 0.1), (0.8, 0.05), (0.32, 0.02), (0.1, 0.01), (0.01, 0.005)]
)
def test_a_new_sound_that_rings_is_faded_out_over_a_sixteenth_and_not_cut(
    seconds: float, fade: float
) -> None:
    samples, length = round(seconds * RATE), round(fade * RATE)
    sound = np.cos(2 * np.arange(samples, dtype=np.float32))
    faded = ended(sound, RATE, trims=True)
    assert len(faded) == samples
    assert abs(faded[-1]) < 1e-4
    middle = faded[samples - length // 2 - 20 : samples - length // 2 + 20]
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.15)
    assert np.array_equal(faded[: samples - length - 1], sound[: samples - length - 1])
    assert not np.array_equal(faded[: samples - length + 20], sound[: samples - length + 20])


@pytest.mark.parametrize("trims", [True, False])
def test_silence_stays_silence(trims: bool) -> None:
    silence = np.zeros(1000, np.float32)
    assert np.array_equal(ended(silence, RATE, trims), silence)
