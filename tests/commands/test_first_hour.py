"""What a person meets in the first hour: what they type, and what they are told."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
import tyro
from four_updates import make_config, refused
from gymnasium.spaces import Discrete
from programs import ROOT, started
from rich.console import Console

from agents.cores.core import CoreKind, core_config, make_core
from mtxl_rl import evaluate, train
from mtxl_rl import run as run_module
from mtxl_rl.command import fail_with_one_line, fill_help, stdout_to_stderr
from mtxl_rl.config import EvaluateConfig, TrainConfig, pick_precision
from mtxl_rl.config.json_form import to_json
from mtxl_rl.config.option_types import read_count
from mtxl_rl.device import pick_device
from mtxl_rl.run import Run
from mtxl_rl.runs import progress
from mtxl_rl.runs.metrics import Episodes, Evaluation
from mtxl_rl.runs.progress import clock, count
from mtxl_rl.signals import Stopped

pytestmark = pytest.mark.usefixtures("without_interventions")


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


@pytest.mark.parametrize("text", ["1e18", "-1e18", "1e400", "1e5000", "9" * 30])
def test_a_count_of_more_than_there_can_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is too large a number; write it like 1000000, 1e6, 1M"):
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
    assert not run_module.pick_compile(long, device, can_capture=False)


@pytest.mark.parametrize(
    ("kind", "can_capture", "expected"),
    [("mtxl", True, True), ("mtxl", False, True), ("gru", True, True), ("gru", False, False)],
)
def test_on_a_gpu_cores_without_attention_are_captured_too(
    kind: CoreKind, can_capture: bool, expected: bool
) -> None:
    config = TrainConfig(core=core_config(kind=kind))
    assert run_module.pick_compile(config, torch.device("cuda"), can_capture) is expected
    on_cpu = run_module.pick_compile(config, torch.device("cpu"), can_capture=False)
    assert on_cpu is (kind == "mtxl")  # ten million frames
    never = replace(config, compile="off")
    assert not run_module.pick_compile(never, torch.device("cuda"), can_capture)


def test_an_id_that_stands_alone_gets_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(["MiniGrid-MemoryS11-v0"], capsys)
    assert "name the environment by --env MiniGrid-MemoryS11-v0" in err
    err = refused([str(tmp_path), "MiniGrid-MemoryS13-v0"], capsys, evaluate)
    assert "another environment is named by --env MiniGrid-MemoryS13-v0" in err


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
    for part in ("make_trainer", "RunLogger"):
        with monkeypatch.context() as patch:
            patch.setattr(run_module, part, interrupt)
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


@pytest.mark.slow
def test_a_run_has_any_name_in_an_ascii_locale(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run_dir, env = tmp_path / "läuf", "--env mtxl/Recall6-v0 --num-envs 4 --ppo.rollout-len 16"
    tiny = f"{env} --core.kind gru --total-frames 64 --eval-episodes 2 --device cpu --compile off"
    for command in (f"mtxl_rl.train {tiny} --run-dir {run_dir}", f"experiments.plots {run_dir}"):
        process = subprocess.run(
            [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, check=False,
            env=os.environ | ascii_only,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
    assert (run_dir / "evaluation.json").is_file()
    assert (run_dir / "curves.png").is_file()


@pytest.mark.parametrize("module", ["mtxl_rl.train", "experiments.plots"])
def test_ctrl_c_while_a_command_imports_is_no_traceback(tmp_path: Path, module: str) -> None:
    """Its torch takes for ever."""
    (tmp_path / "torch.py").write_text("print('now', flush=True)\nimport time; time.sleep(99)\n")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # also under nohup
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module], cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == -signal.SIGINT  # 130 to a shell


def test_ctrl_c_is_heard_once_a_command_has_begun() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as stop, fail_with_one_line():
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.value.code == 130
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BrokenPipeError(errno.EPIPE, "of stdout: | head"), 128 + signal.SIGPIPE, ""),
        (BrokenPipeError("a process has ended"), 1, "error: a process has ended\n"),
        (OSError(errno.ENOSPC, "No space left"), 1, "error: [Errno 28] No space left\n"),
    ],
)
def test_who_has_read_enough_is_told_nothing(
    error: OSError, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stdout = os.dup(1)
    try:
        with pytest.raises(SystemExit) as stop, fail_with_one_line():
            raise error
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    assert stop.value.code == code
    assert capsys.readouterr().err == said


def test_stdout_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with fail_with_one_line(), stdout_to_stderr():
        print("nobody reads this")


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


def test_help_starts_without_what_it_does_not_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second of imports, and is used later; of all commands in one interpreter.

    Its paragraphs fill the 80 columns of a terminal.
    """
    monkeypatch.setenv("COLUMNS", "80")
    slow = (
        "scipy", "matplotlib", "tensorboard", "onnx", "onnxruntime", "huggingface_hub",
        "torch._dynamo", "torch._inductor", "torch.utils.tensorboard",
    )  # fmt: skip
    commands = [f"mtxl_rl.{name}" for name in ("train", "evaluate", "inspect", "export")]
    commands += [f"experiments.{name}" for name in ("ablation", "plots", "lengths", "benchmark")]
    process = started("helps", ",".join(commands), ",".join(slow), stderr=subprocess.PIPE)
    out, err = process.communicate()
    assert err.splitlines() == [f"{command} []" for command in commands]
    assert process.returncode == 0
    assert out.count("usage: ") == len(commands)
    lines = [line for line in out.splitlines() if not line.startswith("usage: ")]
    assert [line for line in lines if len(line) > 80] == []
    assert [pair for pair in pairwise(lines) if is_torn(*pair)] == []


