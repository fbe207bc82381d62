"""Tensors made from nothing but a shape or a range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import AVALS, as_shape, aval
from jitgrad.core.device import LOOSE, along, moved, placed
from jitgrad.core.dtypes import CODES, DTYPES, INT32, INT64, code_of, default_float
from jitgrad.core.errors import user_call, user_error
from jitgrad.core.primitive import OPS
from jitgrad.core.record import tensor

__all__ = ["arange", "asarray", "constant", "eye", "full", "linspace", "ones", "ones_like", "zeros", "zeros_like"]


def from_array(array: Any, code: int, device: Any = None) -> Any:
    """A Tensor with a copy of an array's elements in the dtype of ``code``, where new Tensors are made or told."""
    array = _numpy(np.ascontiguousarray, array, DTYPES[code]).reshape(np.shape(array))
    return placed(backend.current().tensor(array, aval(code, array.shape)), device)


def _numpy(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function of NumPy makes, its errors told as the user's call."""
    try:
        return make(*args, **kwargs)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, MemoryError) as error:
        kind = MemoryError if isinstance(error, MemoryError) else type(error)
        raise user_error(kind, f"{user_call()}: {str(error).rstrip('.')}") from None


def _dtype(dtype: Any) -> int:
    return default_float() if dtype is None else code_of(dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None, device: Any = None) -> Any:
    """A Tensor of ``shape`` with one value everywhere; its dtype by the value where not given."""
    shape = as_shape(shape)
    value = _own(fill_value, tensor(fill_value, None if dtype is None else code_of(dtype), "full"))
    made = aval(AVALS[value._aval].code, shape)
    if made.ndim == 0:
        return value if device is None else moved(value, device)
    return from_array(np.broadcast_to(value.numpy(), shape), made.code, device)


def zeros(shape: Any, dtype: Any = None, device: Any = None) -> Any:
    """Zeros in the default float dtype, or ``dtype``; on the device of a `device` block around, or ``device``.

    >>> import jitgrad as jg
    >>> jg.zeros((2,))
    <jg.Tensor: shape=(2,), dtype=float32, numpy=array([0., 0.], dtype=float32)>
    """
    return _filled(shape, 0, dtype, device)


def ones(shape: Any, dtype: Any = None, device: Any = None) -> Any:
    """Ones in the default float dtype, or ``dtype``."""
    return _filled(shape, 1, dtype, device)


def _filled(shape: Any, value: int, dtype: Any, device: Any) -> Any:
    made = aval(_dtype(dtype), as_shape(shape))
    try:
        return placed(backend.current().tensor(np.full(made.shape, value, made.dtype), made), device)
    except MemoryError:
        raise user_error(MemoryError, f"no memory for a Tensor of shape {made.shape} and dtype {made.dtype} "
                                      f"({made.nbytes / 2**30:.1f} GiB)") from None


def zeros_like(x: Any, dtype: Any = None, device: Any = None) -> Any:
    """Zeros of the shape and dtype of ``x``, where that is."""
    return _like(zeros, x, dtype, device)


def ones_like(x: Any, dtype: Any = None, device: Any = None) -> Any:
    """Ones of the shape and dtype of ``x``, where that is."""
    return _like(ones, x, dtype, device)


def _like(make: Callable[..., Any], x: Any, dtype: Any, device: Any) -> Any:
    x = tensor(x)
    like = AVALS[x._aval]
    made = make(like.shape, like.dtype if dtype is None else dtype, device)
    return made if device is not None else along(made, x)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, device: Any = None) -> Any:
    """Numbers from ``start`` (0 if only one is given) up to ``stop``, exclusive; integers are int32 where they fit."""
    if stop is None:
        start, stop = 0, start
    array = _numpy(np.arange, start, stop, step)
    if dtype is not None:
        return from_array(array, code_of(dtype), device)
    if array.dtype.kind == "f":
        return from_array(array, default_float(), device)
    fits = array.size == 0 or (array.min() >= -2**31 and array.max() < 2**31)
    return from_array(array, INT32 if fits else INT64, device)


def linspace(start: Any, stop: Any, num: int = 50, dtype: Any = None, endpoint: bool = True, device: Any = None) -> Any:
    """``num`` evenly spaced numbers from ``start`` to ``stop``."""
    return from_array(_numpy(np.linspace, _numpy(float, start), _numpy(float, stop), _numpy(int, num),
                             endpoint=endpoint), _dtype(dtype), device)


def eye(n_rows: int, n_cols: int | None = None, k: int = 0, dtype: Any = None, device: Any = None) -> Any:
    """Ones on the k-th diagonal, else zeros."""
    return from_array(_numpy(np.eye, n_rows, n_cols, k), _dtype(dtype), device)


def asarray(obj: Any, dtype: Any = None, copy: bool | None = None, device: Any = None) -> Any:
    """A Tensor from anything that holds numbers. NumPy arrays are copied and keep their dtype.

    Arrays of other libraries on a GPU (with ``__cuda_array_interface__``) are not copied, and must not change while the
    Tensor is in use. With ``device`` the numbers are put there; a Tensor keeps its own otherwise.

    Python floats become the default float (float32), ints int32 (int64 if out of range). Raises TypeError for
    strings and objects, ValueError for ragged sequences.
    """
    made = _own(obj, tensor(obj, None if dtype is None else code_of(dtype)))
    return made if device is None else made.to_device(device)


def _own(given: Any, made: Any) -> Any:
    """What was made of a Variable is a Tensor of its own; what was made of an array stays where it is."""
    if type(given) is backend.current().Variable:
        return OPS["reshape"](made, AVALS[made._aval].shape)
    if made is given and made._tracked & LOOSE:      # an array that a function was given: it goes on to follow others
        return placed(OPS["reshape"](made, AVALS[made._aval].shape))
    made._tracked &= ~LOOSE
    return made


def constant(value: Any, dtype: Any = None, shape: Any = None, name: str | None = None, device: Any = None) -> Any:
    """A Tensor with the given value; ``shape`` reshapes it, or fills with a single value. ``device`` as of `asarray`.

    >>> import jitgrad as jg
    >>> jg.constant([1, 2])
    <jg.Tensor: shape=(2,), dtype=int32, numpy=array([1, 2], dtype=int32)>
    """
    code = None if dtype is None else code_of(dtype)
    made = _own(value, tensor(value, code, "constant"))
    if shape is None:
        return made if device is None else made.to_device(device)
    shape = as_shape(shape)
    array = made.numpy()
    if array.size != int(np.prod(shape, dtype=np.int64)) and array.size != 1:
        raise user_error(ValueError, f"constant: {array.size} elements do not fill shape {shape}")
    array = np.broadcast_to(array, shape) if array.size == 1 else array.reshape(shape)
    return from_array(array, CODES[array.dtype], device)
