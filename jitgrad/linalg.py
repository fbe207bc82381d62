"""Linear algebra by the array API's names: products and those norms that need no factorisation."""

from __future__ import annotations

import math
from typing import Any

from jitgrad import ops
from jitgrad.core.aval import AVALS
from jitgrad.core.dtypes import NAMES
from jitgrad.core.errors import user_error
from jitgrad.ops import composite
from jitgrad.ops.axes import Axis
from jitgrad.ops.composite import as_float
from jitgrad.ops.composite import matmul as matmul
from jitgrad.ops.composite import matrix_transpose as matrix_transpose


def vector_norm(x: Any, *, axis: Axis = None, keepdims: bool = False, ord: float = 2) -> Any:
    """The p-norm of the elements over ``axis``, all by default: ``sum(|x| ** ord) ** (1 / ord)``.

    ``ord`` inf and -inf give the greatest and the least magnitude, 0 the number of elements that are not 0. Squares do
    not overflow. The gradient is 0 where the norm is 0, and 0 for an element that is 0; ties of the infinite norms
    share it.

    >>> import jitgrad as jg
    >>> jg.linalg.vector_norm([3., 4.]).numpy(), jg.linalg.vector_norm([3., -4.], ord=1).numpy()
    (array(5., dtype=float32), array(7., dtype=float32))
    """
    x = as_float(x)
    if not isinstance(ord, int | float) or ord != ord:
        raise user_error(ValueError, f"vector_norm: ord must be a number, got {ord!r}")
    if ord == 0:
        return composite.sum(ops.cast(x != 0, NAMES[AVALS[x._aval].code]), axis, keepdims)
    if ord == 1:
        return composite.sum(ops.abs(x), axis, keepdims)
    empty = composite.reduction_of("vector_norm", x, axis, keepdims).elements == 0
    if empty and ord > 0:
        return composite.sum(x, axis, keepdims)
    if math.isinf(ord):
        return (composite.max if ord > 0 else composite.min)(ops.abs(x), axis, keepdims)
    return _power_norm(x, axis, keepdims, ord)


def _power_norm(x: Any, axis: Axis, keepdims: bool, ord: float) -> Any:
    """Of x over its greatest magnitude, a constant to derivatives: the norm is homogeneous."""
    scale = composite.max(ops.abs(ops.stop_gradient(x)), axis, True)
    scale = ops.where((scale > 0) & (scale < math.inf), scale, 1)
    x = x / scale
    if ord == 2:
        out = ops.sqrt(composite.sum(ops.square(x), axis, True))
    else:
        size = ops.abs(x)
        zero = size == 0
        powers = ops.where(zero, 0.0 if ord > 0 else math.inf, ops.power(ops.where(zero, 1, size), float(ord)))
        total = composite.sum(powers, axis, True)
        none = (total == 0) | (total == math.inf)
        out = ops.where(none, 0.0 if ord < 0 else total, ops.power(ops.where(none, 1, total), 1.0 / ord))
    shape = composite.reduction_of("vector_norm", x, axis, keepdims).shape
    out = out * scale
    return out if shape is None else ops.reshape(out, shape)


def matrix_norm(x: Any, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """A norm of the matrices in the last two axes: "fro" (the root of the sum of squares), 1 and inf (the greatest
    sum of magnitudes of a column, of a row), -1 and -inf (the least).

    Those that need singular values ("nuc", 2, -2) raise ValueError.
    """
    x = as_float(x)
    shape = AVALS[x._aval].shape
    if len(shape) < 2:
        raise user_error(ValueError, f"matrix_norm: shape {shape} has no two axes")
    if ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord not in (1, -1, math.inf, -math.inf):
        raise user_error(ValueError, f"matrix_norm: ord must be 'fro', 1, -1, inf or -inf, got {ord!r}")
    sums = composite.sum(ops.abs(x), -2 if abs(ord) == 1 else -1, True)
    return (composite.max if ord > 0 else composite.min)(sums, (-2, -1), keepdims)
