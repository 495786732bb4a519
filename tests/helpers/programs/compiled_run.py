"""Compiled training logs what plain training does, and compiles nothing on the way."""

import torch
from small_trainer import make_trainer, run

from agents.learning.acceleration import accelerate


def main() -> None:
    torch.set_num_threads(1)
    expected, weights = run(make_trainer())
    torch._dynamo.config.error_on_recompile = False
    trainer = accelerate(make_trainer(), is_strict=True)
    assert trainer.form == "compiled"
    torch._dynamo.config.error_on_recompile = True  # all that is needed has been compiled
    logged, compiled_weights = run(trainer)
    for ours, theirs in zip(logged, expected, strict=True):
        for name, value in theirs.items():
            assert abs(ours[name] - value) < 1e-4 * max(1, abs(value)), (name, ours[name], value)
    torch.testing.assert_close(compiled_weights, weights, atol=1e-4, rtol=1e-3)
    print("equal")


if __name__ == "__main__":
    main()
