"""The whole pipeline, from recordings to new recordings, by the public functions."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from reseal import reseal
from short_judges import shorten_judges

from audiovq import pipeline
from audiovq.audio.reading import read
from audiovq.audio.waveform import AudioError, Waveform
from audiovq.codec import codec
from audiovq.codec.files import encode_files
from audiovq.config.errors import AudiovqError
from audiovq.config.sampling import SamplingConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.evaluation.evaluate import evaluate
from audiovq.evaluation.originals import beginnings, described_beginnings
from audiovq.evaluation.wording import describe_figures, figure_table
from audiovq.generation import files as generation_files
from audiovq.models.model import Model
from audiovq.preprocessing.preprocess import preprocess


@pytest.fixture(autouse=True)
def short_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_judges(monkeypatch)


def test_generated_files_are_named_by_number_and_labels_and_listed(
    model: Model, tmp_path: Path
) -> None:
    paths = generation_files.generate_files(model, tmp_path / "out", 3, {"folder": "sam"}, seed=5)
    assert [path.name for path in paths] == ["0000_sam.wav", "0001_sam.wav", "0002_sam.wav"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["made_with"]["seed"] == 5
    assert manifest["made_with"]["temperature"] == SamplingConfig().settled().temperature
    for path, row in zip(paths, manifest["sounds"], strict=True):
        samples, rate = soundfile.read(path)
        assert rate == 8000
        assert row["file"] == path.name
        assert row["labels"] == {"folder": "sam"}
        assert row["seconds"] == pytest.approx(len(samples) / 8000, abs=1e-3)


def test_generated_files_are_the_same_bytes_for_the_same_seed(model: Model, tmp_path: Path) -> None:
    runs = [generation_files.generate_files(model, tmp_path / n, 3, seed=1) for n in ("a", "b")]
    other = generation_files.generate_files(model, tmp_path / "c", 3, seed=2)
    first, second, third = ([path.read_bytes() for path in paths] for paths in (*runs, other))
    assert first == second
    assert first != third


def test_an_existing_output_is_refused_without_overwrite(model: Model, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(AudiovqError, match="exists already"):
        generation_files.generate_files(model, tmp_path, 1)
    generation_files.generate_files(model, tmp_path, 1, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_label_values_never_leave_the_folder(model: Model, tmp_path: Path) -> None:
    sound = pipeline.generate(model, 1)[0]
    evil = type(sound)(sound.waveform, {"folder": "../../up/x"}, sound.encoded)
    (path,) = generation_files.write_sounds(model, tmp_path / "out", [evil], SamplingConfig(), 0)
    assert path.parent == tmp_path / "out"
    assert path.is_file()


def test_reconstructions_keep_names_folders_and_lengths(
    model: Model, own_recordings: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).standard_normal(4410).astype(np.float32) * 0.1
    soundfile.write(own_recordings / "jan" / "0_jan_0.flac", noise, 44100)
    (own_recordings / "broken.wav").write_bytes(b"RIFF not really")
    said: list[str] = []
    figures = pipeline.reconstruct_files(model, own_recordings, tmp_path / "out", say=said.append)
    assert figures["files"] == 25
    assert len(said) == 1
    assert "broken.wav" in said[0]
    for path in own_recordings.rglob("*_*.wav"):
        original, made = read(path)[0], read(tmp_path / "out" / path.relative_to(own_recordings))[0]
        assert len(original) == len(made)
    assert len(read(tmp_path / "out" / "jan" / "0_jan_0.flac.wav")[0]) == 800
    codes_per_second = figures["nominal_bits_per_second"] / 5
    assert model.codes_per_second < codes_per_second < 1.4 * model.codes_per_second


def test_one_file_is_reconstructed_to_the_given_file(
    model: Model, recordings: Path, tmp_path: Path
) -> None:
    source = recordings / "jan" / "0_jan_0.wav"
    pipeline.reconstruct_files(model, source, tmp_path / "back.wav")
    (expected,) = codec.decode(model, codec.encode(model, [read(source)[0]]))
    made = read(tmp_path / "back.wav")[0]
    assert np.abs(made - expected).max() < 1e-4
    with pytest.raises(AudiovqError, match="exists already"):
        pipeline.reconstruct_files(model, source, tmp_path / "back.wav")


def test_metrics_have_every_part_and_each_has_its_sentence(model: Model, dataset: Dataset) -> None:
    figures = evaluate(model, dataset, n=6)
    assert set(figures) >= {"reconstruction", "codebook", "prior", "generation"}
    json.dumps(figures)  # plain numbers only
    assert 0 <= figures["codebook"]["usage"] <= 1
    assert figures["prior"]["uniform_bits"] == 5
    assert figures["generation"]["accuracy"]["folder"]["real"] >= 0
    rows = describe_figures(figures)
    assert {"codebook use", "folder recognised", "copies"} <= {row[0] for row in rows}
    assert all(meaning for _, _, meaning in rows)
    assert len(figure_table(figures).splitlines()) == len(rows)


def test_metrics_are_computed_without_the_recordings(
    recordings: Path, dataset_folder: Path, model: Model, tmp_path: Path
) -> None:
    moved = shutil.copytree(dataset_folder, tmp_path / "dataset")
    header = json.loads((moved / "dataset.json").read_text())
    header["source"] = "../gone"
    (moved / "dataset.json").write_text(json.dumps(header))
    reseal(moved)
    reconstruction = evaluate(model, Dataset(moved), n=2)["reconstruction"]
    assert set(reconstruction) == {"error_db", "left_out"}
    assert "--recordings FOLDER" in reconstruction["left_out"]
    # Where they are said to be elsewhere, all figures come, but not from other sounds of these names.
    elsewhere = shutil.copytree(recordings, tmp_path / "elsewhere")
    dataset = Dataset(moved, elsewhere)
    assert len(list(beginnings(dataset, dataset.test))) == len(dataset.test)
    for path in elsewhere.rglob("*.wav"):
        path.write_bytes(path.read_bytes()[:-2] + b"\x11\x11")
    with pytest.raises(AudioError, match="has changed"):
        list(beginnings(dataset, dataset.test))


@pytest.fixture(scope="module")
def noise() -> Waveform:
    """9 s at 8 kHz."""
    return np.random.default_rng(0).uniform(-0.4, 0.4, 8000 * 9).astype(np.float32)


@pytest.fixture(scope="module")
def split_in_time(noise: Waveform, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset of `noise` alone, so that all splits share the recording."""
    folder = tmp_path_factory.mktemp("split")
    (folder / "in").mkdir()
    soundfile.write(folder / "in" / "long.wav", noise, 8000, subtype="FLOAT")
    preprocess(folder / "in", folder / "out", PreprocessConfig(clip_seconds=0.13, trim=False))
    return Dataset(folder / "out")


