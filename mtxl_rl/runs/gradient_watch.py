"""A word about gradients of which clipping leaves next to nothing."""

from __future__ import annotations

import warnings

FAR_ABOVE = 20.0
"""Times the limit."""
MAX_IN_A_ROW = 20
"""Updates in a row, before there is a warning."""


class GradientWatch:
    """Warns, once, where the gradient's norm stays far above its limit.

    Args:
        max_grad_norm: the limit.
    """

    def __init__(self, max_grad_norm: float):
        self._limit = max_grad_norm
        self._in_a_row = 0

    def look(self, grad_norm: float) -> None:
        """Look at the mean norm of an update's gradients, before they were clipped."""
        self._in_a_row = self._in_a_row + 1 if grad_norm > FAR_ABOVE * self._limit else 0
        if self._in_a_row == MAX_IN_A_ROW:
            self._limit = float("inf")
            warnings.warn(
                f"the gradient's norm ({grad_norm:.3g}) has been more than {FAR_ABOVE:g} times "
                f"max_grad_norm for {MAX_IN_A_ROW} updates: what is clipped is nearly all of it, "
                "and the largest loss alone is learned. Look which it is (losses/ in TensorBoard), "
                "then lower --ppo.vf-coef, or raise --ppo.max-grad-norm",
                RuntimeWarning,
                stacklevel=2,
            )
