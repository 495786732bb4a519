"""A trained agent in one's own code.

    import mtxl_rl

    policy = mtxl_rl.load("runs/RUN")
    action, state = policy.act(observation, state, reward)  # None and 0 at an episode's start

Shapes: B envs; none where an observation is of one env.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mtxl_rl.siblings  # noqa: F401

# isort: split

import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

import envs
from agents.actions import ActionDistribution, MultiCategorical
from agents.actor_critic import ActorCritic
from agents.spaces import space_differences
from agents.trees import map_tensors
from envs.registry import choose
from envs.vectorized.single_form import SingleForm, check_finite, check_kind
from envs.wrapped.guarded_env import shown
from mtxl_rl.config import TrainConfig
from mtxl_rl.config.option_types import read_place
from mtxl_rl.device import pick_device
from mtxl_rl.evaluate import load_agent
from mtxl_rl.policies import hub
from mtxl_rl.policies.policy_state import PolicyState
from mtxl_rl.runs.checkpoint import newest_checkpoint, save_checkpoint, split_place
from mtxl_rl.runs.run_directory import create_run, load_config, read_json, write_json

RECORDS = ("evaluation.json", "made_by.json")
"""What a run says of itself, and its policy with it."""


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
        self._maker = vars(config.core) | {
            "env": config.env,
            "observation space": str(form.observation_space),
            "action space": str(form.action_space),
            "seed": config.seed,
        }
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

        What is given is looked at before anything is done, with one exception: what is on a GPU
        already is taken as it is, by its shape and dtype, because a look at its values would wait
        for the GPU at every step. There a category that its space does not have ends the program
        and a NaN stays in the memory: `torch.isfinite(tensor).all()` looks for you.

        Raises:
            ValueError: for what does not fit the agent's environment, what is not finite, or the
                state of another policy: of one with another core, environment, form of observations
                and actions, or seed. Another checkpoint of the run is the same policy.
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
        if state is not None:
            state.check(self._maker, num_envs, device)
            if reward is None:
                self._warn_of_reward()
        is_first = self._row(False if reset is None else reset, num_envs, "reset", torch.bool)
        rewards = self._row(0.0 if reward is None else reward, num_envs, "reward", torch.float32)
        if state is None:
            inputs = self.agent.first_inputs(seen, num_envs)
            core_state = self.agent.initial_state(num_envs)
        else:
            inputs = self.agent.next_inputs(seen, state.action, rewards, is_first)
            core_state = state.core
        policy, _, core_state = self.agent(as_sequence(inputs), core_state)
        action = (policy.mode if greedy else policy.sample())[:, 0]
        after = PolicyState(core_state, action, self._maker)
        return self.form.write(action, is_batch, is_tensors), after

    def save(self, folder: str | Path) -> None:
        """Write the policy as a run directory without what training needs, for `load`.

        Raises:
            ValueError: when the folder exists.
            OSError: when it cannot be written.
        """
        run_dir = _place("folder", folder)
        if run_dir.exists():
            raise ValueError(f"folder={run_dir} exists and is kept as it is; choose another")
        create_run(run_dir, self.config)
        save_checkpoint(run_dir, self.config, self.agent, self.frames)
        for name, values in self.records.items():
            write_json(run_dir / name, values)

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

    def _row(self, values: Any, num_envs: int, name: str, dtype: torch.dtype) -> Tensor:
        """Return one value for each env."""
        try:
            given = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{name} is {shown(values)}; pass numbers ({num_envs},)") from None
        if given.dim() and given.shape != (num_envs,):
            raise ValueError(
                f"{name} is {tuple(given.shape)} and the observation of {num_envs} envs; pass "
                f"({num_envs},)"
            )
        check_kind(name, given)
        tensor = given.to(dtype).expand(num_envs)
        check_finite(name, tensor)
        if given.is_cpu and dtype == torch.bool and (tensor != given).any():
            raise ValueError(f"{name} is {shown(values)}; pass True or False for each env")
        return tensor.to(self.agent.device)

    def _warn_of_reward(self) -> None:
        if self.agent.sees_past and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "this agent sees the reward of its last action, and none was given: it sees 0. "
                "Pass policy.act(observation, state, reward)",
                RuntimeWarning,
                stacklevel=4,  # no_grad is one
            )


def load(
    run: str | Path,
    device: str | torch.device = "auto",
    checkpoint: str | Path | None = None,
) -> Policy:
    """Return the policy of a run: see `mtxl_rl.load`."""
    place = hub.pull(str(run)) if str(run).startswith(hub.PREFIX) else _place("run", run)
    run_dir, named = split_place(place)
    config = load_config(run_dir)  # says where a folder is no run
    given = named if checkpoint is None else _place("checkpoint", checkpoint)
    path = given or newest_checkpoint(run_dir)
    agent, frames = load_agent(config, path, pick_device(str(device)))
    form = _form_of(config)
    spaces = form.observation_space, form.action_space
    trained = agent.observation_space, agent.action_space
    if spaces != trained:
        here, there = space_differences(spaces, trained)
        raise ValueError(
            f"env={config.env!r} has {here}, but the agent was trained with {there}; use the "
            "version of the environment that it was trained in"
        )
    return Policy(agent, form, config, frames, _records(run_dir, config, frames))


def _records(run_dir: Path, config: TrainConfig, frames: int) -> dict[str, dict[str, Any]]:
    """Return what a run says of itself, without what cannot be read, of which it warns."""
    records: dict[str, dict[str, Any]] = {}
    for path in (run_dir / name for name in RECORDS):
        if not path.is_file():
            continue
        try:
            record = read_json(path)
            if path.name == "evaluation.json" and record.get("frames") != frames:
                continue  # of another checkpoint
            hub.card("", config, frames, {path.name: record})  # whether it can be told
        except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            warnings.warn(
                f"{path} is not what training writes ({type(error).__name__}: {error}); the policy "
                "is loaded without it",
                RuntimeWarning,
                stacklevel=4,
            )
        else:
            records[path.name] = record
    return records


def _place(name: str, given: Any) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise ValueError(f"{name}={given!r} is no path; pass a str or a Path")
    return read_place(os.fspath(given))


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


def as_sequence(inputs: Any) -> Any:
    """Return the inputs of a step (B, ...), or some of them, as a sequence (B, 1, ...)."""
    return map_tensors(lambda tensor: tensor[:, None], inputs)


def numbers_of(policy: ActionDistribution) -> Float[Tensor, "... A"]:
    """Return a policy's probabilities, part by part, or the means and then the deviations."""
    if isinstance(policy, MultiCategorical):
        return torch.cat([part.probs for part in policy.parts], dim=-1)
    if isinstance(policy, torch.distributions.Categorical):
        return policy.probs
    assert isinstance(policy, torch.distributions.Independent)
    return torch.cat((policy.mean, policy.stddev), dim=-1)
