"""Episodes of one env with all that the agent did in them.

Shapes: see `mtxl_rl.inspector`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agents.actor_critic import ActorCritic, AgentInput
from agents.cores.baseline_cores import TensorState
from agents.cores.memory_core import MemoryCore
from agents.learning.finite import FiniteWatch
from envs import BatchedEnv
from mtxl_rl.core import MemoryState, MemoryTransformerXL
from mtxl_rl.evaluations.evaluation import check_ends
from mtxl_rl.inspector.pictures import Camera, words_of
from mtxl_rl.inspector.thinning import Thinned
from mtxl_rl.inspector.watching import Seen, watching
from mtxl_rl.policies.policy import as_sequence, numbers_of
from mtxl_rl.runs.progress import Ticker


@dataclass
class Film:
    """What a recording shows of single steps, thinned.

    Args:
        max_bytes: of each of the four.
    """

    max_bytes: int

    def __post_init__(self) -> None:
        self.pictures = Thinned(self.max_bytes)
        self.words = Thinned(self.max_bytes // 4)
        self.attention = Thinned(self.max_bytes)


@dataclass
class Recording:
    """An episode of T steps, with A versions of the memory."""

    inputs: list[AgentInput] = field(default_factory=list)  # of each step, (1, 1, ...)
    policy: list[Float[Tensor, " A"]] = field(default_factory=list)  # see `numbers_of`
    value: list[float] = field(default_factory=list)
    action: list[Any] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    cue: list[int] = field(default_factory=list)  # in view, -1 for none
    memories: list[Float[Tensor, "R D"]] = field(default_factory=list)
    memory_steps: list[int] = field(default_factory=list)  # the first step that sees each of them
    gates: list[Float[Tensor, " SG"]] = field(default_factory=list)  # of each step; may stop before
    success: float = float("nan")
    is_cut: bool = False
    not_finite: str = ""  # what the environment has given that is not, for people; "" for nothing

    def __len__(self) -> int:
        return len(self.value)

    @property
    def last_cue(self) -> np.ndarray:
        """The last cue before each step (T,), -1 for none."""
        cues, last = [], -1
        for cue in self.cue:
            cues.append(last)
            last = cue if cue >= 0 else last
        return np.array(cues, dtype=np.int64)

    @property
    def memory_at(self) -> np.ndarray:
        """Which version of the memory each step sees (T,), -1 for none."""
        return np.searchsorted(self.memory_steps, np.arange(len(self)), side="right") - 1


def transformer_of(agent: ActorCritic) -> MemoryTransformerXL | None:
    """Return the agent's memory transformer, if it has one."""
    return agent.core.transformer if isinstance(agent.core, MemoryCore) else None


def memory_of(state: Any) -> Float[Tensor, "B R D"] | None:
    """Return what a state holds for long, in rows: slots, or layers of recurrent cores."""
    if isinstance(state, MemoryState):
        return state.long if state.long.shape[1] else None
    if isinstance(state, TensorState) and state.tensors:
        return torch.cat([tensor.flatten(2) for tensor in state.tensors], dim=1)
    return None


def memory_names(agent: ActorCritic) -> list[str]:
    """Return the names of the rows of `memory_of`."""
    transformer, state = transformer_of(agent), agent.initial_state(1)
    if transformer is not None:
        return [f"slot {slot}" for slot in range(transformer.lmem_len)]
    tensors = state.tensors if isinstance(state, TensorState) else ()
    kinds = ["state", "cell"] if len(tensors) > 1 else ["state"]
    return [
        f"{kind} {layer + 1}"
        for kind, tensor in zip(kinds, tensors, strict=False)
        for layer in range(tensor.shape[1])
    ]


class Recorder:
    """Plays one episode after the other in an env, each from a memory that has seen nothing.

    Args:
        agent: who plays.
        env: of one copy.
        ticker: says how far it is.
    """

    def __init__(self, agent: ActorCritic, env: BatchedEnv, ticker: Ticker):
        self._agent, self._env, self._ticker = agent, env, ticker
        self._observation = env.reset()

    @torch.no_grad()
    def record(self, film: Film | None = None, max_steps: int | None = None) -> Recording:
        """Play an episode.

        Args:
            film: takes what single steps show. None: nobody looks, and no gates are recorded.
            max_steps: after which it is cut.
        """
        agent, env, recording = self._agent, self._env, Recording()
        transformer = transformer_of(agent)
        camera = Camera(env)
        watch = FiniteWatch("the episode")
        watch.start(1)
        inputs = agent.first_inputs(agent.see(self._observation), 1)
        state = agent.initial_state(1)
        with watching(transformer) if transformer and film else nullcontext(Seen()) as seen:
            while True:
                step = len(recording)
                seen.clear()
                recording.inputs.append(as_sequence(inputs))
                is_new_cue = not recording.cue or recording.cue[-1] >= 0
                if film and (film.pictures.wants(step) or is_new_cue):
                    picture = camera.take(self._observation)
                    if picture is not None:
                        film.pictures.add(step, picture, is_important=is_new_cue)
                policy, value, state = agent(recording.inputs[-1], state)
                if film:
                    words = words_of(self._observation, env.observation_space)
                    film.words.add(step, words.encode(), is_important=is_new_cue)
                    if transformer:
                        weights = laid_out(transformer, seen.attention)
                        film.attention.add(step, weights.tobytes(), is_important=is_new_cue)
                if seen.gates:
                    recording.gates.extend(seen.gates[0][0].cpu())
                memory = memory_of(state)
                has_changed = not isinstance(state, MemoryState) or state.position == 0
                if memory is not None and has_changed:
                    recording.memories.append(memory[0].float().cpu())
                    recording.memory_steps.append(step + 1)
                action = policy.sample()[:, 0]
                result = env.step(action)
                recording.policy.append(numbers_of(policy)[0, 0].float().cpu())
                recording.value.append(float(value))
                recording.action.append(action[0].tolist())
                recording.reward.append(float(result.reward[0]))
                recording.cue.append(-1 if result.cue is None else int(result.cue[0]))
                done = result.terminated | result.truncated
                watch.look(self._observation, result.reward, done.cpu(), done.cpu())
                self._ticker.show(len(recording))
                recording.not_finite = watch.what
                self._observation = result.observation
                if bool(done[0]):
                    recording.success = float(result.success[0])
                    return recording
                if max_steps is None:
                    check_ends(env, len(recording))
                if len(recording) == max_steps:
                    recording.is_cut = True
                    self._observation = env.reset()
                    return recording
                inputs = AgentInput(
                    observation=agent.see(result.observation),
                    prev_action=action,
                    prev_reward=result.reward,
                    reset=torch.zeros_like(result.terminated),
                )


def laid_out(core: MemoryTransformerXL, attention: list[Float[Tensor, "1 H 1 _"]]) -> np.ndarray:
    """Return the weights of a step as (L, H, J) uint8, 255 for all, each key at its own place.

    Args:
        core: whose keys they are.
        attention: of each layer: persistent slots, long and short memory (where the layer sees
            them), the places of the segment.
    """
    heads = attention[0].shape[1]
    first = core.num_mem_kv
    rows = np.zeros(
        (len(attention), heads, first + core.lmem_len + core.mem_len + core.seq_len), np.uint8
    )
    for layer, weights in enumerate(attention):
        values = (weights[0, :, 0].cpu().numpy() * 255).round().astype(np.uint8)  # (H, J)
        rows[layer, :, : values.shape[1] - core.seq_len] = values[:, : -core.seq_len]
        rows[layer, :, -core.seq_len :] = values[:, -core.seq_len :]
    return rows
