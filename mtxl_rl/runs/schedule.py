"""How far a run is, for step sizes and coefficients that change with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

WIND_DOWN_SHARE = 0.25
"""Frames from the decision to stop to the end, as a share of those before it."""
WIND_DOWN_UPDATES = 10
"""Updates from then to the end, at least."""


class Schedule:
    """Progress from 0 at the start of a run to 1 at its end, which can be brought forward.

    A step size that is still large when a run stops leaves an agent that has just lost, or is about
    to lose, what it can do (experiments/LOG.md): so a run that reaches its target winds down first.

    Args:
        total_frames: at the end.
        frames_per_update: of one rollout over all envs.
    """

    def __init__(self, total_frames: int, frames_per_update: int):
        self.end_frames = total_frames
        self._frames_per_update = frames_per_update
        self._since, self._progress_then = 0, 0.0

    @property
    def is_winding_down(self) -> bool:
        """Whether the end has been brought forward."""
        return self._since > 0

    def progress(self, frames: int) -> float:
        """Return how far the run is after `frames`, from 0 to 1."""
        share = (frames - self._since) / max(1, self.end_frames - self._since)
        return self._progress_then + (1 - self._progress_then) * share

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors; without any where the end is that of the start."""
        if not self.is_winding_down:
            return {}
        values = (self._since, self.end_frames, self._progress_then)
        return {"winding_down": torch.tensor(values, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        if "winding_down" in state:
            since, end_frames, self._progress_then = state["winding_down"].tolist()
            self._since, self.end_frames = int(since), int(end_frames)

    def wind_down(self, frames: int) -> None:
        """Bring the end forward, so that progress goes on from where it is after `frames`."""
        self._progress_then, self._since = self.progress(frames), frames
        share = round(WIND_DOWN_SHARE * frames / self._frames_per_update)
        num_updates = max(share, WIND_DOWN_UPDATES)
        self.end_frames = min(self.end_frames, frames + num_updates * self._frames_per_update)
