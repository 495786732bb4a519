"""Steps of an environment in processes, and then a wait, or an end that forgets to close it."""

import sys
import time

import torch

import envs


def main(env_id: str, num_steps: str, seconds: str) -> None:
    env = envs.make(f"faulty_env:{env_id}", 3, vectorize="async")
    env.reset()
    print("ready")
    for _ in range(int(num_steps)):
        env.step(torch.zeros(3, dtype=torch.int64))
    time.sleep(float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
