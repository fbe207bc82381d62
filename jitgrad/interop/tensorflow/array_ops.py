"""Making, shaping and picking from Tensors, with TensorFlow's argument names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jitgrad as jg
from jitgrad.core.errors import user_error


def convert_to_tensor(value: Any, dtype: Any = None, dtype_hint: Any = None, name: str | None = None) -> Any:
    """`jg.asarray`; ``dtype_hint`` and ``name`` are ignored."""
    return jg.asarray(value, dtype)


def ones(shape: Any, dtype: Any = jg.float32, name: str | None = None) -> Any:
    """`jg.ones`, float32 unless told otherwise."""
    return jg.ones(shape, dtype)


def zeros(shape: Any, dtype: Any = jg.float32, name: str | None = None) -> Any:
    """`jg.zeros`, float32 unless told otherwise."""
    return jg.zeros(shape, dtype)


def ones_like(input: Any, dtype: Any = None, name: str | None = None) -> Any:
    """`jg.ones_like`."""
    return jg.ones_like(input, dtype)


def zeros_like(input: Any, dtype: Any = None, name: str | None = None) -> Any:
    """`jg.zeros_like`."""
    return jg.zeros_like(input, dtype)


def fill(dims: Any, value: Any, name: str | None = None) -> Any:
    """`jg.full`."""
    return jg.full(dims, value)


def eye(num_rows: int, num_columns: int | None = None, batch_shape: Any = None, dtype: Any = jg.float32,
        name: str | None = None) -> Any:
    """`jg.eye`, repeated for each matrix of ``batch_shape``."""
    one = jg.eye(num_rows, num_columns, dtype=dtype)
    return one if batch_shape is None else jg.broadcast_to(one, (*batch_shape, *one.shape))


def range(start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None, name: str = "range") -> Any:
    """`jg.arange`."""
    return jg.arange(start, limit, delta, dtype)


def linspace(start: Any, stop: Any, num: int, name: str | None = None, axis: int = 0) -> Any:
    """`jg.linspace` between two numbers; their dtype if they are Tensors. No ``axis``."""
    if axis != 0:
        raise user_error(ValueError, "linspace: between Tensors along an axis is not offered")
    dtype = getattr(start, "dtype", None)
    return jg.linspace(start, stop, num, dtype)


def reshape(tensor: Any, shape: Any, name: str | None = None) -> Any:
    """`jg.reshape`."""
    return jg.reshape(tensor, shape)


def transpose(a: Any, perm: Any = None, conjugate: bool = False, name: str = "transpose") -> Any:
    """`jg.permute_dims`; dtypes are real, so ``conjugate`` changes nothing."""
    return jg.permute_dims(a, perm)


def concat(values: Any, axis: int, name: str = "concat") -> Any:
    """`jg.concat`; a single Tensor is returned as it is."""
    return jg.concat(values if isinstance(values, list | tuple) else [values], axis)


def stack(values: Sequence[Any], axis: int = 0, name: str = "stack") -> Any:
    """`jg.stack`."""
    return jg.stack(values, axis)


def unstack(value: Any, num: int | None = None, axis: int = 0, name: str = "unstack") -> list[Any]:
    """A list of the slices along an axis."""
    return list(jg.unstack(value, axis))


def expand_dims(input: Any, axis: int, name: str | None = None) -> Any:
    """`jg.expand_dims`."""
    return jg.expand_dims(input, axis)


def squeeze(input: Any, axis: Any = None, name: str | None = None) -> Any:
    """`jg.squeeze`."""
    return jg.squeeze(input, axis)


def broadcast_to(input: Any, shape: Any, name: str | None = None) -> Any:
    """`jg.broadcast_to`."""
    return jg.broadcast_to(input, shape)


def gather(params: Any, indices: Any, validate_indices: Any = None, axis: int | None = None, batch_dims: int = 0,
           name: str | None = None) -> Any:
    """`jg.take` along the first axis unless told otherwise; gradients are dense, ``batch_dims`` is 0."""
    if batch_dims:
        raise user_error(ValueError, f"gather: batch_dims must be 0, got {batch_dims}")
    return jg.take(params, indices, 0 if axis is None else axis)


def one_hot(indices: Any, depth: int, on_value: Any = None, off_value: Any = None, axis: int | None = None,
            dtype: Any = None, name: str | None = None) -> Any:
    """`jg.one_hot`, with other values than 1 and 0 if given; the new axis is the last one."""
    if axis not in (None, -1):
        raise user_error(ValueError, f"one_hot: the new axis is the last one, got axis {axis}")
    hot = jg.one_hot(indices, int(depth), dtype)
    if on_value is None and off_value is None:
        return hot
    on, off = 1 if on_value is None else on_value, 0 if off_value is None else off_value
    out = jg.where(hot != 0, on, off)
    return out if dtype is None else jg.astype(out, dtype)


def where(condition: Any, x: Any = None, y: Any = None, name: str | None = None) -> Any:
    """`jg.where`; of a condition alone the indices where it holds, one row each, as `jg.nonzero` finds them."""
    if x is None and y is None:
        return jg.stack(jg.nonzero(condition), -1)
    if x is None or y is None:
        raise user_error(ValueError, "where: needs both x and y, or neither")
    return jg.where(condition, x, y)


def cast(x: Any, dtype: Any, name: str | None = None) -> Any:
    """`jg.astype`."""
    return jg.astype(x, dtype)


def identity(input: Any, name: str | None = None) -> Any:
    """`jg.identity`."""
    return jg.identity(input)


def stop_gradient(input: Any, name: str | None = None) -> Any:
    """`jg.stop_gradient`."""
    return jg.stop_gradient(input)


def shape(input: Any, out_type: Any = jg.int32, name: str | None = None) -> Any:
    """The lengths of the axes as an integer Tensor."""
    return jg.asarray(list(jg.asarray(input).shape), out_type)


def size(input: Any, out_type: Any = jg.int32, name: str | None = None) -> Any:
    """The number of elements as an integer Tensor."""
    return jg.asarray(jg.asarray(input).size, out_type)


def rank(input: Any, name: str | None = None) -> Any:
    """The number of axes as an integer Tensor."""
    return jg.asarray(jg.asarray(input).ndim)