def is_torn(line: str, below: str) -> bool:
    """Tell a line of an option's words that ends though the next word has room."""
    line, below = line.rstrip("│ "), below.strip("│")
    column = len(below) - len(below.lstrip()) + 1  # of the words, after the frame
    if column < 20 or len(line) <= column or line[column - 2 : column] != "  ":
        return False
    return len(line) + 1 + len(below.split()[0]) <= 78


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


def test_stopped_says_by_what() -> None:
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM"
    assert str(Stopped(signal.SIGTERM, "all is saved")) == "stopped by SIGTERM; all is saved"


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total_frames", float("nan")), ("total_frames", 1e6), ("num_envs", True), ("seed", "1"),
        ("keep", None), ("env", None), ("device", None), ("core", "gru"), ("core", None),
        ("ppo", {"gama": 0.5}), ("core", {}), ("wrap", "TimeLimit"), ("run_dir", 3),
        ("backend", "tensors"),
    ],
)  # fmt: skip
def test_an_option_of_another_type_is_refused_when_it_is_given(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types first
    with pytest.raises(ValueError, match=rf"^{name}={re.escape(repr(value))} must be "):
        TrainConfig(**{name: value})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Mine(TrainConfig):
    callback: Callable[[int], None] | None = None


def test_numbers_of_numpy_and_options_of_ones_own_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    config = Mine(callback=print, seed=np.int64(3), stop_at_return=np.float64(0.5))  # type: ignore[arg-type]
    assert (config.callback, config.seed, config.stop_at_return) == (print, 3, 0.5)
    assert type(config.seed) is int
    assert json.loads(json.dumps(to_json(TrainConfig(seed=np.int64(3)))))["seed"] == 3  # type: ignore[arg-type]
    core = make_core(core_config(kind="gru", dim=8, depth=np.int64(2)))
    assert core.output_dim == 8


def test_a_limit_of_steps_may_be_as_large_as_one_likes() -> None:
    assert EvaluateConfig(max_steps=10**10).max_steps == 10**10
    with pytest.raises(ValueError, match="episodes=10000000000 must be at most 2,147,483,647"):
        EvaluateConfig(episodes=10**10)


def test_a_text_is_taken_for_a_path_and_a_list_for_a_tuple(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    config = TrainConfig(run_dir="runs/x", wrap=["TimeLimit"])  # type: ignore[arg-type]
    assert (config.run_dir, config.wrap) == (Path("runs/x"), ("TimeLimit",))
