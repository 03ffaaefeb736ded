"""Makes docs/verbs.md out of what `audiovq VERB --help` says.

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
        "All that `audiovq VERB --help` says, in one page, which `python docs/make_verbs.py` makes.\n"
        "Exit codes: 0 done, 2 something you can mend (one line says what), 130 stopped by Ctrl-C, 1 and\n"
        "a traceback: our bug. `--json` prints figures alone; all else goes to standard error.",
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
