"""Policies on the Hugging Face Hub, which needs `pip install -e ".[hub]"`.

A repository there is what `Policy.save` writes, with a model card: weights as safetensors, nothing
that runs. `Policy.push` writes one, and `mtxl_rl.load("hf://user/name")` reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mtxl_rl.config import TrainConfig
from mtxl_rl.runs.metrics import Evaluation

PREFIX = "hf://"


def push(folder: Path, repo_id: str, private: bool) -> str:
    """Upload a folder in place of what is there, and return the address of the commit.

    Raises:
        ValueError: without huggingface_hub, or when the Hub refuses it.
    """
    repo_id = repo_id.removeprefix(PREFIX)
    api = _api()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, delete_patterns="*")
    except Exception as error:  # of its HTTP library, too, which is another one in each release
        raise _refused(f"{repo_id} cannot be written", error) from error
    return commit.commit_url


def pull(repo_id: str) -> Path:
    """Download a repository and return its folder; what has been fetched before is not again.

    Raises:
        ValueError: without huggingface_hub, or when there is no such repository to be had.
    """
    repo_id = repo_id.removeprefix(PREFIX)
    api = _api()
    try:
        return Path(api.snapshot_download(repo_id))
    except Exception as error:
        raise _refused(f"{repo_id} cannot be read", error) from error


def card(
    repo_id: str, config: TrainConfig, frames: int, records: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return a model card: what the agent is, its evaluation, who made it, how to use it.

    Args:
        repo_id: where it will be.
        config: of its training.
        frames: that it was trained for.
        records: of its run, by the names of their files.
    """
    repo_id = repo_id.removeprefix(PREFIX)
    name = repo_id.rpartition("/")[2]
    evaluation = records.get("evaluation.json")
    head: dict[str, Any] = {
        "library_name": "mtxl-rl",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "ppo", config.core.kind, config.env],
    }
    lines = [f"# {name}", "", f"{config.core.kind} on `{config.env}`, PPO, {frames:,} frames.", ""]
    if evaluation is None:
        lines += ["It has not been evaluated."]
    else:
        whole = _evaluation(evaluation)
        metrics = {"mean_reward": whole.mean_return, "success_rate": whole.success_rate}
        found = [{"type": k, "value": v} for k, v in metrics.items() if v is not None]
        task = {"type": "reinforcement-learning"}
        env = {"type": config.env, "name": config.env}
        results = [{"task": task, "dataset": env, "metrics": found}]
        head["model-index"] = [{"name": name, "results": results}]
        lines += ["| memory | new episodes | success | return |", "|---|---|---|---|"]
        lines += [_row("as it is", whole)]
        # those with an intervention may be fewer, and are compared in the same ones
        kept = _evaluation(evaluation["kept"]) if "kept" in evaluation else whole
        if kept.episodes != whole.episodes:
            lines += [_row("as it is, in the episodes of those below", kept)]
        lines += [_row(k, _evaluation(v)) for k, v in evaluation["interventions"].items()]
    for session in records.get("made_by.json", {}).get("sessions", []):
        made = ", ".join(f"{what} {session[what]}" for what in ("version", "commit", "torch"))
        lines += ["", f"Made by ({made}):", "", "```bash", session["command"], "```"]
    lines += ["", "Use it with mtxl-rl:", "", "```python", "import mtxl_rl", ""]
    lines += [f'policy = mtxl_rl.load("{PREFIX}{repo_id}")']
    lines += ["action, state = policy.act(observation, state, reward)", "```", ""]
    front = [f"{key}: {json.dumps(value)}" for key, value in head.items()]  # JSON is YAML
    return "\n".join(["---", *front, "---", "", *lines])


def _api() -> Any:
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ValueError(f'the Hub needs {error.name}; pip install -e ".[hub]"') from error
    return huggingface_hub.HfApi(library_name="mtxl-rl")


def _refused(what: str, error: Exception) -> ValueError:
    said = " ".join(str(error).split()) or type(error).__name__
    return ValueError(
        f"{what}: {said}; check its name (user/name) and the network, and log in by `hf auth "
        "login` where it is private or yours"
    )


def _evaluation(values: Mapping[str, Any]) -> Evaluation:
    own: dict[str, Any] = {}
    for name in (field.name for field in fields(Evaluation) if field.name in values):
        value = values[name]  # earlier releases have fewer
        own[name] = tuple(value) if isinstance(value, list) else value  # an interval, in JSON
    if own["mean_return"] is None:  # in JSON; it was no number
        own["mean_return"] = math.nan
    return Evaluation(**own)


def _row(name: str, evaluation: Evaluation) -> str:
    said = (str(evaluation.episodes), evaluation.describe_success(), evaluation.describe_return())
    return f"| {name} | {' | '.join(said)} |"
