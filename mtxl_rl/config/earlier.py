"""Configurations of earlier versions: what became of their options."""

from __future__ import annotations

from typing import Any

from agents.cores.core import CORES, find_core, option_names

_GONE_WRITE = "first"
"""That of gates for whole slots which saw the first layer only."""
_IDLE_WRITES = ("first", "gated")
"""What was written where there are no slots, by default or because it did nothing."""
_OLD_WRITES = {
    "mem_write_positions": False, "mem_write_holds": False, "mem_write_retention": 0.5
}  # fmt: skip
"""Options that patched the seed's write, with the values that left it as it was."""
_OLD_OPTIONS = {"kind", "gate", "memory_layers", "mem_write_iters", "bptt_segments"}
"""Some that every earlier configuration has, and those before the patches, too."""


def core_of_today(core: Any) -> Any:
    """Return the options of a core as they are now, from those of an earlier version.

    Raises:
        ValueError: for a run whose write is gone.
    """
    if not isinstance(core, dict):
        return core
    kind = core.get("kind", "mtxl")
    if "mem_write" in core:
        write = core["mem_write"]
        if write not in _IDLE_WRITES or kind not in tuple(CORES):
            return core
        if kind != "mtxl" or core.get("lmem_len") == 0:  # it had no effect
            return {name: value for name, value in core.items() if name != "mem_write"}
        if write != _GONE_WRITE:
            return core
        raise ValueError(
            f"the run was made with core.mem_write={_GONE_WRITE}, which is gone: core.mem_write="
            "parts took its place. Train anew, or go on with the version that made the run (commit "
            "6aadc23, or the one that made_by.json names: before 7592697 parts were called first)"
        )
    if not (_OLD_WRITES.keys() & core.keys() or core.keys() >= _OLD_OPTIONS):
        return core  # a part, as a person writes it
    patches = {
        name: core[name] for name, value in _OLD_WRITES.items() if core.get(name, value) != value
    }
    if patches:
        named = ", ".join(f"core.{name}={value}" for name, value in patches.items())
        raise ValueError(
            f"the run was made with {named}, which is gone: the gated write took its place "
            "(core.mem_write=parts, the default, and gated). Train anew, or go on with the version "
            "that made the run (commit 0fbf7e5)"
        )
    kept = {name: value for name, value in core.items() if name not in _OLD_WRITES}
    is_mtxl = kind == "mtxl"
    if is_mtxl and core.get("lmem_len") != 0:
        kept["mem_write"] = "seed"
    else:  # what had no effect
        kept = {k: v for k, v in kept.items() if k not in ("mem_write_iters", "mem_write_gain")}
    if core.get("gate") is None:
        kept["gate"] = "nbrc" if is_mtxl else "gru"
    return kept


def is_idle(kind: str, name: str, value: Any) -> bool:
    """Return whether an option is another core's, and left out: once all cores had all options."""
    if name in option_names(kind):
        return name == "lmem_len" and value is None
    defaults = [getattr(find_core(other).Config, name) for other in CORES
                if name in option_names(other)]  # fmt: skip
    return bool(defaults) and (not value or value in defaults or name == "bptt_segments")


def ppo_of_today(ppo: Any) -> Any:
    """Return the options of PPO without one that earlier configurations have.

    Raises:
        ValueError: for a run that used it.
    """
    if not isinstance(ppo, dict) or "clip_vloss" not in ppo:
        return ppo
    if ppo["clip_vloss"]:
        raise ValueError(
            "the run was made with ppo.clip_vloss=True, which is gone. Train anew, or go on with "
            "the version that made the run (commit 0b56280)"
        )
    return {name: value for name, value in ppo.items() if name != "clip_vloss"}
