"""Descriptions of synthetic sounds against what they were made with."""

import math

import numpy as np
import pytest

from audiovq.inspection.describe import (
    Description,
    describe,
    description_lines,
    load_librosa,
    note_name,
)

RATE = 22_050


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return sum(0.2 / k * np.sin(2 * np.pi * k * hertz * time) for k in (1, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("hertz", [110.0, 440.0, 987.77])
def test_a_tone_has_its_pitch_within_twenty_cents(hertz: float) -> None:
    found = describe(tone(hertz), RATE).pitch_hz
    assert found is not None
    assert abs(1200 * math.log2(found / hertz)) < 20


def test_noise_has_no_pitch_and_is_flatter_than_a_tone() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    found = describe(noise, RATE)
    assert found.pitch_hz is None
    assert found.flatness > 0.3 > describe(tone(440), RATE).flatness


def test_clicks_have_their_tempo_and_one_onset_each() -> None:
    clicks = np.zeros(8 * RATE, np.float32)
    decay = np.exp(-np.arange(2000) / 200).astype(np.float32)
    beats = [round(beat * 0.5 * RATE) for beat in range(16)]  # 120 a minute
    for begin in beats:
        clicks[begin : begin + 2000] += 0.5 * decay * tone(2000, 0.1)[:2000]
    found = describe(clicks, RATE)
    assert found.tempo_bpm == pytest.approx(120, rel=0.03)
    assert abs(found.onsets - len(beats)) <= 1


def test_the_loudness_of_a_sine_is_that_of_bs_1770() -> None:
    # BS.1770-4, annex 1: a full-scale sine of 997 Hz in one channel has -3.01 LKFS.
    time = np.arange(2 * 48_000) / 48_000
    sine = np.sin(2 * np.pi * 997 * time).astype(np.float32)
    assert describe(sine, 48_000).loudness_lufs == pytest.approx(-3.01, abs=0.1)
    assert describe(0.1 * sine, 48_000).loudness_lufs == pytest.approx(-23.01, abs=0.1)


def test_silence_and_very_short_sounds_can_be_described() -> None:
    for waveform in (np.zeros(RATE, np.float32), tone(440, 0.005)):
        found = describe(waveform, RATE)
        assert found.tempo_bpm is None
        assert -70 <= found.loudness_lufs < 0
        assert description_lines([found])


def test_the_median_of_two_tempos_is_between_them() -> None:
    found = [Description(None, 9, bpm, 500.0, 0.1, -20.0) for bpm in (60.0, 120.0)]
    assert "tempo       90 bpm (median of 2)" in description_lines(found)


def test_frequencies_have_note_names() -> None:
    assert [note_name(hertz) for hertz in (220, 440, 466.2)] == ["A3", "A4", "A#4"]


def test_librosa_is_compiled_by_one_process_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that compile at once may leave a cache with which every later process crashes."""
    fcntl = pytest.importorskip("fcntl")
    librosa = load_librosa()

    def is_locked() -> bool:
        with open(librosa.__file__, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    locked = []
    for module, name in ((librosa, "pyin"), (librosa.onset, "onset_detect")):
        monkeypatch.setattr(module, name, lambda *_, **__: locked.append(is_locked()))
    load_librosa.__wrapped__()
    assert locked == [True, True]
