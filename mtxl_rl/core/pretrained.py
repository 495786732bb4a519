"""Cores in files: their arguments as JSON, their weights as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

Model = TypeVar("Model", bound="Pretrained")


class Pretrained(nn.Module):
    """A module that knows its arguments.

    Attributes:
        config: the arguments that it was made with, by name.
    """

    config: dict[str, Any]

    @classmethod
    def from_config(cls: type[Model], config: Mapping[str, Any]) -> Model:
        """Return a core with the arguments `config`, and weights of its own."""
        return cls(**config)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors; needs safetensors."""
        from safetensors.torch import save_file

        path = Path(folder).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(
            json.dumps(self.config, indent=2) + "\n", encoding="utf-8"
        )
        save_file(self.state_dict(), path / "model.safetensors")

    @classmethod
    def from_pretrained(cls: type[Model], folder: str | Path) -> Model:
        """Return the core that `save_pretrained` wrote to `folder`.

        Raises:
            ValueError: where there is none.
        """
        from safetensors.torch import load_file

        path = Path(folder).expanduser()
        try:
            core = cls.from_config(json.loads((path / "config.json").read_text(encoding="utf-8")))
            core.load_state_dict(load_file(path / "model.safetensors"))
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{path} holds no core: {error}; pass a folder that save_pretrained wrote"
            ) from error
        return core
