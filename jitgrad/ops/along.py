"""Functions of ops along an axis: cumulative, by the array API's names."""

from __future__ import annotations

from typing import Any

from jitgrad import ops
from jitgrad.core.dtypes import NAMES, code_of
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.ops.composite import as_float, aval_of, axis_index, concat
from jitgrad.ops.creation import full


def cumulative_sum(x: Any, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """Running sums along ``axis``, which may be left out for one dimension; ``dtype`` is cast to before.

    float32 accumulates in float64; integers wrap, booleans count as int32. With ``include_initial`` the result
    begins with 0 and is one longer.

    >>> import jitgrad as jg
    >>> jg.cumulative_sum(jg.constant([1., 2., 3.]), include_initial=True)
    <jg.Tensor: shape=(4,), dtype=float32, numpy=array([0., 1., 3., 6.], dtype=float32)>
    """
    return _cumulative("cumulative_sum", ops.cumulative_sum, x, axis, dtype, include_initial, 0)


def cumulative_prod(x: Any, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """Running products along ``axis``; see `cumulative_sum`. Gradients divide by nothing, so zeros are welcome."""
    return _cumulative("cumulative_prod", ops.cumulative_prod, x, axis, dtype, include_initial, 1)


def _cumulative(name: str, op: Any, x: Any, axis: int | None, dtype: Any, include_initial: bool, start: int) -> Any:
    x = tensor(x)
    if dtype is not None and aval_of(x).code != code_of(dtype):
        x = ops.cast(x, NAMES[code_of(dtype)])
    at = axis_of(name, x, axis)
    out = op(x, at, False, False)
    if not include_initial:
        return out
    made = aval_of(out)
    return concat([full(tuple(1 if i == at else n for i, n in enumerate(made.shape)), start, made.dtype), out], at)


def axis_of(name: str, x: Any, axis: Any) -> int:
    """An axis counted from the front; it may be left out for one dimension."""
    ndim = aval_of(x).ndim
    if axis is None:
        if ndim != 1:
            raise user_error(ValueError, f"{name}: shape {aval_of(x).shape} needs an axis")
        return 0
    return axis_index(name, axis, ndim)


def logcumsumexp(x: Any, axis: int | None = None) -> Any:
    """``log(cumulative_sum(exp(x)))`` along ``axis`` without overflow; elements of -inf add nothing, gradient 0."""
    x = as_float(x)
    return ops.logcumsumexp(x, axis_of("logcumsumexp", x, axis), False, False)
