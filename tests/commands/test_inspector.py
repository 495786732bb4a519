"""What the inspector shows is so."""

from __future__ import annotations

import base64
import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import odd_env  # noqa: F401  (registers its ids)
import pytest
import torch
from browser import browser, complaints
from gymnasium import spaces
from small_run import small_run
from torch import Tensor
from torch.testing import assert_close

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import CoreKind
from mtxl_rl import MemoryTransformerXL
from mtxl_rl.core.parts.long_memory import GatedWrite
from mtxl_rl.core.transformer import MemWrite
from mtxl_rl.inspect import InspectConfig, inspect, inspect_runs
from mtxl_rl.inspector.page import authorship
from mtxl_rl.inspector.pictures import Camera, encode, picture_of, words_of
from mtxl_rl.inspector.probe import Samples, fit
from mtxl_rl.inspector.recording import Recorder, Recording, laid_out
from mtxl_rl.inspector.replay import distances, find_donor, replay
from mtxl_rl.inspector.thinning import Thinned
from mtxl_rl.inspector.watching import watching
from mtxl_rl.policies.policy import load
from mtxl_rl.runs import progress
from mtxl_rl.runs.checkpoint import newest_checkpoint
from mtxl_rl.runs.progress import Ticker

RECALL = "mtxl/Recall20x3-v0"
CORE: dict[str, Any] = {
    "dim": 12, "depth": 2, "seq_len": 5, "mem_len": 3, "lmem_len": 2, "heads": 3, "num_mem_kv": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "recall", RECALL)


@pytest.fixture(scope="module")
def recordings(run: Path) -> list[Recording]:
    return record(load(run, device="cpu").agent)


def record(agent: ActorCritic) -> list[Recording]:
    torch.manual_seed(1)
    recorder = Recorder(agent, envs.make(RECALL, 1, seed=1), Ticker())
    return [recorder.record() for _ in range(6)]


