"""Means, variances and what is made of them: functions of ops, no entries."""

from __future__ import annotations

import math
from typing import Any

from jitgrad import ops
from jitgrad.core.aval import AVALS
from jitgrad.core.device import beside, device_of
from jitgrad.core.dtypes import FLOAT64
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.ops import along, composite, creation
from jitgrad.ops.axes import Axis, axes_of, axis_index
from jitgrad.ops.composite import as_float

__all__ = ["average", "corrcoef", "cov", "median", "moments", "quantile", "standardize", "std", "var"]


def moments(x: Any, axes: Axis = None, keepdims: bool = False) -> tuple[Any, Any]:
    """Mean and variance (divided by the number of elements) over ``axes``, all by default."""
    x = as_float(x)
    middle = composite.mean(x, axes, True)
    spread = composite.mean(ops.square(x - middle), axes, keepdims)
    shape = composite.reduction_of("moments", x, axes, keepdims).shape
    return middle if shape is None else ops.reshape(middle, shape), spread


def var(x: Any, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Variance over ``axis``: the sum of squared distances from the mean over their number less ``correction``.

    As in the array API; of integers in the default float dtype; NaN where the divisor is 0.

    >>> import jitgrad as jg
    >>> jg.var([1., 2., 3.], correction=1).numpy()
    array(1., dtype=float32)
    """
    x = as_float(x)
    spread = composite.sum(ops.square(x - composite.mean(x, axis, True)), axis, keepdims)
    count = composite.reduction_of("var", x, axis, keepdims).elements
    return spread / max(count - correction, 0.0)


def std(x: Any, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Standard deviation over ``axis``, the root of `var`. Where it is 0 its gradient is 0, of every order."""
    return ops.sqrt(var(x, axis, correction, keepdims))


def average(x: Any, axis: Axis = None, weights: Any = None, keepdims: bool = False) -> Any:
    """``sum(weights * x) / sum(weights)`` over ``axis``; the plain mean without weights.

    Weights broadcast to the shape of ``x``, or are one number for each place along a single axis.

    >>> import jitgrad as jg
    >>> jg.average([[1., 2.], [3., 8.]], axis=0, weights=[1., 3.]).numpy()
    array([2.5, 6.5], dtype=float32)
    """
    x = as_float(x)
    if weights is None:
        return composite.mean(x, axis, keepdims)
    have = AVALS[x._aval]
    weights = tensor(weights, have.code, "average")
    given = AVALS[weights._aval].shape
    if len(given) == 1 and have.ndim > 1 and axis is not None:
        at = axis_index("average", axis, have.ndim)
        if given != have.shape[at: at + 1]:
            raise user_error(ValueError, f"average: {given[0]} weights do not fit axis {axis} of shape {have.shape}")
        weights = ops.reshape(weights, tuple(n if i == at else 1 for i, n in enumerate(have.shape)))
    weights = composite.broadcast_to(weights, have.shape)
    return composite.sum(x * weights, axis, keepdims) / composite.sum(weights, axis, keepdims)


def cov(x: Any, y: Any = None, correction: float = 1.0) -> Any:
    """Covariances of the rows of a matrix (a vector is one row); rows of ``y`` come after those of ``x``.

    The number of columns, less ``correction``, divides.
    """
    x = _rows("cov", x)
    if y is not None:
        x = composite.concat([x, _rows("cov", y)], 0)
    n = AVALS[x._aval].shape[1]
    away = x - composite.mean(x, 1, True)
    out = composite.matmul(away, away, transpose_b=True) / max(n - correction, 0.0)
    return ops.reshape(out, ()) if AVALS[out._aval].shape == (1, 1) else out


def corrcoef(x: Any, y: Any = None) -> Any:
    """Correlation coefficients of the rows of a matrix; NaN for a row that does not vary.

    >>> import jitgrad as jg
    >>> jg.corrcoef([[1., 2., 4.], [-2., -4., -8.]]).numpy().round(3)
    array([[ 1., -1.],
           [-1.,  1.]], dtype=float32)
    """
    x = _rows("corrcoef", x)
    if y is not None:
        x = composite.concat([x, _rows("corrcoef", y)], 0)
    away = x - composite.mean(x, 1, True)
    away = away / ops.sqrt(composite.sum(ops.square(away), 1, True))
    out = composite.matmul(away, away, transpose_b=True)
    return ops.reshape(out, ()) if AVALS[out._aval].shape == (1, 1) else out


def _rows(name: str, x: Any) -> Any:
    x = as_float(x)
    shape = AVALS[x._aval].shape
    if len(shape) not in (1, 2):
        raise user_error(ValueError, f"{name}: takes a matrix or a vector, got shape {shape}")
    return x if len(shape) == 2 else ops.reshape(x, (1, *shape))


def standardize(x: Any, axis: Axis = -1, epsilon: float = 1e-6) -> Any:
    """``(x - mean) / sqrt(variance + epsilon)`` over ``axis``: mean 0 and, up to ``epsilon``, variance 1."""
    x = as_float(x)
    away = x - composite.mean(x, axis, True)
    return away / ops.sqrt(composite.mean(ops.square(away), axis, True) + epsilon)


def median(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The middle of the sorted elements over ``axis``, of an even number the mean of both; NaN where one is NaN.

    >>> import jitgrad as jg
    >>> jg.median([3., 1., 2., 10.]).numpy()
    array(2.5, dtype=float32)
    """
    return quantile(x, 0.5, axis, keepdims)


def quantile(x: Any, q: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The value below which a share ``q`` of the elements over ``axis`` lies, between two elements by a straight line.

    ``q`` is a number in [0, 1], or a sequence of them, which makes a first axis. As NumPy's default method; NaN where
    an element is NaN, and of nothing. The gradient goes to the elements at the place, in the order of a stable sort.
    """
    x = as_float(x)
    rows, shape = _rows_over("quantile", x, axis, keepdims)
    n = AVALS[rows._aval].shape[-1]
    given = tensor(q, FLOAT64, "quantile").numpy()
    if given.ndim > 1 or not ((given >= 0) & (given <= 1)).all():
        raise user_error(ValueError, f"quantile: q must be numbers in [0, 1], got {q!r}")
    if n == 0:
        return composite.broadcast_to(beside(tensor(math.nan, AVALS[x._aval].code), x), (*given.shape, *shape))
    rows = along.sort(rows, -1)
    last = rows[..., -1]
    found = []
    for place in (given.ravel() * (n - 1)).tolist():
        low = int(place)
        value, share = rows[..., low], place - low
        if share:
            value = value * (1.0 - share) + rows[..., low + 1] * share
        found.append(ops.reshape(ops.where(last == last, value, last), shape))       # NaNs are sorted last
    if given.ndim:
        return composite.stack(found) if found else creation.zeros((0, *shape), AVALS[x._aval].dtype, device_of(x))
    return found[0]


def _rows_over(name: str, x: Any, axis: Axis, keepdims: bool) -> tuple[Any, tuple[int, ...]]:
    """``x`` with the axes to reduce made one, the last, and the shape of a result."""
    shape = AVALS[x._aval].shape
    gone = axes_of(name, axis, len(shape))
    kept = [i for i in range(len(shape)) if i not in gone]
    rest = tuple(shape[i] for i in kept)
    x = ops.permute_dims(x, (*kept, *sorted(gone)))
    x = ops.reshape(x, (*rest, math.prod(shape[i] for i in gone)))
    return x, tuple(1 if i in gone else n for i, n in enumerate(shape)) if keepdims else rest
