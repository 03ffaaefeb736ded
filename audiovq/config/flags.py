"""Settings as the flags of the command line that ask for them."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any


def flags(config: Any, default: Any, prefix: str = "") -> list[str]:
    """What differs in two dataclasses of one kind, as quoted words: --n-fft 256, --no-trim."""
    words: list[str] = []
    for field in dataclasses.fields(default):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(usual):
            words += flags(value, usual, f"{prefix}{name}.")
        elif isinstance(usual, bool) and value != usual:
            words.append(f"--{prefix}{'' if value else 'no-'}{name}")
        elif value != usual:
            values = value if isinstance(value, list | tuple) else [value]
            words.append(f"--{prefix}{name} {shlex.join(map(str, values))}")
    return words
