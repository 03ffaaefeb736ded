"""The commands of the page for musicians: the program takes them, and they leave no kind with two names."""

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from audiovq.cli.datasets import _pairs
from audiovq.cli.main import _parse
from audiovq.preprocessing.labels import joined, labels_of, synonyms

PAGE = (Path(__file__).parents[2] / "docs" / "musicians.md").read_text("utf-8")
NAMES = """BD_01 kick_2 EE_Kick_Hard SD-3 Snare-Soft sn1 HH_open HiHatClosed tm_4 TomHigh RD1 RideBell CB_02 Cowbell crash
clap_Dry Stick shaker Conga beats"""


def commands() -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("audiovq ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_taken(command: str) -> None:
    _parse(shlex.split(command, comments=True)[1:])


def test_the_pattern_and_the_join_give_each_kind_one_name() -> None:
    (command,) = (line for line in commands() if "--join" in line)
    words = shlex.split(command)
    pattern, join = (words[words.index(flag) + 1] for flag in ("--labels", "--join"))
    paths = [f"My kit/{name}.wav" for name in NAMES.split()]
    labels, notes = labels_of(Path(), paths, pattern)
    assert synonyms(labels.values()) != []
    one = joined(labels, _pairs(join))
    assert synonyms(one.values()) == []
    kinds = Counter(row.get("kind") for row in one.values())
    assert kinds["kick"] == kinds["snare"] == 3
    assert kinds["hat"] == kinds["tom"] == kinds["ride"] == kinds["cowbell"] == 2
    (note,) = notes
    assert note.startswith("2 of 20 files have no label (My kit/Conga.wav)")
