"""What is imported, and from where."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys

class OnlyTorchAndMogrifier:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, OnlyTorchAndMogrifier())
import torch
from mtxl_rl import MemoryTransformerXL
core = MemoryTransformerXL(dim=8, depth=1, seq_len=2, mem_len=2, lmem_len=2)
core(torch.zeros(1, 3, 8), core.initial_state(1), torch.zeros(1, 3, dtype=torch.bool))
print("imported")
"""
BLOCKED = {
    "agents", "envs", "experiments", "gymnasium", "imageio", "jaxtyping", "matplotlib", "minigrid",
    "rich", "safetensors", "scipy", "tensorboard", "tyro",
}  # fmt: skip


@pytest.mark.parametrize("package", ["mtxl_rl", "agents", "envs", "experiments"])
def test_package_is_this_repository(package: str) -> None:
    found = Path(str(importlib.import_module(package).__file__)).parent
    assert found == ROOT / package, (
        f"{package} is imported from {found}, another package of that name: use a virtual "
        "environment of its own, and run from the root of the repository"
    )


def test_backbone_needs_torch_and_mogrifier_only() -> None:
    program = PROGRAM.format(blocked=BLOCKED)
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "imported"
