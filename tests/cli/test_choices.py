"""The choices that the command line lists are those of the modules it imports late."""

from typing import Any, get_args, get_type_hints

import pytest

from audiovq.cli import archives, arguments, models
from audiovq.codec.probabilities import CODERS, Coder
from audiovq.config.presets import PRESETS
from audiovq.models.export import Format
from audiovq.report.plots import Kind


def choices(verb: Any, flag: str) -> set[str]:
    """Values that a flag of a verb takes."""
    found: set[str] = set()
    pending = [get_type_hints(verb)[flag]]
    while pending:
        hint = pending.pop()
        found |= {hint} if isinstance(hint, str) else set()
        pending += get_args(hint)
    return found


def test_presets_are_listed_in_their_order() -> None:
    assert get_args(arguments.Preset) == tuple(PRESETS)


@pytest.mark.parametrize(
    ("listed", "source"),
    [
        pytest.param(set(get_args(arguments.Plot)), set(get_args(Kind)), id="plots"),
        pytest.param(choices(archives.encode, "coder"), set(get_args(Coder)), id="coders"),
        pytest.param(set(CODERS), set(get_args(Coder)), id="numbers of coders"),
        pytest.param(choices(models.export, "form"), set(get_args(Format)), id="programs"),
    ],
)
def test_choices_on_the_command_line_are_those_of_their_source(
    listed: set[str], source: set[str]
) -> None:
    assert listed == source
    assert listed
