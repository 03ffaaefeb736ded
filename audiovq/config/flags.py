"""Settings as flags of the command line."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any


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
