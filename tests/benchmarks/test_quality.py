"""Quality benchmark: a copy scores best, delays are found, results are merged."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny_models import tiny_model

from audiovq.config.sampling import SamplingConfig

Waveform = npt.NDArray[np.float32]

pytest.importorskip("pesq")
pytest.importorskip("pystoi")
pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.fixture
def clips(voice: Callable[..., Waveform]) -> list[Waveform]:
    return [voice(seconds, pitch) for seconds in (0.7, 0.3, 0.9) for pitch in (110.0, 190.0)]


def test_a_copy_scores_best_and_noise_lowers_all_scores(clips: list[Waveform]) -> None:
    from benchmarks.quality.scores import score

    speakers = ["ada", "bob"] * 3
    same = score(clips, clips, speakers)
    assert same.pesq > 4.5
    assert same.stoi == pytest.approx(1, abs=1e-3)
    assert same.estoi == pytest.approx(1, abs=1e-3)
    assert same.lsd_db == 0
    noise = np.random.default_rng(0).normal(0, 0.05, 8000).astype(np.float32)
    worse = score(clips, [clip + noise[: len(clip)] for clip in clips], speakers)
    assert worse.pesq < same.pesq - 0.5
    assert worse.estoi < 0.95
    assert worse.lsd_db > 5


def test_labels_that_new_sounds_leave_open_are_not_counted() -> None:
    from benchmarks.quality.edits import requested_labels

    sounds: list[Any] = [SimpleNamespace(labels={"digit": "1"}), SimpleNamespace(labels={})]
    assert requested_labels(tiny_model(), sounds).tolist() == [[1, 3], [2, 3]]


def test_cut_is_the_inverse_of_join(clips: list[Waveform]) -> None:
    from benchmarks.quality.scores import PAUSE, cut, join

    joined = join(clips)
    assert len(joined) == sum(map(len, clips)) + (len(clips) - 1) * PAUSE
    for clip, again in zip(clips, cut(joined, [len(c) for c in clips]), strict=True):
        assert np.array_equal(clip, again)


@pytest.mark.parametrize("lag", [-37, 0, 211])
def test_a_delay_is_found_and_removed(lag: int, clips: list[Waveform]) -> None:
    from benchmarks.quality.peers import MAX_DELAY, aligned, delay
    from benchmarks.quality.scores import join

    # Silence at both ends, so that cutting it off loses nothing.
    original = np.pad(join(clips), MAX_DELAY)
    late = np.roll(original, lag)
    assert delay(original, late) == lag
    assert np.array_equal(aligned(original, late), original)
    assert len(aligned(original, late[:-500])) == len(original)


def test_the_delay_of_a_vocoder_is_found_from_its_envelope(clips: list[Waveform]) -> None:
    from benchmarks.quality.peers import MAX_DELAY, delay
    from benchmarks.quality.scores import join

    original = np.pad(join(clips), MAX_DELAY)
    signs = np.random.default_rng(0).choice([-1, 1], len(original)).astype(np.float32)
    assert delay(original, np.roll(original * signs, 160)) == pytest.approx(160, abs=8)


def test_a_missing_codec_is_named() -> None:
    from benchmarks.quality import peers

    with pytest.raises(peers.Missing, match="no-such-program is not installed"):
        peers._run(b"", "no-such-program")


def test_results_are_read_back_and_new_points_replace_old_ones(tmp_path: Path) -> None:
    from benchmarks.quality.points import (
        UNSEEN,
        Point,
        Results,
        Skipped,
        averaged,
        plot,
        read,
        table,
        write,
    )
    from benchmarks.quality.scores import Scores

    path = tmp_path / "results.json"
    scores = Scores(3.0, 0.9, 0.8, 8.0)
    alone = [Point("ours", UNSEEN, rate, scores, who) for rate, who in ((900, "a"), (1100, "b"))]
    first = Results("digits", 2, 1.5).plus(alone[0], Skipped("Opus 6k", "is not installed"))
    write(path, first)
    assert read(path) == first
    opus = Point("Opus 6k", "Opus", 6000.0, scores)
    later = Results("digits", 2, 1.5).plus(
        alone[1], opus, dataclasses.replace(alone[0], scores=Scores(4.0, 0.9, 0.8, 8.0))
    )
    both = write(path, later)
    assert (len(both.points), both.skipped) == (3, ())
    mean, other = averaged(both.points)
    assert (mean.bits_per_second, mean.scores.pesq) == (1000, 3.5)
    assert other == opus
    assert "| Opus 6k | 6,000 | 3.00 |" in table(both)
    plot(both, tmp_path / "picture.png")
    assert 1_000 < (tmp_path / "picture.png").stat().st_size <= 100_000


def test_leaving_out_a_speaker_excludes_her_files_and_all_test_files_from_training() -> None:
    from benchmarks.quality.quality import held_out

    names = [f"{d}_{s}_{take}.wav" for d in range(10) for s in ("ada", "bob") for take in range(50)]
    training = [name for name in names if not re.search(held_out("ada"), name)]
    assert training == [f"{d}_bob_{take}.wav" for d in range(10) for take in range(5, 50)]
    assert len([name for name in names if not re.search(held_out(None), name)]) == 900


def test_unseen_words_are_excluded_from_training_and_are_the_only_ones_scored() -> None:
    from benchmarks.quality.quality import LEARNT_WORDS, OTHER_WORDS, Clips, held_out

    names = [f"{d}_{s}_{take}.wav" for d in range(10) for s in ("ada", "bob") for take in range(50)]
    for without, words in ((OTHER_WORDS, LEARNT_WORDS), (LEARNT_WORDS, OTHER_WORDS)):
        training = [name for name in names if not re.search(held_out(without), name)]
        assert training == [
            n for n in names if n[0] in words and int(n.split("_")[2].removesuffix(".wav")) > 4
        ]
    assert sorted(LEARNT_WORDS + OTHER_WORDS) == list("0123456789")
    silence = [np.zeros(8, np.float32)] * len(names)
    scored = Clips(names, ["ada"] * len(names), silence).saying(OTHER_WORDS)
    assert {name[0] for name in scored.names} == set(OTHER_WORDS)


def test_a_variable_rate_is_computed_over_the_stream_and_over_the_recordings(
    clips: list[Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.quality import quality
    from benchmarks.quality.peers import FLUSH, RATE, Peer
    from benchmarks.quality.scores import PAUSE

    peers = [
        Peer(kind, kind, lambda data: (data, 9000.0), kind == "vbr") for kind in ("cbr", "vbr")
    ]
    monkeypatch.setattr(quality.Clips, "score", lambda self, others: None)
    names = [f"{i}_ada_0.wav" for i in range(len(clips))]
    recordings = quality.Clips(names, ["ada"] * len(clips), clips)
    constant, variable = quality.measure_codecs(recordings, peers=peers)
    samples = sum(map(len, clips))
    stream = samples + PAUSE * (len(clips) - 1) + FLUSH
    assert isinstance(constant, quality.Point)
    assert isinstance(variable, quality.Point)
    assert constant.bits_per_second == variable.bits_per_second == round(9000 * RATE / stream, 1)
    assert constant.recordings_bits_per_second is None
    assert variable.recordings_bits_per_second == round(9000 * RATE / samples, 1)


def test_the_chosen_setting_has_the_least_distance_among_the_most_accurate() -> None:
    from benchmarks.quality.sampling_defaults import chosen

    rows = [
        {"accuracy": {"digit": digit, "speaker": 1.0}, "frechet_distance": distance}
        for digit, distance in ((0.99, 5.0), (0.98, 4.0), (0.90, 3.0))
    ]
    assert chosen(rows) is rows[1]


def test_matched_sounds_have_the_same_labels_and_none_is_used_twice() -> None:
    from benchmarks.quality.new_sounds import matched

    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, (60, 2)))
    others = torch.from_numpy(rng.integers(0, 3, (40, 2)))
    ours, theirs = matched(labels, others, rng)
    assert torch.equal(labels[ours], others[theirs])
    assert len(ours) == len(ours.unique()) >= 20
    assert len(theirs) == len(theirs.unique())
    again, _ = matched(labels, others, rng)
    assert not torch.equal(ours, again)


def test_sounds_without_common_labels_are_compared_as_they_are() -> None:
    from benchmarks.quality.new_sounds import matched

    rng = np.random.default_rng(0)
    ours, theirs = matched(torch.zeros(30, 1), torch.ones(20, 1), rng)
    assert len(ours) == len(theirs) == len(ours.unique()) == len(theirs.unique()) == 20


def test_the_second_judge_does_not_learn_a_third_of_each_kind() -> None:
    from benchmarks.quality.new_sounds import held_back

    labels = torch.tensor([0] * 9 + [1] * 30)[:, None]
    held = held_back(labels, torch.arange(3, 39))  # of the first kind six clips
    assert labels[held, 0].bincount().tolist() == [2, 10]
    assert held.tolist() == sorted(set(held.tolist()))
    assert min(held.tolist()) >= 3


def test_flux_grows_with_uneven_ringing_and_not_with_decay() -> None:
    from benchmarks.quality.new_sounds import flux

    rate, rng = 22_050, np.random.default_rng(0)
    noise = rng.standard_normal(2 * rate)
    time = np.arange(2 * rate) / rate
    blotches = np.repeat(rng.uniform(0.05, 1, 20), rate // 10)
    even, decaying, blotchy = (
        flux([(noise * gain).astype(np.float32)], rate)[1]
        for gain in (np.ones_like(time), np.exp(-2 * time), blotches)
    )
    assert decaying == pytest.approx(even, rel=0.2)
    assert blotchy > 2 * even
    assert flux([noise[: rate // 5].astype(np.float32)], rate) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", SamplingConfig()),
        ("0.8:1", SamplingConfig(temperature=0.8, guidance=1.0)),
        ("1::24:masked", SamplingConfig(steps=24, order="masked")),
        (":0:::2", SamplingConfig(guidance=0.0, sweeps=2)),
    ],
)
def test_a_setting_of_sampling_leaves_out_what_is_default(
    text: str, expected: SamplingConfig
) -> None:
    from benchmarks.quality.new_sounds import parse

    assert parse(text) == expected