def test_originals_of_a_recording_split_in_time_are_stretches_of_that_split_only(
    noise: Waveform, split_in_time: Dataset
) -> None:
    sound, dataset = noise, split_in_time
    stretches: dict[str, list[tuple[int, int]]] = {}
    for split in dataset.splits:
        for waveform in beginnings(dataset, split):
            begin = next(
                i for i in np.flatnonzero(sound == waveform[0]) if sound[i + 1] == waveform[1]
            )
            assert np.array_equal(sound[begin : begin + len(waveform)], waveform)
            stretches.setdefault(split.name, []).append((begin, begin + len(waveform)))
        own = sum(end - begin for begin, end in stretches[split.name])
        assert own <= int(split.num_samples.sum())
    held = stretches["test"] + stretches["validation"]
    for begin, end in held:
        assert all(end <= other[0] or begin >= other[1] for other in stretches["train"])


def test_an_original_is_whole_unless_it_is_cut_or_continues_in_another_split(
    dataset: Dataset, split_in_time: Dataset
) -> None:
    for split in split_in_time.splits:
        (stretch,) = described_beginnings(split_in_time, split)
        assert stretch.waveform.shape[-1] < 10 * 8000
        assert not stretch.whole
    wholes = [beginning.whole for beginning in described_beginnings(dataset, dataset.train)]
    assert all(wholes)
    cut = list(described_beginnings(dataset, dataset.train, seconds=0.3))
    assert [beginning.whole for beginning in cut] == [len(b.waveform) < 2400 for b in cut]
    assert {beginning.whole for beginning in cut} == {True, False}


def test_the_report_shows_sounds_pairs_and_curves(
    folder: Path, model: Model, dataset: Dataset, tmp_path: Path
) -> None:
    path = pipeline.write_report(model, dataset, folder, tmp_path / "page.html")
    page = path.read_text(encoding="utf-8")
    assert page.count("<audio") >= 12 + 3 + 2
    for part in ("New sounds", "Reconstructions", "Codebook", "Curves", "Commands", "Metrics"):
        assert f">{part}</h2>" in page
    assert "baselines: 5.00 (uniform)" in page  # before evaluate: what training reached


def test_no_file_of_a_run_is_or_contains_a_pickle(
    recordings: Path, dataset_folder: Path, folder: Path, model: Model, tmp_path: Path
) -> None:
    generation_files.generate_files(model, tmp_path / "sounds", 1)
    encode_files(model, recordings, tmp_path / "archive.avq", say=lambda _: None)
    folders = dataset_folder, folder, tmp_path
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if path.name != ".written"]  # JSON as well
    known = {".json", ".jsonl", ".npy", ".safetensors", ".avq", ".wav", ".md"}
    assert {path.suffix for path in files} - {".png", ".html"} == known
    for path in files:
        data = path.read_bytes()
        assert not (data[:1] == b"\x80" and data[1:2] <= b"\x05"), path  # pickles since protocol 2
        assert not zipfile.is_zipfile(path), path  # as torch.save and np.savez write
        assert path.suffix != ".npy" or b"'|O'" not in data[:128], path
