"""The command line: parses the arguments, runs the verb, returns the exit code.

Exit codes: 0 done; 2 an error that the user can fix, described in one line; 130 stopped by Ctrl-C; 1 with a
traceback, a bug of ours. No heavy module is imported before a verb runs.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import gc
import io
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tyro
from tyro.conf import Positional, arg

from audiovq import __version__
from audiovq.cli.archives import decode, encode, reconstruct
from audiovq.cli.datasets import inspect, preprocess
from audiovq.cli.library import find, pack
from audiovq.cli.models import app, evaluate, export, plot, report, summary
from audiovq.cli.refusals import one_line
from audiovq.cli.sounds import continue_, generate, morph, repaint, vary
from audiovq.cli.training import demo, train_from
from audiovq.config.errors import AudiovqError
from audiovq.config.presets import PRESETS
from audiovq.runtime.files import cannot_write, is_full
from audiovq.runtime.progress import in_one_line


def completion(shell: Positional[Literal["bash", "zsh", "fish"]]) -> None:
    """Print a shell script that completes verbs, flags and values.

    bash: `audiovq completion bash > ~/.local/share/bash-completion/completions/audiovq`. zsh: save it as
    `_audiovq` in a folder on your `fpath`. fish: save it as `~/.config/fish/completions/audiovq.fish`.

    Args:
        shell: The shell: bash, zsh or fish.
    """
    main(["--tyro-print-completion", shell])


def _verbs(arguments: list[str]) -> dict[str, Callable[..., None]]:
    """The verbs by name; the defaults of train's flags are those of the preset and the model that the arguments name.

    Raises AudiovqError where they name no model.
    """
    defaults = PRESETS.get(_value_of("--preset", arguments) or "small", PRESETS["small"])
    origin = _value_of("--from", arguments)
    if origin and arguments[:1] == ["train"]:
        from audiovq.training.origin import Origin

        defaults = Origin.read(origin).adopt(defaults)
    train = train_from(defaults)
    make = (generate, vary, continue_, repaint, morph, pack)
    look = (find, evaluate, report, summary, plot, app, export)
    verbs = (
        demo,
        inspect,
        preprocess,
        train,
        *make,
        encode,
        decode,
        reconstruct,
        *look,
        completion,
    )
    return {verb.__name__.rstrip("_"): verb for verb in verbs}


def _value_of(flag: str, arguments: list[str]) -> str | None:
    """The value of a flag, given as `--flag value` or `--flag=value`; None where it is missing."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def _with_metavars(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with positional arguments shown as MODEL and OUT in its help, not as PATH and PATH."""
    hints = get_type_hints(verb, include_extras=True)
    marker = get_args(Positional[Path])[1]
    for name, hint in hints.items():
        if marker in get_args(hint):
            hints[name] = Annotated[hint, arg(metavar=name.upper())]
    verb.__annotations__ = hints
    return verb


COLLECT_EVERY = 10_000
"""New objects per garbage collection. Importing torch makes a million objects and no garbage: with Python's own
number, 700, an eighth of the import is collections."""
RESUMABLE = frozenset(
    {"demo", "generate", "vary", "continue", "repaint", "morph", "preprocess", "train"}
)
"""Verbs that resume a stopped run."""


OF_PATHS = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
"""Errors of paths that a user gave: a closed folder above a file, and a name that is too long, which `Path.exists` raises."""
PIPE_CLOSED = 128 + 13
"""Exit code where the program that reads the output ended first: that of SIGPIPE in a shell."""


