"""docs/learn.md is true: its files, names, presets, flags and pictures exist."""

import ast
import re
from pathlib import Path

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
