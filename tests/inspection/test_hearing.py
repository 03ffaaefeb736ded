"""Labels by ear: notes, tempos and ranks of recordings, as labels of a dataset."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from audiovq.cli.main import main
from audiovq.config.errors import AudiovqError
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.numbers import Numbers
from audiovq.inspection import hearing
from audiovq.inspection.hearing import measured_labels

RATE = 8000


def tone(hertz: float, attack: float = 0.001, seconds: float = 0.4) -> npt.NDArray[np.float32]:
    time = np.arange(round(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * k * hertz * time) / k for k in (1, 2, 3))
    rise = np.minimum(1, time / attack)
    return (0.2 * rise * sound).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sounds").mkdir()
    for i, hertz in enumerate((220.0, 233.08, 246.94, 261.63)):
        sound = tone(hertz, 0.001 + 0.05 * i) * (1 - 0.2 * i)
        soundfile.write(tmp_path / "sounds" / f"tone_{i}.wav", sound, RATE)
    noise = 0.1 * np.random.default_rng(0).standard_normal(4000)
    soundfile.write(tmp_path / "sounds" / "noise_120bpm_Cmin.wav", noise, RATE)
    soundfile.write(tmp_path / "sounds" / "low_A1.wav", tone(300.0), RATE)
    return tmp_path / "sounds"


def test_notes_are_those_of_the_name_or_the_pitch(folder: Path) -> None:
    said: list[str] = []
    labels = measured_labels(folder, ["pitch", "tempo", "key"], said.append)
    pitches = [float(labels[f"tone_{i}.wav"]["pitch"]) for i in range(4)]
    assert np.allclose(pitches, [57, 58, 59, 60], atol=0.1)
    assert labels["low_A1.wav"] == {"pitch": "A1"}
    assert labels["noise_120bpm_Cmin.wav"] == {"bpm": "120", "key": "Cmin"}
    assert said == [
        "described: pitch of 5 of 6 recordings",
        "described: tempo of 1 of 6 recordings",
        "described: key of 1 of 6 recordings",
    ]


def test_ranks_follow_what_they_measure(folder: Path) -> None:
    labels = measured_labels(folder, ["attack", "noisiness", "loudness", "brightness"])
    attack = [float(labels[f"tone_{i}.wav"]["attack"]) for i in range(4)]
    assert attack == sorted(attack)
    assert (
        labels["noise_120bpm_Cmin.wav"]["noisiness"]
        == labels["noise_120bpm_Cmin.wav"]["brightness"]
        == "1.0000"
    )
    loudness = [float(labels[f"tone_{i}.wav"]["loudness"]) for i in range(4)]
    assert loudness == sorted(loudness, reverse=True)


def test_silent_recordings_have_no_rank(folder: Path) -> None:
    names = ["attack", "noisiness", "loudness", "brightness"]
    before = measured_labels(folder, names)
    dither = np.random.default_rng(0).integers(-1, 2, RATE) / 32768
    for name, sound in {"silent": np.zeros(RATE), "dither": dither}.items():
        soundfile.write(folder / f"{name}.wav", sound, RATE)
    assert measured_labels(folder, names) == before | {"dither.wav": {}, "silent.wav": {}}


def test_ranks_are_even_and_shared_by_equal_values() -> None:
    ranks = hearing._ranks({str(i): float(i**2) for i in range(81)})
    assert np.allclose([float(ranks[str(i)]) for i in range(81)], np.linspace(0, 1, 81), atol=1e-4)
    assert hearing._ranks({}) == {}
    assert set(hearing._ranks({"a": 1.0, "b": 1.0}).values()) == {"0.5000"}
    assert hearing._ranks({"a": 1.0}) == {"a": "0.0000"}


def test_measured_labels_are_labels_of_the_dataset_beside_those_of_names(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["preprocess", str(folder), str(tmp_path / "dataset"), "--describe", "pitch"]
    assert main([*arguments, "--labels", "(?P<kind>[a-z]+)_"]) == 0
    capsys.readouterr()
    dataset = Dataset(tmp_path / "dataset")
    clips = {c.path: c.labels for split in dataset.splits for c in split.clips if not c.transposed}
    assert clips["tone_0.wav"].keys() == {"pitch", "kind"}
    assert isinstance(dataset.labels["pitch"], Numbers)
    assert clips["noise_120bpm_Cmin.wav"] == {"kind": "noise"}
    assert main(["preprocess", str(folder), str(tmp_path / "other"), "--describe", "size"]) == 2
    assert "--describe size: give some of pitch, tempo" in capsys.readouterr().err


def test_a_name_that_is_not_measured_is_refused(folder: Path) -> None:
    with pytest.raises(AudiovqError, match="--describe colour: give some of"):
        measured_labels(folder, ["colour"])
