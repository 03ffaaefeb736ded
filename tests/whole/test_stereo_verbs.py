"""Stereo from a folder of recordings to new sounds, by every verb."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from fast_training import CONFIG

from audiovq.cli.main import main
from audiovq.config.settings import OptimizerConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation.evaluate import evaluate
from audiovq.evaluation.judges import JudgeLimits
from audiovq.models.checkpoint import load
from audiovq.preprocessing.preprocess import preprocess
from audiovq.report.collect import write_report
from audiovq.training.run import train

RATE = 8000
ALL_STAGES = dataclasses.replace(
    CONFIG,
    vivid_share=0.1,
    vivid_training=OptimizerConfig(steps=6, batch_size=4, warmup=2, validate_every=6),
)


@pytest.fixture(scope="module")
def stereo(
    tmp_path_factory: pytest.TempPathFactory, voice: Callable[..., npt.NDArray[np.float32]]
) -> Path:
    """A folder with `recordings`, `dataset` and `model`."""
    folder = tmp_path_factory.mktemp("stereo")
    for number in range(24):
        sound = voice(0.25 + 0.01 * (number % 5), 110 + 6 * number)
        gains = np.float32([1, 0.2]) if number % 2 else np.float32([0.3, 1])
        path = folder / "recordings" / ("left" if number % 2 else "right") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound[:, None] * gains, RATE)
    preprocess(
        folder / "recordings",
        folder / "dataset",
        PreprocessConfig(validation_share=0.2, test_share=0.2),
        say=lambda line: None,
    )
    train(
        Dataset(folder / "dataset"),
        folder / "model",
        ALL_STAGES,
        device="cpu",
        say=lambda line: None,
    )
    return folder


def channels(path: Path) -> int:
    return soundfile.info(path).channels


def test_model_and_dataset_have_the_versions_of_stereo(stereo: Path) -> None:
    for name, version in (("dataset/dataset.json", 3), ("model/model.json", 6)):
        header = json.loads((stereo / name).read_text())
        assert header["version"] == version
        assert header["spectrogram"]["channels"] == 2


@pytest.mark.parametrize(
    "verb",
    [
        ["generate", "MODEL", "OUT", "-n", "2"],
        ["generate", "MODEL", "OUT", "-n", "1", "--length", "0.7"],
        ["generate", "MODEL", "OUT", "-n", "1", "--length", "0.5", "--loop"],
        ["vary", "MODEL", "SOUND", "OUT", "-n", "1"],
        ["continue", "MODEL", "SOUND", "OUT", "-n", "1", "--length", "0.6"],
        ["repaint", "MODEL", "SOUND", "OUT", "-n", "1", "--time", "0.05:0.1"],
        ["repaint", "MODEL", "SOUND", "OUT", "-n", "1", "--band", "500:1500"],
        ["repaint", "MODEL", "MONO", "OUT", "-n", "1", "--time", "0.05:0.1"],
        ["morph", "MODEL", "SOUND", "OTHER", "OUT", "--steps", "2"],
        ["reconstruct", "MODEL", "FOLDER", "OUT"],
        ["pack", "MODEL", "OUT", "--each", "1"],
    ],
    ids=lambda words: "-".join([words[0], words[2], *(w for w in words if w[:2] == "--")]),
)
def test_every_verb_writes_stereo(stereo: Path, tmp_path: Path, verb: list[str]) -> None:
    places = {
        "MODEL": stereo / "model",
        "SOUND": stereo / "recordings" / "left" / "1.wav",
        "OTHER": stereo / "recordings" / "right" / "2.wav",
        "FOLDER": stereo / "recordings" / "left",
        "OUT": tmp_path / "out",
        "MONO": tmp_path / "mono.wav",
    }
    both, _ = soundfile.read(places["SOUND"])
    soundfile.write(places["MONO"], both[:, 0], RATE)
    main([str(places.get(word, word)) for word in verb])
    written = list((tmp_path / "out").rglob("*.wav"))
    assert written
    assert {channels(path) for path in written} == {2}


def test_archives_of_stereo_sounds_decode_to_stereo(stereo: Path, tmp_path: Path) -> None:
    model, source = str(stereo / "model"), str(stereo / "recordings" / "left")
    main(["encode", model, source, str(tmp_path / "a.avq")])
    main(["decode", model, str(tmp_path / "a.avq"), str(tmp_path / "out")])
    assert {channels(path) for path in (tmp_path / "out").rglob("*.wav")} == {2}


def test_a_stereo_model_is_evaluated_and_reported(stereo: Path, tmp_path: Path) -> None:
    model, dataset = load(stereo / "model"), Dataset(stereo / "dataset")
    limits = JudgeLimits(min_steps=4, max_steps=4, second_max_steps=4)
    figures = evaluate(model, dataset, n=6, judge_limits=limits)
    assert figures["reconstruction"]["mel_distance_db"] > 0
    folder = shutil.copytree(stereo / "model", tmp_path / "model")
    page = write_report(model, dataset, folder)
    assert page.stat().st_size > 10_000
