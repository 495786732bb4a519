"""What a person meets in the first hour: what they type, and what they are told."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import warnings
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from gymnasium.spaces import Discrete
from rich.console import Console
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.tensorboard.writer import SummaryWriter

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.ppo import PPOConfig
from envs.grids.table_env import TableEnv
from experiments.tables.runs import find_runs, read_curve, read_events
from mtxl_rl import evaluate, train
from mtxl_rl import run as run_module
from mtxl_rl.command import fail_with_one_line, fill_help
from mtxl_rl.config import EvaluateConfig, TrainConfig, pick_device, pick_precision, read_count
from mtxl_rl.evaluations import evaluation
from mtxl_rl.run import Run
from mtxl_rl.runs import checkpoint, made_by, progress
from mtxl_rl.runs.metrics import Episodes, Evaluation
from mtxl_rl.runs.progress import clock, count
from mtxl_rl.runs.run_directory import create_free_run, create_run, load_config, save_tensors
from mtxl_rl.runs.run_logger import RunLogger
from mtxl_rl.runs.tags import TAGS
from mtxl_rl.signals import Stopped

ROOT = Path(__file__).parents[1]
HParamsPluginData: Any = plugin_data_pb2.HParamsPluginData  # type: ignore[attr-defined]


def make_config(run_dir: Path | None, **options: Any) -> TrainConfig:
    """Four updates of 4 envs x 8 steps on Recall, without interventions."""
    options = {"env": "mtxl/Recall2-v0", "total_frames": 128} | options
    return TrainConfig(
        num_envs=4,
        device="cpu",
        num_threads=1,
        compile="off",
        eval_episodes=2,
        run_dir=run_dir,
        core=core_config(dim=8, heads=2, depth=1, seq_len=4, mem_len=2),
        ppo=PPOConfig(rollout_len=8, num_minibatches=2, num_epochs=1),
        **options,
    )


@pytest.fixture(autouse=True)
def _without_interventions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "evaluate_interventions", lambda *_: {})


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], main: Any = train) -> str:
    """Return the one line of a command that is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["command", *arguments])
        with pytest.raises(SystemExit) as stop:
            main.main()
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("text", "count"),
    [("1000000", 10**6), ("1_000_000", 10**6), ("1e6", 10**6), ("1M", 10**6), ("2.5M", 2_500_000),
     ("500k", 500_000), ("1G", 10**9), ("-5", -5)],
)  # fmt: skip
def test_counts_are_read_as_people_type_them(text: str, count: int) -> None:
    config = tyro.cli(TrainConfig, args=["--checkpoint-every", "1e5"])
    assert config.checkpoint_every == 100_000
    assert read_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "1.5", "1e-1", "inf", "nan", "1e6x", "1 M M", "k5"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no whole number; write it like 1000000, 1e6, 1M"):
        read_count(text)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert train.read_options(["--run-dir=~/runs/x"]).run_dir == tmp_path / "runs" / "x"
    with pytest.raises(ValueError, match=f"{tmp_path}/x is not a run directory: it does not exist"):
        train.read_options(["--resume=~/x"])


def test_a_device_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    assert chosen == [1]  # its random numbers and graphs are the current device's
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    with pytest.raises(ValueError, match="torch sees 2 GPUs, counted from 0; set --device cuda:1"):
        pick_device("cuda:2")
    with pytest.raises(ValueError, match="must be auto, cpu, cuda, cuda:N"):
        TrainConfig(device="gpu")


def test_apples_gpu_is_taken_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device='mps', but torch .* sees no Apple GPU"):
        pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = pick_device("mps")
    wide, long = core_config(dim=256), TrainConfig(total_frames=10**8)
    assert pick_precision("auto", device, wide, Discrete(2)) == torch.float32
    assert not run_module.pick_compile(long, device)


def test_an_id_that_stands_alone_gets_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(["MiniGrid-MemoryS11-v0"], capsys)
    assert "name the environment by --env MiniGrid-MemoryS11-v0" in err
    err = refused([str(tmp_path), "MiniGrid-MemoryS13-v0"], capsys, evaluate)
    assert "another environment is named by --env MiniGrid-MemoryS13-v0" in err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "läuf 2"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "evaluate_interventions", lambda *_: {})
        train.train(make_config(run_dir))
    return run_dir


