"""Runs verbs of the command line, each in a process of its own that meets a full or closed disk.

    python verbs.py < COMMANDS

COMMANDS is a JSON list of [how many bytes a file may have, arguments]; with 0 bytes it is what
belongs to another user that cannot be written. Prints a JSON list of [exit code, what was said].
"""

import json
import os
import resource
import sys
import traceback

import torch

import audiovq.pipeline  # noqa: F401  (imported once, not in every verb)
from audiovq.cli import main

NOBODY = 65_534


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
        elif os.geteuid() == 0:  # whom no mode stops
            os.setuid(NOBODY)
        status = 1
        try:
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
    print(json.dumps([run(*command) for command in json.load(sys.stdin)]))
