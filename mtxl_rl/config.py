"""Configurations of the command line: dataclasses that tyro reads, and their JSON form."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import torch
import tyro
from gymnasium import spaces

from agents import ranks
from agents.cores.core import CORES, check_options, find_core, option_names
from agents.cores.core_config import CoreConfig
from agents.cores.memory_core import MTXLConfig
from agents.learning.ppo import PPOConfig, check_minibatches
from envs import Backend, Vectorize
from envs.registry import choose
from envs.wrapped.processes import num_cores

Compile = Literal["auto", "on", "off"]
Memory = Literal["kept", "cleared", "without-short", "without-long", "swapped-long"]
Precision = Literal["auto", "float32", "bfloat16"]
MAX_THREADS = 1024
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


def read_kwargs(text: str) -> dict[str, Any]:
    """Return the arguments that the text of a JSON object names.

    Raises:
        ValueError: for any other text.
    """

    def refuse(number: str) -> None:
        raise ValueError(f"{number} is no number of JSON")

    try:
        values = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise ValueError(
            f"env_kwargs={text!r} is not JSON ({error}); write it like "
            "--env-kwargs '{\"memory_length\": 10}'"
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f"env_kwargs={text!r} must be an object; write it like "
            "--env-kwargs '{\"memory_length\": 10}'"
        )
    return values


Kwargs = Annotated[
    dict,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda texts: read_kwargs(texts[0]),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    ),
]
Wrap = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


def read_count(text: str) -> int:
    """Return a whole number as one types it: 1000000, 1_000_000, 1e6, 1M or 500k.

    Raises:
        ValueError: for any other text.
    """
    try:
        value = Decimal(text[:-1]) * _UNITS[text[-1:]] if text[-1:] in _UNITS else Decimal(text)
        if value == int(value):
            return int(value)
    except (ArithmeticError, ValueError):  # no number, infinite, or not one
        pass
    raise ValueError(f"{text!r} is no whole number; write it like 1000000, 1e6, 1M or 500k")


def read_place(text: str) -> Path:
    """Return a path, its ~ read as the shell does where it stands alone: --run-dir=~/runs/x."""
    return Path(os.path.expanduser(text))


_UNITS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
Count = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: read_count(texts[0]),
        is_instance=lambda value: type(value) is int,
        str_from_instance=lambda value: [str(value)],
    ),
]
Place = Annotated[
    Path,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda texts: read_place(texts[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    ),
]


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
        _check_choices(self)
        check_seed(self.seed)
        check_counts(self, ("num_envs", "checkpoint_every", "eval_episodes", "eval_max_steps"))
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
        _check_choices(self)
        check_seed(self.seed)
        check_counts(self, ("episodes", "num_envs", "max_steps"))
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


def check_device(device: str) -> None:
    """Raise ValueError for what is no name of a device."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", device):
        raise ValueError(
            f"device={device!r} must be auto, cpu, cuda, cuda:N (the GPU of that number) or mps; "
            "set --device"
        )


def pick_device(device: str) -> torch.device:
    """Return the torch device; a GPU with a number becomes the current one.

    Raises:
        ValueError: for one that torch does not see.
    """
    check_device(device)
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if num_gpus else "cpu"
    kind, _, number = device.partition(":")
    if kind == "cuda" and not num_gpus:
        raise ValueError(
            f"device={device!r}, but torch {torch.__version__} sees no GPU; set --device cpu "
            "(or auto), or install a CUDA build of torch"
        )
    if number and int(number) >= num_gpus:
        raise ValueError(
            f"device={device!r}, but torch sees {num_gpus} GPU{'s' * (num_gpus > 1)}, counted from "
            f"0; set --device cuda:{num_gpus - 1} or lower"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            f"device='mps', but torch {torch.__version__} sees no Apple GPU; set --device cpu (or "
            "auto)"
        )
    if kind == "cuda":  # GRU and LSTM act by cuDNN, whose TF32 has the digits of bfloat16
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # pyright: ignore[reportAttributeAccessIssue]
    if number:
        torch.cuda.set_device(int(number))
    return torch.device(device)


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


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies matrices in bfloat16 itself, without emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # get_capabilities is not in the oldest torch that is supported
    features = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("avx512_bf16", "amx_bf16")
    return device.type == "cpu" and any(features.get(name) for name in names)


