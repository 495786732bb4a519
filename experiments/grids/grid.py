"""The cells of a grid of runs: every combination of some options' values, with every seed."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import envs
from agents.cores.core import as_kind, make_core
from envs import Backend
from envs.construction import close_all, make_single
from envs.registry import choose
from experiments.grids.widths import Size, check_encoder, describe, with_equal
from experiments.grids.work import is_finished
from mtxl_rl.config import TrainConfig, with_num_envs
from mtxl_rl.config.json_form import differences, flat, short_name, to_json
from mtxl_rl.options import read, split
from mtxl_rl.runs.progress import say
from mtxl_rl.runs.run_directory import load_config

PLACES = ("run_dir", "num_threads")
"""Options that say where and how fast a cell runs, not what it computes."""
ENV_KWARGS = "env_kwargs."
"""What the names of an environment's arguments begin with."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    name: str
    config: TrainConfig

    @property
    def run_dir(self) -> Path:
        assert self.config.run_dir is not None
        return self.config.run_dir

    @property
    def is_finished(self) -> bool:
        return is_finished(self.run_dir)

    def to_json(self, num_threads: int) -> dict[str, Any]:
        """Return what it trains, with its own number of threads or else this one."""
        config = to_json(self.config)
        return config | {"num_threads": config["num_threads"] or num_threads}

    @property
    def what_it_does(self) -> str:
        """Whether it is finished, goes on or starts, for people."""
        if self.is_finished:
            return "finished"
        return "goes on" if self.run_dir.exists() else "starts"


def make_cells(
    folder: Path,
    base: TrainConfig,
    axes: Mapping[str, Sequence[str]],
    num_seeds: int,
    after: Path | None = None,
    equal: Size | None = None,
    of_others: Sequence[str] = (),
) -> list[Cell]:
    """Return the cells of the product of `axes`, all of the first seed first.

    Args:
        folder: of the grid.
        base: the options that are the same everywhere.
        axes: values by option, as one types them: {"core.mem_len": ["0", "8"]}.
        num_seeds: seeds from that of `base` on.
        after: another grid, of whose cell of the same name each cell has the weights as its start.
        equal: of what each core is to have as much as that of `base`, by its width.
        of_others: options of cores that only some of the kinds have, as one types them.

    Raises:
        ValueError: for an option that there is not, or a combination that cannot be run.
    """
    if num_seeds < 1:
        raise ValueError(f"seeds={num_seeds} must be 1 or more; set --seeds")
    kinds = axes.get("core.kind") or [base.core.kind]
    options = {
        name for kind in kinds for name in flat(replace(base, core=as_kind(base.core, kind)))
    }
    for name, values in axes.items():
        _check_axis(options, name, values, after)
    if equal and "core.dim" in axes:
        raise ValueError(f"core.dim cannot be varied with equal={equal!r}, which sets it")
    combinations = {}
    for values in itertools.product(*axes.values()):
        options = dict(zip(axes, values, strict=True))
        name = ",".join(f"{short_name(key)}={_plain(value)}" for key, value in options.items())
        try:
            combinations[name] = _changed(base, options, of_others)
        except ValueError as error:
            raise ValueError(f"cell {name}: {error}") from None
    numbers = {config.num_envs: name for name, config in combinations.items()}
    if "num_envs" not in axes and len(numbers) > 1:
        each = " and ".join(f"{number} in {name}" for number, name in numbers.items())
        raise ValueError(
            f"num_envs is left out, and would be {each}; set --num-envs to one number for all cells"
        )
    if equal:
        for name, config in combinations.items():
            combinations[name] = with_equal(equal, base.core, config)
            say(f"Equal:        {name}: {describe(combinations[name])}")
    cells = []
    for seed in range(base.seed, base.seed + num_seeds):
        for combination, config in combinations.items():
            name = f"{combination},seed={seed}"
            init_from = config.init_from if after is None else after / name
            changes: dict[str, Any] = {"seed": seed, "run_dir": folder / name}
            cells.append(Cell(name, replace(config, init_from=init_from, **changes)))
    for cell in cells:
        _check_alike(cell)
    return cells


