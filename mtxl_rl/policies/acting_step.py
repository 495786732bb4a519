"""One step of an agent as a function of tensors whose shapes never change, for export.

Shapes: one env.
"""

from __future__ import annotations

from torch import Tensor, nn

from agents.actor_critic import ActorCritic
from mtxl_rl.policies.policy import numbers_of

PAST = ("prev_action", "prev_reward", "reset")
"""Inputs beside the observation and the state."""


class ActingStep(nn.Module):
    """One step as a function of tensors: the core's forward pass with T = 1, without branches.

    A write to the long memory is computed at every step and taken at the last one of a segment.

    Args:
        agent: who acts.

    Attributes:
        inputs_of: the input of each part of the observation: its name, unless that is another's.
        state_names: of the state's inputs.
        output_names: of what a step returns.
    """

    def __init__(self, agent: ActorCritic):
        super().__init__()
        self.agent = agent
        self.state_names = list(agent.core.first_tensors())
        self.output_names = ["policy", "value", *(f"{name}_after" for name in self.state_names)]
        taken = {*PAST, *self.state_names, *self.output_names}
        self.inputs_of = {
            name: f"observation.{name}" if name in taken else name
            for name in agent.observation_space.spaces
        }

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Take a step.

        Args:
            inputs: the observation's parts by `inputs_of`, `PAST`, the state by `state_names`.

        Returns:
            Probabilities of the actions, part by part (of numbers the means and then the
            deviations); the value; the state.
        """
        observation = {name: inputs[given] for name, given in self.inputs_of.items()}
        prev_action, prev_reward, reset = (inputs[name] for name in PAST)
        seen = self.agent.see(observation)
        step = self.agent.next_inputs(seen, prev_action, prev_reward, reset)
        state = [inputs[name] for name in self.state_names]
        y, after = self.agent.core.step_tensors(self.agent.encode(step), reset, state)
        policy, value = self.agent.heads(y, step)
        return numbers_of(policy), value, *after
