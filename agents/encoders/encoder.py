"""From observation, previous action and previous reward to the core's input.

Shapes: *N leading axes (B, or B T), E width of the features.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor, nn

from agents.encoders.parts import part_encoder, symlog
from agents.named import find_named, words_of
from agents.spaces import space_words
from mtxl_rl.core.parts.initialization import init_orthogonal

WHOLE = None
"""The name of all of an observation among its parts, of which one may be called ""."""


class Encoder(nn.Module):
    """Sums the features of every part of the observation, the previous action and reward.

    Args:
        space: a flat Dict of Box, Discrete and MultiDiscrete spaces.
        dim: width E of the features.
        image_size: longest side of a picture; larger ones are made smaller.
        own: what reads the observation instead of ours: "module:Class" for all of it, or
            "PART=module:Class". It is made with its space and `dim`, and makes (*N, E) of its part,
            or of the dict of all. Its `see` and `observe_`, if it has them, are used as below.

    Attributes:
        reads: how each part of the observation is read, in words.

    Raises:
        ValueError: for a space that cannot be encoded, or for what is not an encoder.
    """

    def __init__(self, space: spaces.Dict, dim: int, image_size: int = 84, own: Sequence[str] = ()):
        super().__init__()
        named = _named_by_part(own, space)
        parts: dict[str | None, spaces.Space] = (
            {WHOLE: space} if WHOLE in named else {**space.spaces}
        )
        self.names = list(parts)
        fields = [
            _own_encoder(named[name], name, part, dim)
            if name in named
            else part_encoder(str(name), part, dim, image_size)
            for name, part in parts.items()
        ]
        self.fields = nn.ModuleList(encoder for encoder, _ in fields)
        self.reads = {"all of it" if name is None else name: words
                      for name, (_, words) in zip(self.names, fields, strict=True)}  # fmt: skip
        self.reward = nn.Linear(1, dim)
        self.out = nn.Sequential(nn.LayerNorm(dim), nn.GELU(), init_orthogonal(nn.Linear(dim, dim)))

    def see(self, observation: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return an environment's observation as `forward` takes it: pictures made smaller."""
        seen: dict[Any, Any] = {
            name: see(_part(observation, name))
            for name, encoder in zip(self.names, self.fields, strict=True)
            if (see := getattr(encoder, "see", None)) is not None
        }
        return seen[WHOLE] if WHOLE in seen else observation | seen

    def forward(
        self,
        observation: dict[str, Tensor],
        prev_action: Float[Tensor, "*N E"],
        prev_reward: Float[Tensor, "*N"],
    ) -> Float[Tensor, "*N E"]:
        """Encode what `see` returned; `prev_action` is already embedded."""
        features = prev_action + self.reward(symlog(prev_reward).unsqueeze(-1))
        for name, encoder in zip(self.names, self.fields, strict=True):
            features = features + encoder(_part(observation, name))
        return self.out(features)

    def observe_(self, observation: dict[str, Tensor]) -> None:
        """Take observations into the running statistics; `forward` is another function then."""
        for name, encoder in zip(self.names, self.fields, strict=True):
            if (observe_ := getattr(encoder, "observe_", None)) is not None:
                observe_(_part(observation, name))


def _part(observation: dict[str, Tensor], name: str | None) -> Any:
    return observation if name is None else observation[name]


def _named_by_part(own: Sequence[str], space: spaces.Dict) -> dict[str | None, str]:
    """Return the names of a user's encoders, by the parts that they read."""
    named: dict[str | None, str] = {}
    for text in own:
        before, equals, name = text.rpartition("=")
        part = before if equals else WHOLE
        if equals and before not in space.spaces:
            near = difflib.get_close_matches(before, list(space.spaces), n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ValueError(
                f"encoder={text!r} is for {before!r}, which the observation does not have{hint} It "
                f"must be one of {', '.join(space.spaces)}"
            )
        if part in named:
            raise ValueError(
                f"encoder={list(own)} names two for "
                f"{'all of the observation' if part is WHOLE else part}; leave one out"
            )
        named[part] = name
    if WHOLE in named and len(named) > 1:
        raise ValueError(
            f"encoder={list(own)} names one for all of the observation, and one for a part; leave "
            "one out"
        )
    return named


def _own_encoder(
    name: str, part: str | None, space: spaces.Space, dim: int
) -> tuple[nn.Module, str]:
    """Return a user's encoder of a part, or of all, and its name and size in words.

    Raises:
        ValueError: for what is none, cannot be made, or does not make (*N, dim) of what it reads.
    """
    make = find_named(name, "encoder")
    named = "" if part is WHOLE else f"{part!r}, "
    where = f"encoder={name!r} for {named}{space_words(space)},"
    try:
        encoder = make(space, dim)
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"it makes {encoder!r}, and must make a torch.nn.Module")
        see = getattr(encoder, "see", lambda observation: observation)
        first = see(_zeros(space, 2))
        with torch.no_grad():
            features = [encoder(_expanded(first, *shape)) for shape in ((), (3,))]
            shapes = [tuple(tensor.shape) for tensor in features]
            dtypes = [tensor.dtype for tensor in features]
    except Exception as error:
        raise ValueError(
            f"{where} fails with {words_of(error)}; it must take its space and "
            f"dim={dim}, and then observations (2, ...) and (2, 3, ...)"
        ) from error
    if shapes != [(2, dim), (2, 3, dim)]:
        raise ValueError(
            f"{where} makes {shapes} of observations (2, ...) and (2, 3, ...); return features "
            f"(2, {dim}) and (2, 3, {dim})"
        )
    expected = torch.get_default_dtype()
    if dtypes != [expected] * 2:
        found = " and ".join(sorted({str(dtype) for dtype in dtypes}))
        raise ValueError(
            f"{where} makes features of {found}; return those of {expected}, by .float() at its end"
        )
    size = sum(parameter.numel() for parameter in encoder.parameters())
    return encoder, f"{name} ({size:,} parameters)"


def _zeros(space: spaces.Space, batch_size: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _zeros(part, batch_size) for name, part in space.spaces.items()}
    dtype = torch.from_numpy(np.zeros(0, space.dtype)).dtype
    return torch.zeros((batch_size, *(space.shape or ())), dtype=dtype)


def _expanded(observation: Any, *shape: int) -> Any:
    """Return an observation (B, ...) as (B, *shape, ...)."""
    if isinstance(observation, dict):
        return {name: _expanded(part, *shape) for name, part in observation.items()}
    batch_size, *rest = observation.shape
    return observation.view(batch_size, *[1] * len(shape), *rest).expand(batch_size, *shape, *rest)
