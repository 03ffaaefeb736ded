"""`numpy_spectrogram.Analysis` equals `Spectrogram`, clip by clip, within float16 rounding."""

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.spectral.numpy_spectrogram import CHUNK_SAMPLES, Analysis, Piece, to_float16
from audiovq.spectral.spectrogram import Spectrogram

Waveform = npt.NDArray[np.float32]
Voice = Callable[..., Waveform]
CONFIGS = [
    SpectrogramConfig.for_rate(8000),
    SpectrogramConfig.for_rate(8000, n_mels=0),
    SpectrogramConfig.for_rate(16_000, hop_length=100),
    SpectrogramConfig.for_rate(22_050, n_fft=510, hop_length=255, n_mels=0),
    SpectrogramConfig.for_rate(44_100),
]
configs = pytest.mark.parametrize("config", CONFIGS)


def sounds(voice: Voice, config: SpectrogramConfig) -> list[Waveform]:
    """Loud and quiet sounds, silence, and one longer than a chunk."""
    rate = config.sample_rate
    found = [
        np.float32(gain) * voice(seconds, 140, rate)
        for seconds, gain in (
            (0.1, 1),
            (0.5, 1e-3),
            (0.25, 2),
            (3.0, 0.1),
            (0.07, 1e-5),
            (0.3, 0.5),
        )
    ]
    return [*found, np.zeros(config.n_fft, np.float32)]


def spectrograms(
    waveforms: list[Waveform],
    config: SpectrogramConfig,
    frames: int,
    chunk_samples: int = CHUNK_SAMPLES,
) -> tuple[npt.NDArray[np.float16], list[int]]:
    batches = list(Analysis(config, chunk_samples).batches(map(Piece, waveforms), frames))
    images = np.concatenate([images for images, _ in batches])
    return images, [level for _, levels in batches for level in levels]


@configs
def test_numpy_matches_torch(voice: Voice, config: SpectrogramConfig) -> None:
    waveforms = sounds(voice, config)
    frames = 1 + max(map(len, waveforms)) // config.hop_length
    images, levels = spectrograms(waveforms, config, frames)
    assert images.shape == (len(waveforms), config.bins, frames)
    spectrogram = Spectrogram(config)
    for waveform, image, level in zip(waveforms, images, levels, strict=True):
        expected, expected_level = spectrogram(torch.from_numpy(waveform)[None])
        own_frames = expected.shape[3]
        assert level == int(expected_level)
        found = torch.from_numpy(image[:, :own_frames].astype(np.float32))
        # Rounding of float16, and of float32: at the floor, 80 dB down, that of the loudest bins.
        torch.testing.assert_close(found, expected[0, 0], atol=2**-12 + 2e-4, rtol=0)
        assert not image[:, own_frames:].any()


@configs
def test_packed_clips_do_not_affect_each_other(voice: Voice, config: SpectrogramConfig) -> None:
    waveforms = sounds(voice, config)
    frames = 1 + max(map(len, waveforms)) // config.hop_length
    together = spectrograms(waveforms, config, frames)
    pieces = list(map(Piece, waveforms))
    assert len(list(Analysis(config).batches(pieces, frames))) < len(waveforms)
    alone = spectrograms(waveforms, config, frames, chunk_samples=1)
    np.testing.assert_array_equal(together[0], alone[0])
    assert together[1] == alone[1]


@configs
def test_a_clip_cut_from_a_sound_has_the_frames_of_the_sound(
    voice: Voice, config: SpectrogramConfig
) -> None:
    """Consecutive clips of whole hops, with half a window around each, have the sound's frames."""
    hop, half_window = config.hop_length, config.n_fft // 2
    sound = 0.4 + voice(2.0, 140, config.sample_rate)  # loud where it is cut, and at its ends
    size = 12 * hop
    pieces = []
    for begin in range(0, len(sound) - size, size):
        first, last = max(0, begin - half_window), min(len(sound), begin + size + half_window)
        pieces.append(Piece(sound[first:last], begin - first, last - begin - size))
    images, levels = zip(*Analysis(config).batches(pieces, 13), strict=True)
    found = np.concatenate(images).astype(np.float32)
    decibels = Spectrogram(config).decibels(
        torch.from_numpy(sound)[None], torch.tensor([len(sound)])
    )
    level_db = Spectrogram(config).level_db(torch.tensor([*itertools.chain(*levels)]))
    for number, image in enumerate(found):
        true = decibels[0, :, 12 * number : 12 * number + 13] - level_db[number]
        true = (1 + true / config.range_db).clamp(0, 1)
        torch.testing.assert_close(torch.from_numpy(image), true, atol=1e-3, rtol=0)


def test_a_clip_cut_from_a_recording_and_inverted_is_not_louder_at_its_ends(voice: Voice) -> None:
    """Its first and last windows cover samples outside the clip, which must not add loudness."""
    config = CONFIGS[0]
    hop, half_window, begin = config.hop_length, config.n_fft // 2, 8000
    sound = voice(3.0, 140, 8000)
    size = 128 * hop - 1
    piece = Piece(sound[begin - half_window : begin + size + half_window], half_window, half_window)
    images, levels = next(Analysis(config).batches([piece], 128))
    back = Spectrogram(config).inverse(
        torch.from_numpy(images.astype(np.float32))[None],
        torch.tensor(levels),
        torch.tensor([size]),
    )[0]
    clip = torch.from_numpy(piece.cut_to_clip(piece.samples))
    for part in (slice(2 * hop), slice(-2 * hop, None), slice(None)):
        gain = 20 * torch.log10(back[part].norm() / clip[part].norm())
        assert abs(float(gain)) < 2


@given(st.integers(0, 0x3F800000))
def test_to_float16_rounds_to_nearest(bits: int) -> None:
    value = np.array([bits], np.uint32).view(np.float32)  # every float32 from 0 to 1
    exact, nearest = value.astype(np.float64), value.astype(np.float16).astype(np.float64)
    error = abs(to_float16(value).astype(np.float64) - exact)
    assert error <= abs(nearest - exact) + 2.0**-37


def test_to_float16_rounds_to_nearest_around_every_float16() -> None:
    steps = np.arange(0x3C01, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(to_float16(steps.astype(np.float32)), steps)
    above, below = steps[1025:], steps[1024:-1]  # from 2**-14 up: smaller values are rounded twice
    middles = (above.astype(np.float32) + below.astype(np.float32)) / 2
    np.testing.assert_array_equal(to_float16(middles * np.float32(1 + 1e-6)), above)
    np.testing.assert_array_equal(to_float16(middles * np.float32(1 - 1e-6)), below)
