"""docs/learn.md is true: its files, names, presets, flags and pictures exist."""

import ast
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiovq.config.presets import PRESETS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("learn.md", "learn.zh-CN.md")]


def names_in(path: Path) -> set[str]:
    """Classes and functions of a file, methods as Class.method."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_on_the_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = {ROOT / name for name in re.findall(r"`(audiovq/[\w/]+\.py)`", text)}
    assert files
    known = set[str]().union(*map(names_in, files))
    named = re.findall(r"`([A-Z]\w+(?:\.\w+)?)`", text)
    assert set(named) <= known
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_lists_exactly_the_lesson_presets(page: Path) -> None:
    named = set(re.findall(r"`(lesson-[a-z-]+)`", page.read_text(encoding="utf-8")))
    assert named == {name for name in PRESETS if name.startswith("lesson-")}


def test_both_languages_have_the_same_table_and_commands() -> None:
    table, commands = (
        [re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL) for page in PAGES]
        for pattern in (r"<!-- table -->(.*?)<!-- end -->", r"```\n(.*?)```")
    )
    assert table[0] == table[1]
    assert commands[0] == commands[1]


@pytest.fixture
def learn(script: Callable[[str], Any]) -> Any:
    """`scripts.learn`, the page's first command."""
    return script("learn")


def test_each_system_of_the_table_has_settings_that_differ_from_the_others(learn: Any) -> None:
    settings = [learn.settings_of(*system, minutes=0.5) for system in learn.SYSTEMS.values()]
    assert all(a != b for a, b in itertools.combinations(settings, 2))
    assert learn.settings_of("lesson-vae", {"dense": 2}, 1).autoencoder.bottleneck.dense == 2


def test_the_table_has_the_systems_and_columns_that_the_script_writes(learn: Any) -> None:
    rows = [learn.Row(system, 1, 1.0, 1.0, None, 1.0) for system in learn.SYSTEMS]
    written = learn.markdown(dict.fromkeys(learn.DATA, rows)).splitlines()
    _, found = re.split("<!-- table -->\n|\n<!-- end -->", PAGES[0].read_text(encoding="utf-8"))[:2]
    lines = found.splitlines()
    assert lines[:2] == written[:2]
    cells = [[line.split(" | ") for line in page[2:]] for page in (lines, written)]
    assert [[row[0], len(row)] for row in cells[0]] == [[row[0], len(row)] for row in cells[1]]
