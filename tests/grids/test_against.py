"""`experiments.benchmark against`: two checkouts, in turns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.benchmarks import train_benchmark
from experiments.benchmarks.against import HERE, NEEDED, AgainstConfig, measure_against

SMALL = replace(
    train_benchmark.DEFAULTS, name="small", num_envs=2, rollout_len=16, num_epochs=1, compile="off"
)


def test_measures_this_checkout_beside_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_benchmark, "CPU_SETTINGS", (SMALL,))
    measure_against(AgainstConfig(other=HERE, rows=("small",), turns=2))
    title, *_, row = capsys.readouterr().out.splitlines()
    assert str(HERE) in title
    name, size, *speeds, ratio = row.strip("| ").split(" | ")
    assert (name, size) == ("small", "2 x 16")
    assert all(float(speed.replace(",", "")) > 0 for speed in speeds)
    assert float(ratio) > 0


def test_the_other_one_is_really_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_benchmark, "CPU_SETTINGS", (SMALL,))
    config = AgainstConfig(other=tmp_path, rows=("small",), turns=1)
    with pytest.raises(ValueError, match="has no experiments"):
        measure_against(config)
    for name in ("experiments/__init__.py", "experiments/benchmarks/__init__.py", NEEDED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    program = (
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Setting:\n"
        "    num_envs: int\n"  # not all that a row has today
        "make_trainer = lambda env_id, setting, device: [env_id, setting.num_envs]\n"
        "def iterate(trainer, device):\n"
        "    assert trainer == ['MiniGrid-MemoryS9-v0', 2]\n"
        "    print('words' * 100_000)\n"  # more than a pipe holds
        "    return 10.0, 6.0, 0.0\n"
    )
    (tmp_path / NEEDED).write_text(program)
    measure_against(config)
    assert "| small | 2 x 16 | 2 | " in capsys.readouterr().out  # 32 frames in 16 seconds
    (tmp_path / NEEDED).write_text(program.replace("10.0, 6.0", "1 / 0, 6.0"))
    with pytest.raises(ValueError, match="training ended: ZeroDivisionError"):
        measure_against(config)


def test_rows_and_turns_are_checked() -> None:
    with pytest.raises(ValueError, match=r"rows=\['Nope'\] must be among 'plain'"):
        measure_against(AgainstConfig(other=HERE, rows=("Nope",)))
    with pytest.raises(ValueError, match=r"rows=\['2 ranks of 1 thread'\] are of several ranks"):
        measure_against(AgainstConfig(other=HERE, rows=("2 ranks of 1 thread",)))
    with pytest.raises(ValueError, match="turns=0 must be 1 or more"):
        AgainstConfig(other=HERE, turns=0)
