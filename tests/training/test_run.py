"""All stages on real spectrograms: files, resuming, time limits, messages."""

import dataclasses
import io
import json
import math
import re
import shutil
import signal
import sys
import types
from collections import Counter
from pathlib import Path
from typing import cast

import pytest
import soundfile
import torch
from conftest import make_voice
from fast_training import CONFIG, stop_after, train, train_with_samples
from ticking_clock import use_ticking_clock
from tiny_models import changed

from audiovq.codec.tokenize import encode_split
from audiovq.config.errors import AudiovqError
from audiovq.config.settings import MaskedConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.batches import shift_and_stretch
from audiovq.dataset.dataset import Dataset, Split, known_ends
from audiovq.dataset.numbers import Numbers
from audiovq.models.checkpoint import load
from audiovq.models.model import new_model
from audiovq.pipeline import demo
from audiovq.preprocessing.preprocess import preprocess
from audiovq.runtime.files import lock_folder
from audiovq.runtime.threads import fix_threads
from audiovq.training import run
from audiovq.training.budget import TimeBudget
from audiovq.training.folder import is_finished, mark_finished, prepare_folder, trained_on
from audiovq.training.loop import Stopped, Trainer
from audiovq.training.stage import Limits
from audiovq.training.stages.autoencoder import describe_autoencoder
from audiovq.training.stages.plain import finished_line
from audiovq.training.stages.prior import describe_prior

