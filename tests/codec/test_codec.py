"""Encoding and decoding keep order, length and level, and do not depend on the batch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import AUTOENCODER, changed, shake, tiny_model
from torch import Tensor, nn

from audiovq.codec import codec
from audiovq.codec import windows as codec_windows
from audiovq.codec.windows import Encoded, Limits
from audiovq.config.autoencoder import AutoencoderConfig
from audiovq.config.sampling import Inversion
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.models.autoencoder.autoencoder import Autoencoder
from audiovq.models.entropy.context_model import ContextModel
from audiovq.models.entropy.context_tables import ContextTables, to_integers
from audiovq.models.model import Model
from audiovq.spectral import inversion
from audiovq.spectral.spectrogram import Spectrogram
from audiovq.spectral.stft import num_frames, stft

Waveform = npt.NDArray[np.float32]
HOP = 8


class Exact(nn.Module):
    """An autoencoder whose codes are the cells themselves, in steps of 1/255."""

    stride = (1, 1)
    reach = 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def num_columns(self, frames: Tensor) -> Tensor:
        return frames

    def latents(self, spectrogram: Tensor, frames: Tensor) -> Tensor:
        return spectrogram

    def nearest(self, latents: Tensor, num_columns: Tensor) -> Tensor:
        return (latents * 255).round().long()

    def decode(self, codes: Tensor, num_columns: Tensor, decoder: Any = None) -> Tensor:
        return codes.float() / 255


@pytest.fixture(scope="module")
def model() -> Model:
    """Networks with random weights: they give noise, but of the right length and position."""
    return tiny_model()


@pytest.fixture(scope="module")
def exact() -> Model:
    """A model with almost lossless codes."""
    made: Any = tiny_model()
    made.spectrogram = Spectrogram(SpectrogramConfig.for_rate(8000))
    made.autoencoder = Exact()
    return made


def noises(*lengths: int) -> list[Waveform]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.1, n).astype(np.float32) for n in lengths]


def level_db(waveform: Waveform) -> float:
    return float(10 * np.log10(np.square(waveform, dtype=np.float64).mean()))


def same(a: Encoded, b: Encoded) -> bool:
    return torch.equal(a.codes, b.codes) and (a.level, a.num_samples) == (b.level, b.num_samples)


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(0, 400), max_size=5))
@pytest.mark.parametrize("batch_frames", [1, 70, inversion.BATCH_FRAMES])
def test_any_batch_size_keeps_lengths_order_and_codes(
    model: Model, batch_frames: int, lengths: list[int]
) -> None:
    waveforms = noises(*lengths)
    limits = Limits(batch_frames=batch_frames)
    encoded = codec.encode(model, waveforms, limits=limits)
    decoded = codec.decode(model, encoded, inversion=Inversion("griffin-lim", 1), limits=limits)
    assert [e.num_samples for e in encoded] == [len(w) for w in decoded] == lengths
    for one, waveform, made in zip(encoded, waveforms, decoded, strict=True):
        columns = -(-num_frames(len(waveform), HOP) // 4)
        assert one.codes.shape == (1, 2, columns)
        assert not one.codes.is_floating_point()
        assert isinstance(one.level, int)
        assert made.dtype == np.float32
        assert bool(np.isfinite(made).all())
        assert same(one, codec.encode(model, [waveform])[0]), "alone as in a batch"


def test_a_sound_decoded_alone_and_in_a_batch_is_the_same(model: Model) -> None:
    encoded = codec.encode(model, noises(300, 40, 1000, 7))
    together = codec.decode(model, encoded)
    for one, made in zip(encoded, together, strict=True):
        (alone,) = codec.decode(model, [one])
        np.testing.assert_allclose(made, alone, atol=1e-2 * float(np.abs(alone).max()))


def test_a_sound_above_full_scale_is_scaled_down_to_it_in_windows_or_whole(model: Model) -> None:
    (noise,) = noises(400)
    noise /= np.abs(noise).max()
    whole, loud = codec.encode(model, [noise, np.float32(4) * noise])
    assert same(whole, loud)
    assert same(
        whole, codec.encode(model, [np.float32(4) * noise], limits=Limits(batch_frames=1))[0]
    )


def test_different_sounds_have_different_codes(model: Model) -> None:
    first, second = codec.encode(model, noises(300, 300))
    assert not torch.equal(first.codes, second.codes)
    assert len(first.codes.unique()) > 2, "the test needs codes that show something"


@pytest.mark.parametrize("lengths", [[5], [5, 3, 9, 1, 7, 2, 80, 4], [100] * 9, []])
@pytest.mark.parametrize("batch_frames", [1, 5, 30, 10_000])
def test_batches_hold_every_index_once_and_no_more_frames_than_allowed(
    lengths: list[int], batch_frames: int
) -> None:
    batches = inversion.batches(lengths, 4, batch_frames)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        frames = len(batch) * max(1 + lengths[i] // 4 for i in batch)
        assert frames <= batch_frames or len(batch) == 1


def test_silence_is_decoded_to_silence(model: Model, exact: Model) -> None:
    silence = np.zeros(500, np.float32)
    (decoded,) = codec.decode(model, codec.encode(model, [silence]))
    assert float(np.abs(decoded).max()) < 1e-3, "even with random weights"
    encoded = codec.encode(exact, [silence, *noises(500)])
    assert encoded[0].level == exact.spectrogram.config.num_levels - 1
    nothing, something = codec.decode(exact, encoded)
    assert not nothing.any()
    assert something.any()


@pytest.mark.parametrize("phase", ["pghi", "griffin-lim"])
def test_a_decoded_sound_has_the_length_and_level_of_the_original(
    exact: Model, voice: Any, phase: Any
) -> None:
    loud = voice(0.5)
    sounds = [loud, 0.01 * voice(0.31, 200.0), voice(0.1)[:777]]
    encoded = codec.encode(exact, sounds)
    assert len({e.level for e in encoded}) > 1
    decoded = codec.decode(exact, encoded, inversion=Inversion(phase))
    config = exact.spectrogram.config
    for before, after in zip(sounds, decoded, strict=True):
        assert len(after) == len(before)
        assert level_db(after) == pytest.approx(level_db(before), abs=1.0)
        spectra = [exact.spectrogram(torch.from_numpy(w)[None])[0] for w in (before, after)]
        error = float((spectra[0] - spectra[1]).square().mean().sqrt()) * config.range_db
        assert error < 6, "RMS difference of the spectrograms in dB"


def test_a_level_scales_the_sound_and_changes_nothing_else(model: Model) -> None:
    (one,) = codec.encode(model, noises(400))
    softer = Encoded(one.codes, one.level + 4, one.num_samples)
    first, second = codec.decode(model, [one, softer])
    step = model.spectrogram.config.level_step_db
    np.testing.assert_allclose(second, first * 10 ** (-4 * step / 20), rtol=1e-3, atol=1e-7)


def test_the_seed_decides_the_phases(model: Model) -> None:
    encoded = codec.encode(model, noises(300, 200))
    options: dict[str, Any] = {"inversion": Inversion("griffin-lim", 2)}
    first = codec.decode(model, encoded, seed=1, **options)
    again = codec.decode(model, encoded, seed=1, **options)
    other = codec.decode(model, encoded, seed=2, **options)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


AUTOENCODERS = [
    AUTOENCODER,
    changed(AUTOENCODER, network="residual"),
    changed(AUTOENCODER, network="conv", filters=(8, 8), kernels=(5, 3), strides=(2, 2)),
]


@pytest.mark.parametrize("rate_weight", [0.0, 0.3])
@pytest.mark.parametrize("config", AUTOENCODERS, ids=lambda c: c.network.kind)
def test_a_long_sound_has_the_same_codes_in_windows_and_whole(
    config: AutoencoderConfig, rate_weight: float
) -> None:
    model = tiny_model()
    model.autoencoder = Autoencoder(config, model.spectrogram.config.bins).eval()
    shake(model.autoencoder)
    books = model.autoencoder.quantizer.codebooks()
    network = ContextModel(torch.stack([b.embedding for b in books]), model.autoencoder.rows)
    levels = torch.ones(model.spectrogram.config.num_levels)
    model.context = ContextTables(to_integers(network, levels, torch.ones(4), 1.0, 0.1))
    (sound,) = noises(20_000)
    sound[:9000] *= 0.1  # its loudest cell, and so its level, lies in a late window
    (whole,) = codec.encode(model, [sound], rate_weight=rate_weight)
    options: dict[str, Any] = {"rate_weight": rate_weight, "limits": Limits(batch_frames=100)}

    def blocks() -> list[Waveform]:
        return np.split(sound, [1, 700, 12_345, 12_345])

    assert same(codec_windows.encode_blocks(model, blocks, **options), whole)
    assert same(codec.encode(model, [sound], **options)[0], whole)


@settings(max_examples=25, deadline=None)
@given(total=st.integers(0, 300), inner=st.integers(1, 50), margin=st.integers(0, 60))
def test_windows_cover_every_sample_with_margins(total: int, inner: int, margin: int) -> None:
    sound = np.arange(total, dtype=np.float32)
    for cut in ([], [3, 3, 40], list(range(0, total, 7))):
        windows = list(codec_windows._windows(np.split(sound, cut), inner, margin))
        assert [start for _, _, start in windows] == list(range(0, total + 1, inner))
        for samples, begin, start in windows:
            expected = sound[max(0, start - margin) : start + inner + margin]
            assert begin == max(0, start - margin)
            np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize("phase", ["pghi", "griffin-lim"])
def test_there_is_no_seam_between_windows(
    exact: Model, voice: Any, phase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = exact.spectrogram.config
    sound = np.concatenate([voice(0.6, pitch) for pitch in range(90, 240, 10)])
    (encoded,) = codec.encode(exact, [sound])
    (whole,) = codec.decode(exact, [encoded], inversion=Inversion(phase))
    wanted = stft(torch.from_numpy(sound)[None], config.n_fft, config.hop_length)[0].abs()
    limits = Limits(window_frames=200)
    step = limits.window_frames - limits.overlap_frames
    seams = torch.arange(limits.overlap_frames // 4 + step, wanted.shape[1] - 40, step)
    near = (seams[:, None] + torch.arange(-4, 12)).flatten()

    def error(waveform: Waveform) -> Tensor:
        """Of each frame, in dB relative to the mean power."""
        made = stft(torch.from_numpy(waveform)[None], config.n_fft, config.hop_length)[0].abs()
        return 10 * torch.log10((made - wanted).square().sum(dim=0) / wanted.square().sum(0).mean())

    (joined,) = codec.decode(exact, [encoded], inversion=Inversion(phase), limits=limits)
    assert len(joined) == len(sound)
    assert float(error(joined)[near].mean()) < float(error(whole).mean()) + 1.0
    monkeypatch.setattr(torch.Tensor, "angle", lambda x: torch.zeros(x.shape))
    (torn,) = codec.decode(exact, [encoded], inversion=Inversion(phase), limits=limits)
    assert float(error(torn)[near].mean()) > float(error(joined)[near].mean()) + 2.0


def test_no_sounds_give_no_sounds(model: Model) -> None:
    assert codec.encode(model, []) == []
    assert codec.decode(model, []) == []
