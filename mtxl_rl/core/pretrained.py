"""Cores in files: their arguments as JSON, their weights as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

Model = TypeVar("Model", bound="Pretrained")


class Pretrained(nn.Module):
    """A module that knows its arguments.

    Attributes:
        config: the arguments that it was made with, by name, those of a subclass's own too;
            `from_config` makes another one.
    """

    config: dict[str, Any]

    def __new__(cls: type[Model], *args: Any, **kwargs: Any) -> Model:
        """Note the arguments that `__init__` gets; a copy is made without, and gets the notes."""
        module = object.__new__(cls)
        bound = signature(cls.__init__).bind_partial(module, *args, **kwargs)
        bound.apply_defaults()
        config: dict[str, Any] = {}
        for name, value in [*bound.arguments.items()][1:]:
            kind = bound.signature.parameters[name].kind
            if kind is Parameter.VAR_KEYWORD:
                config |= value
            elif kind is not Parameter.VAR_POSITIONAL:
                config[name] = tuple(value) if isinstance(value, list | range) else value
            elif value:
                config[f"*{name}"] = value
        module.config = config
        return module

    @classmethod
    def from_config(cls: type[Model], config: Mapping[str, Any]) -> Model:
        """Return a core with the arguments `config`, and weights of its own."""
        return cls(**config)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors; needs safetensors.

        Raises:
            ValueError: for arguments that JSON has no word for, or that have no name.
        """
        from safetensors.torch import save_file

        for name, value in self.config.items():
            if name.startswith("*"):
                raise ValueError(
                    f"{type(self).__name__} cannot be saved: it got {value} as {name}, without "
                    "names; pass them by name"
                )
        try:
            config = json.dumps(self.config, indent=2)
        except TypeError as error:
            raise ValueError(
                f"{type(self).__name__} cannot be saved: {error}; let its arguments be numbers, "
                "text, lists and dicts of them"
            ) from error
        path = Path(folder).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(config + "\n", encoding="utf-8")
        save_file(self.state_dict(), path / "model.safetensors")

    @classmethod
    def from_pretrained(cls: type[Model], folder: str | Path) -> Model:
        """Return the core that `save_pretrained` wrote to `folder`, in its dtype.

        Raises:
            ValueError: where there is none, or a damaged one.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = Path(folder).expanduser()
        try:
            core = cls.from_config(json.loads((path / "config.json").read_text(encoding="utf-8")))
            weights = load((path / "model.safetensors").read_bytes())
            core.load_state_dict(weights, assign=True)  # in their dtypes
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            why = " ".join(str(error).split())
            raise ValueError(
                f"{path} holds no core: {why}; pass a folder that save_pretrained wrote, of this "
                "version (CHANGELOG.md says what became of earlier options)"
            ) from error
        return core