@pytest.mark.parametrize("write", ["gated", "parts"])
@pytest.mark.parametrize("options", [{}, {"memory_layers": [2]}, {"one_kv_head": True}])
def test_the_weights_give_the_output_of_attention(options: dict[str, Any], write: MemWrite) -> None:
    torch.manual_seed(1)
    core = MemoryTransformerXL(**CORE, **options, mem_write=write)
    num_calls = 0

    def check(attention: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal num_calls
        num_calls += 1
        mixed = attention.weights(*inputs) @ inputs[1][1]  # (B, H, T, K)
        assert_close(attention.out(mixed.transpose(1, 2).flatten(2)), output)

    for layer in core.layers:
        layer.attention.register_forward_hook(check)
    reset = torch.rand(2, 13) < 0.2
    core(torch.randn(2, 13, 12), None, reset)
    # two segments and a piece; the last layer runs segments at once, and by parts all do
    assert num_calls == {"gated": 3 + 2, "parts": 2 + 2}[write]


def test_the_keys_of_a_step_lie_at_their_places() -> None:
    torch.manual_seed(1)
    core = MemoryTransformerXL(**CORE)
    x = torch.randn(1, 15, 12)
    reset = torch.zeros(1, 15, dtype=torch.bool)
    _, state = core(x[:, :10], None, reset[:, :10])
    with watching(core) as seen:
        core(x[:, 10:], state, reset[:, 10:])
        whole = [weights[0] for weights in seen.attention]  # (H, W, J) of each layer
        for step in range(5):
            seen.clear()
            _, state = core(x[:, 10 + step, None], state, reset[:, 10 + step, None])
            rows = laid_out(core, seen.attention)
            expected = torch.stack([weights[:, step] for weights in whole])
            assert np.abs(rows / 255 - expected.numpy()).max() < 0.003
            assert not rows[..., 1 + 2 + 3 + step + 1 :].any()


def test_the_core_is_left_without_hooks() -> None:
    core = MemoryTransformerXL(**CORE)
    with watching(core):
        assert core.layers[0].attention._forward_pre_hooks
    assert not core.layers[0].attention._forward_pre_hooks
    assert core.long_memory is not None
    assert not core.long_memory._forward_pre_hooks


@pytest.mark.parametrize("write", ["gated", "parts"])
def test_who_wrote_a_slot_adds_up_to_it(write: MemWrite) -> None:
    torch.manual_seed(1)
    core = MemoryTransformerXL(**CORE, mem_write=write)
    long_memory = core.long_memory
    assert isinstance(long_memory, GatedWrite)
    recording, values = Recording(), []
    slots: list[Tensor] = []

    def note(_: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        gates, value = long_memory.gates_and_values(inputs[0], inputs[1])
        recording.gates.extend(gates[0].detach())
        recording.memory_steps.append(len(recording.gates))
        values.extend(value[0].detach())
        before = slots[-1] if slots else long_memory.initial_slot.detach()
        retention, written = (each[0].detach() for each in output)
        slots.append(retention * before + written)

    long_memory.register_forward_hook(note)
    state = None
    for segment in torch.randn(1, 20, 12).split(5, dim=1):  # one write in each call
        _, state = core(segment, state, torch.zeros(1, 5, dtype=torch.bool))
    assert len(slots) == 4
    parts = (2, long_memory.num_parts)  # of two slots
    initial = long_memory.initial_slot.detach().view(*parts, -1)
    for found, (share, start, last) in zip(slots, authorship(recording), strict=True):
        each = torch.stack(values[: len(share)]).view(len(share), parts[1], -1)
        shares = torch.as_tensor(share).float().view(-1, *parts)
        written = torch.einsum("tsg,tgd->sgd", shares, each)
        kept = torch.as_tensor(start).float().view(*parts, 1) * initial
        assert_close((written + kept).flatten(1), found)
        assert (np.array(share.shape[0]) > last).all()


def test_a_replay_with_its_own_memory_is_the_episode(
    run: Path, recordings: list[Recording]
) -> None:
    agent = load(run, device="cpu").agent
    recording = recordings[0]
    played = torch.stack(recording.policy)
    assert_close(replay(agent, recording), played, atol=1e-5, rtol=0)
    assert_close(replay(agent, recording, donor=recording), played, atol=1e-5, rtol=0)


@pytest.mark.parametrize("write", ["gated", "parts"])
def test_another_memory_acts_from_the_first_write_on(tmp_path: Path, write: MemWrite) -> None:
    agent = load(small_run(tmp_path / "run", RECALL, mem_write=write), device="cpu").agent
    recordings = record(agent)
    recording = recordings[0]
    donor = find_donor(recording, recordings)
    assert donor is not None
    assert max(donor.cue) != max(recording.cue)
    played = torch.stack(recording.policy)
    others = [replay(agent, recording, is_cleared=True)]
    if write == "gated":  # by parts an agent with such random weights writes nothing of its cues
        others.append(replay(agent, recording, donor=donor))
    for other in others:
        distance = distances(played, other, agent.actor.sizes)
        assert distance[:5].max() < 1e-5
        assert (distance[5:] > 1e-5).float().mean() > 0.8


def test_distances_worked_by_hand() -> None:
    policy = torch.tensor([[0.5, 0.5, 0.2, 0.8], [1.0, 0.0, 1.0, 0.0]])
    other = torch.tensor([[0.5, 0.5, 0.6, 0.4], [0.0, 1.0, 1.0, 0.0]])
    assert_close(distances(policy, other, [2, 2]), torch.tensor([0.4, 1.0]))
    normal, moved = torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, 2.0]])
    # deviations of 2 and means that are two of them apart: 2 Phi(1) - 1
    assert_close(distances(normal, moved, []), torch.tensor([0.6827]), atol=1e-4, rtol=0)


def test_a_probe_reads_what_is_linear_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    episode = np.arange(60).repeat(10)
    cue = rng.integers(4, size=60)[episode]
    age = np.tile(np.arange(10), 60)
    digits = np.stack([cue & 1, cue >> 1], axis=1)
    memory = (digits @ rng.normal(size=(2, 7)) + 3).astype(np.float32)
    noise = rng.normal(size=memory.shape).astype(np.float32)
    probe = fit(Samples(memory, cue, age, episode))
    assert not isinstance(probe, str)
    assert probe.accuracy == [1.0] * len(probe.accuracy)
    assert (probe.read(memory) == cue).all()
    assert sum(probe.num_samples) == 200
    assert probe.ages[0][0] == 0
    assert probe.ages[-1][1] == 9
    blind = fit(Samples(noise, cue, age, episode))
    assert not isinstance(blind, str)
    assert np.mean(blind.accuracy) < 0.5
    assert "same cue" in str(fit(Samples(memory, cue * 0, age, episode)))
    assert "too few" in str(fit(Samples(memory[:50], cue[:50], age[:50], episode[:50])))


def test_thinning_keeps_within_its_bytes_and_what_is_important() -> None:
    thinned = Thinned(1000)
    for step in range(999):
        thinned.add(step, step.to_bytes(10, "big"), is_important=step == 333)
    assert sum(map(len, thinned.contents)) <= 1000
    assert 333 in thinned.steps
    assert thinned.steps == sorted(thinned.steps)
    assert len(thinned.steps) > 50
    equal = Thinned(1000)
    for step in range(999):
        equal.add(step, b"the same")
    assert len(equal.steps) == 999
    assert equal.contents == [b"the same"]


