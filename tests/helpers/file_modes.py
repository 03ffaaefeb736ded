"""File modes that hold for root too."""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator

VERSION = 0x20080522
"""Of the numbers that the system calls take (Linux, capabilities of 64 bits)."""
OVERRIDING = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root's right to pass over what modes forbid."""


@contextlib.contextmanager
def modes_hold() -> Iterator[None]:
    """Modes stop this thread, and those that it starts, as they stop everybody who is not root."""
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, held = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()

    def call(function: Callable[..., int]) -> None:
        if function(header, held):
            raise OSError(ctypes.get_errno(), "capabilities")

    call(libc.capget)
    effective = held[0]
    held[0] = effective & ~OVERRIDING
    call(libc.capset)
    try:
        yield
    finally:
        held[0] = effective
        call(libc.capset)