def pick_compile(config: TrainConfig, device: torch.device, can_capture: bool) -> bool:
    """Return whether to compile, or to capture graphs where that can be."""
    if config.compile != "auto":
        return config.compile == "on"
    is_long = device.type == "cpu" and config.total_frames >= COMPILE_FRAMES
    return can_capture or ((is_long or device.type == "cuda") and config.core.has_attention)


def check_threads(num_threads: int | None) -> None:
    """Raise ValueError for a number of threads that `set_threads` cannot set."""
    if num_threads is not None and not 1 <= num_threads <= MAX_THREADS:
        raise ValueError(
            f"num_threads={num_threads} must be from 1 to {MAX_THREADS}; set --num-threads to the "
            "cores that the run may use, or leave it out"
        )


def check_timeout(seconds: float | None) -> None:
    """Raise ValueError for a time limit that ends everything, or means nothing."""
    if seconds is not None and not 0 < seconds <= MAX_TIMEOUT:
        raise ValueError(
            f"env_timeout={seconds} must be above 0 and at most {MAX_TIMEOUT:g} seconds; set "
            "--env-timeout, or None for no limit"
        )


def set_threads(num_threads: int | None, num_sharing: int = 1) -> None:
    """Set the CPU threads of torch; None: its share of the cores that this process may use."""
    torch.set_num_threads(share_of_cores(num_sharing) if num_threads is None else num_threads)


def share_of_cores(num_sharing: int) -> int:
    """Return the cores for each of several processes, at most as many as OMP_NUM_THREADS allows."""
    allowed = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # one for each nested loop
    share = num_cores() // num_sharing
    if allowed.isdecimal() and not ranks.is_launched():  # torchrun sets it to 1 by itself
        share = min(share, int(allowed))
    return max(1, share)


def to_json(config: TrainConfig) -> dict[str, Any]:
    """Return plain values."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, tuple):
            return list(value)
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def from_json(values: dict[str, Any]) -> TrainConfig:
    """Rebuild a configuration from `to_json`.

    Raises:
        ValueError: for a name that is not an option, or a value that an option rejects.
    """
    values = dict(values)
    core = _core_from_json(values.pop("core", {}))
    ppo = _known(PPOConfig, _without_value_clipping(values.pop("ppo", {})), "ppo.")
    values = _known(TrainConfig, values, "")
    return TrainConfig(**values, core=core, ppo=PPOConfig(**ppo))


def _core_from_json(values: Any) -> CoreConfig:
    values = _of_today(values)
    kind = values.get("kind", "mtxl") if isinstance(values, dict) else None
    if not isinstance(kind, str):
        raise ValueError(f"core={values!r} must be an object of options, and its kind a text")
    config_class = find_core(kind).Config
    values = {name: value for name, value in values.items() if not _is_idle(kind, name, value)}
    check_options(kind, values)
    return config_class(**{"kind": kind, **_known(config_class, values, "core.")})


def _is_idle(kind: str, name: str, value: Any) -> bool:
    """Return whether an option is another core's, and left out: once all cores had all options."""
    if name in option_names(kind):
        return name == "lmem_len" and value is None
    defaults = [getattr(find_core(other).Config, name) for other in CORES
                if name in option_names(other)]  # fmt: skip
    return bool(defaults) and (not value or value in defaults or name == "bptt_segments")


def _of_today(core: Any) -> Any:
    """Return the options of a core as they are now, from those of an earlier version.

    Raises:
        ValueError: for a run whose write is gone.
    """
    if not isinstance(core, dict):
        return core
    kind = core.get("kind", "mtxl")
    if "mem_write" in core:
        if core["mem_write"] != _GONE_WRITE or kind not in tuple(CORES):
            return core
        if kind != "mtxl" or core.get("lmem_len") == 0:  # it had no effect
            return {name: value for name, value in core.items() if name != "mem_write"}
        raise ValueError(
            f"the run was made with core.mem_write={_GONE_WRITE}, which is gone: core.mem_write="
            "parts took its place. Train anew, or go on with the version that made the run (commit "
            "6aadc23)"
        )
    if not (_OLD_WRITES.keys() & core.keys() or core.keys() >= _OLD_OPTIONS):
        return core  # a part, as a person writes it
    patches = {
        name: core[name] for name, value in _OLD_WRITES.items() if core.get(name, value) != value
    }
    if patches:
        named = ", ".join(f"core.{name}={value}" for name, value in patches.items())
        raise ValueError(
            f"the run was made with {named}, which is gone: the gated write, the default, took its "
            "place. Train anew, or go on with the version that made the run (commit 0fbf7e5)"
        )
    kept = {name: value for name, value in core.items() if name not in _OLD_WRITES}
    is_mtxl = kind == "mtxl"
    if is_mtxl and core.get("lmem_len") != 0:
        kept["mem_write"] = "seed"
    else:  # what had no effect
        kept = {k: v for k, v in kept.items() if k not in ("mem_write_iters", "mem_write_gain")}
    if core.get("gate") is None:
        kept["gate"] = "nbrc" if is_mtxl else "gru"
    return kept


