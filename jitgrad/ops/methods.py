"""Methods of Tensor and Variable that are operations."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import AVALS
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import OPS, TABLE
from jitgrad.core.record import tensor
from jitgrad.ops import composite


def getitem(x: Any, key: Any) -> Any:
    """``x[key]`` for ints, slices, ``...``, ``None`` and one integer or boolean array among them."""
    x = tensor(x)
    parts = key if isinstance(key, tuple) else (key,)
    if all(type(p) in (int, slice, type(None), type(...)) for p in parts):
        return _regular(x, parts)
    return _with_array(x, [p if _is_plain(p) else _as_index(p) for p in parts])


def _is_plain(part: Any) -> bool:
    return part is None or part is ... or isinstance(part, slice)


def _as_index(part: Any) -> Any:
    """An int, or an array of integers or booleans."""
    if isinstance(part, int) and not isinstance(part, bool):
        return part
    if hasattr(part, "__index__") and np.ndim(part) == 0 and not isinstance(part, bool | np.bool_):
        return operator.index(part)
    index = tensor(part, what="index")
    if index.dtype.kind == "f":
        raise user_error(IndexError, f"index: only integers, slices, None, ... and integer or boolean arrays pick "
                                     f"elements, got dtype {index.dtype}")
    return index


def _regular(x: Any, parts: tuple[Any, ...]) -> Any:
    frozen = tuple((p.start, p.stop, p.step) if isinstance(p, slice) else p for p in parts)
    try:
        spans, shape = _spans(x._aval, frozen)
    except TypeError:
        frozen = tuple(tuple(map(_bound, p)) if isinstance(p, tuple) else p for p in frozen)
        spans, shape = _spans(x._aval, frozen)
    out = ops.slice(x, spans)
    return out if shape is None else ops.reshape(out, shape)


def _bound(v: Any) -> int | None:
    try:
        return None if v is None else operator.index(v)
    except TypeError:
        raise user_error(TypeError, f"index: a slice is made of ints or None, got {v!r}") from None


@functools.lru_cache(maxsize=4096, typed=True)
def _spans(aval_id: int, parts: tuple[Any, ...]) -> tuple[Any, tuple[int, ...] | None]:
    """Spans per axis, and the shape after dropping ints and adding None, or None if that is the same."""
    shape = AVALS[aval_id].shape
    used = sum(p is not None and p is not ... for p in parts)
    if used > len(shape):
        raise user_error(IndexError, f"index: {used} indices for shape {shape}")
    if sum(p is ... for p in parts) > 1:
        raise user_error(IndexError, f"index: only one ... picks axes of shape {shape}")
    if any(isinstance(p, tuple) and p[2] == 0 for p in parts):
        raise user_error(ValueError, f"index: the step of a slice must not be 0 (shape {shape})")
    parts = parts if any(p is ... for p in parts) else (*parts, ...)
    spans: list[tuple[int, int, int]] = []
    final: list[int] = []
    for p in parts:
        n = shape[len(spans)] if len(spans) < len(shape) else 0
        if p is None:
            final.append(1)
        elif p is ...:
            for m in shape[len(spans): len(spans) + len(shape) - used]:
                spans.append((0, m, 1))
                final.append(m)
        elif isinstance(p, tuple):
            picked = range(*slice(*p).indices(n))
            spans.append((picked.start if len(picked) else 0, len(picked), picked.step))
            final.append(len(picked))
        else:
            if not -n <= p < n:
                raise user_error(IndexError, f"index: {p} is out of range for axis {len(spans)} of shape {shape}")
            spans.append((p % n, 1, 1))
    kept = tuple(count for _, count, _ in spans)
    return tuple(spans), None if kept == tuple(final) else tuple(final)


def _with_array(x: Any, parts: list[Any]) -> Any:
    """One array among regular parts: the regular ones first, then a gather along the array's axis."""
    arrays = [i for i, p in enumerate(parts) if not _is_plain(p) and not isinstance(p, int)]
    if not arrays:
        return _regular(x, tuple(parts))
    if len(arrays) > 1:
        raise user_error(IndexError, "index: one integer or boolean array at a time; use take or reshape for more")
    at = arrays[0]
    index = parts[at]
    width = index.ndim if index.dtype.kind == "b" else 1
    if index.dtype.kind == "b" and width == 0:
        raise user_error(IndexError, "index: a boolean array needs at least one axis")
    x = _regular(x, (*parts[:at], *[slice(None)] * width, *parts[at + 1:]))
    after_ellipsis = ... in [p for p in parts[:at] if _is_plain(p)]
    if after_ellipsis:
        axis = x.ndim - width - sum(not isinstance(p, int) for p in parts[at + 1:])
    else:
        axis = sum(not isinstance(p, int) for p in parts[:at])
    if index.dtype.kind == "b":
        if x.shape[axis: axis + width] != index.shape:
            raise user_error(IndexError, f"index: a mask of shape {index.shape} does not fit axes of shape {x.shape}")
        x = ops.reshape(x, (*x.shape[:axis], index.size, *x.shape[axis + width:]))
        index = tensor(np.flatnonzero(index.numpy()))
    return ops.gather(x, index, axis)


def array_ufunc(self: Any, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """NumPy's functions on Tensors: the op whose reference the ufunc is, else NumPy on the elements."""
    op = _ufuncs().get(ufunc)
    if method == "__call__" and not kwargs and op is not None:
        return op(*inputs)
    arrays = [x.numpy() if hasattr(x, "_aval") or hasattr(x, "_value") else x for x in inputs]
    return getattr(ufunc, method)(*arrays, **kwargs)


@functools.cache
def _ufuncs() -> dict[Any, Any]:
    found = {p.ref: OPS[p.name] for p in TABLE if isinstance(p.ref, np.ufunc)}
    return {**found, np.matmul: composite.matmul, np.true_divide: OPS["divide"]}


class Operations:
    """Methods that Tensor and Variable share."""

    __getitem__ = getitem
    __array_ufunc__ = array_ufunc

    @property
    def T(self) -> Any:
        """The transpose of a matrix."""
        return composite.matrix_transpose(self)

    @property
    def mT(self) -> Any:
        """The last two axes swapped."""
        return composite.matrix_transpose(self)

    def __pos__(self) -> Any:
        return composite.identity(self)

    def __divmod__(self, other: Any) -> Any:
        return ops.floor_divide(self, other), ops.remainder(self, other)
