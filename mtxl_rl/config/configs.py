"""Configurations of the command line: dataclasses that tyro reads."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
import tyro
from gymnasium import spaces

from agents.cores.core_config import CoreConfig
from agents.cores.memory_core import MTXLConfig
from agents.learning.ppo import PPOConfig, check_minibatches
from envs import Backend, Vectorize
from envs.registry import choose
from mtxl_rl.config.option_types import LARGEST_COUNT, Count, Kwargs, Place, Wrap, from_plain
from mtxl_rl.core.checks import LARGEST, check_size
from mtxl_rl.device import check_device, check_threads, multiplies_bfloat16

Compile = Literal["auto", "on", "off"]
Memory = Literal["kept", "cleared", "without-short", "without-long", "swapped-long"]
Precision = Literal["auto", "float32", "bfloat16"]
MAX_TIMEOUT = 1e6
MAX_SEED = 2**63
BATCHED_ENVS = 128
"""Environments at once, where there are as many as one likes."""
SINGLE_ENVS = 16
"""And where each is stepped on its own (experiments/LOG.md, 2026-11-28, sixth part)."""
BFLOAT16_DIM = 128
"""From this width on bfloat16 is faster on a CPU that multiplies it."""
COMPILE_FRAMES = 1_000_000
"""A run on a CPU that is this long is compiled."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train an agent with a memory by PPO on any Gymnasium environment.

    Writes a run: config.json, TensorBoard events, checkpoints, evaluation.json.
    """

    env: str = "MiniGrid-MemoryS11-v0"
    """Gymnasium id of the environment; MiniGrid's are registered. One that a module registers when
    it is imported: module:Id. See docs/your_own_environment.md."""
    env_kwargs: Kwargs = field(default_factory=dict)
    """Arguments of the environment's constructor, and Gymnasium's max_episode_steps, as a JSON
    object: '{"memory_length": 10}'."""
    wrap: Wrap = ()
    """A wrapper of the environment: a class of gymnasium.wrappers by its name, or module:Wrapper.
    Once for each, the innermost first. Tensors have none."""
    backend: Backend = "auto"
    """What runs the environments: tensor (on the device of the network), gymnasium (single ones, on
    the CPU), or vector (the vector environment that an id is registered with, or EnvPool's); auto
    takes tensors where they exist, and vector where there are no single ones."""
    vectorize: Vectorize = "auto"
    """How single environments are run: sync (one after the other), or async (each in a process of
    its own). auto: in processes where a step takes a millisecond or more and there are two cores
    or more."""
    total_frames: Count = 10_000_000
    """Environment steps to train for, over all envs: 1000000, 1e6 or 1M."""
    num_envs: int | None = None
    """Environments that act at once; of several ranks (torchrun) all together. Left out: 128 of
    tensors or of a vector environment, 16 single ones, which are slow: more updates of fewer frames
    learn more from as many."""
    seed: int = 1
    """Of weights, actions and levels."""
    device: str = "auto"
    """Where the network runs: cpu, cuda, cuda:1 (the second GPU) or mps (Apple's). auto: cuda if
    there is one, else cpu."""
    compile: Compile = "auto"
    """Compile acting and training; on a GPU, record tensor environments and all as
    CUDA graphs too. auto: on a GPU, and on
    a CPU from a million frames on (compiling takes a minute there)."""
    precision: Precision = "auto"
    """Of matrix products. auto: bfloat16 on a GPU that multiplies it natively, and on a CPU that
    does (AVX512-BF16, AMX) for transformers of width 128 and more; else, and where actions are
    numbers (Box), float32."""
    strict: bool = False
    """Fail where compiling or recording fails, instead of going on without."""
    num_threads: int | None = None
    """CPU threads of torch. Left out: all cores, or OMP_NUM_THREADS of them, which the ranks of a
    machine share. Give each of several runs at once its own."""
    run_dir: Place | None = None
    """Where to write; must not exist. Left out: runs/ENV__CORE__sSEED__TIME."""
    init_from: Place | None = None
    """Start from the last weights of this run, which has the same core, observations and actions:
    a curriculum is a chain of runs. Left out: from random weights."""
    stop_at_success: float | None = None
    """Once the success rate of the last 1,000 episodes reaches this, wind down and stop: the step
    size goes to its end within a quarter as many frames again. Left out: never. An environment
    without a success rate stops at its registered reward_threshold instead, if it has one."""
    stop_at_return: float | None = None
    """The same for the mean return of the last 1,000 episodes; one of the two can be given."""
    checkpoint_every: Count = 500_000
    """Frames between checkpoints; there is one every ten minutes, too, and the last is always
    saved."""
    keep: int = 2
    """Checkpoints to keep, the newest: two or more, so that one can be damaged."""
    resume: Place | None = None
    """Go on with this run from its last checkpoint, with its options: to the bit where the
    environment is tensors, with fresh episodes elsewhere. --total-frames and others that do not
    change what has been learned can be given anew."""
    allow_changes: bool = False
    """With --resume: go on with other options than the run's; their list is printed. Where they
    are of environments or memory, all episodes start afresh."""
    eval_episodes: int = 200
    """Episodes of the evaluation at the end."""
    eval_max_steps: Count | None = None
    """Cut the episodes of the evaluation off after so many steps. Left out: at the environment's
    own limit; where it has none, at ten times the longest episode of training."""
    env_timeout: float | None = 60.0
    """Seconds that a step or a reset of one Gymnasium environment may take; None: any time."""
    core: CoreConfig = field(default_factory=MTXLConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)

    def __post_init__(self) -> None:
        _take_as_declared(self, TrainConfig)
        check_seed(self.seed)
        check_counts(self, ("num_envs", "eval_episodes"))
        check_counts(self, ("checkpoint_every", "eval_max_steps"), LARGEST_COUNT)
        if self.keep < 2:
            raise ValueError(
                f"keep={self.keep} must be 2 or more: one is left where another is damaged; "
                "set --keep"
            )
        check_device(self.device)
        check_threads(self.num_threads)
        if self.strict and self.compile == "off":
            raise ValueError(
                "strict=True has no effect with compile='off'; leave out --strict, or set "
                "--compile on"
            )
        check_timeout(self.env_timeout)
        if self.allow_changes and self.resume is None:
            raise ValueError("allow_changes=True has no effect without --resume RUN; leave it out")
        if self.num_envs is not None:
            _check_update(self)
        if self.stop_at_success is not None and self.stop_at_return is not None:
            raise ValueError(
                f"stop_at_success={self.stop_at_success} and stop_at_return={self.stop_at_return} "
                "exclude each other; leave one out"
            )
        if self.stop_at_return is not None and not math.isfinite(self.stop_at_return):
            raise ValueError(
                f"stop_at_return={self.stop_at_return} must be finite; set --stop-at-return"
            )
        if self.stop_at_success is not None and not 0 < self.stop_at_success <= 1:
            raise ValueError(
                f"stop_at_success={self.stop_at_success} is a rate: it must be above 0 and at most "
                "1"
            )

    @property
    def all_envs(self) -> int:
        """Environments that act at once, once their number is known: see `with_num_envs`."""
        assert self.num_envs is not None
        return self.num_envs

    @property
    def frames_per_update(self) -> int:
        """Frames of one rollout over all envs."""
        return self.all_envs * self.ppo.rollout_len


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of an evaluation."""

    episodes: int = 200
    """New episodes to play: starts and actions are drawn by seeds that training does not use."""
    all_starts: bool = False
    """Where a task has few starts (Memory, T-mazes, junctions, on tensors): play each of them once
    for each step of the segment that it can meet, all at once, and weight it by how often it is
    drawn. With --greedy that is no sample but exact."""
    greedy: bool = False
    """Take the most probable action instead of sampling."""
    env: str | None = None
    """Another environment than the one of training, with the same observations and actions: a
    longer maze, say. Left out: that of training."""
    env_kwargs: Kwargs | None = None
    """Arguments of the environment's constructor, as in training. Left out: those of training, or,
    with --env, none."""
    wrap: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Wrappers of the environment: those of training."""
    vectorize: tyro.conf.Suppress[Vectorize] = "auto"
    """How single environments are run: as in training."""
    memory: Memory = "kept"
    """What to do to the memory before every step, to learn what it is good for. cleared: all of
    it, and the previous action and reward; without-short, without-long: that part; swapped-long:
    the long memory of another episode takes its place (with another cue, where it is known), and
    who uses it fails."""
    num_envs: int = 64
    """Environments that play at once."""
    max_steps: Count | None = None
    """Cut episodes off after so many steps. Left out: at the environment's own limit; where it has
    none, at ten times the longest episode of training."""
    seed: int = 1
    """Of levels and actions."""
    device: str = "auto"
    """Where the network runs: cpu, cuda, cuda:1 or mps. auto: cuda if there is one, else cpu."""
    num_threads: int | None = None
    """CPU threads of torch. Left out: those of training."""
    backend: Backend | None = None
    """What runs the environments: auto, tensor or gymnasium. Left out: that of training."""
    checkpoint: Place | None = None
    """A checkpoint folder. Left out: the newest of the run."""
    video: Place | None = None
    """Film the first episodes into this file (.mp4 or .gif)."""
    env_timeout: float | None = 60.0
    """Seconds that a step or a reset of one Gymnasium environment may take; None: any time."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __post_init__(self) -> None:
        _take_as_declared(self, EvaluateConfig)
        check_seed(self.seed)
        check_counts(self, ("episodes", "num_envs"))
        check_counts(self, ("max_steps",), LARGEST_COUNT)
        check_device(self.device)
        check_threads(self.num_threads)
        check_timeout(self.env_timeout)
        if self.all_starts:
            for name in ("episodes", "num_envs"):
                if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                    raise ValueError(
                        f"{name}={getattr(self, name)} has no effect with all_starts=True, which "
                        "plays all that there are at once; leave one of them out"
                    )
            if self.memory == "swapped-long":
                raise ValueError(
                    "all_starts=True cannot be with memory='swapped-long', which plays those "
                    "episodes that find another cue's memory; leave one of them out"
                )
        if self.video is not None and self.video.suffix not in (".mp4", ".gif"):
            raise ValueError(f"video={self.video} must end in .mp4 or .gif")


def with_num_envs(config: TrainConfig) -> TrainConfig:
    """Return the configuration with a number of environments, if it has none.

    Raises:
        ValueError: for an environment that cannot be run, or a number that does not fit the rest.
    """
    if config.num_envs is not None:
        return config
    chosen = choose(config.env, config.backend, config.env_kwargs, config.wrap)
    is_single = chosen.backend == "gymnasium"
    return dataclasses.replace(config, num_envs=SINGLE_ENVS if is_single else BATCHED_ENVS)


def pick_precision(
    precision: Precision, device: torch.device, core: CoreConfig, action_space: spaces.Space
) -> torch.dtype:
    """Return the dtype of matrix products."""
    if precision != "auto":
        return getattr(torch, precision)
    if isinstance(action_space, spaces.Box):
        # a policy that has become sure multiplies what is rounded: see PPO.ratio_tolerance
        return torch.float32
    is_faster = multiplies_bfloat16(device)
    if device.type == "cpu":
        is_faster = is_faster and core.has_attention and core.dim >= BFLOAT16_DIM
    return torch.bfloat16 if is_faster else torch.float32


def pick_compile(config: TrainConfig, device: torch.device, can_capture: bool) -> bool:
    """Return whether to compile, or to capture graphs where that can be."""
    if config.compile != "auto":
        return config.compile == "on"
    is_long = device.type == "cpu" and config.total_frames >= COMPILE_FRAMES
    return can_capture or ((is_long or device.type == "cuda") and config.core.has_attention)


def _check_update(config: TrainConfig) -> None:
    num_minibatches, frames = config.ppo.num_minibatches, config.frames_per_update
    check_minibatches(config.all_envs, num_minibatches)
    if config.total_frames < frames:
        raise ValueError(
            f"total_frames={config.total_frames} must cover one update of num_envs x "
            f"rollout_len = {frames} frames; raise --total-frames"
        )
    if frames == num_minibatches and config.ppo.norm_adv:
        raise ValueError(
            f"num_envs={config.num_envs} x rollout_len={config.ppo.rollout_len} in "
            f"num_minibatches={num_minibatches} is one step in a minibatch, whose advantage cannot "
            "be normalised; raise --ppo.rollout-len, or set --ppo.no-norm-adv"
        )


def check_counts(config: Any, names: tuple[str, ...], most: int = LARGEST) -> None:
    """Raise ValueError where one of these options is given and not a number from 1 to `most`."""
    for name in names:
        value = getattr(config, name)
        if value is not None:
            check_size(name, value, 1, f"set --{name.replace('_', '-')}", most)


def _take_as_declared(config: TrainConfig | EvaluateConfig, declared: type) -> None:
    """Check what the command line does by itself, for those who do not come that way.

    What is as good is taken: a text for a path, a list for a tuple, a number of NumPy's.

    Args:
        config: changed in place, while it is made.
        declared: the class that has the options; a user's own has more.
    """
    for name, kind in get_type_hints(declared).items():
        value = getattr(config, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name}={value!r} must be one of {', '.join(get_args(kind))}")
        object.__setattr__(config, name, from_plain(value, kind, name))


def check_seed(seed: int) -> None:
    """Raise ValueError for a seed that generators do not take."""
    if not 0 <= seed < MAX_SEED:
        raise ValueError(f"seed={seed} must be 0 or more and below 2^63; set --seed")


def check_timeout(seconds: float | None) -> None:
    """Raise ValueError for a time limit that ends everything, or means nothing."""
    if seconds is not None and not 0 < seconds <= MAX_TIMEOUT:
        raise ValueError(
            f"env_timeout={seconds} must be above 0 and at most {MAX_TIMEOUT:g} seconds; set "
            "--env-timeout, or None for no limit"
        )
