"""Logarithms of sums and differences with 1 that lose no digits: functions of ops, no entries."""

from __future__ import annotations

from typing import Any

from jitgrad import ops
from jitgrad.ops.composite import as_float

__all__ = ["log1mexp", "log_sigmoid", "logit"]

_LOG_2 = 0.6931471805599453


def log_sigmoid(x: Any) -> Any:
    """``log(1 / (1 + exp(-x)))``, without overflow."""
    return -ops.softplus(-as_float(x))


def log1mexp(x: Any) -> Any:
    """``log(1 - exp(-x))`` for positive ``x`` (Maechler, "Accurately computing log(1 - exp(-|a|))", 2012).

    -inf at 0, where the gradient is inf; 0 with gradient 0 at inf.
    """
    x = as_float(x)
    small = x < _LOG_2
    near, far = ops.where(small, x, 1.0), ops.where(small, 1.0, x)
    return ops.where(small, ops.log(-ops.expm1(-near)), ops.log1p(-ops.exp(-far)))


def logit(x: Any) -> Any:
    """``log(x / (1 - x))``, the inverse of `sigmoid`: -inf at 0, inf at 1, NaN outside.

    >>> import jitgrad as jg
    >>> jg.logit([0.25, 0.75]).numpy()
    array([-1.0986123,  1.0986123], dtype=float32)
    """
    x = as_float(x)
    middle = ops.less(abs(x - 0.5), 0.25)
    inner, outer = ops.where(middle, x, 0.5), ops.where(middle, 0.5, x)
    # in the middle log(x) and log(1 - x) would cancel; 2x - 1 is exact there
    return ops.where(middle, ops.log1p((2.0 * inner - 1.0) / (1.0 - inner)), ops.log(outer) - ops.log1p(-outer))
