"""Logarithms that lose no digits to sums with 1, and products with them: functions of ops, no entries."""

from __future__ import annotations

import math
from typing import Any

from jitgrad import ops
from jitgrad.ops.composite import as_float

__all__ = ["log1mexp", "log_sigmoid", "logit", "xlog1py", "xlogy"]


def log_sigmoid(x: Any) -> Any:
    """``log(1 / (1 + exp(-x)))``, without overflow."""
    return -ops.softplus(-as_float(x))


def log1mexp(x: Any) -> Any:
    """``log(1 - exp(-x))`` for positive ``x`` (Maechler, "Accurately computing log(1 - exp(-|a|))", 2012).

    -inf at 0, where the gradient is inf; 0 with gradient 0 at inf.
    """
    x = as_float(x)
    small = x < math.log(2)
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

def xlogy(x: Any, y: Any) -> Any:
    """``x * log(y)``, but 0 where ``x`` is 0 whatever ``y``; the gradient is 0 wherever the cotangent is.

    >>> import jitgrad as jg
    >>> jg.xlogy([0., 2.], [0., 1.]).numpy().tolist()
    [0.0, 0.0]
    """
    return ops.xmuly(x, ops.log(y))


def xlog1py(x: Any, y: Any) -> Any:
    """``x * log1p(y)``, but 0 where ``x`` is 0 whatever ``y``; the gradient is 0 wherever the cotangent is."""
    return ops.xmuly(x, ops.log1p(y))
