"""What is imported, and from where."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT, output_of


@pytest.mark.parametrize("package", ["mtxl_rl", "agents", "envs", "experiments"])
def test_package_is_this_repository(package: str) -> None:
    found = Path(str(importlib.import_module(package).__file__)).parent
    assert found == ROOT / package, (
        f"{package} is imported from {found}, another package of that name: use a virtual "
        "environment of its own, and run from the root of the repository"
    )


@pytest.mark.parametrize(
    "folder",
    sorted(
        str(path.parent.relative_to(ROOT))
        for package in ("mtxl_rl", "agents", "envs", "experiments")
        for path in (ROOT / package).rglob("__init__.py")
    ),
)
def test_every_folder_says_what_it_may_use(folder: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text("utf-8"))) or ""
    words = " ".join(text.split())
    assert re.search(r"\b(may use|may import|needs|imports another)\b", words), words


def test_backbone_needs_torch_and_mogrifier_only() -> None:
    assert output_of("bare_import") == "imported\n"


COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("mtxl_rl", "experiments")
    for path in (ROOT / package).rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
EACH_BY_ITSELF = """
import importlib, os, sys, traceback, gymnasium, minigrid, scipy, torch, tyro

for name in sys.argv[1:]:
    if not os.fork():
        try:
            importlib.import_module(name)
            importlib.import_module("envs").make
            print(name, end=" ", flush=True)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.wait()
"""


def beside_packages_of_the_user(
    folder: Path, program: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder with packages of our names, ours on the path after them."""
    for name in ("envs", "agents"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("is_the_users = True\n")
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, text=True,
        check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_all_that_is_started_works_beside_packages_of_the_same_names(tmp_path: Path) -> None:
    assert {"mtxl_rl.train", "experiments.ablation", "experiments.grids.cell"} <= {*COMMANDS}
    names = ["mtxl_rl.policies.policy", *COMMANDS]
    said = beside_packages_of_the_user(tmp_path, EACH_BY_ITSELF, *names)
    assert said.stdout.split() == names, said.stderr


def test_the_core_leaves_the_users_packages(tmp_path: Path) -> None:
    said = beside_packages_of_the_user(tmp_path, "import mtxl_rl, envs; print(envs.is_the_users)")
    assert said.stdout == "True\n", said.stderr


def test_packages_that_are_imported_already_are_named(tmp_path: Path) -> None:
    said = beside_packages_of_the_user(tmp_path, "import envs, mtxl_rl; mtxl_rl.load('runs/RUN')")
    last = said.stderr.splitlines()[-1]
    assert last.startswith(f"ValueError: 'envs' is here the package {tmp_path / 'envs'}, which")
    assert "rename it" in last
