"""torch.compile of both forms: two graphs without a break, one for sequences and one for steps."""

from __future__ import annotations

import pytest
from programs import output_of


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "write"), [("aot_eager", "seed"), ("inductor", "gated")])
def test_compiled_forms_equal_eager_ones(backend: str, write: str) -> None:
    """In a process without jaxtyping's checks, which are no part of the product."""
    assert output_of("core_graphs", backend, write) == "equal\n"
