"""Runs verbs of the command line, each in a process of its own that meets a full or closed disk.

    python verbs.py < COMMANDS

COMMANDS is a JSON list of [how many bytes a file may have, arguments]; with 0 bytes it is
what modes forbid that cannot be written. Prints a JSON list of [exit code, what was said].
"""

import ctypes
import json
import os
import resource
import sys
import traceback

import torch

import audiovq.pipeline  # noqa: F401  (imported once, not in every verb)
from audiovq.cli import main

CAPABILITIES = 0x20080522
"""The version of the system call's numbers."""
OVERRIDING = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root's right to pass over what modes forbid."""


def give_up_overriding() -> None:
    """Modes stop this process as they stop everybody else, even as root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, held = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    for call in (libc.capget, libc.capset):
        if call(header, held):
            raise OSError(ctypes.get_errno(), "capabilities")
        held[0] &= ~OVERRIDING


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
        else:
            give_up_overriding()
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
