"""Policies on the Hugging Face Hub; a folder stands for it, and nothing is sent."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_run import small_run
from torch.testing import assert_close

import mtxl_rl
from mtxl_rl.policies import hub
from mtxl_rl.policies.policy import Policy
from mtxl_rl.runs.metrics import Episodes, Evaluation
from mtxl_rl.runs.run_directory import write_json

ENV = "mtxl/Recall6-v0"


class FolderHub:
    """What is used of `huggingface_hub.HfApi`, in a folder."""

    def __init__(self, root: Path):
        self.root = root

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id: str, folder_path: Path, delete_patterns: str) -> Any:
        assert delete_patterns == "*"
        shutil.rmtree(self.root / repo_id)
        shutil.copytree(folder_path, self.root / repo_id)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")

    def snapshot_download(self, repo_id: str) -> str:
        if not (self.root / repo_id).is_dir():
            raise FileNotFoundError("404\n  Repository Not Found")
        return str(self.root / repo_id)


@pytest.fixture
def folder_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hub, "_api", lambda: FolderHub(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    """One of a run that has been evaluated and resumed."""
    run = small_run(tmp_path / "run", ENV)
    one = np.ones(3)
    whole = Evaluation.of(Episodes(one, one / 2, one * 9, one, is_cut=one < 1))
    values = vars(whole) | {"frames": 0, "interventions": {"cleared": vars(whole)}}
    write_json(run / "evaluation.json", values)
    session = {"version": "0.1.0", "commit": "abc", "torch": "2.10", "command": "python -m train"}
    write_json(run / "made_by.json", {"sessions": [session, session | {"command": "--resume"}]})
    return mtxl_rl.load(run, device="cpu")


def test_what_is_pushed_is_loaded(policy: Policy, folder_hub: Path) -> None:
    for _ in range(2):  # the second replaces the first
        assert policy.push("me/recall") == "https://huggingface.co/me/recall/commit/1"
    again = mtxl_rl.load("hf://me/recall", device="cpu")
    for name, tensor in policy.agent.state_dict().items():
        assert_close(again.agent.state_dict()[name], tensor, rtol=0, atol=0)
    assert again.records == policy.records
    files = {path.suffix for path in (folder_hub / "me" / "recall").rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors", ".md"}


def test_the_card_has_the_evaluation_and_the_commands(policy: Policy, folder_hub: Path) -> None:
    policy.push("hf://me/recall")
    card = (folder_hub / "me" / "recall" / "README.md").read_text()
    assert "| as it is | 3 | 1.000  (95 % interval 0.439 to 1.000) | 0.500" in card
    assert "in the episodes of those below" not in card
    assert "| cleared | 3 | 1.000" in card
    assert "python -m train\n" in card
    assert "--resume\n" in card
    assert 'mtxl_rl.load("hf://me/recall")' in card


def test_the_card_compares_interventions_with_the_same_episodes(policy: Policy) -> None:
    one = np.ones(2)
    kept = Evaluation.of(Episodes(one, one / 4, one * 9, one < 1, is_cut=one < 1))
    record = policy.records["evaluation.json"] | {"kept": vars(kept)}
    card = hub.card("me/x", policy.config, policy.frames, {"evaluation.json": record})
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:2] for row in rows[1:]] == [
        ["| as it is", "3"], ["| as it is, in the episodes of those below", "2"],
        ["| cleared", "3"],
    ]  # fmt: skip


def test_the_hub_reads_the_card(policy: Policy, folder_hub: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    policy.push("me/recall")
    card = huggingface_hub.ModelCard.load(folder_hub / "me" / "recall" / "README.md")
    assert card.data.library_name == "mtxl-rl"
    assert ENV in card.data.tags
    results = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert results == {"mean_reward": 0.5, "success_rate": 1.0}
    for name in ("create_repo", "upload_folder", "snapshot_download"):
        assert hasattr(huggingface_hub.HfApi, name)


def test_an_evaluation_of_other_weights_is_not_said_of_these(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", ENV)
    write_json(run / "evaluation.json", {"frames": 99})
    policy = mtxl_rl.load(run, device="cpu")
    assert policy.records == {}
    assert "It has not been evaluated." in hub.card(
        "me/x", policy.config, policy.frames, policy.records
    )


class ConnectError(Exception):
    """As HTTP libraries raise it: no OSError."""


@pytest.mark.parametrize("call", ["create_repo", "upload_folder", "snapshot_download"])
@pytest.mark.parametrize("error", [ConnectError("[Errno 111] refused"), ConnectError(), OSError()])
def test_without_a_network_is_one_line(
    policy: Policy, folder_hub: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(FolderHub, call, fails)
    words = str(error) or type(error).__name__
    with pytest.raises(ValueError, match=f"^me/x cannot be .*{re.escape(words)}; .* the network"):
        mtxl_rl.load("hf://me/x") if call == "snapshot_download" else policy.push("me/x")


def test_what_cannot_be_had_is_one_line(
    policy: Policy, folder_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="me/no cannot be read: 404 Repository Not Found; check"):
        mtxl_rl.load("hf://me/no")
    (folder_hub / "me").mkdir(parents=True)
    (folder_hub / "me" / "file").touch()
    with pytest.raises(ValueError, match=r"me/file cannot be written: .*hf auth login"):
        policy.push("me/file")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"^the Hub needs huggingface_hub; pip install"):
        mtxl_rl.load("hf://me/recall")
    with pytest.raises(ValueError, match=r'pip install -e "\.\[hub\]"'):
        policy.push("me/recall")
