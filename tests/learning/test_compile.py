"""torch.compile of both forms, without a break in a graph.

Sequences of as many steps have at most two graphs: one for a segment's start, and one for any other
place. A step of acting has one.
"""

from __future__ import annotations

import pytest
from programs import output_of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "counted", "write"),
    [
        ("aot_eager", "eager", "seed"),
        ("inductor", "eager", "parts"),
        ("inductor", "eager", "gated"),
        pytest.param("inductor", "inductor", "parts", marks=pytest.mark.proof),
    ],
)
def test_compiled_forms_equal_eager_ones(backend: str, counted: str, write: str) -> None:
    """In a process without jaxtyping's checks, which are no part of the product."""
    assert output_of("core_graphs", backend, counted, write) == "equal\n"