MASKED = {
    "masked": MaskedConfig(dim=32, cell=16, layers=1, heads=2),
    "masked_training": CONFIG.prior_training,
    "masked_share": 0.3,
}
"""Settings that add a masked prior to CONFIG."""


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def straight(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A model trained without a stop, and the lines printed."""
    folder = tmp_path_factory.mktemp("straight") / "model"
    lines: list[str] = []
    train_with_samples(dataset, folder, CONFIG, device="cpu", say=lines.append)
    return folder, lines


def weights(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.safetensors"))}


def losses(folder: Path) -> list[tuple[str, int, float]]:
    """Stage, step and mean loss of every validation, and of every state that was kept."""
    rows = [json.loads(x) for x in (folder / "training" / "metrics.jsonl").read_text().splitlines()]
    header = json.loads((folder / "model.json").read_text())
    rows += [header[name]["summary"] | {"stage": name} for name in ("autoencoder", "prior")]
    return [(row["stage"], row["step"], row["loss"]) for row in rows]


def test_training_leaves_a_model_metrics_samples_and_a_card(
    straight: tuple[Path, list[str]],
) -> None:
    folder, lines = straight
    model = load(folder)
    assert model.prior is not None
    rows = [json.loads(x) for x in (folder / "training" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("autoencoder", 15),
        ("autoencoder", 30),
        ("prior", 10),
        ("prior", 20),
    ]
    assert rows[1]["validation_score"] < rows[0]["validation_score"]
    assert rows[3]["validation_bits_per_code"] < rows[2]["validation_bits_per_code"]
    samples = {p.name for p in (folder / "training" / "samples").iterdir()}
    assert {"autoencoder-000030.png", "autoencoder-000030.wav", "prior-000020.wav"} <= samples
    assert "folder" in (folder / "README.md").read_text(encoding="utf-8")
    assert any("codes used" in line for line in lines)
    assert any("bits/code on validation clips" in line for line in lines)


def test_the_same_seed_gives_the_same_bytes(
    straight: tuple[Path, list[str]], dataset: Dataset, tmp_path: Path
) -> None:
    train(dataset, tmp_path / "again", CONFIG, device="cpu", say=quiet)
    assert weights(tmp_path / "again") == weights(straight[0])


def test_a_fixed_number_of_threads_gives_the_same_bytes_on_any_number_of_cores(
    straight: tuple[Path, list[str]], dataset: Dataset, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        config = dataclasses.replace(CONFIG, threads=1)
        train(dataset, tmp_path / "model", config, device="cpu", say=quiet)
    finally:
        fix_threads(None)
        torch.set_num_threads(before)
    assert weights(tmp_path / "model") == weights(straight[0]), "which was trained with one thread"
    settings = json.loads((tmp_path / "model" / "training" / "settings.json").read_text())
    assert settings["config"]["threads"] == 1


def test_another_seed_gives_another_model(
    straight: tuple[Path, list[str]], dataset: Dataset, tmp_path: Path
) -> None:
    short = dataclasses.replace(CONFIG, seed=1)
    train(dataset, tmp_path / "other", short, device="cpu", say=quiet)
    assert weights(tmp_path / "other") != weights(straight[0])


@pytest.mark.parametrize(
    ("stage", "step"),
    [("autoencoder", 8), pytest.param("autoencoder", 15, marks=pytest.mark.slow), ("prior", 13)],
)
def test_a_stopped_training_ends_in_the_bytes_of_a_straight_one(
    straight: tuple[Path, list[str]],
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    step: int,
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, stage, step)
        with pytest.raises(Stopped):
            train(dataset, tmp_path / "model", CONFIG, device="cpu", say=quiet)
    train(dataset, tmp_path / "model", CONFIG, device="cpu", say=quiet)
    assert weights(tmp_path / "model") == weights(straight[0])
    assert losses(tmp_path / "model") == losses(straight[0])


def test_a_finished_training_is_left_alone(
    straight: tuple[Path, list[str]], dataset: Dataset
) -> None:
    before = weights(straight[0])
    lines: list[str] = []
    train(dataset, straight[0], CONFIG, device="cpu", say=lines.append)
    assert lines == [finished_line(straight[0])]
    for words in ("nothing is trained now", "add --more 20", "add --overwrite"):
        assert words in lines[0]
    assert weights(straight[0]) == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_training_that_goes_on_says_so_in_the_words_of_its_other_lines_and_of_its_bar(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    lines: list[str] = []
    with monkeypatch.context() as patch:
        stop_after(patch, "prior", 10)
        with pytest.raises(Stopped):
            train(dataset, tmp_path / "model", CONFIG, device="cpu", say=quiet, plain=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    train(dataset, tmp_path / "model", CONFIG, device="cpu", say=lines.append, plain=True)
    assert lines[1:4] == [
        "stage 1 of 3 (sounds as codes): done by an earlier run",
        "stage 2 of 3 (small archives): done by an earlier run",
        "stage 3 of 3 (new sounds): continues where it stopped, at 55 %",
    ]
    assert re.fullmatch(
        r"stage 3 of 3 \(new sounds\): all its steps are taken; learning, .* better than before",
        lines[-1],
    ), "which the stopped run reached"
    bar = terminal.getvalue()
    assert "stage 3 of 3 (new sounds): " in bar
    assert "left in this stage" in bar
    assert not any("%" in shown for shown in bar.split("\r") if "encoding" not in shown)
    assert bar.endswith("\r")  # it goes, and the lines stay


def test_a_longer_limit_is_used_before_the_end_of_training_and_a_shorter_one_ignored_after_it(
    straight: tuple[Path, list[str]], dataset: Dataset, tmp_path: Path
) -> None:
    limited = dataclasses.replace(CONFIG, max_minutes=50.0)
    shorter = dataclasses.replace(CONFIG, max_minutes=20.0)

    def stop(line: str) -> None:
        if line.startswith("autoencoder") and "step 15" in line:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped):
        train(dataset, tmp_path / "model", shorter, device="cpu", say=stop)
    train(dataset, tmp_path / "model", limited, device="cpu", say=quiet)
    settings = json.loads((tmp_path / "model" / "training" / "settings.json").read_text())
    assert settings["config"]["max_minutes"] == 50, "the limit of the resumed run"
    before = weights(tmp_path / "model")
    for config in (limited, shorter):
        lines: list[str] = []
        train(dataset, tmp_path / "model", config, device="cpu", say=lines.append)
        assert lines == [finished_line(tmp_path / "model")]
    assert weights(tmp_path / "model") == before


@pytest.mark.parametrize("minutes", [math.inf, math.nan, 0.0, -1.0])
def test_limits_that_are_not_positive_and_finite_are_refused_before_any_work(
    minutes: float, tmp_path: Path
) -> None:
    with pytest.raises(AudiovqError, match="max_minutes"):
        dataclasses.replace(CONFIG, max_minutes=minutes)
    with pytest.raises(AudiovqError, match="max_minutes"):
        demo(tmp_path / "demo", max_minutes=minutes)
    assert not (tmp_path / "demo").exists()


def test_a_prior_that_overfits_says_what_to_do() -> None:
    metrics = {"progress": 0.5, "step": 10, "seconds": 1.0, "validation_bits_per_code": 5.0}
    baselines = {"uniform_bits": 9.0, "unigram_bits": 8.0}
    overfitting, learning = ({**metrics, "loss": bits * math.log(2)} for bits in (2.0, 4.5))
    line = describe_prior(overfitting, baselines)
    assert "expect copies" in line
    assert "use more recordings or train less" in line
    assert "expect copies" not in describe_prior(learning, baselines)
    assert "expect copies" not in describe_prior(overfitting, baselines, "train"), (
        "5 of 8 bits: training clips are not memorized"
    )
    memorized = {**overfitting, "validation_bits_per_code": 0.1}
    assert "expect copies" in describe_prior(memorized, baselines, "train")


def test_a_stage_stopped_by_the_time_limit_says_so_in_a_line_the_card_and_model_json(
    dataset: Dataset, tmp_path: Path
) -> None:
    long = dataclasses.replace(CONFIG.autoencoder_training, steps=1_000_000, validate_every=1_000)
    config = dataclasses.replace(
        CONFIG, autoencoder_training=long, prior_training=long, max_minutes=2 / 60
    )
    lines: list[str] = []
    model = train(dataset, tmp_path / "model", config, device="cpu", say=lines.append)
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    for stage in ("autoencoder", "prior"):
        assert model.header[stage]["summary"]["ended_by"] == "time"
        assert any(line.startswith(f"{stage}: stopped by the time limit") for line in lines)
        assert re.search(rf"- {stage}: .*stopped by the time limit \(1,000,000 steps", card)


def test_a_time_limit_shortens_the_schedule_and_leaves_a_complete_model(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_ticking_clock(monkeypatch, 0.04)
    long = dataclasses.replace(CONFIG.autoencoder_training, steps=1_000_000)
    config = dataclasses.replace(
        CONFIG, autoencoder_training=long, prior_training=long, max_minutes=4 / 60
    )
    model = train(dataset, tmp_path / "model", config, device="cpu", say=quiet)
    assert model.prior is not None
    rows = (tmp_path / "model" / "training" / "metrics.jsonl").read_text().splitlines()
    ends = {row["stage"]: row for row in map(json.loads, rows)}
    assert ends["autoencoder"]["progress"] == ends["prior"]["progress"] == 1
    assert ends["autoencoder"]["learning_rate"] < 0.05 * long.learning_rate
    assert ends["autoencoder"]["seconds"] + ends["prior"]["seconds"] < 4.3


def test_what_is_fitted_and_measured_between_stages_takes_of_the_priors_time(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the priors', as the decoder's stage is over: contrast and copies take a minute each of this clock."""
    spent, real = [], TimeBudget.priors

    def priors(self: TimeBudget, seconds: float) -> float | None:
        spent.append(seconds)
        return real(self, seconds)

    monkeypatch.setattr(run, "_timed", lambda work: (work(), 60.0))
    monkeypatch.setattr(TimeBudget, "priors", priors)
    config = dataclasses.replace(CONFIG, max_minutes=60.0)
    train(dataset, tmp_path / "model", config, device="cpu", say=quiet)
    rows = (tmp_path / "model" / "training" / "metrics.jsonl").read_text().splitlines()
    trained = max(r["seconds"] for r in map(json.loads, rows) if r["stage"] == "autoencoder")
    assert trained + 120.0 in [pytest.approx(seconds, abs=0.1) for seconds in spent]


def test_training_the_masked_prior_resumes_bit_for_bit(
    straight: tuple[Path, list[str]], dataset: Dataset, tmp_path: Path
) -> None:
    """Autoencoder and prior are the same with and without it."""
    folder = tmp_path / "model"
    config = dataclasses.replace(CONFIG, **MASKED)
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith("masked") and "step 10" in line:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped):
        train(dataset, folder, config, device="cpu", say=stop)
    model = train(dataset, folder, config, device="cpu", say=lines.append)
    assert any("bits/masked code on validation clips" in line for line in lines)
    assert "masked: step 20" in (folder / "README.md").read_text("utf-8")
    assert model.header["masked"]["summary"]["sweeps"] == 0, "of sounds up to 24 kHz"
    assert model.masked is not None
    straight_run = tmp_path / "straight"
    train(dataset, straight_run, config, device="cpu", say=quiet)
    assert weights(folder) == weights(straight_run)
    without_masked = weights(straight[0])
    assert weights(folder).items() >= without_masked.items()
    train(dataset, folder, config, device="cpu", say=lines.append)
    assert lines[-1] == finished_line(folder)


