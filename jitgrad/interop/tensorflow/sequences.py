"""Running sums, sorting, repeating and adding at indices, with TensorFlow's argument names."""

from __future__ import annotations

import math
from typing import Any

import jitgrad as jg
from jitgrad import ops
from jitgrad.core.aval import stands_for_int
from jitgrad.core.errors import user_error
from jitgrad.ops.axes import axis_index


def _scan(op: Any, name: str, x: Any, axis: int, exclusive: bool, reverse: bool) -> Any:
    x = jg.asarray(x)
    return op(x, axis_index(name, axis, x.ndim), bool(exclusive), bool(reverse))


def cumsum(x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None) -> Any:
    """`jg.cumulative_sum`, also without the element itself and from the end.

    >>> import jitgrad.interop.tensorflow as tf
    >>> tf.cumsum([1, 2, 3], exclusive=True, reverse=True).numpy()
    array([5, 3, 0], dtype=int32)
    """
    return _scan(ops.cumulative_sum, "cumsum", x, axis, exclusive, reverse)


def cumprod(x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None) -> Any:
    """`jg.cumulative_prod`, also without the element itself and from the end."""
    return _scan(ops.cumulative_prod, "cumprod", x, axis, exclusive, reverse)


def cumulative_logsumexp(x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False,
                         name: str | None = None) -> Any:
    """`jg.logcumsumexp`, also without the element itself (then it begins with -inf) and from the end."""
    return _scan(ops.logcumsumexp, "cumulative_logsumexp", x, axis, exclusive, reverse)


def reduce_prod(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.prod`."""
    return jg.prod(input_tensor, axis, keepdims)


def reduce_any(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.any`."""
    return jg.any(input_tensor, axis, keepdims)


def reduce_all(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.all`."""
    return jg.all(input_tensor, axis, keepdims)


def _falling(direction: str) -> bool:
    if direction not in ("ASCENDING", "DESCENDING"):
        raise user_error(ValueError, f"sort: direction must be 'ASCENDING' or 'DESCENDING', got {direction!r}")
    return direction == "DESCENDING"


def sort(values: Any, axis: int = -1, direction: str = "ASCENDING", name: str | None = None) -> Any:
    """`jg.sort`."""
    return jg.sort(values, axis, _falling(direction))


def argsort(values: Any, axis: int = -1, direction: str = "ASCENDING", stable: bool = False,
            name: str | None = None) -> Any:
    """`jg.argsort` as int32; always stable."""
    return jg.astype(jg.argsort(values, axis, _falling(direction)), jg.int32)


def top_k(input: Any, k: int = 1, sorted: bool = True, name: str | None = None) -> tuple[Any, Any]:
    """`jg.top_k` along the last axis, indices int32; always sorted."""
    values, indices = jg.top_k(input, k)
    return values, jg.astype(indices, jg.int32)


def reverse(tensor: Any, axis: Any, name: str | None = None) -> Any:
    """`jg.flip`."""
    return jg.flip(tensor, axis)


def roll(input: Any, shift: Any, axis: Any, name: str | None = None) -> Any:
    """`jg.roll`."""
    return jg.roll(input, shift, axis)


def tile(input: Any, multiples: Any, name: str | None = None) -> Any:
    """`jg.tile`."""
    return jg.tile(input, multiples)


def repeat(input: Any, repeats: Any, axis: int | None = None, name: str | None = None) -> Any:
    """`jg.repeat`."""
    return jg.repeat(input, repeats, axis)


def pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0, name: str | None = None) -> Any:
    """`jg.pad`; modes are CONSTANT, REFLECT and SYMMETRIC in capitals or not."""
    return jg.pad(tensor, paddings, mode.lower(), constant_values)


def split(value: Any, num_or_size_splits: Any, axis: int = 0, num: int | None = None,
          name: str = "split") -> list[Any]:
    """Parts of one length (how many), or of the given lengths, one of which may be -1."""
    if stands_for_int(num_or_size_splits):
        return jg.split(value, num_or_size_splits, axis)
    sizes = [int(n) for n in num_or_size_splits]
    value = jg.asarray(value)
    total = value.shape[axis_index("split", axis, value.ndim)]
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = total - sum(sizes) - 1
    if sum(sizes) != total or min(sizes, default=0) < 0:
        raise user_error(ValueError, f"split: sizes {list(num_or_size_splits)} do not add up to the {total} elements "
                                     f"along axis {axis} of shape {value.shape}")
    return jg.split(value, [sum(sizes[:k]) for k in range(1, len(sizes))], axis)


def einsum(equation: str, *inputs: Any, **kwargs: Any) -> Any:
    """`jg.einsum`; ``optimize`` and ``name`` are ignored."""
    return jg.einsum(equation, *inputs)


def tensordot(a: Any, b: Any, axes: Any, name: str | None = None) -> Any:
    """`jg.tensordot`."""
    return jg.tensordot(a, b, axes)


def meshgrid(*args: Any, **kwargs: Any) -> list[Any]:
    """`jg.meshgrid` with ``indexing``; ``name`` is ignored."""
    return jg.meshgrid(*args, indexing=kwargs.get("indexing", "xy"))


def gather_nd(params: Any, indices: Any, batch_dims: int = 0, name: str | None = None) -> Any:
    """Slices of ``params`` at index tuples in the last axis of ``indices``. No ``batch_dims``."""
    if batch_dims:
        raise user_error(ValueError, "gather_nd: batch_dims other than 0 is not offered")
    indices = jg.asarray(indices)
    return jg.asarray(params)[tuple(jg.unstack(indices, axis=-1))]


def tensor_scatter_nd_add(tensor: Any, indices: Any, updates: Any, name: str | None = None) -> Any:
    """``tensor`` with ``updates`` added at index tuples in the last axis of ``indices``; repeated ones add up.

    >>> import jitgrad.interop.tensorflow as tf
    >>> tf.tensor_scatter_nd_add([1, 1, 1], [[0], [2], [2]], [5, 6, 7]).numpy()
    array([ 6,  1, 14], dtype=int32)
    """
    x, indices, updates = jg.asarray(tensor), jg.asarray(indices), jg.asarray(updates)
    depth = indices.shape[-1]
    lengths, rest = x.shape[:depth], x.shape[depth:]
    total = math.prod(lengths)
    place = jg.zeros(indices.shape[:-1], jg.int64)
    for part, n in zip(jg.unstack(indices, axis=-1), lengths, strict=True):
        # an index out of range sends the whole tuple out of range
        place = jg.where((part < 0) | (part >= n) | (place < 0), -total - 1, place * n + jg.astype(part, jg.int64))
    flat = jg.scatter_add(jg.reshape(x, (total, *rest)), place, updates)
    return jg.reshape(flat, x.shape)
