"""What torch makes by default, which a module of a user's may change for all."""

from __future__ import annotations

import torch


def check_torch() -> None:
    """Raise ValueError where something has changed what torch makes by default."""
    found = {
        "default dtype": (str(torch.get_default_dtype()), "torch.float32"),
        "default device": (torch.get_default_device().type, "cpu"),
        "grad mode": ("on" if torch.is_grad_enabled() else "off", "on"),
        "inference mode": ("on" if torch.is_inference_mode_enabled() else "off", "off"),
    }
    for name, (value, expected) in found.items():
        if value != expected:
            raise ValueError(
                f"torch's {name} is {value}: a module that was imported, or an environment, such "
                f"as that of --env, --wrap or --core.kind, has set it. It must be {expected} to "
                "act and to train; take that out of the module"
            )
