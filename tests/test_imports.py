"""What is imported, and from where."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from programs import output_of

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("package", ["mtxl_rl", "agents", "envs", "experiments"])
def test_package_is_this_repository(package: str) -> None:
    found = Path(str(importlib.import_module(package).__file__)).parent
    assert found == ROOT / package, (
        f"{package} is imported from {found}, another package of that name: use a virtual "
        "environment of its own, and run from the root of the repository"
    )


def test_backbone_needs_torch_and_mogrifier_only() -> None:
    assert output_of("bare_import") == "imported\n"
