"""The fast forms of acting and training: compiled functions and CUDA graphs, with a way back.

Nothing here changes what is computed. `torch.compile` fuses what lies between the matrix products;
a CUDA graph replays a whole rollout, or a whole step of the optimizer, without the host. Both need
shapes that never change: `rollout.collect_on_device` and `PPO.train_minibatch_` have them where a
rollout is made of whole segments.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from agents import ranks
from agents.actor_critic import ActorCritic
from agents.learning.episodes import clear
from agents.learning.ppo import DEALT_ENVS, PPO, SKIPPED_TAG
from agents.learning.rollout import Carry, Env, Rollout, SplitEnv, collect, collect_on_device
from agents.trees import map_tensors

WARM_UP_CALLS = 3
"""Before a capture, as torch.cuda.graph asks for."""


@dataclass
class Trainer:
    """Acts and trains, in turns: an iteration of PPO is `collect`, then `update`.

    Attributes:
        form: "plain", "compiled" or "captured": what runs, after `accelerate`.
    """

    agent: ActorCritic
    ppo: PPO
    env: Env
    carry: Carry
    num_steps: int
    form: str = "plain"

    def collect(self) -> Rollout:
        """Act in every env; the rollout is overwritten by the next one where it is captured."""
        rollout, self.carry = collect(self.agent, self.env, self.carry, self.num_steps)
        return rollout

    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Train on the rollout: see `PPO.update`.

        Where some of it is not finite, the memories may not be either: all of them start anew.
        """
        scalars = self.ppo.update(rollout, progress)
        if scalars[SKIPPED_TAG]:
            self.forget_()
        return scalars

    def forget_(self) -> None:
        """Clear every env's memory, as at the start of an episode; the episodes go on."""
        num_envs = len(self.carry.inputs.reset)
        self._go_on_from_(
            replace(
                self.carry,
                inputs=self.agent.first_inputs(self.carry.inputs.observation, num_envs),
                state=self.agent.initial_state(num_envs).detach(),
            )
        )

    def begin_(self, rows: Bool[Tensor, " B"], observation: dict[str, Tensor]) -> None:
        """Go on with new episodes in some envs, which `observation` shows."""
        seen = self.agent.see(observation)
        first = self.agent.first_inputs(seen, len(rows))
        inputs = map_tensors(
            lambda new, old: torch.where(rows.view(-1, *[1] * (new.dim() - 1)), new, old),
            first,
            self.carry.inputs,
        )
        self._go_on_from_(replace(clear(self.carry, rows), inputs=inputs))

    def _go_on_from_(self, carry: Carry) -> None:
        self.carry = carry


def can_be_captured(trainer: Trainer) -> bool:
    """Return whether it runs as CUDA graphs: on a GPU, with environments that are tensors.

    Not with a core or an encoder of a user's, which may keep in Python what a graph would not see.
    """
    agent = trainer.agent
    return agent.device.type == "cuda" and isinstance(trainer.env, SplitEnv) and not agent.own


def accelerate(trainer: Trainer, is_strict: bool = False) -> Trainer:
    """Return the fastest form of `trainer` that runs here; the agent is as it was.

    What fails leaves the form before it, with one warning.

    Raises:
        ValueError: with `is_strict`, instead of the warning.
    """
    forms: list[Callable[[Trainer], Trainer]] = [compile_]
    if can_be_captured(trainer):
        captured = CapturedTrainer.of
        forms = [compile_, captured] if trainer.agent.core.Config.has_attention else [captured]
    reasons = []
    for form in forms:
        try:
            trainer = form(trainer)
        except Exception as error:
            if is_strict:
                raise ValueError(
                    f"training cannot run as fast as it should: {_reason(error)} (--strict; leave "
                    "it out to go on)"
                ) from error
            reasons.append(_reason(error))
    if reasons:
        distinct = "; ".join(dict.fromkeys(reasons))  # both forms may lack the same thing
        text = f"training runs {trainer.form}, which is slower: {distinct}"
        warnings.warn(f"{text}. --compile off silences this", RuntimeWarning, stacklevel=2)
    return trainer


def _reason(error: BaseException) -> str:
    """Return the first line of the first error: what follows it is its consequence."""
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def compile_(trainer: Trainer) -> Trainer:
    """Compile the core, and run it once, forwards and backwards.

    Raises:
        ValueError: for a core or a rollout that has no fixed shapes.
        Exception: what the compiler raises; the core is as it was then.
    """
    core = trainer.agent.core
    _check_fixed_shapes(trainer)
    core.compile_()
    try:
        _try_out(trainer)
    except Exception:
        core.uncompile_()
        raise
    return replace(trainer, form="compiled")


def _check_fixed_shapes(trainer: Trainer) -> None:
    segment_len = trainer.agent.core.segment_len
    if trainer.num_steps % segment_len:
        raise ValueError(
            f"rollout_len={trainer.num_steps} is not a multiple of seq_len={segment_len}; set "
            "--ppo.rollout-len or --core.seq-len so that it is"
        )
    num_envs, num_minibatches = trainer.env.num_envs, trainer.ppo.config.num_minibatches
    if not trainer.ppo.has_equal_minibatches(num_envs):
        raise ValueError(
            f"{ranks.size()} ranks with {num_envs} envs each have minibatches of changing sizes; "
            f"set --num-envs to {DEALT_ENVS} or more, a multiple of {ranks.size()} ranks x "
            f"num_minibatches={num_minibatches}"
        )


