"""Codes and sounds are the same whatever number of threads is chosen from step to step."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny_models import tiny_model

from audiovq.codec import codec
from audiovq.generation import copies, edit
from audiovq.runtime import threads
from audiovq.runtime.threads import ThreadTuner


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Two threads, and a tuner that changes the number at every step; the numbers of all steps."""
    numbers: list[int] = []

    def alternate(tuner: ThreadTuner, _units: float, _seconds: float) -> None:
        numbers.append(tuner.threads)
        tuner.threads = 3 - tuner.threads

    monkeypatch.setattr(threads, "_machine", threads._Machine())
    monkeypatch.setattr(threads, "_tuners", {})
    monkeypatch.setattr(ThreadTuner, "record", alternate)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield numbers
    torch.set_num_threads(before)


def test_the_codec_has_a_number_of_threads_for_each_size_and_the_same_codes(
    used: list[int],
) -> None:
    model = tiny_model()
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 4000)).astype(np.float32)
    steps = []
    for fixed in (None, 1):
        threads.fix_threads(fixed)
        encoded = [codec.encode(model, list(noise)) for _ in range(4)]
        images = [copies.decode_images(model, [s.codes for s in sounds]) for sounds in encoded]
        steps.append((encoded, images, len(used)))
    assert steps[0][2] >= 8
    assert set(used) == {1, 2}
    assert steps[1][2] == steps[0][2], "a fixed number is not tuned"
    for tuned, alone in zip(steps[0][0], steps[1][0], strict=True):
        assert all(torch.equal(a.codes, b.codes) for a, b in zip(tuned, alone, strict=True))
    for tuned, alone in zip(steps[0][1], steps[1][1], strict=True):
        for a, b in zip(tuned, alone, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_masked_sampling_chooses_its_threads(used: list[int]) -> None:
    model = tiny_model(masked=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    edit.vary(model, noise, 2)
    assert any(kind.startswith("masked sampling") for kind in threads._tuners)
    assert set(used) == {1, 2}
