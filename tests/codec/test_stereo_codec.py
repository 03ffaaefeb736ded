"""Stereo sounds through codes, archives and files."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from test_codec import Exact, noises, same
from tiny_models import AUTOENCODER, COUNTS, LABELS, PRIOR, shake

from audiovq.audio import reading
from audiovq.audio.channels import to_channels
from audiovq.codec import codec
from audiovq.codec.files import decode_files, encode_files, reconstruct_files
from audiovq.codec.windows import Limits, encode_blocks
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.models.checkpoint import load, save
from audiovq.models.model import Model, new_model
from audiovq.spectral.spectrogram import Spectrogram

Waveform = npt.NDArray[np.float32]
RATE = 8000
CONFIG = SpectrogramConfig(RATE, n_fft=64, hop_length=16, n_mels=16, channels=2)


@pytest.fixture(scope="module")
def model() -> Model:
    """Networks with random weights."""
    torch.manual_seed(0)
    made = new_model(CONFIG, AUTOENCODER, dict(LABELS), list(COUNTS), 64)
    shake(made.autoencoder)
    made.autoencoder.eval()
    made.prior = made.new_prior(PRIOR)
    made.prior.eval()
    return made


@pytest.fixture(scope="module")
def exact() -> Model:
    """A model with almost lossless codes."""
    made: Any = new_model(CONFIG, AUTOENCODER, {}, [], 64)
    made.spectrogram = Spectrogram(SpectrogramConfig(RATE, 256, 64, 64, channels=2))
    made.autoencoder = Exact()
    return made


def panned(waveform: Waveform, left: float, right: float) -> Waveform:
    return np.stack([waveform * np.float32(left), waveform * np.float32(right)])


def test_decoded_sounds_have_the_positions_of_the_recordings(exact: Model) -> None:
    (sound,) = noises(6000)
    for left, right in ((1, 1), (1, 0.3), (0, 1), (1, -1)):
        (decoded,) = codec.decode(exact, codec.encode(exact, [panned(sound, left, right)]))
        assert decoded.shape == (2, 6000)
        powers = np.square(decoded).sum(axis=1)
        wanted = np.square([left, right]).sum()
        np.testing.assert_allclose(
            powers / powers.sum(), np.square([left, right]) / wanted, atol=0.02
        )
        product = float((decoded[0] * decoded[1]).sum())
        assert product * left * right >= 0


def decibels(a: Waveform, b: Waveform) -> float:
    """Power of a over that of b."""
    return 10 * math.log10(float(np.square(a).mean()) / float(np.square(b).mean()))


def correlation(both: Waveform) -> float:
    left, right = both.astype(np.float64)
    return float(left @ right / math.sqrt(float(left @ left) * float(right @ right)))


def recoded(exact: Model, both: Waveform) -> Waveform:
    """A sound through codes."""
    (found,) = codec.decode(exact, codec.encode(exact, [both]))
    assert found.shape == both.shape
    return found


def test_opposite_channels_stay_loud_and_opposite(exact: Model) -> None:
    (sound,) = noises(6000)
    found = recoded(exact, panned(sound, 1, -1))
    assert correlation(found) < -0.97
    for side in found:
        assert decibels(side, sound) == pytest.approx(0, abs=1)
    assert decibels(found.mean(axis=0), sound) < -15


@pytest.mark.parametrize("silent", [0, 1])
def test_a_silent_channel_stays_30_db_quieter(exact: Model, silent: int) -> None:
    (sound,) = noises(6000)
    found = recoded(exact, panned(sound, silent, 1 - silent))
    assert decibels(found[silent], found[1 - silent]) < -30
    assert decibels(found[1 - silent], sound) == pytest.approx(0, abs=0.5)


def test_equal_channels_cost_what_a_mono_file_costs(
    exact: Model, model: Model, tmp_path: Path
) -> None:
    (sound,) = noises(3000)
    for one in (exact, model):
        mono, stereo = codec.encode(one, [sound, panned(sound, 1, 1)])
        assert same(mono, stereo)
    left, right = recoded(exact, panned(sound, 1, 1))
    np.testing.assert_array_equal(left, right)
    save(tmp_path / "model", model, "autoencoder", {})
    loaded, sizes = load(tmp_path / "model"), []
    for name, samples in (("mono", sound), ("both", np.stack([sound, sound], axis=1))):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", samples, RATE)
        encode_files(loaded, tmp_path / name, tmp_path / f"{name}.avq", say=lambda line: None)
        sizes.append((tmp_path / f"{name}.avq").stat().st_size)
    assert sizes[0] == sizes[1]


def test_a_surround_file_is_decoded_as_its_channels_are_mixed_by_the_standard(
    exact: Model, tmp_path: Path
) -> None:
    """ITU-R BS.775: left + .707 centre + .707 left surround; here of noises of different levels."""
    gains = 0.9, 0.2, 0.5, 1.0, 0.4, 0.3  # L R C LFE Ls Rs
    speakers = [g * one for g, one in zip(gains, noises(*(6 * [6000])), strict=True)]
    soundfile.write(tmp_path / "a.flac", 0.5 * np.stack(speakers, axis=1), RATE)
    waveform, _ = reading.read(tmp_path / "a.flac", channels=2)
    left, right = (
        math.sqrt(gains[i] ** 2 + gains[2] ** 2 / 2 + gains[i + 4] ** 2 / 2) for i in (0, 1)
    )
    found = recoded(exact, waveform)
    assert decibels(found[1], found[0]) == pytest.approx(20 * math.log10(right / left), abs=0.5)
    wanted = gains[2] ** 2 / 2 / (left * right)
    assert correlation(found) == pytest.approx(wanted, abs=0.05)


def test_a_channel_delayed_by_10_ms_is_as_loud_and_no_more_coherent(exact: Model) -> None:
    """In bands wider than 100 Hz the delay leaves no correlation, and the sum has the power of both."""
    (sound,) = noises(12_000)
    delayed = np.concatenate([np.zeros(RATE // 100, np.float32), sound])[: len(sound)]
    both = np.stack([sound, delayed])
    found = recoded(exact, both)
    assert decibels(found[1], found[0]) == pytest.approx(0, abs=0.3)
    assert correlation(found) == pytest.approx(correlation(both), abs=0.05)
    assert decibels(found.mean(axis=0), both.mean(axis=0)) == pytest.approx(0, abs=0.5)


def test_codes_and_waveforms_do_not_depend_on_the_batch(model: Model) -> None:
    sounds = [np.stack(noises(n, n)) for n in (900, 2000, 1500)]
    sounds = [np.stack([s[0], np.roll(s[0], 5) * np.float32(0.4)]) for s in sounds]
    together = codec.encode(model, sounds)
    decoded = codec.decode(model, together)
    for sound, encoded, waveform in zip(sounds, together, decoded, strict=True):
        (alone,) = codec.encode(model, [sound])
        assert same(alone, encoded)
        np.testing.assert_allclose(codec.decode(model, [alone])[0], waveform, atol=1e-3)


def test_long_sounds_in_blocks_have_the_codes_of_the_whole(model: Model) -> None:
    left, right = noises(9000, 9000)
    sound = np.stack([left, right * np.float32(0.5)])
    (whole,) = codec.encode(model, [sound])
    parts = [sound[:, begin : begin + 700] for begin in range(0, 9000, 700)]
    limits = Limits(batch_frames=128)
    assert same(encode_blocks(model, lambda: parts, limits=limits), whole)


def test_long_sounds_decoded_in_windows_keep_their_positions(exact: Model) -> None:
    (sound,) = noises(64 * 400)
    limits = Limits(window_frames=160, overlap_frames=32, fade_frames=4)
    (encoded,) = codec.encode(exact, [panned(sound, 1, 0.2)])
    (decoded,) = codec.decode(exact, [encoded], limits=limits)
    assert decoded.shape == (2, 64 * 400)
    powers = np.square(decoded).reshape(2, 10, -1).mean(axis=2)
    np.testing.assert_allclose(10 * np.log10(powers[1] / powers[0]), -14, atol=1.5)


def test_a_mono_model_averages_and_a_stereo_one_puts_in_the_middle(model: Model) -> None:
    sound = np.stack(noises(1000, 1000))
    mono_model = new_model(
        dataclasses.replace(CONFIG, channels=1), AUTOENCODER, {}, [], clip_frames=64
    )
    mono_model.autoencoder.eval()
    (a,), (b,) = (
        codec.encode(mono_model, [sound]),
        codec.encode(mono_model, [to_channels(sound, 1)]),
    )
    assert same(a, b)
    assert codec.decode(mono_model, [a])[0].shape == (1000,)


def test_files_are_written_in_stereo(exact: Model, model: Model, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    left, right = noises(3000, 3000)
    soundfile.write(tmp_path / "in" / "a.wav", np.stack([left, 0 * right], axis=1), RATE)
    soundfile.write(tmp_path / "in" / "b.wav", left, RATE)
    folder = tmp_path / "model"
    save(folder, model, "autoencoder", {})
    save(folder, model, "prior", {})
    loaded = load(folder)
    assert loaded.channels == 2
    encode_files(loaded, tmp_path / "in", tmp_path / "a.avq", say=lambda line: None)
    decode_files(loaded, tmp_path / "a.avq", tmp_path / "out", say=lambda line: None)
    reconstruct_files(loaded, tmp_path / "in", tmp_path / "again", say=lambda line: None)
    for name in ("a.wav", "b.wav"):
        decoded, again = (
            soundfile.read(tmp_path / part / name, always_2d=True)[0] for part in ("out", "again")
        )
        assert decoded.shape == (3000, 2)
        np.testing.assert_array_equal(decoded, again)
    waveform, _ = reading.read(tmp_path / "in" / "a.wav", channels=2)
    (found,) = codec.decode(exact, codec.encode(exact, [waveform]))
    assert np.square(found[1]).sum() < 0.01 * np.square(found[0]).sum()
