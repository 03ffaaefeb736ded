"""Settings to JSON and back, checked field by field."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, Literal, TypeVar

from audiovq.config.checks import require
from audiovq.config.errors import AudiovqError

_T = TypeVar("_T")
OMIT_DEFAULT = {"omit_default": True}
"""Metadata of a field that is not written where it has its default, so that headers without it keep their bytes."""


def to_json(config: Any) -> dict[str, Any]:
    """Settings (a dataclass) → plain dicts, lists, numbers and strings."""
    values = dataclasses.asdict(config)
    for field in dataclasses.fields(config):
        if field.metadata.get("omit_default") and values[field.name] == field.default:
            del values[field.name]
    return values


def from_json(cls: type[_T], data: Any, where: str = "settings") -> _T:
    """Inverse of `to_json`. Raises AudiovqError with `where` and the name of the wrong setting."""
    if not isinstance(data, dict):
        raise AudiovqError(f"{where}: expected settings of {cls.__name__}, found {data!r:.60}")
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(typing.cast(Any, cls))}
    if unknown := set(data) - names:
        raise AudiovqError(f"{where}: unknown setting {sorted(unknown)[0]!r}")
    values = {name: _read(hints[name], value, f"{where}: {name}") for name, value in data.items()}
    try:
        return cls(**values)
    except (TypeError, AudiovqError) as error:
        raise AudiovqError(f"{where}: {error}") from error


def _read(hint: Any, value: Any, where: str) -> Any:
    """`value` from JSON as the type `hint`: dataclass, tuple, Optional, Literal or plain."""
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type[Any], hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        require(value in args, f"{where}: {value!r} is not one of {', '.join(map(str, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _read(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{where}: expected a list, found {value!r:.60}")
        require(
            args[-1] is Ellipsis or len(value) == len(args),
            f"{where}: expected a list of {len(args)}, found {value!r:.60}",
        )
        return tuple(_read(args[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        require(abs(value) < 1e300, f"{where}: {value!r:.60} is too large")
        return float(value)
    if isinstance(value, float):
        require(math.isfinite(value), f"{where}: {value!r} is not a finite number")
    right = isinstance(value, hint) and not (hint is not bool and isinstance(value, bool))
    require(right, f"{where}: expected {hint.__name__}, found {value!r:.60}")
    return value
