"""What training prints by default: which stage, how long all of it may still take, whether it learns, what would help.

The figures behind it are printed instead with `--verbose`, and are in training/metrics.jsonl.
"""

from __future__ import annotations

import math
from pathlib import Path

from audiovq.config.settings import TrainConfig
from audiovq.config.spectrogram import SpectrogramConfig
from audiovq.runtime import distributed
from audiovq.runtime.progress import percent
from audiovq.training.budget import TimeBudget
from audiovq.training.stage import Metrics, Run

STAGES = {
    "autoencoder": "sounds as codes",
    "vivid": "textures and attacks",
    "context": "small archives",
    "prior": "new sounds",
    "masked": "filling gaps",
}
"""What each stage learns, in a few words."""
ENOUGH = 0.6
"""Share of the planned steps from which on more would change little, as the schedule fits the limit."""
THIN = 0.5
"""Share of codes in use below which a codebook is thin."""


def stages_of(config: TrainConfig, only_masked: bool = False) -> dict[str, str]:
    """The stages that a training has, in order, and what each learns, in a few words.

    `only_masked`: as `Run.only_masked`; so in all that follows.
    """
    budget = TimeBudget.of(config)
    has = {
        "autoencoder": True,
        "vivid": budget.trains_vivid,
        "context": budget.has_codes,
        "prior": budget.trains_prior and not only_masked,
        "masked": budget.trains_prior and config.masked_share > 0,
    }
    words = STAGES | ({"masked": STAGES["prior"]} if only_masked else {})
    return {stage: words[stage] for stage, is_trained in has.items() if is_trained}


def begin_line(config: TrainConfig, clips: int, only_masked: bool = False) -> str:
    """The first line of a training on `clips` training clips."""
    stages = len(stages_of(config, only_masked))
    limit = config.max_minutes
    minutes = ""
    if limit:
        plural = "s" * (limit != 1)
        minutes = f" in about {limit:g} minute{plural}, or more where the computer is busy"
    return (
        f"learning from {clips:,} clips in {stages} stage{'s' * (stages > 1)}{minutes}; Ctrl-C stops, the same command"
        " resumes; --verbose shows the figures"
    )


def stage_name(
    config: TrainConfig, stage: str, spectrogram: SpectrogramConfig, only_masked: bool = False
) -> str:
    """`stage 2 of 4 (new sounds)`: what the stage learns from data of these settings."""
    stages = stages_of(config, only_masked)
    words = stages[stage]
    if spectrogram.is_wide and "masked" in stages:  # new sounds are sampled by the masked prior
        words = {"prior": "likelihood of codes", "masked": "new sounds"}.get(stage, words)
    if not config.autoencoder.quantizes:
        words = words.replace("as codes", "as latents")
    if spectrogram.images:
        words = words.replace("sounds", "images")
    return f"stage {list(stages).index(stage) + 1} of {len(stages)} ({words})"


def task_of(run: Run, stage: str) -> str:
    """The name under which a stage's progress is shown; "", which shows none, in all ranks but rank 0."""
    if not distributed.is_main():
        return ""
    if not run.plain:
        return stage
    return stage_name(run.config, stage, run.dataset.spectrogram, run.only_masked)


class PlainLines:
    """The progress lines of one stage, which compare each validation with the best before it."""

    def __init__(
        self, name: str, stage: str, later: float | None, steps: int, best: float = math.inf
    ) -> None:
        """`name`: see `stage_name`. `later`: seconds planned for the stages after it; None: there is no time limit.
        `steps`: the most that it may take. `best`: the lowest score of an earlier run."""
        self.name = name
        self.stage = stage
        self.later = later
        self.steps = steps
        self.best = best

    def line(self, metrics: Metrics, overfits: bool = False, ended_by: str | None = None) -> str:
        """The line of a validation or, without its metrics, of training.

        `overfits`: whether new sounds become copies; `ended_by`: see `Trainer.ended_by`. The share is that of the
        stage's time or of its steps, whichever is larger, and is said once.
        """
        share, taken = metrics["progress"], metrics["step"] / self.steps
        parts = [self._share(share, taken, ended_by)]
        if share and (ended_by is None or self.later):
            left = metrics["seconds"] * (1 - share) / share if ended_by is None else 0.0
            total = left if self.later is None else left + self.later
            parts.append(
                minutes_left(total) + (" in this stage" if self.later is None else " in all")
            )
        parts = [", ".join(parts), self._verdict(metrics, overfits, ended_by)]
        if ended_by == "time" and taken < ENOUGH and not overfits:
            parts.append("more minutes make a better model (--more 20 adds twenty)")
        return f"{self.name}: {'; '.join(filter(None, parts))}"

    def _share(self, share: float, taken: float, ended_by: str | None) -> str:
        """How much of its time or its steps the stage has taken, in words."""
        if ended_by == "time":
            return "its time is up" + f" after {share_of(taken)} of its steps" * (taken < ENOUGH)
        if ended_by == "steps":
            return "all its steps are taken"
        is_timed = share > taken or (not share and self.later is not None)
        words = f"{percent(share)} of its {'time' if is_timed else 'steps'}"
        return f"ends early, at {words}" if ended_by else words

    def _verdict(self, metrics: Metrics, overfits: bool, ended_by: str | None) -> str:
        """Whether it learns, and if not enough, what would help; "" between validations."""
        score = metrics.get("validation_score")
        if score is None:
            return ""
        before, self.best = self.best, min(self.best, score)
        if overfits:
            return "it begins to repeat your recordings; more recordings, or fewer minutes, help"
        usage = metrics.get("validation_usage")
        if usage is not None and usage < THIN:
            return f"learning; {thin(usage)}"
        if before == math.inf or self.stage == "vivid":
            return "learning"
        if score < before:
            return f"learning, {percent((before - score) / abs(before), 1)} better than before"
        if ended_by is not None:
            return "no better than before"
        return "no better than before; it ends early if it stays so"


def finished_line(folder: Path) -> str:
    """The line of a training that is run again after its end: what happens, and what to type to train on."""
    return (
        f"{folder}: is trained to the end, so nothing is trained now; to train it twenty minutes longer, add --more 20;"
        " to train it from the start, add --overwrite"
    )


def share_of(taken: float) -> str:
    """A share of steps as percent, or `less than 1 %`."""
    return percent(taken) if taken >= 0.01 else "less than 1 %"


def thin(usage: float) -> str:
    """The verdict on a codebook with few codes in use, with its advice."""
    return (
        f"codebook thin ({percent(usage)} of codes in use): few kinds of sound, or too few minutes"
    )


def minutes_left(seconds: float) -> str:
    """`about 12 minutes left`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute left"
    return f"about {minutes} minute{'s' * (minutes > 1)} left"
