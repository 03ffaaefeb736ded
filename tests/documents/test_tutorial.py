"""The tutorial: twelve cells that run, use public names only, and have small outputs."""

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOK = DOCS / "tutorial.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    """Those that hold code."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_tutorial_uses_existing_public_names_only(cells: list[dict[str, Any]]) -> None:
    assert len(cells) == 12
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells))
    used = {
        ("audiovq", node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "audiovq"
    }
    used |= {
        (str(node.module), name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("audiovq")
        for name in node.names
    }
    assert used
    for module, name in used:
        assert not name.startswith("_")
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_outputs_are_small_include_pictures_and_name_no_machine(
    cells: list[dict[str, Any]],
) -> None:
    assert NOTEBOOK.stat().st_size < 1_000_000
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("image/png") >= 6
    assert sum("<audio" in "".join(o.get("data", {}).get("text/html", "")) for o in outputs) >= 4
    text = "".join("".join(output.get("text", "")) for output in outputs)
    assert str(Path.home()) not in text
    assert "/tmp" not in text


@pytest.mark.slow
def test_the_tutorial_runs_from_the_first_cell_to_the_last(digits: Path) -> None:
    client = pytest.importorskip("nbclient", reason="needs the extra [notebook]")
    reader = pytest.importorskip("nbformat")
    notebook = reader.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(DOCS)}}
    client.NotebookClient(notebook, timeout=300, resources=resources).execute()
