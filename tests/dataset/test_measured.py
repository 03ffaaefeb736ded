"""Every sentence about figures names the split that they are of."""

import json
import re
from pathlib import Path

import pytest
import soundfile
from conftest import make_voice
from fast_training import CONFIG, train
from short_judges import shorten_judges

from audiovq.cli.main import main
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.measured import clips_and_why, clips_of, measured_split, recordings_in_words
from audiovq.preprocessing.preprocess import preprocess

CODE = Path(__file__).parents[2] / "audiovq"
FALSE = re.compile(
    r"unseen clip|held[ -]out|model did not learn|real test|than new ones", re.IGNORECASE
)
"""What is false of training clips."""


def test_the_words_name_the_split_measured_and_the_empty_ones() -> None:
    assert clips_and_why("test", "test", "validation") == "test clips"
    assert (
        clips_and_why("validation", "test", "validation")
        == "validation clips (this dataset has no test split)"
    )
    assert (
        clips_and_why("train", "validation")
        == "training clips (this dataset has no validation split)"
    )
    assert (
        clips_and_why("train", "test", "validation", noun="images")
        == "training images (this dataset has no test and no validation split)"
    )
    assert clips_of(None) == "clips", "of an earlier version, which did not say"


@pytest.mark.parametrize("wanted", [("validation",), ("test", "validation"), ()])
def test_the_split_measured_is_the_first_with_clips(
    wanted: tuple[str, ...], dataset: Dataset
) -> None:
    expected = [getattr(dataset, name) for name in wanted if len(getattr(dataset, name))]
    assert measured_split(dataset, *wanted) is [*expected, dataset.train][0]


def test_no_source_line_names_a_fixed_split() -> None:
    """Sentences take the split's name from `measured`; nothing else says which clips were measured."""
    for path in sorted(CODE.rglob("*.py")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            assert not FALSE.search(line), f"{path.name}:{number}: {line.strip()}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of two clips, too few for a validation and a test split."""
    folder = tmp_path_factory.mktemp("alone")
    for number in range(2):
        path = folder / "sounds" / f"{number}_a.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, make_voice(0.2 + 0.02 * number, 100.0 + 20 * number), 8000)
    config = PreprocessConfig(labels=r"(?P<digit>\d)_", validation_share=0, test_share=0)
    preprocess(folder / "sounds", folder / "dataset", config, say=lambda _: None)
    return folder


def test_without_other_splits_every_sentence_says_training_clips(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines of training, model card, evaluate's table, page."""
    shorten_judges(monkeypatch)
    dataset = Dataset(alone / "dataset")
    assert [len(s) for s in (dataset.validation, dataset.test)] == [0, 0]
    lines: list[str] = []
    train(dataset, alone / "model", CONFIG, device="cpu", say=lines.append)
    note = lines[0]
    assert "no validation split" in note
    assert "training clips" in note
    told = [line for line in lines if " dB on " in line or "bits/code on" in line]
    assert {line.split()[0].strip(":") for line in told} == {"autoencoder", "context", "prior"}
    for line in told:
        assert "on training clips (this dataset has no validation split)" in line
    card = (alone / "model" / "README.md").read_text("utf-8")
    assert card.count("on training clips (this dataset has no validation split)") == 3
    assert "2 recordings used of 2 files found; 2 clips: 2 training, 0 validation, 0 test" in card
    assert main(["report", str(alone / "model")]) == 0
    first = (alone / "model" / "report.html").read_text("utf-8")
    capsys.readouterr()
    assert main(["evaluate", str(alone / "model"), str(alone / "dataset"), "-n", "3"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"measured on +2 training clips +used for training", table)
    assert "left out" in table
    assert "recognised" not in table
    assert "Fréchet" not in table
    assert main(["report", str(alone / "model")]) == 0
    page = (alone / "model" / "report.html").read_text("utf-8")
    for text in ("\n".join(lines), card, table, first, page):
        assert not FALSE.search(text)
        assert "test clips" not in text
        assert "validation clips" not in text
    assert (
        "Training clips (this dataset has no test and no validation split): the recording" in page
    )
    summary = json.loads((alone / "model" / "model.json").read_text("utf-8"))
    for stage in ("autoencoder", "context", "prior"):
        assert summary[stage]["summary"]["measured_on"] == "train"


def test_all_outputs_count_a_dataset_in_the_same_words(dataset: Dataset) -> None:
    words = recordings_in_words(dataset)
    assert words.startswith("24 recordings used of 24 files found; 24 clips: ")
    numbers = [int(n) for n in re.findall(r"(\d+) (?:training|validation|test)", words)]
    assert sum(numbers) == 24
