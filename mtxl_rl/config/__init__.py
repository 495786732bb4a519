"""The options of the commands: what they may be, their form in config.json, those of earlier runs.

`configs` has the dataclasses and their checks, `option_types` what single options may be,
`json_form` what is written and read back, `earlier` what became of options that are gone. It may
use `agents`, `envs`, the core and `mtxl_rl.device`.
"""

from mtxl_rl.config.configs import (
    BATCHED_ENVS,
    SINGLE_ENVS,
    Compile,
    EvaluateConfig,
    Memory,
    Precision,
    TrainConfig,
    check_counts,
    check_seed,
    pick_compile,
    pick_precision,
    with_num_envs,
)

__all__ = [
    "BATCHED_ENVS",
    "SINGLE_ENVS",
    "Compile",
    "EvaluateConfig",
    "Memory",
    "Precision",
    "TrainConfig",
    "check_counts",
    "check_seed",
    "pick_compile",
    "pick_precision",
    "with_num_envs",
]
