"""Ticks of axes are round numbers, where the spectrogram has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.report.axes import bin_hertz, hertz_ticks, second_ticks
from audiovq.spectral.spectrogram import Spectrogram, waveform_images


@given(st.floats(0.001, 1e4), st.integers(2, 8))
def test_ticks_of_seconds_are_at_what_they_say(seconds: float, parts: int) -> None:
    ticks = second_ticks(seconds, parts)
    assert ticks[0].share == 0
    assert 1 <= len(ticks) <= parts + 1
    for share, text in ticks:
        assert share <= 1 + 1e-9
        assert float(text) == pytest.approx(share * seconds, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("n_mels", [0, 64])
def test_a_tone_is_where_its_tick_is(n_mels: int) -> None:
    config = SpectrogramConfig(sample_rate=16000, n_fft=1024, hop_length=256, n_mels=n_mels)
    spectrogram = Spectrogram(config)
    ticks = {text: share for share, text in hertz_ticks(spectrogram)}
    assert list(ticks.values()) == sorted(ticks.values())
    for hertz, text in ((1000, "1k"), (2000, "2k"), (5000, "5k")):
        if text not in ticks:
            continue
        tone = np.sin(2 * np.pi * hertz * np.arange(16000) / 16000).astype(np.float32)
        (image,) = waveform_images(spectrogram, [tone])
        row = int(image[0, :, 20].argmax())
        assert abs(row + 0.5 - ticks[text] * image.shape[1]) <= 1.5
        assert bin_hertz(spectrogram)[row] == pytest.approx(hertz, rel=0.06)
    padded = {text: share for share, text in hertz_ticks(spectrogram, 2 * config.bins)}
    common = ticks.keys() & padded.keys()
    assert common
    assert all(padded[text] == pytest.approx(ticks[text] / 2) for text in common)