def _check_axis(
    options: Collection[str], name: str, values: Sequence[str], after: Path | None
) -> None:
    if name not in options and not name.startswith(ENV_KWARGS):
        near = difflib.get_close_matches(name, list(options), n=1)
        hint = f"; did you mean {near[0]}?" if near else ";"
        allowed = ", ".join((*sorted(options), f"{ENV_KWARGS}NAME"))
        raise ValueError(f"{name!r} is not an option{hint} allowed: {allowed}")
    taken = {"seed": "--seeds", "run_dir": "--folder"} | ({"init_from": "--after"} if after else {})
    if name in taken:
        raise ValueError(f"{name} cannot be varied in a grid; set {taken[name]}")
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{name}={list(values)} must be one or more different values")


def _check_alike(cell: Cell) -> None:
    """Raise ValueError where the folder holds the cell of another grid."""
    if not (cell.run_dir / "config.json").is_file():
        return
    found, wanted = flat(load_config(cell.run_dir)), flat(cell.config)
    different = differences(found, wanted, "there", "here", lambda name: name not in PLACES)
    if different:
        raise ValueError(
            f"{cell.run_dir} was run with other options: {different}. Set --folder to another one, "
            "or give the same options"
        )


def _changed(
    base: TrainConfig, options: Mapping[str, str], of_others: Sequence[str]
) -> TrainConfig:
    """Return `base` with some options as the command line of training reads them."""
    base = replace(base, core=as_kind(base.core, options.get("core.kind", base.core.kind)))
    env_kwargs = {name.removeprefix(ENV_KWARGS): _typed(name, text)
                  for name, text in options.items() if name.startswith(ENV_KWARGS)}  # fmt: skip
    base = replace(base, env_kwargs=base.env_kwargs | env_kwargs)
    if "wrap" in options:
        base = replace(base, wrap=tuple(options["wrap"].split()))
    if "core.encoder" in options:
        encoder = tuple(options["core.encoder"].split())
        base = replace(base, core=replace(base.core, encoder=encoder))
    arguments, _ = split(of_others, base.core.kind)
    for name, text in options.items():
        if name in ("wrap", "core.encoder") or name.startswith(ENV_KWARGS):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(flat(base).get(name), bool) and text in ("True", "False"):
            before, dot, last = flag.removeprefix("--").rpartition(".")
            arguments.append(flag if text == "True" else f"--{before}{dot}no-{last}")
        else:
            arguments += [flag, *text.split()]
    try:
        config = read(base, arguments)
    except SystemExit:  # it has said why
        raise ValueError("see above") from None
    _check_made(config.env, config.backend, json.dumps(config.env_kwargs), config.wrap)
    make_core(config.core)
    if config.core.encoder:
        check_encoder(config)
    return with_num_envs(config)


@cache
def _check_made(env_id: str, backend: Backend, env_kwargs: str, wrap: tuple[str, ...]) -> None:
    """Raise ValueError where an environment cannot be made: once, and not in each cell."""
    chosen = choose(env_id, backend, json.loads(env_kwargs), wrap)
    if chosen.backend == "gymnasium":
        close_all([make_single(env_id, chosen.env_kwargs, chosen.wraps)])
    else:
        envs.make(env_id, 1, backend=backend, env_kwargs=chosen.env_kwargs).close()


def _typed(name: str, text: str) -> Any:
    """Return a value of an argument of an environment: JSON, or, where it is none, the text."""
    if text in ("True", "False", "None"):
        raise ValueError(f"{name}={text} is Python's; write JSON: true, false or null")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _plain(text: str) -> str:
    return text.replace(" ", "+").replace("/", "_").replace(":", "_")


def parse_axes(axes: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Turn ("core.mem-len", "0", "8") into {"core.mem_len": ["0", "8"]}.

    Raises:
        ValueError: for an option that is named twice, or none.
    """
    parsed: dict[str, list[str]] = {}
    for option, *values in filter(None, axes):
        name = option.removeprefix("--").replace("-", "_")
        if name in parsed:
            raise ValueError(f"over names {option} twice; give all its values at once")
        parsed[name] = values
    if not parsed:
        raise ValueError("over is empty; name an option and its values: --over core.gate nbrc gru")
    return parsed
