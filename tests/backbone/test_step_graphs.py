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


KINDS = {
    "minigrid": ["MiniGrid-MemoryS7-v0", "MiniGrid-Fetch-5x5-N2-v0",
                 "MiniGrid-Dynamic-Obstacles-5x5-v0"],
    "symbols": ["mtxl/Recall6-v0", "mtxl/Recall1to8x3gap2-v0", "mtxl/Recall1to8x3gap2shows2-v0",
               "mtxl/EndlessTMaze1to5x3-v0"],
    "popgym": [f"mtxl/popgym-{name}Easy-v0" for name in POPGYM],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_compiled_step_is_one_graph_and_the_same(kind: str) -> None:
    """In a process without jaxtyping's checks, which are no part of the product."""
    output_of("step_graphs", "aot_eager", *KINDS[kind])


@pytest.mark.slow
def test_a_step_is_the_same_in_cpp() -> None:
    output_of("step_graphs", "inductor", KINDS["symbols"][0])


@pytest.mark.proof
@pytest.mark.parametrize("kind", list(KINDS))
def test_each_step_is_the_same_in_cpp(kind: str) -> None:
    output_of("step_graphs", "inductor", *KINDS[kind])
