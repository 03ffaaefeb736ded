"""Further training of a finished model: it continues from the model, which stays usable until the end."""

import functools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fast_training import CONFIG, stop_after

from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset
from audiovq.models.checkpoint import load
from audiovq.training.loop import Stopped
from audiovq.training.more import Further
from audiovq.training.run import train as train_fully
from audiovq.training.stage import Limits
from audiovq.training.stages.plain import finished_line

SHORT = {"steps": 16, "validate_every": 8}
LIMITED = replace(
    CONFIG,
    autoencoder_training=replace(CONFIG.autoencoder_training, **SHORT),
    prior_training=replace(CONFIG.prior_training, **SHORT),
    max_minutes=20.0,
)
train = functools.partial(train_fully, limits=Limits(sample_every=2.0, context_steps=20))


def quiet(_: str) -> None:
    pass


def weights(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.safetensors"))}


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "training" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def settings(folder: Path) -> Any:
    return json.loads((folder / "training" / "settings.json").read_text())


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained within a limit that it did not need. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "model"
    train(dataset, folder, LIMITED, device="cpu", say=quiet)
    return folder


@pytest.fixture(scope="module")
def continued(finished: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, trained further without a stop. Not to be changed."""
    folder = copied(finished, tmp_path_factory.mktemp("continued") / "model")
    (folder / "evaluation.json").write_text("{}")
    train(dataset, folder, LIMITED, more=10, device="cpu", say=quiet)
    return folder


def test_a_further_training_begins_with_the_losses_of_the_finished_model_and_lowers_them(
    finished: Path, continued: Path
) -> None:
    before, after = rows(finished), rows(continued)
    assert after[: len(before)] == before
    later = after[len(before) :]
    assert (later[0]["stage"], later[0]["step"]) == ("autoencoder", 0)
    last = [row for row in before if row["stage"] == "autoencoder"][-1]
    assert later[0]["validation_score"] == pytest.approx(last["validation_score"])
    for stage in ("autoencoder", "prior"):
        scores = [
            min(row["validation_score"] for row in some if row["stage"] == stage)
            for some in (before, after)
        ]
        assert scores[1] < scores[0], stage
    assert weights(continued).keys() == weights(finished).keys()
    assert weights(continued)["prior.safetensors"] != weights(finished)["prior.safetensors"]
    assert load(continued).known is not None
    assert not (continued / "training" / "more").exists()
    assert not (continued / "evaluation.json").exists(), "it was of the earlier model"
    assert "step" in (continued / "README.md").read_text("utf-8")


def test_its_minutes_count_to_the_limit_and_it_can_be_repeated(
    continued: Path, dataset: Dataset, tmp_path: Path
) -> None:
    folder = copied(continued, tmp_path / "model")
    assert settings(folder)["config"]["max_minutes"] == 30
    lines: list[str] = []
    longer = replace(LIMITED, max_minutes=30.0)
    for config in (LIMITED, longer):
        train(dataset, folder, config, device="cpu", say=lines.append)
    assert set(lines) == {finished_line(folder)}
    assert weights(folder) == weights(continued)
    lines.clear()
    train(dataset, folder, replace(longer, max_minutes=35.0), device="cpu", say=lines.append)
    assert lines[0].startswith("training the finished model further for 5 minutes")
    assert settings(folder)["config"]["max_minutes"] == 35
    assert settings(folder)["continued"] == 2
    assert weights(folder) != weights(continued)


@pytest.mark.parametrize(("stage", "step"), [("autoencoder", 5), ("prior", 9)])
def test_a_stopped_further_training_leaves_the_finished_model_and_resumes_bit_for_bit(
    finished: Path,
    continued: Path,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    step: int,
) -> None:
    folder = copied(finished, tmp_path / "model")
    with monkeypatch.context() as patch:
        stop_after(patch, stage, step)
        with pytest.raises(Stopped):
            train(dataset, folder, LIMITED, more=10, device="cpu", say=quiet)
    assert weights(folder) == weights(finished)
    assert (folder / "model.json").read_bytes() == (finished / "model.json").read_bytes()
    assert settings(folder) == settings(finished)
    lines: list[str] = []
    train(dataset, folder, LIMITED, device="cpu", say=lines.append)
    assert (
        lines[0] == "note: a further training of this model was stopped; --more MINUTES resumes it"
    )
    train(dataset, folder, LIMITED, more=10, device="cpu", say=quiet)
    assert weights(folder) == weights(continued)


class Killed(BaseException):
    """A process that ends without a word."""


@pytest.fixture(scope="module")
def waiting(finished: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A further training killed when all its stages were trained. Not to be changed."""
    folder = copied(finished, tmp_path_factory.mktemp("waiting") / "model")

    def die(_: Any) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Further, "replace_finished", die)
        with pytest.raises(Killed):
            train(dataset, folder, LIMITED, more=10, device="cpu", say=quiet)
    return folder


@pytest.mark.parametrize("writes", [1, 4, 5, 8, 10, 12, 14])
def test_killed_while_it_takes_the_models_place_it_leaves_one_of_both_and_is_completed(
    writes: int,
    waiting: Path,
    finished: Path,
    continued: Path,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copied(waiting, tmp_path / "model")
    left, replace_file = [writes], os.replace

    def replace_or_die(source: Any, target: Any) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_die)
        with pytest.raises(Killed):
            train(dataset, folder, LIMITED, more=10, device="cpu", say=quiet)
    assert checksums(folder) in (checksums(finished), checksums(continued))
    train(dataset, folder, LIMITED, more=10, device="cpu", say=quiet)
    assert weights(folder) == weights(continued)
    assert [row["step"] for row in rows(folder)] == [row["step"] for row in rows(continued)]
    assert settings(folder)["continued"] == 1


def checksums(folder: Path) -> list[str]:
    """Of the parts of a model that can be loaded."""
    header = load(folder).header
    return [header[part]["sha256"] for part in ("autoencoder", "context", "prior")]


def test_how_a_further_training_starts_may_differ_from_the_finished_one(
    finished: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = copied(finished, tmp_path / "few")
    free = replace(LIMITED, keep_codes=False, carried_rate=0.5)
    lines: list[str] = []
    with pytest.raises(AudiovqError, match="other settings"):
        train(dataset, few, free, device="cpu", say=quiet)
    with monkeypatch.context() as patch:
        stop_after(patch, "prior", 10)
        with pytest.raises(Stopped):
            train(dataset, few, free, more=5, device="cpu", say=quiet)
    with pytest.raises(AudiovqError, match="with other settings was stopped"):
        train(dataset, few, LIMITED, more=5, device="cpu", say=quiet)
    train(dataset, few, free, more=5, device="cpu", say=lines.append)
    assert not any("codes stay" in line for line in lines)
    kept = copied(finished, tmp_path / "kept")
    lines.clear()
    train(dataset, kept, LIMITED, more=5, device="cpu", say=lines.append)
    assert (
        sum(line.startswith("codes stay as they are, as the clips are few") for line in lines) == 1
    )
    books = [load(folder).autoencoder.quantizer.codebooks()[0] for folder in (finished, few, kept)]
    assert torch.equal(books[0].vectors, books[2].vectors)
    assert not torch.equal(books[0].vectors, books[1].vectors)
    with pytest.raises(AudiovqError, match="other settings"):
        train(dataset, kept, replace(LIMITED, seed=7), more=5, device="cpu", say=quiet)


def test_what_is_not_finished_cannot_be_trained_further(
    finished: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AudiovqError, match=r"--more 5: .*holds no finished training"):
        train(dataset, tmp_path / "new", CONFIG, more=5, device="cpu", say=quiet)
    assert not (tmp_path / "new").exists()
    with monkeypatch.context() as patch:
        stop_after(patch, "prior", 10)
        with pytest.raises(Stopped):
            train(dataset, tmp_path / "model", CONFIG, device="cpu", say=quiet)
    with pytest.raises(AudiovqError, match="holds no finished training"):
        train(dataset, tmp_path / "model", CONFIG, more=5, device="cpu", say=quiet)
    before = weights(finished)
    for more, overwrite, says in ((-1.0, False, "give minutes above 0"), (5, True, "--overwrite")):
        with pytest.raises(AudiovqError, match=says):
            train(dataset, finished, LIMITED, more=more, overwrite=overwrite, say=quiet)
    assert weights(finished) == before
