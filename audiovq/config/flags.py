"""Settings as flags of the command line, and paths as arguments."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any


def as_argument(path: Path | str) -> str:
    """A path as an argument of a command, quoted for a shell: ./-x, as -x would be a flag."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def flags(config: Any, default: Any, prefix: str = "") -> list[str]:
    """Flags that turn the settings `default` into `config`, quoted for a shell: --n-fft 256, --no-trim."""
    words: list[str] = []
    for field in dataclasses.fields(default):
        value, standard = getattr(config, field.name), getattr(default, field.name)
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(standard):
            words += flags(value, standard, f"{prefix}{name}.")
        elif isinstance(standard, bool) and value != standard:
            words.append(f"--{prefix}{'' if value else 'no-'}{name}")
        elif value != standard:
            values = value if isinstance(value, list | tuple) else [value]
            words.append(f"--{prefix}{name} {shlex.join(map(str, values))}")
    return words
