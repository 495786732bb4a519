"""Are two samples from one distribution, or is one of a uniform one?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency, chisquare

MAX_P_OF_LUCK = 1e-3
"""Seeds are fixed: a test that passes once passes always."""


def are_alike(drawn: Counter[Any], expected: Counter[Any]) -> bool:
    """Tell whether a chi-squared test of homogeneity lets two samples pass for one."""
    keys = sorted(drawn | expected)
    result: Any = chi2_contingency(np.array([[drawn[key], expected[key]] for key in keys]))
    return result.pvalue > MAX_P_OF_LUCK


def is_uniform(counts: list[int]) -> bool:
    """Tell whether a chi-squared test lets counts pass for those of equally likely outcomes."""
    result: Any = chisquare(counts)
    return result.pvalue > MAX_P_OF_LUCK
