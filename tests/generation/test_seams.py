"""The seam of a loop, measured by its spectral flux."""

import numpy as np

from audiovq.generation.long import seam_flux

RATE = 8000


def noise(samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def circular(samples: int, seed: int) -> np.ndarray:
    """Noise, louder and quieter four times, that goes round without a seam."""
    envelope = 1.2 + np.sin(2 * np.pi * np.arange(samples) / samples * 4)
    return (noise(samples, seed) * envelope).astype(np.float32)


def test_a_circular_sound_has_no_seam_wherever_it_begins() -> None:
    ratios = [seam_flux(np.roll(circular(16_000, 0), 1000 * k), RATE) for k in range(16)]
    assert np.mean([ratio <= 1 for ratio in ratios]) > 0.7
    assert max(ratios) < 1.6


def test_a_jump_at_the_seam_is_found_in_mono_and_stereo() -> None:
    decay = np.exp(-np.arange(16_000) / 4000).astype(np.float32)
    jump = noise(16_000, 1) * decay
    assert seam_flux(jump, RATE) > 2
    assert seam_flux(np.stack([jump, jump]), RATE) == seam_flux(jump, RATE)
    assert np.isclose(seam_flux(3 * jump, RATE), seam_flux(jump, RATE), rtol=1e-4)


def test_a_loop_too_short_to_tell_has_none() -> None:
    assert seam_flux(noise(500, 0), RATE) == 0
    assert seam_flux(np.zeros(16_000, np.float32), RATE) == 0
