"""Further training of a finished model (`--more`, or a longer `--max-minutes`).

It is a training that starts from the model, in the folder `training/more`, whose result then takes the model's place:
until the end, and if it is killed, the finished model stays as it is. All stages are trained for the additional
minutes, with new schedules, new moments of the optimizer and other random numbers.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiovq.config.checks import derived_seed, require
from audiovq.config.errors import AudiovqError
from audiovq.config.serialize import from_json, to_json
from audiovq.config.settings import TrainConfig
from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import replace_model
from audiovq.runtime.files import read_object, write_json, write_text
from audiovq.training.folder import difference

SEEDS = 700_000
"""The seed of a further training is derived from the model's and this number plus that of earlier ones."""


def require_finished(folder: Path, more: float, overwrite: bool) -> None:
    """Raise AudiovqError where `folder` holds no finished training, which can be trained for `more` minutes."""
    flag = f"--more {more:g}"
    require(0 < more <= 1e7, f"{flag}: give minutes above 0, up to 1e7")
    require(not overwrite, f"{flag}: trains the model in {folder} further; leave out --overwrite")
    if not _settings(folder).get("finished"):
        raise AudiovqError(
            f"{flag}: {folder} holds no finished training; train without --more first"
        )


@dataclass(frozen=True)
class Further:
    """A further training of the model in a folder."""

    folder: Path
    """The model folder."""
    minutes: float | None
    """Its time limit; None: no limit."""
    total: float | None
    """The time limit of all trainings of the model."""
    number: int
    """How many further trainings the model has had."""

    @classmethod
    def of(cls, folder: Path, config: TrainConfig, more: float | None) -> Further | None:
        """The further training that `more` minutes, or a limit in `config` above that of a finished training, ask for.

        None where they ask for none.
        """
        settings = _settings(folder)
        if not settings.get("finished"):
            return None
        begun = from_json(TrainConfig, settings.get("config"), "training/settings.json").max_minutes
        number = int(settings.get("continued", 0))
        if more is not None:
            return cls(folder, more, None if begun is None else begun + more, number)
        wanted = config.max_minutes
        if (wanted or math.inf) <= (begun or math.inf):
            return None
        minutes = None if wanted is None or begun is None else wanted - begun
        return cls(folder, minutes, wanted, number)

    @property
    def work(self) -> Path:
        """Model folder of the further training."""
        return self.folder / "training" / "more"

    def config(self, config: TrainConfig) -> TrainConfig:
        """Settings of the further training of a model trained with `config`."""
        seed = derived_seed(config.seed, SEEDS + self.number)
        return replace(config, max_minutes=self.minutes, seed=seed)

    def prepare(self, dataset: Dataset, config: TrainConfig) -> None:
        """Make `work` ready: as a stopped run left it, or empty but for the metrics so far.

        Raises AudiovqError where the stopped run had other settings.
        """
        path = self.work / "training" / "settings.json"
        settings: dict[str, Any] = {
            "dataset": dataset.fingerprint,
            "config": to_json(self.config(config)),
            "continues": self.number,
        }
        if _settings(self.work).get("continues") != self.number:
            shutil.rmtree(self.work, ignore_errors=True)
            path.parent.mkdir(parents=True)
            metrics = self.folder / "training" / "metrics.jsonl"
            if metrics.exists():
                shutil.copy(metrics, path.parent)
        elif self.is_trained():
            return
        else:
            before = from_json(TrainConfig, _settings(self.work).get("config"), str(path))
            same = replace(before, max_minutes=self.minutes)
            if found := difference(to_json(same), settings["config"]):
                raise AudiovqError(
                    f"{self.folder}: a further training with other settings was stopped ({found}); give the same, or"
                    f" delete {self.work}"
                )
        write_json(path, settings)

    def is_trained(self) -> bool:
        """Whether all stages in `work` are trained: a run was killed before they took the model's place."""
        return bool(_settings(self.work).get("finished"))

    def replace_finished(self) -> None:
        """Put the model in `work`, and the state of its training, in the place of the finished ones.

        Killed at any moment, it leaves the earlier model or the new one, and is completed by the next run.
        """
        replace_model(self.folder, self.work)
        training = self.folder / "training"
        write_text(self.folder / "README.md", (self.work / "README.md").read_text("utf-8"))
        for name in ("evaluation.json", "report.html"):  # of the earlier model
            (self.folder / name).unlink(missing_ok=True)
        for path in sorted((self.work / "training").rglob("*")):
            target = training / path.relative_to(self.work / "training")
            if path.is_file() and path.name != "settings.json":
                target.parent.mkdir(exist_ok=True)
                os.replace(path, target)
        settings = _settings(self.folder)
        settings["config"]["max_minutes"] = self.total
        write_json(training / "settings.json", settings | {"continued": self.number + 1})
        shutil.rmtree(self.work)


def stopped_further(folder: Path) -> bool:
    """Whether a further training of the finished model in `folder` was stopped."""
    continues = _settings(folder / "training" / "more").get("continues")
    return continues is not None and continues == int(_settings(folder).get("continued", 0))


def _settings(folder: Path) -> dict[str, Any]:
    """settings.json of the training of a model; empty where there is none."""
    path = folder / "training" / "settings.json"
    return read_object(path, "a training folder") if path.exists() else {}
