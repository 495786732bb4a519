"""The reference package memory-transformer-xl 0.1.0, repaired: the oracle of the parity tests.

Each repair is named after what it mends; without them the package writes no memory when
`mem_len > seq_len`, mixes slots with features, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import memory_transformer_xl.memory_transformer_xl as package
import pytest
import torch
from torch import Tensor, nn


class RepairedReference:
    """The reference with continuous inputs and every defect repaired by patching."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seq_len: int, mem_len: int, **options: Any):
        self.seq_len, self.mem_len = seq_len, mem_len
        self.model: Any = package.MemoryTransformerXL(
            num_tokens=1, seq_len=seq_len, mem_len=mem_len, **options
        )
        self.model.token_emb = nn.Identity()
        self.model.to_logits = nn.Identity()
        self.num_valid = 0  # valid positions of the short memory, at its end
        network = self.model.memory_network
        network.attn.dim_head = options["dim"] // options["heads"]
        _write_after_each_segment(self.model)
        _take_positions_from_the_right(self.model)
        _merge_heads_and_mask_the_write(monkeypatch, self)
        _mask_the_short_memory(monkeypatch, self)
        _keep_dtype_of_empty_fifo(monkeypatch)
        network.depth_emb = nn.Parameter(
            torch.randn(len(self.model.memory_layers), 1, 1, options["dim"])
        )
        _normalise_memories(monkeypatch)
        self.model.double()

    def run(self, x: Tensor, detach_long: bool = False) -> tuple[Tensor, package.Memory]:
        """Run whole segments from empty memories."""
        batch_size = x.shape[0]
        dim = self.model.memory_network.dim
        num_layers = len(self.model.memory_layers)
        memories = package.Memory(
            short=x.new_zeros(num_layers, batch_size, self.mem_len, dim),
            long=x.new_zeros(batch_size, 0, dim),
        )
        outputs = []
        self.num_valid = 0
        for segment in x.split(self.seq_len, dim=1):
            y, memories = self.model(segment, memories, detach_lmem=detach_long)
            self.num_valid = min(self.mem_len, self.num_valid + self.seq_len)
            outputs.append(y)
        return torch.cat(outputs, dim=1), memories

    def tensors(self, pick: Callable[[nn.Parameter], Tensor | None]) -> dict[str, Tensor]:
        """Return `pick` of each parameter, under our names and in our layout."""
        model = self.model

        def values(*parameters: nn.Parameter) -> Tensor:
            tensors = [pick(p) for p in parameters]
            shaped = [
                torch.zeros_like(p) if t is None else t
                for t, p in zip(tensors, parameters, strict=True)
            ]
            return torch.cat(shaped)

        named = {"positions": values(model.pos_emb)}
        if isinstance(model.to_model_dim, nn.Linear):
            named |= _prefixed("input_proj", _linear(values, model.to_model_dim))
        for index, (attn, ff) in enumerate(zip(model.attn_layers, model.ff_layers, strict=True)):
            attention, feed_forward = attn.fn.fn, ff.fn.fn
            parts = {
                "attn_norm": _linear(values, attn.fn.norm),
                "ff_norm": _linear(values, ff.fn.norm),
                "attention.query": {"weight": values(attention.to_q.weight)},
                "attention.key_value": {"weight": values(attention.to_kv.weight)},
                "attention.out": _linear(values, attention.to_out),
                "attention": {"persistent": values(attention.mem_kv)[0]},
                "feed_forward.expand": _linear(values, feed_forward.w1),
                "feed_forward.contract": _linear(values, feed_forward.w2),
            }
            for gate_name, wrapper in (("attn_gate", attn), ("ff_gate", ff)):
                if not isinstance(wrapper, package.GRUGating):
                    continue
                if wrapper.mogrify is None:
                    parts[gate_name] = _gate(values, wrapper.gru)
                else:
                    parts[f"{gate_name}.gate"] = _gate(values, wrapper.gru)
                    parts[f"{gate_name}.mogrifier"] = {
                        name: values(p) for name, p in wrapper.mogrify.named_parameters()
                    }
            for name, tensors in parts.items():
                named |= _prefixed(f"layers.{index}.{name}", tensors)
        network = model.memory_network
        memory = {
            "initial_slot": values(network.init_lmem)[0, 0],
            "slot_embedding": values(network.lmem_pos_emb)[0],
            "layer_embedding": values(network.depth_emb)[:, 0],
            "persistent": values(network.mem_kv)[0],
            "query": values(network.attn.to_q),
            "key_value": values(network.attn.to_kv),
            "out": values(network.attn.to_out),
        }
        named |= _prefixed("long_memory", memory)
        named |= _prefixed("long_memory.gate", _gate(values, network.gate))
        return {name: tensor for name, tensor in named.items() if tensor.numel()}


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _linear(values: Callable[..., Tensor], module: nn.Linear | nn.LayerNorm) -> dict[str, Tensor]:
    return {"weight": values(module.weight), "bias": values(module.bias)}


