"""Act with an exported policy: ONNX Runtime, NumPy and Gymnasium, no torch.

python -m mtxl_rl.export runs/RUN
python examples/act_without_torch.py runs/RUN/policy.onnx MiniGrid-MemoryS11-v0

What the file says of itself, and is read here, is in docs/inspect.md. Texts are not read here.
"""

import json
import sys
from typing import Any

import gymnasium
import minigrid  # noqa: F401  (registers its ids)
import numpy as np
import onnxruntime  # pyright: ignore[reportMissingImports]


def make(env_id: str, trained: dict[str, Any]) -> gymnasium.Env:
    """Make an environment; that of the training with its arguments."""
    if trained["wrap"]:
        raise ValueError(f"the agent's environment was wrapped by {trained['wrap']}; wrap it here")
    is_same = env_id.split(":")[-1] == trained["id"].split(":")[-1]
    try:
        return gymnasium.make(env_id, **trained["kwargs"] if is_same else {})
    except gymnasium.error.Error as error:
        raise ValueError(
            f"{error} Name the module that registers it, module:{env_id}; for mtxl/... it is envs, "
            "which needs torch"
        ) from None


def read(observation: Any, part: dict[str, Any]) -> np.ndarray:
    """Return a part of an observation as an input."""
    for key in part["keys"]:
        observation = observation[key]
    if part["kind"] not in ("categories", "numbers", "picture"):
        raise ValueError(f"input {part['name']!r} is {part['kind']}, which this example cannot "
                         "make of an observation; use mtxl_rl.load")  # fmt: skip
    value = np.hstack(observation) if part["name"] == "action_mask" else np.asarray(observation)
    if part["kind"] == "categories":
        value = value.astype(np.int64) - part["start"]
    if "axes" in part:
        value = value.transpose(part["axes"])
    return value.astype(part["dtype"]).reshape(part["shape"])


def draw(policy: np.ndarray, space: Any, notes: dict[str, Any], rng: Any) -> tuple[Any, Any]:
    """Return what is drawn, which the agent sees in the next step, and the action that it is."""
    if notes["kind"] == "choices":
        parts = np.split(policy, np.cumsum(notes["choices"])[:-1])
        drawn = np.array([rng.choice(len(part), p=part / part.sum()) for part in parts])
        return drawn, drawn.reshape(notes["shape"]) + notes["start"]
    drawn = rng.normal(*np.split(policy, 2))  # means, deviations
    whole = np.rint(drawn) if np.issubdtype(space.dtype, np.integer) else drawn
    return drawn, whole.reshape(space.shape).clip(space.low, space.high).astype(space.dtype)


def play(path: str, env_id: str, seed: int = 1) -> float:
    """Play an episode and return its return."""
    session = onnxruntime.InferenceSession(path)
    notes = json.loads(session.get_modelmeta().custom_metadata_map["mtxl_rl"])
    inputs = {each["name"]: np.zeros(each["shape"], each["dtype"]) for each in notes["inputs"]}
    env, rng = make(env_id, notes["env"]), np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    parts = [each for each in notes["inputs"] if "keys" in each]
    total, known, done = 0.0, {"reset": np.array(True)}, False
    while not done:
        if notes["mask"] == "info":
            seen = observation if isinstance(observation, dict) else {"observation": observation}
            observation = {**seen, "action_mask": info["action_mask"]}
        known |= {part["name"]: read(observation, part) for part in parts}
        for name in known.keys() & inputs.keys():  # one without an effect is none
            inputs[name] = known[name].astype(inputs[name].dtype).reshape(inputs[name].shape)
        policy, _, *state = map(np.asarray, session.run(None, inputs))
        drawn, action = draw(policy[0], env.action_space, notes["actions"], rng)
        observation, reward, terminated, truncated, info = env.step(action)
        known = {"prev_action": drawn, "prev_reward": np.array(reward), "reset": np.array(False),
                 **dict(zip(notes["state"], state, strict=True))}  # fmt: skip
        total, done = total + float(reward), terminated or truncated
    return total


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        print(f"return {play(sys.argv[1], sys.argv[2]):.3g}")
    except ValueError as error:
        sys.exit(f"error: {error}")
