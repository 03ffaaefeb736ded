"""Make docs/verbs.md from the help texts of `audiovq VERB --help`.

python docs/make_verbs.py
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from audiovq.cli.main import _verbs, main

PAGE = Path(__file__).parent / "verbs.md"


def pages() -> str:
    """The whole page."""
    parts = [
        "# Verbs",
        "The output of `audiovq VERB --help` for all verbs; `python docs/make_verbs.py` makes this page.\n"
        "Exit codes: 0 done; 2 an error that you can fix (one line names it); 130 stopped by Ctrl-C; 1 and\n"
        "a traceback: a bug. `--json` prints only results; everything else goes to standard error.",
    ]
    for verb in _verbs([]):
        parts += [f"## {verb}", f"```text\n{help_of(verb)}\n```"]
    return "\n\n".join(parts) + "\n"


def help_of(verb: str) -> str:
    """A verb's help at 100 columns, without the boxes."""
    said = io.StringIO()
    before, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "100"
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([verb, "--help"])
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before
    lines = (line.rstrip() for line in said.getvalue().splitlines())
    return "\n".join(line for line in lines if not line.strip() or line.strip(" -")).strip()


if __name__ == "__main__":
    PAGE.write_text(pages(), encoding="utf-8")
