"""Functions of ops: the array API's names over the table, with axes normalised and results squeezed.

Parameters that reach the machine come out of a cache, so that they are the same objects at every call and the
inline caches of the ops recognise them.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import AVALS, Aval, as_length, as_shape, broadcast_shapes, stands_for_int
from jitgrad.core.dtypes import FLOAT32, NAMES, code_of, default_float, is_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import loose, tensor
from jitgrad.ops.axes import Axis, as_axes, axes_of, axis_index, axis_of

__all__ = ["argmax", "argmin", "astype", "broadcast_to", "clip", "concat", "expand_dims", "identity", "log_softmax",
           "logsumexp", "matmul", "matrix_transpose", "max", "mean", "min", "one_hot", "permute_dims", "reshape",
           "softmax", "squeeze", "stack", "sum", "take"]


def aval_of(x: Any) -> Aval:
    """Shape and dtype of a Tensor."""
    return AVALS[x._aval]


# ---- reductions ----------------------------------------------------------------------------------

class Reduction(NamedTuple):
    """How a reduction of some aval over some axes is put together."""

    groups: tuple[tuple[int, ...], ...]     # adjacent axes, the last group first
    shape: tuple[int, ...] | None           # to squeeze to, or None
    elements: float                         # how many meet in one


@functools.lru_cache(maxsize=4096, typed=True)
def _reduction(name: str, aval_id: int, axis: int | tuple[int, ...] | None, keepdims: bool) -> Reduction:
    aval = AVALS[aval_id]
    axes = sorted(axes_of(name, axis, aval.ndim))
    groups: list[list[int]] = []
    for a in axes:
        if groups and groups[-1][-1] == a - 1:
            groups[-1].append(a)
        else:
            groups.append([a])
    count = math.prod(aval.shape[a] for a in axes)
    shape = None if keepdims or not axes else tuple(n for i, n in enumerate(aval.shape) if i not in axes)
    return Reduction(tuple(tuple(group) for group in reversed(groups)) or ((),), shape, float(count))


def reduction_of(name: str, x: Any, axis: Axis, keepdims: bool) -> Reduction:
    """The cached `Reduction`; lists of axes and NumPy integers are welcome."""
    try:
        return _reduction(name, x._aval, axis, keepdims)
    except TypeError:
        return _reduction(name, x._aval, as_axes(name, axis), bool(keepdims))


def reduced(op: Any, x: Any, how: Reduction) -> Any:
    """``x`` reduced by an op, group by group, and squeezed."""
    for group in how.groups:
        x = op(x, group)
    return x if how.shape is None else ops.reshape(x, how.shape)


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum over ``axis`` (all axes by default). Integers keep their dtype, booleans count as int32.

    >>> import jitgrad as jg
    >>> jg.sum(jg.constant([[1., 2.], [3., 4.]]), axis=0)
    <jg.Tensor: shape=(2,), dtype=float32, numpy=array([4., 6.], dtype=float32)>
    """
    x = tensor(x)
    return reduced(ops.reduce_sum, x, reduction_of("sum", x, axis, keepdims))


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Arithmetic mean over ``axis`` (all axes by default); of integers in the default float dtype. Of nothing: NaN."""
    x = tensor(x)
    if AVALS[x._aval].code < FLOAT32:
        x = as_float(x)
    how = reduction_of("mean", x, axis, keepdims)
    return reduced(ops.reduce_sum, x, how) / how.elements


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Greatest element over ``axis``; NaN wins; ties share the gradient equally. No elements raise ValueError."""
    return _extreme("max", ops.reduce_max, x, axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Least element over ``axis``; NaN wins; ties share the gradient equally. No elements raise ValueError."""
    return _extreme("min", ops.reduce_min, x, axis, keepdims)


def _extreme(name: str, op: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    x = tensor(x)
    how = reduction_of(name, x, axis, keepdims)
    out = reduced(op, x, how)
    if how.elements == 0 and aval_of(out).size:
        raise user_error(ValueError, f"{name}: no elements to choose from in shape {aval_of(x).shape}, axis {axis}")
    return out


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Index (int64) of the first greatest element along ``axis``, or in the flattened Tensor."""
    return _position("argmax", ops.argmax, x, axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Index (int64) of the first least element along ``axis``, or in the flattened Tensor."""
    return _position("argmin", ops.argmin, x, axis, keepdims)


def _position(name: str, op: Any, x: Any, axis: int | None, keepdims: bool) -> Any:
    x = tensor(x)
    shape = aval_of(x).shape
    flat = x if axis is not None else ops.reshape(x, (aval_of(x).size,))
    at = axis_index(name, axis, len(shape)) if axis is not None else 0
    if aval_of(flat).shape[at] == 0:
        raise user_error(ValueError, f"{name}: no elements to choose from in shape {shape}, axis {axis}")
    out = op(flat, at)
    if keepdims:
        out = ops.reshape(out, tuple(1 if axis is None or i == at else n for i, n in enumerate(shape)))
    return out


def sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    """Undo broadcasting: add up what was repeated."""
    have = x.shape
    if have == shape:
        return x
    lead = len(have) - len(shape)
    axes = tuple(i for i, n in enumerate(have) if i < lead or shape[i - lead] != n)
    x = reduced(ops.reduce_sum, x, _reduction("sum", x._aval, axes, True))
    return ops.reshape(x, shape) if x.shape != shape else x


# ---- elementwise compositions --------------------------------------------------------------------

def as_float(x: Any) -> Any:
    """A Tensor whose dtype is a float: integers and booleans become the default float."""
    x = tensor(x)
    return x if AVALS[x._aval].code >= FLOAT32 else ops.cast(x, NAMES[default_float()])


def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """``x`` held between ``min`` and ``max``; None leaves a side open; where ``min`` exceeds ``max`` it is ``max``.

    The gradient passes where ``x`` is between the bounds or on one of them, and goes to the bound elsewhere.

    >>> import jitgrad as jg
    >>> jg.clip([-1., 0.5, 9.], 0., 1.).numpy().tolist()
    [0.0, 0.5, 1.0]
    """
    x = tensor(x)
    if min is not None:
        x = ops.maximum(x, min)
    return x if max is None else ops.minimum(x, max)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """``log(sum(exp(x)))`` over ``axis`` without overflow; a slice all of -inf gives -inf with gradient 0."""
    x = as_float(x)
    kept = reduction_of("logsumexp", x, axis, True)
    top = reduced(ops.reduce_max, ops.stop_gradient(x), kept)
    top = ops.where(ops.less(ops.abs(top), math.inf), top, 0)
    total = reduced(ops.reduce_sum, ops.exp(x - top), kept)
    out = ops.where(total == 0, -math.inf, ops.log(ops.where(total == 0, 1, total))) + top
    shape = reduction_of("logsumexp", x, axis, keepdims).shape
    return out if shape is None else ops.reshape(out, shape)


def softmax(x: Any, axis: Axis = -1) -> Any:
    """``exp(x) / sum(exp(x))`` over ``axis``, shifted by the maximum."""
    x = as_float(x)
    how = reduction_of("softmax", x, axis, True)
    e = ops.exp(x - reduced(ops.reduce_max, ops.stop_gradient(x), how))
    return e / reduced(ops.reduce_sum, e, how)


def log_softmax(x: Any, axis: Axis = -1) -> Any:
    """``log(softmax(x))`` over ``axis``, without rounding a small probability to 0."""
    x = as_float(x)
    how = reduction_of("log_softmax", x, axis, True)
    shifted = x - reduced(ops.reduce_max, ops.stop_gradient(x), how)
    return shifted - ops.log(reduced(ops.reduce_sum, ops.exp(shifted), how))


# ---- shapes --------------------------------------------------------------------------------------

def expand_dims(x: Any, axis: int | Sequence[int] = 0) -> Any:
    """``x`` with an axis of length 1 inserted where ``axis`` says, counted in the result."""
    x = tensor(x)
    shape = list(aval_of(x).shape)
    given = as_axes("expand_dims", axis)
    for a in sorted(axes_of("expand_dims", given, len(shape) + len(given))):
        shape.insert(a, 1)
    return ops.reshape(x, tuple(shape))


def squeeze(x: Any, axis: Axis = None) -> Any:
    """``x`` without axes of length 1: those of ``axis``, or all."""
    x = tensor(x)
    shape = aval_of(x).shape
    if axis is None:
        return ops.reshape(x, tuple(n for n in shape if n != 1))
    axes = axes_of("squeeze", axis, len(shape))
    if any(shape[a] != 1 for a in axes):
        raise user_error(ValueError, f"squeeze: axis {axis} of shape {shape} is not of length 1")
    return ops.reshape(x, tuple(n for i, n in enumerate(shape) if i not in axes))


def reshape(x: Any, shape: Any) -> Any:
    """``x`` under another shape; one length may be -1."""
    x = tensor(x)
    if type(shape) is not tuple or any(type(n) is not int for n in shape):
        shape = as_items(shape)
    target = _target(x._aval, shape)
    return ops.reshape(x, target)


def as_items(shape: Any) -> tuple[int, ...]:
    """A shape as a user may write it, -1 included, as a tuple of ints."""
    try:
        return tuple(map(operator.index, (shape,) if stands_for_int(shape) else shape))
    except TypeError:
        raise user_error(TypeError, f"reshape: the shape must be an int or a tuple of ints, got {shape!r}") from None


@functools.lru_cache(maxsize=4096)
def _target(aval_id: int, items: tuple[int, ...]) -> tuple[int, ...]:
    """The shape asked for, with -1 worked out."""
    size = AVALS[aval_id].size
    if -1 in items:
        rest = math.prod(n for n in items if n != -1)
        if items.count(-1) > 1 or rest == 0 or size % rest:
            raise user_error(ValueError, f"reshape: shape {AVALS[aval_id].shape} does not fit {items}")
        items = tuple(size // rest if n == -1 else n for n in items)
    return as_shape(items)


def permute_dims(x: Any, axes: Sequence[int] | None = None) -> Any:
    """Axes in another order (reversed by default): axis i of the result is axis ``axes[i]`` of ``x``."""
    x = tensor(x)
    ndim = aval_of(x).ndim
    order = range(ndim)[::-1] if axes is None else as_axes("permute_dims", axes)
    return ops.permute_dims(x, tuple(axis_index("permute_dims", a, ndim) for a in order))


def matrix_transpose(x: Any) -> Any:
    """The last two axes swapped."""
    x = tensor(x)
    ndim = aval_of(x).ndim
    if ndim < 2:
        raise user_error(ValueError, f"matrix_transpose: shape {aval_of(x).shape} has no two axes to swap")
    return ops.permute_dims(x, (*range(ndim - 2), ndim - 1, ndim - 2))


def broadcast_to(x: Any, shape: Any) -> Any:
    """``x`` repeated along new axes in front and along its axes of length 1."""
    return ops.broadcast_to(tensor(x), as_shape(shape))


def _tensors(name: str, xs: Any) -> list[Any]:
    try:
        given = list(xs)
    except TypeError:
        raise user_error(TypeError, f"{name}: needs a sequence of Tensors, got {type(xs).__name__}") from None
    return [tensor(x, what=name) for x in given]


def concat(xs: Sequence[Any], axis: int | None = 0) -> Any:
    """Tensors one after the other along ``axis`` (flattened first if None)."""
    parts = _tensors("concat", xs)
    if not parts:
        raise user_error(ValueError, "concat: needs at least one Tensor")
    if axis is None:
        parts, axis = [ops.reshape(x, (aval_of(x).size,)) for x in parts], 0
    at = axis_index("concat", axis, aval_of(parts[0]).ndim)
    while len(parts) > 1:           # by halves, so that each element moves log2(n) times
        parts = [ops.concat(*parts[i: i + 2], axis=at) if i + 1 < len(parts) else parts[i]
                 for i in range(0, len(parts), 2)]
    return parts[0]


def stack(xs: Sequence[Any], axis: int = 0) -> Any:
    """Tensors of one shape along a new axis."""
    parts = _tensors("stack", xs)
    shapes = {aval_of(x).shape for x in parts}
    if len(shapes) != 1:
        raise user_error(ValueError, f"stack: needs Tensors of one shape, got {sorted(shapes)}")
    return concat([expand_dims(x, axis) for x in parts], axis)


def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Elements along ``axis`` at integer ``indices`` of any shape; negative ones count from the end.

    An index out of range raises IndexError. The gradient adds up where an index repeats.
    """
    x = tensor(x)
    return ops.gather(x, tensor(indices), axis_of("take", x, axis))


def one_hot(indices: Any, depth: int, dtype: Any = None) -> Any:
    """1 at each index along a new last axis of length ``depth``, else 0; an index out of range gives zeros."""
    indices = tensor(indices)
    depth = as_length(depth, "one_hot: depth")
    if is_float(aval_of(indices).code):
        raise user_error(TypeError, f"one_hot: indices must be integers, got {aval_of(indices).dtype}")
    hit = expand_dims(indices, -1) == loose(np.arange(depth, dtype=aval_of(indices).dtype))
    return ops.cast(hit, NAMES[default_float() if dtype is None else code_of(dtype)])


def matmul(x: Any, y: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    """Matrix product over the last two axes; a vector is a row on the left, a column on the right.

    Leading axes broadcast. ``transpose_a`` and ``transpose_b`` take a matrix transposed without moving it.
    """
    x, y = tensor(x), tensor(y)
    a, b = aval_of(x), aval_of(y)
    if a.ndim == 0 or b.ndim == 0:
        raise user_error(ValueError, f"matmul: operands need at least one axis, got shapes {a.shape} and {b.shape}")
    if a.ndim == 1 or b.ndim == 1:
        left = ops.reshape(x, (1, a.size)) if a.ndim == 1 else x
        right = ops.reshape(y, (b.size, 1)) if b.ndim == 1 else y
        out = matmul(left, right, transpose_a and a.ndim > 1, transpose_b and b.ndim > 1)
        shape = aval_of(out).shape
        shape = shape[:-2] + shape[-1:] if a.ndim == 1 else shape
        return ops.reshape(out, shape[:-1] if b.ndim == 1 else shape)
    if a.shape[:-2] != b.shape[:-2]:
        if b.ndim == 2 and not transpose_a:           # one matrix for all rows of a stack
            rows = ops.matmul(ops.reshape(x, (math.prod(a.shape[:-1]), a.shape[-1])), y, False, transpose_b)
            return ops.reshape(rows, (*a.shape[:-1], aval_of(rows).shape[-1]))
        lead = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        if lead is None:
            raise user_error(ValueError, f"matmul: shapes {a.shape} and {b.shape} do not broadcast together")
        x = ops.broadcast_to(x, (*lead, *a.shape[-2:]))
        y = ops.broadcast_to(y, (*lead, *b.shape[-2:]))
    return ops.matmul(x, y, bool(transpose_a), bool(transpose_b))


def astype(x: Any, dtype: Any) -> Any:
    """The same values in another dtype (see `cast` for the edges)."""
    x = tensor(x)
    code = code_of(dtype)
    return x if aval_of(x).code == code else ops.cast(x, NAMES[code])


def identity(x: Any) -> Any:
    """A Tensor distinct from ``x`` with its values; the gradient passes."""
    x = tensor(x)
    return ops.reshape(x, aval_of(x).shape)
