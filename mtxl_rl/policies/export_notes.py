"""What the caller of an exported function must know, as JSON: docs/inspect.md says what it means.

It turns what Gymnasium gives into the function's inputs, as `envs.observation_fields` does, and
what the function returns into actions, as `envs.wrapped.gymnasium_form` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from minigrid.core.mission import MissionSpace
from torch import Tensor

from agents.encoders.parts import PictureForm
from envs.observation_fields import ONE_HOT, leaves, name_of
from envs.vectorized.single_form import SingleForm
from mtxl_rl.config.json_form import to_json
from mtxl_rl.policies.acting_step import ActingStep
from mtxl_rl.policies.policy import Policy


def notes_of(policy: Policy, step: ActingStep, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the notes on a function with these inputs."""
    config = to_json(policy.config)
    known = _readings(policy.form, step) | {name: {"kind": "state"} for name in step.state_names}
    return {
        "env": {"id": config["env"], "kwargs": config["env_kwargs"], "wrap": config["wrap"]},
        "inputs": [
            {"name": name, "shape": [*tensor.shape], "dtype": str(tensor.dtype).split(".")[1]}
            | known.get(name, {"kind": name})
            for name, tensor in inputs.items()
        ],
        "outputs": step.output_names,
        "state": step.state_names,
        "actions": _actions(policy.form.action_space),
        "mask": policy.form.mask_from if policy.agent.has_mask else None,
    }


def _readings(form: SingleForm, step: ActingStep) -> dict[str, dict[str, Any]]:
    """Return how to read each part of an observation, by its input."""
    parts = {name_of(path): (path, leaf) for path, leaf in leaves(form.original_space)}
    readings = {}
    for name, field in form.observation_space.spaces.items():
        path, leaf = parts[name]
        readings[step.inputs_of[name]] = {"keys": [*path], **reading(leaf, field)}
    return readings


def reading(leaf: spaces.Space, field: spaces.Space) -> dict[str, Any]:
    """Return how a part of an observation, of the space `leaf`, becomes one of `field`."""
    if field.dtype == np.uint8 and len(field.shape or ()) == 1:
        return {"kind": "bytes"}
    if isinstance(leaf, spaces.Text | MissionSpace):
        return {"kind": "words"}
    if isinstance(field, spaces.Discrete | spaces.MultiDiscrete):
        is_box = isinstance(leaf, spaces.Box)
        size = field.n if isinstance(field, spaces.Discrete) else field.nvec
        start = leaf.low if is_box else leaf.start  # type: ignore[attr-defined]
        reading = {"kind": "categories", "size": _short(size), "start": _short(start)}
        if is_box and len(leaf.shape) == 4:  # frames, rows, columns, channels
            reading["axes"] = [1, 2, 0, 3]
        if is_box and leaf.shape[-1] == sum(ONE_HOT) != field.shape[-1]:  # type: ignore[index]
            return reading | {"kind": "indicators", "sizes": [*ONE_HOT]}
        return reading
    assert isinstance(field, spaces.Box)
    picture = PictureForm.of(field)
    if picture is None:
        return {"kind": "numbers"}
    return {"kind": "picture", "layout": picture.order, "frames": picture.frames}


def _actions(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        choices = np.atleast_1d(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        return {"kind": "choices", "choices": choices.tolist(), "shape": [*(space.shape or ())],
                "start": np.asarray(space.start).tolist()}  # fmt: skip
    assert isinstance(space, spaces.Box)
    low, high = ([float(n) if np.isfinite(n) else None for n in bound.flat]
                 for bound in (space.low, space.high))  # fmt: skip
    return {"kind": "numbers", "shape": [*space.shape], "dtype": str(space.dtype), "low": low,
            "high": high}  # fmt: skip


def _short(values: Any) -> Any:
    """Return numbers without the axes along which they are all the same."""
    array = np.asarray(values)
    while array.ndim and (array == array[0]).all():
        array = array[0]
    return array.tolist()
