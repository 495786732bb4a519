"""Torch's GRU and LSTM as cores: stacked, cleared where an episode starts.

They act by torch's own modules, one step a call. Over sequences a call a step is slow, and torch's
modules know no resets. What is done instead is what is fastest for each (docs/speed.md): the LSTM
runs whole episodes in oneDNN's kernels; torch has no such kernel for a GRU on a CPU, whose steps
are written out here, with their gradients.

Shapes: B envs, T steps, L layers, D width, G = 3 D for three gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from agents.cores.baseline_cores import BaselineCore, TensorState
from agents.cores.core_config import GatedConfig
from agents.cores.initialization import init_chrono, init_weights


@dataclass(frozen=True, kw_only=True)
class GRUConfig(GatedConfig):
    """A GRU."""

    kind: str = "gru"


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(GatedConfig):
    """An LSTM."""

    kind: str = "lstm"


class RNNCore(BaselineCore):
    """What GRU and LSTM have in common: the state, and the step by torch's module."""

    def __init__(self, rnn: nn.GRU | nn.LSTM, chrono: int | None):
        super().__init__()
        assert rnn.batch_first
        self.rnn = rnn
        self.output_dim = rnn.hidden_size
        self.num_tensors = 2 if isinstance(rnn, nn.LSTM) else 1
        init_weights(self)
        if chrono is not None:
            init_chrono(rnn, chrono)

    def initial_state(self, batch_size: int) -> TensorState:
        weights = next(self.rnn.parameters())
        shape = (batch_size, self.rnn.num_layers, self.rnn.hidden_size)
        return TensorState(tuple(weights.new_zeros(shape) for _ in range(self.num_tensors)))

    def step(
        self, x: Float[Tensor, "B D"], state: TensorState, reset: Bool[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B D"], TensorState]:
        before = tuple(
            torch.where(reset[:, None, None], 0.0, tensor).transpose(0, 1).contiguous()
            for tensor in state.tensors
        )  # (L, B, D)
        y, after = self._run(x[:, None], before)
        return y[:, 0], TensorState(tuple(tensor.transpose(0, 1) for tensor in after))

    def _run(
        self, x: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "L B D"], ...]
    ) -> tuple[Float[Tensor, "B T D"], tuple[Float[Tensor, "L B D"], ...]]:
        """Run the module, without resets, in the precision of its weights."""
        # oneDNN has a bfloat16 LSTM on some processors only
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(state[0].dtype)
            y, after = self.rnn(x, state if self.num_tensors == 2 else state[0])
        return y, after if self.num_tensors == 2 else (after,)


class LSTMCore(RNNCore):
    """Episodes as sequences of their own on a CPU; step by step on a GPU, where shapes are fixed.

    An episode is cut by the binary digits of its length, so that pieces of equal length run at
    once, nothing is padded, and no piece is run before the one that it goes on from.
    """

    Config = LSTMConfig

    def __init__(self, config: LSTMConfig):
        rnn = nn.LSTM(config.dim, config.dim, config.depth, batch_first=True)
        super().__init__(rnn, config.chrono)

    def forward(
        self, x: Float[Tensor, "B T D"], state: TensorState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], TensorState]:
        if x.device.type == "cpu":
            return self._by_episodes(x, state, reset)
        outputs = []
        for x_t, reset_t in zip(x.unbind(dim=1), reset.unbind(dim=1), strict=True):
            y, state = self.step(x_t, state, reset_t)
            outputs.append(y)
        return torch.stack(outputs, dim=1), state

    def _by_episodes(
        self, x: Float[Tensor, "B T D"], state: TensorState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], TensorState]:
        batch_size, num_steps = reset.shape
        is_first = reset.clone()
        is_first[:, 0] = True
        rows = x.flatten(0, 1)  # (B * T, D), in which every episode lies in one piece
        start = is_first.flatten().nonzero().squeeze(1)  # (E,)
        left = torch.diff(start, append=start.new_tensor([len(rows)]))  # steps still to run
        env = start // num_steps
        is_new = reset.flatten()[start][:, None]
        hidden = [
            torch.where(is_new, 0.0, tensor.transpose(0, 1)[:, env]) for tensor in state.tensors
        ]  # (L, E, D)
        outputs, places = [], []
        for size in (2**digit for digit in reversed(range(num_steps.bit_length()))):
            chosen = (left & size).nonzero().squeeze(1)
            if len(chosen) == 0:
                continue
            place = start[chosen, None] + torch.arange(size)
            y, after = self._run(rows[place], tuple(tensor[:, chosen] for tensor in hidden))
            hidden = [
                tensor.index_copy(1, chosen, new) for tensor, new in zip(hidden, after, strict=True)
            ]
            start[chosen] += size
            outputs.append(y.flatten(0, 1))
            places.append(place.flatten())
        y = torch.cat(outputs)[torch.cat(places).argsort()].unflatten(0, (batch_size, num_steps))
        is_last = torch.diff(env, append=env.new_tensor([batch_size])) > 0
        return y, TensorState(tuple(tensor[:, is_last].transpose(0, 1) for tensor in hidden))


