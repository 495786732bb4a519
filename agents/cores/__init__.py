"""Recurrent cores: the interface, the table of them, the memory transformer, and the controls.

`interface` says what a core is, `core` has the table, and the way from "module:Class" to a core of
your own; each core has its options beside it; `trial` tries one of your own when it is made. It may
use `mtxl_rl.core`, `agents.named` and `agents.trees`; the agent (`agents/*.py`) uses it.
"""

from agents.cores.baseline_cores import BaselineCore, TensorState
from agents.cores.core import core_config
from agents.cores.core_config import CoreConfig

__all__ = ["BaselineCore", "CoreConfig", "TensorState", "core_config"]
