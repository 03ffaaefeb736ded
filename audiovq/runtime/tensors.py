"""Tensors on disk: safetensors files with checksums, and scratch memory backed by a file."""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from audiovq.config.errors import AudiovqError
from audiovq.runtime.checksums import (
    AGAIN,
    CHECKSUM_PLACEHOLDER,
    DAMAGED,
    add_checksum,
    has_valid_checksum,
)
from audiovq.runtime.files import atomic, cannot_write, read_bytes


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors, and strings as metadata, to a safetensors file, atomically.

    With metadata, a checksum of the whole file is added to it, as in `checksums`.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = to_bytes(contiguous, metadata and {"sha256": CHECKSUM_PLACEHOLDER.decode()} | metadata)
    with atomic(path) as temporary:  # not by save_file, whose files only their owner may read
        temporary.write_bytes(add_checksum(data) if metadata else data)


def read_tensors(path: Path, sealed: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file: inverse of `save_tensors`.

    `sealed`: the file must have a checksum. Raises AudiovqError if it is damaged.
    """
    try:
        data = read_bytes(path)
        tensors = from_bytes(data)
        (length,) = struct.unpack_from("<Q", data)
        metadata = dict(json.loads(data[8 : 8 + length]).get("__metadata__") or {})
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise AudiovqError(f"{path}: cannot be read as safetensors ({words:.200})") from error
    if (sealed or metadata) and not has_valid_checksum(data, metadata.pop("sha256", None)):
        raise AudiovqError(f"{path}: {DAMAGED}; {AGAIN}")
    return tensors, metadata


def scratch(*shape: int, dtype: torch.dtype) -> Tensor:
    """A tensor of zeros backed by an unlinked temporary file, so that the system can page it out.

    Its bytes are reserved first: on a full disk, the system would kill the process at the first write to memory
    without a place in the file. Raises AudiovqError where the folder for temporary files has no room.
    """
    plain = torch.empty(0, dtype=dtype).numpy().dtype
    try:
        with tempfile.TemporaryFile() as file:
            size = plain.itemsize * math.prod(shape)
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_numpy(np.memmap(file, plain, "w+", shape=shape))
    except OSError as error:
        raise cannot_write(tempfile.gettempdir(), error) from error
