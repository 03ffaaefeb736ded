"""The contents of a report: recordings, reconstructions, codes and commands are those of the model."""

import base64
import io
import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
import tyro
from conftest import Waveform
from fast_training import CONFIG
from reseal import reseal
from tiny_models import tiny_model, untrained

from audiovq.audio.reading import read
from audiovq.codec.windows import Encoded
from audiovq.config.presets import PRESETS
from audiovq.config.settings import TrainConfig
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.dataset.numbers import Numbers
from audiovq.evaluation.originals import missing_note
from audiovq.evaluation.wording import describe_figures
from audiovq.generation.generate import Batches
from audiovq.generation.sound import Sound
from audiovq.models.model import Model, new_model
from audiovq.preprocessing.preprocess import preprocess
from audiovq.report import collect, sections
from audiovq.report.collect import write_report
from audiovq.report.sections import Report


def collected(
    model: Model, dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Report:
    """The `Report` that `write_report` makes."""
    pages: list[Report] = []
    monkeypatch.setattr(sections, "write", lambda _, page: pages.append(page))
    write_report(model, dataset, folder)
    return pages[0]


@pytest.fixture(scope="module")
def page(model: Model, dataset: Dataset, folder: Path) -> Report:
    """Of the model after its training. Not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        return collected(model, dataset, folder, patch)


def test_recordings_are_compared_with_their_reconstruction_and_ceiling(
    page: Report, dataset: Dataset, recordings: Path
) -> None:
    groups = page.comparisons
    split = dataset.test if len(dataset.test) else dataset.validation
    assert [group.title for group in groups] == [clip.labels["folder"] for clip in split.clips][:8]
    for group, clip in zip(groups, split.clips, strict=False):
        assert [picture.title for picture in group.pictures] == ["recording", "coded", "ceiling"]
        recording, coded, ceiling = (picture.waveform for picture in group.pictures)
        whole = read(recordings / clip.path)[0]
        begins = [i for i in range(len(whole)) if whole[i] == recording[0]]
        assert any(np.array_equal(whole[i : i + len(recording)], recording) for i in begins)
        assert len(recording) == len(coded) == len(ceiling) == clip.num_samples
        errors = [_distance(recording, other) for other in (coded, ceiling)]
        assert errors[1] < errors[0]


def _distance(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Between the power spectra of two waveforms of one length."""
    spectra = [
        np.abs(np.fft.rfft(x.reshape(-1)[: len(x) // 64 * 64].reshape(-1, 64))) for x in (a, b)
    ]
    return float(np.linalg.norm(spectra[0] - spectra[1]))


def test_without_recordings_only_reconstructions_and_ceilings_are_shown(
    model: Model,
    dataset_folder: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = shutil.copytree(dataset_folder, tmp_path / "dataset")
    header = json.loads((moved / "dataset.json").read_text())
    header["source"] = "../gone"
    (moved / "dataset.json").write_text(json.dumps(header))
    reseal(moved)
    for group in collected(model, Dataset(moved), folder, monkeypatch).comparisons:
        assert [picture.title for picture in group.pictures] == ["coded", "ceiling"]


def test_a_dataset_that_names_no_folder_of_recordings_says_how_to_give_it(
    dataset_folder: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(dataset_folder, tmp_path / "dataset")
    header = json.loads((moved / "dataset.json").read_text())
    header["source"] = None
    (moved / "dataset.json").write_text(json.dumps(header))
    reseal(moved)
    note = missing_note(Dataset(moved), "originals")
    assert "names no folder" in note
    assert "--recordings FOLDER" in note


def test_codes_are_shown_with_their_band_and_nearest_neighbour(model: Model, page: Report) -> None:
    rows = model.autoencoder.rows
    assert len(page.codes) == rows
    vectors = model.autoencoder.quantizer.codebooks()[0].vectors.numpy()
    used = page.code_counts[0] > 0
    for group in page.codes:
        code, nearest = (int(picture.title.split()[1]) for picture in group.pictures)
        distances = np.linalg.norm(vectors - vectors[code], axis=1)
        distances[code] = np.inf
        assert nearest == np.where(used, distances, np.inf).argmin()
        assert f"{100 * page.code_counts[0, code] / page.code_counts[0].sum():.2f} %" in group.title
        assert re.match(r"[\d,]+ to [\d,]+ Hz", group.title)
    assert page.code_points.shape == (len(vectors), 2)


@pytest.mark.parametrize("in_use", [[3, 9], [5, 5]])
def test_codes_are_in_use_in_their_band_and_have_a_neighbour_where_another_is_in_use(
    in_use: list[int], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    codes = torch.tensor(in_use)[None, None, :, None].expand(2, 1, 2, 5)
    tokens = model.vocabulary.tokens(codes, torch.tensor([5, 5]), torch.tensor([0, 0]))
    monkeypatch.setattr(collect, "encode_split", lambda *_: tokens)
    groups = collect._codes(model, dataset.validation)
    titles = [[picture.title for picture in group.pictures] for group in groups]
    assert [row[0] for row in titles] == [f"code {code}" for code in in_use]
    others = [[f"nearest: {code}"] for code in in_use[::-1]] if in_use[0] != in_use[1] else [[], []]
    assert [row[1:] for row in titles] == others


def test_the_commands_reproduce_the_settings(page: Report) -> None:
    words = shlex.split(page.commands[1])
    preset = PRESETS[words[words.index("--preset") + 1]]
    assert tyro.cli(TrainConfig, args=words[6:], default=preset) == CONFIG


def test_figures_are_from_training_until_evaluate_has_run(
    model: Model, dataset: Dataset, folder: Path, page: Report
) -> None:
    rows = {r[0]: r[1:] for r in page.figures}
    from_training = {"spectrogram error", "codebook use", "perplexity", "bit rate", "prior"}
    assert rows.keys() == {"measured on", *from_training}
    assert "baselines: 5.00 (uniform)" in rows["prior"][1]
    (folder / "evaluation.json").write_text('{"reconstruction": {"pesq": 3.25}}')
    rows = {r[0]: r[1:] for r in describe_figures(collect._figures(model, dataset, folder))}
    assert rows.keys() == {"PESQ"}
    for networks, expected in ((model.checksums, {"PESQ"}), ({"autoencoder": "0"}, from_training)):
        figures = {"reconstruction": {"pesq": 3.25}, "networks": networks}
        (folder / "evaluation.json").write_text(json.dumps(figures))
        rows = {r[0]: r[1:] for r in describe_figures(collect._figures(model, dataset, folder))}
        assert rows.keys() - {"measured on"} == expected, "of an earlier state of the model"
    (folder / "evaluation.json").unlink()


def test_the_masked_prior_has_a_row_beside_the_other(
    model: Model, dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = {"validation_bits_per_code": 2.5}
    monkeypatch.setitem(model.header, "masked", {"summary": summary})
    rows = {r[0]: r[1:] for r in describe_figures(collect._figures(model, dataset, folder))}
    assert rows["masked prior"][0] == "2.50 bits/masked code"
    assert "new sounds are sampled by this prior" in rows["masked prior"][1]
    assert "prior" in rows


WORDS = ["clap", "hat", "kick", "ride", "snare"]


@pytest.mark.parametrize(
    ("labels", "counts", "each_of"),
    [
        ({"kind": WORDS}, [((0,), 96), *(((i,), 1) for i in range(1, 5))], ("kind", [4] * 5)),
        ({"kind": WORDS[:3]}, [((0,), 96), ((1,), 1)], ("kind", [10, 10])),
        (
            {"pack": ["all"], "player": [str(i) for i in range(25)], "kind": WORDS},
            [((0, i, i % 5 // 4), 1 + i) for i in range(25)],
            ("kind", [10, 10]),
        ),
        (
            {"bright": Numbers(0, 1), "player": [str(i) for i in range(25)]},
            [((500 + 10 * i, i), 1 + i) for i in range(25)],
            ("player", [1] * 25),
        ),
        (
            {"bright": Numbers(0, 1)},
            [((200 + 15 * i,), 100 - i) for i in range(99)],
            ("bright", [2] * 11),
        ),
        ({"take": [str(i) for i in range(99)]}, [((i,), 1) for i in range(99)], ("take", [1] * 40)),
        ({}, [((), 9)], ("", [20])),
    ],
)
def test_new_sounds_of_a_page_are_asked_for_by_each_value_of_a_label_equally_often(
    labels: dict[str, Any], counts: Any, each_of: tuple[str, list[int]]
) -> None:
    model = replace(tiny_model(), labels=labels, label_counts=counts)
    batches = Batches(model, **{"n": 0, "seed": 7} | collect._asked(model))
    rows = [row for number in range(len(batches)) for row in batches.labels(number)]
    name, expected = each_of
    assert sorted(Counter(row.get(name) for row in rows).values()) == expected


def test_a_model_that_has_not_learnt_labels_is_asked_for_twenty_sounds() -> None:
    assert collect._asked(untrained(bottleneck="gaussian")) == {"n": 20}
    assert "by" in collect._asked(untrained(bottleneck="gaussian", conditional=True))


def test_where_few_samples_fit_each_value_is_still_shown_and_long_sounds_are_cut_and_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = replace(tiny_model(), label_counts=[((0, 0), 97), ((1, 0), 1), ((0, 1), 1)])
    monkeypatch.setattr(collect, "FEWEST_SOUNDS", 5)
    everything, _ = collect._generated(model)
    assert Counter(picture.title[0] for picture in everything) == {"0": 3, "1": 3}
    lengths = sorted(picture.waveform.size for picture in everything)
    assert lengths[0] < lengths[-1]
    monkeypatch.setattr(collect, "NEW_SAMPLES", sum(lengths) - lengths[-1] - 1)
    pictures, _ = collect._generated(model)
    assert Counter(picture.title[0] for picture in pictures) == {"0": 3, "1": 2}
    sizes = [(picture.waveform.size, picture.num_samples) for picture in pictures]
    assert sum(shown for shown, _ in sizes) <= collect.NEW_SAMPLES
    longest = max(shown for shown, _ in sizes)
    assert all(shown == min(whole, longest) for shown, whole in sizes)


def test_short_sounds_leave_their_samples_to_long_ones() -> None:
    assert collect._longest([1, 9, 2, 9], 30) == 9
    assert collect._longest([1, 9, 2, 9], 15) == 6
    assert collect._longest([5, 5], 4) == 2
    assert collect._longest([], 4) == 0


def test_a_page_of_long_sounds_has_twenty_and_stays_below_fourteen_megabytes(
    voice: Callable[..., Waveform], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    noise = np.random.default_rng(0)
    for number in range(12):
        sound = voice(4, 90 + 10 * number, 44100) + 0.1 * noise.standard_normal(4 * 44100)
        soundfile.write(sounds / f"{number}.wav", sound.clip(-1, 1), 44100)
    preprocess(sounds, tmp_path / "dataset", PreprocessConfig(clip_seconds=4), say=lambda _: None)
    dataset = Dataset(tmp_path / "dataset")
    model = new_model(dataset.spectrogram, CONFIG.autoencoder, {}, [((), 12)], dataset.clip_frames)
    model.autoencoder.eval()
    longest = noise.uniform(-1, 1, dataset.clip_frames * 512).astype(np.float32)
    no_codes = Encoded(torch.zeros(1, 1, 0), 0, len(longest))
    monkeypatch.setattr(collect, "generate", lambda _, n, seed: [Sound(longest, {}, no_codes)] * n)
    path = write_report(model, dataset, tmp_path)
    assert 500_000 < path.stat().st_size < 14_000_000
    sources = re.findall(r'<audio[^>]* src="data:audio/wav;base64,([^"]+)"', path.read_text())
    assert len(sources) >= 20 + 3 + 2
    assert all(soundfile.info(io.BytesIO(base64.b64decode(s))).frames > 0 for s in sources)
    text = unescape(path.read_text())
    assert "--clip-seconds 4" in text
    shown, whole = collect.NEW_SAMPLES // 20 / 44100, len(longest) / 44100
    assert text.count(f"<small>{shown:.2f} of {whole:.2f}") == 20
    assert "Of long sounds this page has the beginning" in text
