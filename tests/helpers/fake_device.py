"""A device that computes nothing, in place of a GPU: what it finds is found on a machine without.

Tensors there have shapes and no numbers (torch's FakeTensorMode). So whatever reads a number, which
would stop a GPU and which no CUDA graph can hold, raises; and so does a tensor that was left on the
CPU. It is called "meta" here: a torch without CUDA cannot index a fake tensor of "cuda".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
OURS = ("agents.", "envs.", "mtxl_rl.")
MODE = FakeTensorMode()


class _OneDevice(TorchDispatchMode):
    """Raises where an operation takes or makes tensors of the CPU and of the device: a copy."""

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        tensors = [
            each for each in tree_leaves((arguments, options, result)) if isinstance(each, Tensor)
        ]
        places = {tensor.device.type for tensor in tensors}
        if places == {"cpu", DEVICE.type}:
            raise RuntimeError(f"{function} of tensors that are not on the same device: {places}")
        return result


@contextmanager
def fake_device() -> Iterator[None]:
    """Within, what `move_` has moved computes shapes only."""
    with pytest.MonkeyPatch.context() as patch, MODE, _OneDevice():
        # it knows none of that device, and rounds nothing here
        patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
        yield


def move_(thing: Any) -> Any:
    """Move whatever tensors an object of ours has to the device, in place where that can be."""
    return _moved(thing, {})


def _moved(thing: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    if id(thing) in seen:
        return seen[id(thing)][0]
    if isinstance(thing, Tensor):
        new: Any = torch.empty(thing.shape, dtype=thing.dtype, device=DEVICE)
        if isinstance(thing, nn.Parameter):
            new = nn.Parameter(new)
    elif isinstance(thing, torch.device):
        new = DEVICE
    elif isinstance(thing, dict):
        new = {key: _moved(value, seen) for key, value in thing.items()}
    elif isinstance(thing, tuple) and hasattr(thing, "_fields"):
        new = type(thing)(*(_moved(value, seen) for value in thing))
    elif isinstance(thing, list | tuple):
        new = type(thing)(_moved(value, seen) for value in thing)
    else:
        new = thing
    seen[id(thing)] = new, thing  # kept, so that its number is not another's
    if new is not thing:
        return new
    if isinstance(thing, nn.Module):
        for named in (thing._parameters, thing._buffers):
            named.update({name: _moved(tensor, seen) for name, tensor in named.items()})
        if isinstance(thing, nn.RNNBase):
            thing._flat_weights = [getattr(thing, name) for name in thing._flat_weights_names]
        for child in thing.children():
            _moved(child, seen)
    elif type(thing).__module__.startswith(OURS) and hasattr(thing, "__dict__"):
        for name, value in list(vars(thing).items()):
            object.__setattr__(thing, name, _moved(value, seen))
    return thing