def test_what_the_agent_sees_is_drawn() -> None:
    frames = torch.zeros(1, 3, 40, 60, dtype=torch.uint8)
    frames[0, 1] = 200
    grid = torch.tensor([[[[10, 0, 3]] * 7] * 5])  # (1, 5, 7, 3)
    space = spaces.Dict({
        "picture": spaces.Box(0, 255, (3, 40, 60), np.uint8),
        "pose": spaces.Box(-9.0, 9.0, (2,), np.float32),
    })  # fmt: skip
    observation = {"picture": frames, "pose": torch.tensor([[0.5, -8.25]])}
    picture = picture_of(observation, space)
    assert picture is not None
    assert picture.shape == (40, 60, 3)
    assert (picture == [0, 200, 0]).all()
    assert words_of(observation, space) == "pose: 0.5 -8.25"
    sizes = np.broadcast_to([11, 6, 4], (5, 7, 3))
    cells = picture_of({"grid": grid}, spaces.Dict({"grid": spaces.MultiDiscrete(sizes)}))
    assert cells is not None
    assert (cells == [255, 0, 255]).all()
    noise = np.random.default_rng(1).integers(256, size=(400, 600, 3), dtype=np.uint8)
    assert encode(picture).startswith(b"\x89PNG")
    assert encode(noise).startswith(b"\xff\xd8")  # JPEG
    assert len(encode(noise)) < 40_000


