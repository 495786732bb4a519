"""A whole rollout, and the loss, are one graph each: no Python depends on the data."""

from typing import Any

import torch
from small_trainer import make_trainer

import agents.learning.rollout
from agents.learning.ppo import ppo_loss, take_envs
from agents.learning.rollout import collect_on_device


def main() -> None:
    trainer: Any = make_trainer()
    trainer.env._on_host = False  # as on a GPU: nothing looks at the data
    agents.learning.rollout._may_look = lambda _: False
    options: Any = {"fullgraph": True, "dynamic": False, "backend": "aot_eager"}
    compiled = torch.compile(collect_on_device, **options)
    rollout, _ = compiled(trainer.agent, trainer.env.device_step, trainer.carry, 4)
    assert rollout.reward.shape == (4, 6)
    batch = take_envs(rollout, rollout.reward, torch.arange(3))
    compiled_loss = torch.compile(ppo_loss, **options)
    loss, _ = compiled_loss(trainer.agent, batch, trainer.ppo.config, trainer.ppo.ent_coef)
    loss.backward()
    expected, _ = ppo_loss(trainer.agent, batch, trainer.ppo.config, trainer.ppo.ent_coef)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    print("equal")


if __name__ == "__main__":
    main()
