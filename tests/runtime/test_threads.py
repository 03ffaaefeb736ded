"""The number of threads follows the machine's load, costs little, and can be fixed."""

from collections.abc import Callable, Iterator

import pytest
import torch

from audiovq.config.errors import AudiovqError
from audiovq.runtime import threads
from audiovq.runtime.threads import ThreadTuner

QUIET: dict[int, float] = {1: 0.036, 2: 0.024, 4: 0.016, 8: 0.012}
BUSY: dict[int, float] = {1: 0.036, 2: 0.084, 4: 0.12, 8: 0.2}
"""Seconds per step by number of threads, as measured for training steps on two cores."""


def work(
    tuner: ThreadTuner, seconds: float, per_step: dict[int, float], units: Callable[[int], float]
) -> tuple[float, list[int]]:
    """Steps for a time; returns the units done and the threads of each step."""
    end, done = tuner.now + seconds, 0.0
    used: list[int] = []
    while tuner.now < end:
        size = units(len(used))
        used.append(tuner.threads)
        tuner.record(size, size * per_step[tuner.threads])
        done += size
    return done, used


def even(_: int) -> float:
    return 1.0


def uneven(step: int) -> float:
    return (1.0, 3.0, 0.5, 2.0, 1.5)[step % 5]


@pytest.mark.parametrize("units", [even, uneven])
@pytest.mark.parametrize("limit", [2, 8])
@pytest.mark.parametrize("load", [QUIET, BUSY], ids=["quiet", "busy"])
def test_the_fastest_number_of_threads_is_found_and_held(
    load: dict[int, float], limit: int, units: Callable[[int], float]
) -> None:
    tuner = ThreadTuner(limit)
    work(tuner, 8, load, units)
    fastest = min((n for n in load if n <= limit), key=lambda n: load[n])
    done, used = work(tuner, 60, load, units)
    assert used.count(fastest) > 0.9 * len(used)
    assert done > 0.97 * 60 / load[fastest], "probes cost little"


def test_a_load_that_begins_is_noticed_within_a_second_and_its_end_within_the_longest_hold() -> (
    None
):
    tuner = ThreadTuner(2)
    work(tuner, 100, QUIET, even)
    assert tuner.threads == 2
    done, _ = work(tuner, 10, BUSY, even)
    assert done > 0.8 * 10 / BUSY[1]
    work(tuner, 60, BUSY, even)
    assert tuner.threads == 1
    work(tuner, threads.MAX_HOLD + 2, QUIET, even)
    done, used = work(tuner, 20, QUIET, even)
    assert used.count(2) > 0.9 * len(used)


def test_numbers_that_serve_equally_well_are_not_swapped() -> None:
    tuner = ThreadTuner(2)
    _, used = work(tuner, 60, {1: 0.0100, 2: 0.0101}, even)
    assert used.count(2) > 0.9 * len(used)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads, in a state of the module that ends with the test."""
    monkeypatch.setattr(threads, "_machine", threads._Machine())
    monkeypatch.setattr(threads, "_tuners", {})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_step_runs_with_the_tuners_number_and_leaves_it_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = 0.0
    used: list[int] = []
    monkeypatch.setattr("time.perf_counter", lambda: clock)
    for _ in range(2000):
        with threads.tuned_step("work"):
            used.append(torch.get_num_threads())
            clock += BUSY[used[-1]]
    assert set(used) == {1, 2}
    assert used[-100:].count(1) > 90
    assert threads.max_threads() == 2
    with threads.tuned_step("other work"):
        assert torch.get_num_threads() == 2, "each kind of work has its own number"


@pytest.mark.usefixtures("two_threads")
def test_a_fixed_number_is_used_by_every_step() -> None:
    threads.fix_threads(1)
    for _ in range(50):
        with threads.tuned_step("work"):
            assert torch.get_num_threads() == 1
    threads.fix_threads(2)
    for _ in range(50):
        with threads.tuned_step("work"):
            assert torch.get_num_threads() == 2
    with threads.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_releasing_a_fixed_number_restores_the_earlier_limit() -> None:
    for n in (1, 1, 4):
        threads.fix_threads(n)
        assert (threads.fixed_threads(), torch.get_num_threads()) == (n, n)
    threads.fix_threads(None)
    assert threads.fixed_threads() is None
    assert threads.max_threads() == torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_number_set_through_torch_is_the_new_limit() -> None:
    with threads.tuned_step("work"):
        pass
    torch.set_num_threads(1)
    for _ in range(50):
        with threads.tuned_step("work"):
            assert torch.get_num_threads() == 1


@pytest.mark.parametrize("n", [0, -1, 1025])
def test_a_number_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(AudiovqError, match=f"threads {n}: give 1 to 1,024"):
        threads.fix_threads(n)


@pytest.mark.usefixtures("two_threads")
def test_a_tuned_loop_has_all_its_steps_and_may_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: clock)
    used: list[int] = []
    for step in threads.tuned("loop", range(1000)):
        assert step == len(used)
        used.append(torch.get_num_threads())
        clock += BUSY[used[-1]]
        if step == 900:
            break
    assert len(used) == 901
    assert used[-100:].count(1) > 90
