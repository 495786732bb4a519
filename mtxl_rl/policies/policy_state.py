"""What a policy carries from one step to the next, and what it is refused for.

Shapes: B envs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from mtxl_rl.config.json_form import differences


@dataclass(frozen=True, eq=False)
class PolicyState:
    """What a policy carries from one step to the next: a value, which `act` does not change."""

    core: Any  # the core's state, (B, ...) each
    action: Shaped[Tensor, "B ..."]  # taken last
    maker: dict[str, Any]  # what tells its policy from others

    @property
    def batch_size(self) -> int:
        """Number of envs B."""
        return len(self.action)

    def check(self, maker: dict[str, Any], num_envs: int, device: torch.device) -> None:
        """Raise ValueError where it is another policy's, or of other envs."""
        if self.maker is not maker and self.maker != maker:
            is_kind = self.maker["kind"] == maker["kind"]
            different = differences(
                self.maker, maker, "in the state", "here", lambda name: is_kind or name == "kind"
            )
            raise ValueError(
                f"the state is of another policy: {different}; pass the one that act of this "
                "policy returned, or None to start"
            )
        if self.batch_size != num_envs:
            raise ValueError(
                f"the state is of {self.batch_size} envs and the observation of {num_envs}; "
                "pass the state of the same envs, or None to start"
            )
        if self.action.device != device:
            raise ValueError(
                f"the state is on {self.action.device} and the policy on {device}; pass the one "
                "that act of this policy returned, or None to start"
            )
