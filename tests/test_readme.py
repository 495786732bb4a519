"""What the README shows is so."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, Tensor] = {}
    exec(program, names)
    assert names["y"].shape == (4, 50, 128)
    assert names["y_t"].shape == (4, 128)


def test_every_file_it_names_exists() -> None:
    root = Path(__file__).parents[1]
    names = set(re.findall(r"\w+\.py|LOG\.md|docs/\w+\.png", README))
    assert len(names) > 20
    for name in names:
        assert any(root.glob(name)) or any(root.glob(f"*/{Path(name).name}")), name
