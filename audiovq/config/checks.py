"""Checks of values from users: finite, in range, one of a few, seeds, counts."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import typing
from typing import Any

from audiovq.config.errors import AudiovqError


def require(condition: bool, message: str) -> None:
    """Raise AudiovqError with `message` unless `condition` holds."""
    if not condition:
        raise AudiovqError(message)


def require_finite(config: Any) -> None:
    """Raise AudiovqError where a setting is infinite or NaN."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        finite = not isinstance(value, float) or math.isfinite(value)
        require(finite, f"{f.name} {value}: give a finite number")


def require_choices(config: Any) -> None:
    """Raise AudiovqError where a setting that is one of a few words (a Literal) is none of them."""
    cls: Any = type(config)
    for name, choices in _choices(cls).items():
        value = getattr(config, name)
        *most, last = map(repr, choices)
        require(value in choices, f"{name} {value!r:.40}: give {', '.join(most)} or {last}")


@functools.cache
def _choices(cls: Any) -> dict[str, tuple[str, ...]]:
    """The words of each setting of a class that is a Literal."""
    hints = typing.get_type_hints(cls).items()
    return {n: typing.get_args(h) for n, h in hints if typing.get_origin(h) is typing.Literal}


WIDEST = 16_384
"""Largest width of a layer, and largest height or width of a patch."""
MOST_LAYERS = 256
"""Most layers of a network: a file that asks for more is damaged, and would take memory and time."""
MOST_STEPS = 1_000_000_000
"""Most steps of a training, and most clips of a batch."""
MOST_SEED = (1 << 63) - 1
"""Largest seed of torch's generators."""
MOST_SOUNDS = 1_000_000
"""Most sounds of one call."""
MAX_THREADS = 1024
"""Most CPU threads of one operation."""


def is_whole(value: Any) -> bool:
    """Whether `value` is an integer, of Python or NumPy."""
    return isinstance(value, numbers.Integral)


def require_seed(seed: int) -> None:
    """Raise AudiovqError where `seed` is not from 0 to MOST_SEED."""
    require(
        is_whole(seed) and 0 <= seed <= MOST_SEED,
        f"seed {seed}: give a whole number from 0 to 2^63 - 1",
    )


def derived_seed(seed: int, number: int) -> int:
    """A seed from 0 to MOST_SEED made of a seed and a number."""
    return (seed * 1_000_003 + number) % (MOST_SEED + 1)


def require_threads(n: int | None) -> None:
    """Raise AudiovqError where a number of threads is not from 1 to MAX_THREADS; None is valid."""
    require(
        n is None or (is_whole(n) and 1 <= n <= MAX_THREADS),
        f"threads {n}: give 1 to {MAX_THREADS:,}",
    )


def require_count(n: int, name: str = "n", least: int = 1) -> None:
    """Raise AudiovqError where a number of sounds is not from `least` to MOST_SOUNDS."""
    require(
        is_whole(n) and least <= n <= MOST_SOUNDS,
        f"{name} {n}: give {least} to {MOST_SOUNDS:,}",
    )
