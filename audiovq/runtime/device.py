"""The device and precision to compute on, and copies of tensors to a device."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from audiovq.config.errors import AudiovqError
from audiovq.runtime import distributed


def to_device_async(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`; a copy to a GPU is asynchronous."""
    if device.type != "cuda" or x.is_cuda:
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """Autocast dtype: for `auto` bfloat16 where the device supports it, else float32."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    able = False
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        flags: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        able = bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
    return torch.bfloat16 if able else torch.float32


def seed_all(seed: int, device: torch.device) -> None:
    """torch.manual_seed for devices in use only: it initialises all kinds of device, which is slow."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def pick_device(name: str = "auto") -> torch.device:
    """The device `name`; `auto`: CUDA if available, else Apple's MPS, else the CPU.

    Under torchrun, each process takes the CUDA device of its local rank. Raises AudiovqError if there is
    no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise AudiovqError(f"--device {name}: no CUDA device found; use cpu or auto")
    if name.startswith("mps") and not torch.backends.mps.is_available():
        raise AudiovqError(f"--device {name}: no Apple GPU found; use cpu or auto")
    if name == "cuda":
        name = f"cuda:{distributed.local_rank()}"
    with contextlib.suppress(RuntimeError):
        device = torch.device(name)
        if device.type in ("cpu", "cuda", "mps"):
            return device
    raise AudiovqError(f"--device {name}: give auto, cpu, cuda or mps")
