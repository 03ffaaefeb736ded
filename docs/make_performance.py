"""Make the tables of `docs/performance.md` from the newest results of the speed benchmarks.

python docs/make_performance.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository

from benchmarks.speed.comparison import Row, read_rows, table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
SECTION = re.compile(
    r"<!-- rows: (?P<glob>\S+)(?: (?P<names>[^>]*?))? -->\n.*?<!-- end of rows -->", re.DOTALL
)
"""A place for a table: the newest results file that matches `glob`, and the rows whose names match `names`, a regular
expression (none: all)."""


def newest(glob: str) -> Path:
    """The last of the results files that match, as their names begin with a date."""
    return sorted(RESULTS.glob(glob))[-1]


def tables(glob: str, names: str) -> str:
    """The tables of a section, each under the machine, versions, date and commit of its rows."""
    path = newest(glob)
    rows = [row for row in read_rows(path) if re.search(names, row.name)]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_circumstances(row), []).append(row)
    link = f"[`{path.name}`](../benchmarks/results/{path.name})"
    return "\n\n".join(f"{said}; {link}\n\n{table(group)}" for said, group in groups.items())


def _circumstances(row: Row) -> str:
    machine = re.sub(r", \d+ threads", "", row.machine)  # rows say threads themselves
    packages = [f"{name} {version}" for name, version in row.versions.items() if name != "torch"]
    return "; ".join(filter(None, (machine, ", ".join(packages), f"{row.date}, `{row.commit}`")))


def page(text: str) -> str:
    """The page with all tables made again."""

    def section(match: re.Match[str]) -> str:
        begin = match[0].partition("\n")[0]
        made = tables(match["glob"], match["names"] or "")
        return f"{begin}\n{made}\n<!-- end of rows -->"

    return SECTION.sub(section, text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
