"""What the README and the documents show is so."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
from programs import ROOT
from torch import Tensor

import envs

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, Tensor] = {}
    exec(program, names)
    assert names["y"].shape == (4, 50, 128)
    assert names["y_t"].shape == (4, 128)


def test_the_example_of_environments_runs() -> None:
    text = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["observation"]["image"].shape == (1024, 7, 7, 3)
    assert names["picture"].std() > 0
    names["vector_env"].close()


def test_an_environment_of_your_own_is_as_the_page_says() -> None:
    page = ROOT / "docs" / "your_own_environment.md"
    names: dict[str, Any] = {}
    for program in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(program, names)
    try:
        env = envs.make("Corridor-v0", 4, env_kwargs={"memory_length": 2})
        answer = env.reset()["observation"]
        assert env.has_cue
        steps = [env.step(answer) for _ in range(3)]
        cues = [step.cue.tolist() for step in steps if step.cue is not None]
        assert cues == [answer.tolist(), [-1] * 4, [-1] * 4]
        assert steps[-1].success.all()
        assert steps[-1].terminated.all()
        assert env.has_success
        assert names["stacked"](names["Corridor"]()).observation_space.shape == (4,)
        tensors = envs.make("First-v0", 4, env_kwargs={"length": 3})
        for _ in range(2):
            first = tensors.reset()["symbol"]
            rewards = [tensors.step(first).reward.tolist() for _ in range(3)]
            assert rewards == [[0] * 4, [0] * 4, [1] * 4]
    finally:
        del gymnasium.registry["Corridor-v0"], gymnasium.registry["First-v0"]


def test_every_file_it_names_exists() -> None:
    names = set(re.findall(r"\w+\.py\b|LOG\.md|docs/\w+\.png", README))
    assert len(names) > 5
    for name in names:
        found = (*ROOT.glob(name), *ROOT.glob(f"[a-z]*/{name}"), *ROOT.glob(f"[a-z]*/*/{name}"))
        assert found, name
    (tree,) = re.findall(r"## Where things are\n\n```\n(.*?)```", README, flags=re.DOTALL)
    folders = re.findall(r"\b(\w+)/", tree)
    assert len(folders) > 10
    for folder in folders:
        found = [*ROOT.glob(folder), *ROOT.glob(f"[a-z]*/{folder}")]
        assert found, folder