def failing(work: Callable[[], object], after_stop: str = "run the same command to resume") -> int:
    """Run `work` and return the exit code; print an error that the user can fix in one line.

    `after_stop`: what the message after Ctrl-C says of the same command.
    """
    try:
        work()
        if sys.stdout is not None:
            sys.stdout.flush()
    except AudiovqError as error:
        print(in_one_line(f"audiovq: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"audiovq: stopped; {after_stop}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the program that reads the output, such as `head`, has ended
        _discard_output()
        return PIPE_CLOSED
    except OSError as error:
        if error.errno in OF_PATHS and error.filename:
            text = f"audiovq: {error.filename}: cannot be opened ({error.strerror})"
            print(in_one_line(text), file=sys.stderr)
            return 2
        if not is_full(error):
            raise
        _discard_output()
        name = error.filename or error.filename2 or "the output, or a temporary file"
        print(in_one_line(f"audiovq: {cannot_write(name, error)}"), file=sys.stderr)
        return 2
    return 0


def _discard_output() -> None:
    """Print nothing more: the buffer cannot be written, and Python would say so at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that it cannot encode become "?"
            stream.reconfigure(errors="replace")
    arguments = sys.argv[1:] if arguments is None else arguments
    if "" in arguments:  # an unset shell variable; as a path it would be the current folder
        print("audiovq: an argument is empty; give a name or a value in its place", file=sys.stderr)
        return 2
    return failing(lambda: _parse(arguments)(), _after_stop(arguments))


def _after_stop(arguments: list[str]) -> str:
    """What the same command does after Ctrl-C."""
    if RESUMABLE.isdisjoint(arguments[:1]):
        return "the same command starts over"
    if "--seed=random" in arguments or ("--seed", "random") in itertools.pairwise(arguments):
        return "to resume, run the same command with the seed that it printed in place of random"
    return "run the same command to resume"


def program() -> int:
    """`main` as a whole process, which starts faster with rarer garbage collections, and ends faster (`_end`)."""
    gc.set_threshold(COLLECT_EVERY, 20, 20)
    _open_closed()
    if "--json" in sys.argv:
        _print_alone()
    codes: list[int] = []
    atexit.register(_end, codes)  # registered first, so that it runs after all other handlers
    codes.append(main())
    return codes[0]


def _open_closed() -> None:
    """Open the standard streams that are closed, in their order: Python has None for them, and the next files that are
    opened would get their numbers, and all that is printed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for the whole process)


def _print_alone() -> None:
    """Send what libraries in C print, such as libsndfile about damaged files, to standard error for the rest of the
    process, so that standard output holds what Python prints alone."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # one of them is closed
        printed, errors = sys.stdout.fileno(), sys.stderr.fileno()
        stream = os.fdopen(os.dup(printed), "w", encoding=sys.stdout.encoding)
        os.dup2(errors, printed)
        sys.stdout = stream


def _end(codes: list[int]) -> None:
    """End the process with the exit code in `codes`, without freeing its modules one by one, which takes half a
    second with torch. Does nothing where `main` did not return, or where output cannot be written."""
    if not codes:
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # Python itself reports it
        return
    os._exit(codes[0])


def _parse(arguments: list[str]) -> Callable[[], None]:
    """The call that a command line asks for. Raises SystemExit after printing help, AudiovqError for what the parser
    refuses.

    Building a parser of all flags is slow. So only that of the named verb is built, whose errors suggest flags of this
    verb alone.
    """
    if arguments == ["--version"]:
        return lambda: print(f"audiovq {__version__}")
    verbs = _verbs(arguments)
    if arguments in ([], ["-h"], ["--help"]):
        return _parse_with(arguments, {name: _without_flags(verb) for name, verb in verbs.items()})
    named = {name: verb for name, verb in verbs.items() if name == arguments[0]}
    full = {name: _deferred(_with_metavars(verb)) for name, verb in (named or verbs).items()}
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return _parse_with(arguments, full)
    except SystemExit as end:
        if not end.code:
            raise
        raise AudiovqError(one_line(box.getvalue(), arguments)) from end


def _parse_with(arguments: list[str], verbs: dict[str, Callable[..., Any]]) -> Callable[[], None]:
    """`_parse` with a parser of these verbs."""
    call: Callable[[], None] = tyro.extras.subcommand_cli_from_dict(
        verbs,
        prog="audiovq",
        description="Learn to make sound from a folder of recordings. Start with `audiovq app digits`, or with"
        " `audiovq inspect MY-SOUNDS`, which says what to type for your recordings. `audiovq --version` prints the version.",
        args=arguments,
    )
    return call


def _deferred(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """A function with the verb's flags that returns the verb's call instead of running it."""

    @functools.wraps(verb)
    def call(*arguments: Any, **flags: Any) -> Callable[[], None]:
        return functools.partial(verb, *arguments, **flags)

    return call


def _without_flags(verb: Callable[..., None]) -> Callable[..., Any]:
    """The verb's name and help alone, as a class: for a function, tyro would load typeguard (slow)."""
    return type(verb.__name__, (), {"__doc__": verb.__doc__, "__init__": lambda self: None})
