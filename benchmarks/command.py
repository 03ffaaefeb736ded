"""How the scripts refuse: one line on standard error, and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from audiovq.config.errors import AudiovqError


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Within, an AudiovqError ends the script `name` with its reason in place of a traceback."""
    try:
        yield
    except AudiovqError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
