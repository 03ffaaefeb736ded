"""Draw the packages of audiovq: `docs/pictures/house.svg`, and their table in `docs/design.md`.

    python docs/make_house.py

The picture is a dependency matrix: a dot in row A and column B says that A imports B. Rows are in the order of
the import contract in `pyproject.toml`, so every dot lies right of the diagonal: imports run downward.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "audiovq"
PICTURE = ROOT / "docs" / "pictures" / "house.svg"
PAGE = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- packages: made by docs/make_house.py -->", "<!-- end of packages -->"
ROW, TOP, LEFT = 26, 118, 490
"""Pixels: height of a row, above the first row, left of the first column."""


def packages() -> list[str]:
    """Names of the packages and single modules below `audiovq`, from the top layer down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers: list[str] = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return [layer for layer in layers if layer != "__main__"]


def imports(name: str) -> set[str]:
    """The other packages that package `name` imports from."""
    found = set()
    for path in _sources(name):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                if parts[0] == "audiovq":
                    found |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
    return found & set(packages()) - {name}


def _sources(name: str) -> Iterator[Path]:
    module = PACKAGE / f"{name}.py"
    yield from [module] if module.exists() else sorted((PACKAGE / name).rglob("*.py"))


def summary(name: str) -> str:
    """The first line of the docstring of a package or module."""
    module = PACKAGE / f"{name}.py"
    path = module if module.exists() else PACKAGE / name / "__init__.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def picture() -> str:
    """The SVG of the matrix."""
    names = packages()
    width, height = LEFT + ROW * len(names) + 20, TOP + ROW * len(names) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for row, name in enumerate(names):
        y = TOP + ROW * row
        line = summary(name).split(":")[0].rstrip(".")
        line = line if len(line) <= 56 else line[:55].rstrip() + "…"
        shade = "#f3f5f8" if row % 2 else "#fff"
        parts += [
            f'<rect x="8" y="{y}" width="{width - 16}" height="{ROW}" fill="{shade}"/>',
            f'<text x="16" y="{y + 17}" font-weight="600" fill="#123">{name}</text>',
            f'<text x="124" y="{y + 17}" fill="#567">{escape(line)}</text>',
            f'<text transform="translate({LEFT + ROW * row + 17},{TOP - 8}) rotate(-60)"'
            f' fill="#123">{name}</text>',
            f'<rect x="{LEFT + ROW * row + 4}" y="{y + 4}" width="{ROW - 8}" height="{ROW - 8}"'
            ' rx="3" fill="#dde3ea"/>',
        ]
        parts += [
            f'<circle cx="{LEFT + ROW * names.index(other) + ROW / 2}" cy="{y + ROW / 2}" r="5"'
            ' fill="#2a6fb0"/>'
            for other in sorted(imports(name), key=names.index)
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def table() -> str:
    """The Markdown table of packages: files and what each package holds."""
    rows = ["| package | files | holds |", "|---|---|---|"]
    for name in packages():
        files = [path for path in _sources(name) if path.name != "__init__.py"]
        rows.append(f"| `{name}` | {len(files)} | {summary(name)} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """`docs/design.md` with the table between its two marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    """Write the picture and the table."""
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