def _without_value_clipping(ppo: Any) -> Any:
    """Return the options of PPO without one that earlier configurations have.

    Raises:
        ValueError: for a run that used it.
    """
    if not isinstance(ppo, dict) or "clip_vloss" not in ppo:
        return ppo
    if ppo["clip_vloss"]:
        raise ValueError(
            "the run was made with ppo.clip_vloss=True, which is gone. Train anew, or go on with "
            "the version that made the run (commit 0b56280)"
        )
    return {name: value for name, value in ppo.items() if name != "clip_vloss"}


_GONE_WRITE = "first"
"""That of gates for whole slots which saw the first layer only."""
_OLD_WRITES = {
    "mem_write_positions": False, "mem_write_holds": False, "mem_write_retention": 0.5
}  # fmt: skip
"""Options that patched the seed's write, with the values that left it as it was."""
_OLD_OPTIONS = {"kind", "gate", "memory_layers", "mem_write_iters", "bptt_segments"}
"""Some that every earlier configuration has, and those before the patches, too."""


def flat(config: TrainConfig) -> dict[str, Any]:
    """Return {"core.dim": 64, ...}: every option by its dotted name.

    Arguments of the environment are among them where they are given: "env_kwargs.memory_length".
    """
    named: dict[str, Any] = {}
    for name, value in to_json(config).items():
        if isinstance(value, dict):
            named |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            named[name] = value
    return named


def differences(
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
    there: str,
    here: str,
    is_compared: Callable[[str], bool],
    form: Callable[[Any], str] = str,
) -> str:
    """Return "dim is 32 there and 64 here; ..." of the options that differ, "" where none does.

    What one side does not have (an argument of an environment) is "left out" there.
    """
    missing = object()

    def shown(options: Mapping[str, Any], name: str) -> str:
        return form(options[name]) if name in options else "left out"

    return "; ".join(
        f"{name} is {shown(theirs, name)} {there} and {shown(ours, name)} {here}"
        for name in {**ours, **theirs}
        if is_compared(name) and ours.get(name, missing) != theirs.get(name, missing)
    )


def short_name(name: str) -> str:
    """Return "dim" of "core.dim"."""
    return name.rpartition(".")[2]


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


def check_counts(config: Any, names: tuple[str, ...]) -> None:
    """Raise ValueError for a number below 1 among these options."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            flag = name.replace("_", "-")
            raise ValueError(f"{name}={value} must be 1 or more; set --{flag}")


def _check_choices(config: TrainConfig | EvaluateConfig) -> None:
    """Check what the command line does by itself, for those who do not come that way."""
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            allowed = ", ".join(get_args(kind))
            raise ValueError(f"{name}={getattr(config, name)!r} must be one of {allowed}")


def check_seed(seed: int) -> None:
    """Raise ValueError for a seed that generators do not take."""
    if not 0 <= seed < MAX_SEED:
        raise ValueError(f"seed={seed} must be 0 or more and below 2^63; set --seed")


def _known(config_class: type, values: Any, prefix: str) -> dict[str, Any]:
    """Return the options of a configuration from their JSON form."""
    if not isinstance(values, dict):
        raise ValueError(f"{prefix.rstrip('.')}={values!r} must be an object of options")
    names = [option.name for option in dataclasses.fields(config_class)]
    kinds = get_type_hints(config_class)
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise ValueError(f"{prefix}{name} is not an option{hint} Allowed: {', '.join(names)}")
    return {
        name: _from_plain(value, kinds[name], f"{prefix}{name}") for name, value in values.items()
    }


def _from_plain(value: Any, kind: Any, name: str) -> Any:
    """Return a value of JSON as one of `kind`."""
    try:
        return msgspec.convert(value, kind, dec_hook=lambda other, plain: other(plain))
    except (msgspec.ValidationError, TypeError) as error:
        words = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        raise ValueError(f"{name}={value!r} must be {words}: {error}") from None
