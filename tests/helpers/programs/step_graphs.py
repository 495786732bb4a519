"""The step of tensor environments is one graph, compiled, and does what it does eager.

The first argument is the backend of torch.compile: inductor, or aot_eager, which writes no C++.
"""

import sys
from typing import Any

import numpy as np
import torch
from torch.testing import assert_close

import envs


def main(backend: str, *env_ids: str) -> None:
    for env_id in env_ids:
        env: Any = envs.make(env_id, 7, seed=1)
        env._on_host = False  # as on a GPU: nothing looks at the data
        env.reset()
        env.action_space.seed(0)
        actions = [
            torch.as_tensor(np.stack([env.action_space.sample() for _ in range(7)]))
            for _ in range(30)
        ]
        state = env.state_dict()
        expected = [env.device_step(action) for action in actions]
        env.load_state_dict(state)
        torch._dynamo.reset()
        options: Any = {"fullgraph": True, "dynamic": False, "backend": backend}
        compiled = torch.compile(env.device_step, **options)
        # POPGym's dynamics have rounding of their own, all else is equal
        off: dict[str, Any] = {} if "popgym" in env_id else {"atol": 0, "rtol": 0}
        for action, plain in zip(actions, expected, strict=True):
            step = compiled(action)
            for name in ("reward", "terminated", "truncated", "success", "cue", "observation"):
                assert_close(
                    getattr(step, name), getattr(plain, name), **off, msg=f"{env_id}: {name}"
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
