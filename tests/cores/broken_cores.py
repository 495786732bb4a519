"""Cores that break a rule each, and some that look as if they did."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from agents.cores import BaselineCore, CoreConfig, TensorState


class NoConfig(nn.Module):
    pass


class Undecorated(BaselineCore):
    class Config(CoreConfig):
        size: int = 3


class NoDefault(BaselineCore):
    @dataclass(frozen=True, kw_only=True)
    class Config(CoreConfig):
        size: int


class OfLists(BaselineCore):
    @dataclass(frozen=True, kw_only=True)
    class Config(CoreConfig):
        sizes: list[int] | None = None


class Unfinished(nn.Module):
    Config = CoreConfig

    def __init__(self, config):
        super().__init__()


class Turned(BaselineCore):
    def __init__(self, config):
        super().__init__()
        self.output_dim = config.dim

    def initial_state(self, batch_size):
        return TensorState()

    def forward(self, x, state, reset):
        return x.transpose(0, 1), state


class Fails(Turned):
    def forward(self, x, state, reset):
        return x @ x, state


class Raises(BaselineCore):
    def __init__(self, config):
        raise RuntimeError("no\nluck")


class TakesNothing(BaselineCore):
    def __init__(self):
        super().__init__()


class Exits(BaselineCore):
    def __init__(self, config):
        raise SystemExit("bye")


class Undescribed(Turned):
    @property
    def description(self):
        return 1 / 0


class Untyped(BaselineCore):
    @dataclass(frozen=True, kw_only=True)
    class Config(CoreConfig):
        size: "Sise" = 3  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


class Asserts(Turned):
    @dataclass(frozen=True, kw_only=True)
    class Config(CoreConfig):
        size: int = 3

        def __post_init__(self):
            super().__post_init__()
            assert self.size < 5
            if self.size < 1:
                raise ValueError("size is none")


class AssertsFirst(Turned):
    @dataclass(frozen=True, kw_only=True)
    class Config(CoreConfig):
        def __post_init__(self):
            assert self.dim == 3, "dim"


class Sums(BaselineCore):
    # all is right with it

    def __init__(self, config):
        super().__init__()
        self.output_dim = config.dim
        self.random = torch.nn.Dropout(0.0)

    def initial_state(self, batch_size):
        return TensorState((torch.zeros(batch_size, 1, self.output_dim),))

    def forward(self, x, state, reset):
        total, outputs = state.tensors[0][:, 0], []
        for new, is_first in zip(x.unbind(1), reset.unbind(1), strict=True):
            total = torch.where(is_first[:, None], 0.0, total) + new
            outputs.append(total)
        return self.random(torch.stack(outputs, dim=1)), TensorState((total[:, None],))


class Clocked(Sums):
    segment_len = 3


class Remembers(Sums):
    def forward(self, x, state, reset):
        return super().forward(x, state, torch.zeros_like(reset))


class RemembersByClock(Remembers):
    segment_len = 3


class RemembersWithin(Sums):
    def forward(self, x, state, reset):
        first = torch.arange(reset.shape[1]) == 0
        return super().forward(x, state, reset & first)


class StartsElsewhere(Sums):
    def initial_state(self, batch_size):
        return TensorState((torch.ones(batch_size, 1, self.output_dim),))


class ResetsAll(Sums):
    def forward(self, x, state, reset):
        return super().forward(x, state, reset | reset.any(dim=0, keepdim=True))


class ResetsBefore(Sums):
    def forward(self, x, state, reset):
        y, state = super().forward(x, state, reset)
        is_clear = ~reset[:, 1:].any(dim=1)
        return y * is_clear[:, None, None], state


class Mixes(Sums):
    def forward(self, x, state, reset):
        y, state = super().forward(x, state, reset)
        return y - y.mean(dim=0, keepdim=True), state


class InPlace(Sums):
    def forward(self, x, state, reset):
        y, after = super().forward(x, state, reset)
        state.tensors[0].copy_(after.tensors[0])
        return y, state


class StepsInPlace(Sums):
    def step(self, x, state, reset):
        state.tensors[0].add_(x[:, None])
        return state.tensors[0][:, 0].clone(), state


class FailsInSteps(Sums):
    def step(self, x, state, reset):
        return x @ x, state


class Grows(Sums):
    def forward(self, x, state, reset):
        y, state = super().forward(x, TensorState((state.tensors[0][:, -1:],)), reset)
        return y, TensorState((state.tensors[0].repeat(1, 2, 1),))


class Doubles(Sums):
    def forward(self, x, state, reset):
        y, state = super().forward(x, state, reset)
        return y, TensorState((state.tensors[0].double(),))


class Random(Sums):
    def __init__(self, config):
        super().__init__(config)
        self.random = torch.nn.Dropout(0.5)


class Nan(Sums):
    def forward(self, x, state, reset):
        y, state = super().forward(x, state, reset)
        return y * torch.nan, TensorState((state.tensors[0] * torch.nan,))


class Short(Sums):
    memories = ("short",)


class Long(Sums):
    memories = ("long",)


class Middle(Sums):
    memories = ("middle",)


class Logs(Sums):
    logged: ClassVar[Any] = {"size": torch.zeros(())}

    def statistics(self, x, state, reset):
        return self.logged


class LogsVectors(Logs):
    logged: ClassVar[Any] = {"size": torch.zeros(()), "age": torch.zeros(3)}


class LogsNumbers(Logs):
    logged: ClassVar[Any] = {"age": 3.0}


class LogsNothing(Logs):
    logged = None


class FailsToLog(Sums):
    def statistics(self, x, state, reset):
        return {"age": x @ x}
