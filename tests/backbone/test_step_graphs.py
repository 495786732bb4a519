"""A step of tensor environments is one graph: nothing in it depends on data on the host.

A CUDA graph needs that, too.
"""

from __future__ import annotations

import pytest
from programs import output_of

POPGYM = (
    "Autoencode", "Battleship", "Concentration", "CountRecall", "MineSweeper", "MultiarmedBandit",
    "NoisyPositionOnlyCartPole", "NoisyPositionOnlyPendulum", "RepeatPrevious",
)  # fmt: skip
"""One of each kind of rules."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "env_ids",
    [
        ["MiniGrid-MemoryS7-v0", "MiniGrid-Fetch-5x5-N2-v0", "MiniGrid-Dynamic-Obstacles-5x5-v0"],
        ["mtxl/Recall6-v0", "mtxl/Recall1to8x3gap2-v0", "mtxl/Recall1to8x3gap2shows2-v0"],
        [f"mtxl/popgym-{name}Easy-v0" for name in POPGYM],
    ],
    ids=["minigrid", "recall", "popgym"],
)
def test_a_compiled_step_is_one_graph_and_the_same(env_ids: list[str]) -> None:
    """In a process without jaxtyping's checks, which are no part of the product."""
    output_of("step_graphs", *env_ids)
