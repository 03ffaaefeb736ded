"""What to type next: every command is one that the program takes as it stands."""

import dataclasses
import shlex
from pathlib import Path

import pytest
from tiny_models import tiny_model, untrained

from audiovq.cli.main import _parse
from audiovq.config.sampling import Inversion, SamplingConfig
from audiovq.library.pack import PackConfig, write_pack
from audiovq.report.commands import in_columns, next_steps

TWO = {"kind of sound": ["kick", "snare"], "kit": ["a", "b"]}


def verbs(steps: list[tuple[str, str]]) -> list[str]:
    return [shlex.split(command)[1] for command, _ in steps]


def test_a_model_is_heard_generates_and_makes_a_pack_next() -> None:
    steps = next_steps(tiny_model(), "model", "dataset")
    assert verbs(steps) == ["app", "generate", "pack", "evaluate"]
    assert verbs(next_steps(tiny_model(), "model")) == ["app", "generate", "pack"]
    assert verbs(next_steps(untrained(), "model")) == ["app", "reconstruct"]


def test_a_model_of_images_makes_images() -> None:
    model = tiny_model()
    model.spectrogram.config = dataclasses.replace(model.spectrogram.config, images=True)
    assert verbs(next_steps(model, "model")) == ["generate"]


@pytest.mark.parametrize("folder", ["model", "my models/it's one"])
def test_every_command_is_taken_as_it_is_printed(folder: str) -> None:
    for model in (tiny_model(labels=TWO), tiny_model(), untrained()):
        steps = next_steps(model, folder, "my dataset")
        lines = in_columns(steps)
        assert len({line.index("  # ") for line in lines}) == 1
        for line, (_, words) in zip(lines, steps, strict=True):
            program, *arguments = shlex.split(line, comments=True)
            assert program == "audiovq"
            assert folder in arguments
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