def test_evaluate_takes_a_checkpoint_and_names_the_runs_of_a_folder(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoint.newest_checkpoint(trained)
    arguments = [str(newest), "--json", "--episodes", "2", "--num-threads", "1"]
    monkeypatch.setattr("sys.argv", ["evaluate", *arguments, "--backend", "gymnasium"])
    evaluate.main()
    assert json.loads(capsys.readouterr().out)["frames"] == 128
    err = refused([str(trained.parent)], capsys, evaluate)
    assert f"the runs there, the newest first: {trained}" in err
    err = refused([str(trained.parent / "missing" / "x")], capsys, evaluate)
    assert "it does not exist; the runs there, the newest first" in err
    err = refused([str(newest / "model.safetensors")], capsys, evaluate)
    assert "it is no folder" in err


def test_a_run_directory_is_refused_before_anything_is_compiled(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(run_module, "accelerate", lambda *arguments: compiled.append(arguments))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="exists and is kept as it is"):
        train.train(make_config(trained))
    with pytest.raises(ValueError, match=r"cannot be made: .*; choose another"):
        train.train(make_config(tmp_path / "file" / "run"))
    assert not compiled


def test_a_run_that_cannot_be_compiled_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        assert (tmp_path / "run" / "config.json").is_file()
        raise ValueError("no compiler")

    monkeypatch.setattr(run_module, "make_trainer", fail)
    with pytest.raises(ValueError, match="no compiler"):
        train.train(make_config(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_runs_of_one_second_get_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "runs" / "x__20261128-111407"
    made = [create_free_run(run_dir, TrainConfig()) for _ in range(3)]
    assert [path.name.removeprefix(run_dir.name) for path in made] == ["", "-2", "-3"]
    assert all(load_config(path) == TrainConfig() for path in made)
    assert len(list(run_dir.parent.iterdir())) == 3

    rename = Path.rename

    def lose_the_race(path: Path, target: Path) -> Path:
        if target.name.endswith("-4"):
            target.mkdir()
            (target / "config.json").touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", lose_the_race)
    assert create_free_run(run_dir, TrainConfig()).name == f"{run_dir.name}-5"


def test_a_run_says_what_made_it(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (session,) = json.loads((trained / "made_by.json").read_text())["sessions"]
    assert session["torch"] == torch.__version__
    assert session["device"] == "cpu"
    assert session["num_threads"] == 1
    assert session["processor"]
    assert session["command"]
    assert session["started"] <= session["ended"]
    assert session["python"] == ".".join(map(str, sys.version_info[:3]))
    if (ROOT / ".git").exists():
        assert len(session["commit"]) == 40
        assert session["is_clean"] in (True, False)
    monkeypatch.setattr(made_by, "ROOT", trained)
    made_by.begin_session(trained, torch.device("cpu"))
    _, second = json.loads((trained / "made_by.json").read_text())["sessions"]
    assert (second["commit"], second["is_clean"], second["ended"]) == (None, None, None)


def test_ctrl_c_says_what_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def said(config: TrainConfig) -> str:
        with pytest.raises(SystemExit) as stop, fail_with_one_line(train.BEFORE_THE_RUN):
            train.train(config)
        assert stop.value.code == 130
        return capsys.readouterr().err.splitlines()[-1]

    run_dir = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "make_trainer", interrupt)
        assert said(make_config(run_dir)).endswith("had not begun, and nothing was written")
    assert not run_dir.exists()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_update", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        words = "nothing is saved: it had no checkpoint yet. --resume '{}' starts it again"
        assert said(make_config(run_dir)).endswith(words.format(run_dir))
    shutil.rmtree(run_dir)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_evaluate", interrupt)
        words = "is in the run's last checkpoint, of 128 frames. --resume '{}' goes on"
        assert said(make_config(run_dir)).endswith(words.format(run_dir))


def test_a_run_without_any_checkpoint_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", fail)
    with (
        pytest.warns(RuntimeWarning, match="no checkpoint after"),
        pytest.raises(train.RunFailed, match=r"no checkpoint of .* could be saved \(No space") as e,
    ):
        train.train(make_config(tmp_path / "run"))
    assert "all of its 128 frames are lost" in str(e.value)


def test_a_run_that_is_moved_while_it_trains_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    update = Run._update

    def move_after_the_second(run: Run, *arguments: Any) -> None:
        update(run, *arguments)
        if run.frames == 64:
            run_dir.rename(tmp_path / "moved")

    monkeypatch.setattr(Run, "_update", move_after_the_second)
    message = r"could be saved .*is gone: it was moved or deleted"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(train.RunFailed, match=message):
            train.train(make_config(run_dir))
    assert any("is gone: it was moved or deleted while it" in str(w.message) for w in caught)
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_files_take_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_tensors({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o640


def test_a_warning_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back at the end
    with fail_with_one_line():
        line = warnings.formatwarning("two\n   lines", RuntimeWarning, "file.py", 3)
    assert line == "warning: two lines\n"


def test_names_have_any_script_on_an_ascii_console(monkeypatch: pytest.MonkeyPatch) -> None:
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", console)
    with fail_with_one_line():
        print("läuf 2")
    console.flush()
    assert console.buffer.getvalue() == b"l\\xe4uf 2\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("config_class", [TrainConfig, EvaluateConfig])
def test_help_has_paragraphs_that_fill_the_width(config_class: type) -> None:
    fill_help(config_class)
    for field in fields(config_class):
        if is_dataclass(field.default_factory):
            assert all(
                "\n" not in inner.metadata["help"] for inner in fields(field.default_factory)
            )
        else:
            assert field.metadata["help"]
            assert "\n" not in field.metadata["help"]


def test_help_starts_without_what_it_does_not_need() -> None:
    """What takes a second of imports, and is used later; of all commands in one interpreter."""
    slow = (
        "scipy", "matplotlib", "tensorboard", "onnx", "onnxruntime", "huggingface_hub",
        "torch._dynamo", "torch._inductor", "torch.utils.tensorboard",
    )  # fmt: skip
    commands = [f"mtxl_rl.{name}" for name in ("train", "evaluate", "inspect", "export")]
    commands += [f"experiments.{name}" for name in ("ablation", "plots", "lengths", "benchmark")]
    program = f"""
import runpy, sys
for command in {commands}:
    sys.argv = [command, "--help"]
    try:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        assert stop.code == 0
    print(command, [name for name in {slow} if name in sys.modules], file=sys.stderr)
"""
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert said.stderr.splitlines() == [f"{command} []" for command in commands]
    assert said.stdout.count("usage: ") == len(commands)


def points(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    """Return a curve as TensorBoard's own loader, without its data server, reads it."""
    events = read_events(run_dir)
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]


@pytest.mark.parametrize("clock_went_back", [False, True])
def test_a_resumed_curve_shows_each_point_once(
    clock_went_back: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed two updates after its checkpoint, and makes those anew."""
    with monkeypatch.context() as patch:
        update = Run._update

        def killed(run: Run, *arguments: Any) -> None:
            update(run, *arguments)
            if run.frames == 96:
                run.logger.flush()
                raise RuntimeError("killed")

        patch.setattr(Run, "_update", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train.train(make_config(tmp_path / "run", checkpoint_every=32, total_frames=192))
    for newer in checkpoint.list_checkpoints(tmp_path / "run")[1:]:
        shutil.rmtree(newer)
    first, *_ = points(tmp_path / "run", "losses/loss")
    if clock_went_back:
        (events,) = (tmp_path / "run").glob("events.*")
        rest = events.name.split(".", 4)[4]
        events.rename(events.with_name(f"events.out.tfevents.9999999999.{rest}"))
    train.train(train.read_options(["--resume", str(tmp_path / "run")]))
    again = points(tmp_path / "run", "losses/loss")
    assert [step for step, _ in again] == [32, 64, 96, 128, 160, 192]
    assert again[0] == first
    sessions = json.loads((tmp_path / "run" / "made_by.json").read_text())["sessions"]
    assert len(sessions) == 2


def test_every_curve_has_a_description_and_every_run_the_same_columns(
    trained: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    RunLogger(other, make_config(other, env_kwargs={"x": 1}, stop_at_return=0.5)).close()
    columns = []
    for run_dir in (trained, other):
        events = read_events(run_dir)
        plugin = events.PluginTagToContent("hparams")
        experiment = HParamsPluginData.FromString(plugin["_hparams_/experiment"]).experiment
        columns.append([
            [(info.name, info.type) for info in experiment.hparam_infos],
            [info.name.tag for info in experiment.metric_infos],
        ])  # fmt: skip
        for tag in events.PluginTagToContent("scalars") if run_dir == trained else ():
            assert events.SummaryMetadata(tag).summary_description == TAGS[tag]
    assert columns[0] == columns[1]
    assert ("core.dim", 3) in columns[0][0]  # a number
    assert "eval/success_rate" in columns[0][1]
    end = HParamsPluginData.FromString(
        read_events(trained).PluginTagToContent("hparams")["_hparams_/session_end_info"]
    )
    assert end.session_end_info.status == 1  # a success


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (512, "512"), (2048, "2k"), (999_400, "999k"), (999_600, "1M"), (1_310_720, "1.31M"),
     (10**7, "10M"), (2_500_000_000, "2.5G")],
)  # fmt: skip
def test_frames_are_counted_in_three_digits(number: int, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "00:00"), (184.2, "03:04"), (7384.0, "02:03:04"), (93784.0, "1d 02h")],
)
def test_times_are_whole(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("frames", "mean_return", "left"),
    [
        (2048, math.nan, "33:20"),
        (13_000_000, -123456.7, "1d 22h"),
        (999_999, -9999.99, "23:59:59"),
    ],
)
def test_the_time_left_is_whole_in_80_columns(
    frames: int, mean_return: float, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    monkeypatch.setattr(progress, "clock", lambda _: left)
    with progress.Progress(250_000_000) as shown:
        shown.show(frames, 123_456.0, 0.5, mean_return)
    lines = [line for line in screen.getvalue().splitlines() if "frames" in line]
    assert f"left {left} " in lines[-1]
    assert f"{count(frames)} of 250M frames" in lines[-1]


def test_all_starts_are_played_once_for_each_step_of_the_segment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S7 has 4 levels x 4 starts; the mean is that of the episodes, by how often they begin so."""
    env = envs.make("mtxl/MemoryS7to11Random-v0", 1)
    agent = ActorCritic(
        env.observation_space,
        env.action_space,
        core_config(dim=8, heads=2, depth=1, seq_len=3, mem_len=2),
    )
    seen: list[torch.Tensor] = []
    places: list[int] = []

    def play(_: Any, env: Any, config: EvaluateConfig, place: int) -> Episodes:
        env.reset()
        seen.append(env._buffers["state"].clone())
        places.append(place)
        success = (torch.arange(config.episodes) == 5).numpy().astype(float)
        unknown = success * math.nan
        return Episodes(success, success, success + 1, unknown, success > 1)

    monkeypatch.setattr(evaluation, "play", play)
    config = EvaluateConfig(all_starts=True)
    result = evaluation.evaluate_agent(agent, "mtxl/MemoryS7to11Random-v0", config)
    assert isinstance(env, TableEnv)
    shares = env.start_shares
    assert shares.sum() == pytest.approx(1)
    assert len(set(shares.tolist())) > 1  # they are not drawn equally often
    assert places == [0, 1, 2]
    for states in seen:
        assert sorted(states.tolist()) == sorted(env._table.starts.tolist())
    assert result.success_rate == pytest.approx(float(shares[5]), rel=1e-6)
    assert result.success_interval is None
    assert result.return_interval is None
    assert result.episodes == 3 * len(shares)


def test_all_starts_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A greedy agent gets the same figure whatever the seed."""
    env = envs.make("MiniGrid-MemoryS7-v0", 1)
    agent = ActorCritic(env.observation_space, env.action_space, core_config(kind="gru", dim=8))
    results = [
        evaluation.evaluate_agent(
            agent,
            "MiniGrid-MemoryS7-v0",
            EvaluateConfig(all_starts=True, greedy=True, seed=seed, env_kwargs={"max_steps": 20}),
        )
        for seed in (1, 2)
    ]
    assert results[0] == results[1]
    assert results[0].episodes == 16
    with pytest.raises(ValueError, match="mtxl/Recall2-v0 has no known number of starts"):
        evaluation.evaluate_agent(agent, "mtxl/Recall2-v0", EvaluateConfig(all_starts=True))
    with pytest.raises(ValueError, match="episodes=3 has no effect with all_starts=True"):
        EvaluateConfig(all_starts=True, episodes=3)


def test_swapped_episodes_are_counted_in_words_and_one_has_no_interval() -> None:
    one = Episodes(*(np.array([x]) for x in (1.0, 0.5, 9.0, 3.0)), is_cut=np.array([False]))
    whole, few = Evaluation.of(Episodes.joined([one] * 20)), Evaluation.of(one)
    assert few.success_interval is None
    assert few.describe_success() == "1.000"
    *rows, note = train._memory_table(whole, {"cleared": whole, "swapped-long": few}, 20)
    assert rows[-1].split()[-4:] == ["9.0", "1", "of", "20"]
    assert "nan" not in rows[-1]
    assert "to" not in rows[-1]
    assert rows[-2].endswith(" 20")
    assert note == "  1 of 20: those that got another cue's memory"


@pytest.mark.parametrize("is_empty", [True, False])
def test_commands_work_beside_a_folder_of_the_same_name(tmp_path: Path, is_empty: bool) -> None:
    """As from a user's folder, with this repository on the path for all that it does not hide."""
    for name in ("envs", "agents"):
        (tmp_path / name).mkdir()
        if not is_empty:
            (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the user's')\n")
    said = [
        subprocess.run(
            [sys.executable, "-m", "mtxl_rl.train", *arguments], cwd=tmp_path, capture_output=True,
            text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for arguments in (["--help"], ["--env", "envs.mine:Mine-v0", "--compile", "off"])
    ]  # fmt: skip
    assert said[0].returncode == 0, said[0].stderr
    assert said[1].returncode == 2
    assert "'envs' is here the package of mtxl-rl itself: rename your folder" in said[1].stderr


def test_tables_find_runs_by_links_once_and_pass_over_other_tools(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "far").symlink_to(trained)
    (folder / "again").symlink_to(trained)
    (folder / "up").symlink_to(folder)
    create_run(folder / "near", make_config(None))
    (folder / "other_tool").mkdir()
    (folder / "other_tool" / "config.json").write_text('{"model_type": "bert"}')
    runs = find_runs(folder)
    assert len(runs) == 2
    assert {run.path.resolve() for run in runs} == {trained, folder / "near"}
    assert f"passed over {folder / 'other_tool'}: its config.json is not of a run" in (
        capsys.readouterr().err
    )


def test_curves_are_by_frames_whatever_clocks_said(tmp_path: Path) -> None:
    """Also those of before descriptions, in files without sessions."""
    writer = SummaryWriter(str(tmp_path))
    for wall_time, step, value in ((5, 64, 0.25), (6, 96, 0.5), (1, 96, 0.75), (0, 32, 0.125)):
        writer.add_scalar("x", value, step, walltime=wall_time)
    writer.close()
    events = read_events(tmp_path)
    expected = [(32, 0.125), (64, 0.25), (96, 0.75)]
    assert [(point.step, point.value) for point in read_curve(events, "x")] == expected
    assert read_curve(events, "y") == []


def test_stopped_says_by_what() -> None:
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM"
    assert str(Stopped(signal.SIGTERM, "all is saved")) == "stopped by SIGTERM; all is saved"


def test_the_page_of_curves_has_every_tag() -> None:
    page = (ROOT / "docs" / "curves.md").read_text().replace("\\|", "|")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{tag}` | {text} |" for tag, text in TAGS.items()]


@pytest.mark.parametrize(
    ("build", "said", "is_first"),
    [("cpu", "about .4 GB", True), ("cuda", "5 GB on the disk", False)],
)
def test_make_says_what_it_downloads(build: str, said: str, is_first: bool, tmp_path: Path) -> None:
    """In a folder of its own: what make would do."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    arguments = ["make", "-n", "train", f"TORCH={build}", f"PYTHON={sys.executable}"]
    shown = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    assert any(line.startswith(f'echo "Installing torch ({build})') and said in line
               for line in lines)  # fmt: skip
    cpu = ' --index-url https://download.pytorch.org/whl/cpu "torch>=2.10,<2.14"'
    assert any(cpu in line for line in lines) == is_first
    assert not any("--quiet --editable" in line for line in lines)
