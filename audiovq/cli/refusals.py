"""The parser's messages, which are boxes of several lines, in one line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

_FRAME = "╭╰│╮╯ \t"
_RULE = re.compile(r"[─-]{5,}$")
_UNION = re.compile(
    r"Error parsing (\S+): no type matching (.+?) could be instantiated from (.+?)\.?$"
)
_UNKNOWN = re.compile(r"Unrecognized options: (.+)$")
_OPTION = re.compile(r"^--[a-z][a-z0-9.-]*")
_REQUIRED = re.compile(r"^(?:--)?[A-Z][A-Z-]*$|^--[a-z.-]+")


def one_line(box: str, arguments: Sequence[str]) -> str:
    """The mistake in the `arguments` that a box of the parser describes, what may help, and where the help is."""
    lines = [line.strip(_FRAME) for line in box.splitlines()]
    lines = lines[next((i for i, line in enumerate(lines) if line), 0) + 1 :]  # without the title
    while lines and _RULE.match(lines[0]):
        lines = lines[1:]
    said = list(itertools.takewhile(lambda line: line and not _RULE.match(line), lines))
    if said and said[0].startswith("Missing from"):
        names = [line.split()[0] for line in said[1:] if line and _REQUIRED.match(line.split()[0])]
        text = f"{said[0]} {', '.join(names)}"
    else:
        text = " ".join(filter(None, said))
    if match := _UNION.match(text):
        text = f"{match[1]} {match[3].strip('[]')}: give {match[2].replace('|', ' or ')}"
    elif match := _UNKNOWN.match(text):
        similar = dict.fromkeys(
            found[0] for line in lines[len(said) :] if (found := _OPTION.match(line))
        )
        text = f"unknown: {match[1]}" + (f"; did you mean {', '.join(similar)}?" if similar else "")
    verb = f" {arguments[0]}" if arguments and not arguments[0].startswith("-") else ""
    if verb and f"unknown: {arguments[0]}," in f"{text},":
        verb = ""
    return f"{text.rstrip('.')}; see audiovq{verb} --help"