def _try_out(trainer: Trainer) -> None:
    """Act for a rollout and train once, on copies of the next inputs; nothing is changed by it."""
    agent, carry = trainer.agent, trainer.carry
    player = agent.player(carry.state)
    for _ in range(trainer.num_steps):
        player.step(carry.inputs)
        player.peek(carry.inputs)
    num_envs = len(carry.inputs.reset) // trainer.ppo.config.num_minibatches
    inputs = map_tensors(
        lambda first: first[:num_envs, None].expand(-1, trainer.num_steps, *first.shape[1:]),
        carry.inputs,
    )
    policy, value, _ = agent(inputs, carry.state[slice(num_envs)])
    (policy.entropy().mean() + value.mean()).backward()
    agent.zero_grad()


class Recording:
    """A function without arguments, recorded once as a CUDA graph and replayed.

    It must read and write the same tensors at every call, and returns the same ones every time.
    Elsewhere than on a GPU it is called: all but the recording is the same then.
    """

    def __init__(self, fn: Callable[[], Any], device: torch.device):
        self._fn = fn
        self._graph = torch.cuda.CUDAGraph() if device.type == "cuda" else None
        if self._graph is None:
            self._result = fn()
            return
        side = torch.cuda.Stream(device)
        current = torch.cuda.current_stream(device)
        side.wait_stream(current)
        with torch.cuda.stream(side), warnings.catch_warnings():
            # Adam with capturable=True says that it runs outside of a graph
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            for _ in range(WARM_UP_CALLS):
                fn()
        current.wait_stream(side)
        try:
            with torch.cuda.graph(self._graph):
                self._result = fn()
        finally:
            torch.cuda.set_stream(current)  # a capture that fails leaves its own

    def __call__(self) -> Any:
        if self._graph is not None:
            self._graph.replay()
        else:
            map_tensors(Tensor.copy_, self._result, self._fn())
        return self._result


@dataclass
class CapturedTrainer(Trainer):
    """A trainer whose rollout and whose minibatch are CUDA graphs."""

    _record_rollout: Recording | None = None

    @classmethod
    def of(cls, trainer: Trainer) -> CapturedTrainer:
        """Capture; whatever the warm-up changed is put back."""
        _check_fixed_shapes(trainer)
        env = trainer.env
        assert isinstance(env, SplitEnv)
        device = trainer.agent.device
        before = _Snapshot(trainer)
        try:
            # buffers that every replay reads and writes
            carry = map_tensors(torch.clone, before.carry)
            captured = cls(
                trainer.agent, trainer.ppo, env, carry, trainer.num_steps, form="captured"
            )
            captured._record_rollout = Recording(captured._collect_, device)
            rollout = captured._record_rollout()
            trainer.ppo.train_minibatch = CapturedMinibatch(trainer.ppo, rollout)
        finally:
            before.restore_()
        map_tensors(Tensor.copy_, captured.carry, before.carry)
        return captured

    def collect(self) -> Rollout:
        assert isinstance(self.env, SplitEnv)
        assert self._record_rollout is not None
        for _ in range(self.num_steps):
            self.env.host_step()
        return self._record_rollout()

    def _go_on_from_(self, carry: Carry) -> None:
        map_tensors(Tensor.copy_, self.carry, carry)

    def _collect_(self) -> Rollout:
        """Collect in the buffers of `carry`."""
        assert isinstance(self.env, SplitEnv)
        rollout, after = collect_on_device(
            self.agent, self.env.device_step, self.carry, self.num_steps
        )
        # the rollout's own: the buffer takes the next one's state
        rollout = rollout._replace(initial_state=rollout.initial_state.clone())
        map_tensors(Tensor.copy_, self.carry, after)
        return rollout


class CapturedMinibatch:
    """`PPO.train_minibatch_` on the tensors of a captured rollout."""

    def __init__(self, ppo: PPO, rollout: Rollout):
        num_steps, num_envs = rollout.reward.shape
        device = rollout.reward.device
        self._rollout = rollout
        self._advantage = torch.zeros(num_steps, num_envs, device=device)
        self._envs = torch.arange(num_envs // ppo.config.num_minibatches, device=device)
        for group in ppo.optimizer.param_groups:
            group["capturable"] = device.type == "cuda"
        self._record = Recording(
            lambda: ppo.train_minibatch_(self._rollout, self._advantage, self._envs), device
        )

    def __call__(self, rollout: Rollout, advantage: Tensor, envs: Tensor) -> Tensor:
        assert rollout is self._rollout
        self._advantage.copy_(advantage)
        self._envs.copy_(envs)
        return self._record().clone()


class _Snapshot:
    """What a warm-up changes: agent, optimizer, environments, random numbers."""

    def __init__(self, trainer: Trainer):
        self._agent, self._optimizer = trainer.agent, trainer.ppo.optimizer
        self._env: Any = trainer.env
        self._weights = map_tensors(torch.clone, dict(self._agent.state_dict()))
        self._moments = copy.deepcopy(self._optimizer.state_dict()["state"])
        self._env_state = self._env.state_dict()
        self._cpu_numbers = torch.get_rng_state()
        self._gpu_numbers = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        self.carry = map_tensors(torch.clone, trainer.carry)

    def restore_(self) -> None:
        """Put everything back in place, so that what was recorded still uses it."""
        with torch.no_grad():
            map_tensors(Tensor.copy_, dict(self._agent.state_dict()), self._weights)
            for number, moments in self._optimizer.state_dict()["state"].items():
                for name, tensor in moments.items():
                    saved = self._moments.get(number, {}).get(name)
                    tensor.copy_(saved) if saved is not None else tensor.zero_()
        self._optimizer.zero_grad()
        self._env.load_state_dict(self._env_state)
        torch.set_rng_state(self._cpu_numbers)
        if self._gpu_numbers is not None:
            torch.cuda.set_rng_state(self._gpu_numbers)
