"""A trained agent in one's own code.

    import mtxl_rl

    policy = mtxl_rl.load("runs/RUN")
    action, state = policy.act(observation, state, reward)  # None and 0 at an episode's start

Shapes: B envs; none where an observation is of one env.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from jaxtyping import Float, Shaped
from torch import Tensor

import envs
from agents.actions import ActionDistribution, MultiCategorical
from agents.actor_critic import ActorCritic, AgentInput
from agents.trees import map_tensors
from envs.registry import choose
from envs.wrapped.single_form import SingleForm
from mtxl_rl import hub
from mtxl_rl.config import TrainConfig, pick_device
from mtxl_rl.evaluate import load_agent
from mtxl_rl.runs.checkpoint import newest_checkpoint, save_checkpoint
from mtxl_rl.runs.run_directory import create_run, load_config, read_json, write_json

RECORDS = ("evaluation.json", "made_by.json")
"""What a run says of itself, and its policy with it."""


@dataclass(frozen=True, eq=False)
class PolicyState:
    """What a policy carries from one step to the next: a value, which `act` does not change."""

    core: Any  # the core's state, (B, ...) each
    action: Shaped[Tensor, "B ..."]  # taken last

    @property
    def batch_size(self) -> int:
        """Number of envs B."""
        return len(self.action)


class Policy:
    """An agent that acts; nothing of an episode is kept in it.

    Args:
        agent: who acts.
        form: of its environment.
        config: of its training.
        frames: that it was trained for.
        records: what its run says of it, by `RECORDS`: those that there are.

    Attributes:
        observation_space: of one env, as Gymnasium has it.
        action_space: of one env.
    """

    def __init__(
        self,
        agent: ActorCritic,
        form: SingleForm,
        config: TrainConfig,
        frames: int,
        records: Mapping[str, dict[str, Any]],
    ):
        self.agent, self.form, self.config, self.frames = agent, form, config, frames
        self.records = records
        self.observation_space = form.original_space
        self.action_space: spaces.Space = form.action_space
        self._has_warned = False

    @torch.no_grad()
    def act(
        self,
        observation: Any,
        state: PolicyState | None = None,
        reward: Any = None,
        reset: Any = None,
        *,
        greedy: bool = False,
    ) -> tuple[Any, PolicyState]:
        """Return an action and the state after it.

        Args:
            observation: of one env or of a batch. NumPy: what Gymnasium's environment, or its
                vector environment, returned. Tensors: what `envs.make` returned.
            state: from the call before; None starts an episode in every env. It holds the action
                that was returned: take that one, or act for yourself without the policy.
            reward: for the last action, of one env or (B,). Agents see it, unless they were
                trained with --core.no-past-action. Left out: 0, with a warning in the middle of an
                episode.
            reset: of a batch, (B,), True where the observation is the first of an episode: what
                `terminated | truncated` was in the step before. Left out: nowhere.
            greedy: take the most probable action instead of sampling, by torch's generator.

        Raises:
            ValueError: for what does not fit the agent's environment, or the state.
        """
        if not (state is None or isinstance(state, PolicyState)):
            raise ValueError(
                f"the state is of type {type(state).__name__}; pass the one that act returned with "
                "the last action, or None where an episode starts"
            )
        fields, is_batch, is_tensors = self.form.read(observation)
        device = self.agent.device
        seen = self.agent.see({name: tensor.to(device) for name, tensor in fields.items()})
        num_envs = len(next(iter(fields.values())))
        inputs = self.agent.first_inputs(seen, num_envs)
        core_state = self.agent.initial_state(num_envs) if state is None else state.core
        if state is not None:
            if state.batch_size != num_envs:
                raise ValueError(
                    f"the state is of {state.batch_size} envs and the observation of {num_envs}; "
                    "pass the state of the same envs, or None to start"
                )
            if reward is None:
                self._warn_of_reward()
                reward = 0.0
            is_first = self._row(False if reset is None else reset, num_envs, "reset").bool()
            rewards = self._row(reward, num_envs, "reward").float()
            inputs = self.agent.next_inputs(seen, state.action, rewards, is_first)
        policy, _, core_state = self.agent(as_sequence(inputs), core_state)
        action = (policy.mode if greedy else policy.sample())[:, 0]
        return self.form.write(action, is_batch, is_tensors), PolicyState(core_state, action)

    def save(self, folder: str | Path) -> None:
        """Write the policy as a run directory without what training needs, for `load`.

        Raises:
            ValueError: when the folder exists.
            OSError: when it cannot be written.
        """
        create_run(Path(folder), self.config)
        save_checkpoint(Path(folder), self.config, self.agent, self.frames)
        for name, values in self.records.items():
            write_json(Path(folder) / name, values)

    def push(self, repo_id: str, private: bool = False) -> str:
        """Write the policy to the Hugging Face Hub, for `mtxl_rl.load("hf://user/name")`.

        What `save` writes (in made_by.json: the command, commit, device and processor), and a model
        card with the evaluation; it replaces what is there.

        Args:
            repo_id: user/name.
            private: whether a repository that is new is private.

        Returns:
            The address of the commit.

        Raises:
            ValueError: without huggingface_hub, or when the Hub refuses it.
        """
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "run"
            self.save(folder)
            card = hub.card(repo_id, self.config, self.frames, self.records)
            (folder / "README.md").write_text(card, encoding="utf-8")
            return hub.push(folder, repo_id, private)

    def _row(self, values: Any, num_envs: int, name: str) -> Tensor:
        tensor = torch.as_tensor(values, device=self.agent.device)
        if tensor.dim() == 0:
            return tensor.expand(num_envs)
        if tensor.shape != (num_envs,):
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} and the observation of {num_envs} envs; pass "
                f"({num_envs},)"
            )
        return tensor

    def _warn_of_reward(self) -> None:
        if self.agent.sees_past and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "this agent sees the reward of its last action, and none was given: it sees 0. "
                "Pass policy.act(observation, state, reward)",
                RuntimeWarning,
                stacklevel=3,
            )


def load(run: str | Path, device: str = "auto", checkpoint: str | Path | None = None) -> Policy:
    """Return the policy of a run: see `mtxl_rl.load`."""
    run_dir = hub.pull(str(run)) if str(run).startswith(hub.PREFIX) else Path(run)
    config = load_config(run_dir)  # says where a folder is no run
    path = newest_checkpoint(run_dir) if checkpoint is None else Path(checkpoint)
    agent, frames = load_agent(config, path, pick_device(device))
    form = _form_of(config)
    if (form.observation_space, form.action_space) != (agent.observation_space, agent.action_space):
        raise ValueError(
            f"env={config.env!r} has {form.observation_space} and {form.action_space}, but the "
            f"agent was trained with {agent.observation_space} and {agent.action_space}; use the "
            "version of the environment that it was trained in"
        )
    paths = {name: run_dir / name for name in RECORDS}
    records = {name: read_json(path) for name, path in paths.items() if path.is_file()}
    if records.get("evaluation.json", {}).get("frames") != frames:
        records.pop("evaluation.json", None)  # of another checkpoint
    return Policy(agent, form, config, frames, records)


def _form_of(config: TrainConfig) -> SingleForm:
    """Return the form of the run's environment: that of single ones, where it has them."""
    chosen = choose(config.env, config.backend, config.env_kwargs, config.wrap)
    backend = chosen.backend
    if backend == "tensor" and chosen.spec.entry_point is not None:
        backend = "gymnasium"
    env = envs.make(
        config.env, 1, backend=backend, env_kwargs=config.env_kwargs, wrap=config.wrap,
        vectorize="sync",
    )  # fmt: skip
    try:
        return SingleForm(env)
    finally:
        env.close()


def as_sequence(inputs: AgentInput) -> AgentInput:
    """Return the inputs of a step (B, ...) as a sequence (B, 1, ...)."""
    return map_tensors(lambda tensor: tensor[:, None], inputs)


def numbers_of(policy: ActionDistribution) -> Float[Tensor, "... A"]:
    """Return a policy's probabilities, part by part, or the means and then the deviations."""
    if isinstance(policy, MultiCategorical):
        return torch.cat([part.probs for part in policy.parts], dim=-1)
    if isinstance(policy, torch.distributions.Categorical):
        return policy.probs
    assert isinstance(policy, torch.distributions.Independent)
    return torch.cat((policy.mean, policy.stddev), dim=-1)
