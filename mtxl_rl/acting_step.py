"""One step of an agent as a function of tensors whose shapes never change, for export.

Shapes: one env.
"""

from __future__ import annotations

from torch import Tensor, nn

from agents.actor_critic import ActorCritic
from mtxl_rl.policy import numbers_of


class ActingStep(nn.Module):
    """One step as a function of tensors: the core's forward pass with T = 1, without branches.

    A write to the long memory is computed at every step and taken at the last one of a segment.

    Args:
        agent: who acts.
    """

    def __init__(self, agent: ActorCritic):
        super().__init__()
        self.agent = agent
        self.observation_names = list(agent.observation_space.spaces)
        self.state_names = list(agent.core.first_tensors())

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take a step.

        Args:
            tensors: the observation's parts by `observation_names`, the previous action and reward,
                whether the step starts an episode, the state by `state_names`.

        Returns:
            Probabilities of the actions, part by part (of numbers the means and then the
            deviations); the value; the state.
        """
        num_parts = len(self.observation_names)
        observation = dict(zip(self.observation_names, tensors, strict=False))
        prev_action, prev_reward, reset, *state = tensors[num_parts:]
        inputs = self.agent.next_inputs(observation, prev_action, prev_reward, reset)
        x = self.agent.encode(inputs)
        y, after = self.agent.core.step_tensors(x, reset, state)
        policy, value = self.agent.heads(y, inputs)
        return numbers_of(policy), value, *after