def _gate(values: Callable[..., Tensor], gate: Any) -> dict[str, Tensor]:
    inputs, hiddens = (gate.Ua, gate.Uc, gate.U), (gate.Wa, gate.Wc)
    return {
        "input_proj.weight": values(*(linear.weight for linear in inputs)),
        "input_proj.bias": values(*(linear.bias for linear in inputs)),
        "hidden_proj.weight": values(*(linear.weight for linear in hiddens)),
        "hidden_proj.bias": values(*(linear.bias for linear in hiddens)),
    }


def _write_after_each_segment(model: Any) -> None:
    """Defect 1: memory is written only when t >= mem_len."""
    model.mem_len = 0  # read by that comparison only


def _take_positions_from_the_right(model: Any) -> None:
    """Defect 2: the slice of positions is wrong (it takes a width for a number of slots)."""

    def pre_hook(module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        memories = kwargs.get("memories") or ()
        num_keys = args[0].shape[1] + sum(memory.shape[1] for memory in memories)
        return args, kwargs | {"pos_emb": model.pos_emb[:, -num_keys:]}

    for layer in model.modules():
        if isinstance(layer, package.SelfAttention):
            layer.register_forward_pre_hook(pre_hook, with_kwargs=True)


def _merge_heads_and_mask_the_write(
    monkeypatch: pytest.MonkeyPatch, reference: RepairedReference
) -> None:
    """Defects 3 and 4: heads are merged across slots, and padding pollutes the write."""
    original = package.linear_attn

    def linear_attn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        model = reference.model
        valid = torch.zeros(reference.mem_len, dtype=torch.bool)
        valid[reference.mem_len - reference.num_valid :] = True
        valid = torch.cat((valid, torch.ones(reference.seq_len, dtype=torch.bool)))
        num_persistent = model.memory_network.mem_kv.shape[1]
        mask = torch.cat(
            (
                torch.ones(q.shape[2], dtype=torch.bool),
                valid.repeat(len(model.memory_layers)),
                torch.ones(num_persistent, dtype=torch.bool),
            )
        )
        k = k.masked_fill(~mask[:, None], torch.finfo(k.dtype).min)
        return original(q, k, v).transpose(1, 2).transpose(2, 3)

    monkeypatch.setattr(package, "linear_attn", linear_attn)


def _mask_the_short_memory(monkeypatch: pytest.MonkeyPatch, reference: RepairedReference) -> None:
    """Defect 4: no validity mask in attention (the short memory has its full length here)."""
    original = package.shift

    def shift(x: Tensor) -> Tensor:
        shifted = original(x)
        seq_len = reference.seq_len
        if x.shape[-1] > seq_len:
            start = x.shape[-1] - seq_len - reference.mem_len
            invalid = reference.mem_len - reference.num_valid
            shifted = shifted.clone()
            shifted[..., start : start + invalid] = torch.finfo(x.dtype).min / 4
        return shifted

    monkeypatch.setattr(package, "shift", shift)


def _keep_dtype_of_empty_fifo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect 5: mem_len = 0 makes a FIFO of the default dtype."""
    original = package.queue_fifo

    def queue_fifo(*args: Tensor, length: int, dim: int) -> tuple[Tensor, ...]:
        return tuple(t.to(args[0].dtype) for t in original(*args, length=length, dim=dim))

    monkeypatch.setattr(package, "queue_fifo", queue_fifo)


def _normalise_memories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect 7: memories enter keys and values without the norm that the segment gets."""

    def forward(self: Any, x: Tensor, **kwargs: Any) -> Tensor:
        if kwargs.get("memories"):
            kwargs["memories"] = tuple(self.norm(memory) for memory in kwargs["memories"])
        return self.fn(self.norm(x), **kwargs)

    monkeypatch.setattr(package.PreNorm, "forward", forward)


@contextmanager
def repaired_reference(seq_len: int, mem_len: int, **options: Any) -> Iterator[RepairedReference]:
    """Yield a repaired reference; the package is as before afterwards."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield RepairedReference(monkeypatch, seq_len, mem_len, **options)


def gradient(parameter: nn.Parameter) -> Tensor | None:
    """Pick the gradient."""
    return parameter.grad


def value(parameter: nn.Parameter) -> Tensor:
    """Pick the value."""
    return cast(Tensor, parameter.detach())
