"""Encoders from outside of the package: `docs/your_own_encoder.md` holds them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from programs import ROOT
from torch import Tensor
from torch.testing import assert_close

from agents.cores.core import core_config
from agents.encoders.encoder import Encoder
from agents.spaces import space_differences
from experiments.grids.grid import make_cells
from mtxl_rl import evaluate
from mtxl_rl.command import RunFailed
from mtxl_rl.config import TrainConfig
from mtxl_rl.policies import policy
from mtxl_rl.train import read_options, train

PAGE = ROOT / "docs" / "your_own_encoder.md"
NAME, ALL = "my_encoders:Convolutions", "my_encoders:Everything"
ONE = f"image={NAME}"
SYMBOLS = "observation=more_encoders:symbols"
SPACE = spaces.Dict({"image": spaces.MultiDiscrete(np.tile([11, 6], (4, 5, 1))),
                     "direction": spaces.Discrete(4)})  # fmt: skip
MORE = '''
import torch
from torch import nn


class Halves(nn.Module):
    """Keeps the upper half, counts what it has seen."""

    def __init__(self, space, dim):
        super().__init__()
        self.dim = dim
        self.register_buffer("count", torch.zeros(()))

    def see(self, grid):
        return grid[:, :2]

    def observe_(self, grid):
        self.count += grid.shape[0]

    def forward(self, grid):
        return grid.float().flatten(-3).mean(-1, keepdim=True).expand(*grid.shape[:-3], self.dim)


class Flat(nn.Module):
    def __init__(self, space, dim):
        super().__init__()

    def forward(self, grid):
        return grid.float().flatten(1)


class Fails(Halves):
    def forward(self, grid):
        return grid["image"]


class Norm(nn.Module):
    def __init__(self, space, dim):
        super().__init__()
        self.embedding, self.norm = symbols(space, dim), nn.BatchNorm1d(dim)

    def forward(self, symbols):
        return self.norm(self.embedding(symbols).flatten(0, -2)).view(*symbols.shape, -1)


class Typed(Halves):
    dtype = torch.float32

    def forward(self, grid):
        return super().forward(grid).to(self.dtype)


class OfDoubles(Typed):
    dtype = torch.float64


class OfIntegers(Typed):
    dtype = torch.int64


class OfHalves(Typed):
    dtype = torch.bfloat16


class InSequences(Typed):
    def forward(self, grid):
        return super().forward(grid).to(torch.float64 if grid.dim() > 4 else self.dtype)


def nothing(space, dim):
    return None


class WholeNumbers(nn.Module):
    def __init__(self, space, dim):
        super().__init__()
        self.dim = dim

    def forward(self, observation):
        return observation["direction"][..., None].expand(*observation["direction"].shape, self.dim)


def symbols(space, dim):
    return nn.Embedding(int(space.n), dim)
'''


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    (tmp_path / "my_encoders.py").write_text(program)
    (tmp_path / "more_encoders.py").write_text(MORE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("my_encoders", "more_encoders"):
        sys.modules.pop(name, None)


def observation(*shape: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"image": torch.randint(6, (*shape, 4, 5, 2), dtype=torch.uint8),
            "direction": torch.randint(4, shape)}  # fmt: skip


@pytest.mark.parametrize("own", [ONE, ALL])
def test_reads_what_it_is_for(own: str) -> None:
    encoder = Encoder(SPACE, 8, own=[own])
    sequence = observation(2, 3)
    past = torch.zeros(2, 3, 8), torch.zeros(2, 3)
    features = encoder(encoder.see(sequence), *past)
    assert features.shape == (2, 3, 8)
    step = {name: tensor[:, 1] for name, tensor in sequence.items()}
    assert_close(encoder(step, past[0][:, 1], past[1][:, 1]), features[:, 1])
    for name in ("image", "direction"):  # all of it is read
        other = sequence | {name: (sequence[name] + 1) % 4}
        assert not torch.allclose(encoder(other, *past), features)
    name = own.rpartition("=")[2]
    (words,) = (words for words in encoder.reads.values() if name in words)
    assert re.fullmatch(rf"{name} \([\d,]+ parameters\)", words)
    assert list(encoder.reads) == (["all of it"] if own == ALL else ["direction", "image"])


def test_sees_and_observes_by_its_own_methods() -> None:
    encoder = Encoder(SPACE, 8, own=["image=more_encoders:Halves"])
    seen = encoder.see(observation(7))
    assert seen["image"].shape == (7, 2, 5, 2)
    encoder.observe_(seen)
    assert encoder.state_dict()["fields.1.count"] == 7


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (["imag=my_encoders:Convolutions"], "does not have; did you mean image? It must be one"),
        ([ONE, ONE], "names two for image; leave one out"),
        ([ALL, ALL], "names two for all of the observation; leave one out"),
        ([ALL, ONE], "names one for all of the observation, and one for a part; leave one out"),
        (["image=my_encoders:Convolution"], "did you mean my_encoders:Convolutions?"),
        (["image=my_encoder:Convolutions"], "which cannot be imported (ModuleNotFoundError"),
        (["image=Convolutions"], "encoder='Convolutions' must be module:Name"),
        (["direction=my_encoders:Convolutions"], "for 'direction', Discrete(4), fails with Value"),
        (["image=more_encoders:Flat"], "makes [(2, 40), (2, 120)] of observations (2, ...)"),
        (["image=more_encoders:Fails"], "fails with IndexError"),
        (["image=more_encoders:nothing"], "it makes None, and must make a torch.nn.Module"),
        (["image=more_encoders:OfDoubles"], "makes features of torch.float64; return those of tor"),
        (["image=more_encoders:OfIntegers"], "makes features of torch.int64; return those of torc"),
        (["image=more_encoders:OfHalves"], "makes features of torch.bfloat16; return those of tor"),
        (["image=more_encoders:InSequences"], "makes features of torch.float32 and torch.float64;"),
    ],
)
def test_what_is_no_encoder_is_said_in_one_line(own: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        Encoder(SPACE, 8, own=own)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_space_is_said_in_few_words() -> None:
    with pytest.raises(
        ValueError, match=r"for 'image', MultiDiscrete \(4, 5, 2\) of up to 11, fai"
    ):
        Encoder(SPACE, 8, own=["image=more_encoders:Fails"])
    said = r"Dict\(direction: Discrete\(4\), image: MultiDiscrete \(4, 5, 2\) of up to 11\), makes"
    with pytest.raises(ValueError, match=said):
        Encoder(SPACE, 8, own=["more_encoders:WholeNumbers"])
    grid, box = spaces.MultiDiscrete(np.full((2, 2), 3)), spaces.Box(-1, 1, (2,))
    here = spaces.Dict({"image": grid, "x": box}), spaces.Discrete(2)
    there = (
        spaces.Dict({"image": spaces.MultiDiscrete(np.array([[3, 3], [3, 2]]))}),
        spaces.Discrete(3),
    )
    assert space_differences(here, there) == (
        "image: MultiDiscrete (2, 2) of up to 3, x: Box (2,) float32 from -1.0 to 1.0, "
        "actions: Discrete(2)",
        "image: MultiDiscrete (2, 2) of up to 3 with other numbers, no x, actions: Discrete(3)",
    )
    assert space_differences(here, here) == ("", "")


def test_trains_is_saved_resumed_and_evaluated(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(read_options([
        "--env", "mtxl/Recall6-v0", "--num-envs", "4", "--ppo.rollout-len", "8",
        "--eval-episodes", "2", "--device", "cpu", "--core.dim", "8", "--core.kind", "gru",
        "--num-threads", "1",
        "--encoder", SYMBOLS, "--total-frames", "64", "--run-dir", str(run),
    ]))  # fmt: skip
    assert json.loads((run / "config.json").read_text())["core"]["encoder"] == [SYMBOLS]
    train(read_options(["--resume", str(run), "--total-frames", "128"]))
    evaluate.evaluate(run, evaluate.EvaluateConfig(episodes=2, num_threads=1))
    reads = policy.load(run, device="cpu").agent.encoder.reads
    assert reads == {"observation": "more_encoders:symbols (32 parameters)"}
    with pytest.raises(
        ValueError, match=rf"core\.encoder is .*{SYMBOLS}.* in the run and \['{ALL}'"
    ):
        read_options(["--resume", str(run), "--core.encoder", ALL])
    assert read_options(["--resume", str(run), "--encoder", SYMBOLS]).core.encoder == (SYMBOLS,)


def test_one_that_is_another_function_in_training_is_named(tmp_path: Path) -> None:
    own = "more_encoders:Norm"
    given = f"observation={own}"
    with pytest.raises(
        RunFailed, match=f"one function, and {own} seems not to be: .*BatchN"
    ) as raised:
        train(read_options([
            "--env", "mtxl/Recall6-v0", "--num-envs", "4", "--ppo.rollout-len", "8",
            "--device", "cpu", "--core.dim", "8", "--core.kind", "gru", "--num-threads", "1",
            "--encoder", given, "--total-frames", "64", "--run-dir", str(tmp_path / "run"),
        ]))  # fmt: skip
    assert not re.search("resume|defect", str(raised.value))


def test_in_grids_it_takes_the_place_of_the_base_and_is_tried_before_anything_starts() -> None:
    base = TrainConfig(env="MiniGrid-MemoryS7-v0", core=core_config("gru", dim=8, encoder=(ONE,)))
    both = f"{ONE} direction=more_encoders:symbols"
    cells = make_cells(Path("grid"), base, {"core.encoder": ["", ALL, both]}, 1)
    assert [cell.config.core.encoder for cell in cells] == [(), (ALL,), tuple(both.split())]
    for wrong, words in (
        ("nomod:X", "names the module 'nomod'"),
        (f"direction={NAME}", "fails with"),
    ):
        with pytest.raises(ValueError, match=f"^cell encoder=.*{words}"):
            make_cells(Path("grid"), base, {"core.encoder": [ALL, wrong]}, 1)
