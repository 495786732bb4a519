"""What every tensor environment does about actions that are none."""

from __future__ import annotations

import pytest
import torch

from envs.tensor_env import TensorEnv


def refuses_wrong_actions(env: TensorEnv, highest: int, named: str) -> None:
    """Check that each kind of wrong action is named, and changes nothing, in three envs."""
    env.reset()
    before = env.state_dict()
    whole = torch.zeros(3, dtype=torch.int64)
    wrong = {
        f"action {highest + 1} must be from 0 to {highest}: {named}": torch.tensor(
            [0, highest + 1, 1]
        ),
        f"action -1 must be from 0 to {highest}": torch.tensor([0, 1, -1]),
        r"actions are \(4,\) torch.int64; pass .*: \(3,\) int64": whole.new_zeros(4),
        r"actions are \(3,\) torch.float32; pass whole numbers": whole.float(),
        r"actions are on meta, .* pass actions.to\('cpu'\)": whole.to("meta"),
    }
    for message, actions in wrong.items():
        with pytest.raises(ValueError, match=message):
            env.step(actions)
    assert all(torch.equal(value, before[name]) for name, value in env.state_dict().items())
