"""What training prints by default: which stage, how long all of it may still take, whether it learns, what would help.

The figures behind it are printed instead with `--verbose`, and are in training/metrics.jsonl.
"""

from __future__ import annotations

from audiovq.config.settings import TrainConfig
from audiovq.runtime.progress import percent
from audiovq.training.budget import TimeBudget
from audiovq.training.stage import Metrics

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


def stages_of(config: TrainConfig) -> list[str]:
    """The stages that a training has, in order."""
    budget = TimeBudget.of(config)
    has = {
        "autoencoder": True,
        "vivid": budget.trains_vivid,
        "context": budget.has_codes,
        "prior": budget.trains_prior,
        "masked": budget.trains_prior and config.masked_share > 0,
    }
    return [stage for stage, is_trained in has.items() if is_trained]


def begin_line(config: TrainConfig, clips: int) -> str:
    """The first line of a training on `clips` training clips."""
    stages = len(stages_of(config))
    limit = config.max_minutes
    minutes = f" in about {limit:g} minutes, or more where the computer is busy" if limit else ""
    return (
        f"learning from {clips:,} clips in {stages} stage{'s' * (stages > 1)}{minutes}; Ctrl-C stops, the same command"
        " resumes; --verbose shows the figures"
    )


def stage_name(config: TrainConfig, stage: str) -> str:
    """`stage 2 of 4 (new sounds)`."""
    stages = stages_of(config)
    return f"stage {stages.index(stage) + 1} of {len(stages)} ({STAGES[stage]})"


class PlainLines:
    """The progress lines of one stage, which compare each validation with the best before it."""

    def __init__(self, config: TrainConfig, stage: str, later: float | None) -> None:
        """`later`: seconds planned for the stages after it; None: there is no time limit."""
        self.name = stage_name(config, stage)
        self.stage = stage
        self.later = later
        self.best: float | None = None

    def line(self, metrics: Metrics, overfits: bool = False) -> str:
        """The line of a validation or, without its metrics, of training; `overfits`: whether new sounds become
        copies."""
        share = metrics["progress"]
        parts = [percent(share)]
        if share:
            left = metrics["seconds"] * (1 - share) / share
            total = left if self.later is None else left + self.later
            parts.append(
                minutes_left(total) + (" in this stage" if self.later is None else " in all")
            )
        verdict = self._verdict(metrics, overfits)
        return f"{self.name}: {', '.join(parts)}" + (f"; {verdict}" if verdict else "")

    def _verdict(self, metrics: Metrics, overfits: bool) -> str:
        """Whether it learns, and if not enough, what would help; "" between validations."""
        score = metrics.get("validation_score")
        if score is None:
            return ""
        before, self.best = self.best, score if self.best is None else min(self.best, score)
        if overfits:
            return "it begins to repeat your recordings; more recordings, or fewer minutes, help"
        usage = metrics.get("validation_usage")
        if usage is not None and usage < THIN:
            return f"learning; {thin(usage)}"
        if before is None or self.stage == "vivid":
            return "learning"
        if score < before:
            return f"learning, {percent((before - score) / abs(before), 1)} better than before"
        return "no better than before; it ends early if it stays so"


def time_limit_line(done: float) -> str:
    """What the end of a stage by the time limit, after a share of its steps, says of the model."""
    if done >= ENOUGH:
        return "finished within the time limit"
    return (
        f"the time limit ended it after {percent(done)} of its steps: more minutes make a better model"
        " (--more 20 adds twenty)"
    )


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
