"""The core in TorchRL: a module of tensordicts, with `is_init` and next states.

pip install -e ".[torchrl]"
python examples/torchrl_module.py

TorchRL calls a recurrent module in two ways: step by step in a rollout, and in its losses with
whole sequences (B, T) from the state of their first step. Here both are one function.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictSequential
from torch import Tensor, nn
from torchrl.data import Unbounded
from torchrl.envs import GymEnv, InitTracker, SerialEnv, TensorDictPrimer, TransformedEnv
from torchrl.envs.utils import check_env_specs
from torchrl.modules import (
    OneHotCategorical,
    ProbabilisticActor,
    recurrent_mode,
    set_recurrent_mode,
)

import envs  # noqa: F401  (registers the ids)
from mtxl_rl import MemoryState, MemoryTransformerXL

DELAYS = (2, 7)  # so that episodes differ in length


class MemoryModule(TensorDictModuleBase):
    """The core: reads observation, is_init and memory, writes embedding and the next memory.

    The envs of a batch share the core's segment clock. A reset zeroes the memory of its env, clock
    and all: the clock is then that of the others, and starts anew where all begin at once.
    """

    def __init__(self, core: MemoryTransformerXL):
        super().__init__()
        self.core = core
        self.names = list(core.initial_state(1).to_dict())
        memory = [("memory", name) for name in self.names]
        self.in_keys = ["observation", "is_init", *memory]
        self.out_keys = ["embedding", *(("next", *key) for key in memory)]

    def primer(self) -> TensorDictPrimer:
        """Return the transform that starts an env with an empty memory."""
        start = self._packed(self.core.initial_state(1))[0]
        return TensorDictPrimer(
            {
                key: Unbounded(value.shape, dtype=value.dtype)
                for key, value in start.items(True, True)
            },
            expand_specs=True,
        )

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Take a step of each env, or run sequences whose last batch axis is time."""
        is_sequence = bool(recurrent_mode())
        shape = tensordict.shape
        rows = tensordict.reshape(-1, shape[-1] if is_sequence else 1)  # (B, T)
        x, reset = rows["observation"].float(), rows["is_init"].squeeze(-1)
        state = self._unpacked(rows["memory"][:, 0])
        cuts = reset.all(dim=0).nonzero().squeeze(1).tolist()  # where all begin at once
        outputs = []
        for first, last in zip([0, *cuts], [*cuts, len(reset[0])], strict=True):
            if last > first:
                state = self.core.initial_state(len(rows)) if first in cuts else state
                y, state = self.core(x[:, first:last], state, reset[:, first:last])
                outputs.append(y)
        tensordict["embedding"] = torch.cat(outputs, dim=1).reshape(*shape, -1)
        if not is_sequence:  # the steps of a sequence are not gone on from
            tensordict["next"] = self._packed(state).reshape(shape)
        return tensordict

    def _packed(self, state: MemoryState) -> TensorDict:
        named = state.to_dict()
        named["position"] = named["position"].repeat(state.batch_size)
        return TensorDict({"memory": named}, [state.batch_size])

    def _unpacked(self, memory: TensorDictBase) -> MemoryState:
        named = {name: memory[name] for name in self.names}
        return MemoryState.from_dict(named | {"position": named["position"].max()})


def one() -> GymEnv:
    """Make one environment, whose symbols are one-hot."""
    return GymEnv("mtxl/Recall6-v0", delays=DELAYS)


def make(num_envs: int, memory: MemoryModule) -> TransformedEnv:
    """Make environments that say where episodes begin, and carry the memory."""
    env = TransformedEnv(SerialEnv(num_envs, one), InitTracker())
    return env.append_transform(memory.primer())


def main(num_envs: int = 3, num_steps: int = 50) -> Tensor:
    """Check the environment, play, and run the same steps as sequences; return the difference."""
    torch.manual_seed(1)
    symbols, choices = one().observation_spec["observation"].shape[-1], 2
    core = MemoryTransformerXL(16, 2, seq_len=4, mem_len=3, lmem_len=2, input_dim=symbols)
    memory = MemoryModule(core)
    head = TensorDictModule(nn.Linear(16, choices), ["embedding"], ["logits"])
    actor = ProbabilisticActor(
        TensorDictSequential(memory, head), ["logits"], distribution_class=OneHotCategorical
    )
    env = make(num_envs, memory)
    check_env_specs(env)
    with torch.no_grad():
        played = env.rollout(num_steps, actor, break_when_any_done=False)
        with set_recurrent_mode(True):
            again = actor(played.exclude("next", "embedding", "action"))
    return (again["embedding"] - played["embedding"]).abs().max()


if __name__ == "__main__":
    print(f"largest difference between acting and a sequence: {main():.1e}")
