"""What results of the quality benchmarks state of training and data, and which models they refuse."""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import AUTOENCODER, tiny_model

from audiovq.codec import codec
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset
from audiovq.generation.sound import Sound
from audiovq.models.model import Model, new_model
from audiovq.spectral.spectrogram import Spectrogram

pytestmark = pytest.mark.usefixtures("benchmarks")
Trained = Callable[[ModuleType, Any], None]


def settings_of(folder: Path, minutes: float | None) -> None:
    """What a training for `minutes` leaves in its folder."""
    path = folder / "training" / "settings.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"config": {"max_minutes": minutes}}))


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    """Untrained, for `dataset`."""
    torch.manual_seed(0)
    counts = [((0,), 1)]
    found = new_model(dataset.spectrogram, AUTOENCODER, dataset.labels, counts, dataset.clip_frames)
    found.autoencoder.eval()
    return found


@pytest.fixture
def trained_for_5(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """`trained_for_5(module, model)`: all that the script asks to train is there already, trained for 5 minutes."""

    def patch(module: ModuleType, model: Any) -> None:
        def train(dataset: Any, folder: Path, config: Any, **_: Any) -> Any:
            assert config.max_minutes != 5
            settings_of(folder, 5)
            return model

        monkeypatch.setattr(module, "train", train)

    return patch


def test_the_minutes_of_a_training_are_those_of_its_settings_and_else_unknown(
    tmp_path: Path,
) -> None:
    from benchmarks.quality.stated import trained_minutes

    assert trained_minutes(tmp_path) is None
    settings_of(tmp_path, 7)
    assert trained_minutes(tmp_path) == 7
    settings_of(tmp_path, None)
    assert trained_minutes(tmp_path) is None
    (tmp_path / "training" / "settings.json").write_text("{}")
    assert trained_minutes(tmp_path) is None


def test_recordings_given_in_place_of_a_set_are_named_counted_and_told_apart_without_their_path(
    dataset: Dataset, tmp_path: Path
) -> None:
    from benchmarks.quality.sets import SETS
    from benchmarks.quality.stated import data_of

    assert data_of(SETS["drums"], dataset, None, None) == SETS["drums"].data
    for given in ((tmp_path / "mine", tmp_path / "other"), (None, tmp_path / "mine")):
        data = data_of(SETS["drums"], dataset, *given)
        assert data == f"folder mine: 24 recordings, dataset {dataset.fingerprint[:16]}"


def test_sounds_state_the_data_and_the_minutes_that_were_measured(
    dataset: Dataset,
    dataset_folder: Path,
    model: Model,
    trained_for_5: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks.quality import sounds

    trained_for_5(sounds, model)
    monkeypatch.setattr(sounds, "reconstructions", lambda *_: [])
    monkeypatch.setattr(sounds, "pictured", lambda *_: ({}, []))
    settings = sounds.Settings("fsdd", split="test", dataset=dataset_folder, n=0, work=tmp_path)
    figures, *_ = sounds.measure(settings)
    assert figures["minutes"] == 5
    assert figures["data"].startswith(f"folder {dataset_folder.name}: 24 recordings")
    settings_of(tmp_path / "given", 7)
    monkeypatch.setattr(sounds, "load", lambda *_: model)
    figures, *_ = sounds.measure(replace(settings, model=tmp_path / "given"))
    assert (figures["minutes"], figures["preset"]) == (7, None)


def test_sounds_refuse_a_model_of_other_labels_or_spectrograms_and_reconstruct_by_one_of_other_labels(
    dataset_folder: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.quality import sounds
    from benchmarks.quality.sets import SETS

    settings = sounds.Settings("fsdd", dataset=dataset_folder, model=tmp_path, work=tmp_path)
    foreign = replace(model, labels={"folder": ["jonas", "sam"]})
    monkeypatch.setattr(sounds, "load", lambda *_: foreign)
    with pytest.raises(AudiovqError, match="has other labels than the model"):
        sounds.prepared(settings, SETS["fsdd"])
    assert sounds.prepared(replace(settings, n=0), SETS["fsdd"]).model is foreign
    monkeypatch.setattr(sounds, "load", lambda *_: tiny_model())
    for n in (0, 8):
        with pytest.raises(AudiovqError, match="made with n_fft"):
            sounds.prepared(replace(settings, n=n), SETS["fsdd"])


@pytest.mark.parametrize("script", ["edits", "new_sounds", "sampling_defaults"])
def test_a_model_of_another_dataset_is_refused_before_a_judge_is_trained(
    script: str, dataset_folder: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"benchmarks.quality.{script}")
    monkeypatch.setattr(module, "load", lambda *_: tiny_model())
    monkeypatch.setattr(
        module.classifier, "train_classifier", lambda *_, **__: pytest.fail("trained")
    )
    more = [recordings] if script == "new_sounds" else []
    with pytest.raises(AudiovqError, match="the dataset that the model was trained on"):
        module.main(Path("model"), dataset_folder, *more)


def test_what_is_refused_is_one_line_and_status_2_in_every_script(
    benchmarks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.command import refusing

    with pytest.raises(SystemExit) as ended, refusing("sounds"):
        raise AudiovqError("no such model")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "sounds: no such model\n"
    texts = {path.stem: path.read_text("utf-8") for path in (benchmarks / "quality").glob("*.py")}
    scripts = {name: text for name, text in texts.items() if "__main__" in text}
    assert "sounds" in scripts
    for name, text in scripts.items():
        assert f'if __name__ == "__main__":\n    with refusing("{name}"):\n' in text


def test_real_clips_beside_new_sounds_are_a_random_choice_by_the_seed(
    dataset: Dataset, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.quality import sounds
    from benchmarks.quality.sets import SETS

    wave = np.random.default_rng(0).normal(0, 0.1, 2000).astype(np.float32)
    new = [Sound(wave, {}, codec.encode(model, [wave])[0])] * 6
    compared: list[list[int]] = []
    monkeypatch.setattr(sounds, "generate", lambda *_, **__: new)
    monkeypatch.setattr(sounds, "evaluate_with_judges", lambda *_: {})
    monkeypatch.setattr(sounds, "compare", lambda *_: [])
    monkeypatch.setattr(
        sounds, "encode_clips", lambda model, split, chosen: compared.append(chosen.tolist())
    )
    for seed in (0, 0, 1):
        settings = sounds.Settings("fsdd", n=6, seed=seed)
        sounds.generation(settings, SETS["fsdd"], model, dataset, dataset.train)
    first, again, other = compared
    assert first == again != other
    assert len(set(first)) == 6
    assert max(first) >= 6, "not the first ones in the order of their paths"


def test_points_of_trained_and_of_given_models_have_the_minutes_of_their_own_training(
    trained_for_5: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    from benchmarks.quality import quality
    from benchmarks.quality.scores import Scores

    scores = Scores(3.0, 0.9, 0.8, 8.0)

    def measured(
        model: Model, name: str, clips: Any, allowed: Any = None, minutes: float | None = None
    ) -> quality.Point:
        return quality.Point(name, quality.OURS, 1000.0, scores, minutes=minutes)

    trained_for_5(quality, None)
    monkeypatch.setattr(quality, "preprocess", lambda *_, **__: None)
    monkeypatch.setattr(quality, "load", lambda *_: None)
    monkeypatch.setattr(quality, "ceiling", lambda *_: quality.Skipped("", ""))
    monkeypatch.setattr(quality, "measure_model", measured)
    clips = quality.Clips(["7_ada_0.wav"], ["ada"], [np.zeros(8, np.float32)])
    settings_of(tmp_path / "given", 7)
    given = quality.Settings(model=(tmp_path / "given",), work=tmp_path, codecs=False)
    rated = replace(given, model=(), rate=(1000,))
    for settings, minutes in (
        (given, 7),
        (rated, 5),
        (replace(rated, leave_one_out=True), 5),
        (replace(rated, unseen_words=True), 5),
    ):
        found = [p for p in quality.models(settings, clips) if isinstance(p, quality.Point)]
        assert {point.minutes for point in found} == {minutes}


def test_results_of_other_recordings_are_not_merged_and_their_folder_is_named(
    tmp_path: Path,
) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    from benchmarks.quality import points, quality

    assert quality.data_in(quality.Settings.recordings) == quality.DATA
    data = quality.data_in(tmp_path / "mine")
    assert "mine" in data
    assert str(tmp_path) not in data
    path = tmp_path / "results.json"
    points.write(path, points.Results(quality.DATA, 300, 130.5))
    with pytest.raises(AudiovqError, match="give another file with --out"):
        points.write(path, points.Results(data, 300, 99.5))
    assert points.read(path).seconds == 130.5


def test_stereo_states_the_minutes_of_both_trainings(
    trained_for_5: Trained, tmp_path: Path
) -> None:
    pytest.importorskip("visqol")
    from benchmarks.quality import stereo

    summary = {"step": 30, "progress": 1.0}
    model = SimpleNamespace(header={"autoencoder": {"summary": summary}})
    trained_for_5(stereo, model)
    datasets: dict[str, Any] = {"mono": None, "stereo": None}
    _, minutes = stereo.trained(stereo.Settings("body", minutes=9), datasets, tmp_path)
    assert minutes == {"mono": 5, "stereo": 5}


def test_halves_state_the_minutes_of_each_training(
    recordings: Path,
    dataset: Dataset,
    model: Model,
    trained_for_5: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks.quality import halves

    trained_for_5(halves, model)
    origin = SimpleNamespace(model=model, adopt=lambda config: config)
    monkeypatch.setattr(halves, "recordings", lambda *_: recordings)
    monkeypatch.setattr(halves, "preprocess", lambda *_: None)
    monkeypatch.setattr(halves, "Dataset", lambda *_: dataset)
    monkeypatch.setattr(halves, "Origin", SimpleNamespace(read=lambda _: origin))
    monkeypatch.setattr(halves.classifier, "train_classifier", lambda *_, **__: None)
    monkeypatch.setattr(halves, "figures_of", lambda *_: {})
    figures = halves.measure(halves.Settings("drums", tmp_path, minutes=9, fine_minutes=8))
    assert [row["minutes"] for row in figures["trainings"]] == [5] * 4


def test_fifty_states_the_minutes_of_a_training_and_the_seconds_of_all_its_runs_or_none(
    trained_for_5: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.quality import fifty

    trained_for_5(fifty, None)
    settings = fifty.Settings("drums", "train", tmp_path, arm="fifty", minutes=9)
    ticks = iter([0.0, 100.0, 200.0, 201.0, 300.0, 301.0])
    monkeypatch.setattr(fifty.time, "perf_counter", lambda: next(ticks))
    took = fifty._folder(tmp_path, "fifty") / "took.json"
    for seconds in (100, 101):
        fifty.train_arm(settings)
        assert json.loads(took.read_text()) == {"arm": "fifty", "seconds": seconds}
    took.unlink()  # as after a run that was stopped
    fifty.train_arm(settings)
    assert json.loads(took.read_text())["seconds"] is None
    none = SimpleNamespace(clips=[])
    judges = SimpleNamespace(label="kind", test=[[]], figures=lambda *_: {"sounds": 0})
    monkeypatch.setattr(fifty, "Dataset", lambda *_: SimpleNamespace(test=none, train=none))
    monkeypatch.setattr(fifty, "Judges", lambda *_: judges)
    monkeypatch.setattr(fifty, "of_model", lambda *_: {})
    monkeypatch.setattr(fifty, "load", lambda *_: None)
    figures = fifty.measure(replace(settings, do="measure", models=("fifty",)))
    assert figures["fifty"]["minutes"] == 5


def test_enough_refuses_figures_and_models_of_other_minutes(
    dataset: Dataset,
    recordings: Path,
    trained_for_5: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks.quality import enough

    trained_for_5(enough, None)
    monkeypatch.setattr(enough, "recordings", lambda *_: recordings)
    monkeypatch.setattr(enough, "preprocess", lambda *_, **__: None)
    monkeypatch.setattr(enough, "Dataset", lambda *_: dataset)
    out = tmp_path / "enough.json"
    settings = enough.Settings(tmp_path, out, minutes=2.5, sets=("drums",), sizes=(25,))
    with pytest.raises(AudiovqError, match=r"was trained for 5\.0 minutes"):
        enough.main(settings)
    assert not out.exists()
    out.write_text(json.dumps({"minutes": 1.0, "rows": []}))
    with pytest.raises(AudiovqError, match="were trained for 1 minutes each"):
        enough.main(settings)


def test_inversion_names_the_model_without_its_path_and_takes_all_its_spectrogram_settings(
    recordings: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("visqol")
    from benchmarks.quality import inversion

    config = replace(model.spectrogram.config, range_db=60.0)
    model = replace(model, spectrogram=Spectrogram(config))
    made: list[Dataset] = []

    def opened(*arguments: Any) -> Dataset:
        made.append(Dataset(*arguments))
        return made[-1]

    monkeypatch.setattr(inversion, "load", lambda *_: model)
    monkeypatch.setattr(inversion, "Dataset", opened)
    monkeypatch.setattr(inversion, "recordings", lambda *_: recordings)
    monkeypatch.setattr(inversion, "figures", lambda *_: {})
    monkeypatch.setattr(inversion, "WAYS", {})
    out = tmp_path / "out.json"
    settings = inversion.Settings("foley", model=tmp_path / "mine", files=2, out=out)
    inversion.main(settings)
    assert json.loads(out.read_text())["settings"]["model"] == "mine"
    assert made[0].spectrogram == config
    inversion.main(replace(settings, model=None))
    assert json.loads(out.read_text())["settings"]["model"] is None
    with pytest.raises(AudiovqError, match="are those of --model; leave them out"):
        inversion.main(replace(settings, n_fft=512))


def test_a_choice_of_clips_has_none_twice_and_at_most_all(dataset: Dataset) -> None:
    from audiovq.dataset.dataset import random_clips

    every = random_clips(dataset.train, 10_000, 0)
    assert torch.equal(every.sort().values, torch.arange(len(dataset.train)))
    assert torch.equal(random_clips(dataset.train, 5, 0), every[:5])
