"""Prints what the core says of resets that are numbers; without jaxtyping, which says it first."""

import sys

import torch

from mtxl_rl import Acting, MemoryTransformerXL


def main(form: str) -> None:
    core = MemoryTransformerXL(dim=8, depth=1, seq_len=2, mem_len=2, lmem_len=2)
    x, reset = torch.randn(2, 3, 8), torch.zeros(2, 3, dtype=torch.int64)
    try:
        if form == "sequence":
            core(x, None, reset)
        else:
            Acting(core, 2).step(x[:, 0], reset[:, 0])
    except ValueError as error:
        print(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
