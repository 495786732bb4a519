"""Memory Transformer-XL as the recurrent core of an agent; needs torch and mogrifier only.

`load`, for policies that were trained by the command line, imports what else it needs when it is
called.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a command that imports ends without a traceback

import torch

from mtxl_rl.core import Acting, MemoryState, MemoryTransformerXL

if TYPE_CHECKING:
    from mtxl_rl.policies.policy import Policy

__all__ = ["Acting", "MemoryState", "MemoryTransformerXL", "load"]


def load(
    run: str | Path,
    device: str | torch.device = "auto",
    checkpoint: str | Path | None = None,
) -> Policy:
    """Return the policy of a run, to act in your own code: see `Policy.act`.

    Args:
        run: a run directory, of training or of `Policy.save`, or one of its checkpoints; or
            "hf://user/name" on the Hugging Face Hub, of `Policy.push`.
        device: where the network runs, as `--device` of training; auto takes a GPU if there is one.
        checkpoint: a checkpoint folder. Left out: the newest of the run that is whole.

    Raises:
        ValueError: when the folder is not a run, it has no checkpoint, its environment cannot be
            made, or your own `agents` or `envs` is imported in the place of this package's.
    """
    from mtxl_rl.policies import policy

    return policy.load(run, device, checkpoint)
