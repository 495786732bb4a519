"""Steps of an environment, each of which may take a second, for some seconds."""

import sys
import time

import torch

import envs


def main(env_id: str, seconds: str) -> None:
    env = envs.make(env_id, 2, timeout=1.0)
    env.reset()
    end = time.monotonic() + float(seconds)
    print("ready")
    while time.monotonic() < end:
        env.step(torch.zeros(2, dtype=torch.int64))
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
