"""Playing whole episodes with a trained agent."""

from __future__ import annotations

import contextlib
import random
import warnings
from dataclasses import replace

import numpy as np
import torch

import envs
from agents.actor_critic import ActorCritic
from agents.learning.finite import FiniteWatch
from agents.learning.rollout import act, start
from agents.spaces import space_differences
from agents.uncompiled import uncompiled
from envs import Backend, BatchedEnv
from envs.grids.table_env import TableEnv
from envs.tensor_env import TensorEnv
from envs.wrapped.guarded_env import EnvError
from envs.wrapped.gymnasium_adapter import GymnasiumEnv
from mtxl_rl.config import EvaluateConfig, Memory
from mtxl_rl.evaluations.film import Film
from mtxl_rl.evaluations.interventions import (
    Intervention,
    InterventionError,
    fitting_interventions,
    levels_for,
)
from mtxl_rl.runs.metrics import EPISODE_COLUMNS, Episodes, Evaluation

TRAINING_STREAM, EVALUATION_STREAM = 0, 1
MAX_START_PLACES = 4
BOUND_FACTOR = 10
"""Times the longest episode of training: where an evaluation without a time limit cuts."""
MAX_STARTS = 10_000
"""Of a task that has few."""
MAX_IDLE = 30_000
"""Steps without the end of an episode after which an evaluation gives up, or `BOUND_FACTOR` times
the longest episode of training, if that is more."""
UNKNOWN_BOUND = 1000
"""Steps after which it does where no episode of training has ended."""


def level_seeds(seed: int, stream: int, frames: int = 0) -> np.random.SeedSequence:
    """Return the seeds of levels: training and evaluation have streams of their own.

    Args:
        seed: of the run.
        stream: `TRAINING_STREAM` or `EVALUATION_STREAM`.
        frames: after which a run goes on with episodes of its own.
    """
    return np.random.SeedSequence(seed, spawn_key=(stream, frames) if frames else (stream,))


def seed_generators(seeds: np.random.SeedSequence) -> None:
    """Seed the generators of NumPy and Python that a process has one of, which some levels use."""
    number = int(seeds.generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)


def evaluate_agent(
    agent: ActorCritic,
    env_id: str,
    config: EvaluateConfig,
    backend: Backend = "auto",
    longest: int = 0,
) -> Evaluation:
    """Play `config.episodes` episodes on levels of the evaluation's stream and summarise them.

    The levels are the same whatever the backend and the number of envs. Where the core has
    segments, a quarter of the episodes each meets the segment at its start, a quarter on, and so
    on: in training an episode may start at any step of it.

    Args:
        agent: who plays.
        env_id: where.
        config: how.
        backend: of the environment.
        longest: steps of the longest episode of training, 0 where none has ended: it says when
            episodes are cut where neither `config` nor the environment does.

    Raises:
        InterventionError: when it cannot be made, or no episode was long enough for it.
        ValueError: for `max_steps` where every episode ends by itself; for `all_starts` where they
            are not few, or not known.
    """
    if config.all_starts:
        return _evaluate_all_starts(agent, env_id, config, backend)
    bound = bound_for(longest)
    episodes, max_steps = _play_levels(agent, env_id, config, backend, bound)
    if not len(episodes.length):
        raise InterventionError(
            f"memory={config.memory!r} acted on none of {config.episodes} episodes: they end "
            "before a long memory has been written; set --memory kept, or a longer task by --env"
        )
    return Evaluation.of(episodes, max_steps)


def evaluate_interventions(
    agent: ActorCritic,
    env_id: str,
    config: EvaluateConfig,
    backend: Backend = "auto",
    longest: int = 0,
) -> dict[Memory, Evaluation]:
    """Evaluate with each intervention that acts on some episode."""
    evaluations: dict[Memory, Evaluation] = {}
    for memory in fitting_interventions(agent):
        with contextlib.suppress(InterventionError):
            intervened = replace(config, memory=memory)
            evaluations[memory] = evaluate_agent(agent, env_id, intervened, backend, longest)
    return evaluations


