"""The two commands, end to end on a tiny run, and the mistakes that users make."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file
from torch.testing import assert_close

import envs
from agents.cores.core import core_config
from agents.cores.memory_core import MTXLConfig
from agents.learning.ppo import PPOConfig
from envs import Backend
from envs.grids.grid_env import GridEnv
from envs.levels.level_pool import POOL_LEN
from envs.wrapped.gymnasium_adapter import GymnasiumEnv
from experiments.tables.runs import curve_tags, read_curve, read_events
from mtxl_rl import evaluate, train
from mtxl_rl.config import EvaluateConfig, TrainConfig, pick_precision
from mtxl_rl.run import Run
from mtxl_rl.runs.checkpoint import newest_checkpoint
from mtxl_rl.runs.metrics import EpisodeWindow
from mtxl_rl.runs.run_directory import load_config

pytestmark = pytest.mark.unchecked

Command = Callable[..., tuple[int, str, str]]
TINY = """
--total-frames 600 --num-envs 4 --eval-episodes 5 --device cpu --num-threads 1 --compile off
--ppo.rollout-len 32 --ppo.num-minibatches 2
--core.dim 16 --core.depth 1 --core.heads 2 --core.seq-len 8
""".split()  # noqa: SIM905  (as one would type it)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command's main and return (exit code, stdout, stderr)."""

    def run(main: Callable[[], None], *arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run on MiniGrid."""
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    config = TrainConfig(
        env="MiniGrid-MemoryS7-v0",
        env_kwargs={"max_steps": 40},  # episodes end within the 128 steps of each env
        total_frames=600,
        num_envs=4,
        eval_episodes=5,
        checkpoint_every=200,
        device="cpu",
        precision="float32",
        num_threads=1,
        run_dir=run_dir,
        core=core_config(dim=16, heads=2, depth=1, seq_len=8),
        ppo=PPOConfig(rollout_len=32, num_minibatches=2),
    )
    train.train(config)
    return run_dir


def test_run_directory_is_complete(trained: Path) -> None:
    assert json.loads((trained / "config.json").read_text())["env"] == "MiniGrid-MemoryS7-v0"
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert evaluation["episodes"] == 5
    assert 0 < evaluation["cue_seen_rate"] <= 1
    assert set(evaluation["interventions"]) >= {"cleared", "without-short", "without-long"}
    assert evaluation["interventions"]["cleared"]["episodes"] == 5
    assert evaluation["state_floats"] == (16 + 8) * 16 + 4 * 16
    assert evaluation["parameters"] > 10_000
    names = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert names == ["frames_000000000256", "frames_000000000512"]
    pickles = [path for path in trained.rglob("*") if path.suffix in (".pt", ".pkl", ".pth")]
    assert not pickles


def test_tensorboard_has_the_fields_tags(trained: Path) -> None:
    events = read_events(trained)
    tags = set(curve_tags(events))
    assert tags >= {
        "charts/episodic_return", "charts/episodic_length", "charts/success_rate", "charts/SPS",
        "charts/learning_rate", "losses/policy_loss", "losses/value_loss", "losses/entropy",
        "losses/approx_kl", "losses/clipfrac", "losses/explained_variance", "losses/grad_norm",
        "losses/first_ratio_error", "memory/write_size", "memory/gate_openness",
        "eval/success_rate", "eval/cue_seen_rate", "eval_intervened/success_rate_cleared",
        "cue/seen_rate", "cue/success_rate_if_seen", "cue/steps_since_seen",
    }  # fmt: skip
    assert "config/text_summary" in events.Tags()["tensors"]
    steps = [event.step for event in read_curve(events, "losses/value_loss")]
    assert steps == [128, 256, 384, 512]
    assert all(event.value < 1e-4 for event in read_curve(events, "losses/first_ratio_error"))


def test_evaluate_prints_one_json_object(trained: Path, command: Command) -> None:
    code, out, _ = command(evaluate.main, trained, "--episodes", 7, "--json", "--greedy")
    assert code == 0
    result = json.loads(out)
    assert result["episodes"] == 7
    assert result["frames"] == 512
    written = json.loads((trained / "evaluation.json").read_text())
    for name in ("parameters", "state_floats"):
        assert result[name] == written[name]
    assert 0 <= result["success_rate"] <= 1
    low, high = result["success_interval"]
    assert low <= result["success_rate"] <= high
    assert result["mean_length"] > 1
    assert result["mean_return"] <= 1


def test_bfloat16_is_the_default_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    wide, narrow = core_config(dim=128), core_config(dim=64)
    choice, number = spaces.Discrete(2), spaces.Box(-1, 1)
    for features, expected in (({"amx_bf16": True}, torch.bfloat16), ({}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=features: found, False)
        assert pick_precision("auto", cpu, wide, choice) == expected
        assert pick_precision("auto", cpu, wide, number) == torch.float32
        assert pick_precision("auto", cpu, narrow, choice) == torch.float32
        assert (
            pick_precision("auto", cpu, core_config(kind="gru", dim=128), choice) == torch.float32
        )
        assert pick_precision("bfloat16", cpu, narrow, number) == torch.bfloat16
        assert pick_precision("float32", cpu, wide, choice) == torch.float32


def test_starts_from_the_weights_of_another_task(
    trained: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def learn(run: Run) -> None:
        started.append(dict(run.trainer.agent.state_dict()))

    monkeypatch.setattr(Run, "learn", learn)
    core = ("--core.dim", 16, "--core.heads", 2, "--core.depth", 1, "--core.seq-len", 8)
    options = ("--num-envs", 4, "--ppo.rollout-len", 32, "--eval-episodes", 1, "--compile", "off",
               "--num-threads", 1, "--init-from", trained)  # fmt: skip
    run_dir = tmp_path / "run"
    code, _, err = command(
        train.main, "--env", "mtxl/TMaze7-v0", *core, *options, "--run-dir", run_dir
    )
    assert code == 0, err
    weights = load_file(trained / "checkpoints" / "frames_000000000512" / "model.safetensors")
    assert_close(started[0], weights, atol=0, rtol=0)
    assert load_config(run_dir).init_from == trained

    for changed, words in (
        (("--env", "mtxl/TMaze7-v0", *core, "--core.heads", 4), "core.heads is 2 there and 4 here"),
        (("--env", "CartPole-v1", *core), "does not fit the network"),
    ):
        code, _, err = command(train.main, *changed, *options, "--run-dir", tmp_path / "other")
        assert code == 2
        assert words in err
        assert not (tmp_path / "other").exists()


def test_evaluates_in_another_environment(trained: Path, command: Command) -> None:
    """Its own is of size 7: with a time limit of 245 steps."""
    options = ("--episodes", 8, "--num-envs", 4)
    code, out, err = command(evaluate.main, trained, *options, "--env", "mtxl/MemoryS9Cue-v0")
    assert code == 0, err
    assert out.startswith("mtxl/MemoryS9Cue-v0, mtxl after 512 frames, 8 episodes, memory kept")
    assert "Cue:          seen in 1.000 of the episodes" in out
    code, _, err = command(evaluate.main, trained, *options, "--env", "CartPole-v1")
    assert code == 2
    assert "but the agent was trained with no observation, " in err
    assert "image: MultiDiscrete (7, 7, 3) of up to 11; set --env" in err
    assert len(err) < 400


def test_evaluates_what_the_memory_does(trained: Path, command: Command) -> None:
    options = ("--episodes", 20, "--num-envs", 20, "--env", "mtxl/TMaze7-v0", "--memory")
    code, out, err = command(evaluate.main, trained, *options, "swapped-long")
    assert code == 0, err
    assert "memory swapped-long" in out
    code, _, err = command(evaluate.main, trained, *options[:-3], "--memory", "swapped-long",
                           "--num-envs", "1")  # fmt: skip
    assert code == 2
    assert "needs two envs or more that play at once, not 1" in err


def test_evaluation_is_the_same_for_the_same_seed(trained: Path, command: Command) -> None:
    def result(*options: str) -> str:
        return command(evaluate.main, trained, "--episodes", 9, "--json", *options)[1]

    assert result() == result()
    assert result() != result("--seed", "5")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the reader
@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_evaluate_films(trained: Path, command: Command, tmp_path: Path, suffix: str) -> None:
    video = tmp_path / "new" / f"episodes.{suffix}"
    options = ("--episodes", 2, "--num-envs", 1, "--video", video)
    code, out, err = command(evaluate.main, trained, *options)
    assert code == 0, err
    assert str(video) in out
    frames = iio.imread(video, plugin="pillow" if suffix == "gif" else "FFMPEG")
    assert len(frames) > 1
    assert frames.std() > 0


def test_train_says_what_it_did_and_what_to_do_next(tmp_path: Path, command: Command) -> None:
    run_dir = tmp_path / "run"
    options = ("--env", "mtxl/Recall6-v0", "--run-dir", run_dir)
    code, out, err = command(train.main, *TINY, *options)
    assert code == 0, err
    for word in (
        "parameters, ",
        " floats of state",
        "Success rate:",
        "without memory",
        "tensorboard.main --logdir",
        f"-m mtxl_rl.inspect {run_dir}",
        "Frames:       512 of 600, in whole updates of 128",
        str(run_dir),
    ):
        assert word in out


@pytest.mark.usefixtures("without_interventions")
@pytest.mark.parametrize(
    ("env_id", "kind"),
    [
        ("CartPole-v1", "mtxl"),
        ("Pendulum-v1", "gru"),
        ("Blackjack-v1", "lstm"),
        ("MiniGrid-Fetch-5x5-N2-v0", "gtrxl"),
        ("MiniGrid-DoorKey-5x5-v0", "feedforward"),
        ("MiniGrid-MemoryS7-v0", "mingru"),
        ("MiniGrid-Empty-5x5-v0", "deltanet"),
    ],
)
def test_trains_other_environments_with_every_core(
    env_id: str, kind: str, tmp_path: Path, command: Command
) -> None:
    memory = [] if kind in ("mtxl", "gtrxl") else ["--core.kind", kind]
    tiny = TINY if not memory else TINY[: TINY.index("--core.heads")]
    if kind == "gtrxl":
        memory = ["--core.kind", kind]
    options = ["--env", env_id, "--run-dir", tmp_path / "run", "--eval-episodes", 2, *memory]
    code, out, err = command(train.main, *tiny, *options)
    assert code == 0, err
    assert ("not defined by this environment" in out) == ("MiniGrid" not in env_id)
    words = "Actions:      1 number in units of its bounds: 0 ± 2"
    assert (words in out) == (env_id == "Pendulum-v1")


@pytest.mark.usefixtures("without_interventions")
def test_stops_at_the_success_rate_that_is_asked_for(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtxl_rl.run.EpisodeWindow", lambda: EpisodeWindow(size=5))
    options = ["--env", "mtxl/Recall6-v0", "--run-dir", tmp_path / "run"]
    options += ["--total-frames", 10**9, "--stop-at-success", 0.01]
    code, out, _ = command(train.main, *TINY, *options)
    assert code == 0
    assert "Trained:" in out


MISTAKES = {
    "unknown id": (["--env", "MiniGrid-MemoryS8-v0"], "did you mean MiniGrid-MemoryS9-v0"),
    "heads": (["--core.heads", "5"], "heads=5 must divide dim=64; set heads to 4 or 8"),
    "minibatches": (["--num-envs", "31"], "num_envs=31 must be divisible by num_minibatches=2"),
    "cuda": (["--device", "cuda"], "device='cuda', but torch"),
    "strict": (["--strict", "--compile", "off"], "strict=True has no effect with compile='off'"),
    "threads": (["--num-threads", "0"], "num_threads=0 must be from 1 to 1024"),
    "segments": (
        ["--strict", "--compile", "on", "--core.seq-len", "24"],
        "rollout_len=64 is not a multiple of seq_len=24",
    ),
    "no frames": (["--total-frames", "5"], "total_frames=5 must cover one update"),
    "no effect": (["--core.kind", "gru", "--core.mem-len", "3"], "has no effect on the core gru"),
    "unknown option": (["--memlen", "3"], "--memlen"),
    "unknown core": (["--core.kind", "mamba"], "mamba"),
    "not a number": (["--ppo.gamma", "high"], "high"),
    "gamma": (["--ppo.gamma", "2"], "gamma=2.0 must lie between 0 and 1"),
    "rate": (["--stop-at-success", "95"], "stop_at_success=95.0 is a rate"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_error_and_writes_nothing(
    name: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "cuda":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments, message = MISTAKES[name]
    run_dir = tmp_path / "run"
    code, out, err = command(train.main, *arguments, "--run-dir", run_dir)
    assert code == 2
    words = " ".join(err.replace("│", " ").split())  # tyro draws a frame around its errors
    assert message in words
    assert "Traceback" not in err + out
    assert not run_dir.exists()


def test_a_run_directory_that_exists_is_refused(trained: Path, command: Command) -> None:
    before = sorted(trained.rglob("*"))
    code, _, err = command(train.main, *TINY, "--run-dir", trained)
    assert code == 2
    assert "exists and is kept as it is" in err
    assert sorted(trained.rglob("*")) == before


def test_evaluating_what_is_no_run_is_one_clear_error(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    code, _, err = command(evaluate.main, tmp_path)
    assert code == 2
    assert "is not a run directory" in err
    code, _, err = command(evaluate.main, trained, "--video", "episodes.avi")
    assert code == 2
    assert "must end in .mp4 or .gif" in " ".join(err.replace("│", " ").split())


def test_a_checkpoint_of_another_configuration_is_refused(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    values = json.loads((other / "config.json").read_text())
    values["core"]["depth"] = 2
    (other / "config.json").write_text(json.dumps(values))
    code, _, err = command(evaluate.main, other)
    assert code == 2
    assert "core.depth is 1 in the checkpoint and 2 in the run" in err


def test_every_option_has_a_help_text(command: Command) -> None:
    code, out, _ = command(train.main, "--help")
    assert code == 0
    for config in (TrainConfig, MTXLConfig, PPOConfig):
        for field in dataclasses.fields(config):
            if not dataclasses.is_dataclass(field.default_factory):
                assert f"{field.name.replace('_', '-')}" in out


def test_levels_of_training_and_evaluation_differ() -> None:
    from mtxl_rl.evaluations.evaluation import EVALUATION_STREAM, TRAINING_STREAM, level_seeds

    def seeds(backend: Backend) -> set[int]:
        training = level_seeds(1, TRAINING_STREAM)
        env = envs.make("MiniGrid-DoorKey-5x5-v0", 64, seed=training, backend=backend)
        if isinstance(env, GymnasiumEnv):
            return set(env._seeds)
        assert isinstance(env, GridEnv)
        env.reset()
        return set(env._pool._seeds_held())

    evaluation = set(level_seeds(1, EVALUATION_STREAM).generate_state(1000).tolist())
    assert len(evaluation) == 1000
    numbers: dict[Backend, int] = {"gymnasium": 64, "tensor": POOL_LEN}
    for backend, number in numbers.items():
        assert len(seeds(backend)) == number
        assert not seeds(backend) & evaluation


def test_every_env_plays_an_equal_share(trained: Path) -> None:
    """Short episodes are not counted too often: 10 episodes of 4 envs are 3, 3, 2 and 2."""

    from mtxl_rl.evaluations import evaluation

    config = load_config(trained)
    agent, _ = evaluate.load_agent(config, newest_checkpoint(trained), torch.device("cpu"))
    played = evaluation.evaluate_agent(agent, config.env, EvaluateConfig(episodes=10, num_envs=4))
    assert played.episodes == 10
