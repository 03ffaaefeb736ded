"""Runs verbs of the command line, each in a process of its own that meets a full or closed disk.

    python run_verbs.py < COMMANDS

COMMANDS is a JSON list of [how many bytes a file may have, arguments]; with 0 bytes it is
what modes forbid that cannot be written. Prints a JSON list of [exit code, what was said].
"""

import contextlib
import importlib
import json
import os
import resource
import sys
import traceback

import torch
from file_modes import modes_hold

from audiovq.cli.main import main


def run(limit: int, arguments: list[str]) -> tuple[int, str]:
    """Exit code and standard error of one verb."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        torch.set_num_threads(1)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        status = 1
        try:
            with contextlib.nullcontext() if limit else modes_hold():
                status = main(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with open(reading, encoding="utf-8") as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text


if __name__ == "__main__":
    importlib.import_module("audiovq.pipeline")  # once, and not in every verb
    print(json.dumps([run(*command) for command in json.load(sys.stdin)]))
