"""Runs a verb of the command line; whoever outside of this machine it would talk to is said.

    python no_network.py VERB …

Such a call fails, and "OUTSIDE" and its address go to standard error.
"""

import os
import sys
from typing import Any

from audiovq.cli.main import main

HERE = {"127.0.0.1", "::1", "localhost", "", None, "0.0.0.0"}


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in HERE:
        os.write(2, f"OUTSIDE {host}\n".encode())
        raise OSError(f"{host} is not to be called")


if __name__ == "__main__":
    sys.addaudithook(watch)
    sys.exit(main(sys.argv[1:]))
