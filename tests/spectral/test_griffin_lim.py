"""Tests of STFT, Griffin-Lim and PGHI: inversion, padded batches, silence, quality, determinism."""

from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiovq.inspection.describe import load_librosa
from audiovq.spectral import pghi as pghi_module
from audiovq.spectral.griffin_lim import griffin_lim
from audiovq.spectral.pghi import pghi
from audiovq.spectral.stft import istft, num_frames, stft

N_FFT, HOP = 256, 64
LENGTHS = (
    0,
    1,
    10,
    999,
    8000,
)  # none, one sample, shorter than a window and a hop, odd, one second
FSDD = Path(__file__).resolve().parents[3] / "shared" / "fsdd" / "recordings"


def noise(num_samples: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, num_samples, generator=generator) * 0.3


def padded_batch(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    """Noise of each length, padded with zeros."""
    waveform = torch.zeros(len(lengths), max(lengths))
    for clip, length in enumerate(lengths):
        waveform[clip, :length] = noise(length, seed=clip)
    return waveform, torch.tensor(lengths)


def voice(num_samples: int = 8000, sample_rate: int = 8000) -> Tensor:
    """A chirp over twelve harmonics of a gliding pitch, fading in and out."""
    time = torch.arange(num_samples) / sample_rate
    end = num_samples / sample_rate
    pitch = 2 * torch.pi * (120 * time + 20 * time**2)
    sound = sum(torch.sin(k * pitch + k) / k for k in range(1, 13))
    sound = sound + 0.5 * torch.sin(2 * torch.pi * (500 * time + 1000 * time**2 / end))
    return (0.2 * sound * torch.sin(torch.pi * time / end)).float()[None]


def convergence(waveform: Tensor, magnitude: Tensor) -> float:
    """Spectral convergence in dB, lower is better: |STFT| of the result against `magnitude`."""
    error = stft(waveform, N_FFT, HOP).abs() - magnitude
    return float(20 * torch.log10(error.norm() / magnitude.norm()))


# --- STFT and its inverse ---------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(length=st.integers(0, 3000), overlap=st.sampled_from([3, 4, 6, 8]))
@example(length=0, overlap=4)
@example(length=1, overlap=4)
@example(length=10, overlap=4)
@example(length=999, overlap=4)
@example(length=8000, overlap=4)
def test_istft_inverts_stft(length: int, overlap: int) -> None:
    hop = N_FFT // overlap  # 85 and 42 do not divide the window
    waveform = noise(length)
    spectrum = stft(waveform, N_FFT, hop)
    assert spectrum.dtype == torch.complex64
    assert spectrum.shape == (1, N_FFT // 2 + 1, num_frames(length, hop))
    back = istft(spectrum, N_FFT, hop, torch.tensor([length]))
    assert back.shape == waveform.shape
    torch.testing.assert_close(back, waveform, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("n_fft", "hop"),
    [
        (16, 8),
        (16, 5),
        (18, 9),
        (64, 32),
        (250, 64),
        (256, 128),
        (300, 77),
        (512, 256),
        (1000, 500),
        (1024, 333),
        (2048, 1024),
        (2048, 1000),
        (4096, 2048),
    ],
)
def test_istft_inverts_stft_on_every_grid_as_exactly_as_rounding_allows(
    n_fft: int, hop: int
) -> None:
    """Each sample's error is that of single precision over the windows that cover it."""
    window = np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
    lengths = [k * hop + d for k in (1, 2, 5) for d in (-2, -1, 0, 1, hop // 2)] + [1, n_fft + 1]
    for length in lengths:
        covered = np.zeros(length + 2 * n_fft)
        for frame in range(num_frames(length, hop)):
            begin = n_fft + frame * hop - n_fft // 2
            covered[begin : begin + n_fft] += window**2
        waveform = noise(length)
        back = istft(stft(waveform, n_fft, hop), n_fft, hop, torch.tensor([length]))
        error = (back - waveform)[0].abs().numpy()
        allowed = 4e-6 + 2e-7 / np.sqrt(covered[n_fft : n_fft + length])
        assert (error <= allowed).all(), (length, float((error / allowed).max()))


@pytest.mark.parametrize("length", [1, 10, 999, 8000])
def test_stft_matches_librosa(length: int) -> None:
    waveform = noise(length)
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning, "n_fft=.* is too large")
        expected = load_librosa().stft(
            waveform[0].numpy(), n_fft=N_FFT, hop_length=HOP, pad_mode="constant"
        )
    torch.testing.assert_close(
        stft(waveform, N_FFT, HOP)[0], torch.from_numpy(expected), rtol=0, atol=1e-4
    )


def test_num_frames_of_ints_and_tensors() -> None:
    assert [num_frames(n, 64) for n in (0, 1, 63, 64, 8000)] == [1, 1, 1, 2, 126]
    assert num_frames(torch.tensor([0, 64]), 64).tolist() == [1, 2]


def test_stft_and_istft_are_differentiable() -> None:
    waveform = noise(500).requires_grad_()
    istft(stft(waveform, N_FFT, HOP), N_FFT, HOP, torch.tensor([500])).sum().backward()
    torch.testing.assert_close(waveform.grad, torch.ones(1, 500))


# --- A padded batch gives each clip the same result as alone -------------------------------------


def test_istft_of_a_padded_batch() -> None:
    waveform, num_samples = padded_batch()
    spectrum = stft(waveform, N_FFT, HOP)
    for clip, length in enumerate(LENGTHS):
        spectrum[clip, :, num_frames(length, HOP) :] = torch.nan  # must be ignored
    back = istft(spectrum, N_FFT, HOP, num_samples)
    torch.testing.assert_close(back, waveform, rtol=0, atol=1e-5)
    assert all((back[clip, length:] == 0).all() for clip, length in enumerate(LENGTHS))


@pytest.mark.parametrize("start", ["given", "random"])
def test_griffin_lim_of_a_padded_batch(start: str) -> None:
    waveform, num_samples = padded_batch((*LENGTHS, *range(2000, 20_000, 2500)))
    magnitude = stft(waveform, N_FFT, HOP).abs()
    phase = pghi(magnitude, N_FFT, HOP, num_samples) if start == "given" else None
    batch = griffin_lim(magnitude, N_FFT, HOP, num_samples, n_iter=6, phase=phase)
    for clip, length in enumerate(num_samples.tolist()):
        frames = slice(0, num_frames(length, HOP))
        alone = griffin_lim(
            magnitude[clip : clip + 1, :, frames],
            N_FFT,
            HOP,
            num_samples[clip : clip + 1],
            n_iter=6,
            phase=None if phase is None else phase[clip : clip + 1, :, frames],
        )
        torch.testing.assert_close(batch[clip, :length], alone[0], rtol=0, atol=2e-4)
        assert (batch[clip, length:] == 0).all()


def test_pghi_of_a_padded_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform, num_samples = padded_batch()
    magnitude = stft(waveform, N_FFT, HOP).abs()
    batch = pghi(magnitude, N_FFT, HOP, num_samples, tolerance=1e-2)
    assert batch.shape == magnitude.shape
    for clip, length in enumerate(LENGTHS):
        frames = num_frames(length, HOP)
        alone = pghi(magnitude[clip : clip + 1, :, :frames], N_FFT, HOP, tolerance=1e-2)
        torch.testing.assert_close(batch[clip, :, :frames], alone[0], rtol=0, atol=0)
        assert (batch[clip, :, frames:] == 0).all()
    for threads in (1, 3):
        monkeypatch.setattr(pghi_module, "max_threads", lambda threads=threads: threads)
        assert torch.equal(pghi(magnitude, N_FFT, HOP, num_samples, tolerance=1e-2), batch)


# --- Silence, edge cases, invalid arguments ------------------------------------------------------


def test_zero_magnitudes_give_silence() -> None:
    magnitude = torch.zeros(2, N_FFT // 2 + 1, 20)
    num_samples = torch.tensor([0, 1200])
    phase = pghi(magnitude, N_FFT, HOP, num_samples)
    assert phase.isfinite().all()
    for start in (None, phase):
        waveform = griffin_lim(magnitude, N_FFT, HOP, num_samples, n_iter=3, phase=start)
        assert waveform.shape == (2, 1200)
        assert (waveform == 0).all()


@pytest.mark.parametrize("hop", [32, 64, 85, 128])
def test_inconsistent_magnitudes_give_bounded_sound(hop: int) -> None:
    """Random magnitudes are not a valid STFT; they must not give a click at the clip's end."""
    num_samples = torch.tensor([hop * 19 + hop - 1])
    magnitude = torch.rand(1, 129, 20, generator=torch.Generator().manual_seed(0))
    waveform = griffin_lim(magnitude, N_FFT, hop, num_samples, n_iter=20)
    assert waveform.abs().max() < 3 * waveform[:, :-hop].abs().max()


def test_griffin_lim_without_iterations_is_istft() -> None:
    magnitude = stft(voice(), N_FFT, HOP).abs()
    phase = pghi(magnitude, N_FFT, HOP)
    num_samples = torch.tensor([8000])
    torch.testing.assert_close(
        griffin_lim(magnitude, N_FFT, HOP, num_samples, n_iter=0, phase=phase),
        istft(torch.polar(magnitude, phase), N_FFT, HOP, num_samples),
    )


def test_invalid_arguments_raise() -> None:
    good = torch.ones(1, 129, 5)
    n = torch.tensor([256])
    with pytest.raises(ValueError, match="n_fft must be even"):
        stft(noise(100), 255, 64)
    with pytest.raises(ValueError, match="hop_length must be from 1 to n_fft // 2 = 128, not 129"):
        stft(noise(100), 256, 129)
    with pytest.raises(ValueError, match=r"waveform must be .* not \(100,\)"):
        stft(noise(100)[0], 256, 64)
    with pytest.raises(ValueError, match=r"expected \(batch, 129 bins for n_fft 256"):
        istft(torch.ones(1, 128, 5, dtype=torch.complex64), 256, 64, n)
    with pytest.raises(ValueError, match=r"complex64, not torch\.float32"):
        istft(good, 256, 64, n)
    with pytest.raises(ValueError, match="have 6 frames, but only 5"):
        griffin_lim(good, 256, 64, torch.tensor([320]))
    with pytest.raises(ValueError, match=r"must be \(1,\) integers"):
        griffin_lim(good, 256, 64, torch.tensor([256.0]))
    with pytest.raises(ValueError, match="num_samples must be at least 0"):
        pghi(good, 256, 64, torch.tensor([-1]))
    with pytest.raises(ValueError, match="magnitude must be finite"):
        griffin_lim(-good, 256, 64, n)
    with pytest.raises(ValueError, match="magnitude must be finite"):
        pghi(good * torch.nan, 256, 64)
    with pytest.raises(ValueError, match="n_iter must be"):
        griffin_lim(good, 256, 64, n, n_iter=-1)
    with pytest.raises(ValueError, match="momentum must be"):
        griffin_lim(good, 256, 64, n, momentum=-0.1)
    with pytest.raises(ValueError, match="phase must have the shape"):
        griffin_lim(good, 256, 64, n, phase=torch.zeros(1, 129, 4))
    with pytest.raises(ValueError, match="phase must be finite"):
        griffin_lim(good, 256, 64, n, phase=good * torch.inf)
    with pytest.raises(ValueError, match="tolerance must be"):
        pghi(good, 256, 64, tolerance=1.0)


# --- Quality -------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_griffin_lim_converges_like_librosa(momentum: float) -> None:
    magnitude = stft(voice(), N_FFT, HOP).abs()
    num_samples = torch.tensor([8000])
    ours, theirs = [], []
    for seed in range(4):  # results vary more by random start than by implementation: compare means
        generator = torch.Generator().manual_seed(seed)
        sound = griffin_lim(
            magnitude, N_FFT, HOP, num_samples, momentum=momentum, generator=generator
        )
        ours.append(convergence(sound, magnitude))
        reference = load_librosa().griffinlim(
            magnitude[0].numpy(),
            n_iter=32,
            hop_length=HOP,
            n_fft=N_FFT,
            momentum=momentum,
            pad_mode="constant",
            length=8000,
            random_state=seed,
        )
        theirs.append(convergence(torch.from_numpy(reference)[None], magnitude))
    print(f"dB: ours {ours}, librosa {theirs}")
    assert np.mean(ours) <= np.mean(theirs) + 0.5


def test_pghi_initialisation_beats_random() -> None:
    magnitude = stft(voice(), N_FFT, HOP).abs()
    num_samples = torch.tensor([8000])
    phase = pghi(magnitude, N_FFT, HOP)
    for n_iter in (0, 8, 32):
        random = griffin_lim(magnitude, N_FFT, HOP, num_samples, n_iter=n_iter)
        started = griffin_lim(magnitude, N_FFT, HOP, num_samples, n_iter=n_iter, phase=phase)
        print(n_iter, convergence(random, magnitude), convergence(started, magnitude))
        assert convergence(started, magnitude) < convergence(random, magnitude) - 3


@pytest.mark.parametrize(("sweep", "most"), [(0, -29.0), (1000, -31.0), (3000, -28.0)])
def test_pghi_of_a_sinusoid_and_of_chirps(sweep: int, most: float) -> None:
    time = torch.arange(8000) / 8000
    waveform = 0.5 * torch.sin(2 * torch.pi * (440 * time + sweep / 2 * time**2))[None]
    magnitude = stft(waveform, N_FFT, HOP).abs()
    spectrum = torch.polar(magnitude, pghi(magnitude, N_FFT, HOP))
    reached = convergence(istft(spectrum, N_FFT, HOP, torch.tensor([8000])), magnitude)
    print(f"{reached:.1f} dB")
    assert reached < most


def test_pghi_is_invariant_to_scale() -> None:
    magnitude = stft(voice(), N_FFT, HOP).abs()
    difference = pghi(magnitude, N_FFT, HOP) - pghi(magnitude * 2**-20, N_FFT, HOP)
    assert torch.polar(torch.ones(()), difference).real.mean() > 0.999


def test_the_same_seed_gives_the_same_sound() -> None:
    magnitude = stft(voice(2000), N_FFT, HOP).abs()
    num_samples = torch.tensor([2000])

    def make(seed: int | None) -> tuple[Tensor, Tensor]:
        def generator() -> torch.Generator | None:
            return None if seed is None else torch.Generator().manual_seed(seed)

        return (
            griffin_lim(magnitude, N_FFT, HOP, num_samples, n_iter=2, generator=generator()),
            pghi(magnitude, N_FFT, HOP, tolerance=0.1, generator=generator()),
        )

    for seed in (None, 1):
        for first, second in zip(make(seed), make(seed), strict=True):
            assert torch.equal(first, second)
    for first, second in zip(make(1), make(2), strict=True):
        assert not torch.equal(first, second)


def test_the_kernel_is_compiled_once_for_all_magnitudes() -> None:
    """Not a second time at the first call, which would be in several threads."""
    pghi_module._heap_kernel.cache_clear()
    for dtype in (torch.float32, torch.float64):
        pghi(stft(noise(8000), N_FFT, HOP).abs().to(dtype), N_FFT, HOP)
    assert len(pghi_module._heap_kernel().signatures) == 1


def test_pghi_works_without_a_writable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a read-only installation numba raises RuntimeError."""
    compile_function, asked = numba.njit, []

    def njit(cache: bool, nogil: bool) -> object:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_function(nogil=nogil)

    monkeypatch.setattr(numba, "njit", njit)
    kernel = pghi_module._heap_kernel.__wrapped__()
    assert asked == [True, False]
    # By hand, on two frames of two bins: the loudest path to each cell, never across a frame's edge.
    time_step, bin_step = np.array([1.0, 3.0, 5.0, 7.0]), np.array([10.0, 20.0, 30.0, 40.0])
    for loudest_first, expected in (
        ([0, 1, 3, 2], [0.0, 15.0, 3.0, 20.0]),
        ([1, 3, 0, 2], [-15.0, 0.0, -30.0, 5.0]),
        ([2, 0, 3, 1], [-3.0, 12.0, 0.0, 35.0]),
        ([1, 2], [0.0, 0.0, 0.0, 0.0]),  # two islands
    ):
        total = np.zeros(4)
        kernel(np.array(loudest_first, np.int32), 2, time_step, bin_step, total, 0)
        assert total.tolist() == expected
    given = np.array([100.0, 200.0, 0.0, 0.0])  # the first frame is known
    kernel(np.array([3, 1, 0, 2], np.int32), 2, time_step, bin_step, given, 2)
    assert given.tolist() == [100.0, 200.0, 170.0, 205.0]


def test_pghi_and_griffin_lim_on_real_speech() -> None:
    if not FSDD.is_dir():
        pytest.skip(f"no recordings in {FSDD}")
    pesq = pytest.importorskip("pesq").pesq
    soundfile = pytest.importorskip("soundfile")
    files = sorted(FSDD.glob("*_jackson_[0-4].wav")) + sorted(FSDD.glob("*_theo_[0-4].wav"))
    clips = [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]
    num_samples = torch.tensor([len(clip) for clip in clips])
    waveform = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    magnitude = stft(waveform, N_FFT, HOP).abs()
    phase = pghi(magnitude, N_FFT, HOP, num_samples)
    back = griffin_lim(magnitude, N_FFT, HOP, num_samples, n_iter=8, phase=phase)

    def joined(batch: Tensor) -> np.ndarray:
        pause = torch.zeros(800)
        parts = zip(batch, num_samples.tolist(), strict=True)
        return torch.cat([torch.cat([clip[:length], pause]) for clip, length in parts]).numpy()

    score = pesq(8000, joined(waveform), joined(back), "nb")
    print(f"PESQ {score:.3f}")
    assert score >= 4.25
