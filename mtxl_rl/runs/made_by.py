"""What made a run: RUN/made_by.json, with one entry for each time that it was started or resumed.

An entry has version, commit, is_clean (null where the code is in no clone), python, torch, device,
num_threads, processor, ranks (processes that trained together; the others are like the first),
launch (torchrun's name of it, or null), spaces (of its environment), command, started and ended
(null where it was killed, or still runs).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import warnings
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from agents import ranks
from mtxl_rl.runs.run_directory import read_json, write_json

ROOT = Path(__file__).parents[2]
_NAME = "made_by.json"
_GIT_SECONDS = 10.0


def begin_session(run_dir: Path, device: torch.device, spaces: dict[str, str]) -> None:
    """Write what this process is, below those that trained the run before it.

    Args:
        run_dir: of the run.
        device: that trains it.
        spaces: of its environment, in words (`agents.spaces.signatures`).
    """
    sessions = [*_sessions(run_dir), _this_process(device) | {"spaces": spaces}]
    write_json(run_dir / _NAME, {"sessions": sessions})


def last_session(run_dir: Path) -> dict[str, Any]:
    """Return what trained the run last; nothing where that is not known."""
    return (_sessions(run_dir) or [{}])[-1]


def launch() -> str | None:
    """Return torchrun's name of what it has started, which stays when it starts it again.

    Without --standalone and --rdzv-id torchrun calls all of them "none"; the torchrun above this
    process is then what it is known by.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{platform.node()}:{os.getppid()}" if name == "none" else name


def _sessions(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / _NAME
    sessions = read_json(path).get("sessions", []) if path.is_file() else []
    if not isinstance(sessions, list) or not all(map(_is_session, sessions)):
        raise ValueError(
            f"{path} has sessions={sessions!r}, which is no list of what begin_session wrote; "
            "write it back as it was, or delete the file"
        )
    return sessions


def _is_session(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("spaces", {}), dict)


def end_session(run_dir: Path) -> None:
    """Write that this process, which was the last to begin, has ended; warn where it cannot be."""
    path = run_dir / _NAME
    try:
        sessions = read_json(path)["sessions"]
        sessions[-1]["ended"] = _now()
        write_json(path, {"sessions": sessions})
    except (OSError, ValueError) as error:
        warnings.warn(f"{path} does not say when it ended: {error}", RuntimeWarning, stacklevel=2)


def _this_process(device: torch.device) -> dict[str, Any]:
    version = None
    with suppress(importlib.metadata.PackageNotFoundError):  # run from a clone, not installed
        version = importlib.metadata.version("mtxl-rl")
    commit = _git("rev-parse", "HEAD")
    changed = None if commit is None else _git("status", "--porcelain")
    is_gpu = device.type == "cuda"
    return {
        "version": version,
        "commit": commit,
        "is_clean": None if changed is None else not changed,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device}: {torch.cuda.get_device_name(device)}" if is_gpu else str(device),
        "num_threads": torch.get_num_threads(),
        "processor": _processor(),
        "ranks": ranks.size(),
        "launch": launch(),
        "command": shlex.join(sys.orig_argv),
        "started": _now(),
        "ended": None,
    }


def _git(*arguments: str) -> str | None:
    """Return what git says of the clone that this code is in, None where it is in none."""
    if not (ROOT / ".git").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):  # no git, say
        said = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, encoding="utf-8",
            errors="replace", check=True, timeout=_GIT_SECONDS,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
        return said.stdout.strip()
    return None


def _processor() -> str:
    with suppress(OSError):  # Linux alone has it
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
