"""Labels that are numbers in a dataset, and recordings transposed for training."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiovq.audio.reading import AudioInfo
from audiovq.config.errors import AudiovqError
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.numbers import Numbers
from audiovq.evaluation.originals import clip_waveforms
from audiovq.preprocessing.catalog import Content, Recording
from audiovq.preprocessing.labels import FARTHEST, Numbered
from audiovq.preprocessing.preprocess import preprocess

RATE = 8000
HOW = PreprocessConfig(labels=r"(?P<kind>[a-z]+)_(?P<note>\w+)\.wav", test_share=0.1)


def hertz(midi: float) -> float:
    return float(440 * 2 ** ((midi - 69) / 12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("sounds")
    time = np.arange(4000) / RATE
    for note in range(45, 75):
        name = "A3" if note == 57 else str(note)
        sound = 0.3 * np.sin(2 * np.pi * hertz(note) * time) * np.exp(-3 * time)
        soundfile.write(source / f"tone_{name}.wav", sound, RATE)
    return source


def pitch(waveform: np.ndarray) -> float:
    """MIDI note of the strongest partial."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 17))
    return 69 + 12 * np.log2(int(spectrum.argmax()) * RATE / (1 << 17) / 440)


def test_training_clips_are_transposed_with_their_notes_and_can_be_read_again(
    folder: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    preprocess(folder, tmp_path / "d", HOW, numbers=["note"], say=said.append)
    assert not any("cut into" in line for line in said), "each recording is one clip"
    dataset = Dataset(tmp_path / "d")
    assert dataset.labels["kind"] == ["tone"]
    numbers = dataset.labels["note"]
    assert isinstance(numbers, Numbers)
    assert 45 <= numbers.low < numbers.high <= 74
    assert json.loads((tmp_path / "d/dataset.json").read_text())["version"] == 4
    copies = [clip for clip in dataset.train.clips if clip.transposed]
    assert len(copies) == 2 * (len(dataset.train) - len(copies))
    assert not any(clip.transposed for clip in dataset.validation.clips + dataset.test.clips)
    assert {clip.transposed for clip in copies} == {-1, 1}
    waveforms = clip_waveforms(dataset, dataset.train.clips)
    for clip, waveform in zip(dataset.train.clips, waveforms, strict=True):
        assert waveform is not None
        assert len(waveform) == clip.num_samples
        asked = numbers.number(numbers.index(clip.labels["note"]))
        assert abs(pitch(waveform) - asked) < 0.05
    indices = dataset.train.label_indices[:, list(dataset.labels).index("note")]
    assert int(indices.max()) < len(numbers)


@given(note=st.integers(100, 12_600).map(lambda cents: cents / 100), path=st.text())
def test_the_first_two_copies_have_the_next_whole_notes_and_others_are_anywhere_near(
    note: float, path: str
) -> None:
    info, labels = AudioInfo(RATE, 1, RATE), {"note": str(note)}
    recording = Recording(path, info, labels, ("train",), Content("", (0, 0, 0)))
    whole, *copies = Numbered(frozenset({"note"}), 16).recordings([recording])
    assert whole == recording
    notes = [float(copy.labels["note"]) for copy in copies]
    assert notes[0] == pytest.approx(math.ceil(note) - 1, abs=2e-3)
    assert notes[1] == pytest.approx(math.floor(note) + 1, abs=2e-3)
    for index, copy in enumerate(copies):
        assert 0 < abs(copy.transposed) <= FARTHEST
        assert (copy.transposed > 0) == (index % 2 == 1)
        assert notes[index] == pytest.approx(note + copy.transposed, abs=2e-3)


@pytest.mark.parametrize("silent", [2, 3])
def test_transposed_copies_do_not_count_where_splits_are_chosen_again(
    silent: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiovq.preprocessing.preprocess.ROUNDS", 2)
    source = tmp_path / "in"
    source.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())[:4]):
        sound, _ = soundfile.read(path)
        soundfile.write(source / path.name, sound * (number != silent), RATE)
    summary = preprocess(source, tmp_path / "d", HOW, numbers=["note"], say=lambda _: None)
    assert summary.clips == {"train": 3, "validation": 1, "test": 1}


def test_the_same_call_finds_the_dataset_complete_and_another_refuses(
    folder: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    for _ in range(2):
        preprocess(folder, tmp_path / "d", HOW, numbers=["note"], transpose=1, say=said.append)
    assert any("already complete" in line for line in said)
    with pytest.raises(AudiovqError, match="holds another dataset"):
        preprocess(folder, tmp_path / "d", HOW, say=lambda _: None)


def test_another_number_of_transposed_copies_is_another_dataset(
    folder: Path, tmp_path: Path
) -> None:
    for transpose in (0, 1):
        preprocess(folder, tmp_path / f"{transpose}", HOW, transpose=transpose, say=lambda _: None)
        with pytest.raises(AudiovqError, match="holds another dataset"):
            preprocess(folder, tmp_path / f"{transpose}", HOW, transpose=2, say=lambda _: None)
    preprocess(folder, tmp_path / "0", HOW, say=lambda _: None)  # none is the default without notes


def test_what_is_no_number_is_refused_with_the_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AudiovqError, match=r"--numbers kind: tone_45.wav has 'tone', which is not"):
        preprocess(folder, tmp_path / "d", HOW, numbers=["kind"], say=lambda _: None)
    with pytest.raises(AudiovqError, match="--numbers size: no recording has a label"):
        preprocess(folder, tmp_path / "d", HOW, numbers=["size"], say=lambda _: None)
    with pytest.raises(AudiovqError, match="--transpose 99: give 0 to 16"):
        preprocess(folder, tmp_path / "d", HOW, transpose=99, say=lambda _: None)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("value", ["220", "880.5", "-13", "1e6", "C12", "C-9"])
def test_a_frequency_is_no_note_and_is_refused_with_what_to_give(value: str) -> None:
    labels = {"a.wav": {"pitch": "A3"}, "b.wav": {"pitch": value}}
    with pytest.raises(
        AudiovqError, match=rf"--numbers pitch: b.wav has '{value}', .* not a note; give"
    ):
        Numbered(frozenset({"pitch"})).words(labels)


@pytest.mark.parametrize(
    ("name", "value"), [("pitch", "0"), ("note", "127"), ("note", "C-2"), ("hz", "880")]
)
def test_notes_of_midi_and_numbers_that_are_no_notes_are_taken(name: str, value: str) -> None:
    assert Numbered(frozenset({name})).words({"a.wav": {name: value}}) == {"a.wav": {}}


def test_words_by_the_name_of_what_is_measured_are_refused_as_such(
    folder: Path, tmp_path: Path
) -> None:
    how = PreprocessConfig(labels=r"(?P<pitch>tone)_")
    measured = {"tone_45.wav": {"pitch": "45.1"}}
    with pytest.raises(
        AudiovqError, match=r"--describe beside --labels with pitch: tone_45.wav has 'tone', which"
    ):
        preprocess(
            folder, tmp_path / "d", how, measured=measured, numbers=["pitch"], say=lambda _: None
        )


def test_without_numbers_datasets_are_as_before(folder: Path, tmp_path: Path) -> None:
    preprocess(folder, tmp_path / "d", HOW, say=lambda _: None)
    header = json.loads((tmp_path / "d/dataset.json").read_text())
    assert header["version"] == 2
    assert isinstance(header["labels"]["note"], list)
    assert "transposed" not in (tmp_path / "d/train.jsonl").read_text()