def page_data(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"https?://|//cdn", text)  # nothing is fetched
    (found,) = re.findall(r'type="application/json">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(found)


@pytest.mark.parametrize(
    ("env_id", "kind", "has"),
    [
        (RECALL, "mtxl", {"gates", "writers", "change", "attention", "reads"}),
        ("MiniGrid-MemoryS7-v0", "gtrxl", {"attention"}),
        ("CartPole-v1", "lstm", {"change"}),
        ("Pendulum-v1", "mtxl", {"gates", "writers", "change", "attention"}),
        ("mtxl/Recall6-v0", "deltanet", {"change", "reads"}),
        ("CartPole-v1", "feedforward", set()),
    ],
)
@pytest.mark.unchecked
def test_a_page_shows_what_there_is(
    tmp_path: Path,
    env_id: str,
    kind: CoreKind,
    has: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    transformer = {"dim": 12, "depth": 2, "heads": 3, "seq_len": 5, "mem_len": 3}
    options = {"gtrxl": transformer, "deltanet": {"heads": 3}}.get(kind, {})
    folder = small_run(tmp_path / "run", env_id, kind, **options)
    out = inspect(folder, InspectConfig(episodes=2))
    data = page_data(out)
    assert len(data["episodes"]) == 2
    for episode in data["episodes"]:
        parts = {"gates", "writers", "change", "attention", "reads"}
        assert parts & episode.keys() == has
        assert episode["words"]["steps"][0] == 0
        assert len(episode["actions"]) == episode["length"]
        names = [variant["short"] for variant in episode["variants"]]
        assert names[0] == "as it is"
        assert ("without" in names) == (kind != "feedforward")
    assert bool(data["notes"]) == (kind in ("gtrxl", "feedforward") or env_id[0] in "CP")
    said = capsys.readouterr().err  # where it is, every LINE_SECONDS
    assert f"{folder}: episode 2 of 2, step 1\n" in said
    assert (f"{folder}: probe, 96 episodes at once, step 1\n" in said) == ("reads" in has)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [400, pytest.param(10_000, marks=pytest.mark.proof)])
@pytest.mark.unchecked
def test_a_long_episode_is_a_small_page(tmp_path: Path, run: Path, delay: int) -> None:
    out = tmp_path / "page.html"
    inspect(run, InspectConfig(episodes=1, env=f"mtxl/Recall{delay}x3-v0", out=out))
    assert page_data(out)["episodes"][0]["length"] > delay
    assert out.stat().st_size < 10e6


@pytest.mark.parametrize("kind", ["mtxl", "gru"])
def test_what_is_not_finite_is_said_and_leaves_a_gap(tmp_path: Path, kind: CoreKind) -> None:
    run = small_run(tmp_path / "run", "Odd-Nan-v0", kind)
    words = "episode 1: observation.observation is nan in env 0, from step 3 of the episode"
    with pytest.warns(RuntimeWarning, match=words):
        out = inspect(run, InspectConfig(episodes=1))
    (episode,) = page_data(out)["episodes"]
    assert "from step 3 of the episode" in episode["summary"]
    curves = [episode["value"], *(each["distance"] for each in episode["variants"][1:])]
    for curve in curves:
        numbers = np.frombuffer(base64.b64decode(curve["data"]), "<f4")
        assert np.isfinite(numbers[:3]).all()
        assert np.isnan(numbers[3])
    assert "nan" not in episode["variants"][1]["parting"]
    assert "of 5 steps it is not finite" in episode["variants"][1]["parting"]


def test_episodes_without_an_end_are_cut_where_one_says(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an agent that is named by one of its checkpoints."""
    place = newest_checkpoint(small_run(tmp_path / "run", "Odd-Endless-v0"))
    out = inspect(place, InspectConfig(episodes=2, max_steps=7))
    assert out == tmp_path / "run" / "inspect.html"
    assert [each["length"] for each in page_data(out)["episodes"]] == [7, 7]
    said = f"{place}: 2 of 2 episodes were cut at 7 steps; --max-steps sets it"
    assert said in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"max_steps=7 cannot .* --backend gymnasium in training"):
        inspect(run, InspectConfig(max_steps=7))
    with pytest.raises(ValueError, match="max_steps=0 must be 1 or more"):
        InspectConfig(max_steps=0)


def test_what_cannot_be_is_said_at_once(run: Path) -> None:
    with pytest.raises(ValueError, match=r"config.json must end in .html"):
        inspect(run, InspectConfig(out=run / "config.json"))
    with pytest.raises(ValueError, match="episodes=0 must be from 1 to 20"):
        InspectConfig(episodes=0)
    with pytest.raises(ValueError, match="seed=-1 must be 0 or more"):
        InspectConfig(seed=-1)


@pytest.mark.parametrize(
    ("error", "is_news"),
    [(NotImplementedError(), False), (ValueError("no mode"), False), (RuntimeError("oops"), True)],
)
def test_that_an_environment_draws_nothing_is_no_news(
    error: Exception, is_news: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(*_: Any) -> None:
        raise error

    env = envs.make("CartPole-v1", 1)
    monkeypatch.setattr(type(env), "render", render)
    with pytest.warns(RuntimeWarning, match="oops; its obs") if is_news else nullcontext():
        assert Camera(env).take(env.reset()) is None


@pytest.mark.parametrize("kind", ["mtxl", "gru"])
def test_a_browser_opens_the_page_and_steps(tmp_path: Path, kind: CoreKind) -> None:
    with browser() as chrome:
        out = inspect(small_run(tmp_path / "run", RECALL, kind), InspectConfig(episodes=2))
        chrome.get(f"file://{out}")
        body = chrome.find_element("tag name", "body")
        assert body.get_attribute("data-ready") == "yes"
        body.send_keys("\ue014", "\ue014", "\ue012")  # right, right, left
        assert body.get_attribute("data-step") == "1"
        body.send_keys("\ue010")  # the end
        assert body.get_attribute("data-step") == chrome.find_element("id", "slider").get_attribute(
            "max"
        )
        chrome.find_element("xpath", "//button[text()='episode 2']").click()
        assert body.get_attribute("data-episode") == "1"
        assert "read from memory" in chrome.find_element("id", "now").text
        assert complaints(chrome) == []


def test_runs_side_by_side_go_together(tmp_path: Path) -> None:
    kinds: list[CoreKind] = ["mtxl", "gru"]
    with browser() as chrome:
        runs = tuple(small_run(tmp_path / kind, RECALL, kind) for kind in kinds)
        out = inspect_runs(runs, InspectConfig(episodes=2))
        assert out == tmp_path / "inspect.html"
        assert not (tmp_path / "mtxl" / "inspect.html").exists()
        chrome.get(f"file://{out}")
        body = chrome.find_element("tag name", "body")
        assert body.get_attribute("data-ready") == "yes"
        frames = chrome.find_elements("tag name", "iframe")

        def seen() -> list[tuple[str, str, str]]:
            found = []
            for frame in frames:
                chrome.switch_to.frame(frame)
                inner = chrome.find_element("tag name", "body")
                where = [inner.get_attribute(f"data-{name}") for name in ("episode", "step")]
                cues = [row.text for row in chrome.find_elements("css selector", "#now tr")]
                found.append((*where, next(cue for cue in cues if cue.startswith("cue before"))))
                chrome.switch_to.default_content()
            return found

        body.send_keys("\ue014", "\ue014", "\ue014")  # right: the first run leads
        assert [each[:2] for each in seen()] == [("0", "3")] * 2
        chrome.switch_to.frame(frames[1])
        chrome.find_element("xpath", "//button[text()='episode 2']").click()
        chrome.find_element("tag name", "body").send_keys("\ue012")  # left
        chrome.switch_to.default_content()
        assert [each[:2] for each in seen()] == [("1", "2")] * 2
        assert len(set(seen())) == 1  # the same level
        assert complaints(chrome) == []


@pytest.mark.parametrize("number", [0, 9])
def test_a_page_has_one_to_eight_runs(number: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{number} runs are named, and a page has 1 to 8"):
        inspect_runs((tmp_path,) * number, InspectConfig())
