"""The command line: which verb is asked for, with which flags, and how it ends.

Exit codes: 0 done, 2 something the user can mend (one line says what), 130 stopped by Ctrl-C,
1 and a traceback: our bug. Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tyro
from tyro.conf import Positional, arg

from audiovq.cli.verbs import (
    app,
    decode,
    demo,
    encode,
    evaluate,
    export,
    generate,
    inspect,
    morph,
    plot,
    preprocess,
    reconstruct,
    report,
    summary,
    train_from,
)
from audiovq.config.errors import AudiovqError
from audiovq.config.presets import PRESETS


def completion(shell: Positional[Literal["bash", "zsh", "fish"]]) -> None:
    """Print a script by which a shell completes verbs, flags and values.

    bash: `audiovq completion bash > ~/.local/share/bash-completion/completions/audiovq`; zsh: into
    `_audiovq` in a folder of its `fpath`; fish: into `~/.config/fish/completions/audiovq.fish`.

    Args:
        shell: The shell: bash, zsh or fish.
    """
    main(["--tyro-print-completion", shell])


def _verbs(arguments: list[str]) -> dict[str, Callable[..., None]]:
    """The verbs; train's flags start from the preset that the arguments name."""
    flags = " ".join(arguments).replace("=", " ").split()
    named = flags[flags.index("--preset") + 1 :] if "--preset" in flags else []
    train = train_from(PRESETS.get(named[0] if named else "", PRESETS["small"]))
    stages = (preprocess, train, generate, morph, encode, decode, reconstruct)
    verbs = (demo, inspect, *stages, evaluate, report, summary, plot, app, export, completion)
    return {verb.__name__: verb for verb in verbs}


def _named(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, whose help says MODEL and OUT for what comes without a flag, not PATH and PATH."""
    hints = get_type_hints(verb, include_extras=True)
    place = get_args(Positional[Path])[1]
    for name, hint in hints.items():
        if place in get_args(hint):
            hints[name] = Annotated[hint, arg(metavar=name.upper())]
    verb.__annotations__ = hints
    return verb


RESUMABLE = frozenset({"demo", "generate", "preprocess", "train"})
"""Verbs that continue where a stopped run was."""


def failing(work: Callable[[], object], resumes: bool = True) -> int:
    """Do the work; returns the exit code, and says in one line what the user can mend.

    `resumes`: whether the same command continues where it was stopped, which Ctrl-C then says.
    """
    try:
        work()
    except AudiovqError as error:
        print(f"audiovq: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "run the same command to resume" if resumes else "the same command starts over"
        print(f"audiovq: stopped; {again}", file=sys.stderr)
        return 130
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a sign that it cannot show becomes a question mark
            stream.reconfigure(errors="replace")
    arguments = sys.argv[1:] if arguments is None else arguments
    if "" in arguments:  # an unset variable of a shell; as a path it would be the current folder
        print("audiovq: an argument is empty; give a name or a value in its place", file=sys.stderr)
        return 2
    return failing(lambda: _asked(arguments)(), not RESUMABLE.isdisjoint(arguments[:1]))


def _asked(arguments: list[str]) -> Callable[[], None]:
    """The call that a command line asks for. Raises SystemExit after help, or where it fits no verb.

    Parsers take their time to be made. So they are made of the verb's flags alone, and of no other's,
    unless something does not fit: another verb's may have been meant.
    """
    if arguments in ([], ["-h"], ["--help"]):
        return _parsed(arguments, [])
    if not arguments[0].startswith("-"):
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                return _parsed(arguments, arguments[:1])
        except SystemExit as end:
            if not end.code:
                raise
    return _parsed(arguments, None)


def _parsed(arguments: list[str], whole: list[str] | None) -> Callable[[], None]:
    """The same, with parsers of the flags of the verbs in `whole`, or all, and of the others' names."""
    verbs = {
        name: _bare(verb) if whole is not None and name not in whole else _calling(_named(verb))
        for name, verb in _verbs(arguments).items()
    }
    call: Callable[[], None] = tyro.extras.subcommand_cli_from_dict(
        verbs,
        prog="audiovq",
        description="Learn to make sound from a folder of recordings.",
        args=arguments,
    )
    return call


def _calling(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """What takes a verb's flags, and gives the call of it."""

    @functools.wraps(verb)
    def call(*arguments: Any, **flags: Any) -> Callable[[], None]:
        return functools.partial(verb, *arguments, **flags)

    return call


def _bare(verb: Callable[..., None]) -> Callable[..., Any]:
    """A verb's name and what it says of itself: a class, which tyro knows without loading typeguard."""
    return type(verb.__name__, (), {"__doc__": verb.__doc__, "__init__": lambda self: None})
