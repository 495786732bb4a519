"""Both forms of the core, compiled, are what they are eager, and of as few graphs.

The first argument compiles a whole sequence, the second the forms whose graphs are counted.

With two threads, and heads, segment and short memory as wide as a vector register: a compiler's
loops are parallel, vectorised and tiled only then, and wrong in other ways (Inductor of torch 2.13
wrote past the end of a buffer in the backward pass of `Tensor.unfold`).
"""

import sys
from typing import Any

import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close

from mtxl_rl import Acting, MemoryTransformerXL

SEQ_LEN, NUM_STEPS = 16, 33  # two segments with their writes, and a step more


def main(backend: str, counted: str, write: Any) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)
    depth = 2 if backend == "aot_eager" else 1  # C++ for another layer takes a minute
    core = MemoryTransformerXL(
        dim=32, depth=depth, seq_len=SEQ_LEN, mem_len=16, lmem_len=2, heads=2, mem_write=write
    )
    x = torch.randn(2, NUM_STEPS, 32)
    reset = torch.zeros(2, NUM_STEPS, dtype=torch.bool)
    reset[1, 1] = True
    y, state = core(x, core.initial_state(2), reset)
    y.sum().backward()
    trained = list(core.parameters())
    expected_grads = [p.grad.clone() for p in trained if p.grad is not None]
    assert len(expected_grads) == len(trained)
    core.zero_grad()

    compiled = torch.compile(core, backend=backend, fullgraph=True)
    compiled_y, compiled_state = compiled(x, core.initial_state(2), reset)
    assert_close(compiled_y, y, atol=1e-5, rtol=1e-5)
    assert_close(compiled_state.long, state.long, atol=1e-5, rtol=1e-5)
    compiled_y.sum().backward()
    for parameter, grad in zip(trained, expected_grads, strict=True):
        assert_close(parameter.grad, grad, atol=1e-4, rtol=1e-4)

    # whole segments from the start of one: one graph
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(counted)
    segments = torch.compile(core, backend=counter, fullgraph=True)
    with torch.no_grad():
        later = core.initial_state(2)
        for _ in range(3):
            _, later = segments(x[:, :-1], later, reset[:, :-1])
    assert counter.frame_count == 1, counter.frame_count

    # pieces, some over the end of a segment: one graph from its start, one from any other place
    for length, form in ((6, counted), (1, "eager")):
        core.zero_grad()
        core(x[:, :30], None, reset[:, :30])[0].sum().backward()
        expected_grads = [p.grad.clone() for p in trained if p.grad is not None]
        core.zero_grad()
        torch._dynamo.reset()
        counter = CompileCounterWithBackend(form)
        compiled = torch.compile(core, backend=counter, fullgraph=True)
        outputs, later = [], core.initial_state(2)
        for t in range(0, 30, length):
            output, later = compiled(x[:, t : t + length], later, reset[:, t : t + length])
            outputs.append(output)
        assert_close(torch.cat(outputs, 1), y[:, :30], atol=1e-5, rtol=1e-5)
        torch.cat(outputs, 1).sum().backward()
        for parameter, grad in zip(trained, expected_grads, strict=True):
            assert_close(parameter.grad, grad, atol=1e-4, rtol=1e-4)
        assert counter.frame_count == 2, counter.frame_count

    # calls of other lengths, one after the other
    torch._dynamo.reset()
    compiled = torch.compile(core, backend="eager", fullgraph=True, dynamic=False)
    outputs, later, start = [], core.initial_state(2), 0
    with torch.no_grad():
        for length in (3, 3, 6, 16, 5):
            steps = slice(start, start + length)
            output, later = compiled(x[:, steps], later, reset[:, steps])
            outputs.append(output)
            start += length
    assert_close(torch.cat(outputs, 1), y, atol=1e-5, rtol=1e-5)

    # steps at any place: one graph
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(counted)
    core.advance_ = torch.compile(core.advance_, backend=counter, fullgraph=True)
    acting = Acting(core, 2)
    outputs = [acting.step(x[:, t], reset[:, t]) for t in range(NUM_STEPS)]
    assert_close(torch.stack(outputs, 1), y, atol=1e-5, rtol=1e-5)
    assert_close(acting.state.long, state.long, atol=1e-5, rtol=1e-5)
    assert acting.position == state.position == 1
    assert counter.frame_count == 1, counter.frame_count
    print("equal")


if __name__ == "__main__":
    main(*sys.argv[1:])
