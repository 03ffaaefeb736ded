"""Edits keep the recording's samples bit by bit, outside what is new and its crossfades."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_model

from audiovq.audio.ends import FADE_SECONDS, HIGHEST, MAX_GAIN_DB, join
from audiovq.audio.reading import read_recording
from audiovq.audio.waveform import Waveform
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.generation import edit
from audiovq.models.model import Model

QUICK: dict[str, Any] = {
    "sampling": SamplingConfig(temperature=1.0, guidance=0.0, steps=3),
    "inversion": Inversion("griffin-lim", 1),
}
COLUMN, RATE = 4 * 8, 8000
FADE = round(FADE_SECONDS * RATE)


def noise(seed: int, *shape: int) -> Waveform:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(masked=True)


@given(
    st.integers(0, 1000),
    st.lists(st.integers(0, 1000), min_size=2, max_size=4, unique=True).map(sorted),
    st.sampled_from([(), (1,), (2,)]),
)
def test_samples_outside_the_new_parts_and_their_crossfades_are_the_originals(
    longer: int, edges: list[int], channels: tuple[int, ...]
) -> None:
    original, made = noise(0, *channels, 1000), noise(1, 1000 + longer)
    spans = [(edges[0], edges[1]), (edges[-1], 1000 + longer)]
    joined = join(original, made, spans, RATE)
    assert joined.shape == (*channels, 1000 + longer)
    position = np.arange(1000)
    outside = np.ones(1000, bool)
    for begin, end in spans:
        outside &= (position < begin - FADE) | (position >= end + FADE)
    assert np.array_equal(joined[..., :1000][..., outside], original[..., outside])
    assert np.abs(joined).max() <= HIGHEST


def test_a_new_part_is_as_loud_at_its_seams_as_the_original() -> None:
    original = noise(0, 8000)
    original[4000:] *= 0.6
    made = 1.5 * original
    joined = join(original, made, [(2000, 6000)], RATE)
    inner = joined[2000:6000] / made[2000:6000]
    assert inner[0] == pytest.approx(1 / 1.5, rel=0.02)
    assert inner[-1] == pytest.approx(1 / 1.5, rel=0.02)
    quiet = join(original, 0.001 * made, [(2000, 6000)], RATE)  # far below: not compared
    np.testing.assert_allclose(quiet[2000:6000], 0.001 * made[2000:6000], rtol=1e-5)
    loud = join(0.1 * original, made, [(2000, 6000)], RATE)
    ratio = np.abs(loud[3000] / made[3000])
    assert 20 * np.log10(ratio) == pytest.approx(-MAX_GAIN_DB, abs=0.1)


def test_the_power_of_unrelated_sounds_is_constant_across_a_seam() -> None:
    power = np.zeros(2000)
    for seed in range(200):
        joined = join(noise(seed, 2000), noise(1000 + seed, 2000), [(1000, 2000)], RATE)
        power += joined.astype(np.float64) ** 2
    fade, before = power[1000 - FADE : 1000].mean(), power[: 1000 - FADE].mean()
    assert fade == pytest.approx(before, rel=0.05)


def test_repaint_keeps_the_recording_before_and_after_the_region(model: Model) -> None:
    clip = noise(3, 30 * COLUMN)
    time = 12 * COLUMN / RATE, 16 * COLUMN / RATE
    for sound in edit.repaint(model, clip, time, n=3, **QUICK):
        begin, end = 12 * COLUMN, 16 * COLUMN
        assert np.array_equal(sound.waveform[: begin - FADE], clip[: begin - FADE])
        assert np.array_equal(sound.waveform[end + FADE :], clip[end + FADE :])
        assert not np.array_equal(sound.waveform[begin:end], clip[begin:end])
        assert sound.kept is not None
        assert sound.kept.spans == ((begin, end),)


def test_repaint_of_a_band_keeps_other_frequencies(
    model: Model, voice: Callable[..., Waveform]
) -> None:
    clip = noise(3, 40 * COLUMN)
    (sound,) = edit.repaint(model, clip, None, (2500.0, 4000.0), **QUICK)
    spectra: list[npt.NDArray[Any]] = [np.fft.rfft(x) for x in (clip, sound.waveform)]
    hertz = np.fft.rfftfreq(len(clip), 1 / RATE)
    error = [
        np.square(np.abs(spectra[1] - spectra[0]))[part].mean()
        / np.square(np.abs(spectra[0]))[part].mean()
        for part in (hertz < 1500, hertz > 2500)
    ]
    assert error[0] < 0.01
    assert error[1] > 0.3


def test_a_continuation_keeps_the_recording_up_to_its_last_half_window(model: Model) -> None:
    clip = noise(3, 20 * COLUMN + 5)
    kept = (len(clip) - 16) // COLUMN * COLUMN
    for seconds in (None, 0.2):
        for sound in edit.extend(model, clip, seconds, n=2, **QUICK):
            assert np.array_equal(sound.waveform[: kept - FADE], clip[: kept - FADE])
            assert len(sound.waveform) == sound.encoded.num_samples
            assert abs(sound.waveform[-1]) < 1e-3


def test_where_all_is_new_nothing_is_kept(model: Model) -> None:
    clip = noise(3, 10 * COLUMN)
    (sound,) = edit.repaint(model, clip, (0.0, 1.0), **QUICK)
    assert sound.kept is not None
    gain = min(1.0, HIGHEST / np.abs(sound.kept.made).max())
    np.testing.assert_allclose(sound.waveform, gain * sound.kept.made, rtol=1e-5)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16"])
def test_an_edited_file_keeps_the_samples_of_its_recording_whatever_the_model_reads(
    model: Model, tmp_path: Path, subtype: str
) -> None:
    # Beyond full scale or not, with a DC offset that reading removes.
    clip = (6 if subtype == "FLOAT" else 0.5) * noise(3, 30 * COLUMN) + np.float32(0.4)
    path = tmp_path / "clip.wav"
    soundfile.write(path, clip, RATE, subtype=subtype)
    stored, _ = soundfile.read(path, dtype="float32")
    heard = read_recording(path, RATE)
    (painted,) = edit.repaint(model, heard, (12 * COLUMN / RATE, 16 * COLUMN / RATE), **QUICK)
    (longer,) = edit.extend(model, heard, 0.2, **QUICK)
    (little,) = edit.extend(model, heard, (len(heard) + 4) / RATE, **QUICK)
    assert len(little.waveform) == len(heard) + 4
    for sound in (painted, longer, little):
        assert sound.kept is not None
        ((begin, end),) = sound.kept.spans
        written, rate = edit.with_original(sound.kept, RATE, path)
        assert rate == RATE
        assert written.shape == (1, len(sound.waveform))
        assert np.array_equal(written[0, : begin - FADE], stored[: begin - FADE])
        assert np.array_equal(written[0, end + FADE :], stored[end + FADE : written.shape[1]])


def test_a_band_of_an_edited_file_keeps_its_other_frequencies_and_its_sides(
    model: Model, tmp_path: Path
) -> None:
    """The model is mono and knows nothing above 4 kHz; the file is in stereo, at twice the rate."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(3, 2 * 30 * COLUMN, 2), 2 * RATE, subtype="FLOAT")
    stored = soundfile.read(path, dtype="float32")[0].T
    heard = read_recording(path, RATE)
    time = 12 * COLUMN / RATE, 16 * COLUMN / RATE
    (sound,) = edit.repaint(model, heard, time, (2500.0, 4000.0), **QUICK)
    assert sound.kept is not None
    written, rate = edit.with_original(sound.kept, RATE, path)
    assert rate == 2 * RATE
    assert written.shape == stored.shape
    first, last = 2 * 12 * COLUMN - 2 * FADE, 2 * 16 * COLUMN + 2 * FADE
    assert np.array_equal(written[:, :first], stored[:, :first])
    assert np.array_equal(written[:, last:], stored[:, last:])
    np.testing.assert_allclose(written[0] - written[1], stored[0] - stored[1], atol=1e-6)
    middle = slice(2 * 12 * COLUMN, 2 * 16 * COLUMN)
    before, after = (np.abs(np.fft.rfft(x[0, middle])) for x in (stored, written))
    hertz = np.fft.rfftfreq(middle.stop - middle.start, 0.5 / RATE)
    changed = np.square(after - before)
    assert changed[hertz > 4500].mean() < 0.01 * changed[(hertz > 2600) & (hertz < 3900)].mean()
    assert changed[hertz < 1500].mean() < 0.05 * changed[(hertz > 2600) & (hertz < 3900)].mean()
