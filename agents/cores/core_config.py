"""What the configurations of cores have in common; each core has its own beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import tyro

from agents.named import made_by
from mtxl_rl.core.checks import check_size


@dataclass(frozen=True, kw_only=True)
class CoreConfig:
    """Options of every core; a subclass adds its own, each with a default."""

    has_attention: ClassVar[bool] = False
    """Whether it is made of large matrix products, so that by default it is compiled in long runs,
    and in bfloat16 where a CPU has it."""

    kind: str = ""
    """mtxl: short and long memory. Controls: gtrxl (short memory only, GRU gates), gru, lstm,
    mingru (gates that do not see the state), deltanet (Gated DeltaNet: a matrix of each head, time
    constants of 10 to 10,000 steps at the start), feedforward (no memory). One of your own:
    module:Class, see docs/your_own_core.md. Each has options of its own: --core.kind gru --help."""
    dim: int = 64
    """Width of the core and of its input."""
    past_action: bool = True
    """See the previous action and reward. An agent can keep a memory in its own actions: without
    them it needs that of the core."""
    image_size: Annotated[int, tyro.conf.arg(aliases=["--image-size"])] = 84
    """Longest side of a picture, in pixels; larger ones are made smaller, in proportion."""
    encoder: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(aliases=["--encoder"])
    ] = ()
    """What reads the observation instead of ours: module:Class for all of it, or PART=module:Class
    for one part; once for each. See docs/your_own_encoder.md."""
    norm_observations: bool = False
    """Standardise vectors in the observation by their running mean and deviation, which checkpoints
    hold. It pays where their numbers are of very different size, or lie far from 0."""

    def __post_init__(self) -> None:
        check_size("dim", self.dim, 1, "set --core.dim")
        check_size("image_size", self.image_size, 1, "set --image-size to a number of pixels")

    def __init_subclass__(cls) -> None:
        """Let whatever the check of a user's options raises name the core."""
        super().__init_subclass__()
        if "__post_init__" in vars(cls):
            cls.__post_init__ = _named(cls.__post_init__)  # type: ignore[assignment]

    @property
    def resolved(self) -> CoreConfig:
        """The same core with what was left out written out."""
        return self


def _named(check: Callable[[Any], None]) -> Callable[[Any], None]:
    def named_check(config: CoreConfig) -> None:
        with made_by(config.kind, "core.kind"):
            check(config)

    return named_check


@dataclass(frozen=True, kw_only=True)
class LayeredConfig(CoreConfig):
    """Options of cores that are made of layers."""

    depth: int = 2
    """Number of layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("depth", self.depth, 1, "set --core.depth")


@dataclass(frozen=True, kw_only=True)
class GatedConfig(LayeredConfig):
    """Options of recurrences whose gates have biases."""

    chrono: int | None = None
    """Largest time constant in steps at the start, 3 or more; that of each unit is drawn from 2 up
    to it. Left out: gates of about one half; of an lstm, .73."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chrono is not None:
            check_size("chrono", self.chrono, 3, "it is a number of steps, such as 1000")