@pytest.mark.slow
def test_the_masked_prior_has_its_share_of_the_time(dataset: Dataset, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, **MASKED)
    long = dataclasses.replace(CONFIG.prior_training, steps=1_000_000)
    config = dataclasses.replace(
        config, prior_training=long, masked_training=long, max_minutes=4 / 60, masked_share=0.5
    )
    train(dataset, tmp_path / "limited", config, device="cpu", say=quiet)
    metrics = (tmp_path / "limited" / "training" / "metrics.jsonl").read_text().splitlines()
    ends = {row["stage"]: row for row in map(json.loads, metrics)}
    assert ends["masked"]["progress"] == 1
    assert ends["masked"]["seconds"] > 0.5 * ends["prior"]["seconds"]


def test_other_settings_or_another_folder_are_refused_by_name(
    straight: tuple[Path, list[str]], dataset: Dataset, tmp_path: Path
) -> None:
    other = dataclasses.replace(CONFIG, autoencoder=changed(CONFIG.autoencoder, channels=24))
    with pytest.raises(AudiovqError, match=r"autoencoder\.network\.channels was 16, is 24"):
        train(dataset, straight[0], other, device="cpu", say=quiet)
    (tmp_path / "mine.txt").write_text("not a model")
    with pytest.raises(AudiovqError, match="exists but contains no training"):
        train(dataset, tmp_path, CONFIG, device="cpu", say=quiet)
    assert (tmp_path / "mine.txt").exists()


