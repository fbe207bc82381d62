"""Functions of ops along axes, by the array API's names: products, truth, running sums, sorting."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import as_length, broadcast_shapes
from jitgrad.core.dtypes import NAMES, code_of
from jitgrad.core.errors import user_error
from jitgrad.core.record import loose, tensor
from jitgrad.ops.axes import Axis, axis_index, axis_of
from jitgrad.ops.composite import as_float, aval_of, concat, reduced, reduction_of

__all__ = ["all", "any", "argsort", "count_nonzero", "cumulative_prod", "cumulative_sum", "logcumsumexp", "prod",
           "searchsorted", "sort", "take_along_axis", "top_k"]


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Product over ``axis`` (all axes by default), 1 of nothing. Integers keep their dtype, booleans count as int32.

    Gradients divide by nothing: they are right with any number of zeros.
    """
    return _over(ops.reduce_prod, "prod", tensor(x), axis, keepdims)


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether some element over ``axis`` is true; numbers are true when nonzero, NaN too. False of nothing."""
    return _over(ops.reduce_max, "any", ops.cast(x, "bool"), axis, keepdims)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether every element over ``axis`` is true; numbers are true when nonzero, NaN too. True of nothing."""
    return _over(ops.reduce_min, "all", ops.cast(x, "bool"), axis, keepdims)


def count_nonzero(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """How many elements over ``axis`` (all axes by default) are not zero, as int64."""
    return _over(ops.reduce_sum, "count_nonzero", ops.cast(ops.cast(x, "bool"), "int64"), axis, keepdims)


def _over(op: Any, name: str, x: Any, axis: Axis, keepdims: bool) -> Any:
    return reduced(op, x, reduction_of(name, x, axis, keepdims))


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
    first = np.full(tuple(1 if i == at else n for i, n in enumerate(made.shape)), start, made.dtype)
    return concat([loose(first), out], at)


def logcumsumexp(x: Any, axis: int | None = None) -> Any:
    """``log(cumulative_sum(exp(x)))`` along ``axis`` without overflow; elements of -inf add nothing, gradient 0."""
    x = as_float(x)
    return ops.logcumsumexp(x, axis_of("logcumsumexp", x, axis), False, False)


def sort(x: Any, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """The elements in order along ``axis``. Always stable (``stable`` changes nothing); zeros of both signs are
    equal; NaN comes last, also where ``descending``. The gradient goes back to where each element came from.

    >>> import jitgrad as jg
    >>> jg.sort(jg.constant([3., 1., 2.]), descending=True)
    <jg.Tensor: shape=(3,), dtype=float32, numpy=array([3., 2., 1.], dtype=float32)>
    """
    x = tensor(x)
    return ops.sort(x, axis_index("sort", axis, aval_of(x).ndim), bool(descending))


def argsort(x: Any, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """Indices (int64) that put the elements in order along ``axis``; see `sort`. Has no gradient."""
    x = tensor(x)
    return ops.argsort(x, axis_index("argsort", axis, aval_of(x).ndim), bool(descending))


def top_k(x: Any, k: int, axis: int = -1) -> tuple[Any, Any]:
    """The ``k`` greatest elements along ``axis``, greatest first, and their indices (int64); NaN counts as least.

    Of equal elements the first come first. Raises ValueError if there are fewer than ``k``.

    >>> import jitgrad as jg
    >>> values, indices = jg.top_k(jg.constant([1., 4., 2., 4.]), 3)
    >>> values.numpy(), indices.numpy()
    (array([4., 4., 2.], dtype=float32), array([1, 3, 2]))
    """
    x = tensor(x)
    at = axis_index("top_k", axis, aval_of(x).ndim)
    shape = aval_of(x).shape
    k = as_length(k, "top_k: k")
    if k > shape[at]:
        raise user_error(ValueError, f"top_k: k = {k} is more than the {shape[at]} elements along axis {at} of shape "
                                     f"{shape}")
    order = ops.slice(ops.argsort(x, at, True), tuple((0, k if i == at else n, 1) for i, n in enumerate(shape)))
    return ops.take_along_axis(x, order, at), order


def searchsorted(x1: Any, x2: Any, side: str = "left", sorter: Any = None) -> Any:
    """Indices (int64) at which elements of ``x2`` go into the sorted ``x1`` (one dimension): before their equals, or
    behind them with ``side="right"``. NaN is greatest. ``sorter`` is an order that sorts ``x1``. Has no gradient.

    Where ``x1`` is rows of sorted elements, ``x2`` begins with the same leading axes: each row gets its own.
    """
    if side not in ("left", "right"):
        raise user_error(ValueError, f"searchsorted: side must be 'left' or 'right', got {side!r}")
    x1 = tensor(x1)
    if sorter is not None:
        x1 = ops.gather(x1, tensor(sorter), 0)
    return ops.searchsorted(x1, x2, side == "right")


def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Any:
    """Elements along ``axis``, each at an index of its own; the other axes broadcast against each other.

    Negative indices count from the end; one out of range raises IndexError. The gradient adds up where an index
    repeats.
    """
    x, indices = tensor(x), tensor(indices)
    have, wanted = aval_of(x).shape, aval_of(indices).shape
    if len(have) != len(wanted):
        raise user_error(ValueError, f"take_along_axis: shapes {have} and {wanted} differ in their number of axes")
    at = axis_index("take_along_axis", axis, len(have))
    others = broadcast_shapes(*((*shape[:at], 1, *shape[at + 1:]) for shape in (have, wanted)))
    if others is None:
        raise user_error(ValueError, f"take_along_axis: shapes {have} and {wanted} do not broadcast beside axis {at}")

    def spread(t: Any, shape: tuple[int, ...]) -> Any:
        full_shape = (*others[:at], shape[at], *others[at + 1:])
        return t if shape == full_shape else ops.broadcast_to(t, full_shape)
    return ops.take_along_axis(spread(x, have), spread(indices, wanted), at)
