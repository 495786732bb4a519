"""Act with an exported policy: ONNX Runtime, NumPy and Gymnasium, no torch.

python -m mtxl_rl.export runs/RUN
python examples/act_without_torch.py runs/RUN/policy.onnx MiniGrid-MemoryS11-v0
"""

import json
import sys

import gymnasium
import minigrid  # noqa: F401  (registers its ids)
import numpy as np
import onnxruntime  # pyright: ignore[reportMissingImports]


def play(path: str, env_id: str, seed: int = 1) -> float:
    """Play an episode of an environment with choices for actions and return its return."""
    session = onnxruntime.InferenceSession(path)
    kinds = {"tensor(int64)": "int64", "tensor(bool)": "bool", "tensor(uint8)": "uint8"}
    forms = {i.name: (i.shape, kinds.get(i.type, "float32")) for i in session.get_inputs()}
    notes = json.loads(session.get_modelmeta().custom_metadata_map["mtxl_rl"])
    inputs = {name: np.zeros(shape, kind) for name, (shape, kind) in forms.items()}
    env, rng = gymnasium.make(env_id), np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    total, reset, done = 0.0, True, False
    while not done:
        seen = observation if isinstance(observation, dict) else {"observation": observation}
        known = {**seen, "reset": reset}  # "prev_action" and "prev_reward" are set below
        for name in known.keys() & forms.keys():
            inputs[name] = np.asarray(known[name], forms[name][1])[None]
        policy, _, *state = session.run(None, inputs)
        action = int(rng.choice(notes["choices"][0], p=policy[0] / policy[0].sum()))
        after = {**dict(zip(notes["state"], state)), "prev_action": np.array([action])}  # noqa: B905
        observation, reward, terminated, truncated, _ = env.step(action)
        after["prev_reward"] = np.array([reward], np.float32)
        inputs |= {name: array for name, array in after.items() if name in forms}
        total, reset, done = total + float(reward), False, terminated or truncated
    return total


if __name__ == "__main__":
    print(f"return {play(sys.argv[1], sys.argv[2]):.3g}")
