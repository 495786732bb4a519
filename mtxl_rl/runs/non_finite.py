"""What a run does about numbers that are not finite: skip, warn, and at last stop."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from agents import ranks
from agents.learning.finite import describe
from agents.learning.ppo import SKIPPED_TAG
from agents.learning.rollout import Rollout
from agents.trees import named_tensors
from mtxl_rl.command import RunFailed
from mtxl_rl.runs.run_directory import save_tensors, write_json

MAX_IN_A_ROW = 5
"""Updates in a row in which something was skipped, before the run stops."""


class NonFiniteGuard:
    """Counts the updates of which something was skipped (`agents.learning.ppo` skips it).

    Args:
        run_dir: where the rollout is saved that a run stops at.
    """

    def __init__(self, run_dir: Path):
        self._folder = run_dir / "non_finite"
        self._in_a_row = 0

    def state_dict(self) -> dict[str, Tensor]:
        """Return the count as a tensor."""
        return {"in_a_row": torch.tensor(self._in_a_row)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        self._in_a_row = int(state.get("in_a_row", 0))  # earlier checkpoints have none

    def check(self, scalars: dict[str, float], rollout: Rollout, frames: int) -> None:
        """Warn of an update that was skipped.

        Args:
            scalars: what the update has logged.
            rollout: what it was made from.
            frames: after it.

        Raises:
            RunFailed: after `MAX_IN_A_ROW`; the rollout is in RUN/non_finite then.
        """
        if not scalars[SKIPPED_TAG]:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        # of the first rank that has some
        described = ranks.gather_objects(describe(rollout))
        found = [(rank, what) for rank, what in enumerate(described) if what]
        rank, what = found[0] if found else (0, "the loss or its gradient is not finite")
        share = f"{scalars[SKIPPED_TAG]:.0%} of the update to {frames:,} frames was skipped: {what}"
        if self._in_a_row < MAX_IN_A_ROW:
            warnings.warn(
                f"{share}. Weights stay, memories start anew", RuntimeWarning, stacklevel=2
            )
            return
        saved = self._save(rollout, frames, what) if ranks.share().rank == rank else ""
        raise RunFailed(
            f"{share}, for the {self._in_a_row}th time in a row. "
            f"{ranks.gather_objects(saved)[rank]}. Look there at what the environment gives; where "
            "it is the gradient, lower --ppo.learning-rate"
        )

    def _save(self, rollout: Rollout, frames: int, what: str) -> str:
        """Save the rollout and return where it is, for people."""
        # copies: a file cannot hold tensors that share their memory
        tensors = {k: t.clone() for k, t in named_tensors(rollout, "rollout").items()}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_tensors(tensors, self._folder / "rollout.safetensors")
            write_json(self._folder / "rollout.json", {"frames": frames, "what": what})
        except OSError as error:
            return f"The rollout could not be saved: {error}"
        return f"The rollout is in {self._folder}"