@uncompiled()
def _play_levels(
    agent: ActorCritic, env_id: str, config: EvaluateConfig, backend: Backend, bound: int
) -> tuple[Episodes, int | None]:
    """Return the episodes, and after how many steps they were cut."""
    levels = level_seeds(config.seed, EVALUATION_STREAM).generate_state(config.episodes)
    places = start_places(agent, config.episodes)
    watch = FiniteWatch()
    played = []
    max_steps = config.max_steps
    for place, share in zip(places, np.array_split(levels, len(places)), strict=True):
        video = config.video if not played else None
        env = envs.make(
            env_id,
            min(config.num_envs, len(share)),
            device=agent.device,
            seed=level_seeds(config.seed, EVALUATION_STREAM),
            render_mode="rgb_array" if video else None,
            backend=backend,
            level_seeds=levels_for(config.memory, share).tolist(),
            timeout=config.env_timeout,
            env_kwargs=config.env_kwargs,
            wrap=config.wrap,
            vectorize=config.vectorize,
        )
        try:
            check_spaces(agent, env, env_id)
            if max_steps is None and not env.has_time_limit:
                max_steps = bound
            options = replace(config, episodes=len(share), video=video, max_steps=max_steps)
            played.append(play(agent, env, options, place, watch, bound))
        finally:
            env.close()
    if watch.what:
        warnings.warn(
            f"{watch.what}: {watch.num_episodes} of {config.episodes} episodes were played with "
            "numbers that are not finite; look at what the environment gives",
            RuntimeWarning,
            stacklevel=2,
        )
    return Episodes.joined(played), max_steps


@uncompiled()
def _evaluate_all_starts(
    agent: ActorCritic, env_id: str, config: EvaluateConfig, backend: Backend
) -> Evaluation:
    def make(num_envs: int) -> BatchedEnv:
        return envs.make(
            env_id, num_envs, device=agent.device, backend=backend, env_kwargs=config.env_kwargs,
            wrap=config.wrap, timeout=config.env_timeout,
        )  # fmt: skip

    one = make(1)
    one.close()
    if not isinstance(one, TableEnv) or len(one.start_shares) > MAX_STARTS:
        number = f"{len(one.start_shares):,}" if isinstance(one, TableEnv) else "no known number of"
        raise ValueError(
            f"all_starts=True is for tasks of at most {MAX_STARTS:,} starts (Memory, T-mazes and "
            f"junctions, on tensors), and {env_id} has {number} starts; leave it out"
        )
    check_spaces(agent, one, env_id)
    shares = one.start_shares.cpu().numpy()
    num_starts = len(shares)
    num_places = agent.core.segment_len
    played = []
    for place in range(num_places):
        env = make(num_starts)
        assert isinstance(env, TableEnv)
        env.play_each_start()
        video = None if place else config.video
        once = replace(config, all_starts=False, episodes=num_starts, video=video)
        played.append(play(agent, env, once, place))
        env.close()
    return Evaluation.of(Episodes.joined(played), shares=np.tile(shares, num_places))


