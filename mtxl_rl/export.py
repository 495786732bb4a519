"""Write a trained agent's acting as a function, for ONNX Runtime or torch.export.

python -m mtxl_rl.export runs/RUN                      # RUN/policy.onnx
python -m mtxl_rl.export runs/RUN --format torch       # RUN/policy.pt2

The function is one step of one env: what it sees, what it did before and its state go in; the
policy, the value and the state after the step come out. `examples/act_without_torch.py` runs it.
ONNX needs `pip install -e ".[export]"`.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import mtxl_rl.siblings  # noqa: F401

# isort: split

import numpy as np
import torch
import tyro
from torch import Tensor

from mtxl_rl.command import fail_with_one_line, fill_help
from mtxl_rl.config.option_types import Place
from mtxl_rl.device import set_threads
from mtxl_rl.policies.acting_step import PAST, ActingStep
from mtxl_rl.policies.export_notes import notes_of
from mtxl_rl.policies.policy import Policy, as_sequence, load, numbers_of
from mtxl_rl.runs.checkpoint import split_place
from mtxl_rl.runs.run_directory import check_out

NUM_CHECKS = 1000
"""Random steps on which what is written is compared with the agent."""
RESET_RATE = 0.02
"""Of them, that start an episode."""
NOTES = "mtxl_rl.json"
"""The file in a .pt2 that has what `notes_of` returns; in ONNX it is the metadata `mtxl_rl`."""
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-3
"""Largest difference of a policy's number or a value. Rounding adds up in a memory."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of an export."""

    format: Literal["onnx", "torch"] = "onnx"
    """onnx: for ONNX Runtime. torch: for torch.export.load."""
    out: Place | None = None
    """The file. Left out: policy.onnx or policy.pt2 in the run directory."""


def example_inputs(step: ActingStep, rng: np.random.Generator) -> dict[str, Tensor]:
    """Return random inputs of a step, by name, without its state."""
    agent = step.agent
    space = agent.observation_space
    space.seed(int(rng.integers(2**31)))
    agent.action_space.seed(int(rng.integers(2**31)))
    observation = {
        name: torch.as_tensor(np.asarray(value))[None] for name, value in space.sample().items()
    }
    if agent.has_mask:
        observation["action_mask"] = torch.ones_like(observation["action_mask"])
    action = np.asarray(agent.action_space.sample()) - getattr(agent.action_space, "start", 0)
    none = agent.actor.none(1)
    return {
        **{step.inputs_of[name]: tensor for name, tensor in observation.items()},
        "prev_action": torch.as_tensor(action).to(none.dtype).reshape(none.shape),
        "prev_reward": torch.as_tensor(rng.normal(size=1), dtype=torch.float32),
        "reset": torch.as_tensor(rng.random(1) < RESET_RATE),
    }


def check(
    step: ActingStep,
    run: Callable[[dict[str, Tensor]], Sequence[Tensor]],
    num_steps: int = NUM_CHECKS,
) -> float:
    """Return the largest difference between an exported function and the agent.

    Args:
        step: what was exported; its agent's `forward` is run step by step.
        run: the inputs of a step, state included, to the outputs.
        num_steps: random ones.

    Raises:
        ValueError: where it is above `TOLERANCE`.
    """
    agent, rng = step.agent, np.random.default_rng(1)
    state, named = agent.initial_state(1), agent.core.first_tensors()
    largest = 0.0
    for number in range(num_steps):
        inputs = example_inputs(step, rng)
        inputs["reset"] |= torch.tensor([number == 0])
        with torch.no_grad():
            policy, value, *after = run({**inputs, **named})
        named = dict(zip(named, after, strict=True))
        seen = agent.see({name: inputs[given] for name, given in step.inputs_of.items()})
        past = (inputs[name][:, None] for name in PAST)
        sequence = agent.next_inputs(as_sequence(seen), *past)
        with torch.no_grad():
            expected, expected_value, state = agent(sequence, state)
        for found, wanted in ((policy, numbers_of(expected)[:, 0]), (value, expected_value[:, 0])):
            size = wanted.abs().clamp_min(1)
            difference = float(((found - wanted).abs() / size).max())
            largest = float(np.maximum(largest, difference))  # max() would lose a NaN
    if not largest <= TOLERANCE:
        raise ValueError(
            f"what was exported differs from the agent by {largest:.2g} in {num_steps} steps, more "
            f"than {TOLERANCE}; report it with the run's config.json"
        )
    return largest


def export_policy(policy: Policy, out: Path, form: Literal["onnx", "torch"]) -> float:
    """Write the function and return how far it is from the agent.

    What was at `out` stays there until the new file has been checked.

    Raises:
        ValueError: where a package is missing, or what was written is another function.
    """
    if form == "onnx":
        for name in ("onnxscript", "onnx", "onnxruntime"):
            _need(name)
    policy.agent.precision = torch.float32
    step = ActingStep(policy.agent).eval()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        unchecked = Path(folder) / out.name
        _write(policy, step, unchecked, form)
        largest = check(step, _runner(unchecked, form))
        unchecked.replace(out)
    return largest


def _write(policy: Policy, step: ActingStep, out: Path, form: Literal["onnx", "torch"]) -> None:
    inputs = {**example_inputs(step, np.random.default_rng(1)), **step.agent.core.first_tensors()}
    # that there is no torchvision is no news
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.export.export(step, (inputs,))
        if form == "torch":
            notes = json.dumps(notes_of(policy, step, inputs))
            file = io.BytesIO()  # a full disk is then an OSError, as elsewhere
            torch.export.save(program, file, extra_files={NOTES: notes})
            out.write_bytes(file.getvalue())
        else:
            torch.onnx.export(
                program,
                (),
                out,
                input_names=list(inputs),
                output_names=step.output_names,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            onnx = _need("onnx")
            model = onnx.load(out)
            known = [each.name for each in model.graph.input]  # those without an effect may go
            notes = notes_of(policy, step, {name: inputs[name] for name in known})
            onnx.helper.set_model_props(model, {"mtxl_rl": json.dumps(notes)})
            onnx.save(model, out)


def _runner(
    out: Path, form: Literal["onnx", "torch"]
) -> Callable[[dict[str, Tensor]], Sequence[Tensor]]:
    """Return what runs a file that has been written."""
    if form == "torch":
        return torch.export.load(out).module()
    runtime = _need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items() if name in known}
        return [torch.as_tensor(array) for array in session.run(None, arrays)]

    return run


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f'format=onnx needs {error.name}; pip install -e ".[export]", or set --format torch'
        ) from None


def export(
    run: Annotated[Place, tyro.conf.Positional],
    config: Annotated[ExportConfig, tyro.conf.OmitArgPrefixes],
) -> Path:
    """Write a trained agent's acting as a function, and check it against the agent.

    Args:
        run: The run directory that training has written, or one of its checkpoints.
        config: What to write.
    """
    set_threads(1)  # a step of one env is too small to be shared
    policy = load(run, device="cpu")
    run, _ = split_place(run)
    out = config.out or run / f"policy{SUFFIXES[config.format]}"
    check_out(out, SUFFIXES[config.format])
    largest = export_policy(policy, out, config.format)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, off by {largest:.1g} at most in "
          f"{NUM_CHECKS:,} random steps")  # fmt: skip
    return out


def main() -> None:
    """Read the options and export."""
    with fail_with_one_line():
        fill_help(ExportConfig)
        tyro.cli(export, prog="python -m mtxl_rl.export")


if __name__ == "__main__":
    main()
