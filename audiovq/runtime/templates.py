"""HTML from the templates and assets of a package, by jinja2, which is imported at the first page."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(package: str, template: str, **values: Any) -> str:
    """HTML from `templates/TEMPLATE` of `package`, with `values` as its variables.

    Strings are escaped, and a variable that is missing raises an error.
    """
    return _environment(package).get_template(template).render(values)


@functools.cache
def asset(package: str, name: str) -> str:
    """The text of `assets/NAME` of `package`: CSS or JavaScript."""
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _environment(package: str) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
