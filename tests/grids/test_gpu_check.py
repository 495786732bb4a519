"""The check of a GPU in minutes, and the rows of the training benchmark, rehearsed on the CPU."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
from programs import started
from small_grid import processes_below, wait_until

from experiments import benchmark, gpu_check, lengths
from experiments.benchmarks import train_benchmark
from experiments.benchmarks.against import AgainstConfig
from experiments.benchmarks.train_benchmark import (
    BenchmarkTrainConfig,
    RowError,
    Setting,
    in_process,
)
from experiments.gpu_check import MAX_RESULT, CheckConfig, Part, Step, check, last_line
from mtxl_rl import train
from mtxl_rl.command import RunFailed


def test_every_step_is_recorded_and_none_ends_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {
        "fine": "print('12 frames')",
        "raises": "raise ValueError('no memory')",
        "dies": "import os; os._exit(9)",
        "hangs": "import time; print('begun'); time.sleep(60)",
        "deaf": "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); time.sleep(60)",
        "silent": "pass",
        "talks": "print('word ' * 10**6)",
        "after": "print('| a |')",
    }
    steps = [
        Step(name, ["-c", code], 1.5, last_line, is_test=name in ("fine", "raises", "hangs"))
        for name, code in programs.items()
    ]
    monkeypatch.setattr(gpu_check, "find_steps", lambda _: iter(steps))
    monkeypatch.setattr(gpu_check, "KILL_SECONDS", 0.2)
    results = check(CheckConfig(out=tmp_path / "new" / "folder", device="cpu"))
    by_name = {r.name: r for r in results}
    assert {name: r.outcome for name, r in by_name.items()} == {
        "fine": "ok", "raises": "failed", "dies": "failed", "hangs": "out of time",
        "deaf": "out of time", "silent": "failed", "talks": "ok", "after": "ok",
    }  # fmt: skip
    assert by_name["fine"].result == "12 frames"
    assert by_name["raises"].result == "ValueError: no memory"
    assert by_name["hangs"].result == "begun"
    assert len(by_name["talks"].result) == MAX_RESULT
    written = json.loads((tmp_path / "new" / "folder" / "check.json").read_text())
    assert [step["outcome"] for step in written["steps"]] == [r.outcome for r in results]
    table = (tmp_path / "new" / "folder" / "check.md").read_text().splitlines()
    assert [row.split(" | ")[1] for row in table[4:]] == [r.outcome for r in results]


def test_what_the_minutes_do_not_reach_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [Step(str(number), ["-c", "pass"], 60, last_line) for number in range(2)]
    monkeypatch.setattr(gpu_check, "find_steps", lambda _: iter(steps))
    results = check(CheckConfig(out=tmp_path, device="cpu", minutes=0.001))
    assert [result.outcome for result in results] == ["left out", "left out"]


@pytest.mark.parametrize("is_test", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_in_the_middle_it_leaves_what_it_has_and_no_process(
    is_test: bool, number: int, tmp_path: Path
) -> None:
    """Also none that a step has started."""
    with started("gpu_check_sleeps", tmp_path, is_test) as process:
        while not ((tmp_path / "begun").exists() and (tmp_path / "out" / "check.json").exists()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        try:
            assert process.wait(30) == 130
        finally:
            process.kill()
    time.sleep(0.2)
    number_of_it = int((tmp_path / "begun").read_text())
    state = Path(f"/proc/{number_of_it}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"  # dead, and nobody's
    written = json.loads((tmp_path / "out" / "check.json").read_text())
    assert [(step["name"], step["outcome"]) for step in written["steps"]] == [("first", "ok")]


def test_refuses_what_would_mix_or_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "check.json").write_text("{}")
    with pytest.raises(ValueError, match="holds the results of another check; name a new one"):
        CheckConfig(out=tmp_path, device="cpu")
    wrong: list[tuple[Part, ...]] = [(), ("recall", "recall")]
    for parts in wrong:
        with pytest.raises(ValueError, match="must name one or more, each once"):
            CheckConfig(out=tmp_path / "new", device="cpu", parts=parts)
    for minutes in (0, -1, math.nan):
        with pytest.raises(ValueError, match="must be above 0"):
            CheckConfig(out=tmp_path / "new", device="cpu", minutes=minutes)


def test_where_no_test_is_found_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = CheckConfig(out=tmp_path / "out", device="cpu", small=True, parts=("tests", "envs"))
    results = check(config)
    assert [r.outcome for r in results] == ["failed", "ok"]


def test_a_test_that_was_skipped_has_not_passed() -> None:
    assert gpu_check.passed("1 passed in 2s\n") == "1 passed in 2s"
    assert not gpu_check.passed("1 skipped in 2s\n")
    assert not gpu_check.passed("1 failed, 1 passed in 2s\n")
    assert gpu_check.failed_line("E  assert 1 == 2\nFAILED tests/a.py::b - no\n1 failed") == (
        "FAILED tests/a.py::b - no"
    )
    on_the_way = "Run: x\n29k of 400k frames  1,387/s  success 0.06\nstopped by SIGTERM\n"
    assert gpu_check.training_lines(on_the_way) == "29k of 400k frames  1,387/s  success 0.06"


def test_every_command_is_one_that_there_is(tmp_path: Path) -> None:
    """The options of each are read by its program."""
    config = CheckConfig(out=tmp_path, device="cpu", parts=("envs", "train", "minigrid", "recall"))
    steps = list(gpu_check.find_steps(config))
    assert len(steps) >= 11
    small = CheckConfig(out=tmp_path, device="cpu", small=True)
    assert 5 < len(list(gpu_check.find_steps(small))) < 8
    seen = {}
    for step in steps:
        options = tuple(word for word in step.arguments if word.startswith("--"))
        seen.setdefault((step.arguments[1], options), step)
    for step in seen.values():
        assert_parses(step.arguments)


def assert_parses(arguments: list[str]) -> None:
    """Raise unless the program takes the options; nothing is run."""
    module, words = arguments[1], arguments[2:]
    if module == "mtxl_rl.train":
        config = train.read_options(words)
        assert config.stop_at_success == 0.98
    elif module == "experiments.lengths":
        with pytest.raises(ValueError, match="runs"):  # there are none
            tyro.cli(lengths.lengths, args=words)
    else:
        assert module == "experiments.benchmark"
        kind = {"envs": benchmark.EnvsConfig, "train": BenchmarkTrainConfig}[words[0]]
        tyro.cli(tyro.conf.OmitArgPrefixes[kind], args=words[1:])


@pytest.mark.parametrize(
    ("row", "form"),
    [("plain", "plain"), ("compiled, not captured", "compiled"), ("16,384 envs", "fastest")],
)
def test_rows_name_their_form(row: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_benchmark, "compile_", lambda _: "compiled")
    monkeypatch.setattr(train_benchmark, "accelerate", lambda _: "fastest")
    (setting,) = train_benchmark.named_settings([row], torch.device("cuda"))
    plain: Any = "plain"
    assert train_benchmark.accelerated(plain, setting) == form


@pytest.mark.slow
def test_the_rehearsal_runs_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its training runs print; the benchmarks have tests of their own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    parts: tuple[Part, ...] = ("minigrid", "recall")
    results = check(CheckConfig(out=tmp_path, device="cpu", small=True, parts=parts, minutes=30))
    assert {(r.name, r.outcome) for r in results} == {(r.name, "ok") for r in results}
    assert len(results) == 3
    assert all(re.search(r"\d", r.result) for r in results)


def test_without_a_gpu_it_says_how_to_rehearse(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="--device cpu --small"):
        CheckConfig(out=tmp_path)


@pytest.mark.slow
def test_a_row_of_the_benchmark_ends_in_its_own_process() -> None:
    assert in_process(60, math.sqrt, 4.0) == 2.0
    with pytest.raises(RowError, match="ValueError"):
        in_process(60, math.sqrt, -1.0)
    with pytest.raises(RowError, match="exit code 3"):
        in_process(60, os._exit, 3)
    started = time.monotonic()
    with pytest.raises(RowError, match="--row-minutes"):
        in_process(0.2, time.sleep, 600)
    assert time.monotonic() - started < 60


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, None])
def test_what_a_row_has_started_ends_with_it(tmp_path: Path, end: signal.Signals | None) -> None:
    """By a signal to who measures, or by the time limit: a compiler would disturb the next row."""
    words = f"sleep 600.{os.getpid()}"
    program = (
        "import subprocess; from experiments.benchmarks.train_benchmark import in_process\n"
        "if __name__ == '__main__': "
        f"in_process({600 if end else 20}, subprocess.run, {words.split()})"
    )
    (tmp_path / "measure.py").write_text(program)
    measuring = subprocess.Popen(
        [sys.executable, "measure.py"], cwd=tmp_path, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: processes_below(0, words) != [])
        if end:
            measuring.send_signal(end)
        measuring.communicate(timeout=60)
        wait_until(lambda: processes_below(0, words) == [], seconds=60)
    finally:
        measuring.kill()


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("envs", "--turns 0", "turns=0 must be 1 or more"),
        ("envs", "--num-threads 0", "num_threads=0 must be from 1"),
        ("envs", "--num-envs 0", r"num_envs=\(0,\) must be sizes of 1 or more"),
        ("train", "--iterations 0", "iterations=0 must be 1 or more"),
        ("train", "--num-threads 0", "num_threads=0 must be from 1"),
        ("train", "--row-minutes 0", "row_minutes=0.0 must be above 0"),
        ("train", "--row-minutes nan", "row_minutes=nan must be above 0"),
        ("train", "--row-minutes inf", "row_minutes=inf must be above 0 and at most"),
        ("train", "--row-minutes 1e300", r"row_minutes=1e\+300 must be above 0 and at most"),
        ("train", "--profile no/such/t.json", "profile=no/such/t.json is in no folder"),
        ("train", "--profile t.txt", "profile=t.txt is where the operations"),
        ("against", ". --turns 0", "turns=0 must be 1 or more"),
        ("against", ". --num-threads 0", "num_threads=0 must be from 1"),
    ],
)
def test_the_benchmark_refuses_before_it_measures(
    command: str, options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds: dict[str, Any] = {"envs": benchmark.EnvsConfig, "train": BenchmarkTrainConfig,
                             "against": AgainstConfig}  # fmt: skip
    with pytest.raises(SystemExit):
        tyro.cli(tyro.conf.OmitArgPrefixes[kinds[command]], args=options.split())
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert re.search(message, said), said


def test_rows_that_the_machine_would_emulate_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def refuse(*arguments: object) -> None:
        asked.extend(each for each in arguments if isinstance(each, Setting))
        raise RowError("no time")

    monkeypatch.setattr(train_benchmark, "multiplies_bfloat16", lambda _: False)
    for runs in ("in_process", "on_ranks"):
        monkeypatch.setattr(train_benchmark, runs, refuse)
    with pytest.raises(RunFailed, match="none of 21 rows was measured"):
        train_benchmark.measure_train(BenchmarkTrainConfig(device="cpu", peer=False))
    said = capsys.readouterr().err
    assert {setting.precision for setting in asked} == {"float32", "auto"}
    assert "defaults of mtxl_rl.train: no time" in said
    assert "16 envs: left out, this machine emulates bfloat16" in said
    assert "plain: no time" in said