def test_a_finished_model_finds_its_dataset_where_it_was_trained_again(
    dataset: Dataset, tmp_path: Path
) -> None:
    prepare_folder(tmp_path / "model", dataset, CONFIG, overwrite=False)
    mark_finished(tmp_path / "model")
    moved = Dataset(shutil.copytree(dataset.folder, tmp_path / "moved"))
    prepare_folder(tmp_path / "model", moved, CONFIG, overwrite=False)
    assert trained_on(tmp_path / "model").folder.resolve() == moved.folder.resolve()
    assert is_finished(tmp_path / "model")


def test_an_unknown_preset_is_refused_with_the_known_ones(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(AudiovqError, match=r"preset 'smal': give one of .*small"):
        train(dataset, tmp_path / "model", "smal", device="cpu")
    assert not (tmp_path / "model").exists()


def test_no_path_of_this_machine_is_in_a_model_which_finds_its_dataset(
    straight: tuple[Path, list[str]], dataset: Dataset
) -> None:
    folder, _ = straight
    assert trained_on(folder).fingerprint == dataset.fingerprint
    root = str(dataset.folder.parents[1])  # of all this test run's folders
    for path in folder.rglob("*"):
        if path.is_file():
            assert root.encode() not in path.read_bytes(), path


def test_views_without_shift_and_stretch_are_the_clips(dataset: Dataset) -> None:
    split = dataset.train
    indices = torch.arange(5)
    zeros = torch.zeros(5, dtype=torch.long)
    images, frames = shift_and_stretch(split, indices, zeros, torch.ones(5))
    assert torch.equal(frames, split.num_frames[indices])
    assert torch.equal(images, split.spectrograms(indices)[..., : images.shape[3]])


def test_a_shift_moves_every_frame_and_loses_none(dataset: Dataset) -> None:
    split = dataset.train
    indices, shift = torch.arange(4), torch.tensor([0, 1, 2, 3])
    images, frames = shift_and_stretch(split, indices, shift, torch.ones(4))
    unstretched_images, unstretched_frames = shift_and_stretch(split, indices, shift, None)
    assert torch.equal(images, unstretched_images)
    assert torch.equal(frames, unstretched_frames)
    for i in range(4):
        clip = split.spectrograms(indices[i : i + 1])[0]
        assert int(frames[i]) == clip.shape[2] + i
        assert torch.equal(images[i, :, :, i : i + clip.shape[2]], clip)
        assert not images[i, :, :, :i].any()
        assert not images[i, :, :, int(frames[i]) :].any()


def test_twice_the_speed_takes_every_other_frame(dataset: Dataset) -> None:
    split = dataset.train
    clip = split.spectrograms(torch.tensor([3]))[0]
    images, frames = shift_and_stretch(
        split, torch.tensor([3]), torch.tensor([0]), torch.tensor([2.0])
    )
    assert int(frames) == (clip.shape[2] + 1) // 2
    assert torch.allclose(images[0], clip[:, :, ::2])


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Short recordings beside long ones, which are cut into clips."""
    folder = tmp_path_factory.mktemp("cut")
    (folder / "in").mkdir()
    for number, seconds in enumerate((1.3, 0.2, 1.4, 0.15, 1.25, 0.1, 0.25, 1.1)):
        soundfile.write(folder / "in" / f"{number}.wav", make_voice(seconds), 8000)
    preprocess(folder / "in", folder / "out", PreprocessConfig(clip_seconds=0.35), say=quiet)
    return Dataset(folder / "out")


def test_a_shift_drops_first_frames_of_clips_cut_from_a_recording_and_adds_no_silence(
    cut: Dataset,
) -> None:
    split = cut.train
    begins = split.complete[:, 0]
    assert bool(begins.any())
    assert not bool(begins.all())
    indices = torch.arange(len(split))
    shift = torch.full_like(indices, 2)
    images, frames = shift_and_stretch(split, indices, shift, None)
    for i in range(len(split)):
        clip = split.spectrograms(indices[i : i + 1])[0]
        shifted = images[i, :, :, : int(frames[i])]
        if begins[i]:
            assert torch.equal(shifted[..., 2:], clip)
            assert not shifted[..., :2].any()
        else:
            assert torch.equal(shifted, clip[..., 2:])
        assert not images[i, :, :, int(frames[i]) :].any()


def test_an_end_is_learnt_where_a_recording_ends_and_not_where_a_clip_was_cut(cut: Dataset) -> None:
    model = new_model(
        cut.spectrogram, CONFIG.autoencoder, {}, [((), len(cut.train))], cut.clip_frames
    )
    model.autoencoder.eval()
    tokens, lengths, _, complete = encode_split(model, cut.train, 4)
    assert torch.equal(complete[:, 0], cut.train.complete[:, 0].repeat(4))
    assert torch.equal(complete[: len(cut.train)], cut.train.complete)
    vocabulary = model.vocabulary
    columns = vocabulary.codes(tokens.long())[1]
    has_end = lengths == 2 + vocabulary.slots * columns
    assert torch.equal(has_end, complete[:, 1] & (columns < vocabulary.max_columns))
    assert 0 < int(has_end.sum()) < int((columns < vocabulary.max_columns).sum())


def test_ends_are_learnt_even_where_no_clip_is_a_complete_recording(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", make_voice(0.8), 8000)
    preprocess(tmp_path / "in", tmp_path / "out", PreprocessConfig(clip_seconds=0.35), say=quiet)
    train_split = Dataset(tmp_path / "out").train
    assert not train_split.complete.all(dim=1).any()
    assert known_ends(train_split, Dataset(tmp_path / "out").clip_frames).all()


def test_every_view_of_a_split_keeps_its_labels_and_levels(
    straight: tuple[Path, list[str]], dataset: Dataset
) -> None:
    model = load(straight[0])
    tokens, lengths, labels, complete = encode_split(model, dataset.train, 3)
    clips = len(dataset.train)
    assert len(tokens) == len(lengths) == len(labels) == len(complete) == 3 * clips
    assert bool(complete[:, 0].all())
    assert torch.equal(labels, dataset.train.label_indices.repeat(3, 1))
    levels = model.vocabulary.codes(tokens.long())[2]
    assert torch.equal(levels, dataset.train.levels.repeat(3))
    assert (tokens[:clips] != tokens[clips : 2 * clips]).any(), "views must differ"


def test_the_view_during_which_the_time_limit_passes_is_the_last(
    straight: tuple[Path, list[str]], dataset: Dataset
) -> None:
    model = load(straight[0])
    three_views, one_view = (encode_split(model, dataset.train, 3, t) for t in (1e9, 0.0))
    assert len(one_view[0]) == len(one_view[1]) == len(one_view[2]) == len(dataset.train)
    for all_views, first in zip(three_views, one_view, strict=True):
        assert torch.equal(all_views[: len(first)], first)


def test_limits_set_how_often_progress_is_printed_and_samples_are_written(
    dataset: Dataset, tmp_path: Path
) -> None:
    lines: list[str] = []
    limits = Limits(quiet_seconds=0.0, sample_every=2.0)
    train(dataset, tmp_path / "model", CONFIG, device="cpu", say=lines.append, limits=limits)
    between = [line for line in lines if "loss" in line]
    assert len(between) == 30 + 20 - 4, "every step without a validation"
    assert between[0].startswith("autoencoder   3 %, step 1, 0:0")
    assert not (tmp_path / "model" / "training" / "samples").exists()


@pytest.mark.parametrize("stage", ["autoencoder", "prior"])
def test_a_training_that_diverges_names_the_recordings_of_the_batch(
    stage: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_step = Trainer._step
    batch: list[int] = []

    def step_then_fault(self, *arguments):
        scalars, norm = real_step(self, *arguments)
        if self.stage == stage and self.state.step == 12:
            batch.extend(arguments[-1].tolist())
            return {**scalars, "loss": scalars["loss"] * torch.nan}, norm
        return scalars, norm

    monkeypatch.setattr(Trainer, "_step", step_then_fault)
    with pytest.raises(AudiovqError, match=f"^{stage}: .* at step 13") as caught:
        train(dataset, tmp_path / "model", CONFIG, device="cpu", say=quiet)
    split = dataset.train
    named = str(caught.value).partition("clips of that batch: ")[2].rstrip(")").split(", ")
    assert named == sorted({split.clips[index % len(split)].path for index in batch})


def test_a_codebook_with_many_unused_codes_is_reported_with_advice() -> None:
    metrics = {"progress": 0.5, "step": 10, "seconds": 1.0, "validation_error_db": 3.0}
    advice = "; more or more varied sounds help"
    for usage, verdict in ((0.02, f": very few{advice}"), (0.5, f": few{advice}"), (0.9, "")):
        found = {"validation_usage": usage, "validation_perplexity": 2.0}
        line = describe_autoencoder(metrics | found, 512)
        assert line.endswith(f"{512 * usage:.0f} of 512 codes used (effectively 2{verdict})")


def test_a_second_training_of_the_same_folder_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "model"), pytest.raises(AudiovqError, match="another run"):
        train(dataset, tmp_path / "model", CONFIG, device="cpu", say=quiet)


def test_a_model_holds_the_codes_of_its_training_clips_until_they_are_deleted(
    dataset: Dataset, folder: Path
) -> None:
    known = load(folder).known
    assert known is not None
    assert known.names == [(clip.path, clip.offset) for clip in dataset.train.clips]
    assert known.of == len(dataset.train)
    assert known.calibration["threshold_db"] > 0
    (path,) = folder.glob("training-codes*")
    assert path.name in (folder / "README.md").read_text()
    path.unlink()
    train(dataset, folder, CONFIG, device="cpu", say=lambda line: None)
    assert not path.exists(), "deleted codes are not written again"
    assert load(folder).known is None


def test_a_training_begun_with_settings_of_another_version_is_refused_in_one_line(
    straight: tuple[Path, list[str]], dataset: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(straight[0], folder)
    path = folder / "training" / "settings.json"
    settings = json.loads(path.read_text())
    settings["config"]["autoencoder"] = {"channels": 16, "codebook_size": 32}
    path.write_text(json.dumps(settings))
    with pytest.raises(AudiovqError, match=r"another version of audiovq.*--overwrite$") as caught:
        train(dataset, folder, CONFIG, device="cpu", say=lambda _: None)
    assert "\n" not in str(caught.value)


def test_of_many_numbers_each_combination_of_words_and_the_number_of_clips_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "MOST_COMBINATIONS", 30)
    number, kind = torch.arange(100), torch.arange(100) % 50 // 48  # two of three kinds are rare
    kind[77] = 2
    split = types.SimpleNamespace(
        label_indices=torch.stack([kind, number], dim=1),
        labels={"kind": ["kick", "bell", "gong"], "tempo": Numbers(60.0, 180.0)},
    )
    counts = run.count_labels(cast(Split, split))
    assert len(counts) <= 30 + 3
    assert sum(count for _, count in counts) == 100
    clips = Counter(kind.tolist())
    assert {k: sum(n for row, n in counts if row[0] == k) for k in range(3)} == clips
