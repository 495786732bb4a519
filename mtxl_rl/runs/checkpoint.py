"""Checkpoints: safetensors and JSON, never pickle.

RUN/checkpoints/frames_000001507328/ model.safetensors, training.safetensors, checkpoint.json
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from agents.actions import ActionHead
from agents.encoders.parts import GridEncoder
from mtxl_rl.config import TrainConfig
from mtxl_rl.config.json_form import differences, flat, from_json, to_json
from mtxl_rl.runs.run_directory import load_config, read_json, save_tensors, sync, write_json

SCHEMA = 3
HEADER, MODEL, TRAINING = "checkpoint.json", "model.safetensors", "training.safetensors"
_PREFIX = "frames_"
_FIELDS: dict[str, type] = {"frames": int, "config": dict, "sha256": dict}
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Of safetensors' names."""
_TRAINING_OPTIONS = ("core.bptt_segments", "core.mem_write_gain")
"""Of the core, but not of what it computes."""


def save_checkpoint(
    run_dir: Path,
    config: TrainConfig,
    model: nn.Module,
    frames: int,
    training: Mapping[str, Tensor] | None = None,
    keep: int = 2,
) -> Path:
    """Save weights and what training needs to go on; then delete all but the newest checkpoints.

    The folder appears under its name only when all of it is on the disk and has been read back;
    until then nothing older is deleted.

    Args:
        run_dir: the run.
        config: of the run.
        model: whose weights are saved.
        frames: trained so far.
        training: from `mtxl_rl.runs.training_state`.
        keep: how many checkpoints to keep.

    Raises:
        OSError: when it cannot be written; what was there is kept, and nothing half-written stays.
        ValueError: for weights that are not finite: they are never saved; or when what has been
            written reads differently.
    """
    weights = model.state_dict()
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"the weights are not finite ({name}), and such are never saved")
    target = run_dir / "checkpoints" / f"{_PREFIX}{frames:012d}"
    partial = target.with_name(f".{target.name}.partial")
    for left in target.parent.glob(f".{_PREFIX}*.partial"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_tensors(weights, partial / MODEL)
        save_tensors(training or {}, partial / TRAINING)
        sums = {name: _sha256(partial / name) for name in (MODEL, TRAINING)}
        header = {"schema": SCHEMA, "frames": frames, "config": to_json(config), "sha256": sums}
        write_json(partial / HEADER, header | {"header_sha256": _header_sha256(header)})
        for path in (*partial.iterdir(), partial):
            sync(path)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        sync(target.parent)
        try:
            check_checkpoint(target)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    others = [path for path in list_checkpoints(run_dir) if path != target]
    for old in others[: len(others) + 1 - keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def split_place(place: Path) -> tuple[Path, Path | None]:
    """Return the run that a path names and, where it names one of its checkpoints, that one.

    Raises:
        ValueError: for a checkpoint without its run, or a run without that checkpoint.
    """
    is_checkpoint = (place / HEADER).is_file()
    folder = place.resolve().parent
    is_in_run = folder.name == "checkpoints" and (folder.parent / "config.json").is_file()
    if is_checkpoint and not is_in_run:
        raise ValueError(
            f"{place} is a checkpoint without its run, which says what it is of; put it back into "
            "RUN/checkpoints"
        )
    if is_in_run and not is_checkpoint:
        names = ", ".join(path.name for path in list_checkpoints(folder.parent))
        raise ValueError(
            f"{place} is no checkpoint; {folder.parent} has {names or 'none'}: name one of them"
        )
    return (folder.parent, place) if is_checkpoint else (place, None)


def is_saved_policy(run_dir: Path) -> bool:
    """Tell what `Policy.save` has written, without what training needs, from a run."""
    try:
        with safe_open(list_checkpoints(run_dir)[-1] / TRAINING, "pt") as file:
            return not file.keys()
    except (IndexError, OSError, SafetensorError):
        return False


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return the checkpoint folders of a run, the oldest first."""
    return sorted((run_dir / "checkpoints").glob(f"{_PREFIX}*"))


def newest_frames(run_dir: Path) -> int:
    """Return the frames of the newest checkpoint, 0 where there is none."""
    names = [path.name.removeprefix(_PREFIX) for path in list_checkpoints(run_dir)]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def newest_checkpoint(run_dir: Path, sets_aside: bool = False) -> Path:
    """Return the newest checkpoint that is whole; say so where a newer one is damaged.

    Args:
        run_dir: the run.
        sets_aside: whether to rename those that are damaged, so that they do not count as saved.

    Raises:
        ValueError: when there is none.
    """
    found = list_checkpoints(run_dir)
    if not found:
        raise ValueError(
            f"{run_dir} has no checkpoint yet; train for longer, or set --checkpoint-every lower"
        )
    damages: list[tuple[Path, str]] = []
    for checkpoint in reversed(found):
        try:
            check_checkpoint(checkpoint)
        except (ValueError, OSError) as error:
            damages.append((checkpoint, str(error)))
            continue
        for damaged, reason in damages:
            warnings.warn(f"{reason}. {checkpoint.name} is used", RuntimeWarning, stacklevel=2)
            if sets_aside:
                damaged.rename(damaged.with_name(f"damaged_{damaged.name}"))
        return checkpoint
    reasons = "; ".join(reason for _, reason in damages)
    raise ValueError(f"no checkpoint of {run_dir} is whole: {reasons}")


def check_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Return the header of a checkpoint whose files are what was written.

    Raises:
        ValueError: for one that is not a checkpoint, of another release, or damaged.
    """
    header = read_header(checkpoint)
    for name in (MODEL, TRAINING):
        path = checkpoint / name
        if not path.is_file() or _sha256(path) != header["sha256"].get(name):
            raise ValueError(f"{path} is damaged or missing: its checksum does not fit")
    return header


def read_header(checkpoint: Path) -> dict[str, Any]:
    """Return the header of a checkpoint: frames, config, and the checksums of its files.

    Raises:
        ValueError: for one that is not a checkpoint, of another release, or with a damaged header.
    """
    if checkpoint.is_file():
        raise ValueError(
            f"{checkpoint} is a file, and a checkpoint is a folder such as RUN/checkpoints/"
            f"{_PREFIX}000000500000; pickles (.pt) are never opened"
        )
    for name in (HEADER, MODEL):
        if not (checkpoint / name).is_file():
            raise ValueError(f"{checkpoint} is not a checkpoint: it has no {name}")
    header = read_json(checkpoint / HEADER)
    if header.get("schema") != SCHEMA:
        raise ValueError(
            f"{checkpoint / HEADER} has schema {header.get('schema')}, this release reads "
            f"{SCHEMA}; use the release that wrote it"
        )
    if header.pop("header_sha256", None) != _header_sha256(header):
        raise ValueError(f"{checkpoint / HEADER} is damaged: its checksum does not fit")
    for name, kind in _FIELDS.items():
        if not isinstance(header.get(name), kind):
            raise ValueError(
                f"{checkpoint / HEADER} has {name}={header.get(name)!r}, which must be "
                f"{kind.__name__}; use another checkpoint"
            )
    return header


def load_checkpoint(
    checkpoint: Path, config: TrainConfig, model: nn.Module
) -> tuple[int, dict[str, Tensor]]:
    """Load weights into `model`; return the frames trained so far, and what training needs.

    Statistics that an earlier release did not have are as they are before anything is observed,
    and weights that it did not have are 0: the agent is the same function.

    Args:
        checkpoint: a checkpoint folder.
        config: what `model` was built from.
        model: loaded in place.

    Raises:
        ValueError: for a checkpoint of another configuration, or one that cannot be read.
    """
    header = check_checkpoint(checkpoint)
    _check_same_network(checkpoint, from_json(header["config"]), config)
    weights_path = checkpoint / MODEL
    try:
        _check_same_tensors(weights_path, _forms(weights_path), model)
        tensors, training = load_file(weights_path), load_file(checkpoint / TRAINING)
    except SafetensorError as error:
        raise ValueError(f"{checkpoint} cannot be read: {error}; use another one") from None
    weights = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
    model.load_state_dict(_not_needed(model, weights) | weights)
    return int(header["frames"]), training


def longest_episode(checkpoint: Path) -> int:
    """Return the steps of the longest episode of training, 0 where none has ended.

    Raises:
        ValueError: for a checkpoint that cannot be read.
    """
    try:
        with safe_open(checkpoint / TRAINING, "pt") as file:
            name = "window.longest"
            # earlier checkpoints have none
            return int(file.get_tensor(name)) if name in file.keys() else 0  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{checkpoint} cannot be read: {error}; use another one") from None


_Form = tuple[tuple[int, ...], torch.dtype | str]


def _forms(path: Path) -> dict[str, _Form]:
    """Return shape and dtype of a file's tensors without reading them."""
    forms: dict[str, _Form] = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118  (it is no dict)
            part = file.get_slice(name)
            dtype = str(part.get_dtype())
            forms[name] = tuple(part.get_shape()), _DTYPES.get(dtype, dtype)
    return forms


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _header_sha256(header: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def load_start(run_dir: Path, config: TrainConfig, model: nn.Module) -> None:
    """Load the newest weights of a run, of any environment, into `model` as a start.

    Raises:
        ValueError: for a run with another core, or other observations or actions.
    """
    source = load_config(run_dir)
    theirs, ours = (flat(replace(each, core=each.core.resolved)) for each in (source, config))
    different = differences(
        theirs,
        ours,
        "there",
        "here",
        lambda name: name.startswith("core.") and name not in _TRAINING_OPTIONS,
        form=repr,
    )
    if different:
        raise ValueError(
            f"init_from={run_dir} has another core: {different}. Give the options of that run, or "
            "leave --init-from out"
        )
    try:
        load_checkpoint(newest_checkpoint(run_dir), source, model)
    except ValueError as error:
        raise ValueError(
            f"init_from={run_dir} cannot be the start: {error}. It needs the same observations and "
            "actions"
        ) from None


def _check_same_network(checkpoint: Path, saved: TrainConfig, config: TrainConfig) -> None:
    different = differences(
        flat(saved),
        flat(config),
        "in the checkpoint",
        "in the run",
        lambda name: name == "env" or name.startswith("core."),
        form=repr,
    )
    if different:
        raise ValueError(
            f"{checkpoint} is of another configuration: {different}. Use a checkpoint of this run"
        )


def _check_same_tensors(path: Path, found: dict[str, _Form], model: nn.Module) -> None:
    actor = getattr(model, "actor", None)
    if _later_statistics(model, found) and isinstance(actor, ActionHead) and actor.has_units:
        raise ValueError(
            f"{path} is of before Box actions were in units of their bounds, and here they are "
            f"{actor.describe()}. Train anew, or go on with the version that made the run (commit "
            "0b56280)"
        )
    not_needed = _not_needed(model, found)
    expected = {
        name: (tuple(tensor.shape), tensor.dtype)
        for name, tensor in model.state_dict().items()
        if name not in not_needed
    }
    found = {name: form for name, form in found.items() if 0 not in form[0]}
    different = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    if different:
        name = different[0]
        raise ValueError(
            f"{path} does not fit the network: {name} is {_words(found.get(name))} in the file and "
            f"{_words(expected.get(name))} in the network ({len(different)} such tensors). "
            "Use a checkpoint of this run, and the version of mtxl_rl that made it"
        )


def _not_needed(model: nn.Module, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what a file may lack: later statistics as they start, and parameters of nothing.

    Earlier versions saved some of those, such as no persistent slots.
    """
    empty = {name: tensor for name, tensor in model.state_dict().items() if not tensor.numel()}
    return empty | _later_statistics(model, found) | _later_presence(model, found)


def _later_presence(model: nn.Module, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what reads the presence of symbols in grids where a file has none: weights of 0."""
    later: dict[str, Tensor] = {}
    for name, part in model.named_modules():
        prefix = f"{name}.presence_"
        if isinstance(part, GridEncoder) and not any(key.startswith(prefix) for key in found):
            tensors = {f"{name}.{key}": tensor for key, tensor in part.state_dict().items()}
            later |= {key: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            if part.has_places:
                later[f"{prefix}weight"] = torch.zeros_like(part.presence_weight)
    return later


def _later_statistics(model: nn.Module, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return statistics of what is learned from, as they start, where a file has none of a kind."""
    later: dict[str, Tensor] = {}
    for kinds in (("returns.", "rewards."), ("advantages.",)):
        if not any(name.startswith(kinds) for name in found):
            later |= {name: t for name, t in model.state_dict().items() if name.startswith(kinds)}
    return later


def _words(form: _Form | None) -> str:
    return f"{form[0]} {form[1]}" if form else "missing"