class GRUCore(RNNCore):
    """Layer by layer, each over all steps."""

    Config = GRUConfig

    def __init__(self, config: GRUConfig):
        rnn = nn.GRU(config.dim, config.dim, config.depth, batch_first=True)
        super().__init__(rnn, config.chrono)

    def forward(
        self, x: Float[Tensor, "B T D"], state: TensorState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], TensorState]:
        (hidden,) = state.tensors  # (B, L, D)
        after = []
        with torch.autocast(x.device.type, enabled=False):
            y = x.to(hidden.dtype).transpose(0, 1)  # (T, B, D)
            for before, (weight_x, weight, bias_x, bias) in zip(
                hidden.unbind(dim=1), self.rnn.all_weights, strict=True
            ):
                gates = F.linear(y, weight_x, bias_x)
                y = GRULayer.apply(gates, before, reset.t()[..., None], weight, bias)
                after.append(y[-1])
        return y.transpose(0, 1), TensorState((torch.stack(after, dim=1),))


class GRULayer(torch.autograd.Function):
    """Torch's GRU over all steps, given what it gets from its input, with gradients by hand.

    r, z = sigmoid(x_rz + W_rz h + b_rz), n = tanh(x_n + r (W_n h + b_n)) and then
    h <- (1 - z) n + z h. Autograd would record some ten operations a step. Here a step is one
    matrix product and a few operations in buffers of all steps; the gradients of the weights are
    one product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "T B G"],
        state: Float[Tensor, "B D"],
        reset: Bool[Tensor, "T B 1"],
        weight: Float[Tensor, "G D"],
        bias: Float[Tensor, " G"],
    ) -> Float[Tensor, "T B D"]:
        before, new, after = x.new_empty(3, len(x), *state.shape)
        products = torch.empty_like(x)  # W h + b
        gates = x.new_empty(len(x), 2, *state.shape)  # r, z
        x_gates, product_gates = (
            tensor.unflatten(-1, (3, -1)).transpose(1, 2) for tensor in (x, products)
        )  # (T, 3, B, D)
        zero, transposed = x.new_zeros(()), weight.t()
        # of a step: what comes from the input is `a`, what comes from the state `b`
        x_rz, x_n = x_gates[:, :2], x_gates[:, 2]
        product_rz, product_n = product_gates[:, :2], product_gates[:, 2]
        steps = (reset, before, products, x_rz, product_rz, gates, x_n, product_n, new, after)
        for reset_t, before_t, product, a_rz, b_rz, gates_t, a_n, b_n, n, h in zip(
            *steps, strict=True
        ):
            torch.where(reset_t, zero, state, out=before_t)
            torch.addmm(bias, before_t, transposed, out=product)
            r, z = torch.add(a_rz, b_rz, out=gates_t).sigmoid_()
            torch.addcmul(a_n, r, b_n, out=n).tanh_()
            state = torch.lerp(n, before_t, z, out=h)
        ctx.save_for_backward(reset, weight, before, products, gates, new)
        return after

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad: Float[Tensor, "T B D"]
    ) -> tuple[Tensor | None, ...]:
        reset, weight, before, products, gates, new = ctx.saved_tensors
        r, z = gates.unbind(dim=1)
        n_by_h = (1 - z) * (1 - new * new)  # of n before its tanh, by h
        factors = products.new_empty(*products.shape[:2], 3, new.shape[-1])  # of W h + b, by h
        torch.mul(
            n_by_h * products.unflatten(-1, (3, -1))[:, :, 2], r * (1 - r), out=factors[:, :, 0]
        )
        torch.mul(before - new, z * (1 - z), out=factors[:, :, 1])
        torch.mul(n_by_h, r, out=factors[:, :, 2])
        d_after, d_products = torch.empty_like(new), torch.empty_like(products)
        d_gates = d_products.view_as(factors)
        d_state = torch.zeros_like(before[0])
        steps = (grad, reset, z, factors, d_after, d_gates, d_products)
        for grad_t, reset_t, z_t, factors_t, d_after_t, d_gates_t, d_product in zip(
            *(reversed(tensor.unbind()) for tensor in steps), strict=True
        ):
            torch.add(grad_t, d_state, out=d_after_t)
            torch.mul(factors_t, d_after_t[:, None], out=d_gates_t)
            d_state = (d_after_t * z_t).addmm_(d_product, weight).masked_fill_(reset_t, 0.0)
        rows = d_products.flatten(0, 1)
        d_weight, d_bias = rows.t() @ before.flatten(0, 1), rows.sum(dim=0)
        torch.mul(d_after, n_by_h, out=d_gates[:, :, 2])  # of x_n: r scales W_n h + b_n alone
        return d_products, d_state, None, d_weight, d_bias
