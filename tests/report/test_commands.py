"""What to type next: every command is one that the program takes as it stands."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
from tiny_models import tiny_model, untrained

from audiovq.cli.main import _parse
from audiovq.config.presets import PRESETS
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.config.serialize import to_json
from audiovq.config.spectrogram import PreprocessConfig
from audiovq.dataset.dataset import Dataset
from audiovq.library.pack import PackConfig, write_pack
from audiovq.preprocessing.preprocess import preprocess
from audiovq.report.commands import in_columns, made_by, next_steps
from audiovq.training.origin import Origin

TWO = {"kind of sound": ["kick", "snare"], "kit": ["a", "b"]}


def verbs(steps: list[tuple[str, str]]) -> list[str]:
    return [shlex.split(command)[1] for command, _ in steps]


def test_a_model_is_heard_generates_and_makes_a_pack_next() -> None:
    steps = next_steps(tiny_model(), "model", "dataset")
    assert verbs(steps) == ["app", "generate", "pack", "evaluate"]
    assert verbs(next_steps(tiny_model(), "model")) == ["app", "generate", "pack"]
    assert verbs(next_steps(untrained(), "model")) == ["app", "reconstruct"]


def test_models_without_codes_are_not_sent_to_verbs_that_need_them() -> None:
    normal = untrained(bottleneck="gaussian")
    steps = next_steps(normal, "model", "dataset")
    assert verbs(steps) == ["generate", "pack", "evaluate"]
    assert "--by" not in steps[1][0]
    plain = untrained(bottleneck="none")
    assert verbs(next_steps(plain, "model", "dataset")) == ["plot", "evaluate"]
    for model, verb in ((normal, "generate"), (plain, "plot")):
        model.spectrogram.config = dataclasses.replace(model.spectrogram.config, images=True)
        assert verbs(next_steps(model, "model", "dataset")) == [verb]


def test_a_model_of_images_makes_images() -> None:
    model = tiny_model()
    model.spectrogram.config = dataclasses.replace(model.spectrogram.config, images=True)
    assert verbs(next_steps(model, "model")) == ["generate"]


def test_a_model_from_another_is_made_by_from_and_without_its_networks(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = dataclasses.replace(Origin.read("sounds").adopt(PRESETS["small"]), max_minutes=5.0)
    record = {"dataset": "", "config": to_json(config), "origin": {"name": "sounds"}}
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "settings.json").write_text(json.dumps(record))
    command = made_by(dataset, tmp_path)[1]
    assert " --from sounds --preset small " in command
    assert command.endswith(" --max-minutes 5.0")
    assert "network" not in command
    assert "masked.dim" not in command
    free = dataclasses.replace(config, prior=dataclasses.replace(config.prior, dropout=0.33))
    record["config"] = to_json(free)
    (tmp_path / "training" / "settings.json").write_text(json.dumps(record))
    assert " --prior.dropout 0.33" in made_by(dataset, tmp_path)[1]
    (tmp_path / "training" / "settings.json").write_text(
        json.dumps(record | {"config": to_json(PRESETS["tiny"]), "origin": None})
    )
    assert made_by(dataset, tmp_path)[1].endswith(" --preset tiny")


def test_what_was_asked_for_beside_the_settings_is_in_the_command_that_makes_the_dataset(
    recordings: Path, tmp_path: Path
) -> None:
    asked = {
        "measured": {"jan/0_jan_0.wav": {"pitch": "A3", "bpm": "90"}},
        "described": ["tempo", "pitch"],
        "numbers": {"pitch", "digit", "bpm"},
        "transpose": 0,
        "join": {"jan": "ann", "sam": "b c"},
        "near": False,
    }
    config = PreprocessConfig(labels=r"(?P<digit>\d)_(?P<speaker>\w+)_")
    preprocess(recordings, tmp_path / "some", config, say=lambda _: None, **asked)
    command = made_by(Dataset(tmp_path / "some"), tmp_path / "model")[0]
    assert command == (
        "audiovq preprocess AUDIO_DIR some --labels '(?P<digit>\\d)_(?P<speaker>\\w+)_' --describe tempo,pitch --numbers digit --transpose 0"
        " --join 'jan=ann,sam=b c' --no-near-copies"
    )
    _parse(shlex.split(command)[1:])
    preprocess(recordings, tmp_path / "plain", say=lambda _: None)
    plain = Dataset(tmp_path / "plain")
    assert "options" not in plain.header
    assert made_by(plain, tmp_path / "model")[0] == "audiovq preprocess AUDIO_DIR plain"


@pytest.mark.parametrize("folder", ["model", "my models/it's one", "-model"])
def test_every_command_is_taken_as_it_is_printed(folder: str) -> None:
    without_codes = [untrained(bottleneck=kind) for kind in ("gaussian", "none")]
    for model in (tiny_model(labels=TWO), tiny_model(), untrained(), *without_codes):
        steps = next_steps(model, folder, "my dataset")
        lines = in_columns(steps)
        assert len({line.index("  # ") for line in lines}) == 1
        for line, (_, words) in zip(lines, steps, strict=True):
            program, *arguments = shlex.split(line, comments=True)
            assert program == "audiovq"
            assert Path(folder) in map(Path, arguments)
            _parse(arguments)
            assert line.endswith(words)


def test_the_pack_of_a_model_with_two_labels_is_made_by_the_first(tmp_path: Path) -> None:
    model = tiny_model(labels=TWO)
    model.label_counts[:] = [((0, 0), 4), ((1, 1), 4)]
    (pack,) = (command for command, _ in next_steps(model, "model") if " pack " in command)
    words = shlex.split(pack)
    by = words[words.index("--by") + 1]
    assert by == "kind of sound"
    quick = SamplingConfig(temperature=1, steps=3), Inversion("griffin-lim", 1)
    paths = write_pack(
        model, tmp_path / "kit", PackConfig(1, by), sampling=quick[0], inversion=quick[1]
    )
    assert [path.name for path in paths] == ["kick_01.wav", "snare_01.wav"]
