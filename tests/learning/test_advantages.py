"""Generalised advantage estimation, worked by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.testing import assert_close

from agents.learning.advantages import gae, level_error

GAMMA, LAMBDA = 0.5, 0.5


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)[:, None]


def advantages(terminated: Tensor, truncated: Tensor, final_value: Tensor) -> list[float]:
    return gae(
        reward=column(1.0, 2.0, 4.0),
        value=column(2.0, 4.0, 8.0),
        next_value=torch.tensor([16.0]),
        terminated=terminated,
        truncated=truncated,
        final_value=final_value,
        gamma=GAMMA,
        gae_lambda=LAMBDA,
    )[:, 0].tolist()


def test_episode_that_goes_on() -> None:
    # delta_2 = 4 + 16/2 - 8 = 4; delta_1 = 2 + 8/2 - 4 = 2; delta_0 = 1 + 4/2 - 2 = 1
    # A_2 = 4; A_1 = 2 + 4/4 = 3; A_0 = 1 + 3/4 = 1.75
    assert advantages(flags(0, 0, 0), flags(0, 0, 0), column(0, 0, 0)) == [1.75, 3.0, 4.0]


def test_nothing_follows_a_terminal_step() -> None:
    # delta_1 = 2 - 4 = -2 = A_1; A_0 = 1 - 2/4 = 0.5
    assert advantages(flags(0, 1, 0), flags(0, 0, 0), column(0, 0, 0)) == [0.5, -2.0, 4.0]


def test_truncated_step_is_followed_by_the_value_of_its_final_observation() -> None:
    # delta_1 = 2 + 6/2 - 4 = 1 = A_1; A_0 = 1 + 1/4 = 1.25
    assert advantages(flags(0, 0, 0), flags(0, 1, 0), column(0, 6, 0)) == [1.25, 1.0, 4.0]


def test_terminal_and_truncated_is_terminal() -> None:
    both = advantages(flags(0, 1, 0), flags(0, 1, 0), column(0, 6, 0))
    assert both == [0.5, -2.0, 4.0]


def test_last_step_truncated_ignores_the_next_episode() -> None:
    # delta_2 = 4 + 6/2 - 8 = -1
    assert advantages(flags(0, 0, 0), flags(0, 0, 1), column(0, 0, 6))[2] == -1.0


def test_envs_are_independent() -> None:
    torch.manual_seed(0)
    num_steps, num_envs = 7, 3
    reward, value = torch.randn(num_steps, num_envs), torch.randn(num_steps, num_envs)
    next_value, final_value = torch.randn(num_envs), torch.randn(num_steps, num_envs)
    terminated, truncated = torch.rand(2, num_steps, num_envs) < 0.3
    together = gae(reward, value, next_value, terminated, truncated, final_value, 0.9, 0.8)
    for env in range(num_envs):
        rows = slice(env, env + 1)
        alone = gae(
            reward[:, rows], value[:, rows], next_value[rows], terminated[:, rows],
            truncated[:, rows], final_value[:, rows], 0.9, 0.8,
        )  # fmt: skip
        assert_close(alone, together[:, rows])


def test_values_that_are_too_low_by_a_constant() -> None:
    """Rewards of 1 and no end: values are 1 / (1 - gamma) = 2 too low, whatever lambda is."""
    torch.manual_seed(0)
    zeros, ones = torch.zeros(5, 7), torch.ones(5, 7)
    never = torch.zeros(5, 7, dtype=torch.bool)
    noise = 0.01 * torch.randn(5, 7)

    def estimate(reward: Tensor, value: Tensor) -> Tensor:
        return gae(reward, value, value[0], never, never, zeros, GAMMA, LAMBDA)

    per_unit = estimate(zeros, ones)
    error = level_error(estimate(ones + noise, zeros), per_unit)
    assert_close(error, torch.tensor(2.0), atol=0.02, rtol=0)
    assert_close(estimate(ones, error * ones), zeros, atol=0.02, rtol=0)


def test_a_mean_within_two_standard_errors_is_no_error_of_values() -> None:
    per_unit = torch.full((3, 4), -0.5)
    means = torch.tensor([-1.0, 0.0, 1.0, 4.0])  # 1 +- 1.08 of four envs
    assert level_error(means.expand(3, 4), per_unit) == 0
    assert level_error(torch.ones(3, 1), per_unit[:, :1]) == 0  # of one env nothing is known
    # 9 +- 1.08: t^2 = 69.4, of 18 the share 1 - 4 / 69.4
    t_square = 81 * 4 / means.var()
    expected = (1 - 4 / t_square) * 9 / 0.5
    assert_close(level_error((means + 8).expand(3, 4), per_unit), expected)
