"""What results files state of the training and the sounds that were measured, whatever a script was asked for."""

from __future__ import annotations

from pathlib import Path

from audiovq.dataset.dataset import Dataset
from audiovq.runtime.files import read_object
from benchmarks.quality.sets import SoundSet


def trained_minutes(folder: Path) -> float | None:
    """Time limit of all trainings of the model in a folder, in minutes; None where it had none, or is unknown.

    A training that was complete or resumed may have had another limit than the script asks for.
    """
    path = folder / "training" / "settings.json"
    if not path.exists():
        return None
    config = read_object(path, "settings of a training").get("config")
    minutes = config.get("max_minutes") if isinstance(config, dict) else None
    return float(minutes) if isinstance(minutes, int | float) else None


def data_of(sounds: SoundSet, dataset: Dataset, *given: Path | None) -> str:
    """What the recordings of a dataset are: the set's, or those of the first folder that was `given` in their place.

    Of a folder its name alone: paths are private.
    """
    folder = next((one for one in given if one is not None), None)
    if folder is None:
        return sounds.data
    count = len({clip.path for split in dataset.splits for clip in split.clips})
    name = folder.resolve().name
    return f"folder {name}: {count:,} recordings, dataset {dataset.fingerprint[:16]}"
