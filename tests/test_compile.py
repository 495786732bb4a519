"""torch.compile of both forms: two graphs without a break, one for sequences and one for steps.

jaxtyping's checks, which pytest switches on, are not part of the product: they run in a
subprocess without them.
"""

from __future__ import annotations

from typing import Any

import pytest
from programs import output_of

PROGRAM = """
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from mtxl_rl import Acting, MemoryTransformerXL

backend = {backend!r}
torch.manual_seed(0)
core = MemoryTransformerXL(
    dim=8, depth=1, seq_len=2, mem_len=3, lmem_len=2, heads=2, mem_write={write!r}
)
x = torch.randn(2, {num_steps}, 8)
reset = torch.zeros(2, {num_steps}, dtype=torch.bool)
reset[1, 1] = True
y, state = core(x, core.initial_state(2), reset)
y.sum().backward()
trained = list(core.parameters())
expected_grads = [p.grad.clone() for p in trained]
core.zero_grad()

compiled = torch.compile(core, backend=backend, fullgraph=True)
compiled_y, compiled_state = compiled(x, core.initial_state(2), reset)
torch.testing.assert_close(compiled_y, y, atol=1e-5, rtol=1e-5)
torch.testing.assert_close(compiled_state.long, state.long, atol=1e-5, rtol=1e-5)
compiled_y.sum().backward()
for parameter, grad in zip(trained, expected_grads):
    torch.testing.assert_close(parameter.grad, grad, atol=1e-4, rtol=1e-4)

# whole segments from the start of one: one graph; steps at any place: another
torch._dynamo.reset()
counter = CompileCounterWithBackend(backend)
segments = torch.compile(core, backend=counter, fullgraph=True)
with torch.no_grad():
    later = core.initial_state(2)
    for _ in range(3):
        _, later = segments(x[:, :4], later, reset[:, :4])
assert counter.frame_count == 1, counter.frame_count

torch._dynamo.reset()
counter = CompileCounterWithBackend(backend)
core.advance_ = torch.compile(core.advance_, backend=counter, fullgraph=True)
acting = Acting(core, 2)
outputs = [acting.step(x[:, t], reset[:, t]) for t in range({num_steps})]
torch.testing.assert_close(torch.stack(outputs, 1), y, atol=1e-5, rtol=1e-5)
torch.testing.assert_close(acting.state.long, state.long, atol=1e-5, rtol=1e-5)
assert acting.position == state.position == 1
assert counter.frame_count == 1, counter.frame_count
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        # two segments with their writes, and a step more
        {"backend": "aot_eager", "write": "seed", "num_steps": 5},
        {"backend": "inductor", "write": "gated", "num_steps": 5},
    ],
    ids=["aot_eager", "inductor"],
)
def test_compiled_forms_equal_eager_ones(options: dict[str, Any]) -> None:
    assert output_of(PROGRAM.format(**options)).strip() == "equal"
