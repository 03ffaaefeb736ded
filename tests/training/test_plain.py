"""What training prints for beginners: the stage, the minutes left in all, whether it learns, what would help."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fast_training import CONFIG, train

from audiovq.config.presets import PRESETS
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.dataset.dataset import Dataset
from audiovq.runtime import distributed
from audiovq.runtime import progress as shown
from audiovq.training.budget import TimeBudget
from audiovq.training.origin import Origin
from audiovq.training.stage import Run
from audiovq.training.stages.plain import (
    PlainLines,
    begin_line,
    minutes_left,
    stage_name,
    stages_of,
    task_of,
)

SMALL = PRESETS["small"]


def metrics(progress: float, score: float | None = None, **others: float) -> dict[str, float]:
    found = {"progress": progress, "seconds": 600 * progress, "step": 0, **others}
    return found if score is None else found | {"validation_score": score}


def plain_lines(stage: str, later: float | None, steps: int) -> PlainLines:
    """The lines of a stage of preset small, on speech."""
    return PlainLines(
        stage_name(SMALL, stage, SpectrogramConfig.for_rate(8000)), stage, later, steps
    )


def test_a_stage_is_named_by_what_it_learns_of_this_data() -> None:
    speech, wide = SpectrogramConfig.for_rate(8000), SpectrogramConfig.for_rate(44_100)
    images = SpectrogramConfig.for_images(28)

    def learnt(preset: str, spectrogram: SpectrogramConfig) -> list[str]:
        names = (stage_name(PRESETS[preset], s, spectrogram) for s in stages_of(PRESETS[preset]))
        return [name.partition("(")[2].removesuffix(")") for name in names]

    assert learnt("small", speech)[-2:] == ["new sounds", "filling gaps"]
    assert learnt("small", wide)[-2:] == ["likelihood of codes", "new sounds"]
    assert learnt("tiny", wide)[-1] == "new sounds"
    assert learnt("lesson-vae", speech) == ["sounds as latents"]
    assert learnt("lesson-vae", images) == ["images as latents"]
    assert learnt("lesson-vqvae", images) == ["images as codes", "small archives", "new images"]


def test_every_stage_of_a_training_is_counted() -> None:
    assert list(stages_of(SMALL)) == ["autoencoder", "vivid", "context", "prior", "masked"]
    assert list(stages_of(PRESETS["rate-1k"])) == ["autoencoder", "context"]
    assert list(stages_of(PRESETS["lesson-ae"])) == ["autoencoder"]
    assert begin_line(SMALL, 1200).startswith("learning from 1,200 clips in 5 stages in about 20 m")
    assert " in about 1 minute, " in begin_line(replace(SMALL, max_minutes=1.0), 1200)


def test_where_the_masked_prior_is_the_only_one_it_is_the_stage_of_new_sounds(
    dataset: Dataset,
) -> None:
    origin = Origin.read("sounds")
    config = origin.adopt(SMALL)
    run = Run(dataset, Path("model"), config, torch.device("cpu"), print, plain=True)
    assert task_of(run, "masked") == "stage 5 of 5 (filling gaps)"
    run = replace(run, origin=origin)
    assert list(stages_of(config, run.only_masked)) == ["autoencoder", "vivid", "context", "masked"]
    assert task_of(run, "masked") == "stage 4 of 4 (new sounds)"
    assert " in 4 stages" in begin_line(config, 1200, run.only_masked)
    name = stage_name(config, "masked", run.dataset.spectrogram, run.only_masked)
    line = PlainLines(name, "masked", 0, 10).line(metrics(0.5))
    assert line.startswith("stage 4 of 4 (new sounds): ")


def test_a_line_compares_each_validation_with_the_best_before_it() -> None:
    lines = plain_lines("autoencoder", 300, 1000)
    assert lines.line(metrics(0.0)) == "stage 1 of 5 (sounds as codes): 0 % of its time"
    first = lines.line(metrics(0.25, 0.2))
    name = "stage 1 of 5 (sounds as codes)"
    assert first == f"{name}: 25 % of its time, about 12 minutes left in all; learning"
    assert lines.line(metrics(0.5, 0.1)).endswith("; learning, 50.0 % better than before")
    assert "no better than before" in lines.line(metrics(0.6, 0.15))
    assert lines.line(metrics(0.7, 0.09)).endswith("; learning, 10.0 % better than before")
    assert lines.line(metrics(0.8)).endswith("left in all")


@pytest.mark.parametrize(
    ("ended_by", "step", "words"),
    [
        (
            "time",
            40,
            "its time is up after 4 % of its steps, about 5 minutes left in all; learning;"
            " more minutes make a better model (--more 20 adds twenty)",
        ),
        (
            "time",
            4,
            "its time is up after less than 1 % of its steps, about 5 minutes left in all; learning;"
            " more minutes make a better model (--more 20 adds twenty)",
        ),
        ("time", 700, "its time is up, about 5 minutes left in all; learning"),
        ("steps", 1000, "all its steps are taken, about 5 minutes left in all; learning"),
        (
            "patience",
            900,
            "ends early, at 90 % of its steps, about 5 minutes left in all; learning",
        ),
    ],
)
def test_the_last_line_of_a_stage_gives_one_share_and_what_ended_it(
    ended_by: str, step: int, words: str
) -> None:
    lines = plain_lines("autoencoder", 300, 1000)
    share = step / 1000 if ended_by == "patience" else 1.0
    line = lines.line(metrics(share, 0.2, step=step), ended_by=ended_by)
    assert line == f"stage 1 of 5 (sounds as codes): {words}"
    assert line.count("%") <= 1


def test_the_advice_of_a_last_line_does_not_contradict_itself() -> None:
    lines = plain_lines("prior", 0, 1000)
    line = lines.line(metrics(1.0, 0.2, step=100), overfits=True, ended_by="time")
    assert "fewer minutes, help" in line
    assert "more minutes" not in line


def test_a_share_is_that_of_the_time_or_of_the_steps_whichever_is_larger() -> None:
    assert "50 % of its steps" in plain_lines("prior", 0, 10).line(metrics(0.5, step=5))
    assert "50 % of its time" in plain_lines("prior", 0, 10).line(metrics(0.5, step=4))
    without_limit = plain_lines("prior", None, 10)
    assert "0 % of its steps" in without_limit.line(metrics(0.0))
    last = plain_lines("masked", 0, 10).line(metrics(1.0, 0.2, step=9), ended_by="time")
    assert last.endswith("its time is up; learning")


def test_each_verdict_has_its_advice() -> None:
    line = plain_lines("autoencoder", None, 10).line(metrics(0.5, 0.1, validation_usage=0.2))
    assert "about 5 minutes left in this stage" in line
    thin = "codebook thin (20 % of codes in use): few kinds of sound, or too few minutes"
    assert line.endswith(thin)
    line = plain_lines("prior", 0, 10).line(metrics(0.5, 0.1), overfits=True)
    assert "begins to repeat your recordings; more recordings, or fewer minutes, help" in line


@pytest.mark.parametrize("preset", ["tiny", "small", "base", "rate-1k", "lesson-ae"])
def test_what_is_planned_after_each_stage_sums_to_the_limit(preset: str) -> None:
    config = PRESETS[preset]
    budget = TimeBudget.of(config)
    trained = [stage for stage in stages_of(config) if stage != "context"]
    later = [budget.after(stage) for stage in trained]
    if config.max_minutes is None:
        assert later == [None] * len(trained)
        return
    assert later[-1] == (budget.context or 0 if trained == ["autoencoder"] else 0)
    assert later[0] is not None
    assert budget.autoencoder is not None
    assert later[0] + budget.autoencoder == pytest.approx(60 * config.max_minutes)
    assert later == sorted(later, reverse=True)


def test_minutes_are_words() -> None:
    assert [minutes_left(s) for s in (20, 61, 700)] == [
        "less than a minute left",
        "about 1 minute left",
        "about 12 minutes left",
    ]


@pytest.mark.slow
def test_training_prints_no_figures_by_default_and_keeps_them_in_the_file(
    dataset: Dataset, tmp_path: Path
) -> None:
    lines: list[str] = []
    train(dataset, tmp_path / "model", CONFIG, device="cpu", say=lines.append, plain=True)
    assert lines[0].startswith("learning from")
    for line in lines[1:]:
        assert re.match(r"stage \d of \d \(.+\): |note: ", line), line
        for word in ("bits", "loss", "dB", "perplexity", "parameters", "step "):
            assert word not in line
    assert (
        "validation_perplexity" in (tmp_path / "model" / "training" / "metrics.jsonl").read_text()
    )


def test_what_takes_minutes_between_and_within_stages_shows_how_far_it_is(
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every update is printed, as none is due within the seconds of a test."""
    monkeypatch.setattr(shown, "LINE_SECONDS", -1.0)
    train(dataset, tmp_path / "model", CONFIG, device="cpu", say=lambda _: None, plain=True)
    found: dict[str, list[tuple[int, int]]] = {}
    for line in capsys.readouterr().err.splitlines():
        if match := re.fullmatch(
            r"(stage .*): ([\d,]+) of ([\d,]+) (?:clips|steps), .* left", line
        ):
            done, total = (int(number.replace(",", "")) for number in match.groups()[1:])
            found.setdefault(match[1], []).append((done, total))
    context, prior = (
        stage_name(CONFIG, stage, dataset.spectrogram) for stage in ("context", "prior")
    )
    assert list(found) == [
        f"{context}, encoding",
        f"{context}, fitting",
        f"{prior}, measuring",
        f"{prior}, comparing",
        f"{prior}, encoding",
    ]
    for name, updates in found.items():
        assert [done for done, _ in updates] == sorted({done for done, _ in updates}), name
        if CONFIG.max_minutes is None:  # a time limit ends some earlier
            assert updates[-1][0] == updates[-1][1], name


def test_a_rank_that_prints_nothing_shows_no_progress(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(dataset, Path("model"), CONFIG, torch.device("cpu"), print)
    assert task_of(run, "context") == "context"
    assert task_of(replace(run, plain=True), "context") == stage_name(
        CONFIG, "context", dataset.spectrogram
    )
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    assert task_of(run, "context") == ""
