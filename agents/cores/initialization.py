"""Initial weights of what is not the memory transformer, which has its own."""

from __future__ import annotations

import torch
from torch import nn

from mtxl_rl.core.parts.initialization import init_orthogonal

SMALL_GAIN = 0.4
"""Initial size of embeddings that are added to the features of what is in view."""


def init_weights(module: nn.Module) -> None:
    """Draw the weights of every nn.Linear (each as one matrix), GRU and LSTM in `module`."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            init_orthogonal(layer)
        elif isinstance(layer, nn.GRU | nn.LSTM):
            _init_rnn(layer)


def _init_rnn(rnn: nn.GRU | nn.LSTM) -> None:
    """Draw the weights of each gate orthogonal, with gain 1, and clear the biases.

    But the bias of an LSTM's forget gate is 1, so that it keeps what it has at the start
    (Jozefowicz et al. 2015).
    """
    for name, parameter in rnn.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
            if isinstance(rnn, nn.LSTM) and name.startswith("bias_ih"):
                nn.init.ones_(parameter.data[rnn.hidden_size : 2 * rnn.hidden_size])
        else:
            for gate in parameter.data.split(rnn.hidden_size):
                nn.init.orthogonal_(gate)


def init_chrono(rnn: nn.GRU | nn.LSTM, max_time: int) -> None:
    """Spread the time constants of the units over 1 to `max_time` - 1 steps.

    Chrono initialisation (Tallec and Ollivier 2018, arXiv 1804.11188): what a unit keeps in a step
    is at the start sigmoid(log U(1, T - 1)), for each unit drawn anew.
    """
    for name, parameter in rnn.named_parameters():
        if name.startswith("bias_ih"):
            gates = parameter.data.split(rnn.hidden_size)
            keeps = gates[1]  # of the GRU (r, z, n) z, of the LSTM (i, f, g, o) f
            keeps.copy_(log_times(keeps, max_time))
            if isinstance(rnn, nn.LSTM):
                gates[0].copy_(-keeps)


def log_times(like: torch.Tensor, max_time: int) -> torch.Tensor:
    """Return logarithms of time constants, drawn from 1 to `max_time` - 1 steps."""
    return torch.empty_like(like).uniform_(1, max_time - 1).log()


def small_embedding(num_values: int, dim: int) -> nn.Embedding:
    """Return an embedding that starts small beside the features of a grid."""
    embedding = nn.Embedding(num_values, dim)
    nn.init.normal_(embedding.weight, std=SMALL_GAIN)
    return embedding
