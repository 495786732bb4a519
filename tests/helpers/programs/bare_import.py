"""The core works where nothing can be imported but torch and mogrifier."""

import sys
from collections.abc import Sequence

BLOCKED = {
    "agents", "envs", "experiments", "gymnasium", "imageio", "jaxtyping", "matplotlib", "minigrid",
    "rich", "safetensors", "scipy", "tensorboard", "tyro",
}  # fmt: skip


class OnlyTorchAndMogrifier:
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> None:
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"blocked: {name}")


def main() -> None:
    sys.meta_path.insert(0, OnlyTorchAndMogrifier())

    import torch

    from mtxl_rl import MemoryTransformerXL

    core = MemoryTransformerXL(dim=8, depth=1, seq_len=2, mem_len=2, lmem_len=2)
    core(torch.zeros(1, 3, 8), core.initial_state(1), torch.zeros(1, 3, dtype=torch.bool))
    print("imported")


if __name__ == "__main__":
    main()
