"""Docstrings, comments, messages and names use the words of `docs/glossary.md`, not those in its tables "not … but …"."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "glossary.md"


def folders() -> dict[str, list[Path]]:
    """Sources by package of `audiovq` or by folder of the repository; single modules are under `audiovq`."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "audiovq").rglob("*.py")):
        parts = path.relative_to(ROOT / "audiovq").parts
        found.setdefault(parts[0] if len(parts) > 1 else "audiovq", []).append(path)
    for name in ("benchmarks", "data", "docs", "scripts"):
        if paths := sorted((ROOT / name).rglob("*.py")):
            found[name] = paths
    return found


@cache
def tables() -> list[list[list[str]]]:
    """Rows of the glossary's two tables "not … but …", of words in prose and of words in names."""
    found: list[list[list[str]]] = []
    for line in PAGE.read_text("utf-8").partition("## Not … but …")[2].splitlines():
        if line.startswith("| not |"):
            found.append([])
        elif line.startswith("| ") and found:
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def words(cell: str) -> list[str]:
    return [word.strip() for word in cell.split(",")]


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string and every comment."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def names(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every function, class, argument, variable and attribute that is defined."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def in_prose(source: str, folder: str) -> list[str]:
    """Avoided words in docstrings, comments and messages, each with its line and the words to use."""
    found = []
    texts = list(prose(source))
    for avoided, instead, exceptions in tables()[0]:
        if folder in words(exceptions):
            continue
        pattern = "|".join(r"\s+".join(map(re.escape, w.split())) for w in words(avoided))
        for line, text in texts:
            for match in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
                at = line + text[: match.start()].count("\n")
                found.append(f"{at}: {' '.join(match[0].split())!r}, better: {instead}")
    return found


def in_names(source: str) -> list[str]:
    """Avoided words in names, each with its line and the words to use."""
    avoid = {word: instead for avoided, instead in tables()[1] for word in words(avoided)}
    return [
        f"{line}: name {name!r}, better: {avoid[word]}"
        for line, name in names(source)
        for word in name.lower().split("_")
        if word in avoid
    ]


@pytest.mark.parametrize("folder", list(folders()))
def test_sources_avoid_the_words_that_the_glossary_replaces(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{problem}"
        for path in folders()[folder]
        for source in [path.read_text("utf-8")]
        for problem in in_prose(source, folder) + in_names(source)
    ]
    assert found == []


def test_exceptions_name_folders_that_exist() -> None:
    exceptions = {name for row in tables()[0] for name in words(row[2]) if name}
    assert exceptions <= set(folders())


@pytest.mark.parametrize(
    "source",
    [
        '"""Make it\n    anew."""',
        "x = 1  # what is left",
        'raise ValueError(f"{path}: is meant")',
    ],
)
def test_an_avoided_word_is_found_in_docstrings_comments_and_messages(source: str) -> None:
    assert in_prose(source, "models")


@pytest.mark.parametrize(
    "source", ["told = 1", "def cells_told(): ...", "def f(place): ...", "self._heard = {}"]
)
def test_an_avoided_word_is_found_in_names(source: str) -> None:
    assert in_names(source)


def test_plain_sources_pass() -> None:
    source = '"""Reorder the replaced shape, inside a process."""\nreplaced = 1  # retold\n'
    assert in_prose(source, "models") == in_names(source) == []


def test_an_exception_counts_in_its_folder_only() -> None:
    source = '"""The charts are drawn here."""'
    assert in_prose(source, "report") == []
    assert in_prose(source, "models")
