"""A trial of a core from outside of the package, when it is made: does it do what `Core` says?

Shapes: B = 2 envs, T = 3 steps, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

from agents.cores.interface import Core, CoreState
from agents.named import words_of
from agents.trees import named_tensors

TOLERANCE = 1e-4
"""Of outputs that should be the same, as a share of the largest one, or of 1: rounding is less."""

FIELDS = {"short": {"short_valid": 2}, "long": {"long": 3, "long_valid": 1}}
"""What a state has for each of the memories, and how many axes it has."""


@torch.no_grad()
def check_runs(core: Core, kind: str, dim: int) -> None:
    """Raise ValueError for a core that does not hold to what `agents.cores.interface.Core` says.

    Args:
        core: of a user.
        kind: its name, for people.
        dim: D.
    """
    trial = _Trial(core, kind, dim)
    trial.check_outputs()
    trial.check_memories()
    trial.check_resets()
    trial.check_acting()
    trial.check_statistics()


class _Trial:
    def __init__(self, core: Core, kind: str, dim: int):
        self.core, self.name = core, f"core.kind={kind!r}"
        # numbers from -1 to 1 without an order, and nothing drawn from a generator
        self.x = torch.arange(6.0 * dim).square().sin().view(2, 3, dim)
        self.given = f"{self.name} was given x (2, 3, {dim})"
        self.no_reset = torch.zeros(2, 3, dtype=torch.bool)

    def check_outputs(self) -> None:
        """Keep what the core makes of its first state: `first`, then `state`."""
        where = f"{self.given}, its first state and reset"
        try:
            self.first = self.core.initial_state(2)
            before = _copied(self.first)
            y, self.state = self.core(self.x, self.first, self.no_reset)
            shape = tuple(y.shape)
        except Exception as error:
            raise ValueError(
                f"{where}, and fails with {words_of(error)}; mend its forward"
            ) from error
        if shape != (2, 3, self.core.output_dim) or not isinstance(self.state, CoreState):
            raise ValueError(
                f"{where}, and returns y {shape} and a {type(self.state).__name__}; return y "
                f"(2, 3, output_dim={self.core.output_dim}) and a state that can be indexed by "
                "env, such as agents.cores.TensorState"
            )
        self._check_unchanged(self.first, before)
        if (after := _forms(_copied(self.state))) != (expected := _forms(before)):
            raise ValueError(
                f"{where}, and returns a state of {_shown(after)}, not of {_shown(expected)} "
                "as initial_state does; return the same shapes and dtypes"
            )

    def check_memories(self) -> None:
        """Look for what interventions take away."""
        for memory in self.core.memories:
            if memory not in FIELDS:
                raise ValueError(
                    f"{self.name} has memories={self.core.memories!r}, which may hold "
                    f"{' and '.join(map(repr, FIELDS))}; leave out the others"
                )
            forms = {name: (getattr(self.state, name, None), axes)
                     for name, axes in FIELDS[memory].items()}  # fmt: skip
            wrong = [name for name, (part, axes) in forms.items()
                     if not (isinstance(part, Tensor) and part.dim() == axes and len(part) == 2
                             and (part.dtype == torch.bool) == name.endswith("valid"))]  # fmt: skip
            if wrong or not is_dataclass(self.state):
                raise ValueError(
                    f"{self.name} has {memory!r} among its memories, and its state is a "
                    f"{type(self.state).__name__} without {' and '.join(wrong) or 'fields'}; "
                    "give it the fields of mtxl_rl.MemoryState in a dataclass, or leave "
                    f"{memory!r} out of memories"
                )

    def check_resets(self) -> None:
        """Reset one env, at the first step and within the sequence, and look at both."""
        kept = self._run(self.x, self.state, self.no_reset)
        if not _is_same(kept, self._run(self.x, self.state, self.no_reset)):
            return  # random numbers: the first update says so
        has_clock = self.core.segment_len > 1
        for step in (0, 1):
            reset = self.no_reset.clone()
            reset[0, step] = True
            y = self._run(self.x, self.state, reset)
            where = f"{self.given} and a reset of env 0 at step {step}"
            others = ((y[1], kept[1], "of env 1"), (y[0, :step], kept[0, :step], "before it"))
            for seen, expected, which in others:
                if not _is_same(seen, expected):
                    raise ValueError(
                        f"{where}, and its outputs {which} change (by "
                        f"{_distance(seen, expected):.2g}); a reset clears that env alone, from "
                        "there on, and no env sees another's numbers (as in BatchNorm)"
                    )
            if has_clock:  # a fresh start is at another place of the segment: another past instead
                x = self.x.clone()
                x[0, :step] = -x[0, :step]
                past = self.state[torch.tensor([1, 1])]
                fresh = self._run(x, past, reset)[:, step:]
            else:
                rest = slice(step, None)
                fresh = self._run(self.x[:, rest], self.first, self.no_reset[:, rest])
            if not _is_same(y[0, step:], fresh[0]):
                raise ValueError(
                    f"{where}, and its outputs from there on are not those of a fresh start (off "
                    f"by {_distance(y[0, step:], fresh[0]):.2g}); let an env forget all where "
                    "reset is True, and start from initial_state"
                )

    def check_acting(self) -> None:
        """Take a step, which must leave the state that it starts from as it is."""
        acting = self.core.acting(self.state)
        for name in ("peek", "step"):
            self._call(name, getattr(acting, name), self.x[:, 0], self.state, self.no_reset[:, 0])

    def check_statistics(self) -> None:
        """Look at what is logged."""
        found = self._call("statistics", self.core.statistics, self.x, self.state, self.no_reset)
        wanted = "return a dict of scalar tensors, () each, by their names"
        if not isinstance(found, Mapping):
            raise ValueError(
                f"{self.name} returns a {type(found).__name__} from statistics; {wanted}"
            )
        for name, value in found.items():
            is_scalar = isinstance(value, Tensor) and value.shape == () and not value.is_complex()
            if not (isinstance(name, str) and is_scalar):
                seen = type(value).__name__
                if isinstance(value, Tensor):
                    seen = f"tensor {tuple(value.shape)} of {value.dtype}"
                raise ValueError(
                    f"{self.name} returns for {name!r} a {seen} from statistics; {wanted}"
                )

    def _run(self, x: Tensor, state: Any, reset: Tensor) -> Tensor:
        return self._call("forward", self.core, x, state, reset)[0]

    def _call(
        self, name: str, method: Callable[..., Any], x: Tensor, state: Any, reset: Tensor
    ) -> Any:
        """Return what a method makes of a state, which it must leave as it is."""
        before = _copied(state)
        try:
            made = method(x, reset) if name in ("peek", "step") else method(x, state, reset)
        except Exception as error:
            raise ValueError(
                f"{self.name} fails in {name} with {words_of(error)} for x {tuple(x.shape)}, a "
                "state that it has returned and resets; mend it"
            ) from error
        self._check_unchanged(state, before)
        return made

    def _check_unchanged(self, state: Any, before: Mapping[str, Tensor]) -> None:
        after = named_tensors(state, "state")
        changed = [name for name, tensor in before.items()
                   if name not in after
                   or not torch.equal(tensor.nan_to_num(), after[name].nan_to_num())]  # fmt: skip
        if changed:
            raise ValueError(
                f"{self.name} changes the state that it is given in place ({', '.join(changed)}); "
                "a state is a value: make new tensors, and return those"
            )


def _copied(state: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in named_tensors(state, "state").items()}


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def _shown(forms: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> str:
    return ", ".join(f"{shape} {dtype}" for shape, dtype in forms.values()) or "no tensors"


def _is_same(y: Tensor, expected: Tensor) -> bool:
    size = max(1.0, float(expected.abs().amax())) if expected.numel() else 1.0
    return torch.allclose(y, expected, rtol=0, atol=TOLERANCE * size, equal_nan=True)


def _distance(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).abs().max())
