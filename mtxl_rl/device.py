"""Where a run computes: its device, and how many of the cores."""

from __future__ import annotations

import os
import re

import torch

from agents import ranks
from envs.wrapped.processes import num_cores

MAX_THREADS = 1024


def check_device(device: str) -> None:
    """Raise ValueError for what is no name of a device."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", device):
        raise ValueError(
            f"device={device!r} must be auto, cpu, cuda, cuda:N (the GPU of that number) or mps; "
            "set --device"
        )


def pick_device(device: str) -> torch.device:
    """Return the torch device; a GPU with a number becomes the current one.

    Raises:
        ValueError: for one that torch does not see.
    """
    check_device(device)
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if num_gpus else "cpu"
    kind, _, number = device.partition(":")
    if kind == "cuda" and not num_gpus:
        raise ValueError(
            f"device={device!r}, but torch {torch.__version__} sees no GPU; set --device cpu "
            "(or auto), or install a CUDA build of torch"
        )
    if number and int(number) >= num_gpus:
        raise ValueError(
            f"device={device!r}, but torch sees {num_gpus} GPU{'s' * (num_gpus > 1)}, counted from "
            f"0; set --device cuda:{num_gpus - 1} or lower"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            f"device='mps', but torch {torch.__version__} sees no Apple GPU; set --device cpu (or "
            "auto)"
        )
    if kind == "cuda":  # GRU and LSTM act by cuDNN, whose TF32 has the digits of bfloat16
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # pyright: ignore[reportAttributeAccessIssue]
    if number:
        torch.cuda.set_device(int(number))
    return torch.device(device)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies matrices in bfloat16 itself, without emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # get_capabilities is not in the oldest torch that is supported
    features = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("avx512_bf16", "amx_bf16")
    return device.type == "cpu" and any(features.get(name) for name in names)


def check_threads(num_threads: int | None) -> None:
    """Raise ValueError for a number of threads that `set_threads` cannot set."""
    if num_threads is not None and not 1 <= num_threads <= MAX_THREADS:
        raise ValueError(
            f"num_threads={num_threads} must be from 1 to {MAX_THREADS}; set --num-threads to the "
            "cores that the run may use, or leave it out"
        )


def set_threads(num_threads: int | None, num_sharing: int = 1) -> None:
    """Set the CPU threads of torch; None: its share of the cores that this process may use."""
    torch.set_num_threads(share_of_cores(num_sharing) if num_threads is None else num_threads)


def share_of_cores(num_sharing: int) -> int:
    """Return the cores for each of several processes, at most as many as OMP_NUM_THREADS allows."""
    allowed = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # one for each nested loop
    share = num_cores() // num_sharing
    if allowed.isdecimal() and not ranks.is_launched():  # torchrun sets it to 1 by itself
        share = min(share, int(allowed))
    return max(1, share)