def start_places(agent: ActorCritic, episodes: int) -> list[int]:
    """Return the steps of a segment at which an evaluation starts its first episodes.

    There are fewer where there are few episodes, so that each has two or more.
    """
    segment_len = agent.core.segment_len
    num_places = max(1, min(MAX_START_PLACES, segment_len, episodes // 2))
    return [segment_len * index // num_places for index in range(num_places)]


def check_bound(max_steps: int, env: BatchedEnv, remedy: str = "set --backend gymnasium") -> None:
    """Raise ValueError, with what to do about our tensors, where episodes cannot be cut."""
    if type(env).bound_episodes is BatchedEnv.bound_episodes:
        if not isinstance(env, TensorEnv):
            remedy = f"define bound_episodes in {type(env).__name__}"
        raise ValueError(
            f"max_steps={max_steps} cannot be set for environments that are tensors, where every "
            f"episode ends by itself; leave it out, or {remedy}"
        )


def bound_for(longest: int) -> int:
    """Return the steps after which an episode without a time limit is cut.

    Args:
        longest: steps of the longest episode of training, 0 where none has ended.
    """
    return BOUND_FACTOR * longest or UNKNOWN_BOUND


def check_ends(env: BatchedEnv, idle: int, bound: int = 0) -> None:
    """Raise EnvError where so many steps have ended no episode that none may ever.

    Of our tensors, and of Gymnasium's time limit, it is sure that they end episodes.
    """
    if idle <= max(MAX_IDLE, bound) or isinstance(env, TensorEnv | GymnasiumEnv):
        return
    remedy = "set has_time_limit = False and define bound_episodes"
    if type(env).bound_episodes is not BatchedEnv.bound_episodes:
        remedy = "cut it by --eval-max-steps of mtxl_rl.train, --max-steps of mtxl_rl.evaluate"
    raise EnvError(
        f"no episode has ended in {idle:,} steps, though the environment says has_time_limit="
        f"{env.has_time_limit}; end every episode, or {remedy}"
    )


def check_spaces(agent: ActorCritic, env: BatchedEnv, env_id: str) -> None:
    """Raise ValueError for an environment with other spaces than those of the agent's training."""
    spaces = env.observation_space, env.action_space
    trained = agent.observation_space, agent.action_space
    if spaces != trained:
        here, there = space_differences(spaces, trained)
        raise ValueError(
            f"env={env_id!r} has {here}, but the agent was trained with {there}; set --env to one "
            "with the same"
        )


def play(
    agent: ActorCritic,
    env: BatchedEnv,
    config: EvaluateConfig,
    start_place: int = 0,
    watch: FiniteWatch | None = None,
    bound: int = 0,
) -> Episodes:
    """Play `config.episodes` episodes and return those that count: all, but for swapped-long.

    They are in the order of the envs, and of time for each.

    Every env plays an equal share of the episodes, so that short ones are not counted too often.

    Args:
        agent: who plays.
        env: where.
        config: episodes and when they are cut, seed of the actions, intervention, film.
        start_place: the step of a segment at which the first episodes start.
        watch: what looks for numbers that are not finite.
        bound: steps without an end that are nothing strange, if more than `MAX_IDLE`.

    Raises:
        ValueError: for an intervention that cannot be made.
        EnvError: where episodes do not end.
    """
    intervene = Intervention(config.memory, agent, env.has_cue, env.num_envs)
    players = intervene.plays.cpu().nonzero().squeeze(1)
    quota = torch.zeros(env.num_envs, dtype=torch.int64)
    quota[players] = config.episodes // len(players)
    quota[players[: config.episodes % len(players)]] += 1
    torch.manual_seed(config.seed + start_place)
    seed_generators(level_seeds(config.seed, EVALUATION_STREAM, start_place))
    if config.max_steps is not None:
        check_bound(config.max_steps, env)
        env.bound_episodes(config.max_steps)
    carry = start(agent, env)
    player = agent.player(carry.state)
    for _ in range(start_place):  # the first step of the episode clears what this leaves
        player.step(carry.inputs)
    idle = 0  # steps since an episode of these has ended
    rows: list[torch.Tensor] = []
    cuts: list[torch.Tensor] = []
    of_envs: list[torch.Tensor] = []
    film = Film(config.video, env.render_fps)
    watch = watch or FiniteWatch()
    watch.start(env.num_envs)
    while quota.any():
        film.take(env, int(players[0]))
        carry = intervene(player, carry)
        counts = intervene.has_acted.cpu()
        carry, record = act(player, env.step, carry, is_greedy=config.greedy)
        done = (record["terminated"] | record["truncated"]).cpu()
        played = done & (quota > 0)
        watch.look(record["inputs"].observation, record["reward"], done, quota > 0)
        quota -= played.long()
        idle = 0 if played.any() else idle + 1
        check_ends(env, idle, max(bound, config.max_steps or 0))
        columns = [record[name].cpu().double() for name in EPISODE_COLUMNS]
        rows.append(torch.stack(columns, dim=-1)[played & counts])
        is_cut = ~record["terminated"] & (record["episode_length"] == (config.max_steps or 0))
        cuts.append(is_cut.cpu()[played & counts])
        of_envs.append((played & counts).nonzero().squeeze(1))
    film.close()
    order = torch.cat(of_envs).argsort(stable=True)
    columns, is_cut = torch.cat(rows)[order], torch.cat(cuts)[order]
    if intervene.is_idle:
        columns, is_cut = columns[:0], is_cut[:0]
    return Episodes.of(columns, env.has_success, env.has_cue, is_cut)
