"""The layout of the package: its declared dependencies, the sizes of its folders, its pages."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "audiovq"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "distributed": "dask"}
"""Names of distributions that differ from what is imported."""
TO_EXTRAS = {"distributed", "pesq", "pystoi"}
"""What extras bring, and only some verbs import."""
MOST_FILES = 12


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sources():
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imported() -> set[str]:
    """Top-level names of all that the package imports from elsewhere."""
    names = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"audiovq"}


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in requirements}


def test_the_package_declares_what_it_imports_and_imports_what_it_declares() -> None:
    found = imported()
    assert found >= TO_EXTRAS  # none of the names is out of date
    needed = {DISTRIBUTIONS.get(name, name) for name in found - TO_EXTRAS}
    assert distributions(PROJECT["dependencies"]) == needed


def test_packages_of_extras_are_declared_there() -> None:
    extras = set().union(*map(distributions, PROJECT["optional-dependencies"].values()))
    assert {DISTRIBUTIONS.get(name, name) for name in TO_EXTRAS} <= extras


def test_no_folder_holds_more_than_a_dozen_files() -> None:
    folders = [path for path in (PACKAGE, *PACKAGE.rglob("*/")) if path.name != "__pycache__"]
    counts = {folder: len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: n for folder, n in counts.items() if n > MOST_FILES} == {}


def test_every_package_has_a_page_that_says_where_to_start() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent == PACKAGE:
            continue
        page = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert "Start with" in page, path
        for name in re.findall(r"`([a-z_]+)(?:\.\w+)+`", page.partition("Start with")[2]):
            there = path.parent / f"{name}.py"
            assert there.exists() or (path.parent / name).is_dir() or (PACKAGE / name).is_dir(), (
                f"{path}: names {name}, which is not there"
            )


def test_every_module_is_named_on_the_page_of_its_package() -> None:
    for path in sources():
        if path.parent == PACKAGE or path.name == "__init__.py":
            continue
        page = (path.parent / "__init__.py").read_text(encoding="utf-8")
        assert re.search(rf"`{path.stem}\b", page), f"{path.parent.name}: no word of {path.stem}"


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_house", ROOT / "docs" / "make_house.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_picture_and_the_table_of_packages_are_those_of_the_code(house: ModuleType) -> None:
    assert house.PICTURE.read_text(encoding="utf-8") == house.picture()
    text = house.PAGE.read_text(encoding="utf-8")
    assert house.BEGIN in text
    assert text == house.page(text)


def test_every_import_between_packages_runs_downward(house: ModuleType) -> None:
    order = house.packages()
    for name in order:
        assert all(order.index(name) < order.index(other) for other in house.imports(name)), name


def test_choices_of_flags_are_those_of_the_code() -> None:
    from audiovq.cli import arguments
    from audiovq.config.presets import PRESETS
    from audiovq.report.plots import Kind

    assert get_args(arguments.Preset) == tuple(PRESETS)
    assert get_args(arguments.Plot) == get_args(Kind)


def test_the_paths_through_the_code_name_functions_that_exist(house: ModuleType) -> None:
    text = house.PAGE.read_text(encoding="utf-8")
    section = text.partition("## Five paths through the code\n")[2].partition("\n## ")[0]
    names = re.findall(r"`([a-z_]+(?:\.\w+)+)`", section)
    assert len(names) > 40
    for name in names:
        parts = name.split(".")
        depth = 1
        while (PACKAGE / "/".join(parts[: depth + 1])).with_suffix(".py").exists() or (
            PACKAGE / "/".join(parts[: depth + 1])
        ).is_dir():
            depth += 1
        found: object = importlib.import_module(".".join(["audiovq", *parts[:depth]]))
        for part in parts[depth:]:
            found = getattr(found, part)
