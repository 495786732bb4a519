"""Run directories and checkpoints: safetensors and JSON, never pickle.

RUN/config.json                      the configuration of training
RUN/checkpoints/frames_000001507328/ model.safetensors and checkpoint.json
RUN/events.out.tfevents...           TensorBoard
RUN/evaluation.json                  the evaluation at the end
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mtxl_rl.config import TrainConfig, flat, from_json, to_json

SCHEMA = 2
_PREFIX = "frames_"
_NETWORK_OPTIONS = ("env", "core.")
_TRAINING_OPTIONS = ("bptt_segments", "mem_write_gain")
"""Of the core, but not of what it computes."""


def create_run(run_dir: Path, config: TrainConfig) -> None:
    """Make the run directory and write the configuration.

    Raises:
        ValueError: when it exists.
    """
    try:
        run_dir.mkdir(parents=True)
    except FileExistsError:
        raise ValueError(
            f"run_dir={run_dir} exists and is kept as it is; choose another --run-dir, or move "
            "that one away"
        ) from None
    write_json(run_dir / "config.json", to_json(config))


def load_config(run_dir: Path) -> TrainConfig:
    """Read a run's configuration.

    Raises:
        ValueError: when the folder is not a run.
    """
    path = run_dir / "config.json"
    if not path.is_file():
        raise ValueError(f"{run_dir} is not a run directory: it has no config.json; pass RUN_DIR")
    return from_json(read_json(path))


def save_checkpoint(run_dir: Path, config: TrainConfig, model: nn.Module, frames: int) -> Path:
    """Save the weights; the folder appears under its name only when it is complete."""
    target = run_dir / "checkpoints" / f"{_PREFIX}{frames:012d}"
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, temporary / "model.safetensors")
    write_json(
        temporary / "checkpoint.json",
        {"schema": SCHEMA, "frames": frames, "config": to_json(config)},
    )
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    return target


def newest_checkpoint(run_dir: Path) -> Path:
    """Return the checkpoint with the most frames.

    Raises:
        ValueError: when there is none.
    """
    found = sorted((run_dir / "checkpoints").glob(f"{_PREFIX}*"))
    if not found:
        raise ValueError(
            f"{run_dir} has no checkpoint yet; train for longer, or set --checkpoint-every lower"
        )
    return found[-1]


def load_checkpoint(checkpoint: Path, config: TrainConfig, model: nn.Module) -> int:
    """Load weights into `model` and return the frames that they were trained for.

    Args:
        checkpoint: a checkpoint folder.
        config: what `model` was built from.
        model: loaded in place.

    Raises:
        ValueError: for a checkpoint of another configuration, or one that cannot be read.
    """
    header_path, weights_path = checkpoint / "checkpoint.json", checkpoint / "model.safetensors"
    for path in (header_path, weights_path):
        if not path.is_file():
            raise ValueError(f"{checkpoint} is not a checkpoint: it has no {path.name}")
    header = read_json(header_path)
    if header.get("schema") != SCHEMA:
        raise ValueError(
            f"{header_path} has schema {header.get('schema')}, this release reads {SCHEMA}; use "
            "the release that wrote it"
        )
    _check_same_network(checkpoint, from_json(header["config"]), config)
    try:
        tensors = load_file(weights_path)
        _check_same_tensors(weights_path, tensors, model)
    except SafetensorError as error:
        raise ValueError(f"{weights_path} cannot be read: {error}; use another one") from None
    model.load_state_dict(tensors)
    return int(header["frames"])


def load_start(run_dir: Path, config: TrainConfig, model: nn.Module) -> None:
    """Load the newest weights of a run, of any environment, into `model` as a start.

    Raises:
        ValueError: for a run with another core, or other observations or actions.
    """
    source = load_config(run_dir)
    ours, theirs = (asdict(each.core.resolved) for each in (config, source))
    different = [
        f"core.{name} is {theirs[name]!r} there and {ours[name]!r} here"
        for name in ours
        if name not in _TRAINING_OPTIONS and ours[name] != theirs[name]
    ]
    if different:
        raise ValueError(
            f"init_from={run_dir} has another core: {'; '.join(different)}. Give the options of "
            "that run, or leave --init-from out"
        )
    try:
        load_checkpoint(newest_checkpoint(run_dir), source, model)
    except ValueError as error:
        raise ValueError(
            f"init_from={run_dir} cannot be the start: {error}. It needs the same observations and "
            "actions"
        ) from None


def _check_same_network(checkpoint: Path, saved: TrainConfig, config: TrainConfig) -> None:
    ours, theirs = flat(config), flat(saved)
    different = [
        f"{name} is {theirs[name]!r} in the checkpoint and {ours[name]!r} in the run"
        for name in ours
        if name.startswith(_NETWORK_OPTIONS) and ours[name] != theirs[name]
    ]
    if different:
        raise ValueError(
            f"{checkpoint} is of another configuration: {'; '.join(different)}. Use a checkpoint "
            "of this run"
        )


def _check_same_tensors(path: Path, tensors: dict[str, torch.Tensor], model: nn.Module) -> None:
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    different = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    if different:
        name = different[0]
        raise ValueError(
            f"{path} does not fit the network: {name} is {found.get(name, 'missing')} in the file "
            f"and {expected.get(name, 'unknown')} in the network ({len(different)} such tensors). "
            "Use a checkpoint of this run"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read an object.

    Raises:
        ValueError: when the file does not hold one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}; restore it") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(values).__name__}")
    return values


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object; the file is there as a whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
