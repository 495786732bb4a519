"""Tensors of one's own are trained on, evaluated, resumed, and told what is wrong with them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from inspect import unwrap
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from own_tensors import EchoEnv, ReusingEchoEnv, Wrong
from safetensors.torch import load_file
from torch.testing import assert_close

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.learning.acceleration import Trainer
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import start
from agents.trees import map_tensors, named_tensors
from envs.vectorized.categories import Categories, is_look_due
from envs.wrapped.guarded_env import EnvError
from mtxl_rl import evaluate, train
from mtxl_rl.config import EvaluateConfig
from mtxl_rl.evaluations import evaluation
from mtxl_rl.inspector.recording import Recorder
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.progress import Ticker

NUM_ENVS = 3
ACTIONS = torch.zeros(NUM_ENVS, dtype=torch.int64)


class SplitReusingEnv(ReusingEchoEnv):
    """Its step is in two parts."""

    def host_step(self) -> None:
        pass

    def device_step(self, actions: torch.Tensor) -> envs.EnvStep:
        return super().step(actions)


def test_a_batch_is_made_as_it_was_asked_for() -> None:
    env = envs.make("own_tensors:own/Echo-v0", NUM_ENVS, seed=2, env_kwargs={"length": 2})
    assert isinstance(env, EchoEnv)
    assert (env.backend, env.length, env.num_envs) == ("tensor", 2, NUM_ENVS)
    assert 0 <= env.seed < 2**63
    again, other = (envs.make("own/Echo-v0", NUM_ENVS, seed=seed) for seed in (2, 3))
    levels = envs.make("own/Echo-v0", NUM_ENVS, seed=2, level_seeds=[4, 5])
    assert isinstance(again, EchoEnv)
    assert isinstance(other, EchoEnv)
    assert isinstance(levels, EchoEnv)
    assert env.seed == again.seed
    assert len({env.seed, other.seed, levels.seed}) == 3
    env.reset()
    assert [env.step(ACTIONS).truncated.all().item() for _ in range(4)] == [False, True] * 2


def run(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    code = 0
    try:
        command.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


TINY = """
--num-envs 4 --eval-episodes 4 --device cpu --num-threads 1 --compile off --ppo.rollout-len 8
--ppo.num-minibatches 2 --core.dim 8 --core.depth 1 --core.heads 2 --core.seq-len 8
""".split()  # noqa: SIM905  (as one would type it)


@pytest.mark.parametrize("name", ["Echo", "SavedEcho"])
@pytest.mark.unchecked
def test_a_run_is_trained_evaluated_and_resumed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--env", f"own_tensors:own/{name}-v0", "--env-kwargs", '{"length": 5}', *TINY]
    one, other = tmp_path / "one", tmp_path / "other"
    code, out, err = run(train, monkeypatch, capsys, *options, "--run-dir", one,
                         "--total-frames", "128", "--checkpoint-every", "64")  # fmt: skip
    assert (code, err) == (0, "")
    assert "tensor backend" in out
    out = run(evaluate, monkeypatch, capsys, one, "--json", "--episodes", "4")[1]
    assert json.loads(out)["mean_length"] == 5
    _, _, err = run(evaluate, monkeypatch, capsys, one, "--max-steps", "3")
    assert "max_steps=3 cannot be set for environments that are tensors" in err
    assert f"or define bound_episodes in {name}Env" in err
    for resume in ((), ("--resume", other)):
        total = "128" if resume else "64"
        where = resume or (*options, "--run-dir", other, "--ppo.learning-rate-end", "None")
        code, out, err = run(train, monkeypatch, capsys, *where, "--total-frames", total)
        assert code == 0, err
    assert ("cannot save their state" in out) == (name == "Echo")
    whole = tmp_path / "whole"
    run(train, monkeypatch, capsys, *options, "--run-dir", whole, "--total-frames", "128",
        "--ppo.learning-rate-end", "None")  # fmt: skip
    weights, expected = (
        load_file(checkpoint.newest_checkpoint(run_dir) / checkpoint.MODEL)
        for run_dir in (other, whole)
    )
    is_same = all(torch.equal(weights[key], value) for key, value in expected.items())
    assert is_same == (name == "SavedEcho")


@pytest.mark.parametrize("form", [EchoEnv, ReusingEchoEnv, SplitReusingEnv])
def test_one_may_return_the_same_tensors_again(form: Any, wrong: Any) -> None:
    """What is trained on is what one that returns new ones is trained on, to the bit."""
    rollout, curves = trained_on("own/Echo-v0")
    seen_rollout, seen_curves = trained_on(wrong(form))
    expected, seen = (named_tensors(x, "rollout") for x in (rollout, seen_rollout))
    for name, tensor in expected.items():
        assert_close(seen[name], tensor, rtol=0, atol=0, msg=name)
    assert seen_curves == curves
    assert curves["losses/first_ratio_error"] < 1e-4


def trained_on(env_id: str) -> tuple[Any, dict[str, float]]:
    """Return the second of two rollouts, and the curves of the update by it."""
    env: Any = envs.make(env_id, NUM_ENVS, seed=2)
    torch.manual_seed(1)
    agent = ActorCritic(env.observation_space, env.action_space, core_config("gru", dim=8))
    config = PPOConfig(rollout_len=6, num_minibatches=1)
    trainer = Trainer(agent, PPO(agent, config), env, start(agent, env), config.rollout_len)
    trainer.collect()
    rollout = trainer.collect()
    return map_tensors(torch.clone, rollout), trainer.update(rollout, progress=0.0)


def test_an_id_is_registered_once_and_suggested() -> None:
    for env_id in ("own/Echo-v0", "CartPole-v1", "mtxl/MemoryS65-v0", "mtxl/Recall21-v0"):
        with pytest.raises(ValueError, match=f"^env_id='{env_id}' is registered already; choose"):
            envs.register(env_id, EchoEnv)
    with pytest.raises(ValueError, match=r"'not an id' cannot be registered .*write it like M"):
        envs.register("not an id", EchoEnv)
    with pytest.raises(ValueError, match=r"'a:Echo-v0' cannot be registered: a colon stands behi"):
        envs.register("a:Echo-v0", EchoEnv)
    for factory in (3, gymnasium.Env):
        with pytest.raises(
            ValueError, match=r"which must be a class of envs\.BatchedEnv, or a fun"
        ):
            unwrap(envs.register)("own/None-v0", factory)
    with pytest.raises(ValueError, match="did you mean own/Echo-v0"):
        envs.make("own/Eco-v0", 1)
    with pytest.raises(ValueError, match="did you mean own_tensors:own/"):
        envs.make("own_tensors:own/Eco-v0", 1)


def test_what_it_cannot_be_made_with_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'speed', which the constructor .* has: num_envs, d"):
        envs.make("own/Echo-v0", 1, env_kwargs={"speed": 3})
    with pytest.raises(ValueError, match="is tensors only; leave out backend='gymnasium'"):
        envs.make("own/Echo-v0", 1, backend="gymnasium")
    with pytest.raises(ValueError, match="backend='tensor' has none; leave it out"):
        envs.make("own/Echo-v0", 1, wrap=["TimeLimit"])
    with pytest.raises(ValueError, match=r"is tensors; make it by envs\.make"):
        gymnasium.make_vec("own/Echo-v0", num_envs=2)


@pytest.fixture
def wrong() -> Iterator[Any]:
    def register(factory: Any) -> str:
        envs.register("own/Wrong-v0", factory)
        return "own/Wrong-v0"

    yield register
    gymnasium.registry.pop("own/Wrong-v0")


def raising(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no GPU for it")


DOUBLES = spaces.Box(0, 1, (2,), np.float64)
STARTS = {
    "raises": (raising, "cannot be made: RuntimeError: no GPU for it; mend its constructor"),
    "no batch": (lambda *_, **__: 7, "its factory made int, not an envs.BatchedEnv; derive"),
    "size": (Wrong({"num_envs": 7}, {}), "has num_envs=7 on cpu, not the 3 on cpu that it was as"),
    "endless": (Wrong({"has_time_limit": False}, {}), "and no bound_episodes, so that an evaluat"),
    "actions": (Wrong({"action_space": spaces.MultiBinary(2)}, {}), "MultiBinary(2) is not suppo"),
    "spaces": (Wrong({"observation_space": spaces.Discrete(2)}, {}), "in its observation_space"),
    "numbers": (Wrong({"observation_space": spaces.Dict({"x": DOUBLES})}, {}),
                "float64)}; give a Dict of Discrete, MultiDiscrete, and Box of uint8 or float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_what_is_made_is_looked_at(name: str, wrong: Any) -> None:
    factory, message = STARTS[name]
    with pytest.raises(ValueError, match=r"^env='own/Wrong-v0'") as error:
        envs.make(wrong(factory), NUM_ENVS)
    assert message in str(error.value)


TIMES = torch.zeros(NUM_ENVS, 1)
BEYOND, BELOW = ({"symbol": torch.tensor([0, 1, number]), "time": TIMES} for number in (2, -1))
CUT = torch.tensor([False, False, True])
LOST = {"symbol": torch.zeros(2), "time": torch.zeros(NUM_ENVS, 1)}
STEPS = {
    "reward": ({"reward": torch.zeros(NUM_ENVS, dtype=torch.float64)},
               "as reward a tensor (3,) of torch.float64 on cpu, not a tensor (3,) of torch.fl"),
    "array": ({"truncated": np.zeros(NUM_ENVS, bool)}, "as truncated an array of shape (3,) and d"),
    "flags": ({"terminated": torch.zeros(NUM_ENVS)}, "as terminated a tensor (3,) of torch.float"),
    "rows": ({"observation": LOST}, "returned for 'symbol' a tensor (2,) of torch.float32 on cpu"),
    "keys": ({"observation": {"symbol": 1}}, "returned the observation symbol, not symbol, time"),
    "final": ({"truncated": torch.ones(NUM_ENVS, dtype=torch.bool), "final_observation": None},
              "truncated an episode and returned no final_observation"),
    "beyond": ({"observation": BEYOND}, "returned for 'symbol' of env 2 the number 2, not one fro"),
    "below": ({"observation": BELOW}, "for 'symbol' of env 2 the number -1, not one from 0 to 1"),
    "beyond at the end": ({"truncated": CUT, "final_observation": BEYOND}, "env 2 the number 2, n"),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_what_a_step_returns_is_looked_at(name: str, wrong: Any) -> None:
    fields, message = STEPS[name]
    env = envs.make(wrong(Wrong({}, fields)), NUM_ENVS)
    env.reset()
    env.step(ACTIONS)
    env.step(ACTIONS)
    with pytest.raises(EnvError, match=r"^own/Wrong-v0: step 3 ") as error:
        env.step(ACTIONS)
    assert re.search(re.escape(message), str(error.value))


def test_what_it_raises_is_named(wrong: Any) -> None:
    env = envs.make(wrong(Wrong({}, {})), NUM_ENVS)
    env.reset()
    with pytest.raises(EnvError, match=r"^own/Wrong-v0: step 1 failed: RuntimeError: .*size"):
        env.step(torch.zeros(7, dtype=torch.int64))


class SplitEnv(EchoEnv):
    """A step in two parts; symbols are wrong from the fourth on."""

    num_steps = 0

    def host_step(self) -> None:
        self.num_steps += 1

    def device_step(self, actions: torch.Tensor) -> envs.EnvStep:
        result = super().step(actions)
        is_wrong = self.num_steps > 3
        return result._replace(observation=BEYOND) if is_wrong else result

    def step(self, actions: torch.Tensor) -> envs.EnvStep:
        self.host_step()
        return self.device_step(actions)


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_parts_of_a_step_are_looked_at_too(is_whole: bool, wrong: Any) -> None:
    env: Any = envs.make(wrong(SplitEnv), NUM_ENVS)
    env.reset()
    for step in range(1, 5):
        with pytest.raises(EnvError, match=r"step 4 .* env 2") if step == 4 else nullcontext():
            if is_whole:
                env.step(ACTIONS)
            else:
                env.host_step()
                env.device_step(ACTIONS)


def test_on_a_gpu_wrong_numbers_are_noted_and_looked_at_now_and_then() -> None:
    grid = spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]))
    parts = {"grid": grid, "text": spaces.Box(0, 255, (2,), np.uint8), "x": spaces.Box(-1, 1, (1,))}
    env: Any = EchoEnv(NUM_ENVS, torch.device("cpu"), 0)
    env.observation_space = spaces.Dict(parts)
    noted = Categories(env, is_at_once=False)
    seen = {"grid": torch.ones(NUM_ENVS, 2, 2, dtype=torch.int8), "x": -TIMES,
            "text": torch.full((NUM_ENVS, 2), 255, dtype=torch.uint8)}  # fmt: skip
    for name, tensor in noted.checked("", seen).items():
        assert_close(tensor, seen[name], rtol=0, atol=0)
    noted.look("")
    grids = seen["grid"].clone()
    grids[1, 1, 0], grids[2, 0, 1] = 4, 3
    wrong = seen | {"grid": grids}
    cleaned = noted.checked("", wrong, rows=torch.zeros(NUM_ENVS, dtype=torch.bool))["grid"]
    assert (cleaned.dtype, cleaned[1, 1, 0], cleaned[2, 0, 1], cleaned.sum()) == (
        torch.int8,
        0,
        0,
        10,
    )
    noted.look("")  # these rows mean nothing
    noted.checked("", wrong)
    noted.checked("", seen | {"grid": grids + 9})  # the first counts
    with pytest.raises(EnvError, match=r"^s returned for 'grid' of env 1 the number 4, .* 0 to 3$"):
        noted.look("s")
    wide = seen | {"text": torch.full((NUM_ENVS, 2), 256)}
    with pytest.raises(EnvError, match=r"'text' of env 0 the number 256, not one from 0 to 255"):
        Categories(env, is_at_once=True).checked("s", wide)
    assert [step for step in range(1, 200) if is_look_due(step)] == [
        1,
        2,
        4,
        8,
        16,
        32,
        64,
        128,
        192,
    ]


def test_an_evaluation_of_what_never_ends_does(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_IDLE", 20)
    monkeypatch.setattr(evaluation, "UNKNOWN_BOUND", 0)
    env_id = wrong(partial(EchoEnv, length=10**9))
    env = envs.make(env_id, 1)
    agent = ActorCritic(env.observation_space, env.action_space, core_config("gru", dim=8))
    said = "in {} steps, .* or set has_time_limit = False and define bound_episodes"
    for longest, steps in ((0, 21), (3, 31)):
        with pytest.raises(EnvError, match=said.format(steps)):
            evaluation.evaluate_agent(agent, env_id, EvaluateConfig(episodes=2), longest=longest)
    with pytest.raises(EnvError, match=said.format(21)):
        Recorder(agent, env, Ticker()).record()
